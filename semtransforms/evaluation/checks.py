"""What is found out about data and countermeasures before any training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semtransforms.core.grid import to_float
from semtransforms.core.keys import index_keys
from semtransforms.core.pretrained.libraries import DEFAULT, find, is_of_library
from semtransforms.core.pretrained.network import build_from_library
from semtransforms.data.loading import Labelled
from semtransforms.data.photographs import Photographs
from semtransforms.evaluation.countermeasures import (
    CleanOnly,
    Countermeasure,
    InformedTrainer,
    Learned,
    apply_at_test,
    apply_before_resize,
    apply_stored,
)
from semtransforms.evaluation.victims import VictimConfig
from semtransforms.evaluation.victims.probe import refuse_batches
from semtransforms.evaluation.victims.validation import validation_images
from semtransforms.views.windows import centre_squares


def check_test(clean: Labelled | Photographs, tests: Labelled | Photographs) -> None:
    """See that accuracy on the test images says something.

    Args:
        clean, tests: training and test data.

    Raises:
        ValueError: other classes, another size, or images that are training images too.
    """
    if isinstance(clean, Labelled) and isinstance(tests, Labelled) and tests.images.shape[1:] != clean.images.shape[1:]:
        raise ValueError(
            f"test images are {tuple(tests.images.shape[2:])}, training images {tuple(clean.images.shape[2:])}. "
            "Pass image_size=(height, width) to bring both to one size."
        )
    if int(tests.labels.max()) > int(clean.labels.max()):
        raise ValueError(
            f"test has label {int(tests.labels.max())}, training labels end at {int(clean.labels.max())}: another "
            "numbering? Use test data of the same classes."
        )
    if clean.classes and tests.classes and clean.classes != tests.classes:
        raise ValueError(
            f"test has the classes {', '.join(tests.classes)}; the training data have {', '.join(clean.classes)}. "
            "Labels must mean the same in both."
        )
    known = set(_digests(clean))
    if common := [k for k, digest in enumerate(_digests(tests)) if digest in known]:
        raise ValueError(
            f"test shares {len(common)} of its {len(tests.labels)} images with the training data (first at index "
            f"{common[0]}): accuracy on them says nothing. Leave them out of test."
        )


def _digests(data: Labelled | Photographs) -> Sequence[bytes]:
    if isinstance(data, Photographs):
        return data.digests
    return [hashlib.sha256(image.numpy().tobytes()).digest() for image in data.images]


def check_on_samples(
    clean: Labelled | Photographs,
    configs: Mapping[str, VictimConfig],
    countermeasures: Mapping[str, tuple[Countermeasure, ...]],
    seed: int,
) -> None:
    """Find what is wrong with a countermeasure or a network, on an image of each class and a few more.

    Args:
        clean: the training data.
        configs: name -> victim.
        countermeasures: name -> parts, in order.
        seed: of their draws.

    Raises:
        ValueError: one changes the size of the images, does not fit the labels, needs what is not kept, or leaves a
            victim no images to validate on; or a victim's network does not take images of this size.
    """
    if isinstance(clean, Labelled):
        size = (clean.images.shape[2], clean.images.shape[3])
        for network in dict.fromkeys(config.network for config in configs.values() if config.pretrained is None):
            if is_of_library(network):
                _try_size(network, size, train_size=None)
    classes = clean.labels.unique()  # type: ignore[no-untyped-call]
    rows = torch.tensor([int((clean.labels == label).nonzero()[0]) for label in classes])
    rows = torch.cat([rows, torch.arange(min(32, len(clean.labels)))]).unique()  # type: ignore[no-untyped-call]
    sides = sorted({config.train_size or 0 for config in configs.values()})
    for name, parts in countermeasures.items():
        for some, left_to_do in _samples_as_trained(clean, rows, parts, sides, seed):
            _try_out(left_to_do, some, rows, int(classes.max()) + 1, seed)
        left = len(clean.labels)
        for each in parts:
            each.check(clean.labels)
            if isinstance(each, CleanOnly):
                left = max(1, round(left * each.percent / 100))
        for victim, config in configs.items():
            try:
                validation_images(config, left)
            except ValueError as error:
                raise ValueError(f"victim {victim!r} with countermeasure {name!r}: {error}") from None


def check_starts(
    configs: Mapping[str, VictimConfig], countermeasures: Mapping[str, tuple[Countermeasure, ...]]
) -> None:
    """See that networks of timm and torchvision can be had, start from their weights and take images, each tried once.

    Those that take images as the data have them are tried when these are known, in :func:`check_on_samples`.

    Args:
        configs: name -> victim.
        countermeasures: name -> parts, in order.

    Raises:
        ValueError: weights of another architecture, a pickle, ...; a train_size that a network does not take; a probe,
            or who learns without labels, with what acts on batches.
        OSError: weights cannot be fetched.
    """
    for config in configs.values():
        for parts in countermeasures.values():
            refuse_batches(config, parts)
    starts = dict.fromkeys(
        (config.network, config.pretrained, config.transfer, config.train_size)
        for config in configs.values()
        if is_of_library(config.network) and (config.pretrained is not None or config.train_size is not None)
    )
    for network, pretrained, transfer, side in starts:
        size = None if side is None else (side, side)
        _try_size(network, size, train_size=side, pretrained=pretrained, transfer=transfer)


@torch.no_grad()
def _try_size(network: Any, size: tuple[int, int] | None, **start: Any) -> None:
    """Build a network as a trainer does, and show it two images; of the size it was made for where none is given."""
    library, name = find(network)
    own = library.pixels(name, DEFAULT).side
    height, width = size or (own, own)
    with torch.random.fork_rng(devices=[]):  # the caller's own stream must not move
        built = build_from_library(network, num_classes=2, **start)
        try:
            built(torch.zeros(2, 3, height, width))
        except Exception as error:  # each library raises its own
            raise ValueError(
                f"network {network!r} does not take images of {height}x{width} px ({error}). Pass train_sizes=({own},) "
                f"(--train-size {own}), the size that it was made for, or take another network."
            ) from error


def _samples_as_trained(
    clean: Labelled | Photographs, rows: Tensor, parts: Sequence[Countermeasure], sides: Sequence[int], seed: int
) -> Iterator[tuple[Labelled, Sequence[Countermeasure]]]:
    """Some of the images as trainers have them, at each of their sizes, and what is left to be done to them."""
    if isinstance(clean, Labelled):
        yield Labelled(clean.images[rows], clean.labels[rows], clean=clean.images[rows]), parts
        return
    for each in parts:
        if isinstance(each, InformedTrainer) and each.side is None and clean.are_shrunk:
            raise ValueError(
                f"countermeasure {each.name!r} needs the published images at full size, where the noise was made, and "
                "photographs are kept shrunk for trainers with a train_size. Leave it out, or use a generator that "
                "makes noise at a size of its own."
            )
    images, left = apply_before_resize(parts, [clean.images[row] for row in rows], clean.labels[rows], seed=seed)
    for side in sides:
        squares = centre_squares(images, side)
        yield Labelled(squares, clean.labels[rows], clean=squares), left


def _try_out(parts: Sequence[Countermeasure], some: Labelled, rows: Tensor, count: int, seed: int) -> None:
    """Apply countermeasures to some images of ``count`` classes, as a training does; what takes minutes is left out."""
    parts = [each for each in parts if not isinstance(each, Learned)]
    apply_stored(parts, some, seed=seed)
    apply_at_test(parts, some.images)
    views, targets = to_float(some.images), F.one_hot(some.labels, count).float()
    with torch.random.fork_rng(devices=[]):  # the caller's own stream must not move
        network = nn.Sequential(nn.Flatten(), nn.Linear(views[0].numel(), count)).requires_grad_(False)
    for each in parts:
        if each.acts_on == "batch":
            got = each.on_batch(views, targets, keys=index_keys(rows, seed), network=network)
            if got[0].shape != views.shape or got[1].shape != targets.shape:
                raise ValueError(f"countermeasure {each.name!r} changes the size of a batch. Keep its shapes.")

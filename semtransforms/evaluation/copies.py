"""The published forms of the data that trainers train on: clean, protected here, or protected already."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semtransforms.data.loading import Labelled, load_labelled
from semtransforms.evaluation.countermeasures import Countermeasure, ImageMap, InformedTrainer, apply_stored
from semtransforms.evaluation.records import CLEAN
from semtransforms.protect.figures import noise_picture
from semtransforms.protect.loaded import load_protected

PICTURES = 6  # images in the report's grid


@dataclass(frozen=True)
class Copy:
    """One published form of the data.

    Args:
        name: of its column in the report.
        images: uint8 (N, 3, H, W).
        origin: ``generator``, ``method``, ``rho_u`` and ``copy_sha256``, as a record has them.
    """

    name: str
    images: Tensor
    origin: Mapping[str, Any]


def clean_copy(clean: Labelled) -> Copy:
    """The data as they are."""
    return Copy(CLEAN, clean.images, _origin(clean.images))


def protect_copy(
    dataset: Any,
    generator: Any,
    clean: Labelled,
    *,
    seed: int,
    image_size: tuple[int, int] | None,
    cache_dir: Any,
    device: Any,
    progress: bool,
) -> Copy:
    """Protect the data as an owner does, then resize.

    Args:
        dataset: the clean data, map-style or a pair of tensors.
        generator, seed, cache_dir, device, progress: as for :class:`~semtransforms.ProtectedDataset`.
        clean: the same in memory, in the form that trainers get it.
        image_size: height and width, for images of several sizes.

    Returns:
        The copy, named after the generator.
    """
    images, origin = load_protected(
        dataset,
        generator,
        clean,
        image_size=image_size,
        seed=seed,
        cache_dir=cache_dir,
        device=device,
        progress=progress,
    )
    made = dict(origin)
    name = made.pop("name") or made["method"] or "protected"
    return Copy(Path(name).name, images, _origin(images, **made))


def given_copy(protected: Any, clean: Labelled, image_size: tuple[int, int] | None) -> Copy:
    """A copy that is protected already.

    Args:
        protected: map-style, or a pair of tensors.
        clean: the same images before their protection, in the same order.
        image_size: height and width, for images of several sizes.

    Raises:
        ValueError: other labels, or another number or size of images than those of ``clean``.
    """
    copy = load_labelled(protected, image_size=image_size)
    if len(copy.labels) != len(clean.labels):
        raise ValueError(
            f"protected has {len(copy.labels)} images, dataset {len(clean.labels)}: they must be the same images in "
            "the same order"
        )
    if copy.images.shape != clean.images.shape:
        raise ValueError(f"protected images are {tuple(copy.images.shape[2:])}, clean {tuple(clean.images.shape[2:])}")
    wrong = (copy.labels != clean.labels).nonzero().flatten()
    if len(wrong):
        raise ValueError(
            f"protected has another label than dataset at {len(wrong)} images, first at index {int(wrong[0])}: they "
            "must be the same images in the same order"
        )
    change = int((copy.images.to(torch.int16) - clean.images).abs().max())
    if change > 64:
        warnings.warn(
            f"protected differs from dataset by up to {change} grey levels, far above any protective noise: are they "
            "the same images in the same order?",
            stacklevel=3,
        )
    return Copy("protected", copy.images, _origin(copy.images))


def _origin(
    images: Tensor, generator: str | None = None, method: str | None = None, rho_u: float | None = None
) -> dict[str, Any]:
    """What a record says of a copy; a digest of it stands for the seed, which must stay secret."""
    digest = hashlib.sha256(images.numpy()).hexdigest()
    return {"generator": generator, "method": method, "rho_u": rho_u, "copy_sha256": digest}


def pictures_of(
    copy: Copy, clean: Labelled, countermeasures: Mapping[str, Sequence[Countermeasure]]
) -> dict[str, Tensor]:
    """Rows of the report's grid: clean, noise, protected, and what each stored countermeasure leaves.

    Args:
        copy: a protected one.
        clean: the data before their protection.
        countermeasures: name -> parts, in order.

    Returns:
        Title -> uint8 (n, 3, H, W), one image of each of the first classes.
    """
    rows = [int((clean.labels == label).nonzero()[0]) for label in torch.unique(clean.labels)[:PICTURES]]
    some = Labelled(copy.images[rows], clean.labels[rows], clean=clean.images[rows])
    levels = (some.images.to(torch.int16) - clean.images[rows]).clamp(-128, 127).to(torch.int8)
    grid = {"clean": clean.images[rows], f"{copy.name}: noise ×16": noise_picture(levels), copy.name: some.images}
    for name, parts in countermeasures.items():
        stored = [each for each in parts if each.acts_on == "stored"]
        # others depend on the whole set: these few would show something else than the trainer had
        if stored and all(isinstance(each, ImageMap | InformedTrainer) for each in stored):
            grid[f"{copy.name} + {name}"] = apply_stored(stored, some, seed=0).images
    return grid

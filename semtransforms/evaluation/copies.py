"""The published forms of the data that trainers train on: clean, protected here, or protected already."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semtransforms.data.loading import Labelled, load_labelled
from semtransforms.data.photographs import Keeping, Photographs, count_of, samples_of
from semtransforms.evaluation.countermeasures import Countermeasure, ImageMap, InformedTrainer, apply_stored
from semtransforms.evaluation.records import CLEAN
from semtransforms.protect.figures import noise_picture
from semtransforms.protect.loaded import each_protected, load_protected
from semtransforms.views.windows import centre_squares

PICTURES = 6  # images in the report's grid
COUNTED = 2**20  # values of a photograph that are looked at together: counting takes 8 bytes for each


@dataclass(frozen=True)
class Copy:
    """One published form of the data.

    Args:
        name: of its column in the report.
        images: uint8 (N, 3, H, W), or N times uint8 (3, h, w), as photographs are kept.
        origin: ``generator``, ``method``, ``rho_u`` and ``copy_sha256``, as a record has them.
        change: what was measured of the published photographs at their own sizes, as metrics of the noise.
    """

    name: str
    images: Tensor | Sequence[Tensor]
    origin: Mapping[str, Any]
    change: Mapping[str, float] = field(default_factory=dict)


def clean_copy(clean: Labelled | Photographs) -> Copy:
    """The data as they are."""
    return Copy(CLEAN, clean.images, _origin(_digest(clean)))


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
    return _named(origin, images, _digest(Labelled(images, clean.labels)))


def protected_photographs(dataset: Any, generator: Any, clean: Photographs, side: int, **options: Any) -> Copy:
    """As :func:`protect_copy`, for photographs of any sizes.

    Args:
        dataset, generator: as there.
        clean: the same, as they are kept.
        side: see :func:`semtransforms.data.photographs.shrunk`.
        options: ``seed``, ``cache_dir``, ``device`` and ``progress``, as there.

    Returns:
        The copy, named after the generator.
    """
    published = _Published(clean, side)
    origin = each_protected(dataset, generator, published.add, **options)
    copy = published.keeping.done(clean.labels)
    return replace(_named(origin, copy.images, _digest(copy)), change=published.change())


def given_photographs(protected: Any, dataset: Any, clean: Photographs, side: int) -> Copy:
    """As :func:`given_copy`, for photographs of any sizes; both are read side by side, one at a time.

    Args:
        protected: map-style, or a pair of tensors.
        dataset: the same before their protection, in the same order.
        clean: the latter, as they are kept.
        side: see :func:`semtransforms.data.photographs.shrunk`.

    Raises:
        ValueError: as there.
    """
    _check_count(count_of(protected), clean)
    published, labels = _Published(clean, side), []
    for row, ((image, _), (shown, label)) in enumerate(zip(samples_of(dataset), samples_of(protected), strict=True)):
        published.add(row, image, shown)
        labels.append(label)
    _check_same_labels(torch.tensor(labels), clean)
    change = published.change()
    _check_change("as root mean square", change["published_rms"], 24)
    copy = published.keeping.done(clean.labels)
    return Copy("protected", copy.images, _origin(_digest(copy)), change)


class _Published:
    """Published photographs that come one by one beside their originals.

    Args:
        clean: the originals, as they are kept.
        side: see :func:`semtransforms.data.photographs.shrunk`.
    """

    def __init__(self, clean: Photographs, side: int) -> None:
        self.keeping, self._sizes = Keeping(len(clean.labels), side), clean.sizes.tolist()
        self._counts = torch.zeros(256, dtype=torch.int64)  # of values, by how many grey levels they were changed

    def add(self, row: int, image: Tensor, published: Tensor) -> None:
        """Take one: its number, the original and what was published of it, uint8 (3, H, W)."""
        if list(published.shape[1:]) != self._sizes[row]:
            raise ValueError(
                f"the protected image at index {row} is {' x '.join(map(str, published.shape[1:]))}, the clean one "
                f"{' x '.join(map(str, self._sizes[row]))}: they must be the same images in the same order"
            )
        parts = (torch.split(each.flatten(), COUNTED) for each in (image, published))
        for before, after in zip(*parts, strict=True):
            change = torch.maximum(before, after).sub_(torch.minimum(before, after))
            self._counts += change.bincount(minlength=256)
        self.keeping.keep(row, published)

    def change(self) -> dict[str, float]:
        """The largest change of a value, and the root mean square of all, in grey levels."""
        steps = torch.arange(256, dtype=torch.float64)
        square = (self._counts * steps.square()).sum() / self._counts.sum()
        return {"published_linf": int(self._counts.nonzero().max()), "published_rms": square.sqrt().item()}


def as_squares(copy: Copy, side: int) -> Copy:
    """A copy of photographs as a trainer tests on them: their centre squares of that side, in pixels."""
    return replace(copy, images=centre_squares(copy.images, side), change={**copy.change, "measured_at": side})


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
    _check_count(len(copy.labels), clean)
    if copy.images.shape != clean.images.shape:
        raise ValueError(f"protected images are {tuple(copy.images.shape[2:])}, clean {tuple(clean.images.shape[2:])}")
    _check_same_labels(copy.labels, clean)
    _check_change("by up to", int((copy.images.to(torch.int16) - clean.images).abs().max()), 64)
    return Copy("protected", copy.images, _origin(_digest(copy)))


def _check_count(count: int, clean: Labelled | Photographs) -> None:
    if count != len(clean.labels):
        raise ValueError(
            f"protected has {count} images, dataset {len(clean.labels)}: they must be the same images in the same order"
        )


def _check_same_labels(labels: Tensor, clean: Labelled | Photographs) -> None:
    wrong = (labels != clean.labels).nonzero().flatten()
    if len(wrong):
        raise ValueError(
            f"protected has another label than dataset at {len(wrong)} images, first at index {int(wrong[0])}: they "
            "must be the same images in the same order"
        )


def _check_change(how: str, change: float, likely: float) -> None:
    """Warn of a change in grey levels that no protection makes."""
    if change > likely:
        warnings.warn(
            f"protected differs from dataset {how} {change:.4g} grey levels, far above any protective noise: are they "
            "the same images in the same order?",
            stacklevel=5,  # of whoever called evaluate
        )


def _named(origin: Mapping[str, Any], images: Tensor | Sequence[Tensor], digest: str) -> Copy:
    """A copy that was made here, named after its generator."""
    made = dict(origin)
    name = made.pop("name") or made["method"] or "protected"
    return Copy(Path(name).name, images, _origin(digest, **made))


def _digest(data: Labelled | Photographs) -> str:
    """Of the images alone, at the size at which they are published."""
    if isinstance(data, Photographs):
        return hashlib.sha256(b"".join(data.digests)).hexdigest()
    return hashlib.sha256(data.images.numpy()).hexdigest()


def _origin(
    digest: str, generator: str | None = None, method: str | None = None, rho_u: float | None = None
) -> dict[str, Any]:
    """What a record says of a copy; a digest of it stands for the seed, which must stay secret."""
    return {"generator": generator, "method": method, "rho_u": rho_u, "copy_sha256": digest}


def pictures_of(
    copy: Copy, clean: Labelled, countermeasures: Mapping[str, Sequence[Countermeasure]]
) -> dict[str, Tensor]:
    """Rows of the report's grid: clean, noise, protected, and what each stored countermeasure leaves.

    Args:
        copy: a protected one, in images of one size.
        clean: the data before their protection.
        countermeasures: name -> parts, in order.

    Returns:
        Title -> uint8 (n, 3, H, W), one image of each of the first classes.
    """
    assert isinstance(copy.images, Tensor)
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

"""Partial protection: what a trainer learns who has some of the images, or some of the classes, clean."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from semtransforms.core.keys import index_keys, keyed_uniform
from semtransforms.data.loading import Labelled
from semtransforms.evaluation.countermeasures.base import Countermeasure


def draw_rows(count: int, some: int, seed: int) -> Tensor:
    """Numbers of ``some`` of ``count``, drawn and sorted; more of them hold the fewer."""
    order = keyed_uniform(index_keys(torch.arange(count), seed), ()).argsort(stable=True)
    return order[:some].sort().values


def _draw_share(count: int, percent: float, seed: int) -> Tensor:
    return draw_rows(count, max(1, round(count * percent / 100)), seed)


def clean_images(data: Labelled, name: str) -> Tensor:
    """The owner's clean images: uint8 (N, 3, H, W).

    Raises:
        ValueError: the trainer was not given them.
    """
    if data.clean is None:
        raise ValueError(f"countermeasure {name!r} needs the owner's clean images, got none. Pass clean=...")
    return data.clean


def _protect_only(data: Labelled, classes: Tensor, name: str) -> Labelled:
    protected = torch.isin(data.labels, classes)[:, None, None, None]
    return replace(data, images=torch.where(protected, data.images, clean_images(data, name)))


@dataclass(frozen=True)
class _Share(Countermeasure):
    """A condition that has a percentage, above 0 and at most 100, and is named by it."""

    percent: float
    name: str = field(init=False)
    acts_on = "stored"
    kind: ClassVar[str]

    def __post_init__(self) -> None:
        if not 0 < self.percent <= 100:
            raise ValueError(f"{self.kind} takes a percentage above 0 and at most 100, got {self.percent:g}")
        object.__setattr__(self, "name", f"{self.kind}-{self.percent:g}")


@dataclass(frozen=True)
class CleanShare(_Share):
    """A share of the images are the owner's clean ones (partial poisoning), drawn by the seed.

    Args:
        percent: of the images, above 0 and at most 100; at least one image.

    Raises:
        ValueError: a percentage outside; when it is applied: the owner's clean images are not given.
    """

    kind = "clean-share"

    def on_stored(self, data: Labelled, *, seed: int) -> Labelled:
        """The drawn images clean, the others as they are."""
        rows, clean = _draw_share(len(data.labels), self.percent, seed), clean_images(data, self.name)
        images = data.images.clone()
        images[rows] = clean[rows]
        return replace(data, images=images)


@dataclass(frozen=True)
class CleanOnly(_Share):
    """The clean images of :class:`CleanShare` alone: what the trainer would learn without any protected image.

    Args:
        percent: as for :class:`CleanShare`; the same images for the same seed.

    Raises:
        ValueError: as :class:`CleanShare`.
    """

    kind = "clean-only"

    def on_stored(self, data: Labelled, *, seed: int) -> Labelled:
        """The drawn images, clean, with their labels."""
        rows, clean = _draw_share(len(data.labels), self.percent, seed), clean_images(data, self.name)
        return replace(data, images=clean[rows], labels=data.labels[rows], clean=clean[rows])


@dataclass(frozen=True)
class ProtectedClasses(Countermeasure):
    """Only the images of some classes are protected; all others are the owner's clean ones.

    Args:
        classes: labels of the protected classes; those that have no image do not matter.

    Raises:
        ValueError: no class; when it is applied: the owner's clean images are not given.
    """

    classes: tuple[int, ...]
    name: str = field(init=False)
    acts_on = "stored"

    def __post_init__(self) -> None:
        if not self.classes or min(self.classes) < 0:
            raise ValueError(f"protected-classes must name labels >= 0, got {self.classes}")
        object.__setattr__(self, "name", f"protected-classes-{','.join(map(str, self.classes))}")

    def check(self, labels: Tensor) -> None:
        """Every class named has an image."""
        if absent := set(self.classes) - set(labels.tolist()):
            raise ValueError(
                f"countermeasure {self.name!r} names label {min(absent)}, which no image has: labels are "
                f"0..{int(labels.max())}"
            )

    def on_stored(self, data: Labelled, *, seed: int) -> Labelled:
        """The images of the other classes replaced by clean ones."""
        return _protect_only(data, torch.tensor(self.classes), self.name)


@dataclass(frozen=True)
class ProtectedClassShare(_Share):
    """As :class:`ProtectedClasses`, for a share of the classes, drawn by the seed.

    Args:
        percent: of the classes, above 0 and at most 100; at least one class.

    Raises:
        ValueError: a percentage outside; when it is applied: the owner's clean images are not given.
    """

    kind = "protected-class-share"

    def on_stored(self, data: Labelled, *, seed: int) -> Labelled:
        """The images of the classes not drawn replaced by clean ones."""
        classes = torch.unique(data.labels)
        return _protect_only(data, classes[_draw_share(len(classes), self.percent, seed)], self.name)

"""Labelled photographs of any and mixed sizes, of which only so much is kept in memory as a trainer needs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import center_crop, resize

from semtransforms.data.loading import checked_labels, is_pair
from semtransforms.data.raw import class_names, read_samples

LONGEST = 8  # longer side / shorter side: of a longer panorama the middle is kept, so that one cannot fill the memory


@dataclass(frozen=True)
class Photographs:
    """Photographs that were decoded one at a time, and shrunk.

    Args:
        images: N times uint8 (3, h, w), as :func:`shrunk` gives them.
        labels: int64 (N,).
        sizes: int64 (N, 2), heights and widths of the originals.
        digests: N times SHA-256 of the originals' size and pixels.
        classes: label names, where known.
    """

    images: Sequence[Tensor]
    labels: Tensor
    sizes: Tensor
    digests: Sequence[bytes]
    classes: tuple[str, ...] | None = None

    @property
    def are_shrunk(self) -> bool:
        """Whether an image is not kept as it was."""
        return [list(image.shape[1:]) for image in self.images] != self.sizes.tolist()

    def sha256(self) -> str:
        """Hex digest of the originals and their labels, however much of them is kept."""
        digest = hashlib.sha256(b"".join(self.digests))
        digest.update(self.labels.numpy())
        return digest.hexdigest()


class Keeping:
    """Photographs that come one by one, in any order, each once.

    Args:
        count: N, how many will come.
        side: see :func:`shrunk`.
    """

    def __init__(self, count: int, side: int) -> None:
        self.side = side
        self.images: list[Tensor] = [torch.empty(0)] * count
        self.sizes = torch.zeros(count, 2, dtype=torch.int64)
        self.digests = [b""] * count

    def keep(self, row: int, image: Tensor) -> None:
        """Take one: its number and uint8 (3, H, W)."""
        digest = hashlib.sha256(repr(tuple(image.shape)).encode())
        digest.update(image.contiguous().numpy())
        self.digests[row], self.sizes[row] = digest.digest(), torch.tensor(image.shape[1:])
        self.images[row] = shrunk(image, self.side)

    def done(self, labels: Tensor, classes: tuple[str, ...] | None = None) -> Photographs:
        """All of them; labels int64 (N,)."""
        return Photographs(tuple(self.images), labels, self.sizes, tuple(self.digests), classes)


def shrunk(image: Tensor, side: int) -> Tensor:
    """A photograph with a shorter side of at most ``side`` pixels; a smaller one stays as it is.

    Args:
        image: uint8 (3, H, W).
        side: of the shorter side. Twice what a trainer trains at will do: a window of 35 % of the area and of shape 3:4
            has sides of at least half the photograph's shorter one, so what is kept of it is never enlarged.

    Returns:
        uint8 (3, h, w), colours last in memory, which halves the time of every later resampling.
    """
    longest = LONGEST * min(image.shape[1:])
    image = center_crop(image, [min(length, longest) for length in image.shape[1:]])
    if min(image.shape[1:]) > side:
        image = resize(image, [side], antialias=True)
    # a clone: what is kept must not hold on to the original
    return image.permute(1, 2, 0).clone(memory_format=torch.contiguous_format).permute(2, 0, 1)


def count_of(dataset: Any) -> int:
    """How many images a data set has, map-style or a pair of tensors."""
    return len(dataset[0]) if is_pair(dataset) else len(dataset)


def class_count_of(dataset: Any) -> int | None:
    """How many classes a data set has; ``None`` where only reading its images would tell."""
    if is_pair(dataset):
        return len(dataset[1].unique())
    names = class_names(dataset)
    return None if names is None else len(names)


def samples_of(dataset: Any) -> Iterator[tuple[Tensor, int]]:
    """The raw samples of a data set one by one: uint8 (3, H, W) and the label.

    Args:
        dataset: map-style, or a pair of tensors: images and labels.
    """
    if is_pair(dataset):
        return zip(dataset[0], dataset[1].tolist(), strict=True)
    return read_samples(dataset)


def load_photographs(dataset: Any, side: int) -> Photographs:
    """Decode labelled photographs one at a time, and keep them shrunk.

    Args:
        dataset: map-style, or a pair of tensors: images and labels.
        side: see :func:`shrunk`.

    Returns:
        Them, their labels and label names.

    Raises:
        TypeError: images are not uint8, or labels are not whole numbers.
        ValueError: no images, one that does not decode, fewer than two classes.
    """
    keeping, labels = Keeping(count_of(dataset), side), []
    for row, (image, label) in enumerate(samples_of(dataset)):
        keeping.keep(row, image)
        labels.append(label)
    classes = class_names(dataset)
    return keeping.done(checked_labels(labels, len(labels), classes, None), classes)

"""A dataset whose images are decoded once, for work that goes over them more than once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Subset

from semtransforms.core.hardware import free_memory
from semtransforms.data.raw import take_off_transforms

SHARE_OF_MEMORY = 1 / 4  # of what is free, for decoded images; those beyond it are decoded again


class DecodedOnce(Subset[Any]):
    """The raw samples of a dataset, kept in memory as they are read, while there is room.

    It stands for the whole dataset, without its transforms: noise for one is noise for the other, under the same key.

    Args:
        dataset: map-style; never changed.

    Attributes:
        classes: the dataset's label names, or None.
    """

    def __init__(self, dataset: Any) -> None:
        raw, _ = take_off_transforms(dataset)
        super().__init__(raw, range(len(raw)))
        self.classes = getattr(dataset, "classes", None)
        self._kept: dict[int, Any] = {}
        self._room = int(SHARE_OF_MEMORY * free_memory(torch.device("cpu")))

    def __getitem__(self, index: int) -> Any:
        if index in self._kept:
            return self._kept[index]
        sample = self.dataset[index]
        size = _bytes_of(sample)
        if size <= self._room:
            self._room -= size
            self._kept[index] = sample
        return sample

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[index] for index in indices]


def _bytes_of(sample: Any) -> int:
    """What a sample's image takes in memory, once it is decoded."""
    image = sample.get("image") if isinstance(sample, Mapping) else sample
    if isinstance(sample, Sequence) and len(sample):
        image = sample[0]
    if isinstance(image, Image.Image):
        return 4 * image.width * image.height  # PIL keeps a colour in 4 bytes
    return int(getattr(image, "nbytes", 0))

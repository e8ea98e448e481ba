"""Which images go through the network together."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from semtransforms.core.ahead import ahead
from semtransforms.data.images import UNDECODABLE
from semtransforms.data.opening import ImageFile, open_image
from semtransforms.data.remote import AT_ONCE
from semtransforms.data.sources import Source, reason
from semtransforms.protect.making import Failed, Task


@dataclass(frozen=True, repr=False)
class Groups:
    """Images that go through the network together, the same for every number of workers and each time anew.

    Args:
        source: the clean images.
        labels: int64 ``(N,)``, the generator's.
        rows: the images to protect.
        most_images: in a group.
        most_bytes: of a group's pixels, unless it is a single image.
    """

    source: Source
    labels: Tensor
    rows: Sequence[int]
    most_images: int
    most_bytes: int

    def __iter__(self) -> Iterator[list[Task | Failed]]:
        group: list[Task | Failed] = []
        size = 0
        for task, more in ahead(self._sized, self.rows, AT_ONCE if self.source.far else 0):
            if group and (len(group) == self.most_images or size + more > self.most_bytes):
                yield group
                group, size = [], 0
            group.append(task)
            size += more
        if group:
            yield group

    def _sized(self, row: int) -> tuple[Task | Failed, int]:
        """What is to be done, and the bytes of its pixels."""
        place = self.source.place(row)
        try:
            task = Task(row, int(self.labels[row]), place, self.source.read(row))
            return task, 3 * _pixels(task.file)
        except UNDECODABLE as error:
            return Failed(f"{place} ({reason(error)})"), 0


def _pixels(file: ImageFile) -> int:
    """How many pixels an image has by its header; 0 where only the maker will say what is wrong with it."""
    try:
        with open_image(file, sys.maxsize) as image:
            return image.width * image.height
    except UNDECODABLE:
        return 0

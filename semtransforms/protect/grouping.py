"""Which images go through the network together."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from torch import Tensor

from semtransforms.data.images import UNDECODABLE
from semtransforms.data.opening import ImageFile, open_image
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
        for row in self.rows:
            more, task = 0, self._task(row)
            if isinstance(task, Task):
                more = 3 * _pixels(task.file)
            if group and (len(group) == self.most_images or size + more > self.most_bytes):
                yield group
                group, size = [], 0
            group.append(task)
            size += more
        if group:
            yield group

    def _task(self, row: int) -> Task | Failed:
        place = self.source.place(row)
        try:
            return Task(row, int(self.labels[row]), place, self.source.read(row))
        except UNDECODABLE as error:
            return Failed(f"{place} ({reason(error)})")


def _pixels(file: ImageFile) -> int:
    """How many pixels an image has by its header; 0 where only the maker will say what is wrong with it."""
    with suppress(*UNDECODABLE), open_image(file, sys.maxsize) as image:
        return image.width * image.height
    return 0

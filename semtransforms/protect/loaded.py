"""The protected copy of a dataset in memory, beside the clean one, for who judges it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from semtransforms.core.grid import add_noise
from semtransforms.data.loading import Labelled, resized
from semtransforms.data.survey import Read
from semtransforms.protect.batch import ProtectedBatch
from semtransforms.protect.filling import Filling
from semtransforms.protect.wrapper import NoiseSource, ProtectedDataset


def load_protected(
    dataset: Any,
    generator: NoiseSource,
    clean: Labelled,
    *,
    image_size: tuple[int, int] | None = None,
    seed: int = 0,
    cache_dir: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> tuple[Tensor, dict[str, Any]]:
    """Bring the protected copy of a dataset into memory.

    The noise is made for each image as it is, before any resizing here, and kept in the store that
    ``ProtectedDataset(dataset, generator)`` has. No file is decoded here where the clean images have their own sizes;
    where they were resized, each file is once.

    Args:
        dataset: the clean data, map-style, or a pair of tensors: images and labels.
        generator, seed, cache_dir, device, progress: as for :class:`ProtectedDataset`.
        clean: what ``load_labelled(dataset, image_size=image_size)`` gave.
        image_size: height and width that the protected images are resized and cropped to, as the clean ones were.

    Returns:
        The protected images, uint8 (N, 3, H, W), and whose noise they carry, as in ``ProtectedDataset.origin``.

    Raises:
        ValueError, TypeError, OSError: as for :class:`ProtectedDataset`.
    """
    if isinstance(dataset, Sequence) and all(isinstance(part, Tensor) for part in dataset):
        dataset = TensorDataset(*dataset)
    copy = _Loading(
        dataset,
        generator,
        clean,
        image_size,
        seed=seed,
        cache_dir=cache_dir,
        device=device,
        progress=progress,
    )
    return copy.load(), copy.origin


class _Loading(ProtectedDataset):
    """Keeps each image as its noise is made, so that it needs not be decoded for it again."""

    def __init__(
        self, dataset: Any, generator: NoiseSource, clean: Labelled, image_size: tuple[int, int] | None, **options: Any
    ) -> None:
        self._clean, self._image_size = clean, image_size
        self._images = torch.empty_like(clean.images)
        self._kept = torch.zeros(len(clean.images), dtype=torch.bool)
        super().__init__(dataset, generator, **options)

    def load(self) -> Tensor:
        """All protected images; those whose noise was there before are read now."""
        read = self._reader()
        for row in torch.nonzero(~self._kept).flatten().tolist():
            image = read(row)[0]
            self._images[row] = resized(add_noise(image, self._noise_for(row, image)), self._image_size)
        return self._images

    def _reader(self) -> Read:
        return self._from_memory if self._image_size is None else super()._reader()

    def _from_memory(self, row: int) -> tuple[Tensor, int]:
        return self._clean.images[row], int(self._clean.labels[row])

    def _survey(self, *arguments: Any) -> Filling:
        filling = super()._survey(*arguments)
        filling.made = self._keep
        return filling

    def _keep(self, rows: Sequence[int], batch: ProtectedBatch) -> None:
        for row, image in zip(rows, batch.protected, strict=True):
            self._images[row] = resized(image, self._image_size)
            self._kept[row] = True

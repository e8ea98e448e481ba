"""The protected copy of a dataset in memory, beside the clean one, for who judges it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
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

# is given each image once, in no fixed order: its number, the clean and the protected one, uint8 (3, H, W)
Keep = Callable[[int, Tensor, Tensor], None]


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
    images = torch.empty_like(clean.images)

    def keep(row: int, image: Tensor, protected: Tensor) -> None:
        images[row] = resized(protected, image_size)

    origin = each_protected(
        dataset,
        generator,
        keep,
        clean=clean if image_size is None else None,
        seed=seed,
        cache_dir=cache_dir,
        device=device,
        progress=progress,
    )
    return images, origin


def each_protected(
    dataset: Any, generator: NoiseSource, keep: Keep, *, clean: Labelled | None = None, **options: Any
) -> dict[str, Any]:
    """Go through the protected copy of a dataset, never holding more of it than a group of images.

    Args:
        dataset: the clean data, map-style, or a pair of tensors: images and labels.
        generator: as for :class:`ProtectedDataset`.
        keep: takes each image.
        clean: the dataset in memory, where it is, so that no file is decoded.
        options: ``seed``, ``cache_dir``, ``device`` and ``progress`` of :class:`ProtectedDataset`.

    Returns:
        Whose noise the images carry, as in ``ProtectedDataset.origin``.

    Raises:
        ValueError, TypeError, OSError: as for :class:`ProtectedDataset`.
    """
    if isinstance(dataset, Sequence) and all(isinstance(part, Tensor) for part in dataset):
        dataset = TensorDataset(*dataset)
    passing = _Passing(dataset, generator, keep, clean, options)
    passing.pass_the_rest()
    return passing.origin


class _Passing(ProtectedDataset):
    """Passes each image on as its noise is made, so that it needs not be decoded for it again."""

    def __init__(
        self, dataset: Any, generator: NoiseSource, keep: Keep, clean: Labelled | None, options: dict[str, Any]
    ) -> None:
        self._keep, self._clean = keep, clean
        self._passed = torch.zeros(len(dataset), dtype=torch.bool)
        super().__init__(dataset, generator, **options)

    def pass_the_rest(self) -> None:
        """Those whose noise was there before are read now."""
        read = self._reader()
        for row in torch.nonzero(~self._passed).flatten().tolist():
            image = read(row)[0]
            self._keep(row, image, add_noise(image, self._noise_for(row, image)))

    def _reader(self) -> Read:
        return super()._reader() if self._clean is None else self._from_memory

    def _from_memory(self, row: int) -> tuple[Tensor, int]:
        assert self._clean is not None
        return self._clean.images[row], int(self._clean.labels[row])

    def _plan(self, *arguments: Any) -> Filling:
        filling = super()._plan(*arguments)
        filling.made = self._pass
        return filling

    def _pass(self, rows: Sequence[int], batch: ProtectedBatch) -> None:
        for row, image, protected in zip(rows, batch.clean, batch.protected, strict=True):
            self._keep(row, image, protected)
            self._passed[row] = True

"""Filling a store: the noise of a dataset's images, computed group by group."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semtransforms.core.hardware import describe_arithmetic
from semtransforms.data.shards import checksum_of_image
from semtransforms.data.store import NoiseStore, cut, store_key
from semtransforms.data.survey import Read, check_same, file_shapes, survey
from semtransforms.protect.adding import check_shape
from semtransforms.protect.batch import NoiseMaker, ProtectedBatch, generator_labels
from semtransforms.views.resize import NoiseScale

GROUP_BYTES = 64 << 20  # images in memory at a time while noise is computed


@dataclass
class Filling:
    """What a store is filled from.

    Args:
        folder: of the store.
        description: what the noise depends on.
        dataset: gives raw samples.
        rows: int64 (N,), positions of the images to protect.
        read: reads one of them: uint8 (3, H, W) and its label.
        shapes: int64 (N, 2), heights and widths; ``None`` for an image folder, whose files are asked.
        checksums: uint64 (N,), what the images were when they were looked at, where each was read.
        labels: int64 (N,), the generator's.
        maker: makes the noise.
        progress: show a bar.
        made: is given each group as its noise is made, its rows and the batch.
    """

    folder: Path
    description: dict[str, Any] = field(repr=False)  # it has the seed, and what is shown ends up in logs
    dataset: Any
    rows: NDArray[np.int64]
    read: Read
    shapes: NDArray[np.int64] | None
    checksums: NDArray[np.uint64] | None
    labels: Tensor
    maker: NoiseMaker
    progress: bool
    made: Callable[[Sequence[int], ProtectedBatch], None] | None = None

    def fill(self) -> NoiseStore:
        """Compute what is missing, and open the store.

        Raises:
            ValueError: an image is too small for the generator, or does not decode; the message names it. A file that
                is cut or has wrong checksums is found before any noise is made, what else a decoder refuses when its
                turn comes; finished shards are kept then.
            OSError: the store cannot be written.
        """
        if self.shapes is None:
            self.shapes = file_shapes(self.dataset, self.rows, self.read, self.progress)
        self.maker.check_sizes(self.shapes.tolist(), self.rows.tolist())
        scale = self.maker.scale
        made = np.array([scale.made_at(*shape) for shape in self.shapes.tolist()])
        images = np.zeros(len(self.rows), np.uint64)
        compute = partial(self._compute, images)
        return NoiseStore.build(
            self.folder, made, compute, images=images, description=self.description, progress=self.progress
        )

    def _compute(self, checksums: NDArray[np.uint64], start: int, stop: int) -> Iterator[Sequence[Tensor]]:
        assert self.shapes is not None
        scale, maker = self.maker.scale, self.maker
        device = getattr(maker.generator, "device", "cpu") if maker.device is None else maker.device
        count = maker.batch_size or (2048 if torch.device(device).type == "cuda" else 128)
        for begin, end in cut(3 * self.shapes[start:stop].prod(axis=1), GROUP_BYTES, count):
            group = slice(start + begin, start + end)
            rows = self.rows[group].tolist()
            images = [self.read(row)[0] for row in rows]
            for row, image, shape in zip(rows, images, self.shapes[group].tolist(), strict=True):
                check_shape(
                    image.shape[1:], shape, NoiseScale(None, scale.reach), row
                )  # the whole image, not its noise
            for position, image in enumerate(images, start + begin):
                pixels = image.numpy().transpose(1, 2, 0)
                if self.checksums is not None:
                    check_same(int(self.checksums[position]), pixels, int(self.rows[position]))
                checksums[position] = checksum_of_image(pixels)
            batch = maker.make(images, self.labels[group])
            if self.made is not None:
                self.made(rows, batch)
            yield batch.made


def plan_filling(
    dataset: Any,
    rows: NDArray[np.int64],
    read: Read,
    maker: NoiseMaker,
    label_map: Mapping[int, int] | None,
    cache: Path,
    progress: bool,
) -> Filling:
    """Find out which images these are, and so where their noise lies.

    Args:
        dataset: gives raw samples.
        rows: int64 (N,), positions of the images to protect.
        read: reads one of them.
        maker: makes the noise.
        label_map, progress: as for ``ProtectedDataset``.
        cache: folder of the stores.
    """
    found, generator, scale = survey(dataset, rows, read, progress), maker.generator, maker.scale
    labels = generator_labels(found.labels, label_map, generator.num_classes, place="dataset: ", rows=rows.tolist())
    device = torch.device(getattr(generator, "device", "cpu") if maker.device is None else maker.device)
    made_with = describe_arithmetic(generator.config.noise_precision, device)
    description = {
        "data": found.digest,
        "labels": hashlib.sha256(labels.numpy().tobytes()).hexdigest(),
        "indices": "all" if len(rows) == len(dataset) else hashlib.sha256(rows.tobytes()).hexdigest(),
        "generator": generator.fingerprint,
        "config": generator.config.to_dict(),
        "precision": made_with["precision"],  # "auto" leaves it to the hardware, and the noise is another one
        "seed": maker.seed,
        "noise_size": scale.side,
        "visibility": scale.visibility,
    }
    return Filling(
        folder=cache / f"noise-{store_key(description)}",
        description=description | {"made_with": made_with},
        dataset=dataset,
        rows=rows,
        read=read,
        shapes=found.shapes,
        checksums=found.checksums,
        labels=labels,
        maker=maker,
        progress=progress,
    )

"""Noise that is made when a sample is asked for, and kept nowhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from semtransforms.data.raw import sample_label
from semtransforms.protect.adding import MadeNoise, clean_pixels
from semtransforms.protect.batch import generator_labels, protect_batch

if TYPE_CHECKING:
    from semtransforms.generators.generator import NoiseGenerator, NoiseSize


@dataclass(frozen=True)
class LiveNoise:
    """What makes the noise of samples, in whatever process asks for them: it pickles with its generator.

    Args:
        generator: makes the noise.
        label_map: label of the data -> label of the generator, where the two differ.
        seed, noise_size, visibility, batch_size, device: as for ``ProtectedDataset``.
    """

    generator: NoiseGenerator
    label_map: Mapping[int, int] | None
    seed: int = field(repr=False)
    noise_size: NoiseSize
    visibility: float
    batch_size: int | None
    device: str | torch.device | None

    def made(self, pairs: Sequence[tuple[Any, Any]], rows: Sequence[int]) -> list[MadeNoise]:
        """The noise of samples: the same bytes that a store would hold.

        Args:
            pairs: raw images with their labels, as the data has them.
            rows: the positions that messages name them by.

        Raises:
            ValueError: a label that the generator does not know; an image that is too small for it, or protected
                already.
        """
        places = list(zip(pairs, rows, strict=True))
        images = [clean_pixels(image, row) for (image, _), row in places]
        labels = [sample_label(label, row) for (_, label), row in places]
        if not images:
            return []
        targets = generator_labels(labels, self.label_map, self.generator.num_classes, place="dataset: ", rows=rows)
        smallest = self.generator.smallest
        for row, image in zip(rows, images, strict=True):
            if min(image.shape[1:]) < smallest:
                raise ValueError(
                    f"dataset: the image at index {row} is {image.shape[1]} x {image.shape[2]}, the generator takes "
                    f"{smallest} x {smallest} and larger. Enlarge it, or leave it out (torch.utils.data.Subset)."
                )
        batch = protect_batch(
            images,
            targets,
            self.generator,
            seed=self.seed,
            noise_size=self.noise_size,
            visibility=self.visibility,
            batch_size=self.batch_size,
            device=self.device,
        )
        return [MadeNoise(np.ascontiguousarray(each.permute(1, 2, 0).numpy()), None) for each in batch.made]

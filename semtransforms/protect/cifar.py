"""CIFAR's own arrays behind a dataset: the noise is added before PIL, at half the cost of after."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100

from semtransforms.data.raw import keeps_target_transform, unwrap_subsets
from semtransforms.protect.adding import MadeNoise, as_pil, full_noise, marked, saturated
from semtransforms.views.resize import NoiseScale


class Cifar(NamedTuple):
    """CIFAR's images (M, 32, 32, 3) and labels behind any number of subsets; ``rows`` leads from index to position."""

    images: NDArray[np.uint8]
    labels: list[int]
    rows: NDArray[np.int64]

    def read(self, index: int, made: MadeNoise | None, scale: NoiseScale) -> tuple[Image.Image, int]:
        """A sample with its noise, where it has some."""
        row = self.rows[index]
        pixels = np.ascontiguousarray(self.images[row])
        if made is None:
            return as_pil(pixels, None), self.labels[row]
        return marked(as_pil(saturated(pixels, full_noise(made, pixels, scale, index)), None)), self.labels[row]


def as_cifar(dataset: Any) -> Cifar | None:
    """The arrays behind a dataset of raw samples, or None where it is another one."""
    inner, rows = unwrap_subsets(dataset, np.arange(len(dataset)))
    if type(inner) not in (CIFAR10, CIFAR100) or keeps_target_transform(inner):
        return None
    return Cifar(inner.data, inner.targets, rows)

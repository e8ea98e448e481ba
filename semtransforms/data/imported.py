"""Noise that others have published: what its numbers mean."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MOST_LEVELS = 127  # what a byte with a sign holds


class ImportedNoise(NamedTuple):
    """Noise of others as a store takes it.

    ``levels(start, stop)`` gives images start..stop-1, each int8 (1, 3, H, W); ``shapes`` is int (N, 2); the same noise
    in another form has the same ``digest``; ``reach`` is its largest level.
    """

    levels: Callable[[int, int], Iterator[Tensor]]
    shapes: NDArray[np.int64]
    digest: str
    reach: int


def read_noise(noise: NDArray[Any] | Tensor) -> ImportedNoise:
    """Find out what published noise means.

    Args:
        noise: as for :meth:`NoiseStore.from_array`.

    Returns:
        The noise in grey levels, read when it is asked for.

    Raises:
        TypeError: unsigned or boolean values, which cannot say what is subtracted.
        ValueError: another shape, values that are not finite or beyond 127 levels, or zero everywhere.
    """
    if isinstance(noise, Tensor):
        noise = (noise.float() if noise.dtype == torch.bfloat16 else noise).detach().cpu().numpy()
    array = _channels_first(np.asarray(noise))
    unit = _unit(array)

    def levels(start: int, stop: int) -> Iterator[Tensor]:
        for row in array[start:stop]:
            yield torch.from_numpy(np.rint(np.multiply(row, unit)).astype(np.int8))[None]

    digest, reach = hashlib.sha256(repr(array.shape).encode()), 0
    for row in levels(0, len(array)):
        digest.update(row.numpy().tobytes())
        reach = max(reach, int(row.abs().max()))
    return ImportedNoise(levels, np.tile(array.shape[2:], (len(array), 1)), digest.hexdigest(), reach)


def _channels_first(array: NDArray[Any]) -> NDArray[Any]:
    """Noise of signed numbers as (N, 3, H, W)."""
    if array.ndim != 4 or 0 in array.shape or 3 not in (array.shape[1], array.shape[3]):
        raise ValueError(
            f"noise must be (N, H, W, 3) or (N, 3, H, W), none of them 0, got {array.shape}. Class-wise "
            "noise becomes a row for each image by noise[labels]."
        )
    if array.shape[1] == array.shape[3]:
        raise ValueError(f"noise of shape {array.shape} could be (N, H, W, 3) or (N, 3, H, W): images must be larger.")
    if array.dtype.kind not in "if":
        raise TypeError(
            f"noise must be signed whole numbers or floats, got {array.dtype}: it cannot say what is "
            "subtracted. Take protected.astype('int16') - clean."
        )
    return array if array.shape[1] == 3 else array.transpose(0, 3, 1, 2)


def _unit(array: NDArray[Any]) -> int:
    """What the values are multiplied by to be grey levels."""
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("noise holds NaN or infinity. Fetch or compute it again.")
    unit = 255 if array.dtype.kind == "f" and max(-low, high) <= 1 else 1
    reach = round(unit * max(-low, high))
    if reach > MOST_LEVELS:
        remedy = (
            "Floats up to 1 are taken for shares of the pixel range: pass whole levels as int8."
            if unit == 255
            else "Are these images? Take the difference to the clean ones."
        )
        raise ValueError(f"noise reaches {reach} grey levels, which no store holds ({MOST_LEVELS}). {remedy}")
    if reach == 0:
        raise ValueError("noise is zero everywhere: nothing would be protected.")
    if low >= 0:  # the caller of NoiseStore.from_array is meant
        warnings.warn("noise is nowhere negative: was it clamped when it was saved?", stacklevel=4)
    return unit

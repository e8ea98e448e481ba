"""The squares that a trainer takes out of photographs: their middle, or windows that are drawn.

All of it goes image by image in bytes, as a trainer's own loader does; the resampling is that of torchvision, with
antialiasing. For 64 images from 256 x 340 to 64 px on one core it takes 4 ms with colours last in memory and 12 with
colours first; two batched resampling matrices take 97.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from semtransforms.core.keys import keyed_uniform

Images = Tensor | Sequence[Tensor]

SCALE = (0.35, 1.0)  # share of a photograph's area that a drawn window has
RATIO = (3 / 4, 4 / 3)  # its width / height
TRIES = 10  # windows drawn until one fits, as torchvision does; then the largest in the middle


def with_shorter_side(images: Images, side: int) -> list[Tensor]:
    """Photographs resized, as ``torchvision.transforms.Resize(side)`` does with antialiasing.

    Args:
        images: N times uint8 (3, H, W), or uint8 (N, 3, H, W).
        side: of the shorter side, in pixels.

    Returns:
        N times uint8 (3, h, w); the shape is kept.
    """
    # here, for whoever takes no squares: torchvision brings torch's compiler, 160 MB
    from torchvision.transforms.v2.functional import resize

    return [resize(image, [side], antialias=True) for image in images]


def centre_squares(images: Images, side: int) -> Tensor:
    """The middle of photographs, as a trainer tests on it.

    Args:
        images: N times uint8 (3, H, W), or uint8 (N, 3, H, W).
        side: of the square, in pixels.

    Returns:
        uint8 (N, 3, side, side), as :func:`~semtransforms.data.loading.resized` gives them.
    """
    # here, for whoever takes no squares: it brings torchvision
    from semtransforms.data.loading import resized

    return torch.stack([resized(image, (side, side)) for image in images])


def padded_windows(images: Images, keys: Tensor, side: int) -> Tensor:
    """A window at a uniform place of each photograph, padded with black, as ``RandomCrop(side, side // 8)`` draws it.

    Args:
        images: N times uint8 (3, H, W), no side smaller than ``side``.
        keys: int64 (N,), on the CPU.
        side: of the window, in pixels; an eighth of it is padded on each side.

    Returns:
        uint8 (N, 3, side, side).
    """
    padding = side // 8
    windows = []
    for image, (row, column) in zip(images, keyed_uniform(keys, (2,)).tolist(), strict=True):
        top, left = (
            int(share * (length + 2 * padding - side + 1))
            for share, length in zip((row, column), image.shape[1:], strict=True)
        )
        windows.append(F.pad(image, (padding,) * 4)[:, top : top + side, left : left + side])
    return torch.stack(windows)


def resized_windows(images: Images, keys: Tensor, side: int) -> Tensor:
    """A window of drawn size, shape and place of each photograph, resized: torchvision's ``RandomResizedCrop``.

    Args:
        images: N times uint8 (3, H, W), or uint8 (N, 3, H, W).
        keys: int64 (N,), on the CPU.
        side: of the square that windows are resized to, in pixels.

    Returns:
        uint8 (N, 3, side, side).
    """
    return windows_of_size(images, keys, (side, side))


def windows_of_size(images: Images, keys: Tensor, size: tuple[int, int]) -> Tensor:
    """As :func:`resized_windows`, resized to any height and width; float images come back as floats."""
    boxes = draw_windows(keys, np.array([image.shape[1:] for image in images])).tolist()
    windows = [
        image[None, :, top : top + h, left : left + w] for image, (top, left, h, w) in zip(images, boxes, strict=True)
    ]
    # what torchvision's resize comes to, without its half of the time
    return torch.cat([F.interpolate(window, size, mode="bilinear", antialias=True) for window in windows])


def draw_windows(keys: Tensor, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the windows of :func:`resized_windows` lie.

    Args:
        keys: int64 (N,), on the CPU.
        sizes: (N, 2), heights and widths of the photographs.

    Returns:
        int64 (N, 4): top, left, height and width.
    """
    share, shape, row, column = np.moveaxis(keyed_uniform(keys, (TRIES, 4)).double().numpy(), 2, 0)
    height, width = (sizes[:, k, None] for k in (0, 1))
    area = height * width * (SCALE[0] + (SCALE[1] - SCALE[0]) * share)
    ratio = np.exp(math.log(RATIO[0]) + math.log(RATIO[1] / RATIO[0]) * shape)
    tall, wide = np.sqrt(area / ratio).round().astype(np.int64), np.sqrt(area * ratio).round().astype(np.int64)
    top, left = ((row * (height - tall + 1)).astype(np.int64), (column * (width - wide + 1)).astype(np.int64))
    fits = (tall > 0) & (wide > 0) & (tall <= height) & (wide <= width)
    drawn = np.stack([top, left, tall, wide], 2)[np.arange(len(sizes)), fits.argmax(1)]
    return np.where(fits.any(1, keepdims=True), drawn, _middle(sizes))


def _middle(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The largest window in the middle of each photograph whose shape is allowed: int64 (N, 4)."""
    height, width = sizes.T
    tall = np.minimum(height, (width / RATIO[0]).round().astype(np.int64))
    wide = np.minimum(width, (height * RATIO[1]).round().astype(np.int64))
    return np.stack([(height - tall) // 2, (width - wide) // 2, tall, wide], 1)

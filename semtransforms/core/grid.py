"""The byte grid: what a user stores, whole grey levels in 0..255."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_PART = 1 << 22  # values that are computed in 16 bits at a time: a photograph's would fill memory, and miss the caches


def levels(rho: float) -> int:
    """Whole grey levels inside a radius.

    Args:
        rho: radius, a fraction of the pixel range.

    Returns:
        ``floor(255 * rho)``; 8/255 gives 8 despite binary fractions.
    """
    return math.floor(255 * rho + 1e-6)


def quantize(noise: Tensor, rho: float) -> Tensor:
    """Round noise to the byte grid a user stores, without leaving the ball.

    Args:
        noise: float, any shape, in units of the pixel range (1.0 = 255 levels).
        rho: radius of the ball, same unit; rounded down to whole levels.

    Returns:
        int8 levels, ``|level| <= floor(255 * rho)``.
    """
    limit = min(levels(rho), 127)
    return (noise * 255).round().clamp(-limit, limit).to(torch.int8)


def add_noise(images: Tensor, noise: Tensor) -> Tensor:
    """Add stored noise to stored images.

    Args:
        images: uint8, any shape.
        noise: int8 of the same shape, in grey levels.

    Returns:
        uint8, clamped to 0..255.
    """
    added = torch.empty(images.shape, dtype=torch.uint8, device=images.device)
    target, image, level = (each.reshape(-1) for each in (added, images, noise))
    for start in range(0, len(target), _PART):
        part = slice(start, start + _PART)
        target[part] = image[part].to(torch.int16).add_(level[part]).clamp_(0, 255)
    return added


def to_float(images: Tensor) -> Tensor:
    """Stored bytes to the range the networks see: uint8 0..255 to float32 in [0, 1]."""
    return images.to(torch.float32).div_(255)


def to_bytes(images: Tensor) -> Tensor:
    """The inverse: floats, of which those outside of [0, 1] are clamped, to the nearest uint8."""
    return images.clamp(0, 1).mul_(255).round_().to(torch.uint8)

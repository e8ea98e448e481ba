"""Where class-wise noise starts: textures whose direction and grain tell the class, in brightness and in blue.

A fit that starts from random noise finds patterns of colour, which are easiest for it, and gone when a trainer makes
photographs grey. It does not find its way from them to patterns of brightness, since photographs are full of those. A
texture that leans one way is learned at once in brightness, too; what a fit makes of it stays there.
"""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor

# chosen on clothing10; examples/reproduce/README.md has the trials
GRAINS = (0.125, 0.06)  # periods a pixel
LEAN = 0.15  # standard deviation of the direction, in radians
WIDTH = 0.03  # and of the periods a pixel


def class_textures(num_classes: int, count: int, size: tuple[int, int], seed: int) -> Tensor:
    """Periodic textures of each class: red and green as the class has them, blue as another one has them.

    Of brightness blue is a ninth, so nearly all of the radius goes to both: who makes images grey finds the one, who
    looks at colours the other.

    Args:
        num_classes: C.
        count: V, of each class.
        size: (height, width) of a period, in pixels.
        seed: says which class has which direction and grain, and draws the textures.

    Returns:
        float32 (C * V, 3, height, width) of -1 and 1, class by class.
    """
    if torch.empty(0).is_meta:  # an outline has no numbers
        return torch.empty(num_classes * count, 3, *size)
    filters = [_band(*kind, size) for kind in kinds(num_classes)]
    order = random.Random(seed).sample(range(num_classes), num_classes)
    apart = num_classes // 3 + 1  # so that neighbours in brightness are none in blue
    draw = torch.Generator().manual_seed(seed % 2**63)
    made = []
    for place in [place for place in order for _ in range(count)]:
        bright, blue = (
            torch.fft.ifft2(torch.fft.fft2(torch.randn(size, generator=draw)) * filters[each]).real
            for each in (place, (place + apart) % num_classes)
        )
        made.append(torch.stack([bright, bright, blue]))
    return torch.where(torch.stack(made) < 0, -1.0, 1.0)


def kinds(num_classes: int) -> list[tuple[float, float]]:
    """As many textures as there are classes, no two the same.

    Returns:
        For each its periods a pixel, and its direction in radians, from 0 to a quarter turn: mirrored images, which
        trainers have too, are as much of the class as the others.
    """
    grains = GRAINS[: max(1, min(len(GRAINS), num_classes // 2))]
    each = -(-num_classes // len(grains))
    turns = [number / max(1, each - 1) * math.pi / 2 for number in range(each)]
    return [(grain, turn) for grain in grains for turn in turns][:num_classes]


def _band(grain: float, turn: float, size: tuple[int, int]) -> Tensor:
    """What of a spectrum a texture has: float32 (height, width)."""
    down, right = torch.fft.fftfreq(size[0])[:, None], torch.fft.fftfreq(size[1])
    periods, direction = (down.square() + right.square()).sqrt(), torch.atan2(down.abs(), right.abs())
    return torch.exp(-0.5 * (((periods - grain) / WIDTH).square() + ((direction - turn) / LEAN).square()))

"""Randomness keyed by the image.

A draw is a hash of (image's key, which draw, which element), not the next number of a stream. So it does not matter in
which batch, order, worker or machine an image comes. The finalisers are the public-domain mixers of splitmix64 (64
bits, per image) and lowbias32 (32 bits, per element).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from semtransforms.core.checks import whole_seed

_LENGTH, _ANGLE = range(2)  # the draws that a normal number is made of

_MASKS = {bits: (1 << (64 - bits)) - 1 for bits in (27, 30, 31)}


def _mix64(keys: Tensor) -> Tensor:
    # int64 arithmetic wraps; the masks turn the arithmetic shift into a logical one
    keys = (keys ^ ((keys >> 30) & _MASKS[30])) * -4658895280553007687
    keys = (keys ^ ((keys >> 27) & _MASKS[27])) * -7723592293110705685
    return keys ^ ((keys >> 31) & _MASKS[31])


def image_keys(images: Tensor | Sequence[Tensor], labels: Tensor, seed: int) -> Tensor:
    """One key per image, from its bytes, its label and the seed.

    Args:
        images: uint8 (N, C, H, W), or a sequence of uint8 (C, H, W).
        labels: int64 (N,).
        seed: any integer; secret for a real protection.

    Returns:
        int64 (N,) on the CPU.
    """
    secret = hashlib.blake2b(str(whole_seed("seed", seed)).encode()).digest()
    keys = np.empty(len(images), dtype=np.int64)
    for i, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        digest = hashlib.blake2b(repr((tuple(image.shape), label)).encode(), key=secret, digest_size=8)
        digest.update(np.ascontiguousarray(image.cpu().numpy()))
        keys[i] = int.from_bytes(digest.digest(), "little", signed=True)
    return torch.from_numpy(keys)


def index_keys(indices: Tensor, seed: int) -> Tensor:
    """One key per row of a training set: int64 (N,) from row numbers and a seed."""
    if indices.is_meta:  # an outline, here and below, has no numbers
        return indices
    text = str(whole_seed("seed", seed))
    secret = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)
    return _mix64(indices.to(torch.int64) * -7046029254386353131 + secret)


def fold_in(keys: Tensor, draw: int) -> Tensor:
    """Keys of another draw: int64 (N,) and a non-negative number to int64 (N,)."""
    if keys.is_meta:
        return keys
    return _mix64(keys + (draw + 1) * -7046029254386353131 % 2**63)


def keyed_uniform(keys: Tensor, shape: Sequence[int]) -> Tensor:
    """Uniform numbers that depend on the key alone.

    Args:
        keys: int64 (N,), one per image; the result lies on the same device.
        shape: of one image's draw, say (3, H, W) or ().

    Returns:
        float32 (N, *shape) in [0, 1), on a grid of 2**-24.
    """
    if keys.is_meta:
        return torch.empty(len(keys), *shape, device=keys.device)
    count = math.prod(shape)
    low = keys.to(torch.int32)  # keeps the low 32 bits
    high = (keys >> 32).to(torch.int32)
    element = torch.arange(count, dtype=torch.int32, device=keys.device).mul_(-1640531527)
    bits = element[None] ^ low[:, None]
    # >> is arithmetic on int32: x ^ (x >> s) stays a bijection, which is all the mixer needs
    bits ^= bits >> 16
    bits *= 2146121005
    bits ^= high[:, None]
    bits ^= bits >> 15
    bits *= -2073254261
    bits ^= bits >> 16
    bits &= 0xFFFFFF
    return bits.to(torch.float32).mul_(2.0**-24).view(len(keys), *shape)


def keyed_normal(keys: Tensor, shape: Sequence[int]) -> Tensor:
    """Standard normal numbers that depend on the key alone (Box and Muller).

    Args:
        keys: int64 (N,), one per image; the result lies on the same device.
        shape: of one image's draw.

    Returns:
        float32 (N, *shape), at most 5.8 from 0.
    """
    length, angle = (keyed_uniform(fold_in(keys, draw), shape) for draw in (_LENGTH, _ANGLE))
    return (-2 * torch.log1p(-length)).sqrt_() * torch.cos(2 * math.pi * angle)


def batch_rows(step: int, count: int, batch_size: int, seed: int, device: torch.device | str = "cpu") -> Tensor:
    """Rows of the minibatch of a step: a window in the endless sequence of shuffled epochs.

    Args:
        step: number of the update, from 0.
        count: rows in the data set.
        batch_size: B.
        seed: of the fit.
        device: where to have them; an epoch's order goes there once, so that no step waits for a copy.

    Returns:
        int64 (B,); within an epoch every row comes exactly once.
    """
    return torch.cat(
        [_shuffled(count, seed, epoch, device)[rows] for epoch, rows in batch_epochs(step, count, batch_size)]
    )


def batch_epochs(step: int, count: int, batch_size: int) -> list[tuple[int, slice]]:
    """Which parts of which shuffled epochs the minibatch of a step is made of, in order.

    Args:
        step: number of the update, from 0.
        count: rows in the data set.
        batch_size: B.

    Returns:
        Numbers of epochs, from 0, and the places in the order of each; B places in all.
    """
    first, stop = step * batch_size, (step + 1) * batch_size
    return [
        (epoch, slice(max(first - epoch * count, 0), min(stop - epoch * count, count)))
        for epoch in range(first // count, (stop - 1) // count + 1)
    ]


@lru_cache(maxsize=4)  # a batch spans two epochs at most (unless the data set is smaller than it), on two devices
def _shuffled(count: int, seed: int, epoch: int, device: torch.device | str) -> Tensor:
    # drawn on the CPU: the same order on every device
    generator = torch.Generator().manual_seed(stream_seed(seed, epoch))
    return torch.randperm(count, generator=generator).to(device)


def stream_seed(seed: int, number: int) -> int:
    """A seed for torch's own generators, from a seed and the number of a step or an epoch."""
    return (seed * 1_000_003 + number) % 2**63

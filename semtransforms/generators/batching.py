"""Images of mixed sizes through an engine: those of one size together, a batch at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from semtransforms.noise.engine import Engine


def noise_by_shape(
    engine: Engine,
    pixels: Sequence[Tensor],
    labels: Tensor,
    keys: Tensor,
    *,
    batch_size: int | None = None,
    progress: bool = False,
) -> list[Tensor]:
    """The noise of images of mixed sizes, each at its place.

    Args:
        engine: what makes it.
        pixels: N times uint8 (3, H, W).
        labels, keys: int64 (N,).
        batch_size: images that go through the engine at once; ``None`` for what suits its device.
        progress: show a bar.

    Returns:
        N times int8 (3, H, W).
    """
    results: list[Tensor] = [torch.empty(0)] * len(pixels)
    shapes: defaultdict[torch.Size, list[int]] = defaultdict(list)
    for index, image in enumerate(pixels):
        shapes[image.shape].append(index)
    with tqdm(total=len(pixels), unit="img", desc="noise", disable=not progress) as bar:
        for shape, rows in shapes.items():
            count = batch_size or _batch_size(shape, engine.device)
            for start in range(0, len(rows), count):
                batch = rows[start : start + count]
                made = engine.noise(torch.stack([pixels[i] for i in batch]), labels[batch], keys[batch])
                for index, noise in zip(batch, made, strict=True):
                    results[index] = noise
                bar.update(len(batch))
    return results


def _batch_size(shape: torch.Size, device: torch.device) -> int:
    """How many images of a shape suit a device."""
    most = 2048 if device.type == "cuda" else 128
    return max(1, min(most, 2**26 // shape.numel()))  # 256 MiB of float32 for each copy of a batch

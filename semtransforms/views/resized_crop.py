"""A member of T for photographs: the window that a trainer cuts out, at the resolution they train at.

Two small matrices for each image do the cutting and the resizing, rows and columns apart, for the whole batch in two
products; torch's antialiased resize takes the images of a batch at one window alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from semtransforms.core.keys import keyed_uniform
from semtransforms.views.members import Parameters
from semtransforms.views.windows import RATIO, SCALE


class ResizedCrop(nn.Module):
    """What a trainer sees who cuts a window out of an image and resizes it, at a resolution of their own.

    A window of torchvision's RandomResizedCrop, brought to a square of R px (bilinear, antialiased) and enlarged to the
    image's shorter side S, which every view has: R < S is a trainer whose images are smaller.

    Args:
        scale: least and most of the image's area that a window covers.
        ratio: narrowest and widest shape of a window, width by height.
        resolution: lowest R, in pixels; the highest is S. As many of each octave as of any other.
    """

    def __init__(self, scale: Sequence[float] = SCALE, ratio: Sequence[float] = RATIO, resolution: int = 24) -> None:
        super().__init__()
        if not (len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1):
            raise ValueError(f"scale must be two shares of the area that rise within 0..1, got {scale!r}")
        if not (len(ratio) == 2 and 0.01 <= ratio[0] <= ratio[1] <= 100):  # far beyond, single precision ends
            raise ValueError(f"ratio must be two numbers that rise within 0.01..100, got {ratio!r}")
        if isinstance(resolution, bool) or not isinstance(resolution, int) or resolution < 1:
            raise ValueError(f"resolution must be a whole number of pixels >= 1, got {resolution!r}")
        self.scale, self.ratio, self.resolution = tuple(scale), tuple(ratio), resolution

    def draw(self, keys: Tensor, shape: Sequence[int]) -> Parameters:
        """Windows float32 (N, 4), top, left, height, width in pixels; R float32 (N,), whole numbers."""
        height, width = shape[2:]
        area, ratio, top, left, resolution = keyed_uniform(keys, (5,)).unbind(1)
        area = (self.scale[0] + (self.scale[1] - self.scale[0]) * area) * (height * width)
        ratio = self.ratio[0] * (self.ratio[1] / self.ratio[0]) ** ratio
        # a window that does not fit is cut, where torchvision draws again
        rows, columns = (area / ratio).sqrt().clamp(max=height), (area * ratio).sqrt().clamp(max=width)
        window = torch.stack([top * (height - rows), left * (width - columns), rows, columns], 1)
        side = min(height, width)
        lowest = min(self.resolution, side)
        return {"window": window, "resolution": (lowest * (side / lowest) ** resolution).round()}

    def forward(self, images: Tensor, parameters: Parameters) -> Tensor:
        """Float (N, C, H, W) to (N, C, S, S)."""
        window, side = parameters["window"], min(images.shape[2:])
        start, length, resolution = window[:, :2], window[:, 2:], parameters["resolution"]
        enlarge = _enlargement(resolution, side)
        down = enlarge @ _reduction(start[:, 0], length[:, 0], resolution, side, images.shape[2])
        right = enlarge @ _reduction(start[:, 1], length[:, 1], resolution, side, images.shape[3])
        seen: Tensor = down.to(images.dtype)[:, None] @ images @ right.to(images.dtype).transpose(1, 2)[:, None]
        return seen

    def extra_repr(self) -> str:
        return f"scale={self.scale}, ratio={self.ratio}, resolution={self.resolution}"


def _reduction(start: Tensor, length: Tensor, resolution: Tensor, side: int, size: int) -> Tensor:
    """From ``size`` pixels to R of a window, with antialiasing: float (N, side, size), rows from R on are empty."""
    place = torch.arange(side, device=start.device)
    each = (length / resolution)[:, None]
    centre = start[:, None] + (place + 0.5) * each
    pixel = torch.arange(size, device=start.device) + 0.5
    weight = 1 - (pixel - centre[..., None]).abs() / each.clamp(min=1)[..., None]
    inside = ((pixel > start[:, None]) & (pixel < (start + length)[:, None]))[:, None]  # a trainer cuts first
    wanted = (place < resolution[:, None])[..., None]
    weight = torch.where(inside & wanted, weight, 0).clamp(min=0)
    return weight / weight.sum(2, keepdim=True).clamp(min=1e-6)


def _enlargement(resolution: Tensor, side: int) -> Tensor:
    """From R pixels to ``side``, bilinear: float (N, side, side), columns from R on are empty."""
    place = torch.arange(side, device=resolution.device)
    centre = (place + 0.5) * (resolution / side)[:, None] - 0.5
    centre = torch.minimum(centre.clamp(min=0), resolution[:, None] - 1)
    return (1 - (centre[..., None] - place).abs()).clamp(min=0)

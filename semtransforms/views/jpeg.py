"""JPEG, what a trainer's recompression leaves of an image: as a file, and as a function with a gradient.

kornia's (``RandomJPEG``) takes four times as long and rounds by a polynomial; this one rounds as a file does.
"""

from __future__ import annotations

import io
import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from semtransforms.data.images import as_pixels, to_pil

# Annex K of the JPEG standard: what coefficients are divided by at quality 50
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
# JFIF: R, G, B to Y, Cb, Cr around 0
_TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def through_file(images: Tensor, quality: int) -> Tensor:
    """Really encoded and decoded, with PIL's defaults: 4:2:0, so colour keeps a quarter of its resolution.

    Args:
        images: uint8 (N, 3, H, W).
        quality: 1..100, libjpeg's scale.

    Returns:
        uint8 (N, 3, H, W).
    """
    results = []
    for image in images:
        file = io.BytesIO()
        to_pil(image).save(file, format="JPEG", quality=quality)
        results.append(as_pixels(Image.open(file)))
    return torch.stack(results).to(images.device)


def jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """Encode as JPEG with halved colour resolution, as PIL does by default, and decode.

    Its rounding passes the gradient of Shin and Song's soft rounding (2017), 3 (x - round x)^2: of a coefficient that
    a small change leaves at its whole number, next to nothing.

    Args:
        images: float (N, 3, H, W) in [0, 1].
        quality: (N,), 1..100, libjpeg's scale.

    Returns:
        float (N, 3, H, W) in [0, 1].
    """
    with torch.autocast(images.device.type, enabled=False):  # bf16 would round the coefficients before their time
        return _jpeg(images.float() if images.dtype in (torch.bfloat16, torch.float16) else images, quality)


def _jpeg(images: Tensor, quality: Tensor) -> Tensor:
    height, width = images.shape[2:]
    # whole blocks of both resolutions, as the encoder fills them up
    padded = F.pad(images, (0, -width % 16, 0, -height % 16), mode="replicate")
    constants = _constants(images.dtype, images.device)
    ycbcr = torch.einsum("ij,njhw->nihw", constants.to_ycbcr, 255 * padded)
    luminance, colour = ycbcr[:, :1] - 128, F.avg_pool2d(ycbcr[:, 1:], 2)
    luminance = _round(luminance, _scaled(constants.luminance, quality), constants.cosines) + 128
    colour = _round(colour, _scaled(constants.chrominance, quality), constants.cosines)
    # libjpeg's triangle filter
    colour = F.interpolate(colour, scale_factor=2, mode="bilinear", align_corners=False)
    rgb = torch.einsum("ij,njhw->nihw", constants.to_rgb, torch.cat([luminance, colour], 1))
    return (rgb[:, :, :height, :width] / 255).clamp(0, 1)


def _scaled(table: Tensor, quality: Tensor) -> Tensor:
    """libjpeg's table of a quality: (N, 8, 8)."""
    quality = quality.to(table.dtype)
    percent = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality).floor()
    return ((table * percent[:, None, None] + 50) / 100).floor().clamp(1, 255)


def _round(planes: Tensor, table: Tensor, cosines: Tensor) -> Tensor:
    """Round the cosine coefficients of each 8 x 8 block to multiples of a table: (N, C, H, W) to the same."""
    count, channels, height, width = planes.shape
    divisor = table.view(count, 1, 1, 64)
    blocks = planes.view(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    coefficients = blocks.reshape(count, channels, -1, 64) @ cosines.T / divisor
    rounded: Tensor = _Round.apply(coefficients)
    return (rounded * divisor @ cosines).view(blocks.shape).transpose(3, 4).reshape(planes.shape)


class _Constants(NamedTuple):
    to_ycbcr: Tensor
    to_rgb: Tensor
    luminance: Tensor
    chrominance: Tensor
    cosines: Tensor  # the orthonormal DCT-II of a block's 64 values, (frequency, place)


@lru_cache(maxsize=4)  # copied to a device once, not at every call
@torch.inference_mode(False)  # kept for callers who want a gradient
def _constants(dtype: torch.dtype, device: torch.device) -> _Constants:
    frequency, place = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(8, dtype=torch.float64)
    basis = torch.where(frequency == 0, math.sqrt(1 / 8), 0.5 * torch.cos((2 * place + 1) * frequency * math.pi / 16))
    tables = (torch.tensor(table, dtype=torch.float64) for table in (_TO_YCBCR, _TO_RGB, _LUMINANCE, _CHROMINANCE))
    return _Constants(*(each.to(device, dtype) for each in (*tables, torch.kron(basis, basis))))


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        rounded = values.round()
        ctx.save_for_backward(values - rounded)
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (distance,) = ctx.saved_tensors
        passed: Tensor = 3 * distance.square() * gradients[0]
        return passed

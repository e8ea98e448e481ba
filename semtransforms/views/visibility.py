"""How much change the eye tolerates where: little in flat sky and skin, much in leaves and gravel.

This is contrast masking as Watson (1993) writes it after Legge and Foley (1980): what is there already hides what is
added. A change that is just seen on flat ground at t is just seen at ``max(t, c^w t^(1-w))``, w = 0.7, where the
image's own contrast is c. His c is a coefficient of the cosine transform of a block; here it is the standard deviation
of the brightness in a small window, so that the map has no blocks. His t depends on frequency and brightness; here it
is one grey level, the smallest change that a byte holds.

A. B. Watson, "DCT quantization matrices visually optimized for individual images", Proc. SPIE 1913, 1993.
G. E. Legge and J. M. Foley, "Contrast masking in human vision", J. Opt. Soc. Am. 70(12), 1980.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from semtransforms.data.images import to_pil

FLAT = 1.0  # t, in grey levels
EXPONENT = 0.7  # w
WINDOW = 5  # pixels, odd
FINER = 4  # the map is made at so many times the side that noise is made at: details about as fine as it hide it best


def tolerated(image: Tensor, size: tuple[int, int], reach: int) -> Tensor:
    """The share of a radius that the eye tolerates at each pixel.

    Args:
        image: uint8 (3, H, W).
        size: height and width of the copy that the map is made on, at most those of the image. Finer details than it
            shows do not count.
        reach: the radius, in grey levels.

    Returns:
        uint8 (H, W), 255 for all of the radius; nowhere less than ``FLAT`` levels. It is made of whole numbers but for
        one power, so its bytes are the same on every machine.
    """
    photograph = to_pil(image).convert("L")
    brightness = np.asarray(photograph.resize(size[::-1], Image.Resampling.BILINEAR), dtype=np.int64)
    count = WINDOW**2
    # count^2 times the variance, exactly
    spread = count * _window_sums(brightness**2) - _window_sums(brightness) ** 2
    threshold = FLAT * np.maximum(spread / (count * FLAT) ** 2, 1) ** (EXPONENT / 2)
    share = np.rint(255 * np.minimum(threshold / max(reach, 1), 1)).astype(np.uint8)
    return torch.from_numpy(np.array(Image.fromarray(share).resize(photograph.size, Image.Resampling.BILINEAR)))


def _window_sums(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum over the window around each value; what lies outside repeats the edge."""
    padded = np.pad(values, WINDOW // 2, mode="edge")
    for axis in (0, 1):
        windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW, axis=axis)
        padded = windows.sum(axis=-1)
    return padded


def share_seen(clean: Tensor, protected: Tensor) -> float:
    """The share of an image's pixels that changed by more than the eye tolerates there, looked at at 100 %.

    Args:
        clean: uint8 (3, H, W).
        protected: uint8, of the same size.

    Returns:
        In 0..1. A pixel's change is that of the colour that changed most, though the model is one of brightness, and
        was not tried on people here.
    """
    change = (protected.to(torch.int16) - clean).abs().amax(dim=0)
    height, width = clean.shape[1:]
    return float((change > tolerated(clean, (height, width), 255)).float().mean())

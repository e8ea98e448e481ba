"""What trainers do to images before they train, as members of T: noise that is computed through it survives it.

Each has ``draw`` and ``forward`` as every member of T (``views/eot.py``), and changes every image that it is given. How
often is said by ``one-of``. kornia does the filters. Colour jitter, cutout and more are kornia's augmentations
themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import kornia.color
import kornia.filters
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semtransforms.core.keys import keyed_uniform
from semtransforms.views.jpeg import jpeg

Parameters = dict[str, Tensor]


class Fixed(nn.Module):
    """The same function of every image, with nothing to draw.

    Args:
        function: float (N, 3, H, W) in [0, 1] to the same shape, image by image.
        name: for ``repr``.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], name: str) -> None:
        super().__init__()
        self.function, self.name = function, name

    def draw(self, keys: Tensor, shape: Sequence[int]) -> Parameters:
        """Nothing."""
        return {}

    def forward(self, images: Tensor, parameters: Parameters) -> Tensor:
        """Float (N, 3, H, W) to the same shape."""
        return self.function(images)

    def extra_repr(self) -> str:
        return self.name


class Jpeg(nn.Module):
    """JPEG of a quality drawn for each image, with the gradient of :func:`semtransforms.views.jpeg.jpeg`.

    Args:
        quality: lowest and highest, whole numbers 1..100.
    """

    def __init__(self, quality: Sequence[int]) -> None:
        super().__init__()
        self.low, self.high = _range("quality", quality, 1, 100)

    def draw(self, keys: Tensor, shape: Sequence[int]) -> Parameters:
        """The quality, int64 (N,)."""
        return {"quality": _whole(keys, self.low, self.high)}

    def forward(self, images: Tensor, parameters: Parameters) -> Tensor:
        """Float (N, 3, H, W) to the same shape."""
        return jpeg(images, parameters["quality"])

    def extra_repr(self) -> str:
        return f"quality=({self.low}, {self.high})"


class BitDepth(nn.Module):
    """The upper bits of each byte, truncated; the gradient passes straight through, as if nothing had been cut off.

    Args:
        bits: fewest and most, whole numbers 1..8, drawn for each image.
    """

    def __init__(self, bits: Sequence[int]) -> None:
        super().__init__()
        self.low, self.high = _range("bits", bits, 1, 8)

    def draw(self, keys: Tensor, shape: Sequence[int]) -> Parameters:
        """How many bits are kept, int64 (N,)."""
        return {"bits": _whole(keys, self.low, self.high)}

    def forward(self, images: Tensor, parameters: Parameters) -> Tensor:
        """Float (N, 3, H, W) to the same shape."""
        step = 2.0 ** (8 - parameters["bits"][:, None, None, None])
        # a hair more, since 128/255 in float32 times 255 is not quite 128
        kept = ((255 * images.detach() + 1e-3) / step).floor() * step / 255
        return images + (kept - images).detach()

    def extra_repr(self) -> str:
        return f"bits=({self.low}, {self.high})"


def _greyscale(images: Tensor) -> Tensor:
    grey: Tensor = kornia.color.rgb_to_grayscale(images)
    return grey.expand(images.shape)


def _shrink(images: Tensor) -> Tensor:
    """To half the size and back."""
    half = F.interpolate(images, scale_factor=0.5, mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(half, size=images.shape[2:], mode="bilinear", align_corners=False)


_FIXED: dict[str, Callable[[Tensor], Tensor]] = {
    "greyscale": _greyscale,
    "mean": lambda images: kornia.filters.box_blur(images, 3),
    "median": lambda images: kornia.filters.median_blur(images, 3),
    "gaussian": lambda images: kornia.filters.gaussian_blur2d(images, (3, 3), (0.8, 0.8)),
    "shrink": _shrink,
}
DISTORTIONS = (*_FIXED, "jpeg", "bit-depth")


def build_distortion(name: str, arguments: dict[str, Any]) -> nn.Module:
    """A member of T by its name in ``DISTORTIONS``.

    Raises:
        TypeError: arguments that it does not take.
        ValueError: arguments out of range.
    """
    if name == "jpeg":
        return Jpeg(**arguments)
    if name == "bit-depth":
        return BitDepth(**arguments)
    if arguments:
        raise TypeError(f"{name!r} takes no arguments")
    return Fixed(_FIXED[name], name)


def _range(name: str, limits: Sequence[int], smallest: int, largest: int) -> tuple[int, int]:
    ends = tuple(limits)
    if len(ends) != 2 or any(isinstance(end, bool) or not isinstance(end, int) for end in ends):
        raise ValueError(f"{name} must be two whole numbers, lowest and highest, got {limits!r}")
    if not smallest <= ends[0] <= ends[1] <= largest:
        raise ValueError(f"{name} must rise within {smallest}..{largest}, got {limits!r}")
    return ends[0], ends[1]


def _whole(keys: Tensor, low: int, high: int) -> Tensor:
    return low + (keyed_uniform(keys, ()) * (high - low + 1)).to(torch.int64)

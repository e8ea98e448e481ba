"""How a protected image becomes a file, and how far the file is from the original."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageChops
from safetensors.torch import save
from torch import Tensor

from semtransforms.core.checks import check_integer, check_number
from semtransforms.data.images import RGBImage, encode_png, to_pil

QUALITY = 90  # of JPEG; what is lost at it is told in examples/README.md


def _png(image: RGBImage, clean: Tensor, quality: int | None) -> bytes:
    return encode_png(*image)


def _jpeg(image: RGBImage, clean: Tensor, quality: int | None) -> bytes:
    buffer = io.BytesIO()
    # 4:4:4: noise in the colours would be averaged away with them. The tables are the encoder's own: those of the
    # original say which camera or program made it, and help to round the noise away.
    to_pil(image.pixels).save(buffer, format="JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def _noise(image: RGBImage, clean: Tensor, quality: int | None) -> bytes:
    noise = image.pixels.sub(clean).view(torch.int8)  # modulo 256, which int8 reads as its sign
    data: bytes = save({"noise": noise})
    return data


@dataclass(frozen=True)
class Format:
    """How one protected image becomes a file, and what the files are packed into.

    ``encode`` takes the protected image, the clean pixels and the quality; ``room`` says how many bytes come of so many
    pixels at a quality, about.
    """

    suffix: str
    encode: Callable[[RGBImage, Tensor, int | None], bytes]
    room: Callable[[int, int | None], float]
    packed: bool = False
    published: bool = True
    lossless: bool = True


def _room_of_png(pixels: int, quality: int | None) -> float:
    # measured with noise: 2.4 bytes a pixel at 32 and 64 px, 1.4 at 0.2 megapixels, 0.8 at 12
    return pixels * (2.5 if pixels < 1 << 16 else 1.5)


def _room_of_jpeg(pixels: int, quality: int | None) -> float:
    # measured at 0.2 megapixels: 0.26 bytes a pixel at quality 90, 0.36 at 95, 0.87 at 100
    return pixels * next(room for limit, room in ((90, 0.3), (95, 0.4), (100, 0.9)) if (quality or QUALITY) <= limit)


def _room_of_noise(pixels: int, quality: int | None) -> float:
    return 3 * pixels


FORMATS = {
    "png": Format(".png", _png, _room_of_png),
    "parquet": Format(".png", _png, _room_of_png, packed=True),
    "datasets": Format(".png", _png, _room_of_png, packed=True),
    "tars": Format(".png", _png, _room_of_png, packed=True),
    "noise": Format(".safetensors", _noise, _room_of_noise, published=False),
    "jpeg": Format(".jpg", _jpeg, _room_of_jpeg, lossless=False),
}


def pick_quality(format: str, quality: int | None) -> int | None:
    """The quality that a format's files get.

    Args:
        format: one of ``FORMATS``.
        quality: asked for, or ``None``.

    Returns:
        75 to 100 for JPEG; ``None`` for a format that loses nothing.

    Raises:
        ValueError: it is outside of that, or asked of such a format.
    """
    if not FORMATS[format].lossless:
        chosen = QUALITY if quality is None else quality
        check_integer("quality", chosen)
        check_number("quality", chosen, low=75, high=100, advice="Stronger JPEG takes the noise away.")
        return chosen
    if quality is not None:
        raise ValueError(f"quality={quality} was given, but format {format!r} loses nothing. Leave it out.")
    return None


class Difference(NamedTuple):
    """How far published images are from the originals.

    ``largest`` is in grey levels, ``squares`` is the sum of the squared differences of all ``values``.
    """

    largest: int = 0
    squares: int = 0
    values: int = 0

    @property
    def rms(self) -> float:
        """Root mean square, in grey levels."""
        return math.sqrt(self.squares / max(self.values, 1))

    def and_of(self, other: Difference) -> Difference:
        """That of both sets of images together."""
        return Difference(max(self.largest, other.largest), self.squares + other.squares, self.values + other.values)


def published_difference(clean: Tensor, published: Tensor | bytes) -> Difference:
    """How far one published image is from its original, as a reader of the file gets it.

    Args:
        clean: uint8 (3, H, W), the original.
        published: uint8 (3, H, W), what a file that loses nothing holds; or the file.
    """
    if isinstance(published, bytes):
        decoded = Image.open(io.BytesIO(published))
        planes = (decoded.getchannel(colour) for colour in range(3))
    else:
        planes = (Image.fromarray(plane) for plane in published.numpy())
    difference = Difference()
    for plane, original in zip(planes, clean.numpy(), strict=True):  # one by one, for the memory
        apart = np.array(ImageChops.difference(plane, Image.fromarray(original)).histogram())
        squares = int(apart @ np.arange(256) ** 2)
        difference = difference.and_of(Difference(int(np.flatnonzero(apart)[-1]), squares, original.size))
    return difference

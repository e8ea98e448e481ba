"""Fixed maps of one image: filters, compression, purifiers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from semtransforms.core.checks import check_number
from semtransforms.core.grid import to_bytes, to_float
from semtransforms.data.loading import Labelled
from semtransforms.evaluation.countermeasures.base import Countermeasure
from semtransforms.views.catalogue import truncate
from semtransforms.views.jpeg import through_file

CHUNK_PIXELS = 2**18  # per call of a map: 256 images of 32 x 32; larger ones leave the cache (a third slower, measured)


@dataclass(frozen=True)
class ImageMap(Countermeasure):
    """The same function of every image, applied to the stored images once and, where the trainer chooses, at test.

    Args:
        function: uint8 (N, 3, H, W) to the same shape and type, image by image.
        name: for records.
    """

    function: Callable[[Tensor], Tensor]
    name: str
    acts_on = "stored"

    def on_stored(self, data: Labelled, *, seed: int) -> Labelled:
        """The images mapped; labels and the owner's clean images as they are."""
        return replace(data, images=self.at_test(data.images))

    @torch.no_grad()
    def at_test(self, images: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) to the same shape and type."""
        count = max(1, CHUNK_PIXELS // images.shape[2:].numel())
        return torch.cat([self._mapped(some) for some in torch.split(images, count)])

    def _mapped(self, images: Tensor) -> Tensor:
        return self.function(images)


@dataclass(frozen=True)
class Purifier(ImageMap):
    """Any denoiser of float images; its result is rounded to whole grey levels.

    Args:
        function: float32 (N, 3, H, W) in [0, 1] to the same shape, image by image; what leaves [0, 1] is clamped.
        name: for records; one that no other countermeasure of yours has.

    Raises:
        ValueError: when it is applied: the function changes the image size, gives something else than floats, or NaN.
    """

    def _mapped(self, images: Tensor) -> Tensor:
        result = self.function(to_float(images))
        if result.shape != images.shape:
            raise ValueError(
                f"countermeasure {self.name!r} changes the image size from {tuple(images.shape)} to "
                f"{tuple(result.shape)}. Give a function that keeps it."
            )
        if not result.is_floating_point() or not bool(result.isfinite().all()):
            raise ValueError(
                f"countermeasure {self.name!r} must give finite floats in [0, 1], got {result.dtype}"
                f"{' with NaN or infinity' if result.is_floating_point() else ''}"
            )
        return to_bytes(result)


def jpeg(quality: int) -> ImageMap:
    """Really encoded and decoded.

    Raises:
        ValueError: the quality lies outside 1..100.
    """
    check_number("quality", quality, low=1, high=100)
    return ImageMap(partial(through_file, quality=quality), f"jpeg-{quality}")


def bit_depth(bits: int) -> Purifier:
    """The upper bits of each byte.

    Raises:
        ValueError: fewer than one bit or more than 7 would be kept.
    """
    check_number("bits", bits, low=1, high=7)
    return Purifier(partial(truncate, bits=bits), f"bit-depth-{bits}")

"""The size at which noise is made: a larger image is shrunk to it, and its noise enlarged.

Noise that is made at a photograph's own size is fine-grained and vanishes when a trainer resizes. Made at about the
size that trainers train at, and enlarged, it is still there.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from semtransforms.core.checks import check_number
from semtransforms.core.covering import covering
from semtransforms.core.grid import add_noise
from semtransforms.views.visibility import FINER, tolerated

# Values that are enlarged at a time: few enough for a processor's cache, and for torch not to share them out between
# threads, which wait for each other at every step: for seconds where other work keeps the processor busy.
_STRIP = 30_000

NOISE_SIZE = 64  # S in pixels, for a generator that is fitted on photographs of mixed sizes


@dataclass(frozen=True)
class NoiseScale:
    """Where the noise of an image is made, and how it comes to the image's own size.

    Args:
        side: S, the shorter side at which noise is made, in pixels; images whose shorter side is not larger get it at
            their own size. ``None``: all do.
        reach: the largest noise, in grey levels.
        visibility: how much of the reach noise has where the eye tolerates least, in 0..1. At 1 it has all of it
            everywhere; at 0 it has what the eye tolerates, see :mod:`semtransforms.views.visibility`.

    Raises:
        ValueError: visibility is not in 0..1.
    """

    side: int | None
    reach: int
    visibility: float = 1.0

    def __post_init__(self) -> None:
        check_number("visibility", self.visibility, high=1, advice="1 is all of rho_u everywhere.")
        object.__setattr__(self, "visibility", float(self.visibility))  # 0 and 0.0 are one scale

    @property
    def identity(self) -> list[str]:
        """What the noise of an image depends on, in words; those of a time without ``visibility`` stay as they were."""
        return [str(self.side)] + [f"visibility {self.visibility!r}"] * (self.visibility != 1)

    def made_at(self, height: int, width: int) -> tuple[int, int]:
        """The size at which the noise of an image is made; its shape is kept.

        Args:
            height, width: of the image, in pixels.
        """
        return _fitted(height, width, self.side)

    def shrink(self, image: Tensor) -> Tensor:
        """An image at the size at which its noise is made.

        Args:
            image: uint8 (3, H, W).

        Returns:
            uint8 (3, h, w), bilinear with antialiasing; the same bytes on every machine.
        """
        return _resampled(image, *self.made_at(*image.shape[1:]))

    def enlarge(self, noise: Tensor, image: Tensor) -> Tensor:
        """Noise at the size of its image.

        Args:
            noise: int8 (3, h, w), as it was made.
            image: uint8 (3, H, W), which it is for.

        Returns:
            int8 (3, H, W), bicubic, damped as ``visibility`` asks for, in whole grey levels: ``|noise| <= reach`` and
            ``image + noise`` in 0..255.
        """
        if self.leaves(noise.shape, image.shape):
            return noise
        return self.add(noise, image).sub_(image).view(torch.int8)  # modulo 256, which int8 reads as its sign

    def add(self, noise: Tensor, image: Tensor, rows: slice | None = None) -> Tensor:
        """An image with its noise: what :meth:`enlarge` gives added to it, in less time and memory.

        Args:
            noise: int8 (3, h, w), as it was made.
            image: uint8 (3, H, W), which it is for; it is not changed.
            rows: of the image, a slice of H with start and stop: what is wanted of it; default: all.

        Returns:
            uint8 (3, H, W), or as many rows.
        """
        height, width = image.shape[1:]
        rows = rows or slice(0, height)
        if self.leaves(noise.shape, image.shape):
            return add_noise(image[:, rows], noise[:, rows])
        tolerance = self._tolerance(image)
        added = torch.empty_like(image[:, rows])
        for (colour, strip), fine in _enlarged(noise, height, width, rows):
            if tolerance is not None:
                share = tolerance[strip].float().mul_((1 - self.visibility) / 255).add_(self.visibility)
                fine.clamp_(-self.reach, self.reach).mul_(share)
            np.rint(fine.numpy(), out=fine.numpy())
            fine.clamp_(-self.reach, self.reach)
            fine.add_(image[colour, strip]).clamp_(0, 255)  # whole numbers, which float32 adds exactly
            added[colour, strip.start - rows.start : strip.stop - rows.start] = fine
        return added

    def leaves(self, made: Sequence[int], image: Sequence[int]) -> bool:
        """Whether noise of one shape is added to an image of another as it was made."""
        return tuple(made) == tuple(image) and self.visibility == 1

    def _tolerance(self, image: Tensor) -> Tensor | None:
        """What the eye tolerates of its reach at each pixel, uint8 (H, W); ``None`` where noise has all of it."""
        if self.visibility == 1:
            return None
        height, width = image.shape[1:]
        return tolerated(image, _fitted(height, width, self.side and FINER * self.side), self.reach)


def _enlarged(noise: Tensor, height: int, width: int, wanted: slice) -> Iterator[tuple[tuple[int, slice], Tensor]]:
    """Noise at another size, bicubic, a strip of rows at a time: of 12 megapixels all would take 144 MB in float32.

    Args:
        noise: int8 (3, h, w).
        height, width: to enlarge it to, in pixels.
        wanted: rows of what it is enlarged to.

    Yields:
        Colour and rows, and their float32 (rows, width), which may be written to.
    """
    wide = _bicubic(noise.float(), noise.shape[1], width)
    first, weights = _sums_of_lines(noise.shape[1], height)
    count = max(1, _STRIP // width)
    for colour, top in itertools.product(range(len(noise)), range(wanted.start, wanted.stop, count)):
        rows = slice(top, min(top + count, wanted.stop))
        fine = wide.new_zeros(rows.stop - top, width)
        # in the order in which torch's kernel adds, since another one rounds otherwise
        for line in [line for line in (1, 0, 2, 3) if line < weights.shape[1]]:
            fine.addcmul_(wide[colour].index_select(0, first[rows] + line), weights[rows, line, None])
        yield (colour, rows), fine


@lru_cache(maxsize=64)  # most photographs of a folder have one of few sizes
def _sums_of_lines(lines: int, height: int) -> tuple[Tensor, Tensor]:
    """What bicubic enlargement makes of an image's lines: each new row is a weighted sum of neighbouring ones.

    Args:
        lines, height: rows before and after.

    Returns:
        int64 (height,), the first line of each sum; float32 (height, 4), their weights, or fewer where there are fewer.
    """
    taps = min(4, lines)
    above = ((2 * torch.arange(height) + 1) * lines - height) // (2 * height)  # the last line not below a row's centre
    first = (above - 1).clamp_(0, lines - taps)
    # read off what torch's kernel makes of lines that are 1 and 0, since builds of it differ in the last bit
    all_weights = _bicubic(torch.eye(lines, dtype=torch.float32)[None], height, lines)[0]
    return first, all_weights.gather(1, first[:, None] + torch.arange(taps))


def _bicubic(image: Tensor, height: int, width: int) -> Tensor:
    """float32 (3, h, w) to (3, height, width)."""
    return F.interpolate(image[None], (height, width), mode="bicubic", align_corners=False)[0]


def _fitted(height: int, width: int, side: int | None) -> tuple[int, int]:
    """A height and width whose smaller one is at most ``side``; the shape is kept."""
    return (height, width) if side is None or min(height, width) <= side else covering((height, width), (side, side))


def centre_square(image: Tensor, side: int = NOISE_SIZE) -> Tensor:
    """The middle of an image as a square: what a fit sees of a photograph.

    Args:
        image: uint8 (3, H, W).
        side: of the square, in pixels.

    Returns:
        uint8 (3, side, side): the image with its shorter side brought to ``side``, as where noise is made, and the ends
        of its longer side cut off. A smaller image is enlarged, though its noise will be made at its own size.
    """
    whole = _resampled(image, *covering(image.shape[1:], (side, side)))
    top, left = (round((length - side) / 2) for length in whole.shape[1:])  # as torchvision's CenterCrop
    return whole[:, top : top + side, left : left + side].contiguous()


def _resampled(image: Tensor, height: int, width: int) -> Tensor:
    """An image at another size, bilinear with antialiasing; the same bytes on every machine."""
    if (height, width) == tuple(image.shape[1:]):
        return image
    # PIL computes in whole numbers; torch's result depends on the processor
    planes = (Image.fromarray(plane) for plane in image.cpu().numpy())
    small = [np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR)) for plane in planes]
    return torch.from_numpy(np.stack(small))

"""The size at which noise is made: a larger image is shrunk to it, and its noise enlarged.

Noise that is made at a photograph's own size is fine-grained and vanishes when a trainer resizes. Made at about the
size that trainers train at, and enlarged, it is still there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from semtransforms.core.checks import check_number
from semtransforms.core.grid import add_noise
from semtransforms.views.visibility import FINER, tolerated

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
        size = image.shape[1:]
        share = self._share(image)
        enlarged = torch.empty(image.shape, dtype=torch.int8)
        for colour, plane in enumerate(noise):  # one by one: of 12 megapixels each takes 48 MB in float32
            fine = F.interpolate(plane[None, None].float(), size, mode="bicubic", align_corners=False)[0, 0]
            if share is not None:
                fine = fine.clamp_(-self.reach, self.reach).mul_(share)
            enlarged[colour] = fine.round_().clamp_(-self.reach, self.reach)
        return add_noise(image, enlarged).sub_(image).view(torch.int8)  # modulo 256, which int8 reads as its sign

    def leaves(self, made: Sequence[int], image: Sequence[int]) -> bool:
        """Whether noise of one shape is added to an image of another as it was made."""
        return tuple(made) == tuple(image) and self.visibility == 1

    def _share(self, image: Tensor) -> Tensor | None:
        """The share of its reach that noise has at each pixel, float32 (H, W); ``None`` for all of it everywhere."""
        if self.visibility == 1:
            return None
        height, width = image.shape[1:]
        share = tolerated(image, _fitted(height, width, self.side and FINER * self.side), self.reach)
        return share.float().mul_((1 - self.visibility) / 255).add_(self.visibility)


def _fitted(height: int, width: int, side: int | None) -> tuple[int, int]:
    """A height and width whose smaller one is at most ``side``; the shape is kept."""
    shorter = min(height, width)
    if side is None or shorter <= side:
        return height, width
    return round(height * side / shorter), round(width * side / shorter)


def centre_square(image: Tensor, side: int = NOISE_SIZE) -> Tensor:
    """The middle of an image as a square: what a fit sees of a photograph.

    Args:
        image: uint8 (3, H, W).
        side: of the square, in pixels.

    Returns:
        uint8 (3, side, side): the image with its shorter side brought to ``side``, as where noise is made, and the ends
        of its longer side cut off. A smaller image is enlarged, though its noise will be made at its own size.
    """
    height, width = image.shape[1:]
    shorter = min(height, width)
    whole = _resampled(image, round(height * side / shorter), round(width * side / shorter))
    top, left = (whole.shape[1] - side) // 2, (whole.shape[2] - side) // 2
    return whole[:, top : top + side, left : left + side].contiguous()


def _resampled(image: Tensor, height: int, width: int) -> Tensor:
    """An image at another size, bilinear with antialiasing; the same bytes on every machine."""
    if (height, width) == tuple(image.shape[1:]):
        return image
    # PIL computes in whole numbers; torch's result depends on the processor
    small = Image.fromarray(image.permute(1, 2, 0).cpu().numpy()).resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).contiguous()

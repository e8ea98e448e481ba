"""Changes of a training batch: augmentations, which leave the targets, and mixtures, which mix them too.

kornia and torchvision draw from a global stream, some of them once per batch. Here every draw is keyed by the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import kornia.augmentation
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from semtransforms.core.grid import to_bytes, to_float
from semtransforms.core.keys import fold_in, keyed_normal, keyed_uniform
from semtransforms.evaluation.countermeasures.base import Countermeasure
from semtransforms.views.eot import EOT
from semtransforms.views.members import Kornia
from semtransforms.views.windows import windows_of_size


def cutout(images: Tensor, keys: Tensor) -> Tensor:
    """A black square of half the image's side (16 of 32), which may hang over the border (DeVries and Taylor 2017)."""
    height, width = images.shape[2:]
    side = min(height, width) // 2
    corner = _pixel(keys, height, width) - side // 2
    return images.masked_fill(_box(images, corner[:, 0], corner[:, 1], side, side), 0)


def mixup(images: Tensor, targets: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted means of two images; the weight is of Beta(1, 1), which is uniform (Zhang et al. 2018)."""
    partner = keyed_uniform(fold_in(keys, 0), ()).argsort()
    share = keyed_uniform(fold_in(keys[:1], 1), ())
    return torch.lerp(images[partner], images, share), torch.lerp(targets[partner], targets, share)


def cutmix(images: Tensor, targets: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """A box of another image, in every batch, with an area of Beta(1, 1) (Yun et al. 2019).

    Its centre is any pixel, and it is clipped at the border; targets are mixed by the area that is left.
    """
    height, width = images.shape[2:]
    partner = keyed_uniform(fold_in(keys, 0), ()).argsort()
    ratio = (1 - keyed_uniform(fold_in(keys[:1], 1), ())).sqrt()
    box_height, box_width = (height * ratio).to(torch.int64), (width * ratio).to(torch.int64)
    centre = _pixel(fold_in(keys[:1], 2), height, width)
    box = _box(images, centre[:, 0] - box_height // 2, centre[:, 1] - box_width // 2, box_height, box_width)
    cut = box.float().mean()
    return torch.where(box, images[partner], images), torch.lerp(targets, targets[partner], cut)


def _pixel(keys: Tensor, height: int, width: int) -> Tensor:
    """A uniform pixel per key: int64 (N, 2), row and column."""
    return (keyed_uniform(keys, (2,)) * torch.tensor([height, width], device=keys.device)).to(torch.int64)


def _box(images: Tensor, top: Tensor, left: Tensor, height: int | Tensor, width: int | Tensor) -> Tensor:
    """Boxes as masks: bool (N, 1, H, W), from the row and column int64 (N,) of their upper left corners."""
    rows = torch.arange(images.shape[2], device=images.device) - top[:, None]
    columns = torch.arange(images.shape[3], device=images.device) - left[:, None]
    inside = [(places >= 0) & (places < length) for places, length in ((rows, height), (columns, width))]
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]


def gaussian_noise(images: Tensor, keys: Tensor) -> Tensor:
    """Normal noise with a standard deviation of 8 grey levels."""
    return keyed_normal(keys, images.shape[1:]).mul_(8 / 255).add_(images).clamp_(0, 1)


def randaugment(images: Tensor, keys: Tensor) -> Tensor:
    """torchvision's RandAugment with its defaults: 2 operations of magnitude 9 (Cubuk et al. 2020)."""
    return _one_by_one(v2.RandAugment(), images, keys)


def augmix(images: Tensor, keys: Tensor) -> Tensor:
    """torchvision's AugMix with its defaults: 3 chains of severity 3, mixed (Hendrycks et al. 2020); not its loss."""
    return _one_by_one(v2.AugMix(), images, keys)


def _one_by_one(augment: Callable[[Tensor], Tensor], images: Tensor, keys: Tensor) -> Tensor:
    # torchvision and kornia draw the operations once per batch, so each image goes through alone
    results = []
    with torch.random.fork_rng(devices=[]):
        for image, key in zip(to_bytes(images), keys.tolist(), strict=True):
            torch.default_generator.manual_seed(key)
            results.append(augment(image))
    return to_float(torch.stack(results))


def random_resized(images: Tensor, keys: Tensor) -> Tensor:
    """A random window of 35 to 100 % of the area, of shape 3:4 to 4:3, resized to the image's size."""
    return windows_of_size(images, keys.cpu(), (images.shape[2], images.shape[3]))


def warp(images: Tensor, keys: Tensor) -> Tensor:
    """Smooth random warps: every fourth pixel is moved by up to 2 px in each direction, those between follow.

    After COIN (Wang et al. 2023), which moves each pixel by itself.
    """
    height, width = images.shape[2:]
    coarse = 4 * keyed_uniform(keys, (2, -(-height // 4) + 1, -(-width // 4) + 1)) - 2
    moves = F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=True)
    places = torch.meshgrid(
        torch.arange(height, device=images.device), torch.arange(width, device=images.device), indexing="ij"
    )
    # grid_sample counts from -1 to 1 between the outer borders of the outer pixels, the column first
    row, column = (
        (2 * (place + moves[:, axis]) + 1) / length - 1
        for axis, (place, length) in enumerate(zip(places, (height, width), strict=True))
    )
    return F.grid_sample(images, torch.stack([column, row], 3), padding_mode="border", align_corners=False)


def channel_shuffle() -> Augmentation:
    """kornia's: the channels in a random order."""
    return Augmentation(EOT([Kornia(kornia.augmentation.RandomChannelShuffle(p=1.0))]), "channel-shuffle")


@dataclass(frozen=True)
class Augmentation(Countermeasure):
    """A random change of each image, which leaves its target as it is.

    Args:
        function: float32 (B, 3, H, W) in [0, 1] and keys int64 (B,) to the same shape; a new tensor.
        name: for records.
    """

    function: Callable[[Tensor, Tensor], Tensor]
    name: str
    acts_on = "batch"

    @torch.no_grad()
    def on_batch(self, images: Tensor, targets: Tensor, *, keys: Tensor, network: nn.Module) -> tuple[Tensor, Tensor]:
        """Images changed, targets as they are."""
        return self.function(images, keys), targets


@dataclass(frozen=True)
class Mixture(Countermeasure):
    """A mixture of each image with another of its batch, and of their targets.

    Partners come from a random permutation; how much is mixed is drawn once per batch, as the published methods do.

    Args:
        function: images, targets and keys to images and targets of the same shapes; new tensors.
        name: for records.
    """

    function: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    name: str
    acts_on = "batch"

    @torch.no_grad()
    def on_batch(self, images: Tensor, targets: Tensor, *, keys: Tensor, network: nn.Module) -> tuple[Tensor, Tensor]:
        """Images and targets mixed."""
        return self.function(images, targets, keys)


def colour_jitter() -> Augmentation:
    """kornia's jitter of brightness, contrast and saturation by 0.4, and of hue by 0.1."""
    # a fixed order: kornia draws one order for a whole batch
    jitter = kornia.augmentation.ColorJitter(0.4, 0.4, 0.4, 0.1, order=(0, 1, 2, 3))
    return Augmentation(EOT([Kornia(jitter)]), "colour-jitter")

"""Noise in closed form, without a network: SC, the synthesised shortcut (Yu et al. 2022)."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from functools import lru_cache

import torch
from torch import Tensor, nn

from semtransforms.config import GeneratorConfig
from semtransforms.functional import fold, index_keys, keyed_uniform, project, to_float

PATCH = 8  # px, of the smallest patch; Yu et al. at 32 px
MOST_PATCHES = 7  # along an image's longer side: 32 px each at 224, the form in which SC is run on ImageNet
CLASS_SEPARATION = 10.0  # distance of a class's centre from 0 along every axis, as in their data

# what a key is folded with
_LENGTH, _ANGLE = range(2)


class ClosedForm(nn.Module, ABC):
    """Noise without a surrogate network: what a generator of such a method holds in its place."""

    smallest: int  # px, of an image's shorter side

    @abstractmethod
    def noise(self, images: Tensor, labels: Tensor, keys: Tensor) -> Tensor:
        """The noise of a batch.

        Args:
            images: uint8 (N, 3, H, W).
            labels: int64 (N,).
            keys: int64 (N,), one per image: its randomness.

        Returns:
            float32 (N, 3, H, W) within the radius, ``images + noise`` in [0, 1].
        """


class ShortcutPatches(ClosedForm):
    """SC: a point of the label's cluster, each of its coordinates painted as a square of one colour channel.

    Each class is a Gaussian cluster around a corner of a hypercube, stretched by a random matrix of its own
    (scikit-learn's ``make_classification``, which the original calls). A linear model tells such noise apart at sight.

    Patches are squares of 8 px, and grow with the image once 7 of them no longer span its longer side: 4 x 4 of 8 px
    at 32 px, 7 x 7 of 32 px at 224. So a point has at most 3 x 49 coordinates, and a class's matrix 86 KB.

    Args:
        config: ``seed`` draws the clusters, ``num_classes`` says how many; ``rho_u`` is the radius, and
            ``root_mean_square`` the size where the original's l2 norm is wanted.
    """

    smallest = PATCH

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config

    def noise(self, images: Tensor, labels: Tensor, keys: Tensor) -> Tensor:
        """The patches of these images; the key says which point of the cluster an image gets."""
        assert self.config.num_classes is not None
        count, _, height, width = images.shape
        side = max(PATCH, -(-max(height, width) // MOST_PATCHES))
        rows, columns = -(-height // side), -(-width // side)
        points = cluster_points(labels, keys, 3 * rows * columns, self.config.num_classes, self.config.seed)
        patches = points.view(count, 3, rows, columns)
        painted = patches.repeat_interleave(side, 2).repeat_interleave(side, 3)[..., :height, :width]
        if self.config.root_mean_square is None:
            scale = self.config.rho_u / painted.abs().amax((1, 2, 3), keepdim=True)
        else:
            scale = self.config.root_mean_square / painted.square().mean((1, 2, 3), keepdim=True).sqrt()
        return project(painted * scale, to_float(images), self.config.rho_u)


def cluster_points(labels: Tensor, keys: Tensor, axes: int, num_classes: int, seed: int) -> Tensor:
    """One point per image out of its class's cluster.

    Args:
        labels: int64 (N,).
        keys: int64 (N,), one per image.
        axes: dimensions of a point.
        num_classes: C.
        seed: of the clusters.

    Returns:
        float32 (N, axes), standard normal draws times a matrix of U(-1, 1), around a corner at +-10.

    Raises:
        ValueError: there are fewer corners than classes.
    """
    if 2**axes < num_classes:
        raise ValueError(
            f"images of {axes // 3} patches have {2**axes} corners, too few for num_classes={num_classes}. Use larger "
            "images."
        )
    device = keys.device
    length, angle = (keyed_uniform(fold(keys, draw), (axes,)) for draw in (_LENGTH, _ANGLE))
    normal = (-2 * torch.log1p(-length)).sqrt_() * torch.cos(2 * math.pi * angle)  # Box and Muller
    corners = class_corners(axes, num_classes, seed)
    points = torch.empty_like(normal)
    for label in labels.unique().tolist():  # type: ignore[no-untyped-call]
        own = labels == label
        stretch = 2 * keyed_uniform(index_keys(torch.tensor([label]), seed), (axes, axes))[0] - 1
        points[own] = normal[own] @ stretch.to(device) + CLASS_SEPARATION * corners[label].to(device)
    return points


@lru_cache(maxsize=8)  # a batch needs the same ones as the batch before
def class_corners(axes: int, num_classes: int, seed: int) -> Tensor:
    """A corner of the hypercube for each class, no two the same: float32 (C, axes) of -1 and 1, not to be written."""
    draw = random.Random(seed)
    corners: dict[int, None] = {}  # a set that keeps its order
    while len(corners) < num_classes:
        corners[draw.getrandbits(axes)] = None
    return torch.tensor([[2.0 * (corner >> axis & 1) - 1 for axis in range(axes)] for corner in corners])

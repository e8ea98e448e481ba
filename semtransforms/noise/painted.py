"""Noise in closed form, without a network: SC (Yu et al. 2022) and AR (Sandoval-Segura et al. 2022)."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semtransforms.core.config import AUTOREGRESSIVE, PATCHES, GeneratorConfig
from semtransforms.core.grid import to_float
from semtransforms.core.keys import fold_in, index_keys, keyed_normal, keyed_uniform
from semtransforms.noise.ball import project

PATCH = 8  # px, of the smallest patch; Yu et al. at 32 px
MOST_PATCHES = 7  # along an image's longer side: 32 px each at 224, the form in which SC is run on ImageNet
CLASS_SEPARATION = 10.0  # distance of a class's centre from 0 along every axis, as in their data

WINDOW = 3  # px, of an autoregressive process
MARGIN = 4  # rows and columns that are cut off at its start, where it is still the noise it started from
TILE = 32  # px, after which a process starts anew: left to itself, hardly one neither fades nor explodes
CANDIDATES = 10_000  # processes of a channel that are drawn, or 20 for each class; a quarter lasts, a class needs three
FADES, GROWS = 0.1, 0.9  # root mean square of a tile that began with 1; above 0.9 the authors refuse it too
TRIALS = 3  # tiles that must all be so


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


class Painter(ClosedForm):
    """A closed form that needs nothing but the label and the key.

    Args:
        config: ``seed`` and ``num_classes`` decide what is drawn for each class; ``rho_u`` is the radius, and
            ``root_mean_square`` the size where the authors' l2 norm is wanted.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config


class ShortcutPatches(Painter):
    """SC: a point of the label's cluster, each of its coordinates painted as a square of one colour channel.

    Each class is a Gaussian cluster around a corner of a hypercube, stretched by a random matrix of its own
    (scikit-learn's ``make_classification``, which the original calls). A linear model tells such noise apart at sight.

    Patches are squares of 8 px, and grow with the image once 7 of them no longer span its longer side: 4 x 4 of 8 px
    at 32 px, 7 x 7 of 32 px at 224. So a point has at most 3 x 49 coordinates, and a class's matrix 86 KB.
    """

    smallest = PATCH

    def noise(self, images: Tensor, labels: Tensor, keys: Tensor) -> Tensor:
        """The patches of these images; the key says which point of the cluster an image gets."""
        assert self.config.num_classes is not None
        count, _, height, width = images.shape
        side = max(PATCH, -(-max(height, width) // MOST_PATCHES))
        rows, columns = -(-height // side), -(-width // side)
        points = cluster_points(labels, keys, 3 * rows * columns, self.config.num_classes, self.config.seed)
        patches = points.view(count, 3, rows, columns)
        painted = patches.repeat_interleave(side, 2).repeat_interleave(side, 3)[..., :height, :width]
        return _to_size(painted, images, self.config)


def _to_size(painted: Tensor, images: Tensor, config: GeneratorConfig) -> Tensor:
    """Scaled up to the radius, or to the root mean square where one is given."""
    if config.root_mean_square is None:
        scale = config.rho_u / painted.abs().amax((1, 2, 3), keepdim=True)
    else:
        scale = config.root_mean_square / painted.square().mean((1, 2, 3), keepdim=True).sqrt()
    return project(painted * scale, to_float(images), config.rho_u)


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
    normal = keyed_normal(keys, (axes,))
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


class Autoregressive(Painter):
    """AR: each pixel is a linear function of the eight before it in its 3 x 3 window, by coefficients of its class.

    A convolution whose filter holds these eight numbers, and -1 for the ninth, is 0 everywhere on the noise of its
    class: this is the shortcut. Each channel has coefficients of its own.
    """

    smallest = WINDOW

    def noise(self, images: Tensor, labels: Tensor, keys: Tensor) -> Tensor:
        """The noise of these images; the key draws what each one's process starts from."""
        assert self.config.num_classes is not None
        count, _, height, width = images.shape
        rows, columns = -(-height // TILE), -(-width // TILE)
        own = class_processes(self.config.num_classes, self.config.seed)[labels.cpu()].to(keys.device)
        starts = keyed_normal(keys, (rows * columns, 3, TILE + MARGIN, TILE + MARGIN))
        each = own[:, None].expand(-1, rows * columns, -1, -1, -1)
        tiles = run_processes(each.flatten(0, 2), starts.flatten(0, 2))[:, MARGIN:, MARGIN:]
        grid = tiles.view(count, rows, columns, 3, TILE, TILE).permute(0, 3, 1, 4, 2, 5)
        painted = grid.reshape(count, 3, rows * TILE, columns * TILE)[..., :height, :width]
        return _to_size(painted, images, self.config)


def run_processes(coefficients: Tensor, start: Tensor) -> Tensor:
    """What autoregressive processes make of what they start from.

    Args:
        coefficients: float (N, 3, 3), row by row; the last is 0, since it is the pixel itself.
        start: float (N, H, W), of which the first two rows and columns count.

    Returns:
        float (N, H, W): these rows and columns, then the processes.
    """
    # pixel by pixel, since each needs the one before it; all images at once, in memory side by side
    weights = coefficients.permute(1, 2, 0).contiguous()
    field = start.permute(1, 2, 0).clone(memory_format=torch.contiguous_format)  # one image alone would be written to
    last = WINDOW - 1
    for row in range(field.shape[0] - last):
        for column in range(field.shape[1] - last):
            window = field[row : row + WINDOW, column : column + WINDOW]
            field[row + last, column + last] = (window * weights).sum((0, 1))
    return field.permute(2, 0, 1)


@lru_cache(maxsize=8)
def class_processes(num_classes: int, seed: int) -> Tensor:
    """The processes of each class: float32 (C, 3 channels, 3, 3), not to be written.

    They are drawn, coefficients of N(0, 1) that are made to sum to 1, and kept if they neither fade nor grow out of
    all proportion. Of these the classes get the ones that are furthest apart, by how much the filter of either responds
    to the noise of the other, of norm 1 (the authors take those drawn that respond by 10).
    """
    keys = index_keys(torch.arange(max(CANDIDATES, 20 * num_classes)), seed)
    drawn = keyed_normal(keys, (WINDOW, WINDOW))
    drawn[:, -1, -1] = 0
    drawn /= drawn.sum((1, 2), keepdim=True)
    lasts = torch.ones(len(keys), dtype=torch.bool)
    for trial in range(1, TRIALS + 1):
        starts = keyed_normal(fold_in(keys, trial), (TILE + MARGIN, TILE + MARGIN))
        fields = run_processes(drawn, starts)[:, MARGIN:, MARGIN:]
        size = fields.square().mean((1, 2)).sqrt()
        lasts &= (size > FADES) & (size < GROWS)
    lasting = lasts.nonzero().flatten()
    three = lasting[: len(lasting) // 3 * 3].view(-1, 3)  # a process for each channel
    processes, noise = drawn[three], fields[three]
    noise = noise / noise.flatten(1).norm(dim=1)[:, None, None, None]
    filters = processes.clone()
    filters[..., -1, -1] = -1
    # of each filter (columns) to each noise (rows), some at a time for the memory's sake
    responses = torch.cat([F.conv2d(some, filters).relu_().sum((2, 3)) for some in noise.split(32)])
    apart = torch.minimum(responses, responses.T).fill_diagonal_(0)
    chosen = [int(apart.max(1).values.argmax())]
    nearest = apart[chosen[0]].clone()
    while len(chosen) < num_classes:  # the one that is furthest from those chosen before it
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, apart[chosen[-1]])
    return processes[chosen]


PAINTERS: Mapping[str, type[Painter]] = {PATCHES: ShortcutPatches, AUTOREGRESSIVE: Autoregressive}

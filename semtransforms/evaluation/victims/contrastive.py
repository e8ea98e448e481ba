"""Learning without labels (SimCLR; Chen et al., ICML 2020): an encoder from pairs of views, and a layer on it.

The labels are used for the linear layer alone. Noise that a network learns since it goes with the label is no help in
telling images apart.
"""

from __future__ import annotations

from copy import deepcopy
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semtransforms.core.keys import fold_in
from semtransforms.data.loading import Labelled
from semtransforms.evaluation.victims.transfer import PROBE
from semtransforms.noise.linear import features_of, logistic_regression
from semtransforms.noise.pgd import forward
from semtransforms.views.catalogue import greyscale
from semtransforms.views.eot import EOT
from semtransforms.views.members import Fixed, Flip, Kornia, OneOf
from semtransforms.views.windows import windows_of_size

PROJECTED = 128  # numbers that two views are compared by
TEMPERATURE = 0.5


@cache
def _changes() -> EOT:
    """The paper's for CIFAR-10 behind the crop: flip, jitter of strength 0.5 for four of five images, grey for one."""
    import kornia.augmentation

    jitter = kornia.augmentation.ColorJitter(0.4, 0.4, 0.4, 0.1, order=(0, 1, 2, 3))
    return EOT([Flip(), OneOf([Kornia(jitter)], [0.8]), OneOf([Fixed(greyscale, "greyscale")], [0.2])])


@torch.no_grad()
def draw_view(images: Tensor, keys: Tensor) -> Tensor:
    """A random view of each image: a window of 35 to 100 % of the area, flip, colour.

    Args:
        images: float (N, 3, H, W) in [0, 1].
        keys: int64 (N,).

    Returns:
        float (N, 3, H, W) in [0, 1].
    """
    cut = windows_of_size(images, fold_in(keys, 0).cpu(), (images.shape[2], images.shape[3]))
    changed: Tensor = _changes()(cut, fold_in(keys, 1))
    return changed


def contrast(projected: Tensor) -> tuple[Tensor, Tensor]:
    """NT-Xent: the cross-entropy of naming a view's partner among all other views by the cosine of their angle.

    Args:
        projected: float (2 N, D); row k and row N + k are views of one image.

    Returns:
        The mean over all views, and the share of views whose partner is the nearest.
    """
    count = len(projected) // 2
    directions = F.normalize(projected.float(), dim=1)
    likeness = directions @ directions.T / TEMPERATURE
    likeness = likeness.masked_fill(torch.eye(2 * count, dtype=torch.bool, device=projected.device), -torch.inf)
    partners = torch.arange(2 * count, device=projected.device).roll(count)
    return F.cross_entropy(likeness, partners), (likeness.argmax(1) == partners).float().mean()


class Projector(nn.Sequential):
    """Two layers in the place of a network's head."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, PROJECTED))


def put_projector(network: nn.Module) -> None:
    """Give a network a projector in the place of its last linear layer.

    Raises:
        ValueError: it has no such layer.
    """
    names = [name for name, part in network.named_modules() if isinstance(part, nn.Linear) and name]
    if not names:
        raise ValueError(
            "contrastive=True puts a projector in the place of the network's last linear layer, and it has none. Use "
            "network='convnet', say."
        )
    width: int = network.get_submodule(names[-1]).in_features  # type: ignore[assignment]
    network.set_submodule(names[-1], Projector(width))


def contrastive_update(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    keys: Tensor,
    dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor]:
    """One update by two views of each image.

    Args:
        network: with a projector.
        optimizer: over its weights.
        images: float (N, 3, H, W) in [0, 1].
        keys: int64 (N,), what the views are drawn by.
        dtype: autocast to it; ``None`` for fp32.

    Returns:
        As :func:`contrast`.
    """
    network.train()
    views = torch.cat([draw_view(images, fold_in(keys, number)) for number in range(2)])
    loss, nearest = contrast(forward(network, views.to(memory_format=torch.channels_last), dtype))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.detach(), nearest


def with_layer(network: nn.Module, data: Labelled, num_classes: int, dtype: torch.dtype | None) -> nn.Module:
    """The encoder with a linear layer fitted on what it makes of the images, as a probe has it.

    Args:
        network: with a projector, whose place the layer takes; it is not changed.
        data: what the trainer holds.
        num_classes: of the layer.
        dtype: as for :func:`contrastive_update`.
    """
    named = deepcopy(network)
    (place,) = (name for name, part in named.named_modules() if isinstance(part, Projector))
    named.set_submodule(place, nn.Identity())
    features = features_of(named, data.images, dtype)
    layer, solver, loss = logistic_regression(
        features, data.labels.cpu(), num_classes, penalty=PROBE["weight_decay"], iterations=PROBE["train_steps"]
    )
    with torch.enable_grad():
        solver.step(loss)  # type: ignore[no-untyped-call]
    named.set_submodule(place, layer.float().to(next(network.parameters()).device))
    return named

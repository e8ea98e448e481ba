"""Sharpness-aware minimisation (SAM; Foret et al., ICLR 2021): updates that look for flat minima."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semtransforms.noise.pgd import weight_gradient


def update_sharpness_aware(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    views: Tensor,
    targets: Tensor,
    dtype: torch.dtype | None,
    radius: float,
) -> tuple[Tensor, Tensor]:
    """One update by the gradient at the weights that are worst for the batch, to first order, within a ball.

    Args:
        network, optimizer, views, targets, dtype: as for :func:`~semtransforms.noise.pgd.update_weights`.
        radius: of the ball, the l2 norm of all weights together.

    Returns:
        As there: of the weights in the middle of the ball.
    """
    found = weight_gradient(network, optimizer, views, targets, dtype)
    weights = [weight for weight in network.parameters() if weight.grad is not None]
    middle = [weight.detach().clone() for weight in weights]
    statistics = [buffer.clone() for buffer in network.buffers()]
    slopes = [weight.grad for weight in weights if weight.grad is not None]
    size = torch.stack([slope.norm() for slope in slopes]).norm().clamp_min(1e-12)
    with torch.no_grad():
        for weight, slope in zip(weights, slopes, strict=True):
            weight.add_(radius / size * slope)
    weight_gradient(network, optimizer, views, targets, dtype)
    with torch.no_grad():
        for weight, before in zip(weights, middle, strict=True):
            weight.copy_(before)
        for buffer, before in zip(network.buffers(), statistics, strict=True):  # BatchNorm's are of the middle
            buffer.copy_(before)
    optimizer.step()
    return found

"""The balls that perturbations stay in, and the range of pixels."""

from __future__ import annotations

import torch
from torch import Tensor


def project(delta: Tensor, images: Tensor, rho: float) -> Tensor:
    """The nearest perturbation inside the ball whose sum with the image is an image.

    Args:
        delta: float (N, C, H, W), a fraction of the pixel range.
        images: float (N, C, H, W) in [0, 1].
        rho: radius.

    Returns:
        ``delta`` with ``|delta| <= rho`` and ``0 <= images + delta <= 1``.
    """
    return torch.clamp(delta, (-images).clamp_(min=-rho), (1 - images).clamp_(max=rho))


def per_image_norm(delta: Tensor) -> Tensor:
    """The l2 norm of each image's perturbation: float (N, C, H, W) to (N, 1, 1, 1), in the same unit."""
    norm: Tensor = torch.linalg.vector_norm(delta, dim=(1, 2, 3), keepdim=True)
    return norm


def project_l2(delta: Tensor, images: Tensor, rho: float) -> Tensor:
    """A perturbation of l2 norm <= rho per image whose sum with the image is an image; as :func:`project`.

    Scaled into the ball, then clipped to the range of pixels, which only shortens it.
    """
    norm = per_image_norm(delta)
    delta = delta * (rho / norm.clamp_(min=max(rho, torch.finfo(delta.dtype).tiny)))
    return torch.clamp(delta, -images, 1 - images)

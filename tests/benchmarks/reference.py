"""Algorithm 1 written plainly from the paper, as the research scripts run it: what the engine is timed against.

fp32, contiguous tensors, BatchNorm as it stands, one sample of J at a time, torchvision's transforms image by image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from semtransforms import GeneratorConfig

TRANSFORM = v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()])


def defensive_noise(network: nn.Module, images: Tensor, labels: Tensor, config: GeneratorConfig) -> Tensor:
    """Lines 2-9 of Algorithm 1 (SEM): K_u steps, J samples each."""
    network.eval()
    delta = config.rho_u * (2 * torch.rand_like(images) - 1)
    for _ in range(config.steps_u):
        gradient = torch.zeros_like(images)
        for _ in range(config.num_samples):
            point = (images + delta).requires_grad_()
            views = torch.stack([TRANSFORM(image) for image in point])
            random = config.random_radius * (2 * torch.rand_like(views) - 1)
            loss = F.cross_entropy(network((views + random).clamp(0, 1)), labels)
            gradient += torch.autograd.grad(loss, point)[0]
        delta = (delta - config.alpha_u * gradient.sign()).clamp(-config.rho_u, config.rho_u)
        delta = (images + delta).clamp(0, 1) - images
    return delta


def adversary(network: nn.Module, views: Tensor, labels: Tensor, rho: float, alpha: float, steps: int) -> Tensor:
    """Line 11, and Eq. 2 of the trainer."""
    network.eval()
    delta = rho * (2 * torch.rand_like(views) - 1)
    for _ in range(steps):
        point = (views + delta).clamp(0, 1).requires_grad_()
        gradient = torch.autograd.grad(F.cross_entropy(network(point), labels), point)[0]
        delta = (delta + alpha * gradient.sign()).clamp(-rho, rho)
    return delta


def update(network: nn.Module, optimizer: torch.optim.Optimizer, views: Tensor, labels: Tensor) -> None:
    """Line 12."""
    network.train()
    optimizer.zero_grad()
    F.cross_entropy(network(views), labels).backward()
    optimizer.step()


def fit_step(
    network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, config: GeneratorConfig
) -> None:
    """The body of Algorithm 1."""
    delta = defensive_noise(network, images, labels, config)
    views = torch.stack([TRANSFORM(image) for image in images + (delta * 255).round() / 255])
    views = views + adversary(network, views, labels, config.rho_a, config.alpha_a, config.steps_a)
    update(network, optimizer, views, labels)


def victim_step(
    network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, rho: float, steps: int
) -> None:
    """One update of adversarial training."""
    views = torch.stack([TRANSFORM(image) for image in images])
    views = views + adversary(network, views, labels, rho, 2 * rho / steps, steps)
    update(network, optimizer, views, labels)

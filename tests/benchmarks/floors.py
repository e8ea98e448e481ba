"""How much must be computed: passes and floating-point operations of each job, and the time they take at best."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from semtransforms import GeneratorConfig, VictimConfig
from semtransforms.core.models import build_model


@dataclass(frozen=True)
class Passes:
    """Images sent through a network, there and back.

    Args:
        gradient: to the images only, as PGD needs them.
        update: to the weights.
    """

    gradient: int
    update: int = 0

    @property
    def total(self) -> int:
        return self.gradient + self.update


def fit_passes(config: GeneratorConfig, steps: int | None = None, batch_size: int | None = None) -> Passes:
    """Of Algorithm 1: M updates, each with K_u J gradients of the noise (times 1 + K_a for REM) and K_a more."""
    inner = config.steps_a if config.defense_sees == "adversary" else 0
    attack = config.steps_a if config.surrogate_sees == "adversary" else 0
    images = (steps or config.train_steps) * (batch_size or config.batch_size)
    return Passes(images * (config.steps_u * config.num_samples * (1 + inner) + attack), images)


def noise_passes(config: GeneratorConfig, images: int) -> Passes:
    """Of Eq. 7."""
    inner = config.steps_a if config.defense_sees == "adversary" else 0
    return Passes(images * config.steps_u * config.num_samples * (1 + inner))


def victim_passes(config: VictimConfig, steps: int | None = None, batch_size: int | None = None) -> Passes:
    """Of adversarial training (Eq. 2)."""
    images = (steps or config.train_steps) * (batch_size or config.batch_size)
    return Passes(images * (config.steps_a if config.rho_a else 0), images)


@dataclass(frozen=True)
class Operations:
    """Floating-point operations of one image in a network: a multiplication and an addition count as two."""

    forward: int
    to_images: int
    to_weights: int

    def of(self, passes: Passes) -> int:
        """Of a job. The gradient of an update's images is not needed, and what the first layer saves is neglected."""
        there_and_back = self.forward + self.to_images
        return passes.total * there_and_back + passes.update * self.to_weights


def count_operations(network: str, image_size: int = 32, width: int | None = None) -> Operations:
    """Counted by torch on tensors without data."""
    with torch.device("meta"):
        model = build_model(network, num_classes=10, image_size=image_size, width=width).train()
        images, labels = torch.empty(2, 3, image_size, image_size), torch.empty(2, dtype=torch.int64)

    def count(to_images: bool, to_weights: bool) -> int:
        leaf = images.clone().requires_grad_(to_images)
        model.requires_grad_(to_weights)
        with FlopCounterMode(display=False) as counter:
            logits = model(leaf)
            if to_images or to_weights:
                F.cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
        return counter.get_total_flops() // 2

    forward = count(False, False)
    return Operations(forward, count(True, False) - forward, count(True, True) - count(True, False))


def reachable_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product, the best of five: what the floor is computed with."""
    size = 8192 if device.type == "cuda" else 2048
    left, right = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(6):
        started = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best

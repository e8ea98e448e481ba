"""The unauthorised trainer: fit a network on what was published, test it on clean images."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from semtransforms.config import PGDConfig, Precision, Transformation
from semtransforms.eot import build_eot
from semtransforms.functional import batch_rows, fold, index_keys, stream_seed, to_float
from semtransforms.hardware import autocast_dtype, keep_freed_memory, pick_device
from semtransforms.images import check_labels
from semtransforms.models import build_model
from semtransforms.pgd import forward, perturb_view


@dataclass(frozen=True)
class VictimConfig:
    """How a victim is trained; adversarially (Eq. 2) where ``rho_a`` is not 0.

    Args:
        network, width: name of the network and, where it has one, its width.
        train_steps, batch_size: updates and images per update.
        learning_rate: the peak of a one-cycle schedule (up over a fifth of the steps, then down to 0).
        momentum, weight_decay: of SGD.
        rho_a: radius of the adversarial training, a fraction of the pixel range; 0 for standard training.
        steps_a: PGD steps K of its adversary; the step size is 2 rho_a / K (the paper's rho_a / 5 at K = 10).
        augmentation: the trainer's own transformations.
        precision: as in :class:`~semtransforms.GeneratorConfig`.
        seed: of the weights, the order and the draws.
    """

    network: str = "resnet18"
    width: int | None = None
    train_steps: int = 1500
    batch_size: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    rho_a: float = 0.0
    steps_a: int = 10
    augmentation: tuple[Transformation, ...] = (Transformation("crop", {"padding": 4}), Transformation("flip"))
    precision: Precision = "auto"
    seed: int = 0


@dataclass(frozen=True)
class VictimResult:
    """What came of it.

    Args:
        test_accuracy: on the clean test images after the last step, 0..1.
        train_accuracy: on the training batches of the last tenth of the steps, 0..1.
        diverged: the loss became NaN; the accuracies then say nothing about the protection.
        seconds: wall time of the training.
        passes: images sent forward and backward.
    """

    test_accuracy: float
    train_accuracy: float
    diverged: bool
    seconds: float
    passes: int


def train_victim(
    images: Tensor,
    labels: Tensor,
    config: VictimConfig,
    *,
    test_images: Tensor,
    test_labels: Tensor,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> VictimResult:
    """Train a network on published images and test it on clean ones.

    Args:
        images: uint8 (N, 3, H, W), what was published.
        labels: int64 (N,).
        config: the trainer's choices.
        test_images, test_labels: clean, uint8 (M, 3, H, W) and int64 (M,).
        device: where to train; default: CUDA if present.
        progress: show a bar.

    Returns:
        Accuracies, time and work done.

    Raises:
        ValueError: no images, labels that do not fit, an unknown network.
    """
    target = pick_device(device)
    keep_freed_memory()
    labels, test_labels = check_labels(labels, None), check_labels(test_labels, None)
    for name, pixels, named in (("images", images, labels), ("test_images", test_images, test_labels)):
        if len(pixels) == 0 or len(pixels) != len(named):
            raise ValueError(f"{name} must be non-empty with one label each, got {len(pixels)} and {len(named)} labels")
    num_classes = int(max(labels.max(), test_labels.max())) + 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = build_model(
            config.network, num_classes=num_classes, image_size=min(images.shape[2:]), width=config.width
        )
    network.to(target, memory_format=torch.channels_last)  # type: ignore[call-overload]
    dtype = autocast_dtype(config.precision, target)
    eot = build_eot(config.augmentation)
    attack = PGDConfig(config.rho_a, 2 * config.rho_a / config.steps_a, config.steps_a) if config.rho_a else None
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.0, momentum=config.momentum, weight_decay=config.weight_decay, nesterov=True
    )
    images, labels = images.to(target), labels.to(target)

    started = time.perf_counter()
    losses, correct = [], []
    bar = tqdm(range(config.train_steps), desc=f"victim rho_a={config.rho_a * 255:g}/255", disable=not progress)
    with torch.random.fork_rng([target] if target.type == "cuda" else []):
        for step in bar:
            torch.manual_seed(stream_seed(config.seed, step))  # for networks that draw by themselves (dropout)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * one_cycle(step, config.train_steps)
            rows = batch_rows(step, len(labels), config.batch_size, config.seed)
            keys = fold(index_keys(rows, config.seed), step).to(target)
            rows = rows.to(target)
            with torch.no_grad():
                view = eot(to_float(images[rows]), fold(keys, 0))
            view = perturb_view(network, view, labels[rows], attack, fold(keys, 1), dtype)
            network.train()
            logits = forward(network, view.to(memory_format=torch.channels_last), dtype)
            loss = F.cross_entropy(logits, labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.detach())
            correct.append((logits.argmax(1) == labels[rows]).float().mean())
    seconds = time.perf_counter() - started
    return VictimResult(
        test_accuracy=accuracy(network, test_images, test_labels, dtype),
        train_accuracy=torch.stack(correct[-max(1, config.train_steps // 10) :]).mean().item(),
        diverged=not bool(torch.stack(losses).isfinite().all()),
        seconds=seconds,
        passes=config.train_steps * config.batch_size * (1 + (config.steps_a if attack else 0)),
    )


def one_cycle(step: int, steps: int) -> float:
    """Share of the peak learning rate: linear up over the first fifth, linear down to 0."""
    done = (step + 1) / steps
    return min(done / 0.2, (1 - done) / 0.8)


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor, dtype: torch.dtype | None) -> float:
    """Share of images whose label the network names, in eval mode; its mode is restored.

    Args:
        network: logits of float images in [0, 1].
        images: uint8 (N, 3, H, W).
        labels: int64 (N,).
        dtype: autocast to it; ``None`` for fp32.
    """
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    right = 0
    for some, named in zip(torch.split(images, 512), torch.split(labels, 512), strict=True):
        batch = to_float(some.to(device)).to(memory_format=torch.channels_last)
        right += int((forward(network, batch, dtype).argmax(1) == named.to(device)).sum())
    network.train(training)
    return right / len(labels)

"""What learns from the published images before it changes them, and the training that this takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from semtransforms.core.grid import to_bytes, to_float
from semtransforms.core.hardware import pick_device
from semtransforms.core.steps import Step, one_cycle, seeded_steps
from semtransforms.data.loading import Labelled
from semtransforms.evaluation.countermeasures.base import Countermeasure, apply_stored
from semtransforms.evaluation.countermeasures.stored import CHUNK_PIXELS


class Learned(Countermeasure, ABC):
    """A countermeasure that is trained once on what the trainer holds, and then changes it."""

    acts_on = "stored"

    @abstractmethod
    def fitted(self, data: Labelled, *, seed: int, device: torch.device, progress: bool = False) -> Countermeasure:
        """What it is once it has learned.

        Args:
            data: what the trainer holds; photographs as centre squares at the trainer's size.
            seed: of the training.
            device: where to train.
            progress: show a bar.

        Returns:
            The trained countermeasure, for these images in this order, at any crop of the same size.
        """

    def on_stored(self, data: Labelled, *, seed: int) -> Labelled:
        """Learned on these images, and applied to them."""
        return self.fitted(data, seed=seed, device=pick_device()).on_stored(data, seed=seed)


def let_learn(
    countermeasures: Sequence[Countermeasure], data: Labelled, *, seed: int, device: torch.device, progress: bool
) -> tuple[Countermeasure, ...]:
    """Have those that learn learn once, each from what the ones before it make of the images.

    Args:
        countermeasures: of all kinds, in order.
        data: what the trainer holds.
        seed: of their draws and trainings.
        device: where to train.
        progress: show bars.

    Returns:
        The same, trained.
    """
    done = list(countermeasures)
    for place, each in enumerate(countermeasures):
        if isinstance(each, Learned):
            before = apply_stored(done[:place], data, seed=seed)
            done[place] = each.fitted(before, seed=seed, device=device, progress=progress)
    return tuple(done)


@dataclass(frozen=True)
class Course:
    """How such a network is trained.

    Args:
        train_steps, batch_size: updates of Adam, and images per update.
        learning_rate: the peak of one cycle.
        seed: of weights and order.
    """

    train_steps: int
    batch_size: int
    learning_rate: float
    seed: int


def unnamed(images: Tensor) -> Labelled:
    """Test images, whose labels nobody knows: label 0 for all."""
    return Labelled(images, torch.zeros(len(images), dtype=torch.int64))


@torch.no_grad()
def in_chunks(function: Callable[[Tensor, Tensor], Tensor], data: Labelled, device: torch.device) -> Tensor:
    """A function of images and labels, applied to stored images part by part.

    Args:
        function: float32 (N, 3, H, W) in [0, 1] and int64 (N,), both on the device, to float of the shape of the first.
        data: the images and their labels.
        device: where to compute.

    Returns:
        uint8 (N, 3, H, W): whole grey levels.
    """
    count = max(1, CHUNK_PIXELS // data.images.shape[2:].numel())
    parts = zip(torch.split(data.images, count), torch.split(data.labels, count), strict=True)
    return torch.cat([to_bytes(function(to_float(some.to(device)), named.to(device))).cpu() for some, named in parts])


def batch_of(pixels: int, side: int, count: int) -> int:
    """Images per update: as many pixels as ``count`` images of ``side`` x ``side`` have, and at least 4 images."""
    return max(4, count * side**2 // pixels)


def train(
    make: Callable[[], nn.Module],
    loss: Callable[[nn.Module, Step], Tensor],
    count: int,
    course: Course,
    *,
    title: str,
    device: torch.device,
    progress: bool,
) -> nn.Module:
    """Train a network from the seed alone; the same on each run, on a GPU too.

    Args:
        make: gives the network with weights drawn by torch.
        loss: of the network at a step.
        count: N, the images to train on.
        course: the work.
        title: of the bar.
        device: where to train.
        progress: show the bar.

    Returns:
        The network, in eval mode.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(course.seed)
        network = make().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), lr=0.0)
    # a victim that goes on from its checkpoint must find the images that it began with
    with (
        torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False),
        torch.enable_grad(),
        seeded_steps(
            course,
            count,
            optimizer,
            rate_share=lambda step: one_cycle(step, course.train_steps),
            first=0,
            device=device,
            title=title,
            save=lambda done: None,
            progress=progress,
        ) as (steps, _),
    ):
        for step in steps:
            optimizer.zero_grad()
            loss(network, step).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    trained: nn.Module = network.eval().requires_grad_(False)
    return trained

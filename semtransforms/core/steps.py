"""The seeded steps of a training, one for each update: a fit's and a victim's."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from semtransforms.core.keys import batch_rows, fold_in, index_keys, stream_seed


class Schedule(Protocol):
    """What the steps of a training follow from: fields that a generator's config and a victim's have in common."""

    @property
    def train_steps(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class Step:
    """One update.

    Args:
        number: from 0.
        rows: from a device to the rows of the minibatch there, int64 (B,): images may lie in another memory than
            their labels.
        keys: int64 (B,), one for each row, on the device of the training.
    """

    number: int
    rows: Callable[[torch.device], Tensor]
    keys: Tensor


@contextmanager
def seeded_steps(
    schedule: Schedule,
    count: int,
    optimizer: torch.optim.Optimizer,
    *,
    rate_share: Callable[[int], float],
    first: int,
    device: torch.device,
    title: str,
    save: Callable[[int], None],
    progress: bool,
) -> Iterator[tuple[Iterator[Step], tqdm[Any]]]:
    """Go through the updates of a training: rows, keys, torch's seed, learning rate, bar and checkpoints.

    A step depends on the seed and its number alone. So a training that was killed and goes on from a checkpoint takes
    the same steps as one that was not. torch's own generators are put back at the end. Trainings on several devices
    are to share a step by its rows: each takes ``rows[rank::world_size]``, and their keys.

    Args:
        schedule: number of updates, images per update, peak of the learning rate, seed.
        count: N, the training images.
        optimizer: its learning rate is set before each update.
        rate_share: from the number of an update to the share of the peak, 0..1.
        first: updates done already.
        device: of the training.
        title: of the bar.
        save: is given the updates done, after each; writes a checkpoint where one is due.
        progress: show the bar.

    Returns:
        A context; in it, the steps that are left and the bar. A step is over when the next one is asked for; whoever
        leaves before that saves nothing.
    """

    def steps() -> Iterator[Step]:
        for number in range(first, schedule.train_steps):
            # for what draws by itself: dropout, a caller's transforms
            torch.manual_seed(stream_seed(schedule.seed, number))
            for group in optimizer.param_groups:
                group["lr"] = schedule.learning_rate * rate_share(number)
            rows = partial(batch_rows, number, count, schedule.batch_size, schedule.seed)
            yield Step(number, rows, fold_in(index_keys(rows(device), schedule.seed), number))
            bar.update()
            save(number + 1)

    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        tqdm(total=schedule.train_steps, initial=first, desc=title, disable=not progress) as bar,
    ):
        yield steps(), bar


def step_decay(step: int, every: int, factor: float) -> float:
    """Share of the peak learning rate that falls in steps: times ``factor`` every ``every`` updates."""
    return float(factor ** (step // every))


def one_cycle(step: int, train_steps: int) -> float:
    """Share of the peak learning rate that rises over a fifth of the updates, then falls to 0."""
    done = (step + 1) / train_steps
    return min(done / 0.2, (1 - done) / 0.8)


def half_cosine(step: int, train_steps: int) -> float:
    """Share of the peak learning rate that falls from it to 0 along half a cosine."""
    return (1 + math.cos(math.pi * (step + 1) / train_steps)) / 2


def every_seconds(seconds: float) -> Callable[[int], bool]:
    """Whether so much time has passed since it was last true, or since it was made."""
    last = time.monotonic()

    def due(done: int) -> bool:
        nonlocal last
        now = time.monotonic()
        if now - last <= seconds:
            return False
        last = now
        return True

    return due

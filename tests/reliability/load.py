"""Loaders with many workers over a large store, and a transform in many workers: memory that stays flat, right images.

    python -m tests.reliability.load                     # a million images of 8 px, 8 workers, 4 epochs
    python -m tests.reliability.load --draws 100000      # fewer of them in each epoch

Memory is proportional set size (shared pages count in equal parts), of this process and its workers together; Linux.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

sys.path.append(str(Path(__file__).parents[2]))  # the examples are no package

import psutil
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, TensorDataset

from examples.reproduce.markdown import table
from semtransforms import SEM, ProtectedDataset, SEMProtect, fit_generator
from semtransforms.noise.methods import SC_LINF

SIDE = 8  # pixels
CLASSES = 4  # as many as SC tells apart at that size
LOOKS = 5  # at the memory, in each epoch


class Epoch(NamedTuple):
    """One pass of a loader.

    Args:
        seconds: that it took.
        memory: the most that was seen, in bytes.
        images: that came.
        right: whether the sum of their pixels is that of the images and the noise that were asked for.
    """

    seconds: float
    memory: int
    images: int
    right: bool


def made_images(count: int, side: int = SIDE) -> TensorDataset:
    """Noise of all levels with labels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    return TensorDataset(images, torch.arange(count) % CLASSES)


def memory() -> int:
    """Bytes that this process and its workers take, pages that they share counted once."""
    me = psutil.Process()
    return sum(each.memory_full_info().pss for each in [me, *me.children(recursive=True)])


class Drawn(Sampler[int]):
    """So many positions, drawn anew for each epoch, each at most once in it."""

    def __init__(self, images: int, count: int) -> None:
        self.images, self.count, self.epoch = images, count, 0

    def __len__(self) -> int:
        return self.count

    def of_epoch(self, epoch: int) -> list[int]:
        order = torch.randperm(self.images, generator=torch.Generator().manual_seed(epoch))
        return order[: self.count].tolist()

    def __iter__(self) -> Iterator[int]:
        return iter(self.of_epoch(self.epoch))


def run_epochs(loader: DataLoader[Any], drawn: Drawn, epochs: int, sums: Tensor) -> Iterator[Epoch]:
    """Iterate, and look at the memory a few times in each epoch.

    Args:
        loader: gives batches of images and labels.
        drawn: its sampler.
        epochs: how often.
        sums: int64 (N,), of the pixels of each protected image.
    """
    for epoch in range(epochs):
        drawn.epoch = epoch
        started, most, total, images = time.perf_counter(), 0, 0, 0
        for number, (batch, _) in enumerate(loader):
            total += int(batch.sum(dtype=torch.int64))
            images += len(batch)
            if number % max(1, len(loader) // LOOKS) == 0:
                most = max(most, memory())
        expected = int(sums[drawn.of_epoch(epoch)].sum())
        yield Epoch(time.perf_counter() - started, most, images, total == expected)


def load_store(count: int, draws: int, workers: int, epochs: int, cache: Path) -> list[Epoch]:
    """Make a store, and read it with many workers.

    Args:
        count: of images.
        draws: of them are read in an epoch.
        workers: of the loader.
        epochs: how often.
        cache: folder for the store.
    """
    data = made_images(count)
    generator = fit_generator(Part(data, 1000), SC_LINF, device="cpu", progress=False)
    protected = ProtectedDataset(data, generator, cache_dir=cache, device="cpu", batch_size=4096, progress=False)
    sums = data.tensors[0].sum(dim=(1, 2, 3), dtype=torch.int64)  # of images and noise, straight from both
    sums += torch.tensor([int(protected.store.read(index).sum(dtype="int64")) for index in range(count)])
    drawn = Drawn(count, draws)
    loader = DataLoader(protected, 512, sampler=drawn, num_workers=workers, persistent_workers=workers > 0)
    return list(run_epochs(loader, drawn, epochs, sums))


class Part(Dataset[Any]):
    """The first images of a data set, as one that is read."""

    def __init__(self, data: TensorDataset, count: int) -> None:
        self.data, self.count = data, min(count, len(data))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.data[index]


class Transformed(Dataset[Any]):
    """Images that are protected as they are read."""

    def __init__(self, data: TensorDataset, transform: SEMProtect) -> None:
        self.data, self.transform = data, transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, label = self.transform(*self.data[index])
        return image, label


def transform_in_workers(count: int, workers: int, epochs: int) -> list[Epoch]:
    """``SEMProtect`` with a generator's network in every worker; arguments as for :func:`load_store`."""
    data = made_images(count, side=32)
    config = replace(SEM, surrogate="convnet", width=16, steps_u=4, steps_a=1, num_samples=1, train_steps=1)
    transform = SEMProtect(fit_generator(Part(data, 200), config, device="cpu", progress=False), seed=3)
    read = Transformed(data, transform)
    torch.set_num_threads(1)  # as in a worker; and one image at a time, for ties are broken otherwise in a batch
    sums = torch.tensor([int(read[index][0].sum(dtype=torch.int64)) for index in range(count)])
    drawn = Drawn(count, count)
    loader = DataLoader(read, 16, sampler=drawn, num_workers=workers, persistent_workers=workers > 0)
    return list(run_epochs(loader, drawn, epochs, sums))


def rows(what: str, epochs: list[Epoch]) -> list[list[str]]:
    """For the table."""
    return [
        [what, str(number), f"{each.images:,}", f"{each.seconds:.0f}", f"{each.images / each.seconds:,.0f}",
         f"{each.memory / 2**20:,.0f}", "yes" if each.right else "NO"]
        for number, each in enumerate(epochs, 1)
    ]  # fmt: skip


HEAD = ["what", "epoch", "images", "seconds", "images a second", "memory, MiB", "right images and noise"]


def grows(epochs: list[Epoch]) -> bool:
    """Whether an epoch took clearly more memory than the one before, again and again."""
    return len(epochs) > 2 and all(after.memory > 1.02 * before.memory for before, after in itertools.pairwise(epochs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--transformed", type=int, default=2_000, help="images for SEMProtect")
    parser.add_argument("--transforming", type=int, default=16, help="workers for SEMProtect")
    parser.add_argument("--draws", type=int, help="images of an epoch; default: all")
    arguments = parser.parse_args()
    lines, wrong = [], False
    with tempfile.TemporaryDirectory() as folder:
        count, draws, workers = arguments.images, arguments.draws or arguments.images, arguments.workers
        found = {
            f"{workers} workers, {count:,} images": load_store(count, draws, workers, arguments.epochs, Path(folder)),
            f"SEMProtect in {arguments.transforming} workers":
                transform_in_workers(arguments.transformed, arguments.transforming, 2),
        }  # fmt: skip
    for what, epochs in found.items():
        lines += rows(what, epochs)
        wrong |= grows(epochs) or not all(each.right for each in epochs)
    print(table(HEAD, lines))
    raise SystemExit(wrong)


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()

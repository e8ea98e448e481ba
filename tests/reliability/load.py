"""Loaders with many workers over a large store, and a transform in many workers: memory that stays flat, right images.

    python -m tests.reliability.load                     # a million images of 8 px, 8 workers, 4 epochs
    python -m tests.reliability.load --images 20000 --epochs 2

Memory is proportional set size (shared pages count in equal parts), of this process and its workers together; Linux.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

sys.path.append(str(Path(__file__).parents[2]))  # the examples are no package

import psutil
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from examples.reproduce.markdown import table
from semtransforms import SEM, ProtectedDataset, SEMProtect, fit_generator
from semtransforms.noise.methods import SC_LINF

SIDE = 8  # pixels
CLASSES = 4  # as many as SC tells apart at that size
LOOKS = 5  # at the memory, in each epoch


class Epoch(NamedTuple):
    """One pass of a loader: how long it took, the most memory seen (bytes), and the sum of all that came."""

    seconds: float
    memory: int
    total: int
    images: int


def made_images(count: int, side: int = SIDE) -> TensorDataset:
    """Noise of all levels with labels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    return TensorDataset(images, torch.arange(count) % CLASSES)


def memory() -> int:
    """Bytes that this process and its workers take, pages that they share counted once."""
    me = psutil.Process()
    return sum(each.memory_full_info().pss for each in [me, *me.children(recursive=True)])


def run_epochs(loader: Iterable[Any], epochs: int, batches: int) -> Iterator[Epoch]:
    """Iterate, and look at the memory a few times in each epoch.

    Args:
        loader: gives batches of images and labels.
        epochs: how often.
        batches: of an epoch.
    """
    for _ in range(epochs):
        started, most, total, images = time.perf_counter(), 0, 0, 0
        for number, (batch, _) in enumerate(loader):
            total += int(batch.sum(dtype=torch.int64))
            images += len(batch)
            if number % max(1, batches // LOOKS) == 0:
                most = max(most, memory())
        yield Epoch(time.perf_counter() - started, most, total, images)


def load_store(count: int, workers: int, epochs: int, cache: Path, batch_size: int = 512) -> tuple[list[Epoch], int]:
    """Make a store, and read it with many workers.

    Args:
        count: of images.
        workers: of the loader.
        epochs: how often all are read.
        cache: folder for the store.
        batch_size: of the loader.

    Returns:
        The epochs, and the sum of all protected pixels as one process finds it, straight from images and noise.
    """
    data = made_images(count)
    generator = fit_generator(Part(data, 1000), SC_LINF, device="cpu", progress=False)
    protected = ProtectedDataset(data, generator, cache_dir=cache, device="cpu", batch_size=4096, progress=False)
    loader = DataLoader(protected, batch_size, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    found = list(run_epochs(loader, epochs, count // batch_size))
    expected = int(data.tensors[0].sum(dtype=torch.int64))
    expected += sum(int(protected.store.read(index).sum(dtype="int64")) for index in range(count))
    return found, expected


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


def transform_in_workers(count: int, workers: int, epochs: int) -> tuple[list[Epoch], int]:
    """As :func:`load_store`, of ``SEMProtect`` with a generator's network in every worker."""
    data = made_images(count, side=32)
    config = replace(SEM, surrogate="convnet", width=16, steps_u=4, steps_a=1, num_samples=1, train_steps=1)
    transform = SEMProtect(fit_generator(Part(data, 200), config, device="cpu", progress=False), seed=3)
    read = Transformed(data, transform)
    torch.set_num_threads(1)  # as in a worker; and one image at a time, for ties are broken otherwise in a batch
    expected = sum(int(read[index][0].sum(dtype=torch.int64)) for index in range(count))
    loader = DataLoader(read, 16, num_workers=workers, persistent_workers=workers > 0)
    return list(run_epochs(loader, epochs, count // 16)), expected


def rows(what: str, epochs: list[Epoch], expected: int) -> list[list[str]]:
    """For the table."""
    return [
        [what, str(number), f"{each.images:,}", f"{each.seconds:.0f}", f"{each.images / each.seconds:,.0f}",
         f"{each.memory / 2**20:,.0f}", "yes" if each.total == expected else "NO"]
        for number, each in enumerate(epochs, 1)
    ]  # fmt: skip


HEAD = ["what", "epoch", "images", "seconds", "images a second", "memory, MiB", "each image once, with its noise"]


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
    arguments = parser.parse_args()
    lines, wrong = [], False
    with tempfile.TemporaryDirectory() as folder:
        for what, (epochs, expected) in (
            (f"{arguments.workers} workers over a store",
             load_store(arguments.images, arguments.workers, arguments.epochs, Path(folder))),
            (f"SEMProtect in {arguments.transforming} workers",
             transform_in_workers(arguments.transformed, arguments.transforming, 2)),
        ):  # fmt: skip
            lines += rows(what, epochs, expected)
            wrong |= grows(epochs) or any(each.total != expected for each in epochs)
    print(table(HEAD, lines))
    raise SystemExit(wrong)


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()

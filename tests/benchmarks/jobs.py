"""What is timed: the engine against the plain reference, the dataset against the bare one, opening and importing."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import CIFAR10, ImageFolder
from torchvision.transforms import v2

from semtransforms import (
    EM,
    REM,
    REM_DELTA_U,
    REM_THETA,
    SEM,
    SEM_ONE_PASS,
    NoiseGenerator,
    NoiseStore,
    ProtectedDataset,
    VictimConfig,
)
from semtransforms.core.grid import to_float
from semtransforms.core.hardware import autocast_dtype
from semtransforms.core.keys import fold_in, index_keys
from semtransforms.core.models import build_model
from semtransforms.generators.fitting import train_step
from semtransforms.noise.engine import build_surrogate
from semtransforms.noise.pgd import perturb_view, update_weights
from semtransforms.views.eot import build_eot

from . import reference
from .floors import Passes, fit_passes, noise_passes, victim_passes

RHO_A = 4 / 255
STORED = 50_000  # images of the store that is opened


@dataclass(frozen=True)
class Job:
    """Something to time.

    Args:
        name: for the table.
        ours: do it once, and return seconds (or what ``unit`` says).
        baseline: what ours is compared with, done in turn with it; ``None`` for nothing.
        passes: of one time; ``None`` where no network is involved.
        unit: of what is returned.
        against: name of the baseline.
    """

    name: str
    ours: Callable[[], float]
    baseline: Callable[[], float] | None = None
    passes: Passes | None = None
    unit: str = "s"
    against: str = ""


def engine_jobs(network: str, batch_size: int, device: torch.device) -> Iterator[Job]:
    """An update of each method's fit, the noise of a batch, an update of an adversarial victim; the paper's K and J.

    Args:
        network: surrogate and victim, by name.
        batch_size: images of an update; the paper's is 128.
        device: where to run both paths.
    """
    drawn = torch.Generator().manual_seed(0)
    stored = torch.randint(0, 256, (batch_size, 3, 32, 32), dtype=torch.uint8, generator=drawn)
    named = torch.randint(0, 10, (batch_size,), generator=drawn)
    images, labels = to_float(stored.to(device)), named.to(device)
    keys = index_keys(torch.arange(batch_size, device=device), 0)
    sem = replace(SEM, surrogate=network, num_classes=10, image_size=(32, 32), batch_size=batch_size)
    dtype, eot = autocast_dtype("auto", device), build_eot(sem.eot)

    def trained() -> tuple[Any, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = build_model(network, num_classes=10, image_size=32).to(device)
        return model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def ours_fit(config: Any) -> Callable[[], object]:
        model, optimizer = trained()
        model.to(memory_format=torch.channels_last)
        return lambda: train_step(model, optimizer, images, labels, keys=keys, config=config, eot=eot)

    model, optimizer = trained()
    yield Job(
        "fit sem, an update",
        partial(_seconds, ours_fit(sem), device),
        partial(_seconds, lambda: reference.fit_step(model, optimizer, images, labels, sem), device),
        fit_passes(sem, steps=1),
        against="reference path",
    )
    generator = NoiseGenerator(trained()[0], sem)
    yield Job(
        "noise (Eq. 7)",
        partial(_seconds, lambda: generator.noise(stored, named), device),
        partial(_seconds, lambda: reference.defensive_noise(model, images, labels, sem), device),
        noise_passes(sem, batch_size),
        against="reference path",
    )
    victim = VictimConfig(network, rho_a=RHO_A, batch_size=batch_size)
    student, steps = trained()
    student.to(memory_format=torch.channels_last)

    def victim_update() -> None:
        with torch.no_grad():
            view = eot(images, fold_in(keys, 0))
        view = perturb_view(student, view, labels, victim.attack, fold_in(keys, 1), dtype)
        update_weights(student, steps, view, labels, dtype)

    plain_victim = partial(reference.victim_step, model, optimizer, images, labels, RHO_A, victim.steps_a)
    yield Job(
        "victim at 4/255, an update",
        partial(_seconds, victim_update, device),
        partial(_seconds, plain_victim, device),
        victim_passes(victim, steps=1),
        against="reference path",
    )
    for preset in (REM, REM_DELTA_U, REM_THETA, EM):  # the variants of Table 1, and EM
        config = replace(preset, surrogate=network, num_classes=10, image_size=(32, 32), batch_size=batch_size)
        yield Job(
            f"fit {config.method}, an update",
            partial(_seconds, ours_fit(config), device),
            partial(_seconds, ours_fit(sem), device),
            fit_passes(config, steps=1),
            against="SEM's update",
        )


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


# --- datasets ----------------------------------------------------------------------------------------------------

_TRANSFORM = v2.Compose(
    [v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip(), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
)


def epoch_jobs(images: int, folder: Path) -> Iterator[Job]:
    """An epoch over a protected dataset against the bare one; two workers, which read a store or make the noise.

    Args:
        images: of the dataset.
        folder: for stores and pictures.
    """
    drawn = np.random.default_rng(0)
    cifar = CIFAR10.__new__(CIFAR10)  # as torchvision's, without the download
    cifar.data = drawn.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
    cifar.targets = (np.arange(images) % 10).tolist()
    cifar.transform, cifar.target_transform, cifar.transforms = _TRANSFORM, None, None
    cifar.classes = list("0123456789")
    pictures = _pictures(images // 2, (64, 64), folder / "pictures", "png", drawn)
    for name, dataset in (("CIFAR10 in memory", cifar), ("ImageFolder, PNG 64 px", pictures)):
        side = 32 if dataset is cifar else 64
        noise = drawn.integers(-8, 9, (len(dataset), 3, side, side), dtype=np.int8)
        for index in range(len(dataset)):  # as noise is stored: cut where a pixel saturates
            picture = cifar.data[index] if dataset is cifar else np.asarray(Image.open(pictures.samples[index][0]))
            pixels = picture.transpose(2, 0, 1).astype(np.int16)
            noise[index] = (pixels + noise[index]).clip(0, 255) - pixels
        protected = ProtectedDataset(dataset, NoiseStore.from_array(noise, folder / "cache"))
        yield Job(f"epoch, {name}", partial(_epoch, protected), partial(_epoch, dataset), against="the bare dataset")

    config = replace(SEM_ONE_PASS, num_classes=10, image_size=(32, 32))
    painter = NoiseGenerator(build_surrogate(config), config)
    photographs = _pictures(max(10, images // 20), (300, 400), folder / "photographs", "jpg", drawn)
    photographs.transform = v2.Compose([v2.RandomResizedCrop(224), *_TRANSFORM.transforms[1:]])
    for name, dataset in (("CIFAR10 in memory", cifar), ("JPEG of 300 x 400 px", photographs)):
        live = ProtectedDataset(dataset, painter, store=False)
        small = partial(build_model, "convnet", num_classes=10, image_size=32, width=32)
        # with photographs a network takes minutes
        for does, network in (("", None), (" that trains a convnet", small))[: 2 if dataset is cifar else 1]:
            yield Job(
                f"epoch{does}, noise made in passing, {name}",
                partial(_epoch, live, network),
                partial(_epoch, dataset, network),
                against="the bare dataset",
            )


def _pictures(count: int, size: tuple[int, int], folder: Path, kind: str, drawn: np.random.Generator) -> ImageFolder:
    """Random pictures in ten folders: PNG of noise, or JPEG that is as smooth as photographs are."""
    height, width = size
    for index in range(count):
        place = folder / str(index % 10)
        place.mkdir(parents=True, exist_ok=True)
        shape = size if kind == "png" else (height // 10, width // 10)
        picture = Image.fromarray(drawn.integers(0, 256, (*shape, 3), dtype=np.uint8)).resize((width, height))
        picture.save(place / f"{index}.{kind}")
    return ImageFolder(folder, transform=_TRANSFORM)


def _collect(worker: int) -> None:
    # a young process looks through all that it imported once, 0.16 s that fall into the one epoch or into the other
    gc.collect()


def _epoch(dataset: Any, network: Callable[[], nn.Module] | None = None) -> float:
    """Seconds of the second of two epochs that load, and train a network if one is given."""
    # spawned, as on every system but Linux; with workers that stay, since starting them is not what is asked
    loader = DataLoader(
        dataset, 128, num_workers=2, multiprocessing_context="spawn", persistent_workers=True, worker_init_fn=_collect
    )
    learn = _learner(network()) if network else lambda images, labels: None
    for images, labels in loader:
        learn(images, labels)
    started = time.perf_counter()
    for images, labels in loader:
        learn(images, labels)
    return time.perf_counter() - started


def _learner(network: nn.Module) -> Callable[[torch.Tensor, torch.Tensor], object]:
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    return lambda images, labels: update_weights(
        network, optimizer, images.contiguous(memory_format=torch.channels_last), labels, None
    )


# --- processes ---------------------------------------------------------------------------------------------------

_OPEN = """
import sys, time, torch
from semtransforms import NoiseStore
started = time.perf_counter()
store = NoiseStore(sys.argv[1])
store[0]
print(time.perf_counter() - started)
"""
# the largest of many looks: the peak that the system keeps is that of importing torch
_RESIDENT = """
import sys, torch
from pathlib import Path
from semtransforms import NoiseStore
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20
NoiseStore  # imported on first use
before = most = resident()
store = NoiseStore(sys.argv[1])
for index in range(len(store)):
    store[index]
    if index % 500 == 0:
        most = max(most, resident())
print(most - before)
"""
_IMPORT = "import time; started = time.perf_counter(); {}; print(time.perf_counter() - started)"


def process_jobs(folder: Path) -> Iterator[Job]:
    """Opening a large store and going through it, and importing, each in a process of its own.

    Args:
        folder: for the store.
    """
    noise = np.random.default_rng(0).integers(-8, 9, (STORED, 3, 32, 32), dtype=np.int8)
    store = NoiseStore.from_array(noise, folder / "large")
    yield Job(f"open a store of {STORED:,} images", partial(_printed, _OPEN, str(store.folder)))
    yield Job(f"memory to go through {STORED:,} images", partial(_printed, _RESIDENT, str(store.folder)), unit="MiB")
    bare = "import torch, torchvision"
    for name, what in (
        ("import semtransforms", "import semtransforms"),
        ("import all public names", "from semtransforms import *"),
    ):
        yield Job(name, partial(_printed, _IMPORT.format(what)), partial(_printed, _IMPORT.format(bare)), against=bare)


def _printed(program: str, *arguments: str) -> float:
    """The number that a Python process prints."""
    command = [sys.executable, "-c", program, *arguments]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

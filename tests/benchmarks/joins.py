"""Do the J gradients of a wide T protect better when they are joined in another way than by their mean?

    python -m tests.benchmarks.joins --data DATA

Every way fits and protects with the miniature and the T of SEM_PLUS, and is judged as the trials of
``examples/reproduce/search_plus.py``: short victims, tested on training rows that no generator here is fitted on.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from examples.reproduce.protect_photographs import SMALL
from examples.reproduce.search_plus import ADVERSARIAL, STANDARD, read_halves
from semtransforms import SEM, SEM_PLUS, evaluate, fit_generator
from semtransforms.core.grid import add_noise
from semtransforms.evaluation.records import NONE
from semtransforms.generators import fitting
from semtransforms.noise import pgd
from semtransforms.views import members
from semtransforms.views.eot import build_eot

CONFIG = replace(SMALL, eot=SEM_PLUS.eot)
COUNTERMEASURES = (NONE, "greyscale", "jpeg-10")


@contextmanager
def instead(module: Any, name: str, value: Any) -> Iterator[None]:
    """Another function in a module's place of that name."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@contextmanager
def stratified() -> Iterator[None]:
    """An image's J draws of whether a change is taken lie 1 / J apart: with J p <= 1 no two of them take the same.

    The flip, which is drawn in the same way, too.
    """
    draw, gradient = members.keyed_uniform, pgd.mean_gradient
    samples: list[int] = []  # J, and J * N, inside of a gradient

    def apart(keys: Tensor, shape: Any) -> Tensor:
        drawn = draw(keys, shape)
        if shape != () or not samples:
            return drawn
        if samples[1] != len(keys):
            raise ValueError(f"the gradient goes in parts ({len(keys)} of {samples[1]}): take fewer images")
        first = drawn.view(samples[0], -1)[:1]  # keys lie sample by sample
        return ((first + torch.arange(samples[0])[:, None] / samples[0]) % 1).flatten()

    def mean_gradient(*arguments: Any) -> Tensor:
        number = arguments[3].num_samples
        samples[:] = number, number * len(arguments[1])
        try:
            return gradient(*arguments)
        finally:
            samples.clear()

    with instead(members, "keyed_uniform", apart), instead(pgd, "mean_gradient", mean_gradient):
        yield


@contextmanager
def worst() -> Iterator[None]:
    """The gradient of the sample with the largest loss, image by image, in the place of the mean."""
    kept: list[Tensor] = []

    def gradient_at(network: Any, point: Tensor, labels: Tensor, dtype: Any) -> Tensor:
        point = point.detach().to(memory_format=torch.channels_last).requires_grad_()
        with torch.enable_grad():
            losses = F.cross_entropy(pgd.forward(network, point, dtype), labels, reduction="none")
        kept.append(losses.detach())
        return torch.autograd.grad(losses.sum(), point)[0]

    def largest(
        network: Any, images: Tensor, labels: Tensor, config: Any, keys: Tensor, eot: Any, dtype: Any, fits: Any
    ) -> Tensor:
        losses, gradients = [], []
        for j in range(config.num_samples):
            gradients.append(pgd._gradient(network, images, labels, config.inner, pgd.fold_in(keys, j), eot, dtype))
            losses.append(kept[-1])
            kept.clear()
        which = torch.stack(losses).argmax(0)
        return torch.stack(gradients)[which, torch.arange(len(which))]

    with instead(pgd, "_gradient_at", gradient_at), instead(pgd, "mean_gradient", largest):
        yield


@contextmanager
def luminance() -> Iterator[None]:
    """The same step of noise for the three colours of a pixel; the random start keeps its own."""
    gradient = pgd.mean_gradient

    def grey(*arguments: Any) -> Tensor:
        found = gradient(*arguments)
        if arguments[5] is None:  # the adversary's, who sees no T
            return found
        return found.mean(1, keepdim=True).expand_as(found).clone()

    with instead(pgd, "mean_gradient", grey):
        yield


@contextmanager
def curriculum() -> Iterator[None]:
    """Crop and flip alone for the first third of the fit."""
    step, plain, steps = fitting.train_step, build_eot(SEM.eot), count()

    def later(*arguments: Any, **options: Any) -> Any:
        early = next(steps) < options["config"].train_steps // 3
        return step(*arguments, **(options | {"eot": plain} if early else options))

    with instead(fitting, "train_step", later):
        yield


WAYS: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
    "mean": nullcontext, "stratified": stratified, "worst": worst, "luminance": luminance, "curriculum": curriculum,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="holds cifar10-jpeg/")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    train, test = read_halves(arguments.data)
    kept = tempfile.TemporaryDirectory()  # so that the clean copy is trained on once
    for seed in arguments.seeds:
        for way in arguments.ways:
            with WAYS[way]():
                generator = fit_generator(train, replace(CONFIG, seed=seed))
                noise = generator.noise(*train, seed=seed, progress=True)
            protected = add_noise(train[0], noise), train[1]
            for victims, chosen in ((STANDARD, COUNTERMEASURES), (ADVERSARIAL, (NONE,))):
                report = evaluate(
                    train, protected=protected, test=test, victims=victims, countermeasures=chosen, seeds=(seed,),
                    copy_name=way, pool=True, out=Path(kept.name) / "report",
                )  # fmt: skip
            for record in report.records:
                if (record.copy, record.seed) == (way, seed):
                    found = f"{record.victim}, {record.countermeasure}: {100 * record.test_accuracy:.1f}"
                    print(f"seed {seed}, {way}, {found}", flush=True)


if __name__ == "__main__":
    main()

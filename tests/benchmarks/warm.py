"""Does a fit need less where an image's noise goes on from its last visit, in the place of a random start?

    python -m tests.benchmarks.warm --data DATA --seeds 0 1 2

Both ways fit the miniature with a quarter of its passes, and with the same draws otherwise. They are judged as the
trials of ``examples/reproduce/search_plus.py``: short victims, tested on training rows that no generator here is
fitted on.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from examples.reproduce.rows import PASSES
from examples.reproduce.scales import changed, miniature
from examples.reproduce.search_plus import ADVERSARIAL, STANDARD, read_halves
from semtransforms import evaluate, fit_generator
from semtransforms.core import steps
from semtransforms.core.grid import quantize
from semtransforms.generators import fitting
from semtransforms.noise import pgd


@contextmanager
def warm_starts() -> Iterator[None]:
    """Let the fit inside keep the noise of each image, and begin with it when the image comes again."""
    make_noise, draw_rows, draw = fitting.pgd, steps.batch_rows, pgd.keyed_uniform
    kept: dict[int, Tensor] = {}
    visited: list[int] = []

    def rows_of(*arguments: Any) -> Tensor:
        rows = draw_rows(*arguments)
        visited[:] = rows.tolist()
        return rows

    def from_last_visit(network: Any, images: Tensor, labels: Tensor, config: Any, **options: Any) -> Tensor:
        def start(keys: Tensor, shape: Any) -> Tensor:
            pgd.keyed_uniform = draw  # the first draw of the loop is its start, the rest are of T and of the radius
            drawn = draw(keys, shape)
            for place, row in enumerate(visited):
                if row in kept:
                    drawn[place] = (kept[row] / config.rho + 1) / 2
            return drawn

        pgd.keyed_uniform = start
        try:
            noise = make_noise(network, images, labels, config, **options)
        finally:
            pgd.keyed_uniform = draw
        kept.update(zip(visited, quantize(noise, config.rho).float() / 255, strict=True))  # a byte, as in a store
        return noise

    fitting.pgd, steps.batch_rows = from_last_visit, rows_of
    try:
        yield
    finally:
        fitting.pgd, steps.batch_rows = make_noise, draw_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="holds cifar10-jpeg/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    train, test = read_halves(arguments.data)
    kept = tempfile.TemporaryDirectory()  # so that the clean copy is trained on once
    for seed in arguments.seeds:
        config = replace(changed(miniature("sem"), PASSES["quarter"]), seed=seed)
        random = fit_generator(train, config)
        with warm_starts():
            warm = fit_generator(train, config)
        for name, generator in (("random start", random), ("last visit", warm)):
            report = evaluate(
                train, generator, test=test, victims=STANDARD | ADVERSARIAL, seeds=(seed,), protection_seed=seed,
                copy_name=name, pool=True, out=Path(kept.name) / "report",
            )  # fmt: skip
            for record in report.records:
                if (record.copy, record.seed) == (name, seed):
                    print(f"seed {seed}, {name}, {record.victim}: {100 * record.test_accuracy:.1f}", flush=True)


if __name__ == "__main__":
    main()

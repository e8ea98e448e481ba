"""The main job on real photographs: fit, protect, and find out what trainers still learn from what was published.

    python -m examples.reproduce.protect_photographs --data DATA --seeds 0 1 2 --out runs/cifar10-jpeg
    python -m examples.reproduce.protect_photographs --dataset tiny-imagenet-100 --data DATA --out runs/tiny
    python -m examples.reproduce.protect_photographs --dataset cifar10 --data ~/data --out runs/cifar10

``--data`` holds ``cifar10-jpeg/`` and ``tiny-imagenet-100/`` (Parquet), or torchvision's CIFAR-10 (downloaded with
``--download``). Each seed is a fit, a protection and a victim of its own. Every fit and every training is kept as it
ends; started again with the same ``--out``, the script goes on with what is missing, and other ``--methods``,
``--victims`` or ``--countermeasures`` join the same report (``OUT/report/report.html``).
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import torchvision
from torch.utils.data import Subset

from semtransforms import EM, REM, SEM, NoiseGenerator, VictimConfig, evaluate, fit_generator
from semtransforms.core.hardware import describe_machine
from semtransforms.data.loading import Labelled, load_labelled

# 32 px photographs on a laptop's CPU: the paper's radii; a small surrogate, J = 2 and few updates, but more and smaller
# noise steps than the paper's, which protected best of what the same time can do
SMALL = replace(
    SEM,
    surrogate="convnet",
    width=8,
    alpha_u=0.85 / 255,
    steps_u=15,
    rho_a=2 / 255,
    alpha_a=1.34 / 255,
    steps_a=3,
    num_samples=2,
    train_steps=300,
    decay_every=150,
)
METHODS = {
    "em": replace(SMALL, method="em", defense_sees=EM.defense_sees, surrogate_sees=EM.surrogate_sees, num_samples=1),
    "rem-2": replace(SMALL, method="rem", defense_sees=REM.defense_sees),
    "sem-2": SMALL,  # against an adversary of 2/255
    # against twice the adversary, with twice the steps
    "sem-4": replace(SMALL, rho_a=4 / 255, alpha_a=2 * SMALL.alpha_a, steps_u=2 * SMALL.steps_u),
}
TRAINER = VictimConfig("convnet", width=32, learning_rate=0.2, steps_a=5)
VICTIMS = {
    "standard": replace(TRAINER, train_steps=1500),
    "adversarial-1": replace(TRAINER, train_steps=600, rho_a=1 / 255),
    "adversarial-2": replace(TRAINER, train_steps=600, rho_a=2 / 255),
    "adversarial-4": replace(TRAINER, train_steps=2000, rho_a=4 / 255),
}
PARQUET = {
    "cifar10-jpeg": ("train-*.parquet", "test.parquet"),
    "tiny-imagenet-100": ("train-*.parquet", "validation.parquet"),
    "faces10": ("train.parquet", "test.parquet"),
}
SIDES = {"faces10": 64}  # px, of what has another size where it is published


def read_data(name: str, root: Path, rows: int, download: bool) -> tuple[Labelled, Labelled]:
    """The first ``rows`` training samples and the test images, in memory."""
    in_batches = name == "cifar10" and not (root / name).is_dir()  # as torchvision unpacks it
    if in_batches:
        train, test = (torchvision.datasets.CIFAR10(root, part, download=download) for part in (True, False))
    else:
        train, test = (
            datasets.load_dataset(
                "parquet", data_files=sorted(map(str, (root / name).glob(pattern))), split="train", cache_dir=None
            )
            for pattern in PARQUET.get(name, PARQUET["cifar10-jpeg"])
        )
    size = (SIDES[name], SIDES[name]) if name in SIDES else None
    tests = load_labelled(test, image_size=size)
    names = train.classes if in_batches else train.features["label"].names
    data = load_labelled(Subset(train, range(min(rows, len(train)))), len(names), size)
    return replace(data, classes=tuple(names)), tests


def fit(method: str, seed: int, data: Labelled, out: Path) -> NoiseGenerator:
    """Fit a generator and time it with a protection, or read what an earlier run left."""
    folder = out / "generators" / f"{method}-{seed}"
    if not (folder / "config.json").exists():
        config = replace(METHODS[method], seed=seed, num_classes=int(data.labels.max()) + 1)
        started = time.perf_counter()
        generator = fit_generator(
            (data.images, data.labels), config, checkpoint_dir=out / "fits" / f"{method}-{seed}", resume=True
        )
        fitted = time.perf_counter()
        generator.noise(data.images, data.labels, seed=seed)
        seconds = {"fit_seconds": fitted - started, "protect_seconds": time.perf_counter() - fitted}
        generator.save_pretrained(folder)
        record = json.dumps({"method": method, "seed": seed, **seconds, **describe_machine()}, indent=1)
        (folder / "timing.json").write_text(record + "\n")
    generator = NoiseGenerator.from_pretrained(folder)
    generator.name = method  # all seeds of a method are one column of the report
    return generator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=[*PARQUET, "cifar10"], default="cifar10-jpeg")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--download", action="store_true", help="let torchvision download CIFAR-10")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=["em", "sem-2"])
    parser.add_argument("--victims", nargs="*", choices=VICTIMS, default=list(VICTIMS))
    parser.add_argument("--countermeasures", nargs="+", default=["none"])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    data, test = read_data(arguments.dataset, arguments.data, arguments.rows, arguments.download)
    generators: dict[tuple[str, int], Any] = {
        (method, seed): fit(method, seed, data, arguments.out)
        for seed in arguments.seeds
        for method in arguments.methods
    }
    # a victim on every copy before the next victim: a run that is stopped leaves whole rows
    for victim in arguments.victims:
        for seed in arguments.seeds:
            for method in arguments.methods or [None]:
                report = evaluate(
                    (data.images, data.labels),
                    generators.get((method, seed)),
                    test=(test.images, test.labels),
                    victims={victim: VICTIMS[victim]},
                    countermeasures=arguments.countermeasures,
                    seeds=(seed,),
                    protection_seed=seed,
                    pool=True,  # each seed is a fit and a protection of its own
                    name=f"{arguments.dataset}, first {len(data.labels):,} rows",
                    out=arguments.out / "report",
                    cache_dir=arguments.out / "cache",
                )
    if arguments.victims:
        print(report.to_markdown())
    for file in sorted((arguments.out / "generators").glob("*/timing.json")):
        timing = json.loads(file.read_text())
        print(f"{file.parent.name}: fit {timing['fit_seconds']:.0f} s, protect {timing['protect_seconds']:.0f} s")


if __name__ == "__main__":
    main()

"""Fit a generator of ``pretrained/`` on photographs, measure it, and write its card.

    python -m examples.reproduce.fit_pretrained sem-plus-cifar10 --data DATA

``--data`` holds ``cifar10/``, ``cifar10-jpeg/`` and ``tiny-imagenet-100/``, Parquet files each; ``cifar10/`` may be
as torchvision unpacks it. The fit and every training are kept in ``--work`` as they end: started again, the script goes
on with what is missing. The figures go to ``examples/reproduce/results/NAME.json``, and from there into the card.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from examples.reproduce.protect_photographs import VICTIMS, read_data
from semtransforms import (
    EM,
    REM,
    SEM,
    SEM_ONE_PASS,
    SEM_PLUS,
    GeneratorConfig,
    NoiseGenerator,
    VictimConfig,
    evaluate,
    fit_generator,
    fit_one_pass,
)
from semtransforms.core.files import to_json, write_atomically
from semtransforms.data.loading import Labelled
from semtransforms.evaluation.records import CLEAN, NONE, Record

ROOT = Path(__file__).parents[2]

CIFAR10 = {
    "data": "cifar10",
    "source": "CIFAR-10 (Krizhevsky 2009; no licence is stated), as published; 50,000 of 50,000",
    "datasets": ["uoft-cs/cifar10"],
    "license": "apache-2.0",
}
CIFAR10_JPEG = {
    **CIFAR10,
    "data": "cifar10-jpeg",
    "source": "CIFAR-10 (Krizhevsky 2009; no licence is stated), each image re-encoded once as JPEG; 50,000 of 50,000",
}
TINY_IMAGENET = {
    "data": "tiny-imagenet-100",
    "source": "the first 100 classes of Tiny-ImageNet-200, JPEG as published (ImageNet's terms: for non-commercial "
    "research); 50,000 of 50,000",
    "datasets": ["zh-plus/tiny-imagenet"],
    "license": "apache-2.0",
}


@dataclass(frozen=True)
class Recipe:
    """How a generator of ``pretrained/`` comes about.

    Args:
        config: of the fit.
        facts: of its card; ``data`` names the folder of the images.
        victims: that it is judged by, one of them ``"standard"``, which the countermeasures are for.
        rows: that they are trained on: the first ones.
        teacher: the generator of ``pretrained/`` whose surrogate a one-pass one is fitted against.
    """

    config: GeneratorConfig
    facts: Mapping[str, Any]
    victims: Mapping[str, VictimConfig] = field(default_factory=lambda: VICTIMS)
    rows: int = 10_000
    teacher: str | None = None


# the paper's noise on a surrogate that two cores fit in an hour or two; the learning rate falls where the paper's does
SMALL = replace(SEM, surrogate="convnet", width=32, train_steps=3000, decay_every=1200)
PLUS = replace(SEM_PLUS, surrogate="convnet", width=32)
ONE_PASS = replace(PLUS, method=SEM_ONE_PASS.method, one_pass=SEM_ONE_PASS.one_pass)
# four times the pixels: half the width, and no more updates than the two dozen trainers of a card can have in two hours
AT_64_PX = {name: replace(each, width=16, train_steps=min(each.train_steps, 1000)) for name, each in VICTIMS.items()}
RECIPES = {
    "sem-cifar10": Recipe(SMALL, CIFAR10),
    "sem-plus-cifar10": Recipe(PLUS, CIFAR10),
    "sem-one-pass-cifar10": Recipe(ONE_PASS, CIFAR10, teacher="sem-plus-cifar10-small"),
    # the paper's network
    "sem-cifar10-resnet18": Recipe(SEM, CIFAR10),
    "rem-cifar10-resnet18": Recipe(REM, CIFAR10),
    "em-cifar10-resnet18": Recipe(EM, CIFAR10),
    # before CIFAR-10 could be had without a loss
    "sem-cifar10-small": Recipe(SMALL, CIFAR10_JPEG),
    "sem-plus-cifar10-small": Recipe(PLUS, CIFAR10_JPEG),
    "sem-imagenet100": Recipe(SEM, TINY_IMAGENET, rows=50_000),
    "sem-imagenet100-small": Recipe(
        replace(SMALL, width=16, train_steps=1000, decay_every=400), TINY_IMAGENET, AT_64_PX, rows=20_000
    ),
}

# of a standard trainer: all that is known, but shares of clean images, which say nothing about a generator
COUNTERMEASURES = (
    *("greyscale", "jpeg-75", "jpeg-50", "jpeg-10", "mean", "median", "gaussian", "bilateral", "bit-depth-3"),
    *("denoise", "linear-removal", "cutout", "mixup", "cutmix", "randaugment", "colour-jitter", "gaussian-noise"),
    "ueraser",
)
INFORMED = ("informed-same-seed", "informed-other-seed")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/pretrained"))
    parser.add_argument("--pretrained", type=Path, default=ROOT / "pretrained")
    parser.add_argument("--results", type=Path, default=ROOT / "examples" / "reproduce" / "results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the victims")
    arguments = parser.parse_args(words)

    recipe = RECIPES[arguments.name]
    dataset = recipe.facts["data"]
    folder = arguments.pretrained / arguments.name
    file = (arguments.results / f"{arguments.name}.json").resolve()
    if not file.is_relative_to(ROOT):
        parser.error(f"--results must lie in {ROOT}: the card names the file of its figures, got {arguments.results}")
    if missing := _kept_seeds(file) - set(arguments.seeds):
        parser.error(f"--seeds: {file.name} has figures of {sorted(missing)} too. Give them too, or remove the file.")
    file.parent.mkdir(parents=True, exist_ok=True)
    if not (folder / "config.json").exists():
        fit(recipe, arguments).save_pretrained(folder)
    generator = NoiseGenerator.from_pretrained(folder)
    if replace(generator.config, num_classes=None, image_size=None) != recipe.config:
        parser.error(f"{folder} was fitted with another recipe. Remove it to fit it anew.")
    generator.name = arguments.name  # in the records
    data, tests = read_data(dataset, arguments.data, recipe.rows, download=False)
    kept = without(data.images, tests)
    records = measure(generator, data, kept, recipe.victims, arguments.seeds, arguments.work / dataset)
    trainers = by_trainer(records, recipe.victims)
    rows = [
        {"trainer": name, **{copy: [record.to_dict() for record in some] for copy, some in copies.items()}}
        for name, copies in trainers.items()
    ]
    write_atomically(
        file, to_json({"generator": arguments.name, "fingerprint": generator.fingerprint, "trainers": rows})
    )
    command = f"python -m examples.reproduce.fit_pretrained {arguments.name} --data DATA"
    generator.classes = data.classes
    generator.card = {
        **recipe.facts,
        "notes": notes(recipe, len(kept.labels), len(tests.labels) - len(kept.labels)),
        "fitted_by": command,
        "measured_by": f"{command} --seeds {' '.join(map(str, arguments.seeds))}",
        "measured_on": "; ".join(machines(records)),
        "measured": measured(trainers, file.relative_to(ROOT).as_posix()),
    }
    print(generator.save_pretrained(folder))


def fit(recipe: Recipe, arguments: Any) -> NoiseGenerator:
    """On all rows; a fit that was stopped goes on."""
    data, _ = read_data(recipe.facts["data"], arguments.data, 10**9, download=False)
    rows, kept = (data.images, data.labels), arguments.work / arguments.name
    if recipe.teacher is None:
        return fit_generator(rows, recipe.config, checkpoint_dir=kept, checkpoint_every=25, resume=True)
    teacher = NoiseGenerator.from_pretrained(arguments.pretrained / recipe.teacher)
    return fit_one_pass(rows, teacher, updates=recipe.config.one_pass, checkpoint_dir=kept, resume=True)


def machines(records: Sequence[Record]) -> list[str]:
    """Where they were measured."""
    return sorted({f"{record.processor}, {record.threads} thread(s), torch {record.torch}" for record in records})


def _kept_seeds(file: Path) -> set[int]:
    """The seeds that an earlier run wrote figures of."""
    if not file.exists():
        return set()
    rows = json.loads(file.read_text(encoding="utf-8"))["trainers"]
    return {record["seed"] for row in rows for copy in ("clean", "protected") for record in row[copy]}


def without(known: Tensor, tests: Labelled) -> Labelled:
    """The test images that are not among the training images too, which ImageNet has a few of."""
    seen = {image.numpy().tobytes() for image in known}
    new = torch.tensor([image.numpy().tobytes() not in seen for image in tests.images])
    return replace(tests, images=tests.images[new], labels=tests.labels[new])


def notes(recipe: Recipe, tested: int, left_out: int) -> str:
    """What a reader of a card's table must know."""
    victim = recipe.victims["standard"]
    also = "1 that is in both is" if left_out == 1 else f"{left_out} that are in both are"
    return (
        f"Victims: a {victim.network} of width {victim.width}, trained on the first {recipe.rows:,} rows, tested on "
        f"{tested:,} other images{f' ({also} left out)' if left_out else ''}; trainers and countermeasures are those "
        "of the package's README."
    )


def measure(
    generator: NoiseGenerator,
    data: Labelled,
    tests: Labelled,
    victims: Mapping[str, VictimConfig],
    seeds: Sequence[int],
    work: Path,
) -> list[Record]:
    """Every trainer on the clean and on the protected copy, and a standard one with every countermeasure."""
    name, standard = generator.name, {"standard": victims["standard"]}
    runs = [
        (generator, victims, (NONE,)),
        (generator, standard, (*COUNTERMEASURES, *INFORMED)),
        (None, standard, COUNTERMEASURES),
    ]
    for source, trainers, countermeasures in runs:
        report = evaluate(
            (data.images, data.labels),
            source,
            test=(tests.images, tests.labels),
            victims=trainers,
            countermeasures=countermeasures,
            seeds=seeds,
            name=f"first {len(data.labels):,} rows",
            copy_name=name if source else None,
            out=work / "report",
            cache_dir=work / "cache",
        )
    # the folder may hold other generators, and other trainers of earlier runs
    wanted = {(NONE, victim) for victim in victims} | {(each, "standard") for each in (*COUNTERMEASURES, *INFORMED)}
    return [
        record
        for record in report.records
        if record.copy in (CLEAN, name) and (record.countermeasure, record.victim) in wanted and record.seed in seeds
    ]


def by_trainer(records: Sequence[Record], victims: Iterable[str]) -> dict[str, dict[str, list[Record]]]:
    """Trainer, in words, to the records of the clean and of the protected copy."""
    order = [(NONE, victim) for victim in victims] + [(each, "standard") for each in (*COUNTERMEASURES, *INFORMED)]
    trainers: dict[str, dict[str, list[Record]]] = {}
    for record in sorted(records, key=lambda r: (order.index((r.countermeasure, r.victim)), r.seed)):
        words = _words(record)
        copies = trainers.setdefault(words, {"clean": [], "protected": []})
        copies["clean" if record.copy == CLEAN else "protected"].append(record)
    return trainers


def _words(record: Record) -> str:
    if record.countermeasure != NONE:
        return record.countermeasure
    trained = f"{record.train_steps:,} updates"
    return f"adversarial at {255 * record.rho_a:g}/255, {trained}" if record.rho_a else f"standard, {trained}"


def measured(trainers: Mapping[str, Mapping[str, Sequence[Record]]], file: str) -> list[dict[str, Any]]:
    """The rows of a card, with the place in the file of results that each figure comes from."""
    return [
        {
            "trainer": name,
            **{copy: [round(100 * record.test_accuracy, 1) for record in some] for copy, some in copies.items()},
            "source": {copy: f"{file}#/trainers/{k}/{copy}/*/test_accuracy" for copy, some in copies.items() if some},
        }
        for k, (name, copies) in enumerate(trainers.items())
    ]


if __name__ == "__main__":
    main()

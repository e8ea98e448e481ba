"""The search for SEM_PLUS: what T to compute noise against, so that it survives what trainers do to images.

    python -m examples.reproduce.search_plus grey-35-jpeg-35 --data DATA

Each trial is SEM at the size of ``protect_photographs.py``, or wider, with another T, adversary or number of steps. It
is judged by victims that are trained for less than README's, and on rows 10,000 to 14,999 of the training images,
by which that size was chosen too: README's test images are kept for what is taken. The figures go to
``examples/reproduce/results/search_plus.json``; ``python -m examples.reproduce.tables`` puts them into the README
beside this file, the lowest worst case first. With
``--countermeasures greyscale jpeg-10`` a trial is judged by those two alone, beside the trainer who does nothing and
the one at 2/255.

No T here has the median filter or UEraser's augmentations: they are left for the honest test.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from examples.reproduce.fit_pretrained import machines
from examples.reproduce.markdown import MISSING, table
from examples.reproduce.protect_photographs import SMALL, TRAINER, read_data
from semtransforms import SEM, GeneratorConfig, NoiseGenerator, evaluate, fit_generator
from semtransforms.core.config import Transformation
from semtransforms.core.files import read_json, to_json, write_atomically
from semtransforms.core.names import unknown
from semtransforms.evaluation.records import NONE

ROOT = Path(__file__).parents[2]
ROWS = 10_000  # that are protected; half as many behind them are the test
STANDARD = {"standard": replace(TRAINER, train_steps=600)}
ADVERSARIAL = {"adversarial-2": replace(TRAINER, train_steps=300, rho_a=2 / 255, steps_a=3)}
COUNTERMEASURES = ("greyscale", "jpeg-10", "jpeg-50", "mean", "ueraser")

GREY = Transformation("greyscale")
JPEG = Transformation("jpeg", {"quality": [10, 60]})
MEAN, GAUSSIAN = Transformation("mean"), Transformation("gaussian")


def one_of(*members: tuple[Transformation, float]) -> Transformation:
    """Each image gets one of these, or none, by their probabilities."""
    return Transformation(
        "one-of",
        {
            "members": [{"name": each.name, "arguments": dict(each.arguments)} for each, _ in members],
            "probabilities": [probability for _, probability in members],
        },
    )


def wider(*more: Transformation, **changes: Any) -> GeneratorConfig:
    """SEM of the miniature with more behind crop and flip."""
    return replace(SMALL, eot=(*SEM.eot, *more), **changes)


# one choice behind the other: greyscale pictures are compressed and filtered too
BOTH = (one_of((GREY, 0.35)), one_of((JPEG, 0.25), (MEAN, 0.1), (GAUSSIAN, 0.1)))

MORE: Mapping[str, Any] = {
    "width": 32, "steps_u": 10, "alpha_u": SEM.alpha_u, "train_steps": 1000, "decay_every": 400
}  # fmt: skip

PLUS = (one_of((GREY, 0.2)), one_of((JPEG, 0.2)))
SHORT: Mapping[str, Any] = MORE | {"train_steps": 500, "decay_every": 200}


def against(rho_a: float, alpha_a: float) -> GeneratorConfig:
    """The short one with another adversary, in grey levels."""
    return wider(*PLUS, **SHORT, rho_a=rho_a / 255, alpha_a=alpha_a / 255)


TRIALS: Mapping[str, GeneratorConfig | None] = {
    "clean": None,
    "sem": SMALL,
    "grey-35-jpeg-35": wider(one_of((GREY, 0.35), (JPEG, 0.35))),
    "grey-always-jpeg-50": wider(GREY, one_of((JPEG, 0.5))),
    "grey-35+jpeg-25-blur-20-M900": wider(*BOTH, train_steps=900, decay_every=450),
    "grey-35+jpeg-25-blur-20-width32-M1000": wider(*BOTH, **MORE),
    "sem-width32-M1000": replace(SMALL, **MORE),
    "grey-20+jpeg-20-width32-M1000": wider(*PLUS, **MORE),
    "grey-20+jpeg-20-width32-M500": wider(*PLUS, **SHORT),
    "grey-20+jpeg-20-width32-M500-rho-a-0.7": against(0.67, 0.45),
    "grey-20+jpeg-20-width32-M500-rho-a-1.3": against(1.33, 0.9),
    "grey-20+jpeg-20-width32-M500-rho-a-4": against(4, 2.7),
    "grey-10+jpeg-10-width32-M500": wider(one_of((GREY, 0.1)), one_of((JPEG, 0.1)), **SHORT),
    "grey-20-width32-M500": wider(one_of((GREY, 0.2)), **SHORT),
    "jpeg-20-width32-M500": wider(one_of((JPEG, 0.2)), **SHORT),
    "grey-20+jpeg-20-width32-M500-lr-0.03": wider(*PLUS, **SHORT, learning_rate=0.03),
    "grey-20+jpeg-20-width32-M500-K20": wider(*PLUS, **SHORT | {"steps_u": 20, "alpha_u": 1.2 / 255}),
    "grey-20+jpeg-20-width32-M350-K30": wider(
        *PLUS, **SHORT | {"steps_u": 30, "alpha_u": 0.8 / 255, "train_steps": 350, "decay_every": 150}
    ),
    "grey-20+jpeg-20-width32-M500-K40-J1": wider(
        *PLUS, **SHORT | {"steps_u": 40, "alpha_u": 0.6 / 255, "num_samples": 1}
    ),
    "sem-width32-M500-K40-J1": replace(SMALL, **SHORT | {"steps_u": 40, "alpha_u": 0.6 / 255, "num_samples": 1}),
    "grey-20+jpeg-20-width32-M500-K80-J1": wider(
        *PLUS, **SHORT | {"steps_u": 80, "alpha_u": 0.3 / 255, "num_samples": 1}
    ),
}


def passes(config: GeneratorConfig | None) -> int:
    """Images that a fit sends forward and backward through its surrogate."""
    if config is None:
        return 0
    each = config.num_samples * config.steps_u + config.steps_a + 1
    return (config.train_steps * each + config.one_pass) * config.batch_size


def read_halves(data: Path) -> list[tuple[Tensor, Tensor]]:
    """The rows that are protected, and the training rows behind them that victims are tested on: images and labels."""
    everything, _ = read_data("cifar10-jpeg", data, ROWS + ROWS // 2, download=False)
    return [(everything.images[part], everything.labels[part]) for part in (slice(ROWS), slice(ROWS, None))]


def run(name: str, data: Path, work: Path, chosen: Sequence[str]) -> dict[str, Any]:
    """Fit, protect and judge one trial, or read what was kept: test accuracies in %, by what the trainer does."""
    train, test = read_halves(data)
    config = TRIALS[name]
    generator = None if config is None else _fitted(config, train, work / "fits" / name, work / "generators" / name)
    for victims, countermeasures in ((STANDARD, (NONE, *chosen)), (ADVERSARIAL, (NONE,))):
        report = evaluate(
            train, generator, test=test, victims=victims, countermeasures=countermeasures, seeds=(0,),
            copy_name=generator and name, out=work / "report", cache_dir=work / "cache",
        )  # fmt: skip
    records = [record for record in report.records if record.copy == name]
    found = {
        record.countermeasure if record.victim == "standard" else record.victim: round(100 * record.test_accuracy, 1)
        for record in records
    }
    settings = config and config.to_dict()
    return {"passes": passes(config), "accuracy": found, "config": settings, "machines": machines(records)}


def _fitted(config: GeneratorConfig, train: tuple[Tensor, Tensor], checkpoints: Path, folder: Path) -> NoiseGenerator:
    if not (folder / "config.json").exists():
        fit_generator(train, config, checkpoint_dir=checkpoints, resume=True).save_pretrained(folder)
    generator = NoiseGenerator.from_pretrained(folder)
    if replace(generator.config, num_classes=None, image_size=None) != config:
        raise ValueError(f"{folder} was fitted when the trial was another. Remove it, or give the trial a new name.")
    return generator


def compare(trials: Mapping[str, Mapping[str, Any]]) -> str:
    """The trials as Markdown, the one with the lowest worst case first, over the columns that all of them have."""
    columns = (NONE, "adversarial-2", *COUNTERMEASURES)
    shared = [column for column in columns if all(column in found["accuracy"] for found in trials.values())]
    worst = {name: max(found["accuracy"][column] for column in shared) for name, found in trials.items()}
    lines = []
    for name in sorted(trials, key=lambda name: worst[name]):
        accuracy = trials[name]["accuracy"]
        words = (f"{accuracy[column]:.1f}" if column in accuracy else MISSING for column in columns)
        lines.append([name, f"{trials[name]['passes'] / 1e6:.2f}", *words, f"{worst[name]:.1f}"])
    return table(["trial", "passes of the fit, millions", *columns, f"largest of {', '.join(shared)}"], lines)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", nargs="+", metavar="TRIAL", help=f"of {', '.join(TRIALS)}")
    parser.add_argument("--data", type=Path, required=True, help="holds cifar10-jpeg/")
    parser.add_argument("--work", type=Path, default=Path("runs/search-plus"))
    parser.add_argument("--results", type=Path, default=ROOT / "examples" / "reproduce" / "results")
    which = {"choices": COUNTERMEASURES, "default": COUNTERMEASURES}
    parser.add_argument("--countermeasures", nargs="+", **which, help="of the standard victim")
    arguments = parser.parse_args(words)
    for name in arguments.trials:
        if name not in TRIALS:
            parser.error(unknown("trial", name, TRIALS))
    arguments.results.mkdir(parents=True, exist_ok=True)
    file = arguments.results / "search_plus.json"
    for name in arguments.trials:
        found = run(name, arguments.data, arguments.work, arguments.countermeasures)
        kept = read_json(file) if file.exists() else {}
        write_atomically(file, to_json({**kept, name: found}))


if __name__ == "__main__":
    main()

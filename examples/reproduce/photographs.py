"""Class-wise noise on photographs: what trainers of several sizes and crops still learn.

    python -m examples.reproduce.photographs clothing10 --data DATA --parts sizes jpeg
    python -m examples.reproduce.photographs tiny-imagenet-10 --data DATA --parts sizes
    python -m examples.reproduce.photographs clothing10 --data DATA --parts sizes --each 20
    python -m examples.reproduce.photographs clothing10 --data DATA --parts sizes --rho-u 3 --fit-seed 2
    python -m examples.reproduce.photographs clothing10 --data DATA --sizes 128 --crops random-resized \\
        --copies protected --network torchvision/resnet18 --train-steps 1500
    python -m examples.reproduce.photographs clothing10 --data DATA --rho-a 2 --countermeasures none greyscale
    python -m examples.reproduce.photographs clothing10 --data DATA --pretrained-surrogate torchvision/resnet18=FILE
    python -m examples.reproduce.photographs tiny-imagenet-10 --data DATA --generator runs/clothing10

``DATA`` holds ``clothing10/`` or ``tiny-imagenet-100/``, of whose classes the first ten are taken. A generator is
fitted (``sem-classwise``, noise made at 64 px) on the training photographs, or on the first ``--each`` of each class,
which then are all that is published. Trainers train a convnet on what was published, and are tested on clean
photographs that nothing was fitted on. With ``--parts one-label`` only one class is published protected, and the
trainer has the others clean: what one label for all of an owner's photographs is worth. All is kept in ``--work`` as it
ends; the figures go to ``examples/reproduce/results/photographs-NAME.json``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from semtransforms import NoiseGenerator, ProtectedDataset, VictimConfig, evaluate, fit_generator
from semtransforms.core.config import PretrainedSurrogate
from semtransforms.core.files import read_json, to_json, write_atomically
from semtransforms.core.hardware import describe_machine
from semtransforms.data.sources import open_source
from semtransforms.evaluation.records import NONE
from semtransforms.noise.methods import SEM_CLASSWISE, with_effort
from semtransforms.photographs.plan import EFFORTS, config_for
from semtransforms.protect.publish import protect_source

ROOT = Path(__file__).parents[2]
CLASSES = 10
SEED = 1
FILES = {
    "clothing10": ("clothing10", "train", "test"),
    "tiny-imagenet-10": ("tiny-imagenet-100", "train-*", "validation"),
}
# convnet of width 32, 500 updates of 64
TRAINER = VictimConfig(network="convnet", width=32, train_steps=500, batch_size=64, steps_a=5)
QUALITIES = (90, 75)
ALONE = (0, 4, 8)  # classes that are protected alone, one at a time


class Part:
    """Some rows of a Hugging Face dataset as a map-style dataset of (image, label)."""

    def __init__(self, table: Any, rows: Sequence[int]) -> None:
        self.table, self.rows = table, rows
        self.classes = tuple(table.features["label"].names[:CLASSES])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        row = self.table[self.rows[index]]
        return row["image"], row["label"]


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(FILES))
    parser.add_argument("--data", type=Path, required=True, help="holds the folder of the data")
    parser.add_argument("--parts", nargs="+", choices=["sizes", "jpeg", "one-label"], default=["sizes"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--crops", nargs="+", default=["random-resized", "resize"])
    parser.add_argument("--copies", nargs="+", choices=["clean", "protected"], default=["clean", "protected"])
    parser.add_argument("--each", type=int, help="photographs a class; default: all")
    parser.add_argument("--updates", type=int, default=SEM_CLASSWISE.train_steps, help="of the fit (M)")
    parser.add_argument("--rho-u", type=int, default=8, help="radius in 255ths (default: %(default)s)")
    parser.add_argument("--fit-seed", type=int, default=SEED, help="of the fit (default: %(default)s)")
    parser.add_argument("--generator", type=Path, help="a folder: protect with it, and fit nothing")
    parser.add_argument("--pretrained-surrogate", type=PretrainedSurrogate.parse, nargs="+", default=[])
    parser.add_argument("--network", default=TRAINER.network, help="of the trainers (default: %(default)s)")
    parser.add_argument("--train-steps", type=int, default=TRAINER.train_steps, help="theirs (default: %(default)s)")
    parser.add_argument("--rho-a", type=int, default=0, help="of adversarial training, in 255ths (default: none)")
    parser.add_argument("--countermeasures", nargs="+", default=[NONE], help="of the trainers (default: none)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the trainers")
    parser.add_argument("--work", type=Path, default=Path("runs/photographs"))
    parser.add_argument("--results", type=Path, default=ROOT / "examples" / "reproduce" / "results")
    arguments = parser.parse_args(words)

    train, test = read(arguments.name, arguments.data, arguments.each)
    name = arguments.name + (f"-{arguments.each}-each" if arguments.each else "")
    name += f"-rho{arguments.rho_u}" if arguments.rho_u != 8 else ""
    name += f"-fit{arguments.fit_seed}" if arguments.fit_seed != SEED else ""
    name += "".join(f"-{each.network.rpartition('/')[2]}" for each in arguments.pretrained_surrogate)
    name += f"-by-{arguments.generator.name}" if arguments.generator else ""
    work = arguments.work / f"{name}-{arguments.updates}"
    generator, seconds = fit(train, arguments, work)
    rows = []
    for row in (
        *(sizes(train, test, generator, arguments, work) if "sizes" in arguments.parts else ()),
        *(jpeg(train, test, generator, arguments, work) if "jpeg" in arguments.parts else ()),
        *(one_label(train, test, generator, arguments, work) if "one-label" in arguments.parts else ()),
    ):
        print(row)
        rows.append(row)
    labels = np.array([test.table["label"][row] for row in test.rows])
    record = {
        "photographs": len(train), "updates": arguments.updates, "seconds_of_fit": seconds,
        "classes": list(train.classes), "guess": float(np.bincount(labels).max() / len(labels)),
        "machine": describe_machine(), "rows": rows,
    }  # fmt: skip
    _keep(arguments.results / f"photographs-{name}.json", record)


def read(name: str, data: Path, each: int | None) -> tuple[Part, Part]:
    """Training and test photographs of the first ten classes; of the former the first ``each`` a class."""
    folder, *patterns = FILES[name]
    parts = []
    for pattern in patterns:
        files = sorted(map(str, (data / folder).glob(f"{pattern}.parquet")))
        table = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=None)
        labels = np.array(table["label"])
        rows = [
            row for label in range(CLASSES) for row in np.flatnonzero(labels == label)[: each if not parts else None]
        ]
        parts.append(Part(table, [int(row) for row in rows]))
    return parts[0], parts[1]


def fit(train: Part, arguments: Any, work: Path) -> tuple[NoiseGenerator, float]:
    """The generator, and the seconds of its fit; read where an earlier run left them."""
    if arguments.generator:
        return NoiseGenerator.from_pretrained(arguments.generator), 0.0
    folder = work / "generator"
    if not folder.exists():
        started = time.perf_counter()
        config = config_for(
            EFFORTS[0], num_classes=CLASSES, photographs=len(train), train_steps=arguments.updates,
            seed=arguments.fit_seed, pretrained=arguments.pretrained_surrogate,
        )  # fmt: skip
        config = with_effort(config, rho_u=arguments.rho_u / 255)
        generator = fit_generator(train, config, checkpoint_dir=work / "fit", resume=True)
        generator.save_pretrained(folder)
        write_atomically(work / "seconds.json", to_json(round(time.perf_counter() - started)))
    return NoiseGenerator.from_pretrained(folder), read_json(work / "seconds.json")


def sizes(train: Part, test: Part, generator: NoiseGenerator, arguments: Any, work: Path) -> Iterator[dict[str, Any]]:
    """Clean and protected at each size with each crop, the noise added as it is (PNG)."""
    common = {
        "test": test, "victims": _victims(arguments), "countermeasures": arguments.countermeasures,
        "seeds": arguments.seeds, "protection_seed": SEED,
    }  # fmt: skip
    if arguments.copies == ["protected"]:  # as the trainer has them: without the clean ones
        published = ProtectedDataset(train, generator, seed=SEED, cache_dir=work / "noise")
        for record in evaluate(published, out=work / "published", **common).records:
            yield _row(record, "protected")
        return
    # one report for all fits on these photographs, so that clean trainings are made once
    out = arguments.work / f"sizes-{arguments.name}-{len(train)}"
    made = None if arguments.copies == ["clean"] else generator
    report = evaluate(train, made, out=out, cache_dir=work / "noise", copy_name=work.name, **common)
    for record in report.records:
        copy = "clean" if record.copy == "clean" else "protected"
        if copy in arguments.copies and record.copy in ("clean", work.name):
            yield _row(record, copy)


def jpeg(train: Part, test: Part, generator: NoiseGenerator, arguments: Any, work: Path) -> Iterator[dict[str, Any]]:
    """Protected and published as JPEG files, which trainers read."""
    source = _as_files(train, work / "photos")
    for quality in QUALITIES:
        out = work / f"jpeg-{quality}"
        outcome = protect_source(
            source, out, generator, format="jpeg", quality=quality, seed=SEED, private=work / "private"
        )
        report = evaluate(
            source, protected=open_source(str(out)), copy_name="protected", test=test, victims=_victims(arguments),
            seeds=arguments.seeds, out=work / f"jpeg-{quality}-{'-'.join(map(str, arguments.sizes))}",
        )  # fmt: skip
        for record in report.records:
            if record.copy == "protected":
                apart = {"largest": outcome.difference.largest, "rms": round(outcome.difference.rms, 2)}
                yield {**_row(record, f"jpeg-{quality}"), **apart}


def one_label(
    train: Part, test: Part, generator: NoiseGenerator, arguments: Any, work: Path
) -> Iterator[dict[str, Any]]:
    """One class protected and all others clean: how many clean photographs of that class are named rightly."""
    protected = ProtectedDataset(train, generator, seed=SEED, cache_dir=work / "noise")
    for label in ALONE:
        own = Part(test.table, [row for row in test.rows if test.table["label"][row] == label])
        name = f"alone-{train.classes[label]}"
        report = evaluate(
            train, protected=Alone(train, protected, label), copy_name=name, test=own, victims=_victims(arguments),
            seeds=arguments.seeds, out=work / f"{name}-{'-'.join(map(str, arguments.sizes))}",
        )  # fmt: skip
        for record in report.records:
            yield _row(record, name if record.copy == name else f"clean-{train.classes[label]}")


class Alone:
    """A data set of which one class is protected."""

    def __init__(self, clean: Part, protected: Any, label: int) -> None:
        self.clean, self.protected, self.label = clean, protected, label
        self.classes = clean.classes
        self.labels = [clean.table["label"][row] for row in clean.rows]

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        pair: tuple[Any, int] = (self.protected if self.labels[index] == self.label else self.clean)[index]
        return pair


def _as_files(part: Part, folder: Path) -> Any:
    """The photographs as the files that they are in the data set, for the command's own way to publish."""
    raw = part.table.cast_column("image", datasets.Image(decode=False))
    for row in part.rows:
        file = folder / part.classes[raw[row]["label"]] / f"{row:05}.jpg"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, raw[row]["image"]["bytes"])
    return open_source(str(folder))


def _victims(arguments: Any) -> dict[str, VictimConfig]:
    network, rho_a, steps = arguments.network, arguments.rho_a, arguments.train_steps
    trainer = TRAINER if network == TRAINER.network else replace(TRAINER, network=network, width=None)
    trainer = replace(trainer, rho_a=rho_a / 255, train_steps=steps)
    told = [f"{network} " * (network != TRAINER.network), f"adversarial-{rho_a} " * (rho_a > 0)]
    told.append(f"{steps} updates " * (steps != TRAINER.train_steps))
    return {
        f"{''.join(told)}{crop} {side}": replace(trainer, train_size=side, crop=crop)
        for side in arguments.sizes
        for crop in arguments.crops
    }


def _row(record: Any, copy: str) -> dict[str, Any]:
    return {
        "copy": copy, "network": record.network, "rho_a": round(255 * record.rho_a),
        "countermeasure": record.countermeasure, "trained_at": record.train_size, "crop": record.crop,
        "seed": record.seed, "steps": record.train_steps,
        "accuracy": record.test_accuracy, "peak": record.peak_test_accuracy,
    }  # fmt: skip


def _keep(file: Path, record: dict[str, Any]) -> None:
    """Write a record; rows of an earlier run with the same fit stay, but for those that were measured again."""
    same = ("photographs", "updates", "guess")
    if file.exists() and all((before := read_json(file))[name] == record[name] for name in same):
        again = [_which(row) for row in record["rows"]]
        record["rows"] = [row for row in before["rows"] if _which(row) not in again] + record["rows"]
    record["rows"].sort(key=_which)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, to_json(record))


def _which(row: dict[str, Any]) -> tuple[Any, ...]:
    trainer = row.get("network", TRAINER.network), row.get("rho_a", 0), row.get("countermeasure", NONE)
    return row["copy"], *trainer, row.get("steps", TRAINER.train_steps), row["trained_at"], row["crop"], row["seed"]


if __name__ == "__main__":
    main()

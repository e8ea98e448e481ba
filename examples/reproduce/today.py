"""The trainers of today: what they still learn from CIFAR-10 with the noise of a generator that comes along.

    python -m examples.reproduce.today sem-plus-cifar10-small --data DATA
    python -m examples.reproduce.today sem-plus-cifar10-small --data DATA --trainers standard --network vit \\
        --learning-rate 0.02 --rows 2000
    python -m examples.reproduce.today sem-plus-cifar10-small --data DATA --trainers probe \\
        --network timm/tf_efficientnet_lite0 --weights runs/lite0 --size 64 --rows 1500

``DATA`` holds ``cifar10/`` (lossless). Trainers are named as ``evaluate`` names them, and get the first ``--rows``
rows. Each trains on what was published and, with the same effort, on the clean rows, where that makes sense: who holds
pairs has nothing to take off clean ones. All is kept in ``--work`` as it ends; the figures go to
``examples/reproduce/results/today-NAME.json``, where rows of other trainers and networks stay.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from examples.reproduce.protect_photographs import read_data
from semtransforms import NoiseGenerator, evaluate
from semtransforms.core.files import read_json, to_json, write_atomically
from semtransforms.core.hardware import describe_machine
from semtransforms.evaluation.records import Record
from semtransforms.evaluation.sets import STANDARD, split_name
from semtransforms.evaluation.victims import quick

ROOT = Path(__file__).parents[2]
SEED = 0  # of the protection
# how today's trainers differ from that of the paper, cheapest first
TRAINERS = (
    *("standard", "shrink", "random-resized", "low-pass", "band-pass", "channel-norm", "yuv-norm", "lab-norm"),
    *("equalise", "channel-shuffle", "warp", "blind-denoise", "jpeg-75+greyscale", "augmix", "sam"),
    *("pairs-500", "pairs-500-labels", "d-vae", "simclr"),
)
USUAL_RATE = 0.1  # the protocol's learning rate


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generator", help="folder, org/name or short name")
    parser.add_argument("--data", type=Path, required=True, help="holds cifar10/")
    parser.add_argument("--trainers", nargs="+", default=list(TRAINERS))
    parser.add_argument("--network", default="convnet", help="of the trainers (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=USUAL_RATE, help="of a standard trainer")
    parser.add_argument("--weights", help="of a pretrained network; as --pretrained of evaluate")
    parser.add_argument("--size", type=int, help="in pixels, that the trainers resize to; default: as they are")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the trainers")
    parser.add_argument("--work", type=Path, default=Path("runs/today"))
    parser.add_argument("--results", type=Path, default=ROOT / "examples" / "reproduce" / "results")
    arguments = parser.parse_args(words)

    data, tests = read_data("cifar10", arguments.data, arguments.rows, download=False)
    generator = NoiseGenerator.from_pretrained(arguments.generator)
    name = Path(arguments.generator).name
    records: Sequence[Record] = ()
    for trainer in arguments.trainers:  # a row is written as soon as it is there
        who = played_by(trainer, arguments.network, arguments.rows, arguments.learning_rate, parser)
        for maker in (generator, None)[: 1 if re.search("pairs|informed", trainer) else 2]:
            report = evaluate(
                (data.images, data.labels), maker, test=(tests.images, tests.labels), **who,
                pretrained=arguments.weights, seeds=arguments.seeds, protection_seed=SEED,
                train_sizes=[arguments.size] if arguments.size else (), copy_name=maker and name,
                out=arguments.work / f"{name}-{arguments.rows}", cache_dir=arguments.work / "noise",
            )  # fmt: skip
            records = report.records
            keep(arguments.results / f"today-{name}.json", generator, [row_of(record) for record in records])
    for record in records:
        print(row_of(record))


def played_by(trainer: str, network: str, rows: int, rate: float, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """A trainer as arguments of ``evaluate``."""
    if rate == USUAL_RATE:
        return {"trainers": (trainer,), "network": network}
    victim, countermeasure = split_name(trainer)
    if victim != STANDARD:
        parser.error(f"--learning-rate {rate:g} is of trainers who train as usual, and {trainer!r} does not.")
    config = quick(rows, network=network, learning_rate=rate)
    return {"victims": {f"quick {victim} {network} at {rate:g}": config}, "countermeasures": (countermeasure,)}


def row_of(record: Record) -> dict[str, Any]:
    """What is published of a training."""
    rate = json.loads(record.settings)["learning_rate"]
    victim = record.victim.split()[1]  # behind the protocol
    return {
        "copy": "clean" if record.copy == "clean" else "protected", "victim": victim,
        **({} if rate == USUAL_RATE or record.transfer else {"learning_rate": rate}),
        "countermeasure": record.countermeasure, "network": record.network, "trained_at": record.train_size,
        "rows": record.train_images, "steps": record.train_steps, "seed": record.seed,
        "accuracy": record.test_accuracy, "peak": record.peak_test_accuracy, "seconds": round(record.seconds),
    }  # fmt: skip


def keep(file: Path, generator: NoiseGenerator, rows: list[dict[str, Any]]) -> None:
    """Write rows; those of other trainers with the same generator stay."""
    kept = read_json(file) if file.exists() else {"fingerprint": generator.fingerprint, "rows": []}
    if kept["fingerprint"] != generator.fingerprint:
        raise ValueError(f"{file} has rows of another generator of that name. Remove it to measure this one.")
    again = [_which(row) for row in rows]
    rows = [*(row for row in kept["rows"] if _which(row) not in again), *rows]
    record = {**kept, "machine": describe_machine(), "rows": sorted(rows, key=_which)}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, to_json(record))


def _which(row: dict[str, Any]) -> tuple[Any, ...]:
    names = ("network", "rows", "victim", "countermeasure", "copy", "seed")
    return (*(row[name] for name in names), row["trained_at"] or 0, row.get("learning_rate", USUAL_RATE))


if __name__ == "__main__":
    main()

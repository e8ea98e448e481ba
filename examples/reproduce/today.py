"""The trainers of today: what they still learn from CIFAR-10 with the noise of a generator that comes along.

    python -m examples.reproduce.today sem-plus-cifar10-small --data DATA
    python -m examples.reproduce.today sem-plus-cifar10-small --data DATA --trainers standard --network vit
    python -m examples.reproduce.today sem-plus-cifar10-small --data DATA --trainers probe \\
        --network timm/tf_efficientnet_lite0 --weights runs/lite0 --size 64 --rows 1500

``DATA`` holds ``cifar10/`` (lossless). Trainers are named as ``evaluate`` names them, and get the first ``--rows``
rows; each is trained on what was published, and those that do nothing about the noise on the clean rows too. All is
kept in ``--work`` as it ends; the figures go to ``examples/reproduce/results/today-NAME.json``, where rows of other
trainers and networks stay.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from examples.reproduce.protect_photographs import read_data
from semtransforms import NoiseGenerator, evaluate
from semtransforms.core.files import read_json, to_json, write_atomically
from semtransforms.core.hardware import describe_machine
from semtransforms.evaluation.records import Record

ROOT = Path(__file__).parents[2]
SEED = 0  # of the protection
# how today's trainers differ from that of the paper, cheapest first
TRAINERS = (
    *("standard", "shrink", "random-resized", "low-pass", "band-pass", "channel-norm", "equalise", "channel-shuffle"),
    *("warp", "augmix", "pairs-500", "pairs-500-labels", "d-vae"),
)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generator", help="folder, org/name or short name")
    parser.add_argument("--data", type=Path, required=True, help="holds cifar10/")
    parser.add_argument("--trainers", nargs="+", default=list(TRAINERS))
    parser.add_argument("--network", default="convnet", help="of the trainers (default: %(default)s)")
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
        report = evaluate(
            (data.images, data.labels), generator, test=(tests.images, tests.labels), trainers=(trainer,),
            network=arguments.network, pretrained=arguments.weights, seeds=arguments.seeds, protection_seed=SEED,
            train_sizes=[arguments.size] if arguments.size else (), copy_name=name,
            out=arguments.work / f"{name}-{arguments.rows}", cache_dir=arguments.work / "noise",
        )  # fmt: skip
        records = report.records
        keep(arguments.results / f"today-{name}.json", generator, [row_of(record) for record in records])
    for record in records:
        print(row_of(record))


def row_of(record: Record) -> dict[str, Any]:
    """What is published of a training."""
    victim = record.transfer or (f"adversarial-{255 * record.rho_a:g}/255" if record.rho_a else "standard")
    return {
        "copy": "clean" if record.copy == "clean" else "protected", "victim": victim,
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
    return (*(row[name] for name in names), row["trained_at"] or 0)


if __name__ == "__main__":
    main()

"""Photographs against trainers who start from pretrained weights: what do they learn, clean and protected?

    python -m examples.reproduce.lite runs/lite0
    python -m examples.reproduce.pretrained clothing10 --data DATA --weights runs/lite0 --generator FOLDER

``DATA`` holds the photographs as for ``examples.reproduce.photographs``; ``FOLDER`` is the generator that protects
them, such as the one that script leaves in its ``--work``. Without one, the clean photographs alone are measured. The
trainers take ``--network`` with ``--weights`` at ``--size`` pixels: a linear probe, the last block, the whole network.
All is kept in ``--work`` as it ends; the figures go to ``examples/reproduce/results/pretrained-NAME.json``, where rows
of other generators, networks and sizes stay.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from examples.reproduce.photographs import FILES, ROOT, SEED, read
from semtransforms import NoiseGenerator, VictimConfig, evaluate
from semtransforms.core.files import read_json, to_json, write_atomically
from semtransforms.core.hardware import describe_machine
from semtransforms.core.pretrained.network import TRANSFERS
from semtransforms.evaluation.victims import FINE_TUNING, PROBE, quick

BATCH = 64


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(FILES))
    parser.add_argument("--data", type=Path, required=True, help="holds the folder of the data")
    parser.add_argument("--weights", required=True, help="a file, a folder or a name, as --pretrained of evaluate")
    parser.add_argument("--network", default="timm/tf_efficientnet_lite0")
    parser.add_argument("--generator", type=Path, help="folder of the one that protects")
    parser.add_argument("--transfers", nargs="+", choices=TRANSFERS, default=["probe", "last-block", "fine-tune"])
    parser.add_argument("--size", type=int, default=128, help="in pixels")
    parser.add_argument("--epochs", type=int, default=10, help="of fine-tuning")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--each", type=int, help="photographs a class; default: all")
    parser.add_argument("--work", type=Path, default=Path("runs/pretrained"))
    parser.add_argument("--results", type=Path, default=ROOT / "examples" / "reproduce" / "results")
    arguments = parser.parse_args(words)

    train, test = read(arguments.name, arguments.data, arguments.each)
    generator = None if arguments.generator is None else NoiseGenerator.from_pretrained(arguments.generator)
    name = arguments.name + (f"-{arguments.each}-each" if arguments.each else "")
    copy = "clean" if generator is None else f"{_noise(generator)}#{generator.fingerprint[:6]}"
    report = evaluate(
        train, generator, test=test, victims=_victims(len(train), arguments), seeds=arguments.seeds, copy_name=copy,
        protection_seed=SEED, out=arguments.work / name, cache_dir=arguments.work / "noise",
    )  # fmt: skip
    labels = np.array([test.table["label"][row] for row in test.rows])
    rows = [_row(record) for record in report.records]
    record = {
        "photographs": len(train), "guess": float(np.bincount(labels).max() / len(labels)),
        "machine": describe_machine(), "rows": sorted(rows, key=_which),
    }  # fmt: skip
    _keep(arguments.results / f"pretrained-{name}.json", record)


def _noise(generator: NoiseGenerator) -> str:
    """What the table calls its noise."""
    config = generator.config
    start = ", random start" if config.classwise and not config.hold_steps else ""
    against = " and ".join(each.network.rpartition("/")[2] for each in config.pretrained)
    return config.method + start + (f", driven against {against}" if against else "")


def _victims(photographs: int, arguments: Any) -> dict[str, VictimConfig]:
    found = {}
    for transfer in arguments.transfers:
        steps = {} if transfer == "probe" else {"train_steps": -(-arguments.epochs * photographs // BATCH)}
        settings = {**(PROBE if transfer == "probe" else FINE_TUNING), **steps, "batch_size": BATCH}
        words = f"{transfer}, {arguments.network}, {arguments.size} px"
        found[words if transfer == "probe" else f"{words}, {arguments.epochs} epochs"] = quick(
            photographs, network=arguments.network, pretrained=arguments.weights, transfer=transfer,
            train_size=arguments.size, **settings,
        )  # fmt: skip
    return found


def _row(record: Any) -> dict[str, Any]:
    return {
        "copy": record.copy, "generator": record.generator, "network": record.network, "weights": record.pretrained,
        "transfer": record.transfer, "trained_at": record.train_size, "steps": record.train_steps,
        "seed": record.seed, "accuracy": record.test_accuracy, "peak": record.peak_test_accuracy,
        "seconds": round(record.seconds),
    }  # fmt: skip


def _which(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["network"], row["trained_at"], row["transfer"], row["copy"] != "clean", row["copy"], row["steps"],
            row["seed"])  # fmt: skip


def _keep(file: Path, record: dict[str, Any]) -> None:
    """Write a record; rows of earlier runs on the same photographs stay, but for those that were measured again."""
    if file.exists() and all((before := read_json(file))[name] == record[name] for name in ("photographs", "guess")):
        again = {_which(row) for row in record["rows"]}
        kept = [row for row in before["rows"] if _which(row) not in again]
        record["rows"] = sorted(kept + record["rows"], key=_which)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, to_json(record))


if __name__ == "__main__":
    main()

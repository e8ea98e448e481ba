"""Test accuracies in %, one for each seed, as the JSON records of the project have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from examples.reproduce.render import read_row
from examples.reproduce.rows import ROWS
from examples.reproduce.scales import SCALES
from semtransforms.core.files import read_json

RESULTS = Path("examples", "reproduce", "results")  # under the root of the repository
BY_NAME = {row.name: row for row in ROWS}

Figures = Sequence[float]


def of_row(root: Path, name: str) -> Figures | None:
    """Of a row of the miniature; empty where it is not measured with today's settings, ``None`` for no such row."""
    if name not in BY_NAME:
        return None
    return _in_percent(read_row(BY_NAME[name], SCALES["cpu"], root / RESULTS / "cpu").get("records", ()))


def of_miniature(root: Path, method: str) -> dict[str, Figures]:
    """Of a method of the miniature, by trainer, as :func:`of_bundled` calls them."""
    names = {"standard": f"table2-cifar10-{method}-rho0"}
    names |= {f"adversarial at {rho}/255": f"table2-cifar10-{method}-rho{rho}" for rho in (1, 2, 4)}
    names |= {row.countermeasure: row.name for row in ROWS if row.name.startswith(f"countermeasures-{method}-")}
    found = {trainer: of_row(root, name) for trainer, name in names.items()}
    return {trainer: figures for trainer, figures in found.items() if figures}


def of_bundled(root: Path, generator: str, copy: str) -> dict[str, Figures]:
    """Of one of ``pretrained/``, by trainer: with their updates, or the countermeasure of the standard one.

    Args:
        root: of the repository.
        generator: its short name.
        copy: ``"clean"`` or ``"protected"``.
    """
    trainers = read_json(root / RESULTS / f"{generator}.json")["trainers"]
    return {row["trainer"]: _in_percent(row[copy]) for row in trainers if row[copy]}


def guessing(root: Path, generator: str) -> float:
    """What guessing gives on the images that a generator of ``pretrained/`` was judged on."""
    record = read_json(root / RESULTS / f"{generator}.json")["trainers"][0]["clean"][0]
    return 100 * float(record["guess_accuracy"])


def worst_cases(root: Path) -> list[dict[str, Any]]:
    """What ``worst_case.py`` left of each generator, by name."""
    return [read_json(file) for file in sorted((root / RESULTS).glob("worst_case-*.json"))]


def of_other_data(root: Path) -> dict[tuple[int, int, str, str], float]:
    """Of ``sem-cifar10-small`` on other data, by number of classes, side in pixels, victim and copy."""
    records = read_json(root / RESULTS / "other_data-sem-cifar10-small.json")["records"]
    runs = [(each["classes"], each["height"], each["victim"], each["copy"]) for each in records]
    return dict(zip(runs, _in_percent(records), strict=True))


def _in_percent(records: Sequence[Mapping[str, Any]]) -> list[float]:
    return [100 * float(record["test_accuracy"]) for record in records]

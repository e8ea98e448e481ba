"""The runs of an evaluation: what is to be run, what a folder keeps of it, and whether the two go together."""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from semtransforms.evaluation.countermeasures import Countermeasure
from semtransforms.evaluation.records import Record
from semtransforms.evaluation.report import EvaluationReport
from semtransforms.evaluation.victims import VictimConfig


@dataclass(frozen=True)
class Copy:
    """One published form of the data.

    Args:
        name: of its column in the report.
        images: uint8 (N, 3, H, W).
        origin: ``generator``, ``method``, ``rho_u`` and ``copy_sha256``, as a record has them.
    """

    name: str
    images: Tensor
    origin: Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """One training to do.

    Args:
        copy: what is trained on.
        victim, config: the trainer, by name and in full.
        countermeasure, measures: what he does about the noise, by name and in order.
    """

    copy: Copy
    victim: str
    config: VictimConfig
    countermeasure: str
    measures: tuple[Countermeasure, ...]

    @property
    def file(self) -> str:
        """Name of its record, without the ending: readable, and unique by the digest of the names."""
        names = (self.copy.name, self.victim, self.countermeasure)
        readable = "-".join(re.sub(r"[^A-Za-z0-9.+]+", "_", name)[:40] for name in names)
        return f"{readable}-{hashlib.sha256(repr(names).encode()).hexdigest()[:6]}-{self.config.seed}"


def check_folder(folder: Path, facts: dict[str, Any]) -> None:
    """Find out, writing nothing, whether a report can go there.

    Args:
        folder: of the report.
        facts: of the data, as all its records have them.

    Raises:
        ValueError: it holds something else, or a report on other data.
    """
    path = folder / "evaluation.json"
    if not path.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(
                f"out {str(folder)!r} exists and holds no report. Choose another name, or an empty folder."
            )
        return
    found = _read_json(path)
    if found.get("data") != facts["data"]:
        raise ValueError(
            f"out {str(folder)!r} holds a report on other data ({found.get('dataset')}, {found.get('train_images')} "
            "training images). Choose another folder."
        )


def read_description(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, str]]:
    """What an earlier report says of the copies; nothing, with a warning, where it cannot be read.

    Args:
        folder: of the report.

    Returns:
        Its noise and pictures, and copy -> digest of the one they are of.
    """
    if not (folder / "report.json").exists():
        return {}, {}, {}
    try:
        earlier = EvaluationReport.load(folder)
    except ValueError as error:
        warnings.warn(f"{error}; the report is drawn anew from its runs", stacklevel=3)
        return {}, {}, {}
    return dict(earlier.noise), dict(earlier.pictures), dict(_read_json(folder / "evaluation.json")["described"])


def read_kept(folder: Path) -> dict[str, Record]:
    """The runs that were done.

    Args:
        folder: of the report.

    Returns:
        File name without ending -> record.

    Raises:
        ValueError: a file is cut, or no record; it is named.
    """
    return {
        file.stem: Record.from_dict(_read_json(file), source=str(file))
        for file in sorted((folder / "runs").glob("[!.]*.json"))
    }


def _read_json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON ({error}). Remove it to make it anew.") from error
    return dict(values)


def check_kept(kept: Mapping[str, Record], runs: Sequence[Run], pool: bool) -> None:
    """See that names stand for one thing each in what was run before and what is to be run.

    Args:
        kept: as :func:`read_kept` gives them.
        runs: all that are to be run.
        pool: copies of one name may differ from seed to seed.

    Raises:
        ValueError: another copy, or another trainer, has one of these names.
    """
    for run in runs:
        now = run.config.to_dict()
        for file, record in kept.items():
            same_copy = record.copy == run.copy.name and (not pool or record.seed == run.config.seed)
            if same_copy and record.copy_sha256 != run.copy.origin["copy_sha256"]:
                raise ValueError(
                    f"{file}.json is a run on another copy named {run.copy.name!r}: another generator or seed. Choose "
                    "another out or copy_name, or pass pool=True to average over fits or protections."
                )
            if record.victim != run.victim:
                continue
            then = json.loads(record.settings)
            if differing := [key for key in now if key != "seed" and then.get(key) != now[key]]:
                raise ValueError(
                    f"{file}.json is a run of {run.victim!r} with other settings ({', '.join(differing)}). Choose "
                    "another out, or give the victim another name."
                )


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Write a readable file that is there whole or not at all."""
    partial_file = file.with_name(f".{file.name}.{os.getpid()}")
    partial_file.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    partial_file.replace(file)

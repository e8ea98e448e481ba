"""What an evaluation keeps of its runs, in memory and in a folder, and whether what it finds there goes with it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from semtransforms.core.files import UNFINISHED, explained, read_json, swept, to_json, write_atomically
from semtransforms.core.private import PRIVATE_FILE, refuse_link
from semtransforms.data.loading import Labelled
from semtransforms.evaluation.copies import Copy, pictures_of
from semtransforms.evaluation.countermeasures import Countermeasure
from semtransforms.evaluation.metrics import describe_noise
from semtransforms.evaluation.records import Record
from semtransforms.evaluation.report.report import PICTURES, EvaluationReport
from semtransforms.evaluation.runs import Run

RUNS = "runs"  # the folder of the records, one file for each


def check_folder(folder: Path, facts: dict[str, Any]) -> None:
    """Find out, writing nothing, whether a report can go there.

    Args:
        folder: of the report.
        facts: of the data, as all its records have them.

    Raises:
        ValueError: it holds something else, a report on other data, or a link where a folder of the report should be.
    """
    for part in ("runs", PICTURES):
        refuse_link(folder / part, "out")
    path = folder / "evaluation.json"
    if not path.exists():
        if folder.exists() and (not folder.is_dir() or not _is_begun(folder)):
            raise ValueError(
                f"out {str(folder)!r} exists and holds no report. Choose another name, or an empty folder."
            )
        return
    found = _read_begun(path)
    if found.get("data") != facts["data"]:
        raise ValueError(
            f"out {str(folder)!r} holds a report on other data ({found.get('dataset')}, {found.get('train_images')} "
            "training images), or on these data brought to one size before the trainers had them. Choose another "
            "folder."
        )


def _read_begun(path: Path) -> dict[str, Any]:
    """What an evaluation noted at its beginning.

    Raises:
        ValueError: the file is damaged.
    """
    found = read_json(path)
    if not isinstance(found, dict) or not isinstance(found.get("described"), dict):
        raise ValueError(f"{path} is damaged: it does not say what was described. Evaluate into another folder.")
    return found


def _is_begun(folder: Path) -> bool:
    """Whether a folder is empty, but for what a kill in its first moment leaves."""
    return all(
        path.name.startswith(UNFINISHED) or (path.name == RUNS and not any(path.iterdir())) for path in folder.iterdir()
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
        warnings.warn(f"{error}; the report is drawn anew from its runs", stacklevel=4)
        return {}, {}, {}
    return dict(earlier.noise), dict(earlier.pictures), dict(_read_begun(folder / "evaluation.json")["described"])


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
        file.stem: Record.from_dict(read_json(file), source=str(file))
        for file in sorted((folder / RUNS).glob("[!.]*.json"))
    }


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
        now = run.settings
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
            keys = dict.fromkeys([*now, *then])
            if differing := [key for key in keys if key != "seed" and then.get(key) != now.get(key)]:
                raise ValueError(
                    f"{file}.json is a run of {run.victim!r} with other settings ({', '.join(differing)}). Choose "
                    "another out, or give the victim another name."
                )


class Results:
    """What is known of an evaluation's runs: in memory and, where it has one, in its folder.

    Args:
        folder: of the report, or ``None``; nothing is written yet.
        facts: of the data, as all records have them.

    Attributes:
        records: file name without ending -> record, of the runs that are done.

    Raises:
        ValueError: the folder holds something else, or a report on other data.
    """

    def __init__(self, folder: Path | None, facts: dict[str, Any]) -> None:
        if folder is not None:
            check_folder(folder, facts)
        self.folder, self.facts = folder, facts
        self.records: dict[str, Record] = {}
        self._noise: dict[str, Any] = {}
        self._pictures: dict[str, Tensor] = {}
        self._described: dict[str, str] = {}  # copy -> digest of the one that noise and pictures are of

    def go_on(self, runs: Sequence[Run], pool: bool) -> None:
        """Take over what an earlier evaluation left in the folder.

        Args:
            runs, pool: as for :func:`check_kept`.

        Raises:
            ValueError: as :func:`read_kept` and :func:`check_kept`.
        """
        if self.folder is not None:
            self.records = read_kept(self.folder)
            check_kept(self.records, runs, pool)
            self._noise, self._pictures, self._described = read_description(self.folder)

    def describe(
        self, copies: Sequence[Copy], clean: Labelled, countermeasures: Mapping[str, Sequence[Countermeasure]]
    ) -> None:
        """Say what the protected copies are like, and begin the folder.

        Args:
            copies: of them, in images of one size; of pooled copies the first is described.
            clean: the data before their protection, likewise.
            countermeasures: name -> parts, for the pictures.
        """
        for copy in copies:
            digest = copy.origin["copy_sha256"]
            if self._described.setdefault(copy.name, digest) != digest:
                continue
            if copy.name not in self._noise:
                assert isinstance(copy.images, Tensor)
                metrics = describe_noise(clean.images, copy.images, clean.labels, rho_u=copy.origin["rho_u"])
                self._noise[copy.name] = {**copy.change, **metrics.to_dict()}
            self._pictures |= pictures_of(copy, clean, countermeasures)
        if self.folder is not None:
            with explained("out", self.folder):
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # it shows originals and noise
                (self.folder / RUNS).mkdir(mode=0o700, exist_ok=True)
                facts = self.facts | {"described": self._described}
                write_atomically(self.folder / "evaluation.json", to_json(facts), mode=PRIVATE_FILE)

    @contextmanager
    def among_others(self) -> Iterator[None]:
        """While the block runs other processes may add their runs; what a kill has left is removed before."""
        if self.folder is None:
            yield
            return
        with swept(self.folder, RUNS, PICTURES):
            yield

    def checkpoint(self, run: Run) -> Path | None:
        """Where a run keeps its state until it is done."""
        return None if self.folder is None else self.folder / RUNS / f"{run.file}.safetensors"

    def add(self, run: Run, record: Record) -> None:
        """Keep the record of a run, and bring the report up to date."""
        self.records[run.file] = record
        if self.folder is not None:
            with explained("out", self.folder):
                write_atomically(self.folder / RUNS / f"{run.file}.json", to_json(record.to_dict()), mode=PRIVATE_FILE)
            self.records = read_kept(self.folder)  # another process may have added some
            self.report()

    def finish(self, runs: Sequence[Run]) -> EvaluationReport:
        """The report of all runs.

        Raises:
            OSError: someone has removed some of it meanwhile, so that it would be a report of fewer runs.
        """
        found = self.report()
        if self.folder is not None:
            wanted = ["evaluation.json", *(f"{RUNS}/{run.file}.json" for run in runs), *found.files()]
            if gone := next((name for name in wanted if not (self.folder / name).is_file()), None):
                raise OSError(
                    f"out {str(self.folder)!r}: {gone!r} was written and is gone, so someone removed it meanwhile. "
                    "Evaluate again, into another folder."
                )
        return found

    def report(self) -> EvaluationReport:
        """The report of what is done, written to the folder."""
        found = EvaluationReport(tuple(self.records.values()), self._noise, self._pictures)
        if self.folder is not None:
            with explained("out", self.folder):
                found.save(self.folder)
        return found

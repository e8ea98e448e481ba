"""The report of an evaluation: its records, what they say together, and the files that say it."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from semtransforms.data.images import UNDECODABLE, encode_png, to_rgb
from semtransforms.evaluation.page import render_page
from semtransforms.evaluation.records import SCHEMA, Record
from semtransforms.evaluation.summary import Cell, Row, Summary, conditions, judge, noise_table, summarise


@dataclass(frozen=True, eq=False)
class EvaluationReport:
    """What trainers learned from the copies of one dataset.

    Args:
        records: the runs, in the order to show trainers, countermeasures and copies in.
        noise: copy -> measure -> value, of its noise; ``None`` where one is not defined.
        pictures: title -> uint8 (n, 3, H, W), the same n images each time, in the order to show them in.

    Raises:
        ValueError: no records, records of different data, the same run twice, or pictures of another form.
    """

    records: Sequence[Record]
    noise: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    pictures: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.records:
            raise ValueError("records must hold at least one run, got none. Evaluate at least one victim.")
        for name in ("data", "classes"):
            found = sorted({getattr(record, name) for record in self.records})
            if len(found) > 1:
                raise ValueError(f"records must be of the same data, got {name} {found}. Make one report for each.")
        runs = Counter(
            (r.copy, r.generator, r.copy_sha256, r.victim, r.network, r.train_steps, r.countermeasure, r.seed)
            for r in self.records
        )
        if twice := [run for run, count in runs.items() if count > 1]:
            raise ValueError(f"records must hold each run once, got {len(twice)} runs more often, such as {twice[0]}")
        for title, images in self.pictures.items():
            if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
                raise ValueError(
                    f"pictures must be uint8 (n, 3, H, W), got {images.dtype} {tuple(images.shape)} for {title!r}"
                )

    def verdict(self) -> list[str]:
        """What each protected copy withstood, in plain words; failures as plainly as successes."""
        summary = summarise(self.records)
        return [str(judge(summary, copy)) for copy in summary.protected] or ["No protected copy was measured."]

    def to_html(self) -> str:
        """One page that needs no other file, no network and no script."""
        return render_page(self.records, self.noise, self.pictures)

    def to_markdown(self) -> str:
        """The verdict, the tables and what they rest on, as a Markdown document."""
        summary = summarise(self.records)
        parts = [
            f"# What a trainer still learns: {_escape(self.records[0].dataset)}",
            _bullets(self.verdict()),
            "## Test accuracy",
            "In % on clean test images: mean ± standard deviation over n seeds, [peak during the training]. "
            f"Guessing: {100 * summary.guess:.1f}.",
            _grid(summary, summary.rows, _accuracy),
        ]
        for attack in summary.attacks:
            parts += [
                f"## Robust accuracy under PGD at {attack}",
                "In % on clean test images: mean ± standard deviation over n seeds.",
                _grid(summary, summary.rows_under(attack), partial(_robust, attack=attack)),
            ]
        if self.noise:
            rows = [[words, *(texts.get(copy, "–") for copy in self.noise)] for words, texts in noise_table(self.noise)]
            parts += ["## The noise", _table(["measure", *self.noise], rows)]
        if self.pictures:
            titles = [(_escape(title), _file_of(k, title)) for k, title in enumerate(self.pictures)]
            parts += ["## Pictures", "\n".join(f"- {title}: ![{title}]({file})" for title, file in titles)]
        facts = [f"{heading}: {text}" for heading, text in conditions(self.records)]
        return "\n\n".join([*parts, "## Conditions", _bullets(facts)]) + "\n"

    def save(self, folder: str | Path) -> None:
        """Write ``report.json``, ``report.md``, ``report.html`` and ``pictures/``, each file whole or not at all.

        Args:
            folder: made with its parents where it is missing.

        Raises:
            OSError: it cannot be written.
        """
        folder = Path(folder).expanduser()
        for k, (title, images) in enumerate(self.pictures.items()):
            _write(folder / _file_of(k, title), encode_png(torch.cat(list(images), dim=2)))
        content = {
            "schema": SCHEMA,
            "noise": {copy: {key: _finite(each) for key, each in found.items()} for copy, found in self.noise.items()},
            "pictures": [{"title": title, "images": len(images)} for title, images in self.pictures.items()],
            "records": [record.to_dict() for record in self.records],
        }
        _write(folder / "report.json", (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
        _write(folder / "report.md", self.to_markdown().encode())
        _write(folder / "report.html", self.to_html().encode())

    @classmethod
    def load(cls, folder: str | Path) -> EvaluationReport:
        """The inverse of :meth:`save`.

        Args:
            folder: one that :meth:`save` wrote.

        Returns:
            The report.

        Raises:
            ValueError: there is no report, or none of this form; the message names the file and the field.
        """
        folder = Path(folder).expanduser()
        path = folder / "report.json"
        if not path.is_file():
            raise ValueError(f"folder {str(folder)!r} holds no report.json. Give the folder of a finished evaluation.")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:  # not UTF-8, or not JSON
            raise ValueError(f"{path} is not JSON ({error}). Evaluate again into this folder.") from error
        schema = content.get("schema") if isinstance(content, dict) else None
        if schema != SCHEMA:
            raise ValueError(
                f"{path}: schema must be {SCHEMA}, got {schema!r}. Read it with the version of semtransforms that "
                "wrote it, or evaluate again."
            )
        for name, fits, words in _PARTS:
            if not fits(content.get(name)):
                raise ValueError(f"{path}: {name} must be {words}, got {content.get(name)!r}")
        records = [Record.from_dict(each, source=f"{path}: records[{k}]") for k, each in enumerate(content["records"])]
        titles = [(each["title"], each["images"]) for each in content["pictures"]]
        pictures = {title: _read_strip(folder / _file_of(k, title), n) for k, (title, n) in enumerate(titles)}
        return cls(records, content["noise"], pictures)


def _are_measures(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(found, dict) and all(each is None or type(each) in (int, float) for each in found.values())
        for found in value.values()
    )


def _are_titles(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, dict) and type(each.get("title")) is str and type(each.get("images")) is int for each in value
    )


# what report.json holds beside its schema: name, check, the check in words
_PARTS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("records", lambda value: isinstance(value, list), "a list of records"),
    ("noise", _are_measures, "numbers or null by copy and measure"),
    ("pictures", _are_titles, "a list of titles with their number of images"),
)


def _file_of(number: int, title: str) -> str:
    """A title's strip of images, relative to the report; from the title, so that no report names a file elsewhere."""
    return f"pictures/{number:02d}-{re.sub('[^a-z0-9]+', '-', title.lower()).strip('-')[:40]}.png"


def _read_strip(path: Path, count: int) -> Tensor:
    """The uint8 (n, 3, H, W) that were saved side by side."""
    try:
        with Image.open(path) as picture:
            strip = to_rgb(picture).pixels
    except UNDECODABLE as error:
        raise ValueError(f"{path} does not decode ({error}). Evaluate again into this folder.") from error
    if count < 1 or strip.shape[2] % count:
        raise ValueError(f"{path} must hold {count} images side by side, got a width of {strip.shape[2]} pixels")
    return torch.stack(strip.chunk(count, dim=2))


def _finite(value: float | None) -> float | None:
    """What JSON can say: an infinite PSNR, of images that were not changed, it cannot."""
    return value if value is not None and math.isfinite(value) else None


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")  # two processes may write one report
    unfinished.write_bytes(data)
    os.replace(unfinished, path)


def _escape(text: str) -> str:
    """A name as Markdown shows it letter by letter, on one line."""
    return re.sub(r"([\\`*_\[\]<>|#&~])", r"\\\1", " ".join(text.split()))


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {_escape(line)}" for line in lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(map(_escape, line))} |" for line in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def _grid(summary: Summary, rows: Iterable[Row], text: Callable[[Cell], str]) -> str:
    """Trainers with countermeasures as rows, copies as columns."""
    lines = []
    for row in rows:
        cells = [summary.cells.get((copy, row)) for copy in summary.copies]
        texts = [text(cell) if cell else "not measured" for cell in cells]
        lines.append([str(row.trainer), row.countermeasure, *texts])
    return _table(["trainer", "countermeasure", *summary.copies], lines)


def _accuracy(cell: Cell) -> str:
    lost = f"{cell.diverged} of {cell.runs} diverged"
    if cell.accuracy is None or cell.peak is None:
        return lost
    figure = f"{cell.accuracy} (n={cell.accuracy.n}) [{100 * cell.peak.mean:.1f}]"
    return f"{figure}, {lost}" if cell.diverged else figure


def _robust(cell: Cell, attack: str) -> str:
    spread = cell.robust.get(attack)
    if spread is None:
        return "not measured" if cell.accuracy else "diverged"
    return f"{spread} (n={spread.n})"

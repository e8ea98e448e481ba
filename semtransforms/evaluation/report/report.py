"""The report of an evaluation: its records, what they say together, and the files that say it."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from semtransforms.core.files import write_atomically
from semtransforms.core.private import PRIVATE_FILE
from semtransforms.data.images import UNDECODABLE, encode_png, to_rgb
from semtransforms.evaluation.records import SCHEMA, Record
from semtransforms.evaluation.report.markdown import render_markdown
from semtransforms.evaluation.report.page import render_page
from semtransforms.evaluation.report.summary import summarise
from semtransforms.evaluation.report.verdict import judge

PICTURES = "pictures"  # the folder of the strips of images, beside the report


@dataclass(frozen=True, eq=False)
class EvaluationReport:
    """What trainers learned from the copies of one dataset.

    Args:
        records: the runs, in the order to show trainers, countermeasures and copies in.
        noise: copy -> metric -> value, of its noise; ``None`` where one is not defined.
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
            (
                r.copy,
                r.generator,
                r.copy_sha256,
                r.victim,
                r.network,
                r.train_steps,
                r.transfer,
                r.countermeasure,
                r.seed,
            )
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
        files = {title: _file_of(k, title) for k, title in enumerate(self.pictures)}
        return render_markdown(self.records, self.verdict(), self.noise, files)

    def files(self) -> list[str]:
        """What :meth:`save` writes, relative to the folder."""
        return [
            "report.json",
            "report.md",
            "report.html",
            *(_file_of(k, title) for k, title in enumerate(self.pictures)),
        ]

    def save(self, folder: str | Path) -> None:
        """Write ``report.json``, ``report.md``, ``report.html`` and ``pictures/``, each file whole or not at all.

        Args:
            folder: made with its parents where it is missing.

        Raises:
            OSError: it cannot be written.
        """
        folder = Path(folder).expanduser()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.pictures:  # of originals and noise
            (folder / PICTURES).mkdir(mode=0o700, exist_ok=True)
        for k, (title, images) in enumerate(self.pictures.items()):
            write_atomically(folder / _file_of(k, title), encode_png(torch.cat(list(images), dim=2)), mode=PRIVATE_FILE)
        content = {
            "schema": SCHEMA,
            "noise": {copy: {key: _finite(each) for key, each in found.items()} for copy, found in self.noise.items()},
            "pictures": [{"title": title, "images": len(images)} for title, images in self.pictures.items()],
            "records": [record.to_dict() for record in self.records],
        }
        told = json.dumps(content, indent=1, allow_nan=False) + "\n"
        write_atomically(folder / "report.json", told.encode(), mode=PRIVATE_FILE)
        write_atomically(folder / "report.md", self.to_markdown().encode(), mode=PRIVATE_FILE)
        write_atomically(folder / "report.html", self.to_html().encode(), mode=PRIVATE_FILE)

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


def _are_metrics(value: Any) -> bool:
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
    ("noise", _are_metrics, "numbers or null by copy and metric"),
    ("pictures", _are_titles, "a list of titles with their number of images"),
)


def _file_of(number: int, title: str) -> str:
    """A title's strip of images, relative to the report; from the title, so that no report names a file elsewhere."""
    return f"{PICTURES}/{number:02d}-{re.sub('[^a-z0-9]+', '-', title.lower()).strip('-')[:40]}.png"


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

"""The report as one HTML page: no other file, no network, no script; light and dark, wide and narrow."""

from __future__ import annotations

import base64
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from semtransforms.core.templates import fill
from semtransforms.data.images import encode_png
from semtransforms.evaluation.records import CLEAN, Record
from semtransforms.evaluation.report import curves
from semtransforms.evaluation.report.conditions import conditions, size_text
from semtransforms.evaluation.report.noise import noise_table
from semtransforms.evaluation.report.sizes import COLUMNS, size_table
from semtransforms.evaluation.report.summary import WITH_CLEAN_IMAGES, by_trainer, percent, summarise
from semtransforms.evaluation.report.verdict import QUARTERS, judge

TEMPLATE = Path(__file__).with_name("page.html.jinja")
STYLE = TEMPLATE.with_name("style.css")  # which the template includes; `semtransforms app` shows it too

SMALL = 96  # pixels: smaller images are enlarged to it, with hard edges, so that every byte is seen


class Strip(NamedTuple):
    """Images that stand side by side under one title: their size, that of a column in pixels, and PNGs in base64."""

    title: str
    width: int
    height: int
    column: int
    is_enlarged: bool
    images: list[str]


def render_page(
    records: Sequence[Record], noise: Mapping[str, Mapping[str, float | None]], pictures: Mapping[str, Tensor]
) -> str:
    """Write the report as a page; every name in it is escaped.

    Args:
        records, noise, pictures: as of :class:`~semtransforms.EvaluationReport`.

    Returns:
        An HTML document.
    """
    summary = summarise(records)
    sizes = {copy: found for copy in summary.protected if (found := size_table(summary, copy))}
    styles = curves.styles_of(summary.copies)
    sections = {
        "verdict": "Verdict",
        **({"sizes": "At the trainer's size"} if sizes else {}),
        "accuracy": "Test accuracy",
        "curves": "Accuracy during the training",
        **({"robust": "Robust accuracy"} if summary.attacks else {}),
        **({"pictures": "Pictures"} if pictures else {}),
        **({"noise": "The noise"} if noise else {}),
        "conditions": "Conditions",
        "reading": "How to read this",
    }
    return fill(
        TEMPLATE,
        escape=True,
        sections=sections,
        summary=summary,
        sizes=sizes,
        size_columns=COLUMNS,
        size_text=size_text(records[0]),
        records=records,
        verdicts={copy: judge(summary, copy) for copy in summary.protected},
        styles=styles,
        panels=list(curves.panels(summary, records, styles)),
        panel_size=(curves.WIDTH, curves.HEIGHT),
        strips=[_strip(title, images) for title, images in pictures.items()],
        noise_copies=list(noise),
        noise_rows=noise_table(noise),
        conditions=conditions(records),
        clean=CLEAN,
        quarters=QUARTERS,
        with_clean_images=WITH_CLEAN_IMAGES,
        by_trainer=by_trainer,
        band=_band,
        nbsp=_nbsp,
        percent=lambda share: _nbsp(percent(share)),
    )


def _strip(title: str, images: Tensor) -> Strip:
    height, width = images.shape[2:]
    coded = [base64.b64encode(encode_png(image)).decode() for image in images]
    return Strip(title, width, height, max(SMALL, width), max(height, width) <= SMALL, coded)


def _band(learned: float) -> int:
    """Which quarter of the clean copy's lesson a share lies in; a bound belongs to the quarter below it."""
    return bisect_left(QUARTERS, learned)


def _nbsp(text: str) -> str:
    """Keep a figure and its percent sign on one line."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")

"""The report as a Markdown document."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from semtransforms.evaluation.records import Record
from semtransforms.evaluation.report.conditions import conditions
from semtransforms.evaluation.report.noise import noise_table
from semtransforms.evaluation.report.sizes import COLUMNS, size_table
from semtransforms.evaluation.report.summary import Cell, Row, Summary, summarise


def render_markdown(
    records: Sequence[Record],
    verdict: Iterable[str],
    noise: Mapping[str, Mapping[str, float | None]],
    pictures: Mapping[str, str],
) -> str:
    """Write the report as Markdown; every name in it is escaped.

    Args:
        records, noise: as of :class:`~semtransforms.EvaluationReport`.
        verdict: its sentences, one protected copy each.
        pictures: title -> the file that shows it, relative to the document.

    Returns:
        The document.
    """
    summary = summarise(records)
    parts = [
        f"# What a trainer still learns: {_escape(records[0].dataset)}",
        _bullets(verdict),
        "## Test accuracy",
        "In % on clean test images: mean ± standard deviation over n seeds, [peak during the training]. "
        f"Guessing: {100 * summary.guess:.1f}.",
        _grid(summary, summary.rows, _accuracy),
    ]
    for copy in summary.protected:
        if found := size_table(summary, copy):
            parts += [
                f"## At the trainer's size: {_escape(copy)}",
                "Accuracies in % at the best moment, of the trainer who learned the largest share at that size and "
                "crop; the share is (protected − guessing) / (clean − guessing), not below 0.",
                _table(["size (crop)", *COLUMNS], [[place, *texts.values()] for place, texts in found]),
            ]
    for attack in summary.attacks:
        parts += [
            f"## Robust accuracy under PGD at {attack}",
            "In % on clean test images: mean ± standard deviation over n seeds.",
            _grid(summary, summary.rows_under(attack), partial(_robust, attack=attack)),
        ]
    if noise:
        rows = [[words, *(texts.get(copy, "–") for copy in noise)] for words, texts in noise_table(noise)]
        parts += ["## The noise", _table(["metric", *noise], rows)]
    if pictures:
        titles = [(_escape(title), file) for title, file in pictures.items()]
        parts += ["## Pictures", "\n".join(f"- {title}: ![{title}]({file})" for title, file in titles)]
    facts = [f"{heading}: {text}" for heading, text in conditions(records)]
    return "\n\n".join([*parts, "## Conditions", _bullets(facts)]) + "\n"


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

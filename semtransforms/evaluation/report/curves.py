"""The curves of the trainings as drawings: which lines, and where their points lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from semtransforms.evaluation.records import Record
from semtransforms.evaluation.report.summary import Row, Summary, Trainer, by_trainer, percent, row_of

COLOURS = 6  # of lines, and as many dashes; shifted against each other, 36 copies look different

# a panel of curves, in the units of its own viewBox: size, and what is left free for the figures on the axes
WIDTH, HEIGHT = 260, 150
LEFT, RIGHT, TOP, BOTTOM = 32, 6, 8, 20


class Line(NamedTuple):
    """A polyline: the class of its style, and ``"x,y x,y ..."``."""

    style: str
    points: str


class Label(NamedTuple):
    """A text at a place; ``anchor`` is the end of the text that lies there."""

    x: int
    y: int
    anchor: str
    text: str


class Panel(NamedTuple):
    """The curves of one row: its title, the drawing, and the same in words."""

    title: str
    words: str
    lines: list[Line]
    labels: list[Label]


def styles_of(copies: Sequence[str]) -> dict[str, str]:
    """The classes of each copy's lines: a colour, and a dash for whoever sees no colours."""
    return {copy: f"c{k % COLOURS} d{(k + k // COLOURS) % COLOURS}" for k, copy in enumerate(copies)}


def panels(
    summary: Summary, records: Sequence[Record], styles: Mapping[str, str]
) -> Iterator[tuple[Trainer, list[Panel]]]:
    """Draw the accuracy of every run during its training.

    Args:
        summary: the table.
        records: the runs it is from; those that diverged are not drawn.
        styles: copy -> the classes of its lines.

    Yields:
        A trainer, and a panel for each countermeasure.
    """
    for trainer, rows in by_trainer(summary.rows).items():
        yield (
            trainer,
            [_panel(summary, row, [r for r in records if row_of(r) == row and not r.diverged], styles) for row in rows],
        )


def _panel(summary: Summary, row: Row, runs: Sequence[Record], styles: Mapping[str, str]) -> Panel:
    last = max((step for run in runs for step, _, _ in run.curve), default=1)
    height = HEIGHT - TOP - BOTTOM

    def place(step: float, accuracy: float) -> str:
        x = LEFT + (WIDTH - LEFT - RIGHT) * step / last
        return f"{x:.1f},{TOP + height * (1 - accuracy):.1f}"

    def level(style: str, accuracy: float) -> Line:
        return Line(style, f"{place(0, accuracy)} {place(last, accuracy)}")

    lines = [*(level("grid", share) for share in (0, 0.5, 1)), level("guess", summary.guess)]
    for run in runs:
        points = [place(step, accuracy) for step, _, accuracy in run.curve]
        points += points[:1] * (len(points) == 1)  # a line of no length, drawn as a dot
        lines.append(Line(styles[run.copy], " ".join(points)))
    labels = [
        Label(LEFT - 4, round(TOP + 4 + height * (1 - share)), "end", f"{100 * share:.0f}") for share in (0, 0.5, 1)
    ]
    labels += [Label(LEFT, HEIGHT - 5, "start", "0"), Label(WIDTH - RIGHT, HEIGHT - 5, "end", f"{last:,} updates")]
    ends = [
        f"{copy} ends at {percent(cell.accuracy.mean)}"
        for copy in summary.copies
        if (cell := summary.cells.get((copy, row))) and cell.accuracy
    ]
    words = f"Test accuracy in percent against updates, {row.countermeasure}: {', '.join(ends) or 'every run diverged'}"
    return Panel(row.countermeasure, words, lines, labels)

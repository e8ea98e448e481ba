"""Tables as Markdown, and the places in a guide where they stand.

A place is what lies between two lines of the guide::

    <!-- table: NAME -->
    <!-- end of table -->
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, stdev

from semtransforms.core.names import unknown

BEGIN, END = re.compile(r"<!-- table: (\S+) -->"), "<!-- end of table -->"
MISSING = "–"
NOTHING = "not measured"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown, without a newline at its end."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))


def spread(figures: Sequence[float], digits: int = 1) -> str:
    """Mean ± standard deviation and n; a single figure alone, and a dash for none."""
    if not figures:
        return MISSING
    mean = f"{fmean(figures):.{digits}f}"
    return mean if len(figures) == 1 else f"{mean} ± {stdev(figures):.{digits}f} (n={len(figures)})"


def share(protected: Sequence[float], clean: Sequence[float], guessing: float) -> str:
    """How much of what clean images teach beyond guessing, in words."""
    if not protected or not clean:
        return MISSING
    return f"{100 * (fmean(protected) - guessing) / (fmean(clean) - guessing):.0f} %"


def cell(figures: Sequence[float] | None) -> str:
    """Figures as :func:`spread`; a dash where the row has no such cell, words where there is none yet."""
    return MISSING if figures is None else spread(figures) if figures else NOTHING


def fill(text: str, place: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """A guide with its tables written anew.

    Args:
        text: of the guide.
        place: its name in messages.
        tables: what makes the table of each name.

    Returns:
        The text; what stands outside the markers is as it was.

    Raises:
        ValueError: a name is unknown, or a marker has no counterpart.
    """
    kept: list[str] = []
    opened = ""  # the table that we are in
    for line in text.split("\n"):
        begins = BEGIN.fullmatch(line)
        if begins and opened:
            break  # before the table we are in has ended
        if line == END and not opened:
            raise ValueError(f"{place}: {END!r} ends no table. Put <!-- table: NAME --> before it, or remove it.")
        if begins:
            opened = begins[1]
            if opened not in tables:
                raise ValueError(f"{place}: {unknown('table', opened, tables)} (all: {', '.join(tables)})")
            kept += [line, tables[opened]()]
        elif line == END:
            opened = ""
        if not opened:
            kept.append(line)
    if opened:
        raise ValueError(f"{place}: table {opened!r} has no end. Put the line {END} behind it.")
    return "\n".join(kept)

"""Tables as people read them in a terminal."""

from __future__ import annotations

import textwrap

USUAL = 100  # columns, where nobody says how many there are


def table(rows: list[list[str]]) -> str:
    """Columns of equal width, headings first."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def fitting_table(rows: list[list[str]], columns: int) -> str:
    """The same where lines are wide enough; else a paragraph for each row, with all that is in it.

    Args:
        rows: headings first, then rows that begin with a name.
        columns: letters of a line.
    """
    wide = table(rows)
    if max(map(len, wide.splitlines())) <= columns:
        return wide
    heading, *others = rows
    paragraphs = []
    for name, *facts in others:
        text = "; ".join(f"{what}: {fact}" for what, fact in zip(heading[1:], facts, strict=True))
        lines = textwrap.wrap(text, columns, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
        paragraphs.append("\n".join([name, *lines]))
    return "\n".join(paragraphs)

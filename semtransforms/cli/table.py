"""Tables as people read them in a terminal."""

from __future__ import annotations


def table(rows: list[list[str]]) -> str:
    """Columns of equal width, headings first."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)

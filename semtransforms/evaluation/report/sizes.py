"""How much is still learned at each size and crop of a trainer."""

from __future__ import annotations

from semtransforms.evaluation.records import CLEAN, NONE
from semtransforms.evaluation.report.summary import Row, Summary, percent
from semtransforms.evaluation.report.verdict import deeds

COLUMNS = ("clean", "protected", "share still learned", "who learned most")


def size_table(summary: Summary, copy: str) -> list[tuple[str, dict[str, str]]]:
    """The sizes and crops of the trainers of a copy, at each the one who learned the largest share.

    Args:
        summary: the table of all runs.
        copy: name of a protected copy.

    Returns:
        (size and crop, column -> text), by size; accuracies are those of the best moments, in %. Trainers with clean
        images of the owner do not count.
    """
    places: dict[str, list[Row]] = {}
    for row in sorted(summary.rows, key=lambda row: (row.trainer.train_size or 0, row.trainer.crop != "resize")):
        cell = summary.cells.get((copy, row))
        if row.trainer.place and not row.has_clean_images and cell and cell.best is not None:
            places.setdefault(row.trainer.place, []).append(row)
    return [(place, _line(summary, copy, rows)) for place, rows in places.items()]


def _line(summary: Summary, copy: str, rows: list[Row]) -> dict[str, str]:
    shares = {row: -1 if (share := summary.learned(copy, row)) is None else share for row in rows}
    most = max(rows, key=lambda row: (shares[row], summary.cells[copy, row].best))
    clean = summary.cells.get((CLEAN, Row(most.trainer, NONE)))
    share = summary.learned(copy, most)
    texts = (
        _in_percent(clean.best if clean else None),
        _in_percent(summary.cells[copy, most].best),
        "not known" if share is None else percent(share),
        " and ".join(deeds(most)) or "does nothing special",
    )
    return dict(zip(COLUMNS, texts, strict=True))


def _in_percent(accuracy: float | None) -> str:
    return "not measured" if accuracy is None else f"{100 * accuracy:.1f}"

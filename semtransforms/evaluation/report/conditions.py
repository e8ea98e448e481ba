"""The conditions of an evaluation as texts: on what, by whom, with what and where it was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from semtransforms.evaluation.records import CLEAN, Record
from semtransforms.evaluation.report.summary import radius_text, row_of


def conditions(records: Sequence[Record]) -> list[tuple[str, str]]:
    """What was measured, on what, and where; distinct values where runs differ.

    The seed of a protection is left out: pages are passed on, and whoever has the seed can take the noise off.

    Args:
        records: runs on the same data.

    Returns:
        (heading, text) in reading order.
    """
    first = records[0]
    train_images = _listed(f"{r.train_images:,}" for r in records)
    gone = f"; left out, since they or their copies do not decode: {first.left_out:,}" if first.left_out else ""
    copies: dict[tuple[str, str], list[str]] = {}
    for r in records:
        if r.copy != CLEAN:
            made = "unknown" if r.rho_u is None else f"ρ_u = {radius_text(r.rho_u)}"
            copies.setdefault((r.copy, f"method {r.method or 'unknown'}, {made}"), []).append(
                (r.generator or "unknown")[:12]
            )
    versions = (f"Python {r.python}, torch {r.torch}, semtransforms {r.semtransforms}" for r in records)
    hours = sum(r.seconds for r in records) / 3600
    diverged = sum(r.diverged for r in records)
    return [
        ("Data", f"{first.dataset}: {train_images} training images, {first.test_images:,} test images{gone}"),
        ("Images", f"{first.classes:,} classes, {size_text(first)} (height × width)"),
        ("SHA-256 of the data", first.data),
        *((f"Copy {copy}", f"{made}; generator {_listed(prints)}") for (copy, made), prints in copies.items()),
        ("Trainers", _listed((f"{r.victim}: {row_of(r).trainer.training}" for r in records), "; ")),
        ("Seeds", _listed(sorted(r.seed for r in records))),
        ("Runs", f"{len(records):,}, of which {diverged:,} diverged; {hours:.1f} hours of training"),
        ("Work", f"{sum(r.passes for r in records):,} images sent forward and backward"),
        ("Machines", _listed((f"{r.processor}, threads: {r.threads}" for r in records), "; ")),
        ("Versions", _listed(versions, "; ")),
    ]


def size_text(record: Record) -> str:
    """The size of the images that a run was on, in words."""
    middle = "" if record.train_size is None else ", the medians of photographs that trainers resize"
    return f"{record.height} × {record.width} pixels{middle}"


def _listed(values: Iterable[object], separator: str = ", ") -> str:
    """The distinct ones, in order."""
    return separator.join(dict.fromkeys(map(str, values)))

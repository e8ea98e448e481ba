"""``semtransforms list``: the generators that have a short name."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from semtransforms.cli.errors import one_line_errors
from semtransforms.cli.table import USUAL, fitting_table


def list_command() -> None:
    """List the generators that have a short name."""
    with one_line_errors():
        from semtransforms.core.grid import levels
        from semtransforms.generators.card import in_short
        from semtransforms.generators.names import available

        rows = [["name", "method", "data", "classes", "size", "surrogate", "rho_u", "rho_a", "KiB", "place",
                 "trainer protected (clean), in %", "not played, of the set owner"]]  # fmt: skip
        for row in available():
            facts = [
                row["name"], row["method"], row["data"], row["num_classes"], row["image_size"] and
                "x".join(map(str, row["image_size"])), row["surrogate"],
                *(row[rho] is not None and f"{levels(row[rho])}/255" for rho in ("rho_u", "rho_a")),
                row["bytes"] and f"{row['bytes'] / 1024:.0f}", row["place"], in_short(row["measured"]),
                _missing(row["measured"]),
            ]  # fmt: skip
            rows.append([str(fact or "?") for fact in facts])
        typer.echo(fitting_table(rows, shutil.get_terminal_size((USUAL, 24)).columns))


def _missing(measured: Sequence[Mapping[str, Any]]) -> str:
    """The trainers of the set ``owner`` that a card has no figure of; a card's begin with the trainer's name."""
    from semtransforms.evaluation.sets import not_played

    played = [re.split("[ ,:]", row["trainer"])[0] for row in measured if row.get("protected")]
    return ", ".join(not_played(played)) if played else "all"

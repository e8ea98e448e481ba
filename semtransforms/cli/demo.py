"""``semtransforms demo``: the figures of `digits.py`, as a table or as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from semtransforms.cli.errors import one_line_errors
from semtransforms.cli.options import Device
from semtransforms.cli.table import table

Out = Annotated[Path, typer.Option(help="Folder for the picture.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def demo_command(out: Out = Path(), as_json: AsJson = False, device: Device = None) -> None:
    """Protect 1,402 scanned digits and train a network on the clean and on the protected copy (under a minute)."""
    with one_line_errors():
        from semtransforms.cli.digits import run_demo
        from semtransforms.core.files import making_folder

        with making_folder(out, "--out"):
            result = run_demo(out, device=device, progress=not as_json)
        if as_json:
            typer.echo(json.dumps(result))
            return
        rows = [["trained on", "test accuracy", "train accuracy", "seconds"]]
        for copy, victim in result["victims"].items():
            accuracies = [f"{victim[part]:.1%}" for part in ("test_accuracy", "train_accuracy")]
            rows.append([copy, *accuracies, f"{victim['seconds']:.1f}"])
        typer.echo(table(rows))
        typer.echo(
            f"{result['train_images']} images protected within rho_u = {result['rho_u']} by {result['generator']} "
            f"in {result['protect_seconds']:.1f} s; {result['test_images']} clean test images; "
            f"{result['seconds']:.0f} s in all.\nPicture: {result['picture']}"
        )

"""``semtransforms demo``: what `digits.py` or `clothing.py` measures, for people or as JSON."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from semtransforms.cli.errors import one_line_errors
from semtransforms.cli.options import Device
from semtransforms.cli.protect import tell_verdict
from semtransforms.cli.table import table

PHOTOS_FOLDER = "semtransforms-demo-photos"

Out = Annotated[Path, typer.Option(help="Folder for the picture; with --photos for the photographs too.")]
Photos = Annotated[
    bool, typer.Option("--photos", help="All of `semtransforms protect` with 200 photographs, in two minutes.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def demo_command(out: Out = Path(), photos: Photos = False, as_json: AsJson = False, device: Device = None) -> None:
    """Protect 1,402 scanned digits and train a network on the clean and on the protected copy (under a minute)."""
    with one_line_errors("interrupted: the same command goes on from here" if photos else "interrupted"):
        from semtransforms.core.files import making_folder

        folder = out / PHOTOS_FOLDER if photos else out
        with making_folder(folder, "--out"):
            (_photographs if photos else _digits)(folder, device, as_json)


def _digits(out: Path, device: str | None, as_json: bool) -> None:
    from semtransforms.cli.digits import run_demo

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


def _photographs(out: Path, device: str | None, as_json: bool) -> None:
    from semtransforms.cli.clothing import run_photographs_demo

    started = time.perf_counter()
    done, picture = run_photographs_demo(out, device=device, progress=not as_json)
    seconds = time.perf_counter() - started
    if as_json:
        result: dict[str, Any] = {
            "photographs": len(done.found.rows),
            "classes": done.found.classes,
            "published": str(out / "published"),
            "largest_difference": done.outcome.difference.largest,
            "verdict": done.checked.verdict,
            "learned": done.checked.learned,
            "report": done.checked.report and str(done.checked.report),
            "picture": str(picture),
            "seconds": round(seconds, 2),
        }
        typer.echo(json.dumps(result))
        return
    typer.echo(f"{seconds:.0f} s in all.\nPublished: {out / 'published'}\nPicture: {picture}")
    tell_verdict(done.checked, done.generator)

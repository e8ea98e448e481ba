"""``semtransforms check``: what was published, looked at before anybody else does."""

from __future__ import annotations

from typing import Annotated

import typer

from semtransforms.cli.errors import one_line_errors
from semtransforms.cli.options import ImageColumn, LabelColumn, Split

PUBLISHED_HELP = "Folder or table that protect wrote, or its address."
Published = Annotated[str, typer.Argument(metavar="PUBLISHED", help=PUBLISHED_HELP, show_default=False)]
Original = Annotated[
    str | None, typer.Option(help="SOURCE of that protection: asks for bound, completeness and labels too.")
]


def check_command(
    published: Published,
    original: Original = None,
    split: Split = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
) -> None:
    """Check what was published: a line for each question, and exit code 1 if something is not as it should be.

    Checksums, files that should not be there, metadata; with --original that every image has its copy, labels, and how
    far copies are from originals. What a trainer learns is another question: `semtransforms evaluate`.
    """
    with one_line_errors():
        from semtransforms.data.remote import named, place_of
        from semtransforms.data.sources import open_source
        from semtransforms.protect.verify import verify

        source = None
        if original is not None:
            source = open_source(original, split=split, image_column=image_column, label_column=label_column)
        well, place = True, place_of(published)
        with named("PUBLISHED", place):
            for finding in verify(place, source):
                typer.echo(f"{'ok  ' if finding.holds else 'FAIL'}  {finding.text}")
                well &= finding.holds
        if not well:
            raise typer.Exit(1)

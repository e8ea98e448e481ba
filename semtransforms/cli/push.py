"""``semtransforms push``: a generator for everybody."""

from __future__ import annotations

from typing import Annotated

import typer

from semtransforms.cli.errors import one_line_errors

Folder = Annotated[str, typer.Argument(metavar="FOLDER", help="What `semtransforms fit` wrote.", show_default=False)]
Repository = Annotated[str, typer.Argument(metavar="ORG/NAME", help="On the Hub; made if missing.", show_default=False)]
Private = Annotated[bool, typer.Option("--private", help="Readable by you and your organisation only.")]


def push_command(folder: Folder, repository: Repository, private: Private = False) -> None:
    """Publish a generator on the Hugging Face Hub: whoever has it can wash its noise out.

    Log in with `hf auth login` first, or set HF_TOKEN.
    """
    with one_line_errors():
        from semtransforms.generators.generator import NoiseGenerator

        generator = NoiseGenerator.from_pretrained(folder, device="cpu")
        typer.echo(generator.push_to_hub(repository, private=private or None))

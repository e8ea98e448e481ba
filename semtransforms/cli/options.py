"""Arguments and options that several commands take, each said once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from semtransforms.core.config import PretrainedSurrogate

SOURCE_HELP = (
    "Image folder with one sub-folder per class, datasets folder, Parquet, WebDataset tars, name on the Hugging Face "
    "Hub, or torchvision:NAME:ROOT."
)
GENERATOR_HELP = "Folder of your own, org/name or org/name@revision on the Hub, or a name of `semtransforms list`."

Source = Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCE_HELP, show_default=False)]
Generator = Annotated[str, typer.Option(help=GENERATOR_HELP)]
Split = Annotated[str | None, typer.Option(help="Part to read, where SOURCE has parts. Default: train.")]
ImageColumn = Annotated[str | None, typer.Option(help="Column of the images, where SOURCE has columns.")]
LabelColumn = Annotated[str | None, typer.Option(help="Column of the labels, where SOURCE has columns.")]
Width = Annotated[int | None, typer.Option(help="Its width, for networks that have one.")]
Size = Annotated[int | None, typer.Option(help="Resize and crop to a square of so many pixels.")]
PRETRAINED_HELP = (
    "Network of timm or torchvision with pretrained weights, as in timm/efficientnet_lite0 or NETWORK=FILE, that noise "
    "is driven against too; may be repeated. Takes a second or more for each photograph."
)
PretrainedSurrogates = Annotated[list[str] | None, typer.Option("--pretrained-surrogate", help=PRETRAINED_HELP)]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1. Default: CUDA if present.")]


SEED_FILE_HELP = (
    "File with the seed, or - to be asked for it (or to read it from standard input): other users see a command's "
    "words in the list of processes, and the shell keeps them."
)
SeedFile = Annotated[Path | None, typer.Option("--seed-file", metavar="FILE", help=SEED_FILE_HELP)]


def read_seed(seed: str | None, file: Path | None, option: str = "--seed") -> int | None:
    """The seed that was given on the command line, in a file, or is asked for.

    Args:
        seed: of ``option``; ``"-"`` asks for it.
        file: of ``--seed-file``.
        option: its name in messages.

    Returns:
        The seed, or ``None`` where none was given.

    Raises:
        ValueError: both were given, or it is no whole number; the message does not repeat it.
        OSError: the file cannot be read.
    """
    from semtransforms.core.checks import whole_seed
    from semtransforms.core.private import warn_if_open

    if file is None:
        if seed is None:
            return None
        return whole_seed(option, _asked(option) if seed == "-" else seed)
    named = f"{option}-file"
    if seed is not None:
        raise ValueError(f"{option} and {named} were both given. Leave one of them out.")
    if str(file) == "-":
        return whole_seed(named, _asked(option))
    try:
        text = file.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise OSError(f"{named} {str(file)!r} cannot be read ({why}). Give a file that holds a whole number.") from None
    warn_if_open(file.expanduser(), named)
    return whole_seed(named, text)


def _asked(option: str) -> str:
    """What is typed, unseen; or what standard input holds."""
    if sys.stdin.isatty():
        typed: str = typer.prompt(option.removeprefix("--"), hide_input=True)
        return typed
    return sys.stdin.read()


def parse_pretrained(texts: list[str] | None) -> tuple[PretrainedSurrogate, ...]:
    """What ``--pretrained-surrogate`` says.

    Raises:
        ValueError: a text is no network.
    """
    from semtransforms.core.config import PretrainedSurrogate

    try:
        return tuple(PretrainedSurrogate.parse(text) for text in texts or ())
    except ValueError as error:
        raise ValueError(f"--pretrained-surrogate: {error}") from None

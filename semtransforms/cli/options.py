"""Arguments and options that several commands take, each said once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from semtransforms.core.config import PretrainedSurrogate

SOURCE_HELP = (
    "Image folder with one sub-folder per class, datasets folder, Parquet, name on the Hugging Face Hub, "
    "or torchvision:NAME:ROOT."
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
    "is driven against too; may be repeated. Takes a fraction of a second for each photograph."
)
PretrainedSurrogates = Annotated[list[str] | None, typer.Option("--pretrained-surrogate", help=PRETRAINED_HELP)]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1. Default: CUDA if present.")]


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

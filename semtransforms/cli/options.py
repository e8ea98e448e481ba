"""Arguments and options that several commands take, each said once."""

from __future__ import annotations

from typing import Annotated

import typer

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
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1. Default: CUDA if present.")]

"""``semtransforms show``: what the noise looks like."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from semtransforms.cli.errors import one_line_errors
from semtransforms.cli.options import Device, Generator, ImageColumn, LabelColumn, SeedFile, Source, Split, read_seed

Out = Annotated[Path, typer.Option(help="PNG file to write.")]
Index = Annotated[list[int] | None, typer.Option(help="Which image; may be repeated.")]
Number = Annotated[int, typer.Option("-n", help="How many, spread over SOURCE, without --index.")]
Seed = Annotated[
    str | None, typer.Option(metavar="INTEGER", help="Of the noise shown; default: 0. A secret one: --seed-file, or -.")
]


def show_command(
    source: Source,
    generator: Generator,
    out: Out = Path("semtransforms.png"),
    index: Index = None,
    number: Number = 8,
    seed: Seed = None,
    seed_file: SeedFile = None,
    split: Split = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    device: Device = None,
) -> None:
    """Draw clean images, their noise and their protected copies side by side."""
    with one_line_errors():
        from semtransforms.core.checks import check_integer

        check_integer("-n", number, low=1)
        known = read_seed(seed, seed_file) or 0
        if out.suffix.lower() != ".png":
            raise ValueError(f"--out must end in .png, got {str(out)!r}: other formats would change the pixels shown.")
        if not os.path.isdir(out.parent):
            raise ValueError(f"--out {str(out)!r} lies in no folder. Make {str(out.parent)!r} first.")
        from semtransforms.core.files import explained
        from semtransforms.data.raw import read_sample
        from semtransforms.data.sources import open_source
        from semtransforms.generators.generator import NoiseGenerator
        from semtransforms.protect.batch import protect_batch
        from semtransforms.protect.figures import save_picture, side_by_side
        from semtransforms.protect.publish import check_classes

        noise_maker = NoiseGenerator.from_pretrained(generator, device=device)
        images = open_source(source, split=split, image_column=image_column, label_column=label_column)
        labels = check_classes(images, noise_maker)
        count = min(number, len(images))
        chosen = index or [k * len(images) // count for k in range(count)]
        beyond = [i for i in chosen if not 0 <= i < len(images)]
        if beyond:
            raise ValueError(f"--index must be in 0..{len(images) - 1}, got {beyond[0]}.")
        pixels = [read_sample(images, i)[0] for i in chosen]
        batch = protect_batch(pixels, labels[chosen], noise_maker, seed=known, device=device)
        names = images.classes or noise_maker.classes
        captions = [names[label] if names else str(label) for label in labels[chosen].tolist()]
        picture = side_by_side(pixels, batch.noise, captions)
        with explained("--out", out):
            save_picture(picture, out)
        typer.echo(f"Picture: {out}")

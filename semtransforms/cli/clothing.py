"""The demonstration on photographs: an owner's whole journey, with pieces of clothing that come along."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from semtransforms.data.images import as_pixels
from semtransforms.photographs.journey import Protection, protect_photographs
from semtransforms.protect.figures import save_picture, side_by_side

PHOTOGRAPHS = Path(__file__).with_name("clothing10") / "photos"  # source and licence are beside it
MINUTES = 0.7  # so that all of it takes less than two on two cores


def run_photographs_demo(out: Path, *, device: str | None = None, progress: bool = True) -> tuple[Protection, Path]:
    """Do with the bundled photographs what ``semtransforms protect`` does with an owner's, and draw a picture.

    It goes on where an earlier call with the same ``out`` has stopped.

    Args:
        out: folder for ``published``, ``private`` and ``picture.png``; made if missing.
        device: where to compute; default: CUDA if present.
        progress: show bars, and say what was found and is done.

    Returns:
        What the journey did, and the picture's path.

    Raises:
        OSError: ``out`` cannot be written.
    """
    published, picture = out / "published", out / "picture.png"
    # a seed that is known, since everyone has these photographs; a real protection's is secret
    done = protect_photographs(
        PHOTOGRAPHS, published, minutes=MINUTES, private=out / "private", seed=0, device=device, progress=progress
    )
    save_picture(draw_published(done, published), picture)
    return done, picture


def draw_published(done: Protection, published: Path) -> Image.Image:
    """Draw the first photograph of each class, with the noise that the published file holds.

    Args:
        done: the journey.
        published: where it has put PNG files.
    """
    source, rows = done.found.source, done.found.rows
    first = [next(row for row in rows if source.labels[row] == label) for label in range(len(done.found.classes))]
    clean, noise = [], []
    for row in first:
        with Image.open(published / f"{source.names[row]}.png") as image:
            copy = as_pixels(image)
        clean.append(source[row][0])
        noise.append((copy.to(torch.int16) - clean[-1].to(torch.int16)).to(torch.int8))
    return side_by_side(clean, noise, done.found.classes)

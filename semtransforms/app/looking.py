"""A photograph, its protected copy and its noise to look at, before a fit and behind it."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from semtransforms.app import texts
from semtransforms.app.visitors import Visitor, Wish
from semtransforms.core.files import write_atomically
from semtransforms.core.private import make_private
from semtransforms.data.images import as_pixels, encode_png
from semtransforms.data.opening import open_image
from semtransforms.data.sources import open_source
from semtransforms.evaluation.metrics import describe_noise
from semtransforms.generators.fitting import fit_generator
from semtransforms.generators.generator import NoiseGenerator
from semtransforms.photographs.journey import SMALLEST
from semtransforms.photographs.look import Found, look, read_squares
from semtransforms.photographs.plan import EFFORTS, config_for
from semtransforms.protect.batch import protect_batch
from semtransforms.protect.figures import noise_picture
from semtransforms.protect.formats import FORMATS
from semtransforms.views.visibility import share_seen

# of the fit whose noise is shown before there is one: a third of a second on two cores. Its steps are as long as the
# radius, so that noise that starts at random comes near the bound, as that of a long fit does
UPDATES, PHOTOGRAPHS = 4, 8
PART = (720, 540)  # px, width and height of what is shown; of a larger photograph the middle


@dataclass(frozen=True)
class Shown:
    """Three pictures of one part of a photograph, and what there is to say.

    Args:
        name: of the photograph.
        files: their names in the visitor's folder: original, protected, noise.
        size: width and height in pixels.
        is_published: whether the copy is the one to publish.
        numbers: how visible it is, a sentence.
    """

    name: str
    files: tuple[str, str, str]
    size: tuple[int, int]
    is_published: bool
    numbers: str


def find(visitor: Visitor) -> Found:
    """What a visitor brought, looked at once.

    Raises:
        ValueError: there is nothing that can be protected.
    """
    if "found" not in visitor.previews:
        visitor.previews["found"] = look(open_source(str(visitor.photographs)), SMALLEST)
    found: Found = visitor.previews["found"]
    return found


def choices(found: Found) -> list[tuple[str, int]]:
    """The photographs as a list to choose from: name and row."""
    return [(found.source.files[row], row) for row in found.rows]


def show(visitor: Visitor, row: int, wish: Wish) -> Shown:
    """Draw a photograph's middle, clean and protected, and the noise.

    Args:
        visitor: whose it is.
        row: of the photograph.
        wish: how it is to be protected.

    Returns:
        Where the pictures are.

    Raises:
        ValueError: it does not decode.
        OSError: the pictures cannot be written.
    """
    found = find(visitor)
    clean, label = found.source[row]
    folder, done = visitor.published(wish), visitor.finished
    published = folder / f"{found.source.names[row]}{FORMATS[wish.format].suffix}"
    is_published = done is not None and done.order["out"] == str(folder) and published.is_file()
    rows, columns = _middle(clean)
    before = clean[:, rows, columns].contiguous()
    if is_published:
        with open_image(published) as image:
            after = as_pixels(image)[:, rows, columns].contiguous()
    else:
        batch = protect_batch([clean], [label], _sketch(visitor, wish.rho_u), seed=0, visibility=wish.visibility)
        after = batch.scale.add(batch.made[0], clean, rows)[..., columns].contiguous()
    noise = (after.to(torch.int16) - before).clamp(-128, 127).to(torch.int8)
    make_private(visitor.shown, "--cache-dir")
    visitor.previews["count"] = count = visitor.previews.get("count", 0) + 1  # a new name: browsers keep old pictures
    for old in visitor.shown.glob(f"{count - 2}-*.png"):  # the last ones may be on their way
        old.unlink(missing_ok=True)
    names = [f"{count}-{what}.png" for what in ("original", "protected", "noise")]
    for name, pixels in zip(names, (before, after, noise_picture(noise)), strict=True):
        write_atomically(visitor.shown / name, encode_png(pixels), mode=0o600)
    return Shown(
        found.source.files[row],
        (names[0], names[1], names[2]),
        (before.shape[2], before.shape[1]),
        is_published,
        _numbers(before, after),
    )


def _sketch(visitor: Visitor, rho_u: int) -> NoiseGenerator:
    """A generator to look at noise with, from a moment's fit on a few photographs; the last one is kept."""
    found, effort = find(visitor), EFFORTS[-1]
    if "squares" not in visitor.previews:
        rows = found.rows[:: max(1, len(found.rows) // PHOTOGRAPHS)][:PHOTOGRAPHS]  # of several classes
        few = replace(found, rows=rows, sizes=found.sizes[: len(rows)])
        visitor.previews["squares"] = read_squares(few, effort.side, False, lambda line: None)
    if visitor.previews.get("radius") != rho_u:
        squares = visitor.previews["squares"]
        config = config_for(
            effort, num_classes=len(found.classes), photographs=len(found.rows), train_steps=UPDATES, rho_u=rho_u / 255
        )
        config = replace(config, alpha_u=config.rho_u, batch_size=len(squares.labels))
        visitor.previews |= {"sketch": fit_generator(squares, config, progress=False), "radius": rho_u}
    generator: NoiseGenerator = visitor.previews["sketch"]
    return generator


def _middle(image: Tensor) -> tuple[slice, slice]:
    """Rows and columns of the part that is shown."""
    sides = []
    for length, most in zip(image.shape[1:], reversed(PART), strict=True):
        first = max(0, (length - most) // 2)
        sides.append(slice(first, first + min(length, most)))
    return sides[0], sides[1]


def _numbers(before: Tensor, after: Tensor) -> str:
    metrics = describe_noise(before[None], after[None], torch.zeros(1, dtype=torch.int64))
    share = share_seen(before, after)
    return texts.NUMBERS.format(
        largest=metrics.linf,
        rms=255 * metrics.l2 / before.numel() ** 0.5,
        psnr=float("inf") if metrics.psnr is None else metrics.psnr,
        ssim=float("nan") if metrics.ssim is None else metrics.ssim,
        share=share,
        words=next(words for most, words in texts.WORDS if share <= most),
    )


def thumbnail(file: Path, side: int = 160) -> bytes:
    """A small picture of a photograph, as JPEG.

    Raises:
        OSError, ValueError, Image.DecompressionBombError: as of ``open_image``.
    """
    with open_image(file) as image:
        image.draft("RGB", (2 * side, 2 * side))
        image.thumbnail((side, side))
        small = io.BytesIO()
        image.convert("RGB").save(small, "JPEG", quality=80)
    return small.getvalue()

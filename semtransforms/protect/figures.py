"""A picture of what protection does to images: clean, noise, protected, side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from semtransforms.core.files import write_atomically
from semtransforms.core.grid import add_noise
from semtransforms.data.images import to_pil

NOISE_GAIN = 16  # 8/255 just fills the range
PANEL = 160  # pixels of a panel's longer side
GAP = 12
TEXT = 15


def side_by_side(images: Sequence[Tensor], noise: Sequence[Tensor], captions: Sequence[str]) -> Image.Image:
    """Draw one row per image: clean, noise (no noise is mid-grey), protected.

    Args:
        images: N times uint8 ``(3, H, W)``, of any sizes.
        noise: N times int8 ``(3, H, W)``, in grey levels.
        captions: N short texts, written beside the rows.

    Returns:
        An RGB picture.
    """
    font = ImageFont.load_default(TEXT)
    margin = GAP + max((int(font.getlength(caption)) for caption in captions), default=0)
    rows = [
        [_panel(clean), _panel(noise_picture(levels)), _panel(add_noise(clean, levels))]
        for clean, levels in zip(images, noise, strict=True)
    ]
    heights = [max(panel.height for panel in row) for row in rows]
    head = TEXT + 2 * GAP
    width = margin + 3 * (PANEL + GAP) + GAP
    picture = Image.new("RGB", (width, head + sum(heights) + GAP * len(rows)), "white")
    draw = ImageDraw.Draw(picture)
    columns = [margin + GAP + k * (PANEL + GAP) for k in range(3)]
    titles = ("clean", f"noise x{NOISE_GAIN}", "protected")  # PIL's own font has no multiplication sign
    for left, title in zip(columns, titles, strict=True):
        draw.text((left + PANEL / 2, head / 2), title, fill="black", font=font, anchor="mm")
    top = head
    for row, height, caption in zip(rows, heights, captions, strict=True):
        draw.text((margin, top + height / 2), caption, fill="black", font=font, anchor="rm")
        for left, panel in zip(columns, row, strict=True):
            picture.paste(panel, (left + (PANEL - panel.width) // 2, top + (height - panel.height) // 2))
        top += height + GAP
    return picture


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture as PNG, whole or not at all; a link of that name is replaced, not followed.

    Args:
        picture: of :func:`side_by_side`.
        path: of the file.

    Raises:
        OSError: it cannot be written.
    """
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    write_atomically(path, buffer.getvalue())


def noise_picture(noise: Tensor) -> Tensor:
    """Make noise visible.

    Args:
        noise: int8, any shape, in grey levels.

    Returns:
        uint8 of that shape: 128 where there is none, 16 levels per level of noise, clipped.
    """
    return (128 + NOISE_GAIN * noise.to(torch.int32)).clamp(0, 255).to(torch.uint8)


def _panel(pixels: Tensor) -> Image.Image:
    """Scale to the panel's size: small images in whole, hard-edged pixels, so that every byte is seen."""
    image = to_pil(pixels)
    longer = max(image.size)
    if longer <= PANEL:
        factor = PANEL // longer
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    size = (max(1, image.width * PANEL // longer), max(1, image.height * PANEL // longer))
    return image.resize(size, Image.Resampling.LANCZOS)

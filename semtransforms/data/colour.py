"""Colour profiles: an image of another colour space becomes sRGB, as every program shows an image without a profile."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageCms

ProfileEffect = Literal["none", "ignored", "converted"]

# An image of a mode on the left is brought to the one on the right, which little CMS knows; others keep their colours.
_AS_GREY = {"1": "L", "L": "L", "LA": "L"}
_AS_COLOURS = {"P": "RGB", "PA": "RGB", "RGB": "RGB", "RGBA": "RGB", "RGBX": "RGB", "YCbCr": "RGB", "CMYK": "CMYK"}
_MODES = _AS_GREY | _AS_COLOURS

# Profiles that call themselves sRGB differ by rounding; the next colour space in use, Display P3, by far more.
_ALIKE = 2  # grey levels


def to_srgb(image: Image.Image) -> Image.Image:
    """Bring an image to sRGB by the ICC profile that it carries.

    Args:
        image: a PIL image of any mode.

    Returns:
        The image itself where :func:`profile_effect` is not ``"converted"``; else mode RGB, or RGBA where it has
        transparency, which is not changed.
    """
    if profile_effect(image) != "converted":
        return image
    mode = _MODES[image.mode]
    alpha = None
    if image.has_transparency_data:
        image = image.convert("LA" if mode == "L" else "RGBA")
        alpha = image.getchannel("A")
    transform = _to_srgb(image.info["icc_profile"], mode)
    assert isinstance(transform, ImageCms.ImageCmsTransform)  # the effect is "converted"
    srgb = transform.apply(image if image.mode == mode else image.convert(mode))
    if alpha is not None:
        srgb.putalpha(alpha)
    return srgb


def profile_effect(image: Image.Image) -> ProfileEffect:
    """What an image's ICC profile does to its pixels.

    Args:
        image: a PIL image of any mode.

    Returns:
        ``"converted"``: they are brought to sRGB. ``"ignored"``: the profile is damaged or belongs to another colour
        mode, so the pixels are taken for sRGB. ``"none"``: there is no profile, or it is sRGB.
    """
    profile = image.info.get("icc_profile")
    if not profile:
        return "none"
    transform = _to_srgb(profile, _MODES[image.mode]) if image.mode in _MODES else "ignored"
    return transform if isinstance(transform, str) else "converted"


@lru_cache(maxsize=16)  # the photographs of one camera have one profile
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | Literal["none", "ignored"]:
    """From a profile to sRGB; a word where nothing is to be done."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        transform = ImageCms.ImageCmsTransform(source, target, mode, "RGB")
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return "ignored"
    if mode == "CMYK":
        return transform
    colours = _lattice(mode)
    moved = np.asarray(transform.apply(colours)).astype(int) - np.asarray(colours.convert("RGB"))
    return "none" if np.abs(moved).max() <= _ALIKE else transform


def _lattice(mode: str) -> Image.Image:
    """All grey levels, or a grid of 18 x 18 x 18 colours."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    axis = np.arange(0, 256, 15, dtype=np.uint8)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    return Image.fromarray(grid.reshape(len(axis), -1, 3))

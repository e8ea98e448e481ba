"""Colour profiles against colour computed by hand."""

import io
from pathlib import Path

import icc
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from torchvision.datasets import ImageFolder

from semtransforms.data.colour import profile_effect
from semtransforms.data.images import to_rgb
from semtransforms.data.raw import read_samples
from semtransforms.data.sources import open_source

CLOSE = 1.5  # levels: little CMS computes in 8 and 16 bits
RGB = np.random.default_rng(0).integers(0, 256, (16, 12, 3), dtype=np.uint8)


def saved(image: Image.Image, kind: str, **options: object) -> Image.Image:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(io.BytesIO(file.getvalue()))


def levels(image: Image.Image) -> np.ndarray:
    return to_rgb(image).pixels.permute(1, 2, 0).numpy().astype(int)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "AVIF"])
def test_an_rgb_profile_is_applied(kind: str):
    """Photographs of cameras and phones come out pale: their numbers mean stronger colours than sRGB has."""
    lossless = (
        {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": "4:4:4"} if kind == "AVIF" else {}
    )
    image = saved(Image.fromarray(RGB), kind, icc_profile=icc.rgb_profile(), **lossless)
    assert profile_effect(image) == "converted"
    expected = icc.from_adobe(np.asarray(image.convert("RGB")))
    assert np.abs(levels(image) - expected).max() <= CLOSE
    assert np.abs(expected - np.asarray(image.convert("RGB"))).max() > 20  # there is something to get wrong


def test_a_grey_profile_is_applied():
    """Scans in grey come out lighter or darker than every viewer shows them."""
    ramp = np.arange(256, dtype=np.uint8)[None]
    image = saved(Image.fromarray(ramp), "PNG", icc_profile=icc.grey_profile())
    assert np.abs(levels(image) - icc.from_grey(ramp)).max() <= CLOSE


def test_a_press_profile_is_applied():
    """CMYK is taken for its complement: what was printed in mild colours becomes glaring."""
    rng = np.random.default_rng(1)
    corners = np.stack([rng.integers(60, 240, 16), *rng.integers(118, 139, (2, 16))], axis=-1).astype(np.uint8)
    corners[0], corners[15] = (255, 128, 128), (0, 128, 128)  # paper is white and all inks black, as of every press
    inks = np.stack(np.meshgrid(*[[0, 255]] * 4, indexing="ij"), axis=-1).reshape(2, 8, 4).astype(np.uint8)
    profile = icc.cmyk_profile(corners.reshape(2, 2, 2, 2, 3))
    for kind in ("TIFF", "JPEG"):
        large = Image.fromarray(inks.repeat(8, 0).repeat(8, 1), "CMYK")  # JPEG: one colour for each of its blocks
        image = saved(
            large, kind, icc_profile=profile, **({"quality": 100, "subsampling": 0} if kind == "JPEG" else {})
        )
        assert image.mode == "CMYK"
        found = levels(image)[4::8, 4::8]
        assert np.abs(found - icc.from_lab(corners.reshape(2, 8, 3).astype(float))).max() <= 2.5


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L with a key", "RGB with a key", "1"])
def test_transparency_stays_and_colours_follow(mode: str):
    """Of a picture with holes the holes move, or its colours stay those of another space."""
    profile = icc.grey_profile() if mode[0] == "L" or mode == "1" else icc.rgb_profile()
    image, options = Image.fromarray(RGB), {"icc_profile": profile}
    if "A" in mode:
        image.putalpha(Image.fromarray(RGB[..., 0]))
        image = image.convert(mode)
    elif mode == "P":
        image, options["transparency"] = image.quantize(32), 3
    elif mode == "L with a key":
        image, options["transparency"] = image.convert("L"), int(image.convert("L").getpixel((0, 0)))
    elif mode == "1":
        image = image.convert("1")
    else:
        options["transparency"] = tuple(RGB[0, 0].tolist())
    image = saved(image, "PNG", **options)
    plain = np.asarray(image.convert("RGBA"))
    pixels, alpha = to_rgb(image)
    expected = icc.from_grey(plain[..., 0]) if profile == icc.grey_profile() else icc.from_adobe(plain[..., :3])
    assert np.abs(pixels.permute(1, 2, 0).numpy() - expected).max() <= CLOSE
    if mode == "1":
        assert alpha is None
    else:
        np.testing.assert_array_equal(alpha[0], plain[..., 3])
        assert plain[..., 3].min() < 255


def test_srgb_and_no_profile_change_no_byte():
    """Copies that are there already would be made anew, and the bytes of plain photographs would move."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for options in ({}, {"icc_profile": srgb}):
        image = saved(Image.fromarray(RGB), "PNG", **options)
        np.testing.assert_array_equal(levels(image), RGB)
        assert profile_effect(image) == "none"


def test_a_profile_that_cannot_be_used_is_ignored():
    """One broken profile, or that of a picture which someone has converted, would lose a readable photograph."""
    half = icc.rgb_profile()[:200]
    for profile in (b"no profile", half, icc.grey_profile(), icc.cmyk_profile(np.zeros((2, 2, 2, 2, 3), np.uint8))):
        image = saved(Image.fromarray(RGB), "PNG", icc_profile=profile)
        np.testing.assert_array_equal(levels(image), RGB)
        assert profile_effect(image) == "ignored"
    deep = Image.fromarray((RGB[..., 0].astype(np.uint16)) * 257)
    deep = saved(deep, "PNG", icc_profile=icc.grey_profile())
    np.testing.assert_array_equal(levels(deep)[..., 0], RGB[..., 0])
    assert profile_effect(deep) == "ignored"


def test_a_turned_photograph_with_a_profile():
    """Either the profile or the orientation would get lost on the way."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise
    image = saved(Image.fromarray(RGB), "PNG", icc_profile=icc.rgb_profile(), exif=exif)
    assert np.abs(levels(image) - icc.from_adobe(np.rot90(RGB, -1))).max() <= CLOSE


def test_all_readers_see_the_same_pixels(tmp_path: Path):
    """Noise would be made for one picture and judged on another."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(RGB).save(tmp_path / name / "x.png", icc_profile=icc.rgb_profile())
    (by_torchvision, _), *_ = read_samples(ImageFolder(str(tmp_path)))
    assert torch.equal(by_torchvision, open_source(str(tmp_path))[0][0])
    assert np.abs(by_torchvision.permute(1, 2, 0).numpy() - icc.from_adobe(RGB)).max() <= CLOSE

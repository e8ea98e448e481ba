"""Small image files of many kinds, and what can be wrong with their bytes."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache

import numpy as np
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin, features

NASTY = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
HEAD = 600  # bytes, in which most of what a decoder believes stands
SIDES = (24, 16)

KINDS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "TGA", "PPM", "JPEG2000", "AVIF")


def _pixels(mode: str) -> Image.Image:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (4, 6, 4), dtype=np.uint8), "RGBA")
    return small.resize(SIDES, Image.Resampling.BICUBIC).convert(mode)


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x8769] = 6, "a maker", {0x9003: "2020:01:01 00:00:00", 0x927C: b"note" * 8}
    exif[0x8825] = {1: "N", 2: (51.0, 30.0, 1.5)}
    return exif


def _text() -> PngImagePlugin.PngInfo:
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "words " * 9, zip=True)
    text.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta tiff:Orientation='6'/>")
    return text


@cache
def files(kind: str) -> tuple[bytes, ...]:
    """Files of a kind that decode, with as much in them as the kind can hold."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    rich = {"exif": _exif(), "icc_profile": profile}
    wanted: dict[str, list[tuple[str, dict[str, object]]]] = {
        "PNG": [
            ("RGB", {"pnginfo": _text(), **rich}), ("RGBA", {}), ("P", {"transparency": 3}), ("I;16", {}), ("1", {}),
            ("LA", {}), ("L", {"transparency": 7}),
        ],
        "JPEG": [
            ("RGB", {"quality": 80, "comment": b"words", **rich}), ("RGB", {"progressive": True}), ("CMYK", {}),
            ("L", {"restart_marker_blocks": 1}),
        ],
        "WEBP": [("RGB", rich), ("RGBA", {"lossless": True}), ("RGBA", {"quality": 30})],
        "TIFF": [
            ("RGB", {"compression": "tiff_lzw", "icc_profile": profile, "description": "words"}),
            ("RGB", {"compression": "jpeg"}), ("I;16", {}),
            ("CMYK", {"compression": "tiff_adobe_deflate"}), ("1", {"compression": "group4"}), ("P", {}),
        ],
        "GIF": [("P", {"comment": b"words"}), ("P", {"transparency": 2, "interlace": 1}), ("L", {})],
        "BMP": [("RGB", {}), ("P", {}), ("1", {})],
        "TGA": [("RGB", {"compression": "tga_rle"}), ("L", {})],
        "PPM": [("RGB", {}), ("L", {})],
        "JPEG2000": [("RGB", {}), ("L", {"irreversible": True})] if features.check("jpg_2000") else [],
        "AVIF": [("RGB", rich)] if features.check("avif") else [],
    }  # fmt: skip
    found = []
    for mode, options in wanted[kind]:
        buffer = io.BytesIO()
        _pixels("L" if mode == "I;16" else mode).convert(mode).save(buffer, kind, **options)
        found.append(buffer.getvalue())
    return tuple(found)


def with_checksums(png: bytes) -> bytes:
    """A PNG whose chunks have the checksums of what they hold; else nothing behind a changed byte would be read."""
    parts, place = [png[:8]], 8
    while place + 12 <= len(png):
        length = struct.unpack_from(">I", png, place)[0]
        body = png[place + 4 : place + 8 + length]
        if len(body) < 4 + length:
            break
        parts.append(png[place : place + 4] + body + struct.pack(">I", zlib.crc32(body)))
        place += 12 + length
    return b"".join([*parts, png[place:]])


@st.composite
def broken(draw: st.DrawFn, files: tuple[bytes, ...], head: int = HEAD) -> bytes:
    """A file of these with up to eight things wrong with its bytes."""
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(1, 8))):
        place = draw(st.integers(0, max(0, min(len(data), head) - 1)) | st.integers(0, max(0, len(data) - 1)))
        what = draw(st.sampled_from(("byte", "bit", "number", "cut", "drop", "repeat", "insert")))
        if what == "byte":
            data[place : place + 1] = bytes([draw(st.integers(0, 255))])
        elif what == "bit":
            data[place : place + 1] = bytes(each ^ 1 << draw(st.integers(0, 7)) for each in data[place : place + 1])
        elif what == "number":
            size, order = draw(st.sampled_from((1, 2, 4, 8))), draw(st.sampled_from(("big", "little")))
            value = draw(st.sampled_from(NASTY) | st.integers(0, 2**32)) % 256**size
            data[place : place + size] = value.to_bytes(size, order)
        elif what == "cut":
            del data[place:]
        else:
            part = data[place : place + draw(st.integers(1, 40))]
            data[place : place + (len(part) if what == "drop" else 0)] = {
                "drop": b"", "repeat": part * draw(st.integers(1, 4)), "insert": draw(st.binary(max_size=12))
            }[what]  # fmt: skip
    return bytes(data)


@st.composite
def broken_picture(draw: st.DrawFn, kind: str) -> bytes:
    """An image file of a kind with something wrong; of PNG half with checksums that hide it."""
    data = draw(broken(files(kind)))
    return with_checksums(data) if kind == "PNG" and draw(st.booleans()) else data


def declared(kind: str, width: int, height: int) -> bytes:
    """A small file that says it is an image of so many pixels."""
    if kind == "TIFF":
        return _tiff(width, height)
    if kind == "PPM":
        return f"P6 {width} {height} 255\n".encode() + bytes(48)
    behind, said = {
        "PNG": (b"IHDR", struct.pack(">II", width, height)),
        "JPEG": (b"\xff\xc0\0\x11\x08", struct.pack(">HH", height, width)),
        "WEBP": (b"\x2f", (1 << 28 | height - 1 << 14 | width - 1).to_bytes(4, "little")),  # lossless, with alpha
        "GIF": (b"GIF89a", struct.pack("<HH", width, height)),
        "BMP": (b"\x28\0\0\0", struct.pack("<ii", width, height)),
        "TGA": (files(kind)[0][:12], struct.pack("<HH", width, height)),
        "JPEG2000": (b"ihdr", struct.pack(">II", height, width)),
        "AVIF": (b"ispe\0\0\0\0", struct.pack(">II", width, height)),
    }[kind]
    data = bytearray(files(kind)[kind == "WEBP"])
    place = data.index(behind) + len(behind)
    data[place : place + len(said)] = said
    return with_checksums(bytes(data)) if kind == "PNG" else bytes(data)


def _tiff(width: int, height: int) -> bytes:
    """One strip of deflated zeros: a bomb of a few bytes."""
    strip = zlib.compress(bytes(1 << 20))
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 8), (262, 3, 1), (273, 4, 8), (277, 3, 1),
            (278, 4, height), (279, 4, len(strip))]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + struct.pack("<H", len(tags)) + entries + bytes(4)

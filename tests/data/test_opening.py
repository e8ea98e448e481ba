"""Opening image files: what is read by its content, and what is refused with a word."""

import importlib.util
import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from semtransforms.data import opening
from semtransforms.data.opening import open_image
from semtransforms.data.sources import open_source

RGB = np.random.default_rng(0).integers(0, 256, (16, 12, 3), dtype=np.uint8)


def frames() -> list[Image.Image]:
    return [Image.fromarray(RGB), Image.fromarray(RGB[::-1].copy())]  # new: Pillow leaves settings of a format on them


def file(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    frames()[0].save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_a_moving_picture_is_refused(kind: str):
    """Its first picture alone would be protected and published, and nobody told."""
    moving = file(kind, save_all=True, append_images=frames()[1:])
    with pytest.raises(ValueError, match="moving, 2 pictures"):
        open_image(moving)
    assert open_image(file(kind)).size == (12, 16)


def test_a_file_of_several_views_is_a_photograph():
    """Phones write MPO files, with a second view or a depth map behind the photograph; and scanners TIFF pages."""
    for kind in ("MPO", "TIFF"):
        assert open_image(file(kind, save_all=True, append_images=frames()[1:])).size == (12, 16)


def test_what_is_no_image_says_why(tmp_path: Path):
    """Whoever reads only 'cannot identify image file' does not know what to do."""
    with pytest.raises(ValueError, match="empty, 0 bytes"):
        open_image(b"")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ValueError, match="empty, 0 bytes"):
        open_image(tmp_path / "empty.jpg")
    (tmp_path / "png.jpg").write_bytes(file("PNG"))
    assert np.array_equal(np.asarray(open_image(tmp_path / "png.jpg")), RGB)  # by its content


def test_no_other_program_is_started(monkeypatch: pytest.MonkeyPatch):
    """A photo.jpg that holds PostScript would be run by whatever Ghostscript is installed, as long as it likes."""
    data = file("EPS")
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(ValueError, match=r"EPS.*another program"):
        open_image(data)


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and then ends."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + checksum + bytes(4) + b"IDAT"


def test_a_huge_image_is_refused_before_it_is_decoded(recwarn: pytest.WarningsRecorder):
    """300 megapixels take the memory of a laptop; and Pillow warns of the 108 that a phone has, without need."""
    with pytest.raises(Image.DecompressionBombError, match=r"20000x15000 are 300\.0 megapixels.*179\.0.*--max-megapix"):
        open_image(png_header(20000, 15000))
    with pytest.raises(Image.DecompressionBombError, match=r"limit of 0\.1"):
        open_image(png_header(400, 400), 100_000)
    limit = Image.MAX_IMAGE_PIXELS
    assert open_image(png_header(12000, 9000)).size == (12000, 9000)
    assert open_image(png_header(20000, 15000), 300_000_000).size == (20000, 15000)
    assert limit == Image.MAX_IMAGE_PIXELS
    assert not [each for each in recwarn.list if issubclass(each.category, Image.DecompressionBombWarning)]


HEIC = struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"heic", 0, b"mif1", b"heic")  # the first box of an iPhone's photograph


def test_heic_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    """'No image of a known format' would be wrong: every iPhone writes it."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    opening._reads_heic.cache_clear()
    with pytest.raises(ValueError, match=r"HEIC.*pip install 'semtransforms\[heif\]'"):
        open_image(HEIC)
    opening._reads_heic.cache_clear()


@pytest.mark.skipif(importlib.util.find_spec("pillow_heif") is None, reason="the extra heif is not installed")
def test_heic_is_read_with_the_extra():
    """The photographs of an iPhone could not be protected."""
    import pillow_heif

    buffer = io.BytesIO()
    pillow_heif.from_pillow(frames()[0].resize((64, 64))).save(buffer, quality=100, chroma=444)
    found = np.asarray(open_image(buffer.getvalue()).convert("RGB")).astype(int)
    assert np.abs(found - np.asarray(frames()[0].resize((64, 64)))).mean() < 3


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
def test_avif_without_support_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    """A Pillow that was built without it knows AVIF no more than a text file."""
    data = file("AVIF")
    assert open_image(data).size == (12, 16)
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(ValueError, match=r"AVIF.*built without"):
        open_image(data)


def test_a_folder_is_read_to_its_last_image(tmp_path: Path):
    """Photographs with rarer suffixes would be left out, and thrown-away ones in hidden folders be published."""
    for name in ("a/1.jfif", "a/2.JPE", "a/3.heic", "a/.trash/old.jpg", "a/.hidden.jpg", "b/deep/4.png", "b/note.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file("JPEG"))
    source = open_source(str(tmp_path))
    assert list(source.names) == ["a/1", "a/2", "a/3", "b/deep/4"]
    assert source.other_files == (str(tmp_path / "b" / "note.txt"),)
    assert [label for _, label in (source[k] for k in range(4))] == [0, 0, 0, 1]

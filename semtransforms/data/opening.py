"""Opening image files: what is read, and what is refused before it fills the memory or loses pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, TypeAlias

from PIL import Image, features

from semtransforms.data.remote import RemotePath

# What an image is read from. All of it travels to other processes.
ImageFile: TypeAlias = "Path | RemotePath | bytes | Image.Image"

MOST_PIXELS = 178_956_970  # what Pillow refuses too; the memory for one such photograph is several GiB

_MOVING = ("GIF", "WEBP", "PNG", "AVIF")  # files with several pictures of which one is no sample; not MPO and HEIC
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")  # brands of ISO 23008-12
_AVIF = (b"avif", b"avis")
_PHOTOMETRIC, _SAMPLES, _SUBSAMPLING, _YCBCR = 262, 277, 530, 6  # of TIFF


def open_image(file: ImageFile, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """Open an image by its content, whatever its name says, without decoding its pixels.

    Args:
        file: a path, the bytes of a file, or an image that is open already.
        most_pixels: larger images are refused.

    Returns:
        The PIL image.

    Raises:
        OSError, ValueError, Image.DecompressionBombError: it is empty, no image, moving, larger than ``most_pixels``,
            or needs what is not installed (HEIC: the extra ``heif``).
    """
    if isinstance(file, Image.Image):
        return file
    opened = _opened(file)
    head = _head(opened)
    if not head:
        raise ValueError("the file is empty, 0 bytes")
    _prepare_for(head)
    with _no_limit_of_pillow():
        image = Image.open(opened)
    if image.format == "EPS":
        raise ValueError("it is EPS, which Pillow hands to another program (Ghostscript). Save it as PNG or JPEG")
    if image.width * image.height > most_pixels:
        raise Image.DecompressionBombError(
            f"{image.width}x{image.height} are {image.width * image.height / 1e6:.1f} megapixels, more than the limit "
            f"of {most_pixels / 1e6:.1f}. Shrink it, or lift the limit: semtransforms protect --max-megapixels"
        )
    if image.format in _MOVING and getattr(image, "is_animated", False):
        frames = getattr(image, "n_frames", 2)
        raise ValueError(f"it is moving, {frames} pictures in one file. Save the one that counts as a file of its own")
    return image


def load(image: Image.Image) -> None:
    """Decode an image that was opened, in place.

    Pillow 12 reads a TIFF of YCbCr that is not compressed as if a pixel had four bytes, and says that it is cut.

    Raises:
        OSError, ValueError and more: it does not decode.
    """
    tags = getattr(image, "tag_v2", {})
    tiles = getattr(image, "tile", [])
    plain = (tags.get(_PHOTOMETRIC), tags.get(_SAMPLES), tags.get(_SUBSAMPLING)) == (_YCBCR, 3, (1, 1))
    if plain and tiles and all(tile.codec_name == "raw" and tile.args[0] == "RGBX" for tile in tiles):
        image._mode = "YCbCr"
        image.tile = [tile._replace(args=("YCbCr", *tile.args[1:])) for tile in tiles]  # type: ignore[attr-defined]
    image.load()


def _opened(file: Path | RemotePath | bytes) -> Path | IO[bytes]:
    if isinstance(file, Path):
        return file  # which Pillow closes
    return io.BytesIO(file) if isinstance(file, bytes) else file.open()


def _head(file: Path | IO[bytes]) -> bytes:
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return opened.read(64)
    head = file.read(64)
    file.seek(0)
    return head


def _prepare_for(head: bytes) -> None:
    """See that Pillow can read a kind of file that it reads only with help."""
    if head[4:8] != b"ftyp":
        return
    brands = head[8 : int.from_bytes(head[:4], "big")]
    if any(brand in brands for brand in _HEIC) and not _reads_heic():
        raise ValueError("it is HEIC, which needs pillow-heif: pip install 'semtransforms[heif]'")
    if any(brand in brands for brand in _AVIF) and not features.check("avif"):
        raise ValueError("it is AVIF, and this Pillow was built without it: pip install --force-reinstall pillow")


@lru_cache(maxsize=1)
def _reads_heic() -> bool:
    try:
        from pillow_heif import register_heif_opener
    except ModuleNotFoundError:
        return False
    register_heif_opener()
    return True


@contextmanager
def _no_limit_of_pillow() -> Iterator[None]:
    """Pillow warns of photographs that cameras make, and its limit is lifted for the whole process only."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit

"""Images at the border: decoding, colour modes, labels."""

import io
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch import Tensor

from semtransforms.data.colour import to_srgb
from semtransforms.data.opening import load

_STRIP = 1 << 18  # pixels that are copied at a time
_WITH_ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")
# What PIL raises on bytes that are no image, on a truncated or damaged one, and on one that would fill the memory.
UNDECODABLE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    RuntimeError,  # of AVIF
)
LABEL_REMEDY = "Give every image a whole-number label, or leave unlabelled images out (torch.utils.data.Subset)."
# how an image is turned upright, by its EXIF orientation
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# one of these stands in a PNG that has an orientation
_ORIENTED = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")


class RGBImage(NamedTuple):
    """A decoded image: ``pixels`` uint8 (3, H, W) and ``alpha`` uint8 (1, H, W), or None when it is opaque."""

    pixels: Tensor
    alpha: Tensor | None


def rgb_array(image: Image.Image) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Convert a PIL image of any colour mode to 8-bit sRGB, upright.

    An ICC profile is applied. Without one grey is repeated over the channels and CMYK goes the way PIL takes it. A
    palette is looked up, 16 bits are scaled by 255/65535 and rounded (PIL itself would clip at 255), the EXIF
    orientation is applied.

    Args:
        image: a PIL image.

    Returns:
        uint8 (H, W, 3), and the alpha channel as uint8 (H, W) or None when the mode has no transparency.

    Raises:
        TypeError: the image is of mode F, whose range is not known.
        ValueError: the image is of mode I with values outside 0..65535.
    """
    return _arrays(_upright_srgb(image))


def _upright_srgb(image: Image.Image) -> Image.Image:
    """An image as its metadata says that it is seen; its colour mode may stay."""
    if type(image) is Image.Image and not image.info:  # only a file's image, or one with info, has more than pixels
        return image
    # first: of damaged pixels Pillow tells once, and reading a PNG's EXIF decodes them and would swallow it
    load(image)
    # not ImageOps.exif_transpose, which writes the EXIF anew and fails at one damaged field of it
    turn = _UPRIGHT.get(_orientation(image))
    return to_srgb(image if turn is None else image.transpose(turn))


def without_colour_key(image: Image.Image) -> Image.Image:
    """An image in memory whose transparent colour, of a file that it was read from, no longer counts.

    Pillow hands the colour on when a loader converts to RGB or grey, and three channels would come back as four.

    Args:
        image: of any mode; alpha and the transparency of a palette stay.
    """
    if "transparency" not in image.info or image.mode in ("P", *_WITH_ALPHA):
        return image
    image.load()  # PNG finds what lies behind its pixels only now
    kept = image.copy()
    kept.info.pop("transparency", None)
    return kept


def _is_plain(image: Image.Image) -> bool:
    """Whether an image is 8-bit RGB without transparency."""
    return image.mode == "RGB" and "transparency" not in image.info


def _arrays(image: Image.Image) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """What :func:`rgb_array` returns, of an upright image in sRGB."""
    if _is_plain(image):
        # half the time of np.asarray
        return np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, 3), None
    if image.mode == "F":
        raise TypeError(
            "image is of mode F (float), whose range is not known. Scale it to 0..255 and call "
            "image.convert('L') before protecting it."
        )
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bit(image)
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"))
        return np.ascontiguousarray(rgba[..., :3]), np.ascontiguousarray(rgba[..., 3])
    return np.asarray(image.convert("RGB")), None


def size_in_header(data: bytes) -> tuple[int, int] | None:
    """Read the size of the upright image in a file from its header, and see that its end is there.

    Args:
        data: the whole file.

    Returns:
        Height and width as :func:`rgb_array` gives them; None where only decoding tells: a file of another kind than
        JPEG, PNG and WebP, a cut one, a PNG with a wrong checksum or with an orientation.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            if image.format in ("JPEG", "MPO"):
                whole = data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")  # the end comes after the last scan
            elif image.format == "WEBP":
                whole = len(data) >= 8 + int.from_bytes(data[4:8], "little")
            elif image.format == "PNG":
                image.verify()
                # the orientation may come after the pixels: Pillow decodes before it says which
                return None if any(word in data for word in _ORIENTED) else (height, width)
            else:
                return None
            turned = _orientation(image) in range(5, 9)
    except (*UNDECODABLE, IndexError):  # the last one from a PNG without pixels
        return None
    if not whole:
        return None
    return (width, height) if turned else (height, width)


def _orientation(image: Image.Image) -> int:
    try:
        if (said := image.getexif().get(ExifTags.Base.Orientation)) is not None:
            return int(said)
    except UNDECODABLE:  # a damaged EXIF block does not make the pixels unreadable
        pass
    return _orientation_alone(image.info.get("exif"))


def _orientation_alone(exif: Any) -> int:
    """The orientation in EXIF that is damaged before it, where Pillow stops reading and other programs do not."""
    tiff = exif.removeprefix(b"Exif\0\0") if isinstance(exif, bytes) else b""
    if tiff[:2] not in (b"II", b"MM"):
        return 1
    order = "<" if tiff[:2] == b"II" else ">"
    with suppress(struct.error):  # behind the end
        start = struct.unpack_from(f"{order}I", tiff, 4)[0]
        for number in range(struct.unpack_from(f"{order}H", tiff, start)[0]):
            tag, kind, count, value = struct.unpack_from(f"{order}HHIH", tiff, start + 2 + 12 * number)
            if (tag, kind, count) == (ExifTags.Base.Orientation, 3, 1):  # one number of 16 bits
                return int(value)
    return 1


def _from_16_bit(image: Image.Image) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    values = np.asarray(image).astype(np.int64)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise ValueError(
            f"image of mode {image.mode} has values {values.min()}..{values.max()}, expected 0..65535. "
            "Scale it to 16 or 8 bits before protecting it."
        )
    grey = ((values + 128) // 257).astype(np.uint8)  # 65535 / 255 = 257
    key = image.info.get("transparency")
    alpha = None if key is None else np.where(values == key, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2), alpha


def to_rgb(image: Image.Image) -> RGBImage:
    """Decode a PIL image of any colour mode to upright 8-bit RGB, keeping its alpha channel.

    Args:
        image: a PIL image (1, L, LA, P, PA, RGB, RGBA, CMYK, YCbCr, HSV, LAB, I;16 or I).

    Returns:
        The pixels, uint8 (3, H, W), and the alpha channel, uint8 (1, H, W) or None.

    Raises:
        TypeError: the image is of mode F, whose range is not known.
        ValueError: the image is of mode I with values outside 0..65535.
    """
    image = _upright_srgb(image)
    if _is_plain(image):
        return RGBImage(_planes(image), None)
    pixels, alpha = _arrays(image)
    chw = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    return RGBImage(chw, None if alpha is None else torch.from_numpy(alpha[None].copy()))


def _planes(image: Image.Image) -> Tensor:
    """The pixels of an RGB image, uint8 (3, H, W), a strip of rows at a time: PIL's own copy of all is large."""
    planes = np.empty((3, image.height, image.width), np.uint8)
    count = max(1, _STRIP // image.width)
    for top in range(0, image.height, count):
        strip = image.crop((0, top, image.width, min(top + count, image.height)))
        planes[:, top : top + count] = _arrays(strip)[0].transpose(2, 0, 1)
    return torch.from_numpy(planes)


def as_pixels(image: Any) -> Tensor:
    """Bring an image of any accepted type to uint8 RGB pixels.

    Args:
        image: PIL image, uint8 tensor (3, H, W), (1, H, W) or (H, W), ``tv_tensors.Image``, or uint8 array
            (H, W, C) or (H, W). Alpha is ignored.

    Returns:
        uint8 (3, H, W), a plain tensor on the CPU that may share memory with a tensor given.

    Raises:
        TypeError: the image is float, or of another type.
        ValueError: the shape is none of the above.
    """
    if isinstance(image, Image.Image):
        return to_rgb(image).pixels
    if not isinstance(image, (Tensor, np.ndarray)):
        raise TypeError(f"image must be a PIL image, a uint8 tensor or a uint8 array, got {type(image).__name__}.")
    if image.dtype not in (torch.uint8, np.uint8):
        raise TypeError(
            f"image must be uint8, got {image.dtype}: noise is exact in the bytes a user stores. Put the "
            "protection before the conversion to float (ToTensor, ToDtype, Normalize), or pass the raw "
            "images."
        )
    if isinstance(image, np.ndarray):
        array = image[:, :, None] if image.ndim == 2 else image
        if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
            raise ValueError(f"image array must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {image.shape}.")
        pixels = torch.from_numpy(array[..., :3].transpose(2, 0, 1).copy())
    else:
        pixels = image.detach().as_subclass(Tensor).cpu()
        pixels = pixels[None] if pixels.ndim == 2 else pixels
        if pixels.ndim != 3 or pixels.shape[0] not in (1, 3):
            raise ValueError(
                f"image tensor must be (3, H, W), (1, H, W) or (H, W), got {tuple(image.shape)}. Convert "
                "the image to RGB, channels first."
            )
    if 0 in pixels.shape:
        raise ValueError(f"image has no pixels: its shape is {tuple(image.shape)}.")
    return pixels.expand(3, -1, -1).contiguous()


def to_pil(pixels: Tensor, alpha: Tensor | None = None) -> Image.Image:
    """Build a PIL image that carries nothing but its pixels: no metadata, no file format.

    Args:
        pixels: uint8 (3, H, W).
        alpha: uint8 (1, H, W), or None.

    Returns:
        A PIL image of mode RGB, or RGBA with ``alpha``.
    """
    # PIL joins planes in a twentieth of the time in which an array of colours is made and read
    planes = [Image.fromarray(plane) for part in (pixels, alpha) if part is not None for plane in part.cpu().numpy()]
    return Image.merge("RGB" if alpha is None else "RGBA", planes)


def encode_png(pixels: Tensor, alpha: Tensor | None = None) -> bytes:
    """Encode pixels as a PNG file without metadata; decoding gives the same bytes back.

    Args:
        pixels: uint8 (3, H, W).
        alpha: uint8 (1, H, W), or None.

    Returns:
        The bytes of the file.
    """
    buffer = io.BytesIO()
    # Runs alone: of noisy photographs the files get 4 to 9 % larger than by Pillow's default, in a quarter of the time.
    to_pil(pixels, alpha).save(buffer, format="PNG", compress_type=zlib.Z_RLE)
    return buffer.getvalue()


def check_labels(labels: Any, num_classes: int | None, *, place: str = "", rows: Sequence[int] | None = None) -> Tensor:
    """Check that every label is a whole number in 0..C-1.

    Args:
        labels: N labels: a tensor, an array, or a sequence of int.
        num_classes: C, or None where it is not known.
        place: what messages begin with, such as ``"dataset: "``.
        rows: N numbers that messages call the images by; default: their positions.

    Returns:
        int64 (N,), on the CPU.

    Raises:
        TypeError: a label is not a whole number.
        ValueError: labels are not one-dimensional, a label is missing (None or -1), or outside 0..C-1.
    """

    def index_of(position: int) -> int:
        return position if rows is None else int(rows[position])

    if isinstance(labels, Tensor):
        array = labels.detach().cpu().numpy() if labels.dtype != torch.bfloat16 else labels.float().cpu().numpy()
    elif isinstance(labels, np.ndarray):
        array = labels
    else:
        values = [value.item() if isinstance(value, Tensor) and value.ndim == 0 else value for value in labels]
        several = next((position for position, value in enumerate(values) if np.ndim(value)), None)
        if several is not None:
            raise ValueError(
                f"{place}labels must be one whole number per image, got {values[several]!r} at index "
                f"{index_of(several)}. {LABEL_REMEDY}"
            )
        array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(
            f"{place}labels must be one whole number per image, got an array of shape {array.shape}. {LABEL_REMEDY}"
        )
    if array.size == 0:
        return torch.zeros(0, dtype=torch.int64)
    if array.dtype.kind not in "iu":
        position, value = next(
            ((i, v) for i, v in enumerate(labels) if isinstance(v, bool) or not isinstance(v, (int, np.integer))),
            (0, array[0]),
        )
        if value is None:
            raise ValueError(f"{place}the label at index {index_of(position)} is missing, got None. {LABEL_REMEDY}")
        raise TypeError(
            f"{place}labels must be whole numbers, got {value!r} ({type(value).__name__}) at index "
            f"{index_of(position)}. {LABEL_REMEDY}"
        )
    low, high = int(array.argmin()), int(array.argmax())
    if array[low] < 0:
        raise ValueError(f"{place}the label at index {index_of(low)} is missing, got {array[low]}. {LABEL_REMEDY}")
    if num_classes is not None and array[high] >= num_classes:
        raise ValueError(
            f"{place}labels must be in 0..{num_classes - 1}, got {array[high]} at index {index_of(high)}. Fit a "
            "generator on this data (fit_generator), or pass label_map={label: generator's label}."
        )
    return torch.from_numpy(array.astype(np.int64))

"""Images at the border: decoding, colour modes, labels, and the raw samples behind a dataset's transforms."""

import copy
import io
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from torch import Tensor
from torchvision.datasets.vision import StandardTransform

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
)


class RGBImage(NamedTuple):
    """A decoded image: ``pixels`` uint8 (3, H, W) and ``alpha`` uint8 (1, H, W), or None when it is opaque."""

    pixels: Tensor
    alpha: Tensor | None


def rgb_array(image: Image.Image) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Convert a PIL image of any colour mode to 8-bit RGB, upright.

    Grey is repeated over the channels, a palette is looked up, CMYK goes the way PIL takes it, 16 bits are
    scaled by 255/65535 and rounded (PIL itself would clip at 255), the EXIF orientation is applied.

    Args:
        image: a PIL image.

    Returns:
        uint8 (H, W, 3), and the alpha channel as uint8 (H, W) or None when the mode has no transparency.

    Raises:
        TypeError: the image is of mode F, whose range is not known.
        ValueError: the image is of mode I with values outside 0..65535.
    """
    # only a file's image, or one with info, has an orientation; transposing copies even where there is none
    if (type(image) is not Image.Image or image.info) and _orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "RGB" and "transparency" not in image.info:
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


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except UNDECODABLE:  # a damaged EXIF block does not make the pixels unreadable
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
    pixels, alpha = rgb_array(image)
    chw = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    return RGBImage(chw, None if alpha is None else torch.from_numpy(alpha[None].copy()))


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
    planes = pixels if alpha is None else torch.cat([pixels, alpha])
    return Image.fromarray(planes.cpu().permute(1, 2, 0).contiguous().numpy())


def encode_png(pixels: Tensor, alpha: Tensor | None = None) -> bytes:
    """Encode pixels as a PNG file without metadata; decoding gives the same bytes back.

    Args:
        pixels: uint8 (3, H, W).
        alpha: uint8 (1, H, W), or None.

    Returns:
        The bytes of the file.
    """
    buffer = io.BytesIO()
    to_pil(pixels, alpha).save(buffer, format="PNG")
    return buffer.getvalue()


def check_labels(labels: Any, num_classes: int | None) -> Tensor:
    """Check that every label is a whole number in 0..C-1.

    Args:
        labels: N labels: a tensor, an array, or a sequence of int.
        num_classes: C, or None where it is not known.

    Returns:
        int64 (N,), on the CPU.

    Raises:
        TypeError: a label is not a whole number.
        ValueError: labels are not one-dimensional, a label is missing (None or -1), or outside 0..C-1.
    """
    remedy = "Give every image a whole-number label, or leave unlabelled images out (torch.utils.data.Subset)."
    if isinstance(labels, Tensor):
        array = labels.detach().cpu().numpy() if labels.dtype != torch.bfloat16 else labels.float().cpu().numpy()
    else:
        array = np.asarray(
            [value.item() if isinstance(value, Tensor) and value.ndim == 0 else value for value in labels]
        )
    if array.ndim != 1:
        raise ValueError(f"labels must be one whole number per image, got an array of shape {array.shape}. {remedy}")
    if array.size == 0:
        return torch.zeros(0, dtype=torch.int64)
    if array.dtype.kind not in "iu":
        index, value = next(
            ((i, v) for i, v in enumerate(labels) if isinstance(v, bool) or not isinstance(v, (int, np.integer))),
            (0, array[0]),
        )
        if value is None:
            raise ValueError(f"labels: the label at index {index} is missing (None). {remedy}")
        raise TypeError(
            f"labels must be whole numbers, got {value!r} ({type(value).__name__}) at index {index}. {remedy}"
        )
    index = int(array.argmin())
    if array[index] < 0:
        raise ValueError(f"labels: the label at index {index} is {array[index]}, which means missing. {remedy}")
    index = int(array.argmax())
    if num_classes is not None and array[index] >= num_classes:
        raise ValueError(
            f"labels must be in 0..{num_classes - 1}, got {array[index]} at index {index}. Fit a "
            "generator on this data (fit_generator), or pass label_map={label: generator's label}."
        )
    return torch.from_numpy(array.astype(np.int64))


def _same(value: Any) -> Any:
    return value


def _same_pair(image: Any, label: Any) -> tuple[Any, Any]:
    return image, label


# What stands where a transform was: many datasets call theirs without asking for None. Functions of the module, so
# that the datasets travel to spawned workers.
_NOTHING: dict[str, Callable[..., Any]] = {"transform": _same, "target_transform": _same, "transforms": _same_pair}


def take_off_transforms(dataset: Any) -> tuple[Any, Callable[[Any, Any], tuple[Any, Any]] | None]:
    """Take ``transform``, ``target_transform`` and ``transforms`` off a copy of a dataset and of what it wraps.

    Args:
        dataset: a map-style dataset, or a chain of them (``Subset`` of ``Subset`` of ``CIFAR10``), never changed.

    Returns:
        The copy, which gives raw samples, and the function ``(image, label) -> (image, label)`` that does what was
        taken off, inner transforms first; None when there was nothing.

    Raises:
        TypeError: the dataset joins datasets (``ConcatDataset``) that have transforms of their own.
    """
    if any(take_off_transforms(part)[1] for part in getattr(dataset, "datasets", None) or ()):
        raise TypeError(
            f"dataset is a {type(dataset).__name__} of datasets with transforms of their own. Protect each "
            "part, then join them: ConcatDataset([ProtectedDataset(a), ProtectedDataset(b)])."
        )
    raw, steps = dataset, []
    if hasattr(getattr(dataset, "dataset", None), "__getitem__"):
        inner, step = take_off_transforms(dataset.dataset)
        if step:
            raw = copy.copy(dataset)
            raw.dataset = inner
            steps.append(step)
    found = {
        name: value
        for name in ("transform", "target_transform", "transforms")
        if callable(value := getattr(dataset, name, None)) and value not in _NOTHING.values()
    }
    if found:
        raw = copy.copy(dataset) if raw is dataset else raw
        for name in found:
            setattr(raw, name, _NOTHING[name])
        # torchvision keeps transform and target_transform a second time as a StandardTransform
        if isinstance(found.get("transforms"), StandardTransform) and hasattr(dataset, "transform"):
            del found["transforms"]
        if found:
            steps.append(_Transforms(**found))
    if not steps:
        return raw, None
    return raw, steps[0] if len(steps) == 1 else _InTurn(steps)


@dataclass(frozen=True)
class _Transforms:
    """What torchvision does with a sample: a joint transform, or one for the image and one for the label."""

    transform: Callable[[Any], Any] | None = None
    target_transform: Callable[[Any], Any] | None = None
    transforms: Callable[[Any, Any], tuple[Any, Any]] | None = None

    def __call__(self, image: Any, label: Any) -> tuple[Any, Any]:
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            label = self.target_transform(label)
        return (image, label) if self.transforms is None else self.transforms(image, label)


@dataclass(frozen=True)
class _InTurn:
    steps: Sequence[Callable[[Any, Any], tuple[Any, Any]]]

    def __call__(self, image: Any, label: Any) -> tuple[Any, Any]:
        for step in self.steps:
            image, label = step(image, label)
        return image, label


def read_sample(dataset: Any, index: int) -> tuple[Any, Any]:
    """Read one (image, label) from a map-style dataset, naming the sample that does not decode.

    Args:
        dataset: gives ``(image, label)`` tuples, or rows ``{"image": ..., "label": ...}``.
        index: position in the dataset.

    Returns:
        The image and the label as the dataset gives them.

    Raises:
        ValueError: the image does not decode.
        TypeError: the sample is neither a pair nor such a row.
    """
    try:
        sample = dataset[index]
        pair = _pair(sample)
        if pair is not None and isinstance(pair[0], Image.Image):
            pair[0].load()  # PIL decodes late; a truncated file must fail here, where its index is known
    except UNDECODABLE as error:
        raise ValueError(
            f"dataset: the image at index {index}{_path_of(dataset, index)} does not decode ({error}). "
            "Repair or remove the file, or leave it out (torch.utils.data.Subset)."
        ) from error
    if pair is None:
        raise TypeError(
            f"dataset must give (image, label), or rows with columns 'image' and 'label', got "
            f"{_describe(sample)} at index {index}. For other columns use "
            "dataset.map(SEMProtect(...).map_fn(image_column, label_column), batched=True)."
        )
    return pair


def _pair(sample: Any) -> tuple[Any, Any] | None:
    """The image and the label of a sample, or None where it is neither a pair nor such a row."""
    if isinstance(sample, (tuple, list)) and len(sample) == 2:
        return sample[0], sample[1]
    if isinstance(sample, Mapping) and "image" in sample and "label" in sample:
        return sample["image"], sample["label"]
    return None


def read_samples(dataset: Any) -> Iterator[tuple[Tensor, int]]:
    """Read the raw samples of a map-style dataset one by one, without its transforms.

    Args:
        dataset: any map-style dataset of (PIL image or uint8 tensor, int label), or of such rows.

    Yields:
        Pixels, uint8 (3, H, W), and the label.

    Raises:
        ValueError: an image does not decode, or a label is missing; the message names the index.
        TypeError: an image is float or a label is not a whole number; the message names the index.
    """
    raw, _ = take_off_transforms(dataset)
    for index in range(len(raw)):
        image, label = read_sample(raw, index)
        yield sample_pixels(image, index), sample_label(label, index)


def sample_pixels(image: Any, index: int) -> Tensor:
    """``as_pixels`` whose errors name the sample's index."""
    try:
        return as_pixels(image)
    except (TypeError, ValueError) as error:
        raise type(error)(f"dataset: sample {index}: {error}") from error


def sample_label(label: Any, index: int) -> int:
    """A sample's label as an int; the error names the sample's index."""
    if isinstance(label, Tensor) and label.numel() == 1:
        label = label.item()
    whole = isinstance(label, (int, np.integer)) and not isinstance(label, bool)
    if whole and label >= 0:
        return int(label)
    remedy = "Give every image a whole-number label, or leave unlabelled images out (torch.utils.data.Subset)."
    if label is None or whole:
        raise ValueError(f"dataset: the label at index {index} is missing, got {label!r}. {remedy}")
    raise TypeError(f"dataset: the label at index {index} must be a whole number, got {label!r}. {remedy}")


def _describe(sample: Any) -> str:
    if isinstance(sample, Mapping):
        return f"a row with columns {sorted(map(str, sample))}"
    size = f" of {len(sample)}" if isinstance(sample, (tuple, list)) else ""
    return f"a {type(sample).__name__}{size}"


def _path_of(dataset: Any, index: int) -> str:
    """The file behind a sample, where the dataset is a folder of files (or a subset of one)."""
    while hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        index, dataset = dataset.indices[index], dataset.dataset
    samples = getattr(dataset, "samples", None)
    return f" ({samples[index][0]})" if samples else ""

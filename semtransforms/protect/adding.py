"""Adding noise to one image of any type, so that its type stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import tv_tensors

from semtransforms.data.images import as_pixels, rgb_array, without_colour_key
from semtransforms.data.raw import read_sample, sample_label, sample_pixels
from semtransforms.data.survey import check_same
from semtransforms.views.resize import NoiseScale


class MadeNoise(NamedTuple):
    """Noise as it was made, int8 (h, w, 3), and ``checksum_of_image`` of its image where that is known."""

    levels: NDArray[np.int8]
    image: int | None


# What tells an image that was protected here, as long as it is in memory: PIL mostly hands it on to what is made of an
# image, and no file format stores it; a tensor has it until anything is done to it.
_MARK = "semtransforms_protected"
TWICE = "twice the noise would leave the radius"


def marked(image: Any) -> Any:
    """An image, which knows from now on that it is protected; arrays have no place for it."""
    if isinstance(image, Image.Image):
        image.info[_MARK] = True
    elif isinstance(image, torch.Tensor):
        setattr(image, _MARK, True)
    return image


def is_marked(image: Any) -> bool:
    """Whether an image is known to be protected; ``False`` where nothing is known."""
    return bool(getattr(image, _MARK, False) or (isinstance(image, Image.Image) and image.info.get(_MARK)))


def read_clean(dataset: Any, index: int) -> tuple[torch.Tensor, int]:
    """As :func:`~semtransforms.data.raw.read_pixels`, for an image that is to be protected.

    Raises:
        ValueError: it is known to be protected.
    """
    image, label = read_sample(dataset, index)
    return clean_pixels(image, index), sample_label(label, index)


def clean_pixels(image: Any, index: int) -> torch.Tensor:
    """The pixels of an image that is to be protected, uint8 (3, H, W).

    Raises:
        ValueError: it is known to be protected.
    """
    if is_marked(image):
        raise ValueError(f"dataset: the image at index {index} is protected already: {TWICE}. Protect the clean one.")
    return sample_pixels(image, index)


def saturated(pixels: NDArray[np.uint8], noise: NDArray[np.int8]) -> NDArray[np.uint8]:
    """uint8 + int8 in 0..255; the sum wraps around only where the image is not the one the noise was made for."""
    total = np.add(pixels, noise.view(np.uint8), order="C")
    if ((total > pixels) ^ (noise > 0)).any():  # not !=, which takes 30 times as long for booleans
        return np.clip(np.add(pixels, noise, dtype=np.int16, order="C"), 0, 255).astype(np.uint8)
    return total


def with_noise(image: Any, made: MadeNoise, scale: NoiseScale, index: int) -> Any:
    """Add noise to a raw image, keeping the image's type.

    Args:
        image: PIL image, tensor or array.
        made: its noise.
        scale: how it comes to the image's size.
        index: of the image, for the message.

    Raises:
        ValueError: the noise was made for another image.
    """
    if isinstance(image, Image.Image):
        pixels, alpha = rgb_array(without_colour_key(image))
        return marked(as_pil(saturated(pixels, full_noise(made, pixels, scale, index)), alpha))
    planes = as_pixels(image).numpy()
    noise = full_noise(made, planes.transpose(1, 2, 0), scale, index)
    return marked(_like(image, saturated(planes, noise.transpose(2, 0, 1))))


def full_noise(made: MadeNoise, pixels: NDArray[np.uint8], scale: NoiseScale, index: int) -> NDArray[np.int8]:
    """Noise (H, W, 3) at the size of its image, uint8 (H, W, 3); arguments as for :func:`with_noise`."""
    levels = made.levels
    check_shape(pixels.shape[:2], levels.shape[:2], scale, index)
    check_same(made.image, pixels, index)
    if scale.leaves(levels.shape, pixels.shape):
        return levels
    planes = (torch.from_numpy(np.array(each.transpose(2, 0, 1))) for each in (levels, pixels))
    return scale.enlarge(*planes).permute(1, 2, 0).numpy()


def as_rgb(image: Any) -> Any:
    """An unprotected image in the form its protected neighbours have."""
    if isinstance(image, Image.Image):
        return as_pil(*rgb_array(without_colour_key(image)))
    return _like(image, as_pixels(image).numpy())


def as_pil(pixels: NDArray[np.uint8], alpha: NDArray[np.uint8] | None) -> Image.Image:
    height, width = pixels.shape[:2]
    image = Image.frombytes("RGB", (width, height), np.ascontiguousarray(pixels))  # half the time of fromarray
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    return image


def _like(image: Any, pixels: NDArray[np.uint8]) -> Any:
    if isinstance(image, np.ndarray):
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))
    tensor = torch.from_numpy(pixels)
    return tv_tensors.wrap(tensor, like=image) if isinstance(image, tv_tensors.TVTensor) else tensor


def check_shape(image: Sequence[int], made: Sequence[int], scale: NoiseScale, index: int) -> None:
    """See that noise was made for an image of this size.

    Args:
        image: its height and width.
        made: height and width of the noise, as it was made.
        scale: at which size that of the image would be made.
        index: of the image, for the message.

    Raises:
        ValueError: it was made for another one.
    """
    height, width = scale.made_at(*image)
    if (height, width) != tuple(made):
        raise ValueError(
            f"dataset: the image at index {index} is {image[0]} x {image[1]}, its noise was made at {made[0]} x "
            f"{made[1]} and not at {height} x {width}. The dataset changed: construct the ProtectedDataset again."
        )

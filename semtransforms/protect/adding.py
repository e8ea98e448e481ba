"""Adding noise to one image of any type, so that its type stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import tv_tensors

from semtransforms.data.images import as_pixels, rgb_array


def saturated(pixels: NDArray[np.uint8], noise: NDArray[np.int8]) -> NDArray[np.uint8]:
    """uint8 + int8 in 0..255; the sum wraps around only where the image is not the one the noise was made for."""
    total = np.add(pixels, noise.view(np.uint8), order="C")
    if ((total > pixels) ^ (noise > 0)).any():  # not !=, which takes 30 times as long for booleans
        return np.clip(np.add(pixels, noise, dtype=np.int16, order="C"), 0, 255).astype(np.uint8)
    return total


def with_noise(image: Any, noise: NDArray[np.int8], index: int) -> Any:
    """Add noise (H, W, 3) to a raw image, keeping the image's type."""
    if isinstance(image, Image.Image):
        pixels, alpha = rgb_array(image)
        check_shape(pixels.shape, noise.shape, index)
        return as_pil(saturated(pixels, noise), alpha)
    pixels = as_pixels(image).numpy()
    check_shape((*pixels.shape[1:], 3), noise.shape, index)
    return _like(image, saturated(pixels, noise.transpose(2, 0, 1)))


def as_rgb(image: Any) -> Any:
    """An unprotected image in the form its protected neighbours have."""
    if isinstance(image, Image.Image):
        return as_pil(*rgb_array(image))
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


def check_shape(found: tuple[int, ...], expected: tuple[int, ...], index: int) -> None:
    """See that an image has the size that its noise was made for.

    Args:
        found, expected: begin with height and width.
        index: of the image, for the message.

    Raises:
        ValueError: it has another one.
    """
    if found != expected:
        raise ValueError(
            f"dataset: the image at index {index} is {found[0]} x {found[1]}, its noise was made for "
            f"{expected[0]} x {expected[1]}. The dataset changed: construct the ProtectedDataset again."
        )

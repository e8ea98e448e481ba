"""A labelled data set of one image size in memory, checked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import center_crop, resize

from semtransforms.core.covering import covering
from semtransforms.data.images import check_labels
from semtransforms.data.raw import class_names, read_samples

FEW = 16  # images that tell whether a data set has one size, most of the time


@dataclass(frozen=True)
class Labelled:
    """A labelled data set in memory.

    Args:
        images: uint8 (N, 3, H, W).
        labels: int64 (N,).
        classes: label names, where known.
        clean: uint8 (N, 3, H, W), the owner's images in the same order, where ``images`` are a published copy of them
            and a trainer has some; ``None`` where they have none.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...] | None = None
    clean: Tensor | None = None

    def sha256(self) -> str:
        """Hex digest of the images and labels: two data sets that agree in it are the same."""
        digest = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        # what a network gives may lie in memory with the channels last
        digest.update(self.images.cpu().contiguous().numpy())
        digest.update(self.labels.cpu().numpy())
        return digest.hexdigest()


def load_labelled(
    dataset: Any,
    num_classes: int | None = None,
    image_size: tuple[int, int] | None = None,
    *,
    exact: bool = False,
    to_one_size: Callable[[Tensor], Tensor] | None = None,
) -> Labelled:
    """Bring a labelled data set into memory, checked.

    Args:
        dataset: as for :func:`fit_generator`.
        num_classes: C, where it is fixed beforehand.
        image_size: height and width to resize (the shorter side) and centre-crop to; ``None`` leaves images alone.
        exact: an image that would be resized is an error: the noise will be for these images and no others.
        to_one_size: brings images of mixed sizes to one, uint8 (3, H, W) to uint8 (3, h, w); not called where all have
            one size. ``None`` refuses mixed sizes.

    Returns:
        Its images, labels and label names.

    Raises:
        TypeError: images are not uint8, or labels are not whole numbers.
        ValueError: no images, images of several sizes, labels outside 0..C-1, fewer than two classes; ``exact``, and
            images to be resized.
    """
    labels: Any
    classes = class_names(dataset)
    if isinstance(dataset, Labelled):
        images, labels = resized(dataset.images, image_size, exact), dataset.labels
    elif is_pair(dataset):
        images, labels = dataset
        images = resized(images, image_size, exact)
    else:
        images, labels = _read_all(dataset, image_size, exact, to_one_size)
    labels = checked_labels(labels, len(images), classes, num_classes)
    if classes is not None and num_classes is not None and len(classes) != num_classes:
        classes = None
    return Labelled(images.contiguous(), labels, classes)


def is_pair(dataset: Any) -> bool:
    """Whether a data set is a pair of tensors: images, uint8 (N, 3, H, W), and labels.

    Raises:
        TypeError: it is one of another form.
    """
    if not (isinstance(dataset, Sequence) and len(dataset) == 2 and all(isinstance(part, Tensor) for part in dataset)):
        return False
    images = dataset[0]
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise TypeError(f"images must be uint8 (N, 3, H, W), got {images.dtype} {tuple(images.shape)}")
    return True


def checked_labels(labels: Any, count: int, classes: tuple[str, ...] | None, num_classes: int | None) -> Tensor:
    """The labels of a data set.

    Args:
        labels: N whole numbers.
        count: N, the images.
        classes: label names, where known.
        num_classes: C, where it is fixed beforehand.

    Returns:
        int64 (N,).

    Raises:
        TypeError: they are not whole numbers.
        ValueError: no images, another number of labels than of images, labels outside 0..C-1, fewer than two classes.
    """
    if count == 0:
        raise ValueError("dataset is empty: there is nothing to fit on")
    if len(labels) != count:
        raise ValueError(f"labels must have one entry per image: {len(labels)} labels for {count} images")
    known = num_classes or (len(classes) if classes else None)
    checked = check_labels(labels, known)
    if (known or int(checked.max()) + 1) == 1:
        only = repr(classes[0]) if classes else "0"
        raise ValueError(f"labels must name at least two classes, got only {only}: one class leaves nothing to learn")
    return checked


def _read_all(
    dataset: Any, image_size: tuple[int, int] | None, exact: bool, to_one_size: Callable[[Tensor], Tensor] | None
) -> tuple[Tensor, Any]:
    """All samples of a map-style dataset, decoded one at a time: images (N, 3, H, W) and labels."""
    # asked of a few first: photographs of mixed sizes would else lie in memory at full size until two differ
    few = range(0, len(dataset), -(-len(dataset) // FEW) or 1) if to_one_size and image_size is None else ()
    mixed = len({image.shape for image, _ in read_samples(dataset, few)}) > 1
    pixels: list[Tensor] = []
    labels: list[int] = []
    for index, (image, label) in enumerate(read_samples(dataset)):
        image = resized(image, image_size, exact)
        if pixels and not mixed and image.shape != pixels[0].shape:
            if to_one_size is None:
                raise ValueError(
                    f"images must have one size, but index 0 is {tuple(pixels[0].shape[1:])}, index {index} is "
                    f"{tuple(image.shape[1:])}. Set image_size=(height, width) (--size on the command line) to resize "
                    "and crop them; a fitted generator protects images of any size."
                )
            mixed, pixels = True, [to_one_size(each) for each in pixels]
        pixels.append(to_one_size(image) if mixed and to_one_size else image)
        labels.append(label)
    return torch.stack(pixels) if pixels else torch.zeros(0, 3, 1, 1, dtype=torch.uint8), labels


def resized(images: Tensor, size: tuple[int, int] | None, exact: bool = False) -> Tensor:
    """Resize images until they cover a size, and crop their middle, as torchvision's ``Resize`` and ``CenterCrop`` do.

    Args:
        images: uint8 (..., 3, H, W).
        size: height and width they get; ``None`` leaves them alone.
        exact: see :func:`load_labelled`.

    Returns:
        uint8 (..., 3, height, width).

    Raises:
        ValueError: ``exact``, and they have another size.
    """
    if size is None or images.shape[-2:] == size:
        return images
    if exact:
        raise ValueError(
            f"image_size={size} would resize images of {tuple(images.shape[-2:])}, and this method's noise is for "
            "exactly the images it was fitted on: none of yours would be found. Resize the data set itself, fit and "
            "protect that, and leave image_size (--size) out."
        )
    whole = resize(images, covering(images.shape[-2:], size), antialias=True)
    cropped: Tensor = center_crop(whole, list(size))
    return cropped.contiguous()  # a crop is a view, whose bytes cannot be digested

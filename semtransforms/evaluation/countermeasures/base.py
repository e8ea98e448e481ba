"""What a trainer does about the noise: the face of every countermeasure, and how several are applied in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from semtransforms.data.loading import Labelled


class Countermeasure:
    """Something a trainer does about the noise; a subclass overrides what it does, the rest is the identity.

    Attributes:
        name: what records and files call it, without ``+``.
        acts_on: ``"stored"``: once, on what was published; ``"batch"``: on every training batch, after the trainer's
            own augmentation.
        before_resize: whether it acts on the published image itself where the trainer resizes it, image by image.
            Others that act on stored images then act on what the trainer cut out and resized: at their size.
    """

    name: str
    acts_on: ClassVar[Literal["stored", "batch"]]
    before_resize: ClassVar[bool] = False

    def check(self, labels: Tensor) -> None:
        """See, before any training, that it does for a training set.

        Args:
            labels: int64 (N,), all of them.

        Raises:
            ValueError: it does not.
        """
        return

    def on_stored(self, data: Labelled, *, seed: int) -> Labelled:
        """The training set it makes of what was published; ``data`` is not written to.

        Args:
            data: what the trainer holds.
            seed: of its draws.
        """
        return data

    def at_test(self, images: Tensor) -> Tensor:
        """The same for test images, where it is a fixed map of one image.

        Args:
            images: uint8 (N, 3, H, W), not written to.

        Returns:
            uint8 (N, 3, H, W); the same tensor where there is nothing to do.
        """
        return images

    def on_batch(self, images: Tensor, targets: Tensor, *, keys: Tensor, network: nn.Module) -> tuple[Tensor, Tensor]:
        """The batch to train on in place of this one, which is not written to.

        Args:
            images: float32 (B, 3, H, W) in [0, 1].
            targets: float32 (B, C), rows sum to 1.
            keys: int64 (B,), one per image and step, on the same device: all randomness comes from them.
            network: what is being trained; its mode is left as it is.

        Returns:
            Images and targets of the same shapes.
        """
        return images, targets


def apply_stored(countermeasures: Sequence[Countermeasure], data: Labelled, *, seed: int) -> Labelled:
    """Apply those that act on stored images, in order.

    Args:
        countermeasures: of both kinds.
        data: what the trainer holds.
        seed: of their draws.

    Returns:
        What they train on.

    Raises:
        ValueError: one changes the size of the images or leaves them without one label each, or needs the owner's
            clean images where there are none.
    """
    size = data.images.shape[1:]
    _check_set(data, size, "data")
    for each in countermeasures:
        if each.acts_on == "stored":
            data = each.on_stored(data, seed=seed)
            _check_set(data, size, f"countermeasure {each.name!r}")
    return data


def apply_before_resize(
    countermeasures: Sequence[Countermeasure], images: Tensor | Sequence[Tensor], labels: Tensor, *, seed: int
) -> tuple[list[Tensor], list[Countermeasure]]:
    """Apply those that act on the published images themselves, for a trainer who resizes the images.

    Args:
        countermeasures: of all kinds.
        images: N times uint8 (3, H, W), of any sizes.
        labels: int64 (N,).
        seed: of their draws.

    Returns:
        The images, and the countermeasures that are left, in order.

    Raises:
        ValueError: one that acts on stored images comes before one of these.
    """
    first = [each for each in countermeasures if each.before_resize]
    stored = [each for each in countermeasures if each.acts_on == "stored"]
    if stored[: len(first)] != first:
        raise ValueError(
            f"countermeasure {first[0].name!r} acts on the published images, {stored[0].name!r} on what the trainer "
            f"resized (train_size). Put {first[0].name!r} first."
        )
    images = list(images)
    for each in first:
        for shape in {image.shape for image in images}:
            rows = [row for row, image in enumerate(images) if image.shape == shape]
            alike = Labelled(torch.stack([images[row] for row in rows]), labels[rows])
            for row, image in zip(rows, each.on_stored(alike, seed=seed).images, strict=True):
                images[row] = image
    return images, [each for each in countermeasures if not each.before_resize]


def apply_at_test(countermeasures: Sequence[Countermeasure], images: Tensor) -> Tensor:
    """What trainers show their network at test, if they process test images as they did the stored ones.

    Args:
        countermeasures: of both kinds.
        images: uint8 (N, 3, H, W).

    Returns:
        uint8 (N, 3, H, W); the same tensor where none of them is a fixed map of one image.

    Raises:
        ValueError: one changes the size or the number of the images.
    """
    for each in countermeasures:
        if each.acts_on == "stored":
            changed = each.at_test(images)
            _check_images(changed, images.shape, f"countermeasure {each.name!r}")
            images = changed
    return images


def _check_set(data: Labelled, size: torch.Size, who: str) -> None:
    count = len(data.labels)
    if count == 0:
        raise ValueError(f"{who} leaves no images to train on")
    _check_images(data.images, (count, *size), who)
    if data.clean is not None:
        _check_images(data.clean, (count, *size), f"{who}, clean images")


def _check_images(images: Tensor, shape: Sequence[int], who: str) -> None:
    if images.dtype != torch.uint8 or images.shape != tuple(shape):
        raise ValueError(
            f"{who}: images must be uint8 of size {tuple(shape)} (count, 3, height, width), got {images.dtype} "
            f"{tuple(images.shape)}. Keep the size of the images and one label per image."
        )

"""What a generator is made from and what it takes: weights that were fitted, images in bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from semtransforms.core.config import GeneratorConfig
from semtransforms.data.images import check_labels

if TYPE_CHECKING:
    from semtransforms.noise.engine import Engine


def check_surrogate_weights(surrogate: nn.Module, config: GeneratorConfig) -> None:
    """Whether a surrogate can be what its config says.

    Raises:
        ValueError: a weight is NaN or infinite; it should have been fitted on clean data, and has seen no image.
    """
    for key, value in surrogate.state_dict().items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(f"weight {key!r} holds NaN or infinity: the fit diverged or the file is damaged")
    updates = [layer.num_batches_tracked for layer in surrogate.modules() if isinstance(layer, nn.BatchNorm2d)]
    if config.fitted_on == "clean" and any(count == 0 for count in updates):
        raise ValueError(
            f"surrogate has never seen an image: {config.method!r} needs one that was fitted on clean data. Use "
            "fit_generator(dataset, config)."
        )


def check_pixels(pixels: Sequence[Any], smallest: int, surrogate: str) -> None:
    """Whether each of them is an image that a surrogate takes.

    Raises:
        TypeError: one is no uint8 tensor.
        ValueError: one is not (3, H, W), or smaller than ``smallest``.
    """
    for index, image in enumerate(pixels):
        if not isinstance(image, Tensor) or image.dtype != torch.uint8:
            kind = image.dtype if isinstance(image, Tensor) else type(image).__name__
            raise TypeError(
                f"images must be uint8 in 0..255, got {kind} at index {index}. Add the noise before the "
                "conversion to float; the bound holds for the bytes a user stores."
            )
        if image.ndim != 3 or image.shape[0] != 3:
            raise ValueError(f"images must be (3, H, W), got {tuple(image.shape)} at index {index}")
        if min(image.shape[1:]) < smallest:
            raise ValueError(
                f"images must be at least {smallest} x {smallest} for {surrogate!r}, got "
                f"{image.shape[1]} x {image.shape[2]} at index {index}. Leave it out or enlarge it."
            )


def check_pairs(pixels: Any, labels: Any, engine: Engine) -> Tensor:
    """Whether an engine makes noise for images with these labels.

    Returns:
        The labels, int64 (N,).

    Raises:
        TypeError, ValueError: as for :func:`check_pixels`; a label is out of range, or there are more or fewer of them.
    """
    check_pixels(pixels, engine.smallest, engine.config.surrogate)
    found = check_labels(labels, engine.config.num_classes)
    if len(found) != len(pixels):
        raise ValueError(f"labels must have one entry per image: {len(found)} labels for {len(pixels)} images")
    return found

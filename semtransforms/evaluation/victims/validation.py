"""The images that a trainer who stops early sets aside, to know when."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from semtransforms.core.keys import stream_seed
from semtransforms.data.loading import Labelled
from semtransforms.evaluation.countermeasures import Countermeasure, apply_at_test
from semtransforms.evaluation.victims.config import VictimConfig


def validation_images(config: VictimConfig, count: int) -> int:
    """How many of ``count`` training images early stopping sets aside; 0 without it.

    Raises:
        ValueError: none would be left to validate or to train on.
    """
    if config.patience is None:
        return 0
    held = round(config.validation * count)
    if not 0 < held < count:
        raise ValueError(
            f"validation={config.validation} of {count} images leaves {held} to validate and {count - held} to train on"
        )
    return held


def set_aside(
    data: Labelled, config: VictimConfig, countermeasures: Sequence[Countermeasure]
) -> tuple[Labelled, Labelled | None]:
    """Split what was published in training and validation images.

    Args:
        data: the published images, and the owner's where the trainer has some.
        config: which share is set aside, and which share of that is clean.
        countermeasures: the trainer's: clean images are processed as all others are.

    Returns:
        The images to train on and those to validate on; all and ``None`` without early stopping.

    Raises:
        ValueError: none would be left of either, or the clean images were not given.
    """
    count = len(data.labels)
    held = validation_images(config, count)
    if not held:
        return data, None
    rows = torch.randperm(count, generator=torch.Generator().manual_seed(stream_seed(config.seed, 0)))
    aside, kept = rows[:held], rows[held:].sort().values
    images = data.images[aside]
    if known := round(config.validation_clean * held):
        if data.clean is None:
            raise ValueError("validation_clean is above 0, but the owner's clean images were not given (clean=...)")
        images[:known] = apply_at_test(countermeasures, data.clean[aside[:known]])
    clean = None if data.clean is None else data.clean[kept]
    return Labelled(data.images[kept], data.labels[kept], clean=clean), Labelled(images, data.labels[aside])

"""What a trainer holds of the published images: a fixed set, or one that is cut out of photographs anew each epoch.

A trainer with a size of their own cuts a square out of each photograph once an epoch. Countermeasures that act on
stored images act on these squares: at the trainer's size, after the crop and before the flip. Only who washes the noise
out with a generator acts on the published image, since that is where the owner added it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from semtransforms.core.hardware import pick_device
from semtransforms.core.keys import fold_in, index_keys, stream_seed
from semtransforms.data.loading import Labelled
from semtransforms.evaluation.countermeasures import (
    Countermeasure,
    apply_before_resize,
    apply_stored,
    let_learn,
)
from semtransforms.evaluation.victims.config import VictimConfig
from semtransforms.evaluation.victims.validation import set_aside
from semtransforms.views.windows import centre_squares, padded_windows, resized_windows, with_shorter_side


@dataclass(frozen=True)
class TrainingSet:
    """What a trainer trains and validates on.

    Args:
        data: the labels, and images that stand for those of all epochs.
        validation: what early stopping validates on; ``None`` without.
        at_epoch: from the number of an epoch to its images, uint8 (N, 3, H, W).
        countermeasures: the trainer's, in order, trained where they learn.
    """

    data: Labelled
    validation: Labelled | None
    at_epoch: Callable[[int], Tensor]
    countermeasures: tuple[Countermeasure, ...]


def training_set(
    images: Tensor | Sequence[Tensor],
    labels: Tensor,
    clean: Tensor | Sequence[Tensor] | None,
    config: VictimConfig,
    countermeasures: Sequence[Countermeasure],
    *,
    device: torch.device | None = None,
    progress: bool = False,
) -> TrainingSet:
    """What a trainer makes of what was published.

    Args:
        images: uint8 (N, 3, H, W), or with a ``train_size`` N times uint8 (3, H, W) of any sizes.
        labels: int64 (N,).
        clean: the owner's, likewise, of the same sizes; ``None`` where the trainer has none of them.
        config: the trainer's choices.
        countermeasures: theirs, in order.
        device: where those that learn are trained; default: CUDA if present.
        progress: show their bars.

    Returns:
        The training set.

    Raises:
        ValueError: a countermeasure changes the size of the images, needs the owner's where there are none, or comes
            at the wrong place.
    """
    side = config.train_size
    if side is not None:
        images, countermeasures = apply_before_resize(countermeasures, images, labels, seed=config.seed)
        if config.crop == "resize":
            images = with_shorter_side(images, side)
            clean = None if clean is None else with_shorter_side(clean, side)

    def held(see: Callable[[Tensor | Sequence[Tensor]], Tensor]) -> Labelled:
        return Labelled(see(images), labels, clean=None if clean is None else see(clean))

    def set_of(data: Labelled) -> tuple[Labelled, Labelled | None]:
        return set_aside(apply_stored(trained, data, seed=config.seed), config, trained)

    fixed = held(torch.as_tensor if side is None else partial(centre_squares, side=side))
    trained = let_learn(countermeasures, fixed, seed=config.seed, device=pick_device(device), progress=progress)
    data, validation = set_of(fixed)
    if side is None:
        return TrainingSet(data, validation, lambda epoch: data.images, trained)
    cut = padded_windows if config.crop == "resize" else resized_windows
    photographs = index_keys(torch.arange(len(labels)), stream_seed(config.seed, 1))  # a step's keys fold in its number

    def at_epoch(epoch: int) -> Tensor:
        return set_of(held(partial(cut, keys=fold_in(photographs, epoch), side=side)))[0].images

    return TrainingSet(data, validation, at_epoch, trained)

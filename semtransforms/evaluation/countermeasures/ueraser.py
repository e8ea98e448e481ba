"""UEraser (Qin et al. 2023): train on the augmentation that the network likes least."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import kornia.augmentation
import torch
from kornia.augmentation.auto import TrivialAugment
from torch import Tensor, nn
from torch.nn import functional as F

from semtransforms.core.hardware import autocast_dtype
from semtransforms.core.keys import fold_in
from semtransforms.evaluation.countermeasures.base import Countermeasure
from semtransforms.noise.fuse import fuse_batch_norm
from semtransforms.noise.pgd import forward, frozen
from semtransforms.views.eot import EOT
from semtransforms.views.members import Kornia, OneOf, Parameters


class _Fractal(Kornia):
    """An augmentation whose parameters are whole maps: the larger the images, the fewer rows in its table (50 MB)."""

    def draw(self, keys: Tensor, shape: Sequence[int]) -> Parameters:
        self.table_size = max(64, min(4096, 2**22 // (shape[2] * shape[3])))
        return super().draw(keys, shape)


def _ueraser_policy() -> EOT:
    plasma: dict[str, Any] = {"roughness": (0.3, 0.7), "p": 0.5}
    operations = [policy[0] for policy in TrivialAugment().children()]
    for operation in operations:
        operation.p = 1.0  # what Kornia asks for: the one that is drawn is applied
    return EOT(
        [
            _Fractal(kornia.augmentation.RandomPlasmaBrightness(intensity=(0.5, 1.0), **plasma)),
            _Fractal(kornia.augmentation.RandomPlasmaContrast(**plasma)),
            Kornia(kornia.augmentation.RandomChannelShuffle(p=0.5)),
            OneOf([Kornia(operation) for operation in operations], [1 / len(operations)] * len(operations)),
        ]
    )


@dataclass(frozen=True)
class UEraser(Countermeasure):
    """Of five strong augmentations of each image, the one with the network's largest loss (Qin et al. 2023).

    Each draw is, as in the authors' code: kornia's plasma brightness (intensity 0.5 to 1) and plasma contrast
    (roughness 0.3 to 0.7) and a channel shuffle, each with probability 1/2, then one operation of kornia's
    TrivialAugment. Here it stays on until the end (their UEraser-max; UEraser itself stops maximising after 50 to 60 of
    200 epochs), and the loss is seen in eval mode.
    """

    policy: EOT = field(default_factory=_ueraser_policy, repr=False, compare=False)
    name: str = field(default="ueraser", init=False)
    acts_on = "batch"

    @torch.no_grad()
    def on_batch(self, images: Tensor, targets: Tensor, *, keys: Tensor, network: nn.Module) -> tuple[Tensor, Tensor]:
        """Images replaced by their worst draw, targets as they are."""
        draws = 5
        views = self.policy(images.repeat(draws, 1, 1, 1), torch.cat([fold_in(keys, draw) for draw in range(draws)]))
        dtype = autocast_dtype("auto", images.device)  # losses are only compared
        with frozen(network):
            fused = fuse_batch_norm(network)
            logits = [
                forward(fused, some.to(memory_format=torch.channels_last), dtype) for some in views.split(len(images))
            ]
        losses = torch.stack([F.cross_entropy(some, targets, reduction="none") for some in logits])
        worst = losses.argmax(0)
        return views.unflatten(0, (draws, -1))[worst, torch.arange(len(images), device=images.device)], targets

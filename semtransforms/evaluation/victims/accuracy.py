"""What a network is worth: its accuracy on images as they are, and under attack."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from semtransforms.core.config import PGDConfig
from semtransforms.core.grid import to_float
from semtransforms.core.keys import index_keys
from semtransforms.data.loading import Labelled
from semtransforms.noise.pgd import forward, pgd

ROBUST_IMAGES = 1_000  # test images that robust accuracy is measured on


@torch.no_grad()
def accuracy(network: nn.Module, data: Labelled, dtype: torch.dtype | None) -> float:
    """Share of images whose label the network names, in eval mode; its mode is restored.

    Args:
        network: logits of float images in [0, 1].
        data: uint8 images and their labels.
        dtype: autocast to it; ``None`` for fp32.
    """
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    right = torch.zeros((), dtype=torch.int64, device=device)
    for some, named in zip(torch.split(data.images, 512), torch.split(data.labels, 512), strict=True):
        batch = to_float(some.to(device)).to(memory_format=torch.channels_last)
        right += (forward(network, batch, dtype).argmax(1) == named.to(device)).sum()
    network.train(training)
    return int(right) / len(data.labels)


def robust_accuracy(network: nn.Module, data: Labelled, attack: PGDConfig, dtype: torch.dtype | None) -> float:
    """Share of 1,000 drawn images still named rightly under PGD of twice the attack's steps and half its step size.

    Args:
        network, data, dtype: as for :func:`accuracy`.
        attack: the trainer's own adversary; radius and norm are kept.
    """
    device = next(network.parameters()).device
    attack = replace(attack, steps=2 * attack.steps, alpha=attack.alpha / 2)
    # drawn, since folders are sorted by class
    drawn = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(0))[:ROBUST_IMAGES]
    right = 0
    training = network.training
    network.eval()
    for rows in torch.split(drawn, 256):
        views, labels = to_float(data.images[rows].to(device)), data.labels[rows].to(device)
        keys = index_keys(rows, 0).to(device)
        worst = views + pgd(network, views, labels, attack, keys=keys, maximise=True, dtype=dtype)
        with torch.no_grad():
            logits = forward(network, worst.to(memory_format=torch.channels_last), dtype)
        right += int((logits.argmax(1) == labels).sum())
    network.train(training)
    return right / len(drawn)

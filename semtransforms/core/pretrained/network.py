"""A network of timm or torchvision as a module of this package, with pretrained weights or freshly drawn.

It takes images in [0, 1] as every other network does. What is its own: the pixels it was trained to see, weights to
start from, and which of them are trained.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import dropwhile
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semtransforms.core.pretrained.libraries import DEFAULT, Pixels, find
from semtransforms.core.pretrained.weights import find_weights, load_weights

Transfer = Literal["fine-tune", "last-block", "probe"]
TRANSFERS: tuple[Transfer, ...] = get_args(Transfer)  # the whole network, its end, a linear layer on its features


class FromLibrary(nn.Module):
    """A network of a library behind its normalisation; what is frozen stays in eval mode.

    Args:
        network: takes normalised images.
        pixels: how it sees them.
        side: bring images to this size in pixels first; ``None``: as they come.
    """

    def __init__(self, network: nn.Module, pixels: Pixels, side: int | None) -> None:
        super().__init__()
        self.network, self.side = network, side
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(pixels.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(pixels.std)[:, None, None], persistent=False)
        self.frozen: tuple[nn.Module, ...] = ()

    def forward(self, images: Tensor) -> Tensor:
        if self.side is not None and images.shape[2:] != (self.side, self.side):
            images = F.interpolate(images, size=(self.side, self.side), mode="bilinear", antialias=True)
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits

    def train(self, mode: bool = True) -> FromLibrary:
        super().train(mode)
        for part in self.frozen:  # a frozen BatchNorm must not learn the statistics of the published images
            part.eval()
        return self

    def freeze(self, weights: Sequence[nn.Parameter]) -> None:
        """Take weights out of the training, and the modules that hold no other ones."""
        for weight in weights:
            weight.requires_grad_(False)
        self.frozen = tuple(
            part
            for part in self.network.modules()
            if (held := [weight.requires_grad for weight in part.parameters()]) and not any(held)
        )


def build_from_library(
    network: str,
    *,
    num_classes: int,
    train_size: int | None,
    pretrained: str | os.PathLike[str] | None = None,
    transfer: Transfer = "fine-tune",
) -> FromLibrary:
    """Build a network of timm or torchvision for a trainer.

    Args:
        network: ``"timm/..."`` or ``"torchvision/..."``.
        num_classes: size of the output; the head is freshly drawn.
        train_size: of the images, where the trainer chose one.
        pretrained: as for :func:`find_weights`; ``None``: all freshly drawn.
        transfer: which of pretrained weights are trained: all, the last block and what follows it, or none (the network
            then gives features).

    Returns:
        A module: float ``(N, 3, H, W)`` in [0, 1] -> float logits ``(N, num_classes)``, or features ``(N, F)``.

    Raises:
        ValueError: the weights are not to be had, or do not fit; the network has no blocks to take the last of.
    """
    library, name = find(network)
    made = library.build(name)
    if pretrained is None:
        pixels = library.pixels(name, DEFAULT)
    else:
        weights = find_weights(network, pretrained)
        load_weights(made, library.heads(made), weights, network)
        pixels = weights.pixels
    library.put_head(made, num_classes if pretrained is None or transfer != "probe" else 0)
    side = side_given(pixels, train_size, pretrained is not None)
    found = FromLibrary(made, pixels, side if side != train_size else None)
    if pretrained is not None and transfer != "fine-tune":
        trained = set(last_block(made, network)) if transfer == "last-block" else set()
        found.freeze([weight for weight in made.parameters() if weight not in trained])
    return found


def side_given(pixels: Pixels, train_size: int | None, pretrained: bool) -> int | None:
    """The side in pixels that a network is given images of; ``None``: as the images are.

    A trainer's own size counts, except where the network takes one size only. Without one, a pretrained network is
    given the size it was trained at.
    """
    if pixels.fixed or (pretrained and train_size is None):
        return pixels.side
    return train_size


def describe_start(network: str, pretrained: str | os.PathLike[str], train_size: int | None) -> str:
    """What a record says of pretrained weights: which, of which size in pixels, and what size they are given.

    Args:
        network, pretrained, train_size: as for :func:`build_from_library`.

    Returns:
        Such as ``"model.safetensors#1a2b3c4d (of 224 px, given 128 px)"``.

    Raises:
        ValueError, OSError: as :func:`find_weights`.
    """
    weights = find_weights(network, pretrained)
    own, given = weights.pixels.side, side_given(weights.pixels, train_size, pretrained=True)
    if own == train_size:
        return f"{weights.label} (of {own} px)"
    return f"{weights.label} (of {own} px, {'images resized to it' if given == own else f'given {given} px'})"


def last_block(network: nn.Module, name: str) -> list[nn.Parameter]:
    """The weights of a network's last block, and those behind it, such as the head.

    The blocks are the modules of one class, made of others, that hold most of the weights: the residual blocks of a
    ResNet, the dense blocks of a DenseNet, the encoder blocks of a ViT.

    Args:
        network: whose parts come in the order of its computation, as those of both libraries do.
        name: of it, for the message.

    Raises:
        ValueError: no class of parts comes twice.
    """
    kinds: dict[type, list[nn.Module]] = {}
    for part in network.modules():
        if any(part.children()) and type(part) not in (nn.Sequential, nn.ModuleList, nn.ModuleDict):
            kinds.setdefault(type(part), []).append(part)
    several = [parts for parts in kinds.values() if len(parts) > 1]
    if not several:
        raise ValueError(f"transfer='last-block': {name!r} is not made of blocks. Use 'probe' or 'fine-tune'.")
    blocks = max(several, key=lambda parts: sum(weight.numel() for part in parts for weight in part.parameters()))
    first = next(blocks[-1].parameters())
    return list(dropwhile(lambda weight: weight is not first, network.parameters()))

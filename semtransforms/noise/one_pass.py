"""Noise in one pass: a small network that paints at once what forty gradient steps on a surrogate would find.

The surrogate is fitted first (Algorithm 1), and then held: the painter learns to lower its loss as the gradient steps
do, seen through the same T and the same random perturbation. So an update costs one pass through both networks and no
inner loop. What it paints follows the image, the label and a field of random numbers of the image's key. A penalty sees
to it that the field counts: two keys of one image give noises that are no more alike than ``ALIKE``, else whoever holds
the painter would need no seed to take its noise off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semtransforms.core.config import GeneratorConfig
from semtransforms.core.grid import levels, to_float
from semtransforms.core.hardware import autocast_dtype
from semtransforms.core.keys import fold_in, keyed_uniform
from semtransforms.core.steps import half_cosine, seeded_steps
from semtransforms.noise.ball import per_image_norm
from semtransforms.noise.pgd import forward, frozen, perturb_view
from semtransforms.views.eot import EOT

CHANNELS = 32  # at half of the image's resolution; twice as many at a quarter
BLOCKS = 2
FIELD = 8  # random numbers for each 4 x 4 pixels
PATCH = 4  # pixels that one place of the coarsest map stands for

LEARNING_RATE = 2e-3  # of Adam, falling along half a cosine
SHRINK = 0.005  # weight of the mean square of what comes before the tanh, which learns nothing where it saturates
APART = 1.0  # weight of the penalty on noises of two keys that are alike, reached at half of the updates
ALIKE = 0.7  # cosine between two noises of one image that goes free; those of SEM_PLUS have 0.73 (CIFAR-10)

AT_ONCE = 1 << 17  # pixels that a processor paints at once: larger layers leave its cache, and take twice as long

_PAINT, _OTHER, _VIEW, _INNER = range(4)  # what keys are folded with, so that no two draws share numbers


class Block(nn.Module):
    """A residual block whose channels each label scales and shifts in its own way."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.label = nn.Embedding(num_classes, 2 * channels)
        nn.init.normal_(self.label.weight, std=0.5)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        scale, shift = self.label(labels)[:, :, None, None].chunk(2, 1)
        residual: Tensor = self.conv2(F.relu(self.conv1(x) * (1 + scale) + shift))
        return x + residual


class Painter(nn.Module):
    """A convolutional network from image, label and random field to noise; 0.18 M weights for ten classes.

    All of its work is done at half and quarter resolution, whose pixels lie in its first layer's channels: at full
    resolution it would take four times as long.

    Args:
        num_classes: C.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(12, CHANNELS, 3, padding=1)
        self.down = nn.Conv2d(CHANNELS, 2 * CHANNELS, 2, 2)
        self.field = nn.Conv2d(FIELD, 2 * CHANNELS, 3, padding=1)
        self.blocks = nn.ModuleList(Block(2 * CHANNELS, num_classes) for _ in range(BLOCKS))
        self.up = nn.Conv2d(2 * CHANNELS, 4 * CHANNELS, 1)
        self.head = nn.Conv2d(CHANNELS, 12, 3, padding=1)

    def forward(self, images: Tensor, labels: Tensor, field: Tensor) -> Tensor:
        """What the noise is the tanh of, in units of the radius.

        Args:
            images: float (N, 3, H, W) in [0, 1], of any size.
            labels: int64 (N,).
            field: float (N, FIELD, ceil(H / 4), ceil(W / 4)) in [-1, 1).

        Returns:
            float (N, 3, H, W).
        """
        height, width = images.shape[2:]
        padded = F.pad(images - 0.5, (0, -width % PATCH, 0, -height % PATCH), mode="replicate")
        halved = F.pixel_unshuffle(padded, 2).contiguous(memory_format=torch.channels_last)
        fine = F.relu(self.stem(halved))
        coarse = self.down(fine) + self.field(field)
        for block in self.blocks:
            coarse = block(coarse, labels)
        joined = F.relu(F.pixel_shuffle(self.up(coarse), 2) + fine)
        return F.pixel_shuffle(self.head(joined), 2)[:, :, :height, :width]


def random_field(keys: Tensor, height: int, width: int) -> Tensor:
    """What of a painter's noise the secret decides: float32 (N, FIELD, ceil(H / 4), ceil(W / 4)) in [-1, 1)."""
    return keyed_uniform(keys, (FIELD, -(-height // PATCH), -(-width // PATCH))).mul_(2).sub_(1)


def in_levels(raw: Tensor, images: Tensor, reach: int) -> Tensor:
    """What a painter gives, as noise within the radius that leaves images in their range.

    Args:
        raw: float (N, 3, H, W).
        images: float (N, 3, H, W) in [0, 1], whole grey levels.
        reach: the radius, in grey levels.

    Returns:
        float (N, 3, H, W), whole grey levels; the gradient is that of the noise before it is rounded.
    """
    smooth = raw.tanh() * reach
    limited = torch.clamp(smooth, min=-255 * images, max=255 - 255 * images)
    return limited + (limited.round() - limited).detach()


@torch.no_grad()
def paint(painter: nn.Module, images: Tensor, labels: Tensor, keys: Tensor, reach: int) -> Tensor:
    """The noise of images, whole grey levels in float32 (N, 3, H, W); arguments as of :class:`Painter`."""
    if len(images) == 1:
        # alone it is summed in another order than in a batch, and a value at half a level would be rounded otherwise
        images, labels, keys = (torch.cat([each, each]) for each in (images, labels, keys))
        return paint(painter, images, labels, keys, reach)[:1]
    count = max(2, AT_ONCE // images[0, 0].numel())
    if images.device.type == "cpu" and len(images) > count:
        turns = [slice(start, start + count) for start in range(0, len(images), count)]
        return torch.cat([paint(painter, images[turn], labels[turn], keys[turn], reach) for turn in turns])
    pixels = to_float(images)
    return in_levels(painter(pixels, labels, random_field(keys, *images.shape[2:])), pixels, reach)


class OnePass(nn.Module):
    """A painter and all that turns what it paints into protected bytes: a graph from integers to integers.

    Args:
        painter: of :class:`Painter`'s arguments.
        reach: the radius, in grey levels. It is kept to in whole numbers at the end, so that neither weights nor a
            runtime's ``tanh`` can lead out of it.
    """

    def __init__(self, painter: nn.Module, reach: int) -> None:
        super().__init__()
        self.painter, self.reach = painter, reach

    def forward(self, images: Tensor, labels: Tensor, field: Tensor) -> Tensor:
        """Protect images; arguments as of :class:`Painter`, but for uint8 images in and out."""
        pixels = to_float(images)
        painted = in_levels(self.painter(pixels, labels, field), pixels, self.reach)
        noise = painted.to(torch.int32).clamp(-self.reach, self.reach)
        return (images.to(torch.int32) + noise).clamp(0, 255).to(torch.uint8)


def painters_optimizer(painter: nn.Module) -> torch.optim.Adam:
    """What a painter is fitted with."""
    return torch.optim.Adam(painter.parameters(), lr=LEARNING_RATE, betas=(0.5, 0.99))


def learn_to_paint(
    painter: nn.Module,
    surrogate: nn.Module,
    images: Tensor,
    labels: Tensor,
    config: GeneratorConfig,
    eot: EOT,
    *,
    optimizer: torch.optim.Optimizer,
    first: int,
    save: Callable[[int], None],
    progress: bool,
) -> None:
    """Fit a painter against a surrogate, which stays as it is.

    Args:
        painter: changed in place.
        surrogate: float (N, 3, H, W) in [0, 1] to logits, on the painter's device.
        images: uint8 (N, 3, H, W).
        labels: int64 (N,), on the painter's device.
        config: the number of updates is its ``one_pass``; radius, perturbation, batches and seed are those of the
            surrogate's fit.
        eot: T.
        optimizer: of :func:`painters_optimizer`.
        first: updates behind the painter and the optimizer.
        save: is given the updates done, after each.
        progress: show a bar.
    """
    device = labels.device
    schedule = replace(config, train_steps=config.one_pass, learning_rate=LEARNING_RATE)
    with (
        frozen(surrogate),
        seeded_steps(
            schedule,
            len(labels),
            optimizer,
            rate_share=lambda step: half_cosine(step, config.one_pass),
            first=first,
            device=device,
            title=f"fit the painter of {config.method}",
            save=save,
            progress=progress,
        ) as (steps, bar),
    ):
        for step in steps:
            pixels, named = to_float(images[step.rows(images.device)].to(device)), labels[step.rows(device)]
            apart = APART * min(1, 2 * (step.number + 1) / config.one_pass)
            loss, accuracy = paint_step(
                painter, surrogate, optimizer, pixels, named, keys=step.keys, config=config, eot=eot, apart=apart
            )
            if step.number % 10 == 9:  # reading a loss waits for the device
                bar.set_postfix_str(f"loss {loss:.3f}, surrogate's accuracy {accuracy:.1%}")


def paint_step(
    painter: nn.Module,
    surrogate: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    *,
    keys: Tensor,
    config: GeneratorConfig,
    eot: EOT,
    apart: float,
) -> tuple[Tensor, Tensor]:
    """One update of a painter.

    Args:
        painter: changed in place.
        surrogate: in eval mode, without weight gradients.
        optimizer: over the painter's weights.
        images: float (B, 3, H, W) in [0, 1].
        labels, keys: int64 (B,).
        config, eot: radius and perturbation, and T.
        apart: weight of the penalty on noises of two keys that are alike.

    Returns:
        The surrogate's loss and its accuracy on the painted images, 0-d tensors on the device.
    """
    dtype = autocast_dtype(config.precision, images.device)
    with torch.autocast(images.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        one, other = (
            painter(images, labels, random_field(fold_in(keys, draw), *images.shape[2:])).float()
            for draw in (_PAINT, _OTHER)
        )
    seen = images + in_levels(one, images, levels(config.rho_u)) / 255
    seen.register_hook(_evenly)  # type: ignore[no-untyped-call]
    view = eot(seen, fold_in(keys, _VIEW))
    inner = config.perturbation(config.defense_sees)
    point = perturb_view(surrogate, view.detach(), labels, inner, fold_in(keys, _INNER), dtype)
    # the perturbation is held constant, as in Eq. 6 and 10
    logits = forward(surrogate, (view + (point - view).detach()).to(memory_format=torch.channels_last), dtype)
    loss = F.cross_entropy(logits, labels)
    alike = F.cosine_similarity(one.tanh().flatten(1), other.tanh().flatten(1))
    penalty = SHRINK * one.square().mean() + apart * (alike - ALIKE).relu().square().mean()
    optimizer.zero_grad(set_to_none=True)
    (loss + penalty).backward()
    nn.utils.clip_grad_norm_(painter.parameters(), 1.0)
    optimizer.step()
    return loss.detach(), (logits.argmax(1) == labels).float().mean()


def _evenly(gradients: Tensor) -> Tensor:
    """Each image's gradient at the same length: those that the surrogate names rightly would have hardly a say."""
    finite: Tensor = gradients.nan_to_num(0, 0, 0)  # where t has no derivative
    return finite / per_image_norm(finite).clamp_(min=1e-12) / len(finite)

"""Class-wise noise: a surrogate network, and beside it noises that the images of a class share.

Sample-wise noise is found anew for every image, and few photographs give few updates to find it with. What is learned
here is kept: each update moves the noise of its classes on, and the next one goes on from there (Huang et al. 2021 have
class-wise noise beside sample-wise; theirs lies at the same place in every image).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from semtransforms.core.config import PGDConfig
from semtransforms.core.keys import fold_in, index_keys, keyed_uniform
from semtransforms.core.sharing import ALONE, Share
from semtransforms.noise.fuse import fuse_batch_norm
from semtransforms.noise.pgd import frozen, largest_batches, mean_gradient
from semtransforms.noise.textures import class_textures
from semtransforms.views.eot import EOT

MOMENTUM = 0.9  # of the noises, from a step to the next; without it half of their room within rho_u stays empty

_START, _PLACE, _STEPS = range(3)  # what keys are folded with, so that no two draws share numbers


class Classwise(nn.Module):
    """A surrogate network with V noises for each class.

    A noise is periodic: an image takes a window of it that begins at a row and a column of the image's own, mirrored or
    not. So a mean over the images of a class does not show it, and an image of any shape gets enough of it.

    Args:
        network: float (N, 3, H, W) in [0, 1] to logits (N, C).
        num_classes: C.
        count: V.
        size: (height, width) of a period, in pixels.
        rho_u: radius, a fraction of the pixel range.
        seed: of the noise before the fit, uniform in the ball or textures.
        textured: whether it starts as :func:`~semtransforms.noise.textures.class_textures`.
        guides: pretrained surrogates with a layer each, which are saved with it.

    Attributes:
        noises: float32 (C * V, 3, height, width), fractions of the pixel range, class by class.
        momentum: float32 (C * V, 3, height, width), what the steps of a fit have said so far; it is not saved with the
            noises, only with an unfinished fit.
        held: whether a fit leaves the noises as they are, since the network does not know them yet: led by one that
            knows nothing, they would lose what they start with.
    """

    noises: Tensor
    momentum: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        num_classes: int,
        count: int,
        size: tuple[int, int],
        rho_u: float,
        seed: int,
        textured: bool = False,
        guides: nn.ModuleList | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.guides = nn.ModuleList() if guides is None else guides
        if textured:
            start = class_textures(num_classes, count, size, seed).mul_(rho_u)
        else:
            keys = fold_in(index_keys(torch.arange(num_classes * count), seed), _START)
            start = keyed_uniform(keys, (3, *size)).mul_(2).sub_(1).mul_(rho_u)
        self.count = count
        self.held = False
        self.register_buffer("noises", start)
        self.register_buffer("momentum", torch.zeros_like(start), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """The network's logits."""
        logits: Tensor = self.network(images)
        return logits

    def place(self, labels: Tensor, keys: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Where in the noises each pixel of an image lies.

        Args:
            labels: int64 (N,).
            keys: int64 (N,): which of the class's noises, from which row and column on, mirrored or not.
            height, width: of the images, in pixels.

        Returns:
            int64 (N,), the rows of ``noises``; int64 (N, height * width), the places in a period.
        """
        rows, columns = self.noises.shape[2:]
        which, top, left, side = keyed_uniform(fold_in(keys, _PLACE), (4,)).unbind(1)
        down = torch.arange(height, device=keys.device) + (top * rows).long()[:, None]
        right = torch.arange(width, device=keys.device)
        right = torch.where(side[:, None] < 0.5, right, -1 - right) + (left * columns).long()[:, None]
        places = (down % rows)[:, :, None] * columns + (right % columns)[:, None, :]
        return labels * self.count + (which * self.count).long(), places.flatten(1)

    def noise(self, images: Tensor, labels: Tensor, keys: Tensor) -> Tensor:
        """The noise of images.

        Args:
            images: float (N, 3, H, W) in [0, 1].
            labels, keys: int64 (N,).

        Returns:
            float32 (N, 3, H, W), ``images + noise`` in [0, 1].
        """
        return self.seen(*self.place(labels, keys, *images.shape[2:]), images)

    def seen(self, chosen: Tensor, places: Tensor, images: Tensor) -> Tensor:
        """The noise at the places of :meth:`place`, cut where the range of pixels ends: float32 (N, 3, H, W)."""
        return torch.clamp(self.windows(chosen, places).view_as(images), -images, 1 - images)

    def windows(self, chosen: Tensor, places: Tensor) -> Tensor:
        """The noise at the places of :meth:`place`: float32 (N, 3, height * width)."""
        return self.noises[chosen].flatten(2).gather(2, places[:, None].expand(-1, 3, -1))

    @torch.no_grad()
    def found(self, images: Tensor, labels: Tensor) -> Tensor:
        """The windows that protected images most likely hold, for whoever has the noises but no key.

        A matched filter: of all places in all noises of the class, mirrored and not, the one whose noise correlates
        most with the image, each frequency weighed by what photographs have of it, whose power falls as 1 / f^2.

        Args:
            images: float (N, 3, H, W) in [0, 1].
            labels: int64 (N,).

        Returns:
            float32 (N, 3, H, W).
        """
        return torch.stack([self._found(image, int(label)) for image, label in zip(images, labels, strict=True)])

    def _found(self, image: Tensor, label: int) -> Tensor:
        """The window of one image: float32 (3, H, W)."""
        own = self.noises.view(-1, self.count, *self.noises.shape[1:])[label]
        filters = torch.fft.rfft2(own) * _squared_frequency(*own.shape[2:]).to(own.device)
        # mirrored images with windows as they are: the same pairs as images with mirrored windows
        sides = torch.stack([_fold(side, *own.shape[2:]) for side in (image, image.flip(2))])
        product = torch.fft.rfft2(sides).conj()[:, None] * filters
        likeness = torch.fft.irfft2(product.sum(2), s=own.shape[2:])
        best = int(likeness.argmax())
        side, which, row, column = (int(index) for index in np.unravel_index(best, likeness.shape))
        window: Tensor = own[which].roll((-row, -column), (1, 2))
        down, right = (torch.arange(length, device=own.device) for length in image.shape[1:])
        placed: Tensor = window[:, down % own.shape[2]][:, :, right % own.shape[3]]
        if side:
            placed = placed.flip(2)
        return placed

    @torch.no_grad()
    def descend(self, gradients: Tensor, chosen: Tensor, places: Tensor, alpha: float, rho_u: float) -> None:
        """Move the noises by a step along the sign of what their images say together, and have said before.

        A gradient counts by its direction alone: each is brought to a mean of one before it joins the momentum (Dong et
        al. 2018, Eq. 6). A noise that no image saw keeps its own, and moves on along it.

        Args:
            gradients: float (N, 3, H, W), of the loss by each image's noise.
            chosen, places: of :meth:`place`.
            alpha, rho_u: step and radius, fractions of the pixel range.
        """
        own = gradients.new_zeros(len(gradients), 3, self.noises[0, 0].numel())
        own.scatter_add_(2, places[:, None].expand(-1, 3, -1), gradients.flatten(2))
        together = torch.zeros_like(self.noises).index_add_(0, chosen, own.view(-1, *self.noises.shape[1:]))
        size = together.abs().mean((1, 2, 3), keepdim=True)
        told = size > 0
        self.momentum.copy_(torch.where(told, MOMENTUM * self.momentum + together / size, self.momentum))
        self.noises.sub_(alpha * self.momentum.sign()).clamp_(-rho_u, rho_u)


def _squared_frequency(height: int, width: int) -> Tensor:
    """Of each of :func:`torch.fft.rfft2`'s terms: the inverse of a photograph's power, roughly."""
    down, right = torch.fft.fftfreq(height), torch.fft.rfftfreq(width)
    squared: Tensor = down[:, None].square() + right.square()
    return squared


def _fold(image: Tensor, height: int, width: int) -> Tensor:
    """The mean of an image over all periods of height x width px: float (3, H, W) to (3, height, width)."""
    down, right = (torch.arange(length, device=image.device) for length in image.shape[1:])
    places = (down[:, None] % height * width + right % width).flatten()
    levelled = (image - image.mean((1, 2), keepdim=True)).flatten(1)
    folded = image.new_zeros(3, height * width).index_add_(1, places, levelled)
    times = torch.bincount(places, minlength=height * width).clamp_(min=1)
    return (folded / times).view(3, height, width)


def learn_noises(
    surrogate: Classwise,
    images: Tensor,
    labels: Tensor,
    loop: PGDConfig,
    *,
    keys: Tensor,
    eot: EOT | None,
    dtype: torch.dtype | None,
    share: Share = ALONE,
) -> Tensor:
    """K steps of the noises of these images' classes (Eq. 10, where the images of a class share a delta).

    Args:
        surrogate: its noises are changed in place.
        images: float (N, 3, H, W) in [0, 1].
        labels, keys: int64 (N,).
        loop: radius, step, K, J and the inner perturbation.
        eot: T.
        dtype: as for :func:`~semtransforms.noise.pgd.pgd`.
        share: for which of the images this process computes gradients; the noises move by those of all.

    Returns:
        float32 (n, 3, H, W): the noise of the process's own images after the last step, ``images + noise`` in [0, 1].
    """
    everywhere = surrogate.place(labels, keys, *images.shape[2:])
    images, labels, keys, chosen, places = map(share.own, (images, labels, keys, *everywhere))
    if surrogate.held:
        return surrogate.seen(chosen, places, images)
    known = largest_batches(surrogate.network)
    with frozen(surrogate.network):
        fused = fuse_batch_norm(surrogate.network)
        for k in range(loop.steps):
            seen = images + surrogate.seen(chosen, places, images)
            gradients = mean_gradient(fused, seen, labels, loop, fold_in(keys, _STEPS + k), eot, dtype, known)
            surrogate.descend(share.join(gradients, len(everywhere[0])), *everywhere, loop.alpha, loop.rho)
    return surrogate.seen(chosen, places, images)

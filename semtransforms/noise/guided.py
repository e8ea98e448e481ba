"""Pretrained surrogates: frozen networks against which each image's noise is driven, on top of its class's noise.

Class-wise noise rules over a network that learns its features along with it. The features of a pretrained network are
there before, and a linear layer on them goes on seeing what is in the pictures. So a few steps more make the features
of an image look like those of the next class (Fowl et al. 2021, TAP), while the surrogate of the fit holds on to the
noise that it rules by: the step is the sign of a weighted sum of both gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semtransforms.core.config import GeneratorConfig, PGDConfig, PretrainedSurrogate, Transformation, check_surrogates
from semtransforms.core.keys import fold_in
from semtransforms.core.pretrained.libraries import is_of_library, smallest_side
from semtransforms.core.pretrained.network import FromLibrary, build_from_library
from semtransforms.core.pretrained.weights import find_weights
from semtransforms.noise.ball import project
from semtransforms.noise.classwise import Classwise
from semtransforms.noise.fuse import fuse_batch_norm
from semtransforms.noise.linear import features_of, logistic_regression
from semtransforms.noise.pgd import frozen, mean_gradient
from semtransforms.views.eot import EOT, build_eot
from semtransforms.views.resize import NoiseScale

# chosen on clothing10; examples/reproduce/README.md has the trials
STEPS = 8
ALPHA = 2 / 255
SHARE = 0.75  # of the pretrained surrogates in a step; the rest is that of the network that was fitted
LEAST = 0.7  # of an image's area that they see at a step

_PENALTY = 0.01  # of a layer's logistic regression; of the order that is best for a probe
_ITERATIONS = 300  # of L-BFGS
_BATCH = 16  # images that a guide sees together on a CPU: their activations are hundreds of MiB
_FITTED, _PRETRAINED = range(2)  # what keys are folded with


class Guide(nn.Module):
    """A pretrained network and a linear layer that names the owner's classes.

    Args:
        network: gives features (N, F); it stays as it is.
        num_classes: C.

    Attributes:
        head: the layer, before :func:`fit_heads` all zeros.
    """

    def __init__(self, network: FromLibrary, num_classes: int) -> None:
        super().__init__()
        # saved with the layer: a generator is whole without the file that the weights came from
        for name in ("mean", "std"):
            network.register_buffer(name, getattr(network, name), persistent=True)
        self.network = network.requires_grad_(False)
        with torch.no_grad(), frozen(network):
            features = network(torch.zeros(1, 3, 8, 8)).shape[1]
        self.head = nn.Linear(features, num_classes).requires_grad_(False)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Float (N, 3, H, W) in [0, 1], of any size, to logits (N, C)."""
        logits: Tensor = self.head(self.network(images))
        return logits


def build_guides(surrogates: Sequence[PretrainedSurrogate], num_classes: int, *, with_weights: bool) -> nn.ModuleList:
    """The pretrained surrogates of a config.

    Args:
        surrogates: which.
        num_classes: C.
        with_weights: read their weights, as a fit does; a generator's own are loaded into it.

    Raises:
        ValueError, OSError, ModuleNotFoundError: as for ``build_from_library``.
    """
    guides = nn.ModuleList()
    with torch.random.fork_rng(devices=[]):  # the caller's own stream must not move
        for each in surrogates:
            weights = each.weights if with_weights else None
            network = build_from_library(
                each.network, num_classes=0, train_size=each.side, pretrained=weights, transfer="probe"
            )
            network.side = network.side or each.side  # it resizes what it is given; some networks take one size only
            guides.append(Guide(network, num_classes))
    return guides.eval()


def check_pretrained(surrogates: Sequence[PretrainedSurrogate]) -> None:
    """See that pretrained surrogates can be had, before any data are read.

    Raises:
        TypeError, ValueError, OSError, ModuleNotFoundError: unknown network, weights that are not there or not of it...
    """
    check_surrogates(surrogates)
    check_names(surrogates)
    build_guides(surrogates, 2, with_weights=True)


def check_names(surrogates: Sequence[PretrainedSurrogate]) -> None:
    """See that there are networks of these names, without making any.

    Raises:
        ValueError, ModuleNotFoundError: there are not.
    """
    for each in surrogates:
        if not is_of_library(each.network):
            smallest_side(each.network)  # has the nearest names where it is unknown
            raise ValueError(
                f"pretrained surrogate {each.network!r} is a network of this package, which has no pretrained weights. "
                "Name one of timm or torchvision, such as 'timm/efficientnet_lite0'."
            )


def named(config: GeneratorConfig, surrogates: Sequence[PretrainedSurrogate]) -> GeneratorConfig:
    """A config with pretrained surrogates whose weights are named by file and digest.

    A path would tell of the owner's machine.
    """
    found = (replace(each, weights=find_weights(each.network, each.weights).label) for each in surrogates)
    return replace(config, pretrained=tuple(found))


def fit_heads(guides: nn.ModuleList, images: Tensor, labels: Tensor, *, progress: bool) -> None:
    """Fit each guide's layer on clean images: multinomial logistic regression on its features.

    Args:
        guides: of :func:`build_guides`, changed in place.
        images: uint8 (N, 3, H, W), at the size at which noise is made.
        labels: int64 (N,).
        progress: show a bar.
    """
    for guide in guides:
        assert isinstance(guide, Guide)
        features = features_of(guide.network, images, None, batch=_BATCH, progress=progress).to(labels.device)
        classes = guide.head.out_features
        layer, solver, loss = logistic_regression(features, labels, classes, penalty=_PENALTY, iterations=_ITERATIONS)
        solver.step(loss)  # type: ignore[no-untyped-call]
        guide.head.load_state_dict(layer.float().state_dict())


def drive(
    surrogate: Classwise,
    images: Tensor,
    labels: Tensor,
    *,
    keys: Tensor,
    config: GeneratorConfig,
    eot: EOT,
    dtype: torch.dtype | None,
) -> Tensor:
    """Steps of each image's noise that start at its class's (Eq. 7 with the gradients of several networks).

    The fitted network's part descends the loss of the image's own label, that of the guides the loss of the next one.
    An image's gradient counts by its direction alone: each is brought to a mean of one before they are added.

    Args:
        surrogate: of the fit, with guides whose layers are fitted.
        images: float (N, 3, H, W) in [0, 1], at the size at which noise is made.
        labels, keys: int64 (N,).
        config: radius, and the loop that the fitted network's gradient is taken as in.
        eot: T, for the fitted network.
        dtype: autocast that one to it; the guides run in fp32, where their narrow convolutions are faster.

    Returns:
        float (N, 3, H, W) within the ball of ``rho_u``, ``images + noise`` in [0, 1].
    """
    assert config.num_classes is not None
    assert config.image_size is not None
    size, side = images.shape[2:], min(config.image_size)
    following = (labels + 1) % config.num_classes
    plain = PGDConfig(config.rho_u, ALPHA, STEPS)
    window = Transformation("resized-crop", {"scale": [LEAST, 1], "resolution": min(size)})
    seen = build_eot((window, Transformation("flip")))
    network = _Shrinking(surrogate.network, side)
    most = {} if images.is_cuda else {torch.Size((3, *size)): _BATCH}
    # the noise of the class as the fit had it, enlarged as it would be for a photograph
    small = NoiseScale(side, 0).made_at(*size)
    delta = surrogate.windows(*surrogate.place(labels, keys, *small)).view(-1, 3, *small)
    if delta.shape[2:] != size:
        delta = F.interpolate(delta, size, mode="bicubic")
    delta = project(delta, images, config.rho_u)
    with frozen(network), frozen(surrogate.guides):
        network.network = fuse_batch_norm(network.network)
        for k in range(STEPS):
            at, drawn = images + delta, fold_in(keys, k)
            own = mean_gradient(network, at, labels, config.defense, fold_in(drawn, _FITTED), eot, dtype, dict(most))
            step = (1 - SHARE) * _levelled(own)
            for number, guide in enumerate(surrogate.guides):
                theirs = fold_in(fold_in(drawn, _PRETRAINED), number)
                gradient = mean_gradient(guide, at, following, plain, theirs, seen, None, dict(most))
                step += SHARE / len(surrogate.guides) * _levelled(gradient)
            delta = project(delta - ALPHA * step.sign(), images, config.rho_u)
    return delta


class _Shrinking(nn.Module):
    """A network that is given larger views at the size that it was fitted at: squares of ``side`` px."""

    def __init__(self, network: nn.Module, side: int) -> None:
        super().__init__()
        self.network, self.side = network, side

    def forward(self, views: Tensor) -> Tensor:
        if min(views.shape[2:]) > self.side:
            views = F.interpolate(views, (self.side, self.side), mode="bilinear", antialias=True)
        logits: Tensor = self.network(views)
        return logits


def _levelled(gradient: Tensor) -> Tensor:
    return gradient / gradient.abs().mean((1, 2, 3), keepdim=True).clamp(min=1e-20)

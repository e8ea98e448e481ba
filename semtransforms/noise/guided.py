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

from semtransforms.core.config import GeneratorConfig, PretrainedSurrogate, Transformation, check_surrogates
from semtransforms.core.keys import fold_in
from semtransforms.core.pretrained.libraries import is_of_library, smallest_side
from semtransforms.core.pretrained.network import FromLibrary, build_from_library
from semtransforms.core.pretrained.weights import find_weights
from semtransforms.noise.ball import project
from semtransforms.noise.classwise import Classwise
from semtransforms.noise.fuse import fuse_batch_norm
from semtransforms.noise.linear import features_of, logistic_regression
from semtransforms.noise.pgd import forward, frozen, mean_gradient
from semtransforms.views.eot import EOT, build_eot
from semtransforms.views.resize import NoiseScale

# chosen on clothing10; examples/reproduce/README.md has the trials
STEPS = 12
ALPHA = 2 / 255
MOMENTUM = 1.0  # of the steps (Dong et al. 2018): what it misleads one network by carries over to others more often
SHARE = 0.6  # of the pretrained surrogates in a step; the rest is that of the network that was fitted
LEAST = 0.7  # of an image's area that they see at a step

_PENALTY = 0.01  # of a layer's logistic regression; of the order that is best for a probe
_ITERATIONS = 300  # of L-BFGS
_BATCH = 16  # images that a guide sees together on a CPU: their activations are hundreds of MiB
_FITTED, _PRETRAINED = range(2)  # what keys are folded with


class Guide(nn.Module):
    """A pretrained network and, for each size that it is given, a linear layer that names the owner's classes.

    Args:
        network: gives features (N, F); it stays as it is.
        sides: of the squares that it is given, in pixels.
        num_classes: C.

    Attributes:
        heads: the layers, before :func:`fit_heads` all zeros.

    Raises:
        Exception: the network takes no images of the smallest side; each library raises its own.
    """

    def __init__(self, network: FromLibrary, sides: Sequence[int], num_classes: int) -> None:
        super().__init__()
        # saved with the layer: a generator is whole without the file that the weights came from
        for name in ("mean", "std"):
            network.register_buffer(name, getattr(network, name), persistent=True)
        self.network = network.requires_grad_(False)
        self.sides = tuple(sides) if network.side is None else (network.side,)  # some take one size only
        with torch.no_grad(), frozen(network):
            features = network(torch.zeros(1, 3, min(sides), min(sides))).shape[1]
        self.heads = nn.ModuleList(nn.Linear(features, num_classes).requires_grad_(False) for _ in self.sides)
        for weight in self.heads.parameters():
            nn.init.zeros_(weight)

    def at(self, number: int) -> nn.Sequential:
        """The network and its layer at one of the sizes: float (N, 3, H, W) in [0, 1] to logits (N, C)."""
        return nn.Sequential(Resized(self.network, self.sides[number], enlarges=True), self.heads[number])


class Resized(nn.Module):
    """A network that is given images as squares of ``side`` px; smaller ones as they are, unless it enlarges them."""

    def __init__(self, network: nn.Module, side: int, *, enlarges: bool) -> None:
        super().__init__()
        self.network, self.side, self.enlarges = network, side, enlarges

    def forward(self, images: Tensor) -> Tensor:
        if self.enlarges or min(images.shape[2:]) > self.side:
            images = F.interpolate(images, (self.side, self.side), mode="bilinear", antialias=True)
        found: Tensor = self.network(images)
        return found


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
                each.network, num_classes=0, train_size=each.sides[0], pretrained=weights, transfer="probe"
            )
            try:
                guides.append(Guide(network, each.sides, num_classes))
            except Exception as error:
                raise ValueError(
                    f"pretrained surrogate {each.network!r} does not take images of {min(each.sides)} px ({error}). "
                    f"Give it larger sides: PretrainedSurrogate({each.network!r}, sides=(224,))."
                ) from error
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
    """Fit each guide's layers on clean images: multinomial logistic regression on its features.

    Args:
        guides: of :func:`build_guides`, changed in place.
        images: uint8 (N, 3, H, W), at the size at which noise is made.
        labels: int64 (N,).
        progress: show a bar.
    """
    for guide in guides:
        assert isinstance(guide, Guide)
        for side, head in zip(guide.sides, guide.heads, strict=True):
            assert isinstance(head, nn.Linear)
            seen = Resized(guide.network, side, enlarges=True)
            features = features_of(seen, images, None, batch=_BATCH, progress=progress).to(labels.device)
            layer, solver, loss = logistic_regression(
                features, labels, head.out_features, penalty=_PENALTY, iterations=_ITERATIONS
            )
            solver.step(loss)  # type: ignore[no-untyped-call]
            head.load_state_dict(layer.float().state_dict())


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

    The fitted network's part descends the loss of the image's own label; that of the guides, which take turns, descends
    the lead of the own class's logit over the next one's. A lead's gradient does not fade where the image is
    named wrongly already, as a loss's does, and carries over to more networks (Zhao et al., NeurIPS 2021). An image's
    gradient counts by its direction alone: each is brought to a mean of one before they are added, and so is each step
    before it joins those before it.

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
    window = Transformation("resized-crop", {"scale": [LEAST, 1], "resolution": min(size)})
    seen = build_eot((window, Transformation("flip")))
    network = Resized(surrogate.network, side, enlarges=False)
    most = {} if images.is_cuda else {torch.Size((3, *size)): _BATCH}
    # the noise of the class as the fit had it, enlarged as it would be for a photograph
    small = NoiseScale(side, 0).made_at(*size)
    delta = surrogate.windows(*surrogate.place(labels, keys, *small)).view(-1, 3, *small)
    if delta.shape[2:] != size:
        delta = F.interpolate(delta, size, mode="bicubic")
    delta, momentum = project(delta, images, config.rho_u), torch.zeros_like(images)
    views = _in_turn(surrogate.guides)
    with frozen(network), frozen(surrogate.guides):
        network.network = fuse_batch_norm(network.network)
        for k in range(STEPS):
            at, drawn = images + delta, fold_in(keys, k)
            own = mean_gradient(network, at, labels, config.defense, fold_in(drawn, _FITTED), eot, dtype, dict(most))
            step = (1 - SHARE) * _levelled(own)
            lead = _gradient_of_lead(views[k % len(views)], at, labels, following, seen, fold_in(drawn, _PRETRAINED))
            step += SHARE * _levelled(lead)
            momentum = MOMENTUM * momentum + _levelled(step)
            delta = project(delta - ALPHA * momentum.sign(), images, config.rho_u)
    return delta


def _in_turn(guides: nn.ModuleList) -> list[nn.Module]:
    """Each network at its first size, then each at its second one, and so on."""
    found: list[nn.Module] = []
    for number in range(max(len(guide.sides) for guide in guides if isinstance(guide, Guide))):
        found += [guide.at(number) for guide in guides if isinstance(guide, Guide) and number < len(guide.sides)]
    return found


def _gradient_of_lead(
    view: nn.Module, images: Tensor, labels: Tensor, following: Tensor, seen: EOT, keys: Tensor
) -> Tensor:
    """By how much the own class's logit is above the next one's, in one view of each image: its gradient."""
    found = []
    parts = (torch.split(each, _BATCH) for each in (images.detach(), labels, following, keys))
    for some, own, other, drawn in zip(*parts, strict=True):
        some.requires_grad_()
        with torch.enable_grad():
            logits = forward(view, seen(some, drawn), None)
            lead = logits.gather(1, own[:, None]) - logits.gather(1, other[:, None])
        found.append(torch.autograd.grad(lead.sum(), some)[0])
    return torch.cat(found)


def _levelled(gradient: Tensor) -> Tensor:
    return gradient / gradient.abs().mean((1, 2, 3), keepdim=True).clamp(min=1e-20)

"""A frozen network with each BatchNorm inside the convolution before it: one pass over memory less for each pair."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from semtransforms.models import WideBlock

# whose forward sends the first of a pair into the second and nowhere else; of exactly these types, since a subclass may
# have a forward of its own
_PAIRS: dict[type[nn.Module], tuple[tuple[str, str], ...]] = {
    ResNet: (("conv1", "bn1"),),
    BasicBlock: (("conv1", "bn1"), ("conv2", "bn2")),
    Bottleneck: (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")),
    WideBlock: (("conv1", "norm2"),),
}


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """The same function in eval mode, with BatchNorm inside the weights of the convolution that it directly follows.

    Looks into ``nn.Sequential``, torchvision's ResNets and the wide ResNet; everything else is used as it is.

    Args:
        network: in eval mode; it is not changed.

    Returns:
        A network that shares what could not be folded; its weights want no gradient.
    """
    # not named_children, which leaves out a layer that comes twice
    children = {name: child for name, child in network._modules.items() if child is not None}
    replaced = {name: folded for name, child in children.items() if (folded := fold_batch_norm(child)) is not child}
    for first, second in _pairs(network):
        convolution, norm = children.get(first), children.get(second)
        # exactly these: a parametrised convolution computes its weights, and without running statistics a BatchNorm
        # takes the batch's in eval mode too
        if type(convolution) is nn.Conv2d and type(norm) is nn.BatchNorm2d and norm.running_mean is not None:
            replaced[first] = fuse_conv_bn_eval(convolution, norm).requires_grad_(False)
            replaced[second] = nn.Identity()
    if not replaced:
        return network
    folded = copy.copy(network)
    folded._modules = {**network._modules, **replaced}
    return folded


def _pairs(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of children of which the second takes what the first gives."""
    if isinstance(network, nn.Sequential) and type(network).forward is nn.Sequential.forward:
        yield from itertools.pairwise(network._modules)
    yield from _PAIRS.get(type(network), ())

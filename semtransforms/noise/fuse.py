"""A frozen network with each BatchNorm inside the convolution before it: one pass over memory less for each pair."""

from __future__ import annotations

import copy
import itertools

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# whose forward sends the first of a pair into the second and nowhere else, and calls every other child as a whole; of
# exactly these types, since a subclass may have a forward of its own. By name: to import torchvision costs much
_PAIRS: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {
    ("torchvision.models.vgg", "VGG"): (),
    ("torchvision.models.resnet", "ResNet"): (("conv1", "bn1"),),
    ("torchvision.models.resnet", "BasicBlock"): (("conv1", "bn1"), ("conv2", "bn2")),
    ("torchvision.models.resnet", "Bottleneck"): (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")),
    ("semtransforms.core.models", "WideBlock"): (("conv1", "norm2"),),
}


def fuse_batch_norm(network: nn.Module) -> nn.Module:
    """The same function in eval mode, with BatchNorm inside the weights of the convolution that it directly follows.

    Looks into ``nn.Sequential``, torchvision's VGGs and ResNets and the wide ResNet. Everything else is used as it is:
    another module may take a ``Sequential`` apart or read its weights.

    Args:
        network: in eval mode; it is not changed.

    Returns:
        A network that shares what could not be fused; its weights want no gradient.
    """
    runs_in_turn = isinstance(network, nn.Sequential) and type(network).forward is nn.Sequential.forward
    kind = type(network).__module__, type(network).__qualname__
    if not runs_in_turn and kind not in _PAIRS:
        return network
    # not named_children, which leaves out a layer that comes twice
    children = {name: child for name, child in network._modules.items() if child is not None}
    replaced = {name: fused for name, child in children.items() if (fused := fuse_batch_norm(child)) is not child}
    pairs = itertools.pairwise(network._modules) if runs_in_turn else _PAIRS[kind]
    for first, second in pairs:
        convolution, norm = children.get(first), children.get(second)
        if not (isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)):
            continue
        # without running statistics it takes the batch's in eval mode too
        if _is_plain(convolution, nn.Conv2d) and _is_plain(norm, nn.BatchNorm2d) and norm.running_mean is not None:
            replaced[first] = fuse_conv_bn_eval(convolution, norm).requires_grad_(False)
            replaced[second] = nn.Identity()
    if not replaced:
        return network
    fused = copy.copy(network)
    fused._modules = {**network._modules, **replaced}
    return fused


def _is_plain(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a layer is what its type says: its weights its own, nothing hooked in."""
    return (
        type(layer) is kind
        # a pruned or parametrised layer computes its weights
        and "weight" in layer._parameters
        and not (layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks)
    )

"""BatchNorm inside convolutions: the same function with fewer passes over memory."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune  # noqa: F401 - nn.utils has it only once it is imported
from torchvision.models.resnet import BasicBlock

from semtransforms.core.models import build_model
from semtransforms.noise.fuse import fuse_batch_norm


def trained(network):
    """Statistics and weights as after training; eval mode."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2)
            nn.init.normal_(layer.weight, 1, 0.2)
            nn.init.normal_(layer.bias, 0, 0.2)
    return network.eval()


def norms(network):
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


# how many are left: DenseNet's blocks and the pre-activations of a wide ResNet have BatchNorm before the convolution
@pytest.mark.parametrize(
    ("name", "left"), [("convnet", 0), ("vgg16_bn", 0), ("resnet18", 0), ("resnet50", 0), ("wrn34_10", 16)]
)
def test_fusing_keeps_the_function_and_its_gradient(name, left):
    """The loop runs on the fused network: if it were another function, the noise would be for another surrogate."""
    torch.manual_seed(0)
    # in float64, so that only a mistake can show
    network = trained(build_model(name, num_classes=4, image_size=32)).double()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    fused = fuse_batch_norm(network)
    for ours, theirs in zip(*(outputs(form, images) for form in (fused, network)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-8)
    assert norms(network) > 0
    assert norms(fused) == left
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(weight.requires_grad for weight in network.parameters())


def outputs(network, images):
    logits = network(images)
    return logits, torch.autograd.grad(logits.square().sum(), images)[0]


def test_what_cannot_be_fused_is_left_alone():
    """A user's block with its own forward, or a layer that is not what its place says, would change its function."""

    class Residual(nn.Sequential):
        def forward(self, x):
            return x + super().forward(x)

    torch.manual_seed(0)
    convolution, relu = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()
    own_forward = nn.Sequential(Residual(convolution, nn.BatchNorm2d(3)), nn.ReLU())
    batch_statistics = nn.Sequential(convolution, nn.BatchNorm2d(3, track_running_stats=False))
    parametrised = nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 3, 3, padding=1)), nn.BatchNorm2d(3)
    )
    layer_between = nn.Sequential(relu, convolution, relu, nn.BatchNorm2d(3))  # the same object, before and after
    images = torch.rand(2, 3, 5, 5)
    for network in (own_forward, batch_statistics, parametrised, layer_between):
        network.eval()
        assert torch.equal(fuse_batch_norm(network)(images), network(images))
        assert norms(fuse_batch_norm(network)) == 1


class Skip(nn.Module):
    """Takes a ``Sequential`` apart, as U-Nets and feature extractors do."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU())

    def forward(self, x):
        first = self.body[0](x)
        return first + self.body[1:](first) + self.body[0].weight.sum()


def test_a_users_module_is_left_alone():
    """What it does with its layers only its forward knows: fused, its adversary would attack another network."""
    torch.manual_seed(0)
    network, images = trained(nn.Sequential(Skip(), nn.ReLU())), torch.rand(2, 3, 5, 5)
    assert torch.equal(fuse_batch_norm(network)(images), network(images))
    assert fuse_batch_norm(network) is network


def test_hooked_and_pruned_layers_are_left_alone():
    """A hook sees and changes what its layer gives; pruned weights are computed: neither can be fused."""

    class Block(BasicBlock):
        pass

    torch.manual_seed(0)
    images = torch.rand(2, 4, 5, 5)
    for kind, change in (
        (BasicBlock, lambda block: block.bn2.register_forward_hook(lambda layer, inputs, output: 2 * output)),
        (BasicBlock, lambda block: nn.utils.prune.l1_unstructured(block.conv2, "weight", 0.5)),
        (Block, lambda block: None),
    ):
        network = trained(kind(4, 4))
        change(network)
        torch.testing.assert_close(fuse_batch_norm(network)(images), network(images), atol=1e-5, rtol=1e-5)
        assert norms(fuse_batch_norm(network)) == (2 if kind is Block else 1)


def test_a_convolution_that_comes_twice_is_fused_twice():
    """Shared weights with a BatchNorm for each place: fusing by object would put one's statistics into the other."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 3, 3, padding=1)
    network = trained(nn.Sequential(convolution, nn.BatchNorm2d(3), convolution, nn.BatchNorm2d(3))).double()
    images = torch.rand(2, 3, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(fuse_batch_norm(network)(images), network(images), atol=1e-10, rtol=1e-8)
    assert norms(fuse_batch_norm(network)) == 0

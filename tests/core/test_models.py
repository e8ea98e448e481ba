"""Networks by name: published sizes, layer shapes, limits, errors."""

import pytest
import torch
import torchvision.models
from torch import nn

from semtransforms.core.models import MODELS, WideBlock, build_model


def on_meta(name: str, image_size: int = 32, num_classes: int = 10, width: int | None = None) -> nn.Module:
    """Shapes and counts without a single weight drawn."""
    with torch.device("meta"):
        return build_model(name, num_classes=num_classes, image_size=image_size, width=width)


def count(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())


def conv(inputs: int, outputs: int, kernel: int) -> int:
    """Weights of a convolution without bias and of the BatchNorm behind it (scale and shift)."""
    return kernel**2 * inputs * outputs + 2 * outputs


def resnet18_by_hand() -> int:
    """He et al. 2016, table 1, with the CIFAR stem: a row per stage (inputs, outputs)."""
    total = conv(3, 64, 3)
    for inputs, outputs in [(64, 64), (64, 128), (128, 256), (256, 512)]:
        total += conv(inputs, outputs, 3) + 3 * conv(outputs, outputs, 3)
        total += conv(inputs, outputs, 1) if inputs != outputs else 0  # shortcut
    return total + 512 * 10 + 10


def resnet50_by_hand() -> int:
    """He et al. 2016, table 1: bottlenecks 1x1, 3x3, 1x1, the last four times as wide."""
    total = conv(3, 64, 3)
    channels = 64
    for width, blocks in [(64, 3), (128, 4), (256, 6), (512, 3)]:
        total += conv(channels, 4 * width, 1)  # shortcut of the stage's first block
        for _ in range(blocks):
            total += conv(channels, width, 1) + conv(width, width, 3) + conv(width, 4 * width, 1)
            channels = 4 * width
    return total + 2048 * 10 + 10


def vgg16_bn_by_hand() -> int:
    """Simonyan & Zisserman 2015, column D; its convolutions have a bias."""
    columns = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    convolutions = sum(
        conv(inputs, outputs, 3) + outputs for inputs, outputs in zip([3, *columns], columns, strict=False)
    )
    return convolutions + 512 * 10 + 10


def densenet121_by_hand() -> int:
    """Huang et al. 2017, table 1, growth 32: norm-conv1x1(128)-norm-conv3x3(32) per layer, halved between blocks."""
    channels = 64
    total = 9 * 3 * channels
    for block, layers in enumerate([6, 12, 24, 16]):
        for _ in range(layers):
            total += 2 * channels + channels * 128 + 2 * 128 + 9 * 128 * 32
            channels += 32
        if block < 3:
            total += 2 * channels + channels * (channels // 2)
            channels //= 2
    return total + 2 * channels + channels * 10 + 10


def wrn34_10_by_hand() -> int:
    """Zagoruyko & Komodakis 2016, table 1, N = 5, k = 10, without dropout: norm before each convolution."""
    total = 9 * 3 * 16
    channels = 16
    for width in [160, 320, 640]:
        total += channels * width  # shortcut of the group's first block
        for _ in range(5):
            total += 2 * channels + 9 * channels * width + 2 * width + 9 * width * width
            channels = width
    return total + 2 * 640 + 640 * 10 + 10


def vit_by_hand() -> int:
    """Dosovitskiy et al. 2021, eq. 1 to 4, width 192, 6 layers, mean of the tokens: projections, MLP and two norms."""
    width = 192
    layer = 4 * width * (width + 1) + width * 4 * width + 4 * width + 4 * width * width + width + 2 * 2 * width
    return 3 * 4 * 4 * width + width + 6 * layer + 2 * width + width * 10 + 10


def test_the_small_transformer_sees_where_a_patch_is():
    """Without places it would be a bag of patches; with a table of them it would take one size only."""
    assert count(on_meta("vit")) == vit_by_hand()
    torch.manual_seed(0)
    network = build_model("vit", num_classes=3, image_size=16).eval()
    images = torch.rand(2, 3, 16, 24)
    logits = network(images)
    assert logits.shape == (2, 3)
    swapped = torch.cat([images[:, :, 4:8], images[:, :, :4], images[:, :, 8:]], 2)  # the first two rows of patches
    assert not torch.allclose(network(swapped), logits, atol=1e-4)
    network.get_submodule("network.tokens").forward = lambda patches: patches.flatten(2).transpose(1, 2)
    torch.testing.assert_close(network(swapped), network(images), atol=1e-4, rtol=1e-4)


def mixer_by_hand() -> int:
    """Tolstikhin et al. 2021, eq. 1: of each of 8 layers two norms, an MLP over 64 places and one over 128 channels."""
    width, places = 128, 64
    layer = 2 * 2 * width + sum(
        2 * inside * hidden + hidden + inside for inside, hidden in ((places, 64), (width, 512))
    )
    return 3 * 4 * 4 * width + width + 8 * layer + 2 * width + width * 10 + 10


def test_the_small_mixer_mixes_places_and_channels():
    """Without the first perceptron it would be a bag of patches; with attention, another network."""
    assert count(on_meta("mixer")) == mixer_by_hand()
    torch.manual_seed(0)
    network = build_model("mixer", num_classes=3, image_size=32).eval()
    layer = network.get_submodule("network.layers.0")
    tokens = torch.randn(2, 64, 128)
    gelu = torch.nn.functional.gelu

    def perceptron(x: torch.Tensor, part: nn.Module) -> torch.Tensor:
        first, second = (part.get_submodule(name) for name in ("0", "2"))
        return gelu(x @ first.weight.T + first.bias) @ second.weight.T + second.bias

    def norm(x: torch.Tensor) -> torch.Tensor:  # fresh: scale 1, shift 0
        return (x - x.mean(2, keepdim=True)) / (x.var(2, keepdim=True, correction=0) + 1e-5).sqrt()

    across = tokens + perceptron(norm(tokens).mT, layer.over_places).mT
    torch.testing.assert_close(layer(tokens), across + perceptron(norm(across), layer.over_channels))
    images = torch.rand(2, 3, 32, 40)
    swapped = torch.cat([images[:, :, 4:8], images[:, :, :4], images[:, :, 8:]], 2)
    assert network(images).shape == (2, 3)
    assert not torch.allclose(network(swapped), network(images), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "published", "by_hand"),
    [
        ("resnet18", 11_173_962, resnet18_by_hand),
        ("resnet50", 23_520_842, resnet50_by_hand),
        ("vgg16_bn", 14_728_266, vgg16_bn_by_hand),
        ("densenet121", 6_956_298, densenet121_by_hand),
        ("wrn34_10", 46_160_474, wrn34_10_by_hand),
    ],
)
def test_cifar_form_has_the_published_size(name, published, by_hand):
    """Another stem or head: figures of the paper would be measured on a different network under the same name."""
    assert by_hand() == published
    assert count(on_meta(name)) == published


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("resnet18", torchvision.models.ResNet18_Weights.IMAGENET1K_V1),
        ("resnet50", torchvision.models.ResNet50_Weights.IMAGENET1K_V1),
        ("vgg16_bn", torchvision.models.VGG16_BN_Weights.IMAGENET1K_V1),
        ("densenet121", torchvision.models.DenseNet121_Weights.IMAGENET1K_V1),
    ],
)
def test_imagenet_form_has_the_published_size(name, weights):
    """The CIFAR stem on 96 px and above would cost 16 times the time and not be the network ImageNet results name."""
    assert count(on_meta(name, image_size=96, num_classes=1000)) == weights.meta["num_params"]


@pytest.mark.parametrize(
    ("image_size", "expected"),
    [
        (32, [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]),
        (64, [(64, 64, 64), (128, 32, 32), (256, 16, 16), (512, 8, 8)]),
        (224, [(64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7)]),
    ],
)
def test_resnet18_layer_shapes(image_size, expected):
    """A leftover max-pool or stride: features of 8x8 where the CIFAR network has 32x32."""
    network = on_meta("resnet18", image_size)
    shapes = []
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        layer = network.get_submodule(f"network.{stage}")
        layer.register_forward_hook(lambda _layer, _inputs, output: shapes.append(tuple(output.shape[1:])))
    network(torch.empty(2, 3, image_size, image_size, device="meta"))
    assert shapes == expected


def test_mobilenets_cifar_form_has_the_published_weights():
    """Strides alone differ from the network of the paper."""
    large = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.meta["num_params"]
    assert count(on_meta("mobilenet_v2", image_size=96, num_classes=1000)) == large
    assert count(on_meta("mobilenet_v2")) == large - 1281 * 990  # heads of 1,000 and of 10 classes


@pytest.mark.parametrize(
    ("name", "last_map"), [("densenet121", 4), ("wrn34_10", 8), ("vgg16_bn", 1), ("mobilenet_v2", 4)]
)
def test_last_map_of_the_other_cifar_forms(name, last_map):
    """Stems without parameters (pooling, stride) escape the count: the last feature map at 32 px shows them."""
    inside = {"densenet121": "network.features", "wrn34_10": "network.group3", "vgg16_bn": "network.features",
              "mobilenet_v2": "network.features"}[name]  # fmt: skip
    network = on_meta(name)
    shapes = []
    network.get_submodule(inside).register_forward_hook(lambda _layer, _inputs, output: shapes.append(output.shape))
    network(torch.empty(2, 3, 32, 32, device="meta"))
    assert shapes[0][-2:] == (last_map, last_map)


def test_wrn_block_computes_what_the_paper_draws():
    """Pre-activation order or a shortcut taken from the wrong side gives the same count and another network."""
    torch.manual_seed(0)
    block = WideBlock(4, 6, stride=2).eval()
    x = torch.randn(2, 4, 5, 5)

    def relu_norm(v):  # freshly initialised BatchNorm in eval mode: mean 0, variance 1
        return (v / (1 + 1e-5) ** 0.5).clamp(min=0)

    def conv2d(v, weight, stride, padding):  # as a sum over shifted copies
        v = torch.nn.functional.pad(v, [padding] * 4)
        size = (v.shape[-1] - weight.shape[-1]) // stride + 1
        out = torch.zeros(v.shape[0], weight.shape[0], size, size)
        for i in range(weight.shape[2]):
            for j in range(weight.shape[3]):
                window = v[:, :, i : i + stride * size : stride, j : j + stride * size : stride][..., :size, :size]
                out += torch.einsum("nchw,oc->nohw", window, weight[:, :, i, j])
        return out

    weights = dict(block.named_parameters())
    active = relu_norm(x)
    hidden = relu_norm(conv2d(active, weights["conv1.weight"], 2, 1))
    expected = conv2d(hidden, weights["conv2.weight"], 1, 1) + conv2d(active, weights["shortcut.weight"], 2, 0)
    with torch.no_grad():
        torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-4)


def test_convnet_is_small_and_grows_with_width():
    """The laptop network: about 0.3 M weights at width 32; a width that is ignored leaves the count unchanged."""
    assert 200_000 < count(on_meta("convnet")) < 400_000
    assert count(on_meta("convnet")) == count(on_meta("convnet", width=32))
    assert 3 < count(on_meta("convnet", width=64)) / count(on_meta("convnet")) < 4.1  # quadratic in the width


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 17), (28, 28), (33, 64)])
def test_convnet_takes_any_height_and_width(height, width):
    """Photographs are rarely square; a flatten that knows its size would refuse them."""
    network = build_model("convnet", num_classes=3, image_size=8, width=4).eval()
    logits = network(torch.rand(2, 3, height, width))
    assert logits.shape == (2, 3)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("image_size", ["smallest", 96])
def test_every_network_runs_from_its_smallest_size(name, image_size):
    """A limit written too low fails in the middle of a fit, deep inside a pooling layer."""
    size = MODELS[name].smallest if image_size == "smallest" else image_size
    network = on_meta(name, size, num_classes=7)
    assert network(torch.empty(2, 3, size, size, device="meta")).shape == (2, 7)


def test_images_are_centred_and_left_alone():
    """Another scale would change what a step of 1/255 means; an in-place shift would corrupt the caller's images."""
    network = build_model("convnet", num_classes=2, image_size=8, width=4).eval()
    seen = []
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    first.register_forward_hook(lambda _layer, inputs, _output: seen.append(inputs[0].clone()))
    images = torch.rand(2, 3, 8, 8)
    before = images.clone()
    network(images)
    torch.testing.assert_close(seen[0], before - 0.5, rtol=0, atol=0)
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", list(MODELS))
def test_centring_adds_nothing_to_the_state(name):
    """A buffer for mean and deviation would make weights from elsewhere fail to load with strict=True."""
    assert all(key.startswith("network.") for key in on_meta(name).state_dict())


def test_a_seed_reproduces_the_weights_and_they_load_strictly():
    """Weights drawn outside torch's generator could not be reproduced from the seed in a config."""

    def seeded(seed):
        torch.manual_seed(seed)
        return build_model("convnet", num_classes=4, image_size=8, width=4).eval()

    first, second, other = seeded(1), seeded(1), seeded(2)
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(first(images), second(images))
    assert not torch.equal(first(images), other(images))
    other.load_state_dict(first.state_dict(), strict=True)
    assert torch.equal(first(images), other(images))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"name": "resnet81"}, ["'resnet81'", "resnet18"]),
        ({"name": "wrn"}, ["'wrn'", "wrn34_10"]),
        ({"name": "???"}, ["'???'", *MODELS]),
        ({"num_classes": 1}, ["num_classes", "got 1", "at least 2"]),
        ({"image_size": 7}, ["image_size", "got 7", "at least 8", "enlarge"]),
        ({"name": "vgg16_bn", "image_size": 28}, ["'vgg16_bn'", "got 28", "at least 32", "convnet", "resnet18"]),
        ({"name": "resnet18", "width": 32}, ["width=32", "'resnet18'", "convnet"]),
        ({"width": 0}, ["width", "got 0", "32"]),
    ],
)
def test_bad_arguments_name_the_value_and_the_remedy(arguments, parts):
    """Without these a typing error costs a traceback out of torchvision, or an hour of fitting."""
    arguments = {"name": "convnet", "num_classes": 10, "image_size": 32} | arguments
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the parts below are the match
        build_model(arguments.pop("name"), **arguments)
    for part in parts:
        assert part in str(error.value)

"""Networks by name: the surrogates noise is computed on and the victims it is measured with.

Below 96 px every network has its CIFAR form (3x3 convolution at full resolution, no pooling before the first
block), from 96 px on its ImageNet form. All take float images in [0, 1]; the centring is their first layer, so that
radii and gradients keep the unit of a pixel.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semtransforms.core.names import unknown

IMAGENET_FROM = 96  # px; STL-10 and up. Smaller images would be 3x3 or less after the ImageNet stem and four stages


class Centre(nn.Module):
    """Shift float images from [0, 1] to [-0.5, 0.5]: the normalisation (x - 0.5) / 1, which scales no gradient."""

    def forward(self, images: Tensor) -> Tensor:
        return images - 0.5


class WideBlock(nn.Module):
    """Pre-activation residual block of a wide ResNet; a 1x1 convolution carries the shortcut where the shape changes.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        stride: of the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm1(x))
        residual: Tensor = self.conv2(F.relu(self.norm2(self.conv1(active))))
        return residual + (x if self.shortcut is None else self.shortcut(active))


def _initialised(network: nn.Module) -> nn.Module:
    """Draw every convolution as torchvision's networks and the wide ResNet do: He normal, fan-out."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network


def _cifar_conv(channels: int) -> nn.Module:
    return _initialised(nn.Conv2d(3, channels, 3, padding=1, bias=False))


def _convnet(num_classes: int, image_size: int, width: int) -> nn.Module:
    """Six convolutions, about 0.29 M weights at width 32, at home on a laptop's CPU.

    The first one already halves the resolution: a full-resolution layer would cost more time than accuracy (on
    10,000 rows of cifar10-jpeg this form reaches 75 % with 9.9 M multiplications an image, one with four convolutions
    from full resolution on 75 % with 12.6 M).
    """
    blocks = [
        _conv_block(3, width, kernel=4, stride=2),
        _conv_block(width, width),
        nn.MaxPool2d(2),
        _conv_block(width, 2 * width),
        _conv_block(2 * width, 2 * width),
        nn.MaxPool2d(2),
        _conv_block(2 * width, 4 * width),
        _conv_block(4 * width, 4 * width),
    ]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, num_classes)]
    return _initialised(nn.Sequential(*blocks, *head))


def _conv_block(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Module:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


# torchvision is imported where a network of its is built: it brings torch's compiler, 160 MB and seconds that whoever
# protects with a convnet needs not pay for
def _resnet18(num_classes: int, image_size: int) -> nn.Module:
    import torchvision.models

    return _with_resnet_stem(torchvision.models.resnet18(num_classes=num_classes), image_size)


def _resnet50(num_classes: int, image_size: int) -> nn.Module:
    import torchvision.models

    return _with_resnet_stem(torchvision.models.resnet50(num_classes=num_classes), image_size)


def _with_resnet_stem(network: nn.Module, image_size: int) -> nn.Module:
    if image_size < IMAGENET_FROM:
        network.conv1 = _cifar_conv(64)
        network.maxpool = nn.Identity()
    return network


def _vgg16_bn(num_classes: int, image_size: int) -> nn.Module:
    """VGG starts at full resolution in both forms; what the CIFAR form changes is the head."""
    import torchvision.models

    if image_size >= IMAGENET_FROM:
        large: nn.Module = torchvision.models.vgg16_bn(num_classes=num_classes)
        return large
    layout = torchvision.models.vgg.cfgs["D"]
    # from its layers: torchvision's constructor would first draw the 124 M weights of the head that is replaced
    return nn.Sequential(
        OrderedDict(
            features=_initialised(torchvision.models.vgg.make_layers(layout, batch_norm=True)),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Linear(512, num_classes),
        )
    )


def _densenet121(num_classes: int, image_size: int) -> nn.Module:
    import torchvision.models

    network: nn.Module = torchvision.models.densenet121(num_classes=num_classes)
    if image_size < IMAGENET_FROM:
        # the CIFAR form has no normalisation before its first dense layer, which brings its own
        features = network.get_submodule("features")
        layers = OrderedDict(features.named_children()) | {"conv0": _cifar_conv(64)}
        for name in ("norm0", "relu0", "pool0"):
            del layers[name]
        network.features = nn.Sequential(layers)
    return network


def _wrn34_10(num_classes: int, image_size: int) -> nn.Module:
    """Depth 34 = 3 groups x 5 blocks x 2 convolutions + 4 (stem and three shortcuts); width 10 x (16, 32, 64)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if image_size < IMAGENET_FROM:
        layers["stem"] = _cifar_conv(16)
    else:
        layers["stem"] = _initialised(nn.Conv2d(3, 16, 7, stride=2, padding=3, bias=False))
        layers["stem_pool"] = nn.MaxPool2d(3, stride=2, padding=1)
    channels = 16
    for group, (outputs, stride) in enumerate([(160, 1), (320, 2), (640, 2)], start=1):
        blocks = [WideBlock(channels if i == 0 else outputs, outputs, stride if i == 0 else 1) for i in range(5)]
        layers[f"group{group}"] = _initialised(nn.Sequential(*blocks))
        channels = outputs
    layers["norm"] = nn.BatchNorm2d(channels)
    layers["relu"] = nn.ReLU()
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["classifier"] = nn.Linear(channels, num_classes)
    return nn.Sequential(layers)


class Tokens(nn.Module):
    """A map of patches as a sequence, (N, C, h, w) to (N, h w, C), with the sines and cosines of each patch's place."""

    def forward(self, patches: Tensor) -> Tensor:
        channels, height, width = patches.shape[1:]
        rates = 10_000.0 ** -torch.linspace(0, 1, channels // 4, device=patches.device)
        row, column = (torch.arange(length, device=patches.device)[:, None] * rates for length in (height, width))
        row, column = row[:, None].expand(-1, width, -1), column[None].expand(height, -1, -1)
        places = torch.cat([row.sin(), row.cos(), column.sin(), column.cos()], 2)
        return (patches + places.permute(2, 0, 1)).flatten(2).transpose(1, 2)


class MeanToken(nn.Module):
    """The mean over a sequence: (N, T, C) to (N, C)."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.mean(1)


def _vit(num_classes: int, image_size: int) -> nn.Module:
    """A small vision transformer: patches of 4 px (ImageNet form: 16), 6 layers of width 192, 3 heads.

    The plain form of Beyer et al. (2022): places as sines and cosines, the mean of all tokens, no class token; so it
    takes any size.
    """
    width, patch = 192, 4 if image_size < IMAGENET_FROM else 16
    layers = [
        nn.TransformerEncoderLayer(
            width, width // 64, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        for _ in range(6)
    ]
    return nn.Sequential(
        OrderedDict(
            patches=nn.Conv2d(3, width, patch, patch),
            tokens=Tokens(),
            layers=nn.Sequential(*layers),
            norm=nn.LayerNorm(width),
            pool=MeanToken(),
            classifier=nn.Linear(width, num_classes),
        )
    )


class InSequence(nn.Module):
    """A map as a sequence: (N, C, h, w) to (N, h w, C)."""

    def forward(self, patches: Tensor) -> Tensor:
        return patches.flatten(2).transpose(1, 2)


class MixerLayer(nn.Module):
    """A layer of an MLP-Mixer: two perceptrons, one over the places and one over the channels, each added to its input.

    Args:
        places: length of the sequence.
        channels: of each token.
    """

    def __init__(self, places: int, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.over_places = _perceptron(places, channels // 2)
        self.over_channels = _perceptron(channels, 4 * channels)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.over_places(self.norm1(tokens).transpose(1, 2)).transpose(1, 2)
        mixed: Tensor = tokens + self.over_channels(self.norm2(tokens))
        return mixed


def _perceptron(width: int, hidden: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


def _mixer(num_classes: int, image_size: int) -> nn.Module:
    """A small MLP-Mixer (Tolstikhin et al. 2021): patches of 4 px (ImageNet form: 16), 8 layers of width 128.

    The perceptrons over places know how many there are; so the patches of an image of any size are brought to 8 x 8
    places by their means, which those of 32 x 32 px are (ImageNet form: of 128 x 128 px).
    """
    width, side, patch = 128, 8, 4 if image_size < IMAGENET_FROM else 16
    return nn.Sequential(
        OrderedDict(
            patches=nn.Conv2d(3, width, patch, patch),
            places=nn.AdaptiveAvgPool2d(side),
            sequence=InSequence(),
            layers=nn.Sequential(*(MixerLayer(side**2, width) for _ in range(8))),
            norm=nn.LayerNorm(width),
            pool=MeanToken(),
            classifier=nn.Linear(width, num_classes),
        )
    )


def _mobilenet_v2(num_classes: int, image_size: int) -> nn.Module:
    """MobileNet V2 (Sandler et al. 2018); its CIFAR form halves three times and not five, to 4 x 4 of 32 x 32."""
    import torchvision.models

    if image_size >= IMAGENET_FROM:
        large: nn.Module = torchvision.models.mobilenet_v2(num_classes=num_classes)
        return large
    # the paper's Table 2 (expansion, channels, blocks, stride of the first), but for the stride of the second row
    rows = [[1, 16, 1, 1], [6, 24, 2, 1], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1]]
    small: nn.Module = torchvision.models.mobilenet_v2(num_classes=num_classes, inverted_residual_setting=rows)
    stem = small.get_submodule("features.0.0")
    assert isinstance(stem, nn.Conv2d)
    stem.stride = (1, 1)
    return small


class Architecture(NamedTuple):
    """A row of `MODELS`."""

    build: Callable[..., nn.Module]  # (num_classes, image_size), and width where the row has one
    smallest: int  # px; below it a stage would see an empty or a single-pixel-wide map
    width: int | None = None  # default; None: the network comes in one width only


MODELS: Mapping[str, Architecture] = {
    "convnet": Architecture(_convnet, smallest=8, width=32),
    "resnet18": Architecture(_resnet18, smallest=8),
    "resnet50": Architecture(_resnet50, smallest=8),
    "vgg16_bn": Architecture(_vgg16_bn, smallest=32),
    "densenet121": Architecture(_densenet121, smallest=8),
    "wrn34_10": Architecture(_wrn34_10, smallest=8),
    "vit": Architecture(_vit, smallest=8),
    "mixer": Architecture(_mixer, smallest=8),
    "mobilenet_v2": Architecture(_mobilenet_v2, smallest=8),
}


def look_up(name: str, width: int | None = None) -> Architecture:
    """The row of `MODELS`, checked without building anything.

    Args:
        name: a key of `MODELS`.
        width: asked for, or ``None``.

    Raises:
        ValueError: unknown name, a width for a network that has none, a width below 1.
    """
    if name not in MODELS:
        raise ValueError(unknown("network", name, MODELS))
    row = MODELS[name]
    if width is not None and row.width is None:
        raise ValueError(f"width={width} given for {name!r}, which comes in one width. Leave it out, or use 'convnet'.")
    if width is not None and width < 1:
        raise ValueError(f"width must be at least 1, got {width}. The default for {name!r} is {row.width}.")
    return row


def build_model(name: str, *, num_classes: int, image_size: int, width: int | None = None) -> nn.Module:
    """Build a freshly initialised network whose first layer is the centring of [0, 1] images.

    Args:
        name: a key of `MODELS`.
        num_classes: size of the output, at least 2.
        image_size: shorter side of the images in pixels; 96 and above give the ImageNet form. The network itself
            takes any height and width from its smallest size on.
        width: channels after the first convolution, for networks that have the choice (``convnet``: 32).

    Returns:
        A module in train mode: float ``(N, 3, H, W)`` in [0, 1] -> float logits ``(N, num_classes)``.

    Raises:
        ValueError: unknown name, fewer than two classes, images too small for the network, a width for a network
            that has none, a width below 1.
    """
    build, smallest, default_width = look_up(name, width)
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}. One class leaves nothing to learn.")
    if image_size < smallest:
        others = [other for other, row in MODELS.items() if row.smallest <= image_size]
        remedy = f"use one of {', '.join(others)}" if others else "enlarge the images"
        raise ValueError(f"image_size must be at least {smallest} for {name!r}, got {image_size}: {remedy}.")
    options = {} if default_width is None else {"width": width or default_width}
    network = build(num_classes, image_size, **options)
    return nn.Sequential(OrderedDict(centre=Centre(), network=network))

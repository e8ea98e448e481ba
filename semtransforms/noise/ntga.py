"""NTGA (Yuan and Wu 2021): noise that spoils what a wide network would learn from it, in closed form.

Gradient flow on the squared error of an infinitely wide network ends where its neural tangent kernel (NTK) says, with
no training: after time t, trained on (X, Y), it names validation images X_v by

    f_t(X_v) = K(X_v, X) K(X, X)^-1 (I - exp(-t K(X, X) / |Y|)) Y,

and the noise climbs the cross-entropy of f_t(X_v) through both kernels. Here K is the kernel of networks of finite
width as they are initialised, averaged over some of them; the original takes the limit of infinite width.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from semtransforms.core.config import GeneratorConfig
from semtransforms.noise.ball import project
from semtransforms.noise.painted import ClosedForm

# of the original: the variance of weights and biases, and the share of the kernel's mean diagonal added to it
WEIGHT_VARIANCE, BIAS_VARIANCE, RIDGE = 1.76, 0.18, 1e-4
DIGEST_BYTES = 16


@dataclass(frozen=True)
class KernelSettings:
    """NTGA's own numbers. A config keeps them in fields that other methods read otherwise; here is the translation.

    Args:
        time: t, how long the kernel's network is trained, by gradient flow at learning rate 1.
        networks: how many networks the kernel is averaged over.
        block: about how many images' noise is found together.
    """

    time: int
    networks: int
    block: int

    @classmethod
    def of(cls, config: GeneratorConfig) -> KernelSettings:
        """Those of a config."""
        return cls(time=config.train_steps, networks=config.num_samples, block=config.batch_size)


@dataclass(frozen=True)
class Layer:
    """One layer, in the NTK's parametrisation: weights are standard normal and scaled where they are used.

    Args:
        weight: float (out, in) of a dense layer, (out, in, k, k) of a convolution.
        bias: float (out,).
        stride: of a convolution, which keeps the size otherwise.
        activation: ``"erf"``, ``"relu"`` or ``None``.
    """

    weight: Tensor
    bias: Tensor
    stride: int = 1
    activation: str | None = None

    @property
    def scale(self) -> float:
        """What weights are multiplied by: the square root of their variance over the inputs of a unit."""
        return math.sqrt(WEIGHT_VARIANCE / self.weight[0].numel())

    def to(self, device: torch.device) -> Layer:
        """The layer on a device."""
        return replace(self, weight=self.weight.to(device), bias=self.bias.to(device))

    def before(self, x: Tensor) -> Tensor:
        """The layer's output before its activation."""
        weight, bias = self.scale * self.weight, math.sqrt(BIAS_VARIANCE) * self.bias
        if self.weight.ndim == 2:
            return F.linear(x.flatten(1), weight, bias)
        return F.conv2d(x, weight, bias, self.stride, self.weight.shape[-1] // 2)

    def after(self, z: Tensor) -> Tensor:
        """The activation."""
        if self.activation is None:
            return z
        return torch.erf(z) if self.activation == "erf" else F.relu(z)

    def inner_products(self, inputs: Tensor, signals: Tensor, inputs2: Tensor, signals2: Tensor) -> Tensor:
        """This layer's part of the kernel: the inner products of two sets' gradients by its weights and bias.

        Args:
            inputs, inputs2: what came in, float (N, ...) and (M, ...).
            signals, signals2: the output's gradient by what ``before`` gave.

        Returns:
            float (N, M).
        """
        if self.weight.ndim == 2:  # the gradient is an outer product: its inner products factor
            shared = signals @ signals2.T
            return self.scale**2 * shared * (inputs.flatten(1) @ inputs2.flatten(1).T) + BIAS_VARIANCE * shared
        gradients, gradients2 = (self._weight_gradients(*pair) for pair in ((inputs, signals), (inputs2, signals2)))
        biases, biases2 = signals.sum((2, 3)), signals2.sum((2, 3))
        return self.scale**2 * gradients @ gradients2.T + BIAS_VARIANCE * biases @ biases2.T

    def _weight_gradients(self, inputs: Tensor, signals: Tensor) -> Tensor:
        size = self.weight.shape[-1]
        gradients = []
        # some images at a time: their windows are many times as large as they are
        for some, own in zip(torch.split(inputs, 64), torch.split(signals, 64), strict=True):
            windows = F.unfold(some, size, padding=size // 2, stride=self.stride)  # (N, in k k, positions)
            gradients.append((own.flatten(2) @ windows.transpose(1, 2)).flatten(1))
        return torch.cat(gradients)


Network = Sequence[Layer]


def build_network(kind: str, image_shape: Sequence[int], *, seed: int) -> Network:
    """One of the original's two architectures with one output, freshly initialised.

    Args:
        kind: ``"ntk-fnn"``, five dense layers of 512 with erf; ``"ntk-cnn"``, two convolutions of 64 (5 x 5, stride 2,
            ReLU), then dense layers of 384 and 192.
        image_shape: (3, H, W).
        seed: of the weights.

    Returns:
        Its layers.
    """
    generator = torch.Generator().manual_seed(seed)

    def layer(*shape: int, stride: int = 1, activation: str | None = None) -> Layer:
        weight, bias = (torch.randn(size, generator=generator) for size in (shape, shape[:1]))
        return Layer(weight, bias, stride, activation)

    channels, height, width = image_shape
    if kind == "ntk-fnn":
        sizes = [channels * height * width, *[512] * 5]
        return [
            *(layer(out, into, activation="erf") for into, out in pairwise(sizes)),
            layer(1, 512),
        ]
    left = 64 * (-(-height // 4)) * (-(-width // 4))
    return [
        layer(64, channels, 5, 5, stride=2, activation="relu"),
        layer(64, 64, 5, 5, stride=2, activation="relu"),
        layer(384, left),
        layer(192, 384),
        layer(1, 192),
    ]


def factors(network: Network, images: Tensor) -> list[tuple[Tensor, Tensor]]:
    """What the kernel is made of: for each layer what came in, and the output's gradient by its pre-activation.

    Args:
        network: from :func:`build_network`.
        images: float (N, 3, H, W).

    Returns:
        A pair of float (N, ...) for each layer, differentiable by ``images``.
    """
    with torch.no_grad():
        shapes, x = [], images[:1]
        for layer in network:
            z = layer.before(x)
            shapes.append(z.shape[1:])
            x = layer.after(z)

    def output(taps: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        inputs, x = [], images
        for layer, tap in zip(network, taps, strict=True):
            inputs.append(x)
            x = layer.after(layer.before(x) + tap)
        return x.sum(), inputs  # an image's output depends on no other image: the sum's gradient holds each one's own

    taps = [images.new_zeros(len(images), *shape) for shape in shapes]
    signals, inputs = torch.func.grad(output, has_aux=True)(taps)
    return list(zip(inputs, signals, strict=True))


def kernel(network: Network, one: list[tuple[Tensor, Tensor]], two: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The neural tangent kernel between two sets of images, from their factors: float (N, M)."""
    parts = [layer.inner_products(*a, *b) for layer, a, b in zip(network, one, two, strict=True)]
    return torch.stack(parts).sum(0)


def predict(train_kernel: Tensor, cross_kernel: Tensor, targets: Tensor, time: float) -> Tensor:
    """What a network that started at 0 names after training for a time, by the squared error (module's equation).

    Args:
        train_kernel: float (N, N).
        cross_kernel: float (M, N), of the images to name with those trained on.
        targets: float (N, C).
        time: t, gradient flow at learning rate 1.

    Returns:
        float (M, C).
    """
    ridge = RIDGE * train_kernel.diagonal().mean() * torch.eye(len(train_kernel), device=train_kernel.device)
    regular = train_kernel + ridge
    learned = targets - torch.linalg.matrix_exp(-time / targets.numel() * regular) @ targets
    named: Tensor = cross_kernel @ torch.linalg.solve(regular, learned)
    return named


def attack_block(
    networks: Sequence[Network],
    images: Tensor,
    labels: Tensor,
    validation: tuple[Tensor, Tensor],
    *,
    num_classes: int,
    rho: float,
    alpha: float,
    steps: int,
    time: float,
) -> Tensor:
    """The noise of one block of training images, found together: K steps along the sign of the gradient.

    Args:
        networks: whose kernels are averaged.
        images: float (N, 3, H, W) in [0, 1].
        labels: int64 (N,).
        validation: images float (M, 3, H, W) and labels int64 (M,), what shall be named wrongly.
        num_classes: C.
        rho, alpha, steps: radius, step size and K.
        time: t.

    Returns:
        float (N, 3, H, W) within ``rho``, ``images + noise`` in [0, 1].
    """
    targets = F.one_hot(labels, num_classes).to(images.dtype)
    with torch.no_grad():
        known = [factors(network, validation[0]) for network in networks]
    delta = torch.zeros_like(images)
    for _ in range(steps):
        point = (images + delta).requires_grad_()
        made = [factors(network, point) for network in networks]
        train, cross = (
            torch.stack([kernel(n, a, b) for n, a, b in zip(networks, left, made, strict=True)]).mean(0)
            for left in (made, known)
        )
        named = predict(train, cross, targets, time)
        gradient = torch.autograd.grad(F.cross_entropy(named, validation[1]), point)[0]
        delta = project(delta + alpha * gradient.sign(), images, rho)
    return delta


class RecordedNoise(ClosedForm):
    """Noise that was made for certain images together, found again by their bytes and labels.

    Args:
        count: images.
        image_size: height and width.
    """

    smallest = 1
    digests: Tensor
    levels: Tensor

    def __init__(self, count: int, image_size: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("digests", torch.zeros(count, DIGEST_BYTES, dtype=torch.uint8))
        self.register_buffer("levels", torch.zeros(count, 3, *image_size, dtype=torch.int8))
        self._rows: dict[bytes, int] = {}

    def record(self, rows: Tensor, images: Tensor, labels: Tensor, levels: Tensor) -> None:
        """Keep the noise of some images.

        Args:
            rows: int64 (N,), where.
            images: uint8 (N, 3, H, W).
            labels: int64 (N,).
            levels: int8 (N, 3, H, W).
        """
        self.digests[rows] = digests(images, labels).to(self.digests.device)
        self.levels[rows] = levels.to(self.levels.device)
        self._rows = {}

    def noise(self, images: Tensor, labels: Tensor, keys: Tensor) -> Tensor:
        """The noise kept for these images; the keys are not used: it was decided by the fit.

        Raises:
            ValueError: there is none for one of them.
        """
        if not self._rows:  # of equal images with equal labels the first one's
            kept = self.digests.cpu().numpy()
            self._rows = {kept[row].tobytes(): row for row in reversed(range(len(kept)))}
        wanted = digests(images.cpu(), labels.cpu()).numpy()
        rows = [self._rows.get(digest.tobytes()) for digest in wanted]
        if None in rows:
            raise ValueError(
                f"images: {rows.count(None)} of {len(rows)} were not there when this generator was fitted, and NTGA "
                "makes the noise of all images together. Fit it on exactly the images and labels to protect."
            )
        return self.levels[rows].to(images.device) / 255


def digests(images: Tensor, labels: Tensor) -> Tensor:
    """What an image with its label is found by: uint8 (N, 3, H, W) and int64 (N,) to uint8 (N, 16)."""
    found = [
        hashlib.blake2b(image.numpy().tobytes(), key=str(label).encode(), digest_size=DIGEST_BYTES).digest()
        for image, label in zip(images, labels.tolist(), strict=True)
    ]
    return torch.frombuffer(bytearray(b"".join(found)), dtype=torch.uint8).view(-1, DIGEST_BYTES)

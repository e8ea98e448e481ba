"""The trainer who learns what the noise is from the protected images alone, after D-VAE (Yu et al., ICML 2024)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semtransforms.core.checks import check_integer
from semtransforms.core.grid import to_float
from semtransforms.core.steps import Step
from semtransforms.data.loading import Labelled
from semtransforms.evaluation.countermeasures.base import Countermeasure
from semtransforms.evaluation.countermeasures.learned import Course, Learned, batch_of, in_chunks, train, unnamed

LATENT, WIDTH = 16, 32  # channels
CELL = 4  # px: the side of what one latent vector stands for


def _decoder(inputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, 2 * WIDTH, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(2 * WIDTH, 4 * WIDTH, 3, padding=1),
        nn.PixelShuffle(2),
        nn.ReLU(),
        nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(WIDTH, 12, 3, padding=1),
        nn.PixelShuffle(2),
    )


class NoiseApart(nn.Module):
    """A variational autoencoder with a second decoder, which has the class and says what the first leaves out.

    Few bits go through the first, so it leaves out what is cheap to tell by the class: the noise.

    Args:
        classes: of the labels.
        height, width: of the images, in pixels.
    """

    def __init__(self, classes: int, height: int, width: int) -> None:
        super().__init__()
        self.classes = classes
        self.grid = (-(-height // CELL), -(-width // CELL))
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, 2 * WIDTH, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * WIDTH, 2 * LATENT, 3, padding=1),
        )
        self.image, self.noise = _decoder(LATENT), _decoder(2 * LATENT)
        self.of_class = nn.Linear(classes, LATENT * self.grid[0] * self.grid[1], bias=False)
        nn.init.normal_(self.of_class.weight)
        nn.init.zeros_(self.noise[-2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.noise[-2].bias)  # type: ignore[arg-type]

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the latent vectors: each float (N, LATENT, h, w)."""
        rows, columns = (cells * CELL - side for cells, side in zip(self.grid, images.shape[2:], strict=True))
        mean, log_variance = self.encoder(F.pad(images - 0.5, (0, columns, 0, rows), mode="replicate")).chunk(2, 1)
        return mean, log_variance.clamp(-12, 4)

    def decode(self, latent: Tensor, images: Tensor) -> Tensor:
        """What the latent vectors say of the images."""
        found: Tensor = self.image(latent)[:, :, : images.shape[2], : images.shape[3]] + 0.5
        return found

    def noise_of(self, latent: Tensor, labels: Tensor, images: Tensor) -> Tensor:
        """What the class and the latent vectors say of the noise."""
        told = self.of_class(F.one_hot(labels, self.classes).float()).view(-1, LATENT, *self.grid)
        found: Tensor = self.noise(torch.cat([latent, told], 1))[:, :, : images.shape[2], : images.shape[3]]
        return found

    def without_noise(self, images: Tensor, labels: Tensor) -> Tensor:
        """The images, less what is said of their noise."""
        return images - self.noise_of(self.encode(images)[0], labels, images)

    def rebuilt(self, images: Tensor, labels: Tensor) -> Tensor:
        """What goes through the first decoder, which is not told the label."""
        return self.decode(self.encode(images)[0], images)


@dataclass(frozen=True)
class DVAE(Learned):
    """Learns from the protected images alone what the noise of each class is, and rebuilds the images without it.

    The idea is that of D-VAE (Yu et al., Purify Unlearnable Examples via Rate-Constrained Variational Autoencoders,
    ICML 2024): an autoencoder that few bits go through keeps the image and drops the noise, and a second decoder, which
    is told the class, says what was dropped. Two are trained: through the first go ``rates[0]`` nats a pixel, and what
    its second decoder says is taken off; the second, with ``rates[1]``, rebuilds what is left. The code, the networks
    and the numbers are ours, and small.

    Args:
        steps: updates of each of the two, of as many pixels as 32 images of 32 x 32 px have.
        rates: Kullback-Leibler divergence that the latent vectors may have, in nats for each pixel.
    """

    steps: int = 300
    rates: tuple[float, float] = (0.25, 1.0)
    name: str = field(default="d-vae", init=False)

    def __post_init__(self) -> None:
        check_integer("steps", self.steps, low=1)

    def fitted(self, data: Labelled, *, seed: int, device: torch.device, progress: bool = False) -> Countermeasure:
        """Both autoencoders, trained one after the other."""
        first = self._train(data, 0, seed, device, progress)
        left = replace(data, images=in_chunks(first.without_noise, data, device))
        return _Rebuilds(self.name, first, self._train(left, 1, seed, device, progress), device)

    def _train(self, data: Labelled, stage: int, seed: int, device: torch.device, progress: bool) -> NoiseApart:
        count, (height, width) = len(data.labels), data.images.shape[2:]
        classes = int(data.labels.max()) + 1

        def loss(network: nn.Module, step: Step) -> Tensor:
            rows = step.rows(torch.device("cpu"))
            images, labels = to_float(data.images[rows].to(device)), data.labels[rows].to(device)
            return _loss(network, images, labels, self.rates[stage])

        course = Course(self.steps, min(count, batch_of(height * width, 32, 32)), learning_rate=2e-3, seed=seed)
        network = train(
            lambda: NoiseApart(classes, height, width),
            loss,
            count,
            course,
            title=f"{self.name}, {stage + 1} of 2",
            device=device,
            progress=progress,
        )
        assert isinstance(network, NoiseApart)
        return network


def _loss(network: nn.Module, images: Tensor, labels: Tensor, rate: float) -> Tensor:
    """Both decoders' errors in units of 8 grey levels, and what the latent vectors tell beyond the rate."""
    assert isinstance(network, NoiseApart)
    mean, log_variance = network.encode(images)
    latent = mean + (log_variance / 2).exp() * torch.randn_like(mean)
    rebuilt = network.decode(latent, images)
    # what the second decoder says must not decide what goes through
    noise = network.noise_of(latent.detach(), labels, images)
    told = (mean.square() + log_variance.exp() - 1 - log_variance).sum() / 2 / images[:, 0].numel()
    unit = (8 / 255) ** 2
    errors = F.mse_loss(rebuilt, images) + F.mse_loss(noise, images - rebuilt.detach())
    return errors / unit + 10 * F.relu(told - rate)


@dataclass(frozen=True, eq=False)
class _Rebuilds(Countermeasure):
    """What :class:`DVAE` has become: the first network takes the noise off, the second rebuilds the image."""

    name: str
    first: NoiseApart
    second: NoiseApart
    device: torch.device
    acts_on = "stored"

    def on_stored(self, data: Labelled, *, seed: int) -> Labelled:
        """The images rebuilt without what the first network says of their noise."""
        left = replace(data, images=in_chunks(self.first.without_noise, data, self.device))
        return replace(data, images=in_chunks(self.second.rebuilt, left, self.device))

    def at_test(self, images: Tensor) -> Tensor:
        """Rebuilt too; that needs no label."""
        return in_chunks(self.second.rebuilt, unnamed(images), self.device)

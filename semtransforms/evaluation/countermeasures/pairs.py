"""The trainer who holds some originals with their protected copies, and learns to take the noise off the rest."""

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
from semtransforms.evaluation.countermeasures.partial import clean_images, draw_rows


class Remover(nn.Module):
    """Predicts the noise of an image and takes it off: a residual network of six convolutions at full resolution.

    The form is that of DnCNN (Zhang et al., IEEE TIP 2017), smaller and without BatchNorm; 39,000 weights.

    Args:
        classes: whose noises it tells apart by the label; 0: it is not given the label.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        width = 32
        self.classes = classes
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.middle = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(4))
        self.last = nn.Conv2d(width, 3, 3, padding=1)
        self.of_class = nn.Linear(classes, width, bias=False) if classes else None
        for start_at_zero in (self.last, self.of_class):  # it begins as the identity, for every class
            if start_at_zero is not None:
                nn.init.zeros_(start_at_zero.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        hidden = self.first(images - 0.5)
        if self.of_class is not None:
            hidden = hidden + self.of_class(F.one_hot(labels, self.classes).float())[:, :, None, None]
        for layer in self.middle:
            hidden = layer(F.relu(hidden))
        noise: Tensor = self.last(F.relu(hidden))
        return images - noise


@dataclass(frozen=True)
class HoldsPairs(Learned):
    """Holds some originals with their protected copies, and trains a network on them that takes off the noise.

    From an earlier leak, an older upload, or a page that protects on request. The network is applied to the other
    protected images; of the pairs the trainer has the originals. At the trainer's size, where they have one.

    Args:
        count: pairs that they hold, drawn by the seed; more of them hold the fewer.
        by_label: the network is given the labels too.
        steps: updates of the network, of as many pixels as 32 images of 32 x 32 px have.

    Raises:
        ValueError: no pair; when it is applied: fewer pairs than classes, or originals of all images.
    """

    count: int
    by_label: bool = False
    steps: int = 600
    name: str = field(init=False)

    def __post_init__(self) -> None:
        check_integer("count", self.count, low=1)
        check_integer("steps", self.steps, low=1)
        object.__setattr__(self, "name", f"pairs-{self.count}{'-labels' if self.by_label else ''}")

    def check(self, labels: Tensor) -> None:
        """A pair for each class on average, and images that are left to clean."""
        classes = len(labels.unique())  # type: ignore[no-untyped-call]
        if self.count < classes:
            raise ValueError(
                f"countermeasure {self.name!r}: {self.count} pairs are fewer than the {classes} classes. Take "
                f"pairs-{10 * classes}, say."
            )
        if self.count >= len(labels):
            raise ValueError(
                f"countermeasure {self.name!r}: whoever holds {self.count} originals of {len(labels)} images has all "
                f"of them. Take fewer than {len(labels)} pairs."
            )

    def fitted(self, data: Labelled, *, seed: int, device: torch.device, progress: bool = False) -> Countermeasure:
        """The network trained on the pairs."""
        self.check(data.labels)
        rows = draw_rows(len(data.labels), self.count, seed)
        protected, labels = to_float(data.images[rows]).to(device), data.labels[rows].to(device)
        originals = to_float(clean_images(data, self.name)[rows]).to(device)

        def loss(network: nn.Module, step: Step) -> Tensor:
            some = step.rows(device)
            return F.mse_loss(network(protected[some], labels[some]), originals[some])

        classes = int(data.labels.max()) + 1 if self.by_label else 0
        batch = min(self.count, batch_of(data.images.shape[2:].numel(), 32, 32))
        course = Course(self.steps, batch, learning_rate=2e-3, seed=seed)
        network = train(
            lambda: Remover(classes), loss, self.count, course, title=self.name, device=device, progress=progress
        )
        return _TakesOff(self.name, network, rows, device)


@dataclass(frozen=True, eq=False)
class _TakesOff(Countermeasure):
    """What :class:`HoldsPairs` has become.

    Args:
        name: for records.
        network: a :class:`Remover`.
        rows: int64, the images that the trainer has the originals of.
        device: of the network.
    """

    name: str
    network: nn.Module
    rows: Tensor
    device: torch.device
    acts_on = "stored"

    def on_stored(self, data: Labelled, *, seed: int) -> Labelled:
        """The originals where the trainer holds them, all others cleaned."""
        images = in_chunks(self.network, data, self.device)
        images[self.rows] = clean_images(data, self.name)[self.rows]
        return replace(data, images=images)

    def at_test(self, images: Tensor) -> Tensor:
        """Cleaned too, where that needs no label."""
        if self.network.classes:
            return images
        return in_chunks(self.network, unnamed(images), self.device)

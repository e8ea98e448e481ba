"""The trainer who holds a published generator and washes its noise out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from semtransforms.core.checks import check_integer
from semtransforms.core.config import GeneratorConfig
from semtransforms.core.hardware import keep_freed_memory
from semtransforms.core.keys import image_keys
from semtransforms.data.loading import Labelled
from semtransforms.evaluation.countermeasures.base import Countermeasure
from semtransforms.evaluation.countermeasures.stored import CHUNK_PIXELS
from semtransforms.noise.engine import Engine
from semtransforms.views.resize import NoiseScale


class PublishedGenerator(Protocol):
    """What a published generator holds, of which a :class:`~semtransforms.NoiseGenerator` is one."""

    @property
    def config(self) -> GeneratorConfig:
        """How it makes noise."""

    @property
    def engine(self) -> Engine:
        """What makes it."""

    def scale(self, noise_size: int | Literal["full"] | None = None, visibility: float = 1.0) -> NoiseScale:
        """At which size it makes it, and how far it reaches where."""


@dataclass(frozen=True)
class InformedTrainer(Countermeasure):
    """Holds the published generator and runs its loop in reverse on the protected images, to wash the noise out.

    They climb the surrogate's loss, which the noise lowered (or descend it, where the noise climbed), by projected
    gradients with the generator's own radius, step size, transformations and inner perturbation. The clean image lies
    within rho_u of the protected one, so that is the ball they climb in, from a random start inside it. They may
    overshoot, up to 2 rho_u from the clean image.
    Of a generator whose images share noises (``classwise``) they take off the window that fits best, without a loop.
    The seed alone does not give them the owner's draws: those are keyed by the clean images, which they lack.

    Args:
        generator: the published one.
        seed: of their draws.
        steps: gradient steps K; ``None`` for as many as the generator takes.
        name: for records.
        noise_size: at which the owner's noise was made, which the trainer can try out; ``None``: the generator's own.
        visibility: of the owner's noise, which the trainer can try out too.

    Raises:
        ValueError: ``steps`` is under 1; when it is applied: a label the generator does not know.
    """

    generator: PublishedGenerator
    seed: int = field(repr=False)  # an owner who tries this trainer gives their own
    steps: int | None = None
    name: str = "informed"
    noise_size: int | Literal["full"] | None = None
    visibility: float = 1.0
    acts_on = "stored"
    before_resize = True  # the owner added the noise before the trainer cut and resized

    def __post_init__(self) -> None:
        if self.steps is not None:
            check_integer("steps", self.steps, low=1, advice="Leave it out for the generator's own.")

    @property
    def side(self) -> int | None:
        """The shorter side at which they undo the noise of larger images; ``None``: they need the images' own size."""
        return self.generator.scale(self.noise_size).side

    def on_stored(self, data: Labelled, *, seed: int) -> Labelled:
        """The images with the loop's result added, in whole grey levels; the draws have the trainer's own seed."""
        self._check(data.labels)
        keep_freed_memory()
        keys = image_keys(data.images, data.labels, self.seed)
        chunk = max(1, 2 * CHUNK_PIXELS // data.images.shape[2:].numel())
        parts = zip(*(torch.split(each, chunk) for each in (data.images, data.labels, keys)), strict=True)
        return replace(data, images=torch.cat([self._washed(*part) for part in parts]))

    def _check(self, labels: Tensor) -> None:
        config = self.generator.config
        if config.num_classes is not None and int(labels.max()) >= config.num_classes:
            raise ValueError(
                f"countermeasure {self.name!r}: the generator knows labels 0..{config.num_classes - 1}, got "
                f"{int(labels.max())}. Use a generator of these classes."
            )

    def _washed(self, images: Tensor, labels: Tensor, keys: Tensor) -> Tensor:
        scale = self.generator.scale(self.noise_size, self.visibility)
        made = self.generator.engine.undo(
            torch.stack([scale.shrink(each) for each in images]), labels, keys, self.steps
        )
        return torch.stack([scale.add(noise, image) for noise, image in zip(made, images, strict=True)])

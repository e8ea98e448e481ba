"""What makes noise, behind one face: a network under PGD, a closed form, or noise that was recorded.

Nobody outside this folder asks which of them it is. What the kinds differ in stands in their classes; a new one is a
class here, the names of its surrogates in ``ENGINES``, and in ``generators/fitting.py`` the way it is fitted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from semtransforms.core.config import KERNELS, GeneratorConfig, PGDConfig
from semtransforms.core.grid import levels, quantize, to_float
from semtransforms.core.hardware import autocast_dtype, keep_freed_memory
from semtransforms.core.keys import fold_in
from semtransforms.core.models import MODELS, build_model, look_up
from semtransforms.core.names import unknown
from semtransforms.noise.classwise import Classwise
from semtransforms.noise.ntga import RecordedNoise
from semtransforms.noise.one_pass import OnePass, Painter, paint
from semtransforms.noise.painted import PAINTERS, ClosedForm
from semtransforms.noise.pgd import is_out_of_memory, pgd
from semtransforms.views.eot import EOT

KEYS_TRIED = 16  # by a trainer who holds a one-pass generator

_OF_THE_FIT = frozenset({"learning_rate", "momentum", "weight_decay", "decay_every", "decay_factor"})


def engine_of(config: GeneratorConfig) -> type[Engine]:
    """The engine that runs a config's surrogate.

    Raises:
        ValueError: there is no surrogate of that name; the message has the nearest ones.
    """
    if config.surrogate not in ENGINES:
        raise ValueError(unknown("surrogate", config.surrogate, ENGINES))
    if config.classwise:
        return ClasswiseEngine
    return OnePassEngine if config.one_pass else ENGINES[config.surrogate]


def build_surrogate(config: GeneratorConfig, stored: Mapping[str, Tensor] | None = None) -> nn.Module:
    """The surrogate that a config names: a network initialised from its seed, or a closed form.

    Args:
        config: with ``num_classes`` and ``image_size`` set.
        stored: the tensors that are to be loaded into it, by name; they say how much it has to hold.

    Returns:
        The module; nothing is loaded yet.
    """
    return engine_of(config).build(config, stored or {})


class Engine(ABC):
    """The face of all that makes noise.

    Args:
        surrogate: the network or the closed form. Its tensors are what is saved, and where they lie is where the work
            is done.
        config: how it makes noise.
        eot: T, which the noise is seen through.

    Attributes:
        surrogates: in words, what a method of this kind may run on; ``None`` where that is its preset's surrogate and
            no other.
        fixed: fields of the config that must be as in the method's preset, since they are not read.
        unused: other fields that are not read.
        exact: whether the noise is for exactly the images of the fit, at their own size.
        keeps_noise: whether it holds the noise of certain images, so that whoever has it can subtract it.
    """

    surrogates: ClassVar[str | None] = None
    fixed: ClassVar[tuple[str, ...]] = ()
    unused: ClassVar[frozenset[str]] = frozenset()
    exact: ClassVar[bool] = False
    keeps_noise: ClassVar[bool] = False

    def __init__(self, surrogate: nn.Module, config: GeneratorConfig, eot: EOT) -> None:
        self.surrogate, self.config, self.eot = surrogate, config, eot

    @classmethod
    @abstractmethod
    def check(cls, config: GeneratorConfig) -> None:
        """Whether the surrogate can be built at all; asked before any data are read.

        Raises:
            ValueError: it cannot.
        """

    @classmethod
    @abstractmethod
    def build(cls, config: GeneratorConfig, stored: Mapping[str, Tensor]) -> nn.Module:
        """The surrogate before a fit, or before ``stored`` is loaded into it; see :func:`build_surrogate`."""

    @property
    @abstractmethod
    def smallest(self) -> int:
        """The shorter side of the smallest image it takes, in pixels."""

    @property
    def side(self) -> int:
        """S, the shorter side in pixels at which the noise of larger images is made."""
        assert self.config.image_size is not None
        return max(min(self.config.image_size), self.smallest)

    @property
    def device(self) -> torch.device:
        """Where the surrogate lies; the CPU where it holds nothing."""
        for held in (*self.surrogate.parameters(), *self.surrogate.buffers()):
            return held.device
        return torch.device("cpu")

    @abstractmethod
    def noise(self, images: Tensor, labels: Tensor, keys: Tensor) -> Tensor:
        """The noise of a batch.

        Args:
            images: uint8 (N, 3, H, W), neither side below ``smallest``.
            labels: int64 (N,), in 0..C-1.
            keys: int64 (N,), one per image: all randomness comes from them.

        Returns:
            int8 (N, 3, H, W) on the CPU, in grey levels: ``|noise| <= floor(255 * rho_u)`` and ``images + noise`` in
            0..255.
        """

    def undo(self, images: Tensor, labels: Tensor, keys: Tensor, steps: int | None = None) -> Tensor:
        """What takes a published generator's noise away again: its loop in the other direction.

        Args:
            images: uint8 (N, 3, H, W), protected.
            labels, keys: as for :meth:`noise`; the keys are whoever's that runs it.
            steps: K; ``None`` for as many as the noise takes.

        Returns:
            As of :meth:`noise`.

        Raises:
            ValueError: there is no loop to run.
        """
        raise ValueError(
            f"method {self.config.method!r} has no surrogate network to run in reverse. Use a generator that has one."
        )

    def one_pass(self) -> OnePass:
        """The whole protection as one module, without a loop and without a gradient.

        Raises:
            ValueError: the noise takes more than one pass.
        """
        raise ValueError(
            f"method {self.config.method!r} does not paint its noise in one pass, which alone can be exported. Make a "
            "generator that does: fit_one_pass(dataset, generator), of one of 'sem-plus' or 'sem'."
        )


class NetworkEngine(Engine):
    """Projected gradients on a surrogate network (Eq. 7 and 10)."""

    surrogates = "a network such as 'resnet18'"

    @classmethod
    def check(cls, config: GeneratorConfig) -> None:
        """Whether there is a network of that name, and of that width."""
        look_up(config.surrogate, config.width)

    @classmethod
    def build(cls, config: GeneratorConfig, stored: Mapping[str, Tensor]) -> nn.Module:
        """The network, initialised from the config's seed."""
        assert config.num_classes is not None
        assert config.image_size is not None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            return build_model(
                config.surrogate,
                num_classes=config.num_classes,
                image_size=min(config.image_size),
                width=config.width,
            )

    @property
    def smallest(self) -> int:
        """As the network's row in ``MODELS`` says."""
        return MODELS[self.config.surrogate].smallest

    def noise(self, images: Tensor, labels: Tensor, keys: Tensor) -> Tensor:
        """Eq. 7."""
        return self._run_loop(images, labels, keys, self.config.defense, maximise=self.config.climbs)

    def undo(self, images: Tensor, labels: Tensor, keys: Tensor, steps: int | None = None) -> Tensor:
        """Climb the loss that the noise lowered, or lower what it climbed, from a random start in the ball of rho_u."""
        loop = replace(self.config.defense, steps=steps or self.config.steps_u)
        return self._run_loop(images, labels, keys, loop, maximise=not self.config.climbs)

    def _run_loop(self, images: Tensor, labels: Tensor, keys: Tensor, loop: PGDConfig, *, maximise: bool) -> Tensor:
        """The loop on the surrogate, in halves where memory runs out."""
        keep_freed_memory()
        device = self.device
        try:
            delta = pgd(
                self.surrogate,
                to_float(images.to(device)),
                self.config.target_labels(labels.to(device)),
                loop,
                keys=keys.to(device),
                maximise=maximise,
                eot=self.eot,
                dtype=autocast_dtype(self.config.precision, device),
            )
            return quantize(delta, self.config.rho_u).cpu()
        except RuntimeError as error:
            if not is_out_of_memory(error) or len(images) == 1:
                raise
        # outside the handler, whose traceback would keep the failed attempt's tensors alive
        halves = zip(*(tensor.tensor_split(2) for tensor in (images, labels, keys)), strict=True)
        return torch.cat([self._run_loop(some, of, drawn, loop, maximise=maximise) for some, of, drawn in halves])


class ClasswiseEngine(NetworkEngine):
    """Noises of each class, found with a network along the fit: an image gets a window of one."""

    @classmethod
    def check(cls, config: GeneratorConfig) -> None:
        """As of a network; and whether the pretrained surrogates can be had."""
        super().check(config)
        if config.pretrained:
            from semtransforms.noise.guided import check_pretrained  # imports torchvision, which costs seconds

            check_pretrained(config.pretrained)

    @classmethod
    def build(cls, config: GeneratorConfig, stored: Mapping[str, Tensor]) -> nn.Module:
        """The network, and the noises before a fit."""
        assert config.num_classes is not None
        assert config.image_size is not None
        guides = None
        if config.pretrained:
            from semtransforms.noise.guided import build_guides, check_names

            check_names(config.pretrained)  # a config may come from anywhere
            guides = build_guides(config.pretrained, config.num_classes, with_weights=not stored)
        return Classwise(
            super().build(config, stored),
            num_classes=config.num_classes,
            count=config.classwise,
            size=config.image_size,
            rho_u=config.rho_u,
            seed=config.seed,
            textured=bool(config.hold_steps),
            guides=guides,
        )

    @property
    def classwise(self) -> Classwise:
        """The surrogate, which holds the noises here."""
        assert isinstance(self.surrogate, Classwise)
        return self.surrogate

    @property
    def side(self) -> int:
        """At least as large as what pretrained surrogates see: they are misled at the size that they are asked at."""
        return max(super().side, self.config.pretrained_side)

    @property
    def smallest(self) -> int:
        """One pixel where the network is not asked."""
        return super().smallest if self.config.pretrained else 1

    def noise(self, images: Tensor, labels: Tensor, keys: Tensor) -> Tensor:
        """A window of a noise of the class, driven on where there are pretrained surrogates."""
        device = self.device
        pixels, labels, keys = to_float(images.to(device)), labels.to(device), keys.to(device)
        if not self.config.pretrained:
            return quantize(self.classwise.noise(pixels, labels, keys), self.config.rho_u).cpu()
        from semtransforms.noise.guided import drive

        dtype = autocast_dtype(self.config.precision, device)
        made = drive(self.classwise, pixels, labels, keys=keys, config=self.config, eot=self.eot, dtype=dtype)
        return quantize(made, self.config.rho_u).cpu()

    def undo(self, images: Tensor, labels: Tensor, keys: Tensor, steps: int | None = None) -> Tensor:
        """The window that fits an image best, taken off: there is no loop, and no key is needed.

        What pretrained surrogates added to it stays.
        """
        device = self.device
        found = self.classwise.found(to_float(images.to(device)), labels.to(device))
        return quantize(-found, self.config.rho_u).cpu()


class OnePassEngine(NetworkEngine):
    """A network that paints the noise in one pass, fitted against a surrogate, which is not kept."""

    @classmethod
    def build(cls, config: GeneratorConfig, stored: Mapping[str, Tensor]) -> nn.Module:
        """The painter, initialised from the config's seed."""
        assert config.num_classes is not None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            return Painter(config.num_classes)

    @property
    def smallest(self) -> int:
        """One pixel: it fills up what is missing to whole patches."""
        return 1

    @property
    def reach(self) -> int:
        """The radius in whole grey levels."""
        return min(levels(self.config.rho_u), 127)

    def noise(self, images: Tensor, labels: Tensor, keys: Tensor) -> Tensor:
        """What the painter paints, in fp32 everywhere: the bytes are to be the same on every machine."""
        device = self.device
        painted = paint(self.surrogate, images.to(device), labels.to(device), keys.to(device), self.reach)
        return painted.to(torch.int8).cpu()

    def one_pass(self) -> OnePass:
        """The painter, and what makes bytes of its noise."""
        return OnePass(self.surrogate, self.reach)

    def undo(self, images: Tensor, labels: Tensor, keys: Tensor, steps: int | None = None) -> Tensor:
        """What the painter would paint on them, on the mean over keys of the trainer's own, taken off.

        The owner's key is unknown, and the mean is what most of all noises have in common.

        Args:
            steps: how many keys.
        """
        draws = range(steps or KEYS_TRIED)
        mean = sum(self.noise(images, labels, fold_in(keys, draw)).float() for draw in draws) / len(draws)
        return quantize(-torch.as_tensor(mean) / 255, self.config.rho_u)


class ClosedFormEngine(Engine):
    """Noise that needs no gradient once there is a :class:`ClosedForm`."""

    fixed = ("aim", "fitted_on", "defense_sees", "surrogate_sees")

    @classmethod
    def check(cls, config: GeneratorConfig) -> None:
        """Nothing: with its name, all is known of it."""

    @property
    def form(self) -> ClosedForm:
        """The surrogate, which is a closed form here."""
        assert isinstance(self.surrogate, ClosedForm)
        return self.surrogate

    @property
    def smallest(self) -> int:
        """As the closed form says."""
        return self.form.smallest

    def noise(self, images: Tensor, labels: Tensor, keys: Tensor) -> Tensor:
        """What the closed form says, on the byte grid."""
        return quantize(self.form.noise(images, labels, keys), self.config.rho_u).cpu()


class PaintedEngine(ClosedFormEngine):
    """Noise painted from the label and the key alone (SC, AR)."""

    unused = _OF_THE_FIT | {
        "width", "precision", "eot", "alpha_u", "steps_u", "num_samples", "train_steps", "batch_size",
    }  # fmt: skip

    @classmethod
    def build(cls, config: GeneratorConfig, stored: Mapping[str, Tensor]) -> nn.Module:
        """The painter; it has no tensors."""
        return PAINTERS[config.surrogate](config)


class RecordedEngine(ClosedFormEngine):
    """Noise found together for all images of the fit, and kept (NTGA)."""

    surrogates = " or ".join(map(repr, KERNELS))
    unused = _OF_THE_FIT | {"width", "precision", "eot"}
    exact = True
    keeps_noise = True

    @classmethod
    def build(cls, config: GeneratorConfig, stored: Mapping[str, Tensor]) -> nn.Module:
        """Room for the noise of as many images as ``stored`` has digests of."""
        assert config.image_size is not None
        return RecordedNoise(len(stored.get("digests", ())), config.image_size)


# the name of a surrogate, and what runs it
ENGINES: Mapping[str, type[Engine]] = {
    **dict.fromkeys(MODELS, NetworkEngine),
    **dict.fromkeys(PAINTERS, PaintedEngine),
    **dict.fromkeys(KERNELS, RecordedEngine),
}

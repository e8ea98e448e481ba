"""How an unauthorised trainer trains: the settings of a victim, and the two protocols."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from torch import Tensor, nn

from semtransforms.core.checks import check_choice, check_integer, check_number
from semtransforms.core.config import Norm, PGDConfig, Precision, Transformation
from semtransforms.core.pretrained.libraries import is_of_library, smallest_side
from semtransforms.core.pretrained.network import TRANSFERS, Transfer, describe_start
from semtransforms.evaluation.victims.digest import described

FEWEST_STEPS = 100  # of the quick protocol: with few images, 20 epochs teach nothing

Cut = Literal["resize", "random-resized"]
CUTS: tuple[Cut, ...] = get_args(Cut)  # how a trainer with a size of their own cuts their squares out of photographs

CROP_AND_FLIP = (Transformation("crop", {"padding": 4}), Transformation("flip"))


@dataclass(frozen=True)
class VictimConfig:
    """How a victim is trained; adversarially (Eq. 2) where ``rho_a`` is not 0.

    The defaults are those of the quick protocol at 1,500 updates; :func:`quick` counts in epochs, :func:`paper` is the
    paper's.

    Args:
        network: a name, an ``nn.Module`` to start from (copied, never changed), or a function of the number of classes
            that makes one. Names are those of this package, and ``"timm/..."`` and ``"torchvision/..."``.
        width: of a named network that has one.
        train_steps, batch_size: updates and images per update.
        learning_rate: the peak of the schedule.
        schedule: ``"one-cycle"`` (up over a fifth of the steps, then down to 0), ``"cosine"`` (down to 0 along half a
            cosine) or ``"steps"`` (times ``decay_factor`` every ``decay_every`` updates).
        momentum, weight_decay, nesterov: of SGD.
        rho_a: radius of the adversarial training, a fraction of the pixel range; 0 for standard training.
        steps_a: PGD steps K of its adversary; the step size is 2 rho_a / K (the paper's rho_a / 5 at K = 10).
        norm: of the adversary's ball, ``"linf"`` or ``"l2"`` (of a whole image).
        augmentation: the trainer's own transformations; or any function of one uint8 image (3, H, W), such as a
            pipeline of torchvision's, that is called image by image. The default with ``train_size`` is the flip
            alone.
        train_size: side in pixels of the square that the victim trains on, and that photographs of any sizes are
            brought to; ``None`` for images of one size, as they are.
        crop: how, with a ``train_size``. ``"resize"``: the shorter side is brought to it, then a random crop padded by
            an eighth of it (torchvision's ``Resize`` and ``RandomCrop``). ``"random-resized"``: a random window of
            35 to 100 % of the area and of shape 3:4 to 4:3 is (``RandomResizedCrop``). Both test on the centre square
            of the resized image.
        evaluations: how often, at equal distances, accuracy is measured during the training; the last is at the end.
        patience: early stopping: end after so many updates without a better accuracy on the validation images, and
            take the network of the best one (Table 5); ``None`` trains to the end.
        validation: share of the published images set aside for that.
        validation_clean: share of the validation images that the trainer has clean.
        precision: as in :class:`~semtransforms.GeneratorConfig`.
        seed: of the weights, the order and the draws.
        pretrained: weights that a network of timm or torchvision starts from: a file, a folder as timm keeps a network
            on the Hub, the name of published weights such as ``"in1k"``, or ``"default"``; ``None`` starts from
            scratch. It then wants a smaller learning rate: pass ``**FINE_TUNING``. Without a ``train_size`` it is
            given images resized to the size that it was trained at.
        transfer: what is trained of a pretrained network: ``"fine-tune"``, the whole; ``"last-block"``, its last block
            and head; ``"probe"``, a linear layer on its features, which are taken once from the images as they are,
            in eval mode (``train_steps`` are then iterations of L-BFGS at most, ``weight_decay`` is the layer's).
        sharpness: radius of sharpness-aware training (SAM, Foret et al. 2021), of all weights together; 0 without.
        contrastive: learn without the labels, from pairs of views of each image (SimCLR, Chen et al. 2020), and name
            classes by a linear layer fitted on the features as a probe's.

    Raises:
        ValueError: a count is not positive, a radius or share lies outside 0..1, ...
    """

    network: str | nn.Module | Callable[[int], nn.Module] = "resnet18"
    width: int | None = None
    train_steps: int = 1500
    batch_size: int = 128
    learning_rate: float = 0.1
    schedule: Literal["one-cycle", "cosine", "steps"] = "one-cycle"
    decay_every: int = 16_000
    decay_factor: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = True
    rho_a: float = 0.0
    steps_a: int = 10
    norm: Norm = "linf"
    augmentation: Sequence[Transformation] | Callable[[Tensor], Tensor] = CROP_AND_FLIP
    train_size: int | None = None
    crop: Cut = "resize"
    evaluations: int = 5
    patience: int | None = None
    validation: float = 0.1
    validation_clean: float = 0.0
    precision: Precision = "auto"
    seed: int = 0
    pretrained: str | os.PathLike[str] | None = None
    transfer: Transfer = "fine-tune"
    sharpness: float = 0.0
    contrastive: bool = False

    def __post_init__(self) -> None:
        for name in ("train_steps", "batch_size", "decay_every", "steps_a", "evaluations"):
            check_integer(name, getattr(self, name), low=1)
        if self.patience is not None:
            check_integer("patience", self.patience, low=1)
        check_choice("norm", self.norm, ("linf", "l2"))
        check_choice("schedule", self.schedule, ("one-cycle", "cosine", "steps"))
        # an l2 radius measures a whole image and may be beyond the range of one pixel
        check_number("rho_a", self.rho_a, high=1e6 if self.norm == "l2" else 1, advice="Write 4/255, not 4.")
        for name in ("validation", "validation_clean"):
            check_number(name, getattr(self, name), high=1)
        for name in ("learning_rate", "momentum", "weight_decay", "decay_factor", "sharpness"):
            check_number(name, getattr(self, name))
        check_choice("crop", self.crop, CUTS)
        if self.train_size is not None:
            smallest = smallest_side(self.network) if isinstance(self.network, str) else 1
            advice = f"Network {self.network!r} takes no smaller images." if smallest > 1 else ""
            check_integer("train_size", self.train_size, low=smallest, advice=advice)
            if self.augmentation == CROP_AND_FLIP:  # the crop is the size's own
                object.__setattr__(self, "augmentation", CROP_AND_FLIP[1:])
        elif self.crop != "resize":
            raise ValueError(f"crop={self.crop!r} needs the size that the trainer crops to. Pass train_size=64, say.")
        if self.nesterov and not self.momentum:
            raise ValueError("momentum must be above 0 with nesterov=True, got 0. Pass nesterov=False.")
        self._check_start()
        if self.is_probe and self.sharpness:
            raise ValueError("transfer='probe' has no updates of SGD: leave sharpness out.")
        if self.contrastive:
            self._check_contrastive()

    def _check_start(self) -> None:
        check_choice("transfer", self.transfer, TRANSFERS)
        if self.pretrained is None:
            if self.transfer != "fine-tune":
                raise ValueError(f"transfer={self.transfer!r} needs weights to start from: pass pretrained=...")
            return
        if isinstance(self.network, str):
            smallest_side(self.network, self.width)  # an unknown name is refused with the nearest
        if not is_of_library(self.network):
            raise ValueError(
                f"pretrained=... is for networks of timm and torchvision by name, got network={self.network!r}. Use "
                "network='torchvision/resnet18', say; a module of your own has its weights already."
            )
        if self.transfer == "probe":
            if self.rho_a or self.patience is not None or self.crop != "resize":
                raise ValueError(
                    "transfer='probe' takes features of the middle of each image once, and fits a layer on them: it "
                    "goes without rho_a, patience and crop. Use transfer='last-block'."
                )
            self._drop_augmentation("transfer='probe' does not augment")

    def _check_contrastive(self) -> None:
        if self.rho_a or self.sharpness or self.patience is not None or self.pretrained:
            raise ValueError(
                "contrastive=True goes without rho_a, sharpness, patience and pretrained: it has no labels that they "
                "could act on, and starts from scratch. Leave them out."
            )
        self._drop_augmentation("contrastive=True draws views of its own")

    def _drop_augmentation(self, why: str) -> None:
        """Leave out the augmentation that is there by default; one that was given is refused."""
        if self.augmentation not in (CROP_AND_FLIP, CROP_AND_FLIP[1:], ()):
            raise ValueError(f"{why}: leave augmentation out.")
        object.__setattr__(self, "augmentation", ())

    @property
    def is_probe(self) -> bool:
        """Whether a linear layer on features is all that is trained."""
        return self.pretrained is not None and self.transfer == "probe"

    @property
    def passes(self) -> int:
        """How often an update sends an image forward and backward."""
        return (2 if self.contrastive or self.sharpness else 1) + (self.steps_a if self.rho_a else 0)

    @property
    def marks(self) -> frozenset[int]:
        """The updates behind which accuracy is measured."""
        return frozenset(round(self.train_steps * (k + 1) / self.evaluations) for k in range(self.evaluations))

    @property
    def attack(self) -> PGDConfig | None:
        """The adversary of Eq. 2; ``None`` for standard training."""
        if not self.rho_a:
            return None
        return PGDConfig(self.rho_a, 2 * self.rho_a / self.steps_a, self.steps_a, norm=self.norm)

    def to_dict(self) -> dict[str, Any]:
        """Every field as JSON values; a module, pipeline or function by its name and a digest of what it does.

        Without a ``train_size`` it and ``crop`` are left out, as in the configs of runs that were kept before there
        were any; so are ``pretrained`` and ``transfer`` without weights to start from (these are told by their name
        and digest), and ``sharpness`` and ``contrastive`` without such a training.

        Raises:
            ValueError: a function or pipeline holds what has no digest, such as an open file; there are no such
                weights.
        """
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        if self.train_size is None:
            del values["train_size"], values["crop"]
        for name in ("sharpness", "contrastive"):
            if not values[name]:
                del values[name]
        if self.pretrained is None:
            del values["pretrained"], values["transfer"]
        else:
            assert isinstance(self.network, str)
            values["pretrained"] = describe_start(self.network, self.pretrained, self.train_size)
        if not isinstance(self.network, str):
            values["network"] = described("network", self.network)
        if callable(self.augmentation):
            values["augmentation"] = described("augmentation", self.augmentation)
        else:
            values["augmentation"] = [asdict(each) for each in self.augmentation]
        return json.loads(json.dumps(values))  # type: ignore[no-any-return]


def paper(**changes: Any) -> VictimConfig:
    """The paper's protocol: 40,000 updates, SGD 0.1, times 0.1 every 16,000, PGD-10.

    Args:
        changes: fields of :class:`VictimConfig`, such as ``rho_a=4 / 255``.
    """
    return replace(VictimConfig(train_steps=40_000, schedule="steps", nesterov=False), **changes)


def quick(images: int, **changes: Any) -> VictimConfig:
    """The quick protocol: one cycle of 20 epochs, at least 100 updates.

    Args:
        images: N, how many there are to train on.
        changes: fields of :class:`VictimConfig`.
    """
    config = VictimConfig(**changes)
    steps = max(FEWEST_STEPS, -(-20 * images // config.batch_size))
    return config if "train_steps" in changes else replace(config, train_steps=steps)

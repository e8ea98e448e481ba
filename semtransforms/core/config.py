"""What a defensive noise is made with: one frozen record, in the paper's symbols."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from semtransforms.core.checks import check_choice, check_integer, check_number, in_short
from semtransforms.core.limits import MOST, MOST_MEMBERS, check_amounts
from semtransforms.core.names import unknown

if TYPE_CHECKING:
    from torch import Tensor

Perturbation = Literal["uniform", "adversary"]
Aim = Literal["own", "shifted", "away"]
FittedOn = Literal["protected", "shuffled", "clean"]
Precision = Literal["auto", "fp32", "bf16"]
Norm = Literal["linf", "l2"]

# surrogates that are no networks: of SC, of AR, of NTGA
PATCHES, AUTOREGRESSIVE = "shortcut-patches", "autoregressive"
KERNELS = ("ntk-cnn", "ntk-fnn")

ONE_LEVEL = 1 / 255


@dataclass(frozen=True)
class Transformation:
    """One member of T by name: the paper's, a distortion, a choice of some, or any class of ``kornia.augmentation``.

    Args:
        name: ``"crop"``, ``"flip"``, ``"jpeg"``, ``"one-of"`` (see :mod:`semtransforms.views.eot`) or, say,
            ``"RandomResizedCrop"``.
        arguments: keyword arguments of that transformation, JSON values only.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PretrainedSurrogate:
    """A network with weights that others trained, which noise is driven against; see :mod:`semtransforms.noise.guided`.

    Args:
        network: ``"timm/..."`` or ``"torchvision/..."``.
        weights: as ``pretrained`` of :class:`~semtransforms.VictimConfig`: a file, a folder, the name of published
            weights, or ``"default"``. A fitted generator has a name with a digest here, and the weights themselves.
        sides: of the squares in pixels that it is given, in turn. What misleads it at one size does not at another.
    """

    network: str
    weights: str = "default"
    sides: tuple[int, ...] = (128, 224)

    @classmethod
    def parse(cls, text: str) -> PretrainedSurrogate:
        """Read one as people type it: ``"timm/efficientnet_lite0"`` or ``"timm/efficientnet_lite0=FILE"``.

        Raises:
            ValueError: nothing stands on one side of the ``=``.
        """
        network, equals, weights = text.partition("=")
        if not network or (equals and not weights):
            raise ValueError(f"a pretrained surrogate is NETWORK or NETWORK=WEIGHTS, got {text!r}")
        return cls(network, weights) if weights else cls(network)


def _surrogate_of(values: Mapping[str, Any]) -> PretrainedSurrogate:
    """From JSON values; those of before had one ``side``."""
    others = {name: value for name, value in values.items() if name not in ("side", "sides")}
    return PretrainedSurrogate(**others, sides=tuple(values["sides"]) if "sides" in values else (values["side"],))


def check_surrogates(surrogates: Sequence[PretrainedSurrogate]) -> None:
    """See that pretrained surrogates are a sequence of such, with sides that a network can be given.

    Raises:
        TypeError: they are not.
        ValueError: a side is below 8 px or above 2,048, there is none, or one comes twice.
    """
    given: Any = surrogates
    if not isinstance(given, list | tuple) or not all(isinstance(each, PretrainedSurrogate) for each in given):
        raise TypeError(
            f"pretrained must be a list of PretrainedSurrogate, got {given!r}. Use "
            "[PretrainedSurrogate('timm/efficientnet_lite0')]."
        )
    for each in surrogates:
        sides: Any = each.sides
        if not isinstance(sides, tuple) or not 0 < len(sides) <= MOST_MEMBERS or len(set(sides)) < len(sides):
            raise ValueError(
                f"sides of a pretrained surrogate must be a tuple of different ones, got {in_short(sides)}. Use (224,)."
            )
        for side in sides:
            check_integer("a side of a pretrained surrogate", side, low=8, high=2_048)


@dataclass(frozen=True)
class PGDConfig:
    """One projected gradient loop in a ball.

    Args:
        rho: radius of the ball, a fraction of the pixel range (for l2 the norm of a whole image).
        alpha: step size, same unit.
        steps: number of steps K.
        inner: what is added after t at every gradient (Eq. 6 and 10): ``None``, uniform noise of a
            radius, or the worst case that another PGD finds.
        num_samples: transformations averaged per gradient (J).
        norm: ``"linf"``, steps along the gradient's sign; ``"l2"``, along the gradient itself (victims only).
    """

    rho: float
    alpha: float
    steps: int
    inner: Uniform | PGDConfig | None = None
    num_samples: int = 1
    norm: Norm = "linf"


@dataclass(frozen=True)
class Uniform:
    """The random perturbation of Eq. 10: uniform in [-radius, radius], a fraction of the pixel range."""

    radius: float


@dataclass(frozen=True)
class GeneratorConfig:
    """Everything that decides the noise of a generator; defaults are the paper's CIFAR-10 setting.

    ``dataclasses.replace`` changes one field and no other. Radii, steps and length of a fit hang together, so change
    them with :func:`semtransforms.with_effort`: the step sizes and the learning rate's schedule follow.

    Three methods have no network to train. SC and AR read ``rho_u``, ``root_mean_square``, ``num_classes`` and ``seed``
    alone. NTGA reads ``rho_u``, ``alpha_u``, ``steps_u`` and ``seed`` as the others do, and three fields in the sense
    of its own formula: ``train_steps``, ``num_samples`` and ``batch_size``, which
    :class:`semtransforms.noise.ntga.KernelSettings` gives their names.

    Args:
        method: name of the method, as in the table of methods.
        defense_sees: what the noise step (Eq. 6, 10) sees after t: ``"uniform"``, ``"adversary"`` or ``None``.
        surrogate_sees: what the surrogate's update (Eq. 5) sees after t; same values.
        aim: where the noise drives the surrogate: ``"own"`` descends the loss of the image's own label, ``"shifted"``
            that of the next label, ``(y + 1) mod C``, ``"away"`` climbs the loss of the own label.
        fitted_on: what the surrogate learns from: ``"protected"`` images, with noise made anew at every step
            (Algorithm 1), ``"shuffled"``, the same with a label drawn anew for each image of each batch, so that
            nothing but the noise tells it and few images cannot be learned by heart (class-wise noise only), or
            ``"clean"`` ones, without a noise step.
        rho_u, alpha_u, steps_u: radius, step size and steps of the defensive noise.
        rho_a, alpha_a, steps_a: the same of the adversarial perturbation.
        rho_r: radius of the random perturbation; ``None`` means ``rho_a`` (the paper's choice, Table 6).
        num_samples: J, transformations averaged per gradient of the noise.
        root_mean_square: scale each image's noise to this root mean square, the l2 norm over the square root of the
            number of pixel values, instead of letting it reach ``rho_u`` (SC and AR in their authors' norm); ``None``
            otherwise.
            At most half of ``rho_u``, where about 1 % of it is cut at ``rho_u``.
        classwise: V, noises of each class that are learned along the fit, of which an image gets a window; 0 for none:
            each image has noise of its own.
        hold_steps: updates at the beginning of a fit that leave class-wise noise as the textures that it starts as; 0:
            it starts as random noise, and moves from the first update on.
        pretrained: networks with pretrained weights that an image's noise is driven against, on top of its class's
            (class-wise noise only); none by default.
        one_pass: updates of a network that paints the noise in one pass, behind the surrogate's fit; 0 for none: the
            noise is found by gradient steps.
        eot: T, a sequence of transformations applied in order.
        surrogate: name of the surrogate network, or of a closed form: ``"shortcut-patches"`` (SC),
            ``"autoregressive"`` (AR), ``"ntk-cnn"`` or ``"ntk-fnn"`` (NTGA).
        width: its width, for networks that have one (``convnet``); ``None`` for the network's default.
        num_classes: labels it was built for; ``None`` until fitted.
        image_size: pixels (height, width) it was built for; ``None`` takes the data's. Set before a fit, images of
            another size are resized and centre-cropped to it.
        train_steps: M, surrogate updates.
        batch_size, learning_rate, momentum, weight_decay: of the surrogate's SGD.
        decay_every, decay_factor: the learning rate is multiplied by ``decay_factor`` every ``decay_every`` steps,
            about two fifths of M in the presets: change them together.
        precision: ``"auto"`` (bf16 where the hardware gains by it), ``"fp32"`` or ``"bf16"``.
        seed: of the fit.

    Raises:
        ValueError: a radius is not a number, ``rho_u`` is under one grey level, a count is not positive,
            ``root_mean_square`` is out of place or of range, ...
    """

    method: str = "sem"
    defense_sees: Perturbation | None = "uniform"
    surrogate_sees: Perturbation | None = "adversary"
    aim: Aim = "own"
    fitted_on: FittedOn = "protected"
    rho_u: float = 8 / 255
    alpha_u: float = 1.6 / 255
    steps_u: int = 10
    rho_a: float = 4 / 255
    alpha_a: float = 0.8 / 255
    steps_a: int = 10
    rho_r: float | None = None
    num_samples: int = 5
    root_mean_square: float | None = None
    classwise: int = 0
    hold_steps: int = 0
    one_pass: int = 0
    pretrained: tuple[PretrainedSurrogate, ...] = ()
    eot: tuple[Transformation, ...] = (Transformation("crop", {"padding": 4}), Transformation("flip"))
    surrogate: str = "resnet18"
    width: int | None = None
    num_classes: int | None = None
    image_size: tuple[int, int] | None = None
    train_steps: int = 5000
    batch_size: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay_every: int = 2000
    decay_factor: float = 0.1
    precision: Precision = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rho_u", "alpha_u", "rho_a", "alpha_a", "rho_r", "root_mean_square"):
            value = getattr(self, name)
            if value is not None or name not in ("rho_r", "root_mean_square"):
                check_number(name, value, advice="It is a fraction of the pixel range, as in 8/255.")
                check_number(name, value, high=1, advice=f"It is a fraction of the pixel range: write {value:g}/255.")
        for name in ("learning_rate", "momentum", "weight_decay", "decay_factor"):
            check_number(name, getattr(self, name))
        for name in ("num_classes", "width"):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name))
        for name in ("steps_u", "num_samples", "train_steps", "batch_size", "decay_every"):
            check_integer(name, getattr(self, name), low=1)
        for name in ("steps_a", "classwise", "hold_steps", "one_pass"):
            check_integer(name, getattr(self, name), low=0)
        check_integer("seed", self.seed)
        given = {name: getattr(self, name) for name in MOST if getattr(self, name) is not None}
        check_amounts(given, self.image_size, self._check_names())
        check_choice("defense_sees", self.defense_sees, (None, "uniform", "adversary"))
        check_choice("surrogate_sees", self.surrogate_sees, (None, "uniform", "adversary"))
        check_choice("aim", self.aim, ("own", "shifted", "away"))
        check_choice("fitted_on", self.fitted_on, ("protected", "shuffled", "clean"))
        check_choice("precision", self.precision, ("auto", "fp32", "bf16"))
        for name in ("classwise", "one_pass"):
            on_network = self.fitted_on != "clean" and self.surrogate not in (PATCHES, AUTOREGRESSIVE, *KERNELS)
            if getattr(self, name) and not on_network:
                raise ValueError(
                    f"{name}={getattr(self, name)} needs a network that is fitted on protected images, got "
                    f"surrogate={self.surrogate!r} with fitted_on={self.fitted_on!r}. Leave {name} at 0."
                )
        if self.classwise and self.one_pass:
            raise ValueError(f"one_pass={self.one_pass} and classwise={self.classwise}: noise is either. Set one to 0.")
        if self.fitted_on == "shuffled" and not self.classwise:
            raise ValueError(
                "fitted_on='shuffled' needs classwise >= 1, got 0: noise that each image has of its own would be for a "
                "label that it has not"
            )
        if self.aim != "own" and self.fitted_on != "clean":
            raise ValueError(
                f"aim={self.aim!r} needs fitted_on='clean': a surrogate that learns from such noise learns to undo it"
            )
        if self.pretrained and not self.classwise:
            raise ValueError(
                f"pretrained={[each.network for each in self.pretrained]} needs classwise >= 1, got 0: noise is driven "
                "against pretrained surrogates on top of the noise of its class. Start from SEM_CLASSWISE."
            )
        if self.hold_steps and not self.classwise:
            raise ValueError(
                f"hold_steps={self.hold_steps} needs classwise >= 1, got 0: there are no textures to hold. Set it to 0."
            )
        check_surrogates(self.pretrained)
        self._check_sizes()
        if self.rho_a > self.rho_u and "adversary" in (self.defense_sees, self.surrogate_sees):
            warnings.warn(
                f"rho_a = {self.rho_a * 255:g}/255 is above rho_u = {self.rho_u * 255:g}/255: the paper assumes "
                "rho_a <= rho_u, beyond it an adversarial trainer can remove any such noise.",
                stacklevel=3,
            )

    def _check_names(self) -> str:
        """Whether names are words, and T a list of transformations: a file may hold anything; gives the surrogate."""
        for name in ("method", "surrogate"):
            if not isinstance(value := getattr(self, name), str) or len(value) > 100:
                raise ValueError(f"{name} must be a name, got {in_short(value)}.")
        if not isinstance(self.eot, list | tuple) or not all(
            isinstance(each, Transformation) and isinstance(each.name, str) and isinstance(each.arguments, Mapping)
            for each in self.eot
        ):
            raise ValueError(
                f"eot must be a sequence of Transformation, names with arguments, got {in_short(self.eot)}."
            )
        if len(self.eot) > MOST_MEMBERS:
            raise ValueError(f"eot must have at most {MOST_MEMBERS} transformations, got {len(self.eot):,}.")
        return self.surrogate

    def _check_sizes(self) -> None:
        """Whether a stored byte can hold noise of this radius, and the radius noise of this root mean square."""
        if self.rho_u < ONE_LEVEL * (1 - 1e-6):
            raise ValueError(
                f"rho_u must be at least 1/255, got {self.rho_u!r}: a stored byte cannot hold less. Use 8/255."
            )
        if self.rho_u > 127.5 / 255:
            raise ValueError(f"rho_u must be at most 127/255, got {self.rho_u!r}: noise is stored as int8. Use 8/255.")
        size = self.root_mean_square
        if size is not None and self.surrogate not in (PATCHES, AUTOREGRESSIVE):
            raise ValueError(
                f"root_mean_square is a size of SC's and AR's noise alone, got {size!r} with "
                f"surrogate={self.surrogate!r}. Leave it out; rho_u bounds this noise."
            )
        if size is not None and not 0 < size <= self.rho_u / 2:
            raise ValueError(
                f"root_mean_square must be above 0 and at most rho_u / 2 = {self.rho_u / 2 * 255:g}/255, got "
                f"{size * 255:g}/255: cut at rho_u, the noise would keep to neither. Raise rho_u, "
                "or set root_mean_square=None and let the noise reach rho_u (sc-linf, ar-linf)."
            )

    @property
    def pretrained_side(self) -> int:
        """The largest side that a pretrained surrogate sees, in pixels; 0 without any."""
        return max((side for each in self.pretrained for side in each.sides), default=0)

    @property
    def noise_precision(self) -> Precision:
        """The precision that the noise itself is computed in; one pass is in fp32 everywhere."""
        return "fp32" if self.one_pass else self.precision

    @property
    def random_radius(self) -> float:
        """rho_r, with the paper's default: equal to rho_a."""
        return self.rho_a if self.rho_r is None else self.rho_r

    @property
    def attack(self) -> PGDConfig:
        """The adversary of Eq. 5: PGD(rho_a, alpha_a, K_a)."""
        return PGDConfig(self.rho_a, self.alpha_a, self.steps_a)

    @property
    def defense(self) -> PGDConfig:
        """The noise step of Eq. 6 and 10: PGD(rho_u, alpha_u, K_u) with J samples and its inner perturbation."""
        return PGDConfig(self.rho_u, self.alpha_u, self.steps_u, self.perturbation(self.defense_sees), self.num_samples)

    @property
    def climbs(self) -> bool:
        """Whether the noise climbs the surrogate's loss instead of descending it."""
        return self.aim == "away"

    def target_labels(self, labels: Tensor) -> Tensor:
        """The labels whose loss the noise step takes: int64 (N,) in, int64 (N,) out."""
        if self.aim != "shifted":
            return labels
        assert self.num_classes is not None  # set by the fit
        return (labels + 1) % self.num_classes

    def perturbation(self, sees: Perturbation | None) -> Uniform | PGDConfig | None:
        """The perturbation that a word of the table of methods stands for."""
        if sees is None:
            return None
        return self.attack if sees == "adversary" else Uniform(self.random_radius)

    def to_dict(self) -> dict[str, Any]:
        """Every field as JSON values.

        What is younger than the first generators is left out where nothing is set, so that their fingerprints stay.
        """
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        for name in ("classwise", "hold_steps", "one_pass", "pretrained"):
            if not values[name]:
                del values[name]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GeneratorConfig:
        """The inverse of :meth:`to_dict`; unknown fields are an error that names the nearest known one."""
        known = [f.name for f in fields(cls)]
        for name in values:
            if name not in known:
                raise ValueError(unknown("field of a generator's config", name, known, near=1))
        ready = dict(values)
        if "eot" in ready:
            ready["eot"] = tuple(Transformation(t["name"], t.get("arguments", {})) for t in ready["eot"])
        if "pretrained" in ready:
            ready["pretrained"] = tuple(map(_surrogate_of, ready["pretrained"]))
        if isinstance(ready.get("image_size"), list):
            ready["image_size"] = tuple(ready["image_size"])
        return cls(**ready)

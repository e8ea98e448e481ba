"""What a defensive noise is made with: one frozen record, in the paper's symbols."""

from __future__ import annotations

import difflib
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

Perturbation = Literal["uniform", "adversary"]
Aim = Literal["own", "shifted", "away"]
FittedOn = Literal["protected", "clean"]
Precision = Literal["auto", "fp32", "bf16"]
Norm = Literal["linf", "l2"]
Kind = Literal["network", "painted", "kernel"]

# surrogates that are no networks: of SC, of NTGA
PATCHES, AUTOREGRESSIVE = "shortcut-patches", "autoregressive"
KERNELS = ("ntk-cnn", "ntk-fnn")

ONE_LEVEL = 1 / 255


def parse_radius(text: str | float) -> float:
    """Read a radius as people type it: ``"8/255"``, ``"0.03"`` or a number.

    Args:
        text: a fraction, a decimal or a float, in units of the pixel range.

    Returns:
        The radius as a fraction of the pixel range, in [0, 1].

    Raises:
        ValueError: if it is not a finite number in [0, 1].
    """
    try:
        radius = float(Fraction(text)) if isinstance(text, str) else float(text)
    except (ValueError, ZeroDivisionError, TypeError, OverflowError):
        raise ValueError(f"a radius must be a number such as 8/255, got {text!r}") from None
    if not (math.isfinite(radius) and 0 <= radius <= 1):
        raise ValueError(f"a radius is a fraction of the pixel range in 0..1, got {text!r}. Write 8/255, not 8.")
    return radius


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

    Three methods have no network to train. SC and AR read ``rho_u``, ``root_mean_square``, ``num_classes`` and ``seed``
    alone. NTGA reads ``rho_u``, ``alpha_u``, ``steps_u`` and ``seed`` as the others do, and three fields in the sense
    of its own formula: ``train_steps`` is the time t that the kernel's network is trained for, ``num_samples`` the
    number of networks its kernel is averaged over, ``batch_size`` the images of a block whose noise is found together.

    Args:
        method: name of the method, as in the table of methods.
        defense_sees: what the noise step (Eq. 6, 10) sees after t: ``"uniform"``, ``"adversary"`` or ``None``.
        surrogate_sees: what the surrogate's update (Eq. 5) sees after t; same values.
        aim: where the noise drives the surrogate: ``"own"`` descends the loss of the image's own label, ``"shifted"``
            that of the next label, ``(y + 1) mod C``, ``"away"`` climbs the loss of the own label.
        fitted_on: what the surrogate learns from: ``"protected"`` images, with noise made anew at every step
            (Algorithm 1), or ``"clean"`` ones, without a noise step.
        rho_u, alpha_u, steps_u: radius, step size and steps of the defensive noise.
        rho_a, alpha_a, steps_a: the same of the adversarial perturbation.
        rho_r: radius of the random perturbation; ``None`` means ``rho_a`` (the paper's choice, Table 6).
        num_samples: J, transformations averaged per gradient of the noise.
        root_mean_square: scale each image's noise to this root mean square, the l2 norm over the square root of the
            number of pixel values, instead of letting it reach ``rho_u`` (SC and AR in their authors' norm); ``None``
            otherwise.
            At most half of ``rho_u``, where about 1 % of it is cut at ``rho_u``.
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
            if value is None and name in ("rho_r", "root_mean_square"):
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
                raise ValueError(f"{name} must be a number >= 0, a fraction of the pixel range, got {value!r}")
            if value > 1:
                raise ValueError(f"{name} is a fraction of the pixel range, got {value!r}. Write {value:g}/255.")
        if self.rho_u < ONE_LEVEL * (1 - 1e-6):
            raise ValueError(
                f"rho_u must be at least 1/255, got {self.rho_u!r}: a stored byte cannot hold less. Use 8/255."
            )
        if self.rho_u > 127.5 / 255:
            raise ValueError(f"rho_u must be at most 127/255, got {self.rho_u!r}: noise is stored as int8. Use 8/255.")
        if self.root_mean_square is not None:
            if self.kind != "painted":
                raise ValueError(
                    f"root_mean_square is a size of SC's and AR's noise alone, got {self.root_mean_square!r} with "
                    f"surrogate={self.surrogate!r}. Leave it out; rho_u bounds this noise."
                )
            if not 0 < self.root_mean_square <= self.rho_u / 2:
                raise ValueError(
                    f"root_mean_square must be above 0 and at most rho_u / 2 = {self.rho_u / 2 * 255:g}/255, got "
                    f"{self.root_mean_square * 255:g}/255: cut at rho_u, the noise would keep to neither. Raise rho_u, "
                    "or set root_mean_square=None and let the noise reach rho_u (sc-linf, ar-linf)."
                )
        for name in ("learning_rate", "momentum", "weight_decay", "decay_factor"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
                raise ValueError(f"{name} must be a number >= 0, got {value!r}")
        for name in ("seed", "num_classes", "width"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | None):
                raise ValueError(f"{name} must be an integer, got {value!r}")
        for name in ("steps_u", "num_samples", "train_steps", "batch_size", "decay_every"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
        if isinstance(self.steps_a, bool) or not isinstance(self.steps_a, int) or self.steps_a < 0:
            raise ValueError(f"steps_a must be an integer >= 0, got {self.steps_a!r}")
        for name in ("defense_sees", "surrogate_sees"):
            if getattr(self, name) not in (None, "uniform", "adversary"):
                raise ValueError(f"{name} must be None, 'uniform' or 'adversary', got {getattr(self, name)!r}")
        if self.aim not in ("own", "shifted", "away"):
            raise ValueError(f"aim must be 'own', 'shifted' or 'away', got {self.aim!r}")
        if self.fitted_on not in ("protected", "clean"):
            raise ValueError(f"fitted_on must be 'protected' or 'clean', got {self.fitted_on!r}")
        if self.aim != "own" and self.fitted_on == "protected":
            raise ValueError(
                f"aim={self.aim!r} needs fitted_on='clean': a surrogate that learns from such noise learns to undo it"
            )
        if self.precision not in ("auto", "fp32", "bf16"):
            raise ValueError(f"precision must be 'auto', 'fp32' or 'bf16', got {self.precision!r}")
        if self.rho_a > self.rho_u and "adversary" in (self.defense_sees, self.surrogate_sees):
            warnings.warn(
                f"rho_a = {self.rho_a * 255:g}/255 is above rho_u = {self.rho_u * 255:g}/255: the paper assumes "
                "rho_a <= rho_u, beyond it an adversarial trainer can remove any such noise.",
                stacklevel=3,
            )

    @property
    def kind(self) -> Kind:
        """What the noise is computed on: a network, a neural tangent kernel (NTGA), nothing (SC, AR: it is painted)."""
        if self.surrogate in (PATCHES, AUTOREGRESSIVE):
            return "painted"
        return "kernel" if self.surrogate in KERNELS else "network"

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
        return PGDConfig(self.rho_u, self.alpha_u, self.steps_u, self.view(self.defense_sees), self.num_samples)

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

    def view(self, sees: Perturbation | None) -> Uniform | PGDConfig | None:
        """The perturbation that a word of the table of methods stands for."""
        if sees is None:
            return None
        return self.attack if sees == "adversary" else Uniform(self.random_radius)

    def to_dict(self) -> dict[str, Any]:
        """Every field as JSON values."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GeneratorConfig:
        """The inverse of :meth:`to_dict`; unknown fields are an error that names the nearest known one."""
        known = [f.name for f in fields(cls)]
        for name in values:
            if name not in known:
                nearest = difflib.get_close_matches(name, known, n=1)
                raise ValueError(
                    f"unknown field {name!r} in a generator's config"
                    + (f", did you mean {nearest[0]!r}?" if nearest else f"; known: {', '.join(known)}")
                )
        ready = dict(values)
        if "eot" in ready:
            ready["eot"] = tuple(Transformation(t["name"], t.get("arguments", {})) for t in ready["eot"])
        if ready.get("image_size") is not None:
            height, width = ready["image_size"]
            ready["image_size"] = (int(height), int(width))
        return cls(**ready)

"""What to do in the minutes that there are: speed measured here, and the fit that follows from it."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from semtransforms.core.checks import check_number
from semtransforms.core.config import GeneratorConfig, PretrainedSurrogate
from semtransforms.core.hardware import keep_freed_memory, pick_device
from semtransforms.core.keys import index_keys
from semtransforms.data.images import UNDECODABLE, encode_png, to_rgb
from semtransforms.generators.fitting import train_step
from semtransforms.noise.engine import build_surrogate, engine_of
from semtransforms.noise.methods import SEM_CLASSWISE, SEM_PLUS, with_effort
from semtransforms.photographs.check import TRAINER
from semtransforms.photographs.look import Found
from semtransforms.views.eot import build_eot
from semtransforms.views.resize import NOISE_SIZE, NoiseScale, centre_square

BATCH = 64  # photographs an update
MOST_UPDATES = 2_000  # more have not been measured
FEW = 100  # photographs a class, below which they have one noise: several would be learned from a few each
# textures do not hold those who learn from few photographs: what starts at random holds them, if they see colours
FROM_FEW = replace(
    SEM_CLASSWISE, classwise=1, hold_steps=0, alpha_u=1 / 255, eot=(SEM_CLASSWISE.eot[0], *SEM_PLUS.eot[1:])
)
PRESETS = (SEM_CLASSWISE, FROM_FEW)  # for many photographs, and for few
MEASURED_SECONDS = 0.7  # of updates, after one to warm up
MEASURED_UPDATES = 5  # at least: another process may hold up one of them for seconds
NOISED = 8  # images whose noise is timed
CHECKPOINT_SECONDS = 30  # of the fit, what a kill may cost


@dataclass(frozen=True)
class Effort:
    """One of the fits that there is to choose from.

    Args:
        side: S, the square in pixels that the surrogate sees, and the shorter side at which noise is made.
        width: of the surrogate, a convnet.
        enough: updates that move the noise, from which on this fit is preferred to the next one.
    """

    side: int
    width: int
    enough: int


# the better ones first; the last is taken where nothing else fits into the minutes
EFFORTS = (
    Effort(NOISE_SIZE, 32, 400),
    Effort(NOISE_SIZE, 16, 200),
)


def config_for(
    effort: Effort,
    *,
    num_classes: int,
    photographs: int,
    train_steps: int = 1,
    seed: int = 0,
    pretrained: Sequence[PretrainedSurrogate] = (),
    rho_u: float | None = None,
) -> GeneratorConfig:
    """The fit that an effort stands for.

    Args:
        effort: size and width.
        num_classes: C.
        photographs: N, how many there are to fit on.
        train_steps: M.
        seed: of the fit.
        pretrained: surrogates that noise is driven against beside it.
        rho_u: radius of the noise, a fraction of the pixel range; default: the preset's.
    """
    return replace(
        with_effort(PRESETS[photographs < FEW * num_classes], train_steps=train_steps, rho_u=rho_u),
        width=effort.width,
        num_classes=num_classes,
        image_size=(effort.side, effort.side),
        batch_size=min(BATCH, photographs),
        seed=seed,
        pretrained=tuple(pretrained),
    )


@dataclass(frozen=True)
class Plan:
    """The fit that was decided on. It is kept, so that a fit that goes on later stays the same fit.

    Args:
        config: everything that decides the generator.
        minutes: what it was to take.
        passes: a second, as measured when it was made.
        photographs: digest of what is fitted on.
        check_passes: a second, of the network that checks the copies, likewise.
    """

    config: GeneratorConfig
    minutes: float
    passes: float
    photographs: str
    check_passes: float

    @property
    def fit_seconds(self) -> float:
        """How long the updates take."""
        return passes_of_fit(self.config) / self.passes

    @property
    def is_of_today(self) -> bool:
        """Whether this version would fit so too, with any radius: the plan may have been kept by an older one."""
        c = self.config
        names = ("image_size", "width", "num_classes", "batch_size", "seed", "pretrained")
        kept = {name: getattr(c, name) for name in names}
        presets = (replace(preset, **kept) for preset in PRESETS)
        radii = (None, c.rho_u)
        return c in [with_effort(each, train_steps=c.train_steps, rho_u=rho) for each in presets for rho in radii]

    @property
    def checkpoint_every(self) -> int:
        """Updates between checkpoints."""
        return max(1, int(CHECKPOINT_SECONDS * self.passes / passes_of_update(self.config)))

    def describe(self) -> str:
        """A line for the owner."""
        c, side = self.config, max(self.config.image_size or (0,))
        return (
            f"Plan: a {c.surrogate} of width {c.width} is fitted on the middle of each photograph at {side} px: "
            f"{c.train_steps:,} updates of {c.batch_size} photographs with {c.steps_u} noise steps each "
            f"({self.passes:,.0f} passes a second here). Its noise of {side} px is enlarged"
            f"{''.join(map(_driven, c.pretrained))}."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "config": self.config.to_dict(), "minutes": self.minutes, "passes": self.passes,
            "photographs": self.photographs, "check_passes": self.check_passes,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """The inverse of :meth:`to_dict`; older versions kept the fit's speed alone.

        Raises:
            ValueError: something is missing, unknown, or of another type.
        """
        try:
            plan = cls(
                **{"check_passes": values["passes"], **values, "config": GeneratorConfig.from_dict(values["config"])}
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"the plan of the fit is damaged ({error!r})") from error
        numbers = (plan.minutes, plan.passes, plan.check_passes)
        if not all(type(each) in (int, float) and 0 < each < math.inf for each in numbers):
            raise ValueError(f"the plan of the fit is damaged (minutes and speeds must be above 0, got {numbers})")
        return plan


def make_plan(
    found: Found,
    minutes: float,
    *,
    read: float,
    seed: int,
    pretrained: Sequence[PretrainedSurrogate] = (),
    rho_u: float | None = None,
    device: str | None = None,
) -> Plan:
    """Choose the best fit that the minutes allow on this machine.

    Args:
        found: the photographs.
        minutes: for reading the photographs and for the fit.
        read: seconds to read one pixel of them.
        seed: of the fit.
        pretrained: surrogates that noise is driven against beside it.
        rho_u: radius of the noise, a fraction of the pixel range; default: the preset's.
        device: where to fit; default: CUDA if present.

    Returns:
        The plan.

    Raises:
        ValueError: the minutes do not suffice for one update; the message says which do.
    """
    check_number("minutes", minutes, low=-math.inf)
    left = 60 * minutes - found.pixels * read
    facts: dict[str, Any] = {
        "num_classes": len(found.classes),
        "photographs": len(found.rows),
        "pretrained": pretrained,
        "rho_u": rho_u,
    }
    measured: dict[tuple[int, int | None], float] = {}

    def speed(config: GeneratorConfig) -> float:
        network = (effort.side, config.width)
        if network not in measured:
            measured[network] = measure_passes(config, device)
        return measured[network]

    updates = 0
    for effort in EFFORTS:
        config = config_for(effort, **facts)
        passes = speed(config)
        updates = min(MOST_UPDATES, updates_within(left * passes, config))
        enough = config.hold_steps + effort.enough
        if updates >= enough:
            break
    least = (found.pixels * read + passes_of_fit(replace(config, train_steps=enough)) / passes) / 60
    _check_minutes(minutes, updates, enough, effort.side, least)
    check_passes = speed(replace(config, width=TRAINER.width))
    return Plan(
        config_for(effort, **facts, train_steps=updates, seed=seed), minutes, passes, found.digest, check_passes
    )


def _check_minutes(minutes: float, updates: int, enough: int, side: int, least: float) -> None:
    """Whether the minutes are enough for the fit that was chosen, which makes sense from ``least`` minutes on."""
    if updates < 1:
        raise ValueError(
            f"minutes (--minutes) must suffice for one update at least, got {minutes:g}. Here about "
            f"{math.ceil(10 * least) / 10:g} minutes are the least that makes sense: {enough} updates at "
            f"{side} px."
        )
    if updates < enough:
        warnings.warn(
            f"{minutes:g} minutes are {updates} updates here; fewer than {enough} were not measured. Give "
            f"--minutes {math.ceil(10 * least) / 10:g} or more.",
            stacklevel=4,
        )


def passes_of_update(config: GeneratorConfig) -> int:
    """Images that one update sends forward and backward."""
    attacked = config.steps_a if config.surrogate_sees == "adversary" else 0
    return config.batch_size * (config.steps_u * config.num_samples + attacked + 1)


def passes_of_fit(config: GeneratorConfig) -> int:
    """Images that all updates of a fit send forward and backward: held ones make no step of the noise."""
    return config.train_steps * passes_of_update(config) - min(config.hold_steps, config.train_steps) * _saved(config)


def updates_within(passes: float, config: GeneratorConfig) -> int:
    """How many updates a number of passes suffices for: the inverse of :func:`passes_of_fit`."""
    held = int(passes / (passes_of_update(config) - _saved(config)))
    if held <= config.hold_steps:
        return held
    return int((passes + config.hold_steps * _saved(config)) / passes_of_update(config))


def _saved(config: GeneratorConfig) -> int:
    """Images that an update sends less while the noise is held."""
    return config.batch_size * config.steps_u * config.num_samples


def measure_passes(config: GeneratorConfig, device: str | None = None) -> float:
    """How many images a second an update sends forward and backward, on images of noise.

    Args:
        config: the fit's, whose updates are timed.
        device: where to fit; default: CUDA if present.
    """
    target = pick_device(device)
    keep_freed_memory()
    config = replace(config, pretrained=())  # an update does not ask them
    surrogate = build_surrogate(config).to(target, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(surrogate.parameters(), lr=config.learning_rate)
    assert config.image_size is not None
    assert config.num_classes is not None
    eot, rows = build_eot(config.eot), torch.arange(config.batch_size, device=target)
    labels = rows % config.num_classes
    images = torch.rand(config.batch_size, 3, *config.image_size, generator=torch.Generator().manual_seed(0)).to(target)

    def update(number: int) -> Tensor:
        keys = index_keys(rows, number)
        return train_step(surrogate, optimizer, images, labels, keys=keys, config=config, eot=eot)[0]

    float(update(0))  # reading a loss waits for the device
    seconds: list[float] = []
    while sum(seconds) < MEASURED_SECONDS or len(seconds) < MEASURED_UPDATES:
        started = time.perf_counter()
        float(update(len(seconds) + 1))
        seconds.append(time.perf_counter() - started)
    return passes_of_update(config) / median(seconds)


def _driven(surrogate: PretrainedSurrogate) -> str:
    return f", driven against {surrogate.network} at {' and '.join(map(str, surrogate.sides))} px"


def measure_noise(config: GeneratorConfig, surrogate: nn.Module | None = None, device: str | None = None) -> float:
    """How many seconds the noise of one image takes: next to none where no network is asked for it.

    Args:
        config: the generator's.
        surrogate: the generator's; ``None`` builds one as before a fit.
        device: where to compute; default: CUDA if present.
    """
    if not config.pretrained:
        return 0.0
    made = build_surrogate(config) if surrogate is None else surrogate
    engine = engine_of(config)(made.to(pick_device(device)), config, build_eot(config.eot))
    rows = torch.arange(NOISED)
    images = torch.randint(0, 256, (NOISED, 3, engine.side, engine.side), generator=torch.Generator().manual_seed(0))
    labels, started = rows % (config.num_classes or 1), 0.0
    for timed in range(2):  # one to warm up
        started = time.perf_counter()
        engine.noise(images.to(torch.uint8), labels, index_keys(rows, timed))
    return (time.perf_counter() - started) / NOISED


def measure_files(found: Found, side: int) -> tuple[float, float]:
    """How long it takes to decode and shrink a photograph, and to write its copy too; one of median size is tried.

    Args:
        found: the photographs.
        side: S.

    Returns:
        Seconds for each pixel: to read it, and to read it and write its copy.

    Raises:
        ValueError: not one photograph decodes.
    """
    scale, middle = NoiseScale(side, 8), len(found.rows) // 2
    for row in sorted(found.by_size, key=lambda row: abs(found.by_size.index(row) - middle)):
        started = time.perf_counter()
        try:
            with found.source.open(row) as image:
                pixels = to_rgb(image).pixels
        except UNDECODABLE:  # it is named when all are read
            continue
        centre_square(pixels, side)
        read = time.perf_counter() - started
        noise = torch.ones((3, *scale.made_at(*pixels.shape[1:])), dtype=torch.int8)
        encode_png(scale.add(noise, pixels))
        write = time.perf_counter() - started
        return read / pixels[0].numel(), write / pixels[0].numel()
    raise ValueError(f"SOURCE: none of its {len(found.rows)} images decodes.")


def in_words(seconds: float) -> str:
    """A time as a plan tells it: seconds, or minutes from one on."""
    return f"{max(1, round(seconds))} s" if seconds < 60 else f"{seconds / 60:.0f} min"

"""The table of methods: what separates three papers fits on a screen.

============== ================== ================ ============ ===================== ====
method         noise step sees    surrogate sees   fitted on    direction of noise    J
============== ================== ================ ============ ===================== ====
SEM            U(-rho_r, rho_r)   PGD(rho_a)       protected    descend               5
SEM_PLUS       U(-rho_r, rho_r)   PGD(rho_a)       protected    descend               1
SEM_ONE_PASS   U(-rho_r, rho_r)   PGD(rho_a)       protected    descend               1
SEM_CLASSWISE  U(-rho_r, rho_r)   nothing          protected    descend               1
REM            PGD(rho_a)         PGD(rho_a)       protected    descend               5
REM-du         PGD(rho_a)         nothing          protected    descend               5
REM-theta      nothing            PGD(rho_a)       protected    descend               5
EM             nothing            nothing          protected    descend               1
TAP            nothing            nothing          clean        descend to next label 1
TAP untargeted nothing            nothing          clean        ascend                1
============== ================== ================ ============ ===================== ====

SEM_PLUS is SEM with greyscale and JPEG in T, behind crop and flip, against half the rho_a, with four times the noise
steps of one sample each, in a shorter fit. SEM_ONE_PASS is SEM_PLUS whose noise a network paints in one pass, fitted
against the surrogate. SEM_CLASSWISE is for photographs: the images of a class share a noise, which
the fit carries along (Huang et al. 2021), each sees it through a window of its own, and T holds the trainer's own crops
and sizes. REM-du and REM-theta are the ablations of Table 1.
TAP (Fowl et al. 2021) makes images look like the next class to a network that was fitted on the clean data. Without a
surrogate network: NTGA (Yuan and Wu 2021) climbs the error that a neural tangent kernel predicts; SC (Yu et al. 2022)
paints class-separated patches, AR (Sandoval-Segura et al. 2022) textures that an autoregressive process of the class
leaves behind. Both come up to rho_u (``sc-linf``, ``ar-linf``) and in their authors' l2 norm (``sc-l2``, ``ar-l2``),
which is comparable with nothing else here.
"""

from __future__ import annotations

from dataclasses import replace

from semtransforms.core.checks import check_integer, check_number
from semtransforms.core.config import AUTOREGRESSIVE, PATCHES, GeneratorConfig, Transformation
from semtransforms.core.names import unknown
from semtransforms.noise.engine import engine_of

SEM = GeneratorConfig(method="sem", defense_sees="uniform", surrogate_sees="adversary", num_samples=5)
# what trainers do to images, in T: the shares that lost least elsewhere; examples/reproduce/README.md has the search
_GREYSCALE = {"members": [{"name": "greyscale", "arguments": {}}], "probabilities": [0.2]}
_HALF_GREY = {**_GREYSCALE, "probabilities": [0.5]}
_JPEG = {"members": [{"name": "jpeg", "arguments": {"quality": [10, 60]}}], "probabilities": [0.2]}
# with this T an adversary of 4/255 left a trainer more than one of 2/255, and one of 0.7/255 did too; forty small steps
# with a fresh t each left a trainer less than twenty that see two, at the same cost (one seed each)
SEM_PLUS = replace(
    SEM,
    method="sem-plus",
    eot=(*SEM.eot, Transformation("one-of", _GREYSCALE), Transformation("one-of", _JPEG)),
    alpha_u=0.6 / 255,
    steps_u=40,
    num_samples=1,
    rho_a=2 / 255,
    alpha_a=1.34 / 255,
    steps_a=3,
    train_steps=800,
    decay_every=320,
)
# a network in the place of the forty steps; examples/reproduce/README.md has the trials
SEM_ONE_PASS = replace(SEM_PLUS, method="sem-one-pass", one_pass=4_000)
# For photographs: what their trainers do, in T, and noise that a class's images share, since there are few of them.
# With an adversary of 2/255 on the surrogate, 500 updates left a trainer at 64 px 30 % and one at 32 px 36 %; without
# one, 700 updates in less time left 6 % and 12 % (clothing10, ten classes, one seed). The surrogate learns slowly: what
# is found with a young one rules early in a training. It gets labels drawn anew, so that it can learn nothing but the
# noise: learning what is in the pictures beside it, it leaves that to trainers too.
SEM_CLASSWISE = replace(
    SEM_PLUS,
    method="sem-classwise",
    surrogate_sees=None,
    fitted_on="shuffled",
    classwise=2,
    hold_steps=300,
    eot=(Transformation("resized-crop"), Transformation("flip"), Transformation("one-of", _HALF_GREY), SEM_PLUS.eot[3]),
    alpha_u=0.5 / 255,
    steps_u=2,
    surrogate="convnet",
    batch_size=64,
    train_steps=1_000,
    decay_every=800,
    learning_rate=0.03,
)
REM = replace(SEM, method="rem", defense_sees="adversary")
REM_DELTA_U = replace(SEM, method="rem-delta-u", defense_sees="adversary", surrogate_sees=None)
REM_THETA = replace(SEM, method="rem-theta", defense_sees=None)
EM = replace(SEM, method="em", defense_sees=None, surrogate_sees=None, num_samples=1)
# 40 epochs of CIFAR-10; 250 small steps of noise. For 224 px Fowl et al. take alpha_u 0.16/255 and steps_u 100.
TAP = replace(
    EM,
    method="tap",
    aim="shifted",
    fitted_on="clean",
    alpha_u=0.064 / 255,
    steps_u=250,
    train_steps=15_600,
    decay_every=6_000,
)
TAP_UNTARGETED = replace(TAP, method="tap-untargeted", aim="away")
# Blocks of 512 images, time t in the place of M: t = 8 is the authors' best for CIFAR-10 with ntk-cnn, whose noise
# others compare with (4096 with ntk-fnn, 1 for ImageNet). Their paper has ten steps; in their code each of them starts
# from the clean images with the whole radius: they are one step, and one it is here.
NTGA = replace(
    EM, method="ntga", surrogate="ntk-cnn", aim="away", fitted_on="clean", alpha_u=8 / 255, steps_u=1, batch_size=512,
    train_steps=8,
)  # fmt: skip
SC_LINF = replace(EM, method="sc-linf", surrogate=PATCHES)
# l2 norm 6/255 sqrt(3HW); rho_u is far out, where hardly a patch reaches
SC_L2 = replace(SC_LINF, method="sc-l2", root_mean_square=6 / 255, rho_u=32 / 255)
AR_LINF = replace(EM, method="ar-linf", surrogate=AUTOREGRESSIVE)
# l2 norm 1 at 32 px, which is this root mean square; as above
AR_L2 = replace(AR_LINF, method="ar-l2", root_mean_square=(3 * 32 * 32) ** -0.5, rho_u=32 / 255)

_PRESETS = (
    SEM,
    SEM_PLUS,
    SEM_ONE_PASS,
    SEM_CLASSWISE,
    REM,
    REM_DELTA_U,
    REM_THETA,
    EM,
    TAP,
    TAP_UNTARGETED,
    NTGA,
    SC_LINF,
    SC_L2,
    AR_LINF,
    AR_L2,
)
METHODS = {preset.method: preset for preset in _PRESETS}

# The method where none is named: of fit_generator, of `semtransforms fit`, and, fitted on CIFAR-10, of
# ProtectedDataset. Whoever publishes does not choose what the trainer does, so what counts is the trainer who learns
# most: of fourteen that one reached 43 % on SEM_PLUS and 70 % on SEM, whose noise greyscale and JPEG undo.
DEFAULT = SEM_PLUS


def method(name: str) -> GeneratorConfig:
    """A preset by its name.

    Raises:
        ValueError: unknown name, with the nearest ones.
    """
    if name not in METHODS:
        raise ValueError(unknown("method", name, METHODS))
    return METHODS[name]


def with_effort(
    config: GeneratorConfig,
    *,
    rho_u: float | None = None,
    rho_a: float | None = None,
    steps_u: int | None = None,
    steps_a: int | None = None,
    train_steps: int | None = None,
) -> GeneratorConfig:
    """Change radii, steps or length of a fit, and let the step sizes and the learning rate's schedule follow.

    All steps of a perturbation together go as far as before, counted in radii (two to three in most methods), and one
    step goes a radius at most. The learning rate falls at the same share of the fit. ``dataclasses.replace`` changes
    its field alone: ten steps in the place of SEM_PLUS's forty would be as short as the forty, and go a quarter of the
    way.

    Args:
        config: a preset, or a config of your own.
        rho_u, rho_a: radius of the noise and of the adversary, fractions of the pixel range; ``alpha_u`` and
            ``alpha_a`` grow with them.
        steps_u, steps_a: K_u and K_a.
        train_steps: M, and ``decay_every`` and ``one_pass`` with it; NTGA's time t, which has no schedule.

    Returns:
        The changed config. What no argument is about stays as it is, bit for bit.

    Raises:
        ValueError: a value that a config cannot have; an argument that this method does not read.
    """
    given = {"rho_u": rho_u, "rho_a": rho_a, "steps_u": steps_u, "steps_a": steps_a, "train_steps": train_steps}
    changes: dict[str, float] = {name: value for name, value in given.items() if value is not None}
    unused = unused_options(config)
    for name in changes:
        if name in unused:
            raise ValueError(f"{name} is not used by method {config.method!r}. Leave it out.")
    for whose, radius, steps in (("u", rho_u, steps_u), ("a", rho_a, steps_a)):
        if radius is not None or steps is not None:  # else not computed anew, which could change the last bit
            changes[f"alpha_{whose}"] = _step_size(config, whose, radius, steps)
    if train_steps is not None and "decay_every" not in unused:
        check_integer("train_steps", train_steps, low=1)
        changes["decay_every"] = max(1, train_steps * config.decay_every // config.train_steps)
    if train_steps is not None and config.one_pass:
        changes["one_pass"] = max(1, train_steps * config.one_pass // config.train_steps)
    return replace(config, **changes)  # type: ignore[arg-type]  # each of its field's type


def _step_size(config: GeneratorConfig, whose: str, radius: float | None, steps: int | None) -> float:
    """The step size alpha of the noise (``whose`` is ``"u"``) or the adversary (``"a"``) at another radius or K."""
    before: float = getattr(config, f"rho_{whose}")
    alpha: float = getattr(config, f"alpha_{whose}")
    if before == 0:  # no share of it is known
        return alpha
    share = alpha / before
    if steps is not None:
        check_integer(f"steps_{whose}", steps)
        if steps > 0:  # 0 is for the config to judge
            share = min(1, share * getattr(config, f"steps_{whose}") / steps)
    if radius is not None:
        check_number(f"rho_{whose}", radius, high=1, advice="It is a fraction of the pixel range, as in 8/255.")
    return share * before if radius is None else share * radius


def check_surrogate(config: GeneratorConfig) -> None:
    """Whether a config of a preset's name has a surrogate of the preset's kind: with another it is another method.

    Raises:
        ValueError: NTGA on a network, EM on a kernel, ...; a view or an aim that a closed form does not read.
    """
    preset = METHODS.get(config.method, config)
    engine = engine_of(preset)
    for name in ("classwise", "one_pass"):
        given, usual = getattr(config, name), getattr(preset, name)
        if bool(given) != bool(usual):
            raise ValueError(
                f"{name}={given} makes another method of {config.method!r}, whose preset has {usual}. Start from the "
                "preset of that method, or give yours a name of its own."
            )
    if engine_of(config) is not engine or (engine.surrogates is None and config.surrogate != preset.surrogate):
        raise ValueError(
            f"surrogate must be {engine.surrogates or repr(preset.surrogate)} for method {config.method!r}, got "
            f"{config.surrogate!r}, which makes another method of it. Start from the preset of that method, or give "
            "yours a name of its own."
        )
    for name in engine.fixed:
        if getattr(config, name) != getattr(preset, name):
            raise ValueError(
                f"{name} is not read by method {config.method!r}, got {getattr(config, name)!r}. Leave it at "
                f"{getattr(preset, name)!r}."
            )


def unused_options(config: GeneratorConfig) -> set[str]:
    """The fields that this method does not read, of those that tune one of the others."""
    seen = {config.defense_sees, config.surrogate_sees}
    steps = () if "adversary" in seen else ("alpha_a", "steps_a")
    radius = () if seen != {None} else ("rho_a",)  # of the uniform perturbation, too
    return {*engine_of(config).unused, *steps, *radius}

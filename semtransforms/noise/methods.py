"""The table of methods: what separates three papers fits on a screen.

============== ================== ================ ============ ===================== ====
method         noise step sees    surrogate sees   fitted on    direction of noise    J
============== ================== ================ ============ ===================== ====
SEM            U(-rho_r, rho_r)   PGD(rho_a)       protected    descend               5
SEM_PLUS       U(-rho_r, rho_r)   PGD(rho_a)       protected    descend               1
REM            PGD(rho_a)         PGD(rho_a)       protected    descend               5
REM-du         PGD(rho_a)         nothing          protected    descend               5
REM-theta      nothing            PGD(rho_a)       protected    descend               5
EM             nothing            nothing          protected    descend               1
TAP            nothing            nothing          clean        descend to next label 1
TAP untargeted nothing            nothing          clean        ascend                1
============== ================== ================ ============ ===================== ====

SEM_PLUS is SEM with greyscale and JPEG in T, behind crop and flip, against half the rho_a, with four times the noise
steps of one sample each, in a shorter fit. REM-du and REM-theta are the ablations of Table 1.
TAP (Fowl et al. 2021) makes images look like the next class to a network that was fitted on the clean data. Without a
surrogate network: NTGA (Yuan and Wu 2021) climbs the error that a neural tangent kernel predicts; SC (Yu et al. 2022)
paints class-separated patches, AR (Sandoval-Segura et al. 2022) textures that an autoregressive process of the class
leaves behind. Both come up to rho_u (``sc-linf``, ``ar-linf``) and in their authors' l2 norm (``sc-l2``, ``ar-l2``),
which is comparable with nothing else here.
"""

from __future__ import annotations

import difflib
from dataclasses import replace

from semtransforms.core.config import AUTOREGRESSIVE, KERNELS, PATCHES, GeneratorConfig, Transformation

SEM = GeneratorConfig(method="sem", defense_sees="uniform", surrogate_sees="adversary", num_samples=5)
# what trainers do to images, in T: the shares that lost least elsewhere; examples/reproduce/README.md has the search
_GREYSCALE = {"members": [{"name": "greyscale", "arguments": {}}], "probabilities": [0.2]}
_JPEG = {"members": [{"name": "jpeg", "arguments": {"quality": [10, 60]}}], "probabilities": [0.2]}
# with this T an adversary of 4/255 left a trainer more than one of 2/255, and one of 0.7/255 did too; forty small steps
# with a fresh t each left him less than twenty that see two, at the same cost (one seed each)
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

_PRESETS = (SEM, SEM_PLUS, REM, REM_DELTA_U, REM_THETA, EM, TAP, TAP_UNTARGETED, NTGA, SC_LINF, SC_L2, AR_LINF, AR_L2)
METHODS = {preset.method: preset for preset in _PRESETS}


def method(name: str) -> GeneratorConfig:
    """A preset by its name.

    Raises:
        ValueError: unknown name, with the nearest ones.
    """
    if name not in METHODS:
        nearest = difflib.get_close_matches(name, METHODS, n=2) or list(METHODS)
        raise ValueError(f"unknown method {name!r}, did you mean {' or '.join(map(repr, nearest))}?")
    return METHODS[name]


def check_surrogate(config: GeneratorConfig) -> None:
    """Whether a config of a preset's name has a surrogate of the preset's kind: with another it is another method.

    Raises:
        ValueError: NTGA on a network, EM on a kernel, ...; a view or an aim that a closed form does not read.
    """
    preset = METHODS.get(config.method, config)
    wanted = preset.kind
    if config.kind != wanted or (wanted == "painted" and config.surrogate != preset.surrogate):
        kinds = {"network": "a network such as 'resnet18'", "kernel": " or ".join(map(repr, KERNELS))}
        raise ValueError(
            f"surrogate must be {kinds.get(wanted, repr(preset.surrogate))} for method {config.method!r}, got "
            f"{config.surrogate!r}, which makes another method of it. Start from the preset of that method, or give "
            "yours a name of its own."
        )
    for name in ("aim", "fitted_on", "defense_sees", "surrogate_sees"):
        if wanted != "network" and getattr(config, name) != getattr(preset, name):
            raise ValueError(
                f"{name} is not read by method {config.method!r}, got {getattr(config, name)!r}. Leave it at "
                f"{getattr(preset, name)!r}."
            )


def unused_options(config: GeneratorConfig) -> set[str]:
    """The fields that this method does not read, of those that tune one of the others."""
    unused = set()
    if config.defense_sees is None and config.surrogate_sees is None:
        unused |= {"rho_a", "alpha_a", "steps_a"}
    if config.kind != "network":
        unused |= {"width", "precision"}
    if config.kind == "painted":
        unused |= {"alpha_u", "steps_u", "num_samples", "train_steps", "batch_size"}
    return unused

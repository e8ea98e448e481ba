"""The trainers that have names, where each comes from and what it costs, and the named sets of them.

A trainer's name is how they train and what they do about the noise, joined by ``+``: ``"probe+jpeg-75"``. Either may be
left out: ``"standard"`` does nothing, ``"jpeg-75"`` trains as the standard trainer does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from semtransforms.evaluation.records import NONE

STANDARD = "standard"
PRETRAINED = ("probe", "fine-tune", "last-block")  # what starts from weights


class Known(NamedTuple):
    """A row of `TRAINERS`.

    Args:
        source: who published the trainer, in a few words.
        cost: time as a multiple of the standard trainer's, or what it takes beyond that.
    """

    source: str
    cost: str


_ISS = "Liu et al., ICML 2023 (Image Shortcut Squeezing)"
_KORNBLITH = "Kornblith et al., CVPR 2019"
_UERASER = "Qin et al. 2023 (UEraser)"
_SEM = "Liu et al., AAAI 2024 (SEM)"

TRAINERS: Mapping[str, Known] = {
    STANDARD: Known("-", "1: 20 epochs of SGD"),
    "greyscale": Known(_ISS, "1"),
    "jpeg-75": Known(_ISS, "1"),
    "shrink": Known("resizing, as most trainers do", "1"),
    "random-resized": Known("Szegedy et al., CVPR 2015", "1"),
    "probe": Known(f"{_KORNBLITH}, of pretrained weights", "two passes through the network"),
    "fine-tune": Known(f"{_KORNBLITH}; rates of Li et al., ICLR 2020", "20 epochs of the pretrained network"),
    "last-block": Known("Yosinski et al., NeurIPS 2014", "20 epochs, half of them backward"),
    "probe+jpeg-75": Known("both of the above", "as probe"),
    "adversarial-2/255": Known(f"{_SEM}, Table 2", "11: PGD of 10 steps"),
    "adversarial-4/255": Known(f"{_SEM}, Table 2", "11"),
    "adversarial-6/255": Known("the same, beyond the radii of the paper", "11"),
    "adversarial-8/255": Known("the same, at the usual radius of the noise", "11"),
    "longer-10": Known("the standard trainer, who goes on", "10"),
    "sam": Known("Foret et al., ICLR 2021 (SAM)", "2"),
    "simclr": Known("Chen et al., ICML 2020 (SimCLR), in small, and a probe", "10 to 15: 100 epochs of two views"),
    "early-stopping": Known(f"{_SEM}, Table 5", "1, less what is stopped"),
    "jpeg-10": Known(_ISS, "1"),
    "bit-depth-3": Known(_ISS, "1"),
    "mean": Known(f"{_SEM}, Table 4", "1"),
    "median": Known(f"{_SEM}, Table 4", "1"),
    "gaussian": Known(f"{_SEM}, Table 4", "1"),
    "bilateral": Known("Tomasi and Manduchi, ICCV 1998", "1"),
    "denoise": Known("Rudin, Osher and Fatemi 1992", "1"),
    "blind-denoise": Known("Yu and Sapiro, IPOL 2011; Donoho and Johnstone 1994", "1"),
    "low-pass": Known("Yin et al., NeurIPS 2019 (a Fourier perspective)", "1"),
    "band-pass": Known("likewise", "1"),
    "channel-norm": Known("Ulyanov et al. 2016 (instance normalisation), of pixels", "1"),
    "yuv-norm": Known("Sermanet et al., ICPR 2012 (YUV, normalised)", "1"),
    "lab-norm": Known("likewise, in CIE L*a*b*", "1"),
    "equalise": Known("Hummel 1977", "1"),
    "jpeg-75+greyscale": Known(f"{_ISS}, both", "1"),
    "channel-shuffle": Known(_UERASER, "1"),
    "warp": Known("Wang et al. 2023 (COIN), smooth here", "1"),
    "cutout": Known("DeVries and Taylor 2017", "1"),
    "mixup": Known("Zhang et al., ICLR 2018", "1"),
    "cutmix": Known("Yun et al., ICCV 2019", "1"),
    "randaugment": Known("Cubuk et al. 2020", "1.5"),
    "augmix": Known("Hendrycks et al., ICLR 2020", "2 to 4"),
    "colour-jitter": Known("Howard 2013", "1"),
    "gaussian-noise": Known("Bishop 1995", "1"),
    "ueraser": Known(_UERASER, "5"),
    "linear-removal": Known("Sandoval-Segura et al., NeurIPS 2023", "1, and minutes before"),
    "d-vae": Known("Yu et al., ICML 2024, smaller here", "1, and 2 minutes before"),
    "informed-same-seed": Known("this package: holds your generator and seed", "1, and as long as the protection took"),
    "informed-other-seed": Known("this package: holds your generator", "1, and as long as the protection took"),
    "pairs-500": Known("this package: holds 500 originals", "1, and 2 minutes before"),
    "pairs-500-labels": Known("this package: holds 500 originals", "1, and 2 minutes before"),
}

# "quick" is quick as the protocol of that name is, and goes with no other one
SETS: Mapping[str, tuple[str, ...]] = {
    "quick": (STANDARD, "greyscale", "jpeg-75"),
    "owner": (STANDARD, "greyscale", "jpeg-75", "shrink", "random-resized", "probe", "fine-tune"),
    "full": tuple(TRAINERS),
}


def split_name(trainer: str) -> tuple[str, str]:
    """How a trainer trains, and their countermeasure, both as an evaluation names them.

    Args:
        trainer: such as ``"standard"``, ``"jpeg-75"``, ``"probe+jpeg-75+greyscale"``.
    """
    first, _, rest = trainer.partition("+")
    if first in (STANDARD, *PRETRAINED, "sam", "simclr") or re.match("adversarial-|early-stopping|longer-", first):
        return first, rest or NONE
    return STANDARD, trainer


def cannot_be_played(
    trainer: str, *, images: int, classes: int | None, pretrained: bool, generator: bool
) -> str | None:
    """Why an evaluation cannot play a trainer of a set; ``None`` where it can.

    Args:
        trainer: a name of `TRAINERS`.
        images: how many there are to train on.
        classes: of how many classes; ``None`` where that is not known yet.
        pretrained: whether weights to start from are given.
        generator: whether the generator that made the copy is given.
    """
    victim, countermeasure = split_name(trainer)
    if victim in PRETRAINED and not pretrained:
        return "no pretrained weights: give pretrained (--pretrained)"
    if countermeasure.startswith("informed") and not generator:
        return "no generator: give the one of the copy (--generator)"
    held = re.match(r"pairs-(\d+)", countermeasure)
    if held and int(held[1]) >= images:
        return "too few images"
    return "more classes than pairs" if held and classes is not None and int(held[1]) < classes else None


def not_played(trainers: Iterable[str]) -> list[str]:
    """The trainers of the set ``owner`` that are not among these.

    Args:
        trainers: names, as in `TRAINERS`.
    """
    played = set(trainers)
    return [trainer for trainer in SETS["owner"] if trainer not in played]

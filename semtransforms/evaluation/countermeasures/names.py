"""Countermeasures by their names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torchvision.transforms.v2.functional import equalize

from semtransforms.core.names import unknown
from semtransforms.evaluation.countermeasures.base import Countermeasure
from semtransforms.evaluation.countermeasures.batch import (
    Augmentation,
    Mixture,
    augmix,
    channel_shuffle,
    colour_jitter,
    cutmix,
    cutout,
    gaussian_noise,
    mixup,
    randaugment,
    random_resized,
    warp,
)
from semtransforms.evaluation.countermeasures.dvae import DVAE
from semtransforms.evaluation.countermeasures.linear import LinearRemoval
from semtransforms.evaluation.countermeasures.pairs import HoldsPairs
from semtransforms.evaluation.countermeasures.partial import (
    CleanOnly,
    CleanShare,
    ProtectedClasses,
    ProtectedClassShare,
)
from semtransforms.evaluation.countermeasures.stored import ImageMap, Purifier, bit_depth, jpeg
from semtransforms.evaluation.countermeasures.ueraser import UEraser
from semtransforms.views.catalogue import CHANGES


def parse_countermeasure(text: str) -> tuple[Countermeasure, ...]:
    """Countermeasures from their names.

    Args:
        text: ``"none"``, a name such as ``"greyscale"`` or ``"jpeg-10"``, or several joined by ``+``, applied in that
            order (``"clean-share-20+jpeg-10"`` compresses the clean images too).

    Returns:
        The countermeasures; empty for ``"none"``.

    Raises:
        ValueError: an unknown name, with the nearest ones, or a value that does not fit.
    """
    return () if text == "none" else tuple(_parse_one(name) for name in text.split("+"))


def _parse_one(name: str) -> Countermeasure:
    if name in _PLAIN:
        return _PLAIN[name]()
    if name.startswith("informed"):
        raise ValueError(
            f"countermeasure {name!r} needs the published generator: evaluate(..., generator=...) builds it for "
            "'informed-same-seed' and 'informed-other-seed', or use InformedTrainer(generator, seed=...) yourself"
        )
    kind = max((kind for kind in _WITH_VALUE if name.startswith(f"{kind}-")), key=len, default=None)
    if kind is not None:
        build, example = _WITH_VALUE[kind]
        try:
            return build(name.removeprefix(f"{kind}-"))
        except ValueError as error:
            reason = str(error).rstrip(".")
            raise ValueError(f"countermeasure {name!r}: {reason}. Write, say, {kind}-{example}.") from None
    raise ValueError(unknown("countermeasure", name, KNOWN, all_in=f"{__name__}.KNOWN"))


_PLAIN: dict[str, Callable[[], Countermeasure]] = {
    **{name: partial(Purifier, function, name) for name, function in CHANGES.items()},
    "linear-removal": LinearRemoval,
    "d-vae": DVAE,
    "equalise": partial(ImageMap, equalize, "equalise"),
    "random-resized": partial(Augmentation, random_resized, "random-resized"),
    "warp": partial(Augmentation, warp, "warp"),
    "channel-shuffle": channel_shuffle,
    "augmix": partial(Augmentation, augmix, "augmix"),
    "cutout": partial(Augmentation, cutout, "cutout"),
    "mixup": partial(Mixture, mixup, "mixup"),
    "cutmix": partial(Mixture, cutmix, "cutmix"),
    "randaugment": partial(Augmentation, randaugment, "randaugment"),
    "colour-jitter": colour_jitter,
    "gaussian-noise": partial(Augmentation, gaussian_noise, "gaussian-noise"),
    "ueraser": UEraser,
}


def _holds_pairs(text: str) -> HoldsPairs:
    count = text.removesuffix("-labels")
    return HoldsPairs(int(count), by_label=count != text)


# with what follows the hyphen, and an example of it
_WITH_VALUE: dict[str, tuple[Callable[[str], Countermeasure], str]] = {
    "jpeg": (lambda text: jpeg(int(text)), "10"),
    "bit-depth": (lambda text: bit_depth(int(text)), "4"),
    "clean-share": (lambda text: CleanShare(float(text)), "20"),
    "clean-only": (lambda text: CleanOnly(float(text)), "20"),
    "pairs": (_holds_pairs, "500"),
    "protected-classes": (lambda text: ProtectedClasses(tuple(map(int, text.split(",")))), "0,1"),
    "protected-class-share": (lambda text: ProtectedClassShare(float(text)), "50"),
}

# what parse_countermeasure reads, with an example where a value follows
KNOWN = ("none", *_PLAIN, *(f"{name}-{example}" for name, (_, example) in _WITH_VALUE.items()))

"""Trainers by their names: how they train, and what they do about the noise."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from semtransforms.core.checks import check_choice, parse_radius
from semtransforms.core.names import unknown
from semtransforms.core.pretrained.libraries import smallest_side
from semtransforms.core.pretrained.network import TRANSFERS
from semtransforms.evaluation.countermeasures import Countermeasure, InformedTrainer, parse_countermeasure
from semtransforms.evaluation.records import NONE
from semtransforms.evaluation.victims import CUTS, FINE_TUNING, PROBE, VictimConfig, paper, quick
from semtransforms.protect.transform import SEMProtect

PROTOCOLS = ("quick", "paper")
# one of each kind
VICTIMS = ("standard", "adversarial-2/255", "adversarial-l2-0.5", "early-stopping", "longer-10", "sam", "simclr")
SHARPNESS = 0.05  # SAM's radius for CIFAR-10 (Foret et al., ICLR 2021, section 3.1)
LONGER_WITHOUT_LABELS = 5  # times as many updates as others: from views alone a network learns slowly


def victims_by_name(
    victims: Sequence[str] | Mapping[str, VictimConfig],
    protocol: str,
    network: str,
    width: int | None,
    train_sizes: Sequence[int] = (),
    crops: Sequence[str] = CUTS[:1],
    pretrained: str | os.PathLike[str] | None = None,
) -> Callable[[int], dict[str, VictimConfig]]:
    """The victims of an evaluation, as a function of how many images there are: the quick protocol counts in epochs.

    With ``train_sizes`` each victim comes at each size with each crop.

    Args:
        victims: names as for :func:`parse_victim`, or names and their configs.
        protocol: ``"quick"`` or ``"paper"``, for victims given by name.
        network, width: of victims given by name.
        train_sizes, crops: of all victims; none: as the configs have them.
        pretrained: weights of the network, for the victims given by name that start from some.

    Raises:
        ValueError: no victims, or an unknown victim, protocol, network or crop, or twice the same; sizes for victims
            that have some, or for some of them only; weights and no victim that starts from them, or the other way
            round.
    """
    check_sizes(train_sizes, crops)
    make = _victims_as_they_are(victims, protocol, network, width, pretrained)
    if not train_sizes:
        if len({config.train_size is None for config in make(1).values()}) > 1:
            raise ValueError(
                "victims must all have a train_size or none, got both: the others need images of one size. Judge them "
                "in another evaluation."
            )
        return make
    if own := [name for name, config in make(1).items() if config.train_size is not None]:
        raise ValueError(f"victim {own[0]!r} has a train_size of its own: leave train_sizes out, or that one.")

    def at_sizes(images: int) -> dict[str, VictimConfig]:
        return {
            f"{name}, {size} px, {crop}": replace(config, train_size=size, crop=crop)  # type: ignore[arg-type]
            for name, config in make(images).items()
            for size in train_sizes
            for crop in crops
        }

    at_sizes(1)  # a size that a network does not take is refused now
    return at_sizes


def check_sizes(train_sizes: Sequence[int], crops: Sequence[str]) -> None:
    """See that sizes and crops of trainers are what they may be.

    Args:
        train_sizes: in pixels.
        crops: as ``VictimConfig.crop``.

    Raises:
        ValueError: they are not, or one is named twice, or crops are given without a size.
    """
    for name, values, advice in (("train_sizes", train_sizes, (64, 128)), ("crops", crops, CUTS)):
        if isinstance(values, str) or not isinstance(values, Sequence) or len(set(values)) < len(values):
            raise ValueError(f"{name} must be a sequence of different values, got {values!r}. Use {name}={advice}.")
    if not crops:
        raise ValueError(f"crops must name at least one, got none. Use crops={CUTS}.")
    for crop in crops:
        check_choice("crops", crop, CUTS)
    if not train_sizes and tuple(crops) != CUTS[:1]:
        raise ValueError(
            f"crops={tuple(crops)} needs the sizes that trainers crop to. Pass train_sizes=(64,) (--train-size 64)."
        )


def _victims_as_they_are(
    victims: Sequence[str] | Mapping[str, VictimConfig],
    protocol: str,
    network: str,
    width: int | None,
    pretrained: str | os.PathLike[str] | None,
) -> Callable[[int], dict[str, VictimConfig]]:
    if isinstance(victims, Mapping):
        if pretrained is not None:
            raise ValueError("pretrained is for victims given by name. Put it into their configs: VictimConfig(...).")
        if not victims:
            raise ValueError("victims must name at least one, got none. Use victims=('standard',).")
        return lambda images: dict(victims)
    check_choice("protocol", protocol, PROTOCOLS)
    if isinstance(victims, str) or not victims:
        raise ValueError(f"victims must be a sequence of names, got {victims!r}. Use victims=('standard',).")
    smallest_side(network, width)
    changes = {each: parse_victim(each) for each in victims}
    if starting := [each for each, some in changes.items() if "transfer" in some]:
        if pretrained is None:
            raise ValueError(
                f"victim {starting[0]!r} starts from pretrained weights. Pass pretrained=... (--pretrained)."
            )
        for each in starting:
            changes[each]["pretrained"] = pretrained
    elif pretrained is not None:
        raise ValueError(
            f"pretrained={os.fspath(pretrained)!r} was given, and no victim starts from weights. Use "
            f"victims={tuple(TRANSFERS)} (--victims {','.join(TRANSFERS)})."
        )
    which = network if width is None else f"{network}-{width}"

    def at_size(images: int) -> dict[str, VictimConfig]:
        make = partial(quick, images) if protocol == "quick" else paper
        configs = {}
        for each, some in changes.items():
            config = make(network=network, width=width, **some)
            if each.startswith("early-stopping"):  # looks forty times, gives up after four looks without a better one
                config = replace(config, patience=max(1, config.train_steps // 10))
            if times := _times_as_long(each):
                config = replace(config, train_steps=times * config.train_steps, decay_every=times * config.decay_every)
            configs[f"{protocol} {each} {which}"] = config
        return configs

    return at_size


def parse_victim(text: str) -> dict[str, Any]:
    """What a trainer's name stands for, as fields of :class:`VictimConfig`.

    Args:
        text: ``"standard"``, ``"adversarial-2/255"``, ``"adversarial-l2-0.5"``, ``"early-stopping-30"`` (with 30 %
            of the validation images clean; none without a number), ``"longer-10"`` (ten times the updates), ``"sam"``
            (sharpness-aware), ``"simclr"`` (without labels, then a linear layer); or, from pretrained weights,
            ``"fine-tune"``, ``"last-block"`` or ``"probe"``.

    Raises:
        ValueError: unknown, with the nearest.
    """
    if text == "standard":
        return {}
    if text == "sam":
        return {"sharpness": SHARPNESS}
    if text == "simclr":
        return {"contrastive": True}
    if matched := re.fullmatch(r"longer-(\d+)", text):
        if int(matched[1]) < 2:
            raise ValueError(f"victim {text!r} must train at least twice as long. Write longer-10, say.")
        return {}
    if text in TRANSFERS:
        return {"transfer": text, **(PROBE if text == "probe" else FINE_TUNING)}
    if matched := re.fullmatch(r"early-stopping(?:-(\d+))?", text):
        return {"validation_clean": int(matched[1] or 0) / 100, "evaluations": 40}
    if matched := re.fullmatch(r"adversarial-(l2-)?(.+)", text):
        if matched[1]:
            try:
                radius = float(matched[2])
            except ValueError:
                raise ValueError(f"victim {text!r}: an l2 radius is a number such as 0.5") from None
            return {"rho_a": radius, "norm": "l2"}
        return {"rho_a": parse_radius(matched[2])}
    raise ValueError(unknown("victim", text, [*VICTIMS, *TRANSFERS]))


def _times_as_long(victim: str) -> int:
    """How many times the updates of the protocol a named victim makes; 0 for all others."""
    if victim == "simclr":
        return LONGER_WITHOUT_LABELS
    return int(victim.removeprefix("longer-")) if victim.startswith("longer-") else 0


def countermeasures_by_name(chosen: Any, generator: Any, seed: int) -> dict[str, tuple[Countermeasure, ...]]:
    """The countermeasures of an evaluation: name -> its parts, in order.

    Args:
        chosen: a sequence of names, countermeasures, or sequences of countermeasures.
        generator: the one that makes the copy, for trainers who hold it too; or ``None``.
        seed: of the copy's noise.

    Raises:
        ValueError: none, unknown or twice the same names, or a countermeasure that needs the generator where there is
            none.
    """
    if isinstance(chosen, str) or not chosen:
        raise ValueError(
            f"countermeasures must be a sequence with at least one, got {chosen!r}. Use countermeasures=({NONE!r},)."
        )
    named = [_named(each, generator, seed) for each in chosen]
    found = dict(named)
    if len(found) < len(named) or found.get(NONE):
        names = ", ".join(name for name, _ in named)
        raise ValueError(f"countermeasures must have names of their own, and {NONE!r} is taken; got {names}")
    return found


def _named(
    chosen: str | Countermeasure | Sequence[Countermeasure], generator: Any, seed: int
) -> tuple[str, tuple[Countermeasure, ...]]:
    """A countermeasure's name and its parts, in order."""
    if isinstance(chosen, str):
        informed = {"informed-same-seed": seed, "informed-other-seed": seed + 1}
        if chosen in informed:
            if not hasattr(generator, "surrogate"):
                raise ValueError(f"countermeasure {chosen!r} needs the generator that made the copy (generator=...)")
            return chosen, (InformedTrainer(generator, seed=informed[chosen], name=chosen),)
        if chosen.startswith("informed-by="):
            folder = chosen.removeprefix("informed-by=")
            other = SEMProtect.from_pretrained(folder).generator
            # a report that is published names no path
            chosen = f"informed-by={Path(folder).name}#{other.fingerprint[:6]}"
            return chosen, (InformedTrainer(other, seed=seed, name=chosen),)
        return chosen, parse_countermeasure(chosen)
    parts = (chosen,) if isinstance(chosen, Countermeasure) else tuple(chosen)
    return "+".join(each.name for each in parts) or NONE, parts

"""What an evaluation plays: victims and countermeasures crossed, or trainers by their names or the name of a set."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from semtransforms.core.names import unknown
from semtransforms.data.photographs import class_count_of, count_of
from semtransforms.evaluation.countermeasures import Countermeasure
from semtransforms.evaluation.records import NONE
from semtransforms.evaluation.sets import PRETRAINED, SETS, STANDARD, cannot_be_played, split_name
from semtransforms.evaluation.trainers import countermeasures_by_name, victims_by_name
from semtransforms.evaluation.victims import VictimConfig

DEFAULTS = ((STANDARD,), (NONE,))  # victims and countermeasures


@dataclass(frozen=True)
class Play:
    """Victims, each of which is played with each of some countermeasures.

    Args:
        victims_for: from the number of training images to name -> config.
        countermeasures: name -> parts, in order.
    """

    victims_for: Callable[[int], dict[str, VictimConfig]]
    countermeasures: dict[str, tuple[Countermeasure, ...]]


@dataclass(frozen=True)
class Setup:
    """What the trainers of an evaluation are made from; as the arguments of ``evaluate``."""

    protocol: str
    network: str
    width: int | None
    pretrained: str | os.PathLike[str] | None
    pretrained_network: str | None
    train_sizes: Sequence[int]
    crops: Sequence[str]
    generator: Any
    protection_seed: int = field(repr=False)

    def __post_init__(self) -> None:
        if self.pretrained_network is not None and self.pretrained is None:
            raise ValueError(
                f"pretrained_network={self.pretrained_network!r} needs the weights that it starts from. Pass "
                "pretrained=... (--pretrained)."
            )

    def play(self, victims: Any, countermeasures: Any) -> list[Play]:
        """Victims crossed with countermeasures; those from weights apart, where they have a network of their own."""
        chosen = countermeasures_by_name(countermeasures, self.generator, self.protection_seed)
        if self.pretrained_network is None or isinstance(victims, str | Mapping):
            return [self._play(victims, chosen, self.network, self.width, self.pretrained)]
        starting = [each for each in victims if each in PRETRAINED]
        others = [each for each in victims if each not in PRETRAINED]
        plays = [self._play(others, chosen, self.network, self.width, None)] if others else []
        if starting:
            plays.append(self._play(starting, chosen, self.pretrained_network, None, self.pretrained))
        return plays

    def _play(self, victims: Any, chosen: Any, network: str, width: int | None, pretrained: Any) -> Play:
        make = victims_by_name(victims, self.protocol, network, width, self.train_sizes, self.crops, pretrained)
        return Play(make, chosen)


def plays_of(
    trainers: str | Sequence[str] | None, victims: Any, countermeasures: Any, dataset: Any, setup: Setup
) -> tuple[list[Play], dict[str, str]]:
    """What an evaluation plays, and which trainers of a set it leaves out.

    Args:
        trainers: a name of :data:`SETS`; or names of trainers; or ``None`` for the two next.
        victims, countermeasures: as ``evaluate`` is given them.
        dataset: what there is to train on.
        setup: what the trainers are made from.

    Returns:
        What is played, in order; and trainer -> why it is not.

    Raises:
        ValueError: trainers beside victims or countermeasures; no such set or trainer, none, twice the same; the set
            ``"quick"`` with another protocol.
    """
    if trainers is None:
        return setup.play(victims, countermeasures), {}
    if isinstance(victims, Mapping) or (tuple(victims), tuple(countermeasures)) != DEFAULTS:
        raise ValueError(
            "trainers names victims with their countermeasures: leave victims and countermeasures out, or write, say, "
            "trainers=('standard', 'adversarial-2/255', 'probe+jpeg-75')."
        )
    if trainers == "quick" and setup.protocol != "quick":
        raise ValueError(
            f"trainers='quick' goes with protocol='quick' alone, got {setup.protocol!r}. Name the trainers one by one: "
            f"trainers={SETS['quick']}."
        )
    names, left_out = _names(trainers, dataset, setup)
    groups: dict[str, list[str]] = {}
    for name in names:
        victim, countermeasure = split_name(name)
        groups.setdefault(victim, []).append(countermeasure)
    plays = []
    for victim, some in groups.items():
        starts = victim in PRETRAINED
        network = (setup.pretrained_network if starts else None) or setup.network
        width = setup.width if network == setup.network else None
        chosen = countermeasures_by_name(some, setup.generator, setup.protection_seed)
        plays.append(setup._play([victim], chosen, network, width, setup.pretrained if starts else None))
    return plays, left_out


def _names(trainers: str | Sequence[str], dataset: Any, setup: Setup) -> tuple[list[str], dict[str, str]]:
    """The names of trainers to play, and those of a set that cannot be."""
    if not isinstance(trainers, str):
        if not trainers or len(set(trainers)) < len(trainers):
            raise ValueError(f"trainers must name at least one, none twice, got {trainers!r}. Use trainers='owner'.")
        if sets := [name for name in trainers if name in SETS]:
            raise ValueError(
                f"{sets[0]!r} is a set of trainers, and a set goes alone. Name its trainers one by one instead: "
                f"{','.join(SETS[sets[0]])}."
            )
        return list(trainers), {}
    if trainers not in SETS:
        raise ValueError(
            f"{unknown('set of trainers', trainers, SETS)} Give single trainers as a sequence (--trainers "
            "standard,jpeg-75)."
        )
    left_out = {}
    for name in SETS[trainers]:
        why = cannot_be_played(
            name,
            images=count_of(dataset),
            classes=class_count_of(dataset),
            pretrained=setup.pretrained is not None,
            generator=hasattr(setup.generator, "surrogate"),
        )
        if why is not None:
            left_out[name] = why
    return [name for name in SETS[trainers] if name not in left_out], left_out

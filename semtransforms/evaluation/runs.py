"""The runs of an evaluation: every victim on every copy, under every countermeasure, with every seed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from semtransforms.evaluation.copies import Copy
from semtransforms.evaluation.countermeasures import Countermeasure
from semtransforms.evaluation.records import NONE
from semtransforms.evaluation.victims import VictimConfig


@dataclass(frozen=True)
class Run:
    """One training to do.

    Args:
        copy: what is trained on.
        victim, config: the trainer, by name and in full.
        settings: the config as JSON values, as it was before any training: some pipelines change when they are used.
        countermeasure: what they do about the noise, by name.
        countermeasures: the same as its parts, in order.
    """

    copy: Copy
    victim: str
    config: VictimConfig
    settings: Mapping[str, Any]
    countermeasure: str
    countermeasures: tuple[Countermeasure, ...]

    @property
    def file(self) -> str:
        """Name of its record, without the ending: readable, and unique by the digest of the names."""
        names = (self.copy.name, self.victim, self.countermeasure)
        readable = "-".join(re.sub(r"[^A-Za-z0-9.+]+", "_", name)[:40] for name in names)
        return f"{readable}-{hashlib.sha256(repr(names).encode()).hexdigest()[:6]}-{self.config.seed}"


def plan_runs(
    copies: Sequence[Copy],
    victims: Mapping[str, VictimConfig],
    countermeasures: Mapping[str, tuple[Countermeasure, ...]],
    seeds: Sequence[int],
) -> Iterator[Run]:
    """All runs of an evaluation; all seeds of a row before the next row, so that what is stopped leaves whole rows.

    A probe that does nothing about the noise draws nothing: it is run with the first seed only.

    Args:
        copies: the clean one, and the protected one where there is one.
        victims: name -> config.
        countermeasures: name -> parts, in order, for the protected copy; for the clean one where it is alone.
        seeds: of the victims.
    """
    described = {victim: config.to_dict() for victim, config in victims.items()}

    def run(copy: Copy, victim: str, seed: int, name: str, parts: tuple[Countermeasure, ...]) -> Run:
        config = replace(victims[victim], seed=seed)
        return Run(copy, victim, config, {**described[victim], "seed": seed}, name, parts)

    for victim, config in victims.items():
        of_plain = seeds[:1] if config.is_probe else seeds  # more would be the same figure, called a spread of 0
        for seed in of_plain:
            yield run(copies[0], victim, seed, NONE, ())
        for name, parts in countermeasures.items():
            if len(copies) == 1 and name == NONE:
                continue
            for seed in seeds if parts else of_plain:
                yield run(copies[-1], victim, seed, name, parts)

"""What the runs of an evaluation say together: means over seeds, and how much is still learned."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from semtransforms.evaluation.records import CLEAN, NONE, Record
from semtransforms.evaluation.report.bounds import share_bounds

# Countermeasures that put clean images of the owner into the training set: what they teach, no protection can withhold.
WITH_CLEAN_IMAGES = ("clean-share-", "clean-only-", "pairs-", "protected-classes-", "protected-class-share-")
# below 5 points over guessing, or two test images, what a trainer names rightly is mostly chance
SMALLEST_GAIN, SMALLEST_IMAGES = 0.05, 2


class Trainer(NamedTuple):
    """Who trains, apart from the countermeasure; runs of different trainers are never averaged.

    ``way`` is ``"sam"`` or ``"simclr"`` for who trains sharpness-aware, or without labels.
    """

    victim: str
    network: str
    train_steps: int
    rho_a: float
    norm: str
    stops_early: bool
    train_size: int | None = None
    crop: str | None = None
    pretrained: str | None = None
    transfer: str | None = None
    way: str | None = None

    @property
    def longer(self) -> int:
        """How many times the updates of the protocol they make, as the name of a trainer says; 1 for all others."""
        named = re.search(r"(?<![\w-])longer-(\d+)(?![\w-])", self.victim)
        return int(named[1]) if named else 1

    @property
    def training(self) -> str:
        """Network, weights that it started from, and work."""
        start = "" if self.pretrained is None else f" from {self.pretrained}, {self.transfer}"
        return f"{self.network}{start}, {self.train_steps:,} {'iterations' if self.transfer == 'probe' else 'updates'}"

    @property
    def place(self) -> str:
        """At which size and by which crop they train, in words; empty where they take the images as they are."""
        return "" if self.train_size is None else f"{self.train_size} px ({self.crop})"

    def __str__(self) -> str:
        return f"{self.victim} ({self.training})"


class Row(NamedTuple):
    """A trainer with one countermeasure: a row of the table."""

    trainer: Trainer
    countermeasure: str

    @property
    def has_clean_images(self) -> bool:
        """Whether clean images of the owner are part of the training set."""
        return any(part.startswith(WITH_CLEAN_IMAGES) for part in self.countermeasure.split("+"))

    @property
    def holds_pairs(self) -> bool:
        """Whether they learned from originals and their protected copies to take the noise off the others."""
        return any(part.startswith("pairs-") for part in self.countermeasure.split("+"))

    @property
    def plain(self) -> Row:
        """The same trainer without a countermeasure, as which they have the clean copy."""
        return Row(self.trainer, NONE)

    @property
    def draws(self) -> bool:
        """Whether another seed gives another figure: a probe takes its features once and draws nothing."""
        return self.trainer.transfer != "probe" or self.countermeasure != NONE


class Spread(NamedTuple):
    """Mean and sample standard deviation over ``n`` runs; ``None`` for the deviation of a single one."""

    mean: float
    sd: float | None
    n: int

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f}" + ("" if self.sd is None else f" ± {100 * self.sd:.1f}")


@dataclass(frozen=True)
class Cell:
    """The runs of one row on one copy; a diverged run is counted, and is in no mean.

    Args:
        runs, diverged: how many there are.
        accuracy, peak: final and peak test accuracy; ``None`` if all diverged.
        robust: radius of the attack in words -> accuracy under it, where measured.
    """

    runs: int
    diverged: int
    accuracy: Spread | None
    peak: Spread | None
    robust: Mapping[str, Spread]

    @property
    def best(self) -> float | None:
        """The larger of final and peak accuracy: the worst case for the owner."""
        return None if self.accuracy is None or self.peak is None else max(self.accuracy.mean, self.peak.mean)


@dataclass(frozen=True)
class Summary:
    """The table: rows are trainers with countermeasures, columns are copies.

    Args:
        guess: accuracy of guessing the most frequent label.
        test_images: how many accuracies are measured on.
        copies: the clean one first, then in the order of the records.
        rows: the standard trainer first, then other ways to train, then by the radius of adversarial training, then who
            stops early; of each those from scratch first, and by the size they train at; of each the one without a
            countermeasure first, then in the order of the records.
        cells: what was measured.
    """

    guess: float
    test_images: int
    copies: tuple[str, ...]
    rows: tuple[Row, ...]
    cells: Mapping[tuple[str, Row], Cell]

    @property
    def protected(self) -> tuple[str, ...]:
        """The copies but the clean one."""
        return tuple(copy for copy in self.copies if copy != CLEAN)

    @property
    def attacks(self) -> list[str]:
        """The radii, in words, that robust accuracy was measured under."""
        return list(dict.fromkeys(radius for cell in self.cells.values() for radius in cell.robust))

    def rows_under(self, attack: str) -> list[Row]:
        """The rows whose robust accuracy was measured at that radius."""
        found = {row for (_, row), cell in self.cells.items() if attack in cell.robust}
        return [row for row in self.rows if row in found]

    def learned(self, copy: str, row: Row) -> float | None:
        """How much of what the clean copy teaches is still learned, by the best moments of both.

        Args:
            copy: name of a copy.
            row: trainer and countermeasure.

        Returns:
            (accuracy - guess) / (clean accuracy - guess), the latter of the same trainer without a countermeasure; not
            below 0. ``None`` where either was not measured or diverged, where the clean copy teaches too little, and
            where clean images are part of the training set.
        """
        found = self._accuracies(copy, row)
        return None if found is None else max(0.0, found[0] - self.guess) / (found[1] - self.guess)

    def learned_bounds(self, copy: str, row: Row) -> tuple[float, float] | None:
        """Between which values that share lies, as far as so many test images say, 95 times of 100.

        Args:
            copy: name of a copy.
            row: trainer and countermeasure.

        Returns:
            Lower and upper bound, see :func:`~semtransforms.evaluation.report.bounds.share_bounds`. The upper one is 1
            at most, or the share that was measured where that is more. ``None`` as there.
        """
        found = self._accuracies(copy, row)
        if found is None:
            return None
        lower, upper = share_bounds(*found, self.guess, self.test_images)
        return lower, min(upper, max(1.0, (found[0] - self.guess) / (found[1] - self.guess)))

    def _accuracies(self, copy: str, row: Row) -> tuple[float, float] | None:
        """The best moments of a trainer, and of the same one on the clean copy, where they can be compared."""
        cell, clean = self.cells.get((copy, row)), self.cells.get((CLEAN, row.plain))
        if row.has_clean_images or cell is None or clean is None or cell.best is None or clean.best is None:
            return None
        return None if self.is_chance(clean.best) else (cell.best, clean.best)

    def is_chance(self, accuracy: float) -> bool:
        """Whether an accuracy is so little above guessing that it says nothing."""
        return accuracy - self.guess < max(SMALLEST_GAIN, SMALLEST_IMAGES / self.test_images)


def summarise(records: Sequence[Record]) -> Summary:
    """Average the runs of each trainer, countermeasure and copy over their seeds.

    Args:
        records: runs on the same data.

    Returns:
        The table.
    """
    groups: dict[tuple[str, Row], list[Record]] = {}
    for record in records:
        groups.setdefault((record.copy, row_of(record)), []).append(record)
    copies = sorted(dict.fromkeys(copy for copy, _ in groups), key=lambda copy: copy != CLEAN)
    trainers = sorted(
        dict.fromkeys(row.trainer for _, row in groups),
        key=lambda t: (
            t.stops_early,
            t.norm != "linf",
            t.rho_a,
            t.way is not None or t.longer > 1,
            t.transfer is not None,
            t.train_size or 0,
        ),
    )
    countermeasures = list(dict.fromkeys([NONE, *(row.countermeasure for _, row in groups)]))
    rows = sorted(
        {row for _, row in groups},
        key=lambda row: (trainers.index(row.trainer), countermeasures.index(row.countermeasure)),
    )
    cells = {place: _cell(runs) for place, runs in groups.items()}
    first = records[0]
    return Summary(first.guess_accuracy, first.test_images, tuple(copies), tuple(rows), cells)


def row_of(record: Record) -> Row:
    """The row of the table that a run belongs to."""
    r = record
    trainer = Trainer(
        r.victim, r.network, r.train_steps, r.rho_a, r.norm, r.stopped_step is not None, r.train_size, r.crop,
        r.pretrained, r.transfer, _way_of(r),
    )  # fmt: skip
    return Row(trainer, r.countermeasure)


def _way_of(record: Record) -> str | None:
    settings = json.loads(record.settings)
    return "sam" if settings.get("sharpness") else "simclr" if settings.get("contrastive") else None


def by_trainer(rows: Iterable[Row]) -> dict[Trainer, list[Row]]:
    """The rows of each trainer, in order."""
    found: dict[Trainer, list[Row]] = {}
    for row in rows:
        found.setdefault(row.trainer, []).append(row)
    return found


def _cell(runs: Sequence[Record]) -> Cell:
    good = [r for r in runs if not r.diverged]
    robust: dict[str, list[float]] = {}
    for r in good:
        if r.robust_accuracy is not None and r.robust_rho is not None:
            robust.setdefault(radius_text(r.robust_rho, r.norm), []).append(r.robust_accuracy)
    return Cell(
        runs=len(runs),
        diverged=len(runs) - len(good),
        accuracy=_spread(r.test_accuracy for r in good),
        peak=_spread(r.peak_test_accuracy for r in good),
        robust={radius: spread for radius, values in robust.items() if (spread := _spread(values))},
    )


def _spread(values: Iterable[float]) -> Spread | None:
    found = list(values)
    if not found:
        return None
    return Spread(statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else None, len(found))


def percent(share: float) -> str:
    """A share as a text in whole percent."""
    return f"{100 * share:.0f} %"


def radius_text(rho: float, norm: str = "linf") -> str:
    """A radius as people type it: in grey levels for l-infinity, as a number for l2."""
    return f"{255 * rho:g}/255" if norm == "linf" else f"an ℓ2 radius of {rho:g}"

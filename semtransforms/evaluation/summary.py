"""What the runs of an evaluation say together: means over seeds, how much is still learned, and a verdict in words."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from semtransforms.evaluation.records import CLEAN, NONE, Record

# Of what the clean copy teaches. Up to the first a copy is mostly, up to the second partly protected.
QUARTERS = (0.25, 0.5, 0.75)
# Countermeasures that put clean images of the owner into the training set: what they teach, no protection can withhold.
WITH_CLEAN_IMAGES = ("clean-share-", "clean-only-", "protected-classes-", "protected-class-share-")
SMALLEST_GAIN = 0.05  # below 5 points over guessing, a share of the clean copy's gain is mostly chance


class Trainer(NamedTuple):
    """Who trains, apart from the countermeasure; runs of different trainers are never averaged."""

    victim: str
    network: str
    train_steps: int
    rho_a: float
    norm: str
    stops_early: bool

    def __str__(self) -> str:
        return f"{self.victim} ({self.network}, {self.train_steps:,} updates)"


class Row(NamedTuple):
    """A trainer with one countermeasure: a row of the table."""

    trainer: Trainer
    countermeasure: str

    @property
    def has_clean_images(self) -> bool:
        """Whether clean images of the owner are part of the training set."""
        return any(part.startswith(WITH_CLEAN_IMAGES) for part in self.countermeasure.split("+"))


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
        copies: the clean one first, then in the order of the records.
        rows: the standard trainer first, then by the radius of adversarial training, then who stops early; of each the
            one without a countermeasure first, then in the order of the records.
        cells: what was measured.
    """

    guess: float
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
        cell, clean = self.cells.get((copy, row)), self.cells.get((CLEAN, Row(row.trainer, NONE)))
        if row.has_clean_images or cell is None or clean is None or cell.best is None or clean.best is None:
            return None
        gain = clean.best - self.guess
        return max(0.0, cell.best - self.guess) / gain if gain >= SMALLEST_GAIN else None


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
        dict.fromkeys(row.trainer for _, row in groups), key=lambda t: (t.stops_early, t.norm != "linf", t.rho_a)
    )
    countermeasures = list(dict.fromkeys([NONE, *(row.countermeasure for _, row in groups)]))
    rows = sorted(
        {row for _, row in groups},
        key=lambda row: (trainers.index(row.trainer), countermeasures.index(row.countermeasure)),
    )
    cells = {place: _cell(runs) for place, runs in groups.items()}
    return Summary(records[0].guess_accuracy, tuple(copies), tuple(rows), cells)


def row_of(record: Record) -> Row:
    """The row of the table that a run belongs to."""
    r = record
    trainer = Trainer(r.victim, r.network, r.train_steps, r.rho_a, r.norm, r.stopped_step is not None)
    return Row(trainer, r.countermeasure)


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


@dataclass(frozen=True)
class Verdict:
    """What the runs say about one protected copy.

    Args:
        copy: its name.
        word: ``"mostly protected"``, ``"partly protected"``, ``"not protected"``; ``None`` where nothing allows one.
        learned: the largest share of what the clean copy teaches that a trainer still learned, where known.
        row: the trainer it was.
        sentences: the figures, and what they rest on.
    """

    copy: str
    word: str | None
    learned: float | None
    row: Row | None
    sentences: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.copy}: {self.word or 'no verdict'}. {' '.join(self.sentences)}"


def judge(summary: Summary, copy: str) -> Verdict:
    """Say in words what a protected copy withstood.

    "Not protected" takes one trainer who learned more than half; the better words take all trainers measured, so one
    that cannot be compared with the clean copy forbids them. Trainers with clean images of the owner do not count.

    Args:
        summary: the table.
        copy: name of a protected copy.

    Returns:
        The verdict.
    """
    rows = [row for row in summary.rows if (copy, row) in summary.cells]
    best = {
        row: found for row in rows if not row.has_clean_images and (found := summary.cells[copy, row].best) is not None
    }
    top = max(best, key=best.__getitem__, default=None)
    shares = {row: share for row in best if (share := summary.learned(copy, row)) is not None}
    worst = max(shares, key=shares.__getitem__, default=None)
    learned = None if worst is None else shares[worst]
    word = None
    if learned is not None and learned > QUARTERS[1]:
        word = "not protected"
    elif learned is not None and len(shares) == len(best):
        word = "mostly protected" if learned <= QUARTERS[0] else "partly protected"
    sentences = _figures(summary, copy, best)
    if worst is not None and learned is not None:
        lesson = f"{percent(learned)} of what the clean copy teaches"
        if worst == top:
            sentences.append(f"So the most successful trainer still learns {lesson} beyond guessing.")
        else:
            sentences.append(
                f"The largest share is still learned by the trainer {who(worst, summary)}: {lesson} the same trainer "
                "beyond guessing."
            )
    return Verdict(copy, word, learned, worst, (*sentences, *_caveats(summary, copy, best, shares)))


def _figures(summary: Summary, copy: str, best: Mapping[Row, float]) -> list[str]:
    """What the trainer who does nothing special reaches, and what the most successful one does."""
    guess = f"guessing {percent(summary.guess)}"
    plain = [row for row in best if not _deeds(row)]
    if not best:
        return [f"No trainer came to an end on it ({guess})."]
    sentences = [f"What a trainer who does nothing special reaches was not measured ({guess})."]
    if plain:
        usual = max(plain, key=best.__getitem__)
        figure, aside = _reached(summary, copy, usual)
        rest = "; ".join([*aside, guess])
        sentences = [f"A trainer {who(usual, summary)} reaches {figure} on the protected copy ({rest})."]
    top = max(best, key=best.__getitem__)
    if top not in plain:
        figure, aside = _reached(summary, copy, top)
        rest = f" ({'; '.join(aside)})" if aside else ""
        sentences.append(f"The most successful trainer measured, {who(top, summary)}, reaches {figure}{rest}.")
    elif len(best) > 1:
        sentences.append("No other trainer measured reaches more.")
    return sentences


def _reached(summary: Summary, copy: str, row: Row) -> tuple[str, list[str]]:
    """The final accuracy of a row; its best moment, and what the same trainer reaches with the clean copy."""
    cell = summary.cells[copy, row]
    assert cell.accuracy is not None  # the caller asks for rows that came to an end
    assert cell.best is not None
    final, best = percent(cell.accuracy.mean), percent(cell.best)
    aside = [] if best == final else [f"{best} at its best moment"]
    same = summary.cells.get((CLEAN, row))
    if same and same.accuracy:
        how = "" if row.countermeasure == NONE else " with the same countermeasure"
        aside.append(f"{percent(same.accuracy.mean)} on the clean copy{how}")
    return final, aside


def _caveats(summary: Summary, copy: str, best: Mapping[Row, float], shares: Mapping[Row, float]) -> list[str]:
    """What the figures rest on."""
    sentences = []
    cells = {row: cell for (name, row), cell in summary.cells.items() if name == copy}
    if best and not shares:
        sentences.append("How much is protected cannot be said: no trainer can be compared with the clean copy.")
    elif lone := len(best) - len(shares):
        sentences.append(f"Trainers that cannot be compared with the clean copy: {lone} of {len(best)}.")
    if mixed := dict.fromkeys(row.countermeasure for row in cells if row.has_clean_images):
        sentences.append(f"Not counted, since clean images of the owner were trained on: {', '.join(mixed)}.")
    if diverged := sum(cell.diverged for cell in cells.values()):
        runs = sum(cell.runs for cell in cells.values())
        sentences.append(f"Runs that diverged and are left out, which is no protection: {diverged} of {runs}.")
    once = sum((found := cells[row].accuracy) is not None and found.n == 1 for row in best)
    if once == len(best) == 1:
        sentences.append("This rests on one trainer and one seed.")
    elif once:
        some = "All" if once == len(best) else f"Of the {len(best)} trainers, {once}"
        sentences.append(f"{some} were run with one seed only (n=1), so their spread is not known.")
    clean = {Row(row.trainer, NONE) for row in shares}
    if any((found := summary.cells[CLEAN, row].accuracy) and found.n == 1 for row in clean):
        sentences.append("The clean copy, which this is compared with, was tried with one seed only.")
    return sentences


def who(row: Row, summary: Summary) -> str:
    """What a trainer does, as a relative clause: ``"who converts to greyscale"``.

    Args:
        row: trainer and countermeasure.
        summary: the table it is from; where several of its trainers train alike, the clause names the one.

    Returns:
        The clause.
    """
    alike = {trainer for trainer, _ in summary.rows if trainer[3:] == row.trainer[3:]}
    which = f" [{row.trainer}]" if len(alike) > 1 else ""
    return f"who {' and '.join(_deeds(row)) or 'does nothing special'}{which}"


def _deeds(row: Row) -> list[str]:
    """What a trainer does beyond the usual."""
    trainer, deeds = row.trainer, []
    if trainer.rho_a:
        deeds.append(f"trains adversarially at {radius_text(trainer.rho_a, trainer.norm)}")
    if trainer.stops_early:
        deeds.append("stops early")
    for part in row.countermeasure.split("+") if row.countermeasure != NONE else ():
        quality = re.fullmatch(r"jpeg-(\d+)", part)
        deeds.append(f"compresses to JPEG at quality {quality[1]}" if quality else _DEEDS.get(part, f"uses {part}"))
    return deeds


_DEEDS = {
    "greyscale": "converts to greyscale",
    "informed-same-seed": "washes the noise out with the generator and the owner's seed",
    "informed-other-seed": "washes the noise out with the generator and another seed",
}


def percent(share: float) -> str:
    """A share as a text in whole percent."""
    return f"{100 * share:.0f} %"


def radius_text(rho: float, norm: str = "linf") -> str:
    """A radius as people type it: in grey levels for l-infinity, as a number for l2."""
    return f"{255 * rho:g}/255" if norm == "linf" else f"an ℓ2 radius of {rho:g}"


def conditions(records: Sequence[Record]) -> list[tuple[str, str]]:
    """What was measured, on what, and where; distinct values where runs differ.

    The seed of a protection is left out: pages are passed on, and whoever has the seed can take the noise off.

    Args:
        records: runs on the same data.

    Returns:
        (heading, text) in reading order.
    """
    first = records[0]
    train_images = _listed(f"{r.train_images:,}" for r in records)
    copies: dict[tuple[str, str], list[str]] = {}
    for r in records:
        if r.copy != CLEAN:
            made = "unknown" if r.rho_u is None else f"ρ_u = {radius_text(r.rho_u)}"
            copies.setdefault((r.copy, f"method {r.method or 'unknown'}, {made}"), []).append(
                (r.generator or "unknown")[:12]
            )
    versions = (f"Python {r.python}, torch {r.torch}, semtransforms {r.semtransforms}" for r in records)
    hours = sum(r.seconds for r in records) / 3600
    diverged = sum(r.diverged for r in records)
    return [
        ("Data", f"{first.dataset}: {train_images} training images, {first.test_images:,} test images"),
        ("Images", f"{first.classes:,} classes, {first.height} × {first.width} pixels (height × width)"),
        ("SHA-256 of the data", first.data),
        *((f"Copy {copy}", f"{made}; generator {_listed(prints)}") for (copy, made), prints in copies.items()),
        ("Trainers", _listed((f"{r.victim}: {r.network}, {r.train_steps:,} updates" for r in records), "; ")),
        ("Seeds", _listed(sorted(r.seed for r in records))),
        ("Runs", f"{len(records):,}, of which {diverged:,} diverged; {hours:.1f} hours of training"),
        ("Work", f"{sum(r.passes for r in records):,} images sent forward and backward"),
        ("Machines", _listed((f"{r.processor}, threads: {r.threads}" for r in records), "; ")),
        ("Versions", _listed(versions, "; ")),
    ]


def _listed(values: Iterable[object], separator: str = ", ") -> str:
    """The distinct ones, in order."""
    return separator.join(dict.fromkeys(map(str, values)))


_MEASURES = {
    "psnr": ("PSNR of the images changed, dB", "{:.1f}"),
    "ssim": ("SSIM (1: identical)", "{:.3f}"),
    "linf": ("largest change of a value, grey levels", "{:.0f}"),
    "l2": ("ℓ2 norm of an image's change (pixel range 1)", "{:.2f}"),
    "share_at_bound": ("values changed by the bound", "{:.1%}"),
    "share_changed": ("values changed at all", "{:.1%}"),
    "unchanged_images": ("images not changed", "{:,.0f}"),
    "spectrum_low": ("power per frequency, periods over 8 pixels (white noise: a third)", "{:.1%}"),
    "spectrum_mid": ("the same, over 4 to 8 pixels", "{:.1%}"),
    "spectrum_high": ("the same, up to 4 pixels", "{:.1%}"),
    "linear_accuracy": ("accuracy of a linear model on the noise alone", "{:.1%}"),
    "guess_rate": ("accuracy of naming the most frequent label", "{:.1%}"),
    "surrogate_robustness": ("robustness of the surrogate R_θ (Eq. 8; 0 is the most)", "{:.3f}"),
    "noise_robustness": ("robustness of the noise R_δᵘ (Eq. 9; 0 is the most)", "{:.3f}"),
}


def noise_table(noise: Mapping[str, Mapping[str, float | None]]) -> list[tuple[str, dict[str, str]]]:
    """Measures of the noise as texts, one row per measure.

    Args:
        noise: copy -> measure -> value; ``None`` where it is not defined.

    Returns:
        (the measure in words, copy -> value as a text); what a copy lacks is missing.
    """
    rows = []
    for key in dict.fromkeys(key for measures in noise.values() for key in measures):
        words, form = _MEASURES.get(key, (key.replace("_", " "), "{:.4g}"))
        values = {copy: measures[key] for copy, measures in noise.items() if key in measures}
        texts = {c: "not defined" if v is None else form.format(v).replace("%", " %") for c, v in values.items()}
        rows.append((words, texts))
    return rows

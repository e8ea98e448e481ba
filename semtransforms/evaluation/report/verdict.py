"""The verdict on a protected copy: how much of the clean copy's lesson is still learned, in words."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from semtransforms.evaluation.records import CLEAN, NONE
from semtransforms.evaluation.report.summary import Row, Summary, percent, radius_text
from semtransforms.evaluation.sets import STANDARD, not_played

# Of what the clean copy teaches. Up to the first a copy is mostly, up to the second partly protected.
QUARTERS = (0.25, 0.5, 0.75)
GRADES = ("mostly", "partly", "not")


@dataclass(frozen=True)
class Verdict:
    """What the runs say about one protected copy.

    Args:
        copy: its name.
        word: ``"mostly protected"``, ``"partly protected"``, ``"not protected"``; ``"mostly or partly protected"``,
            ``"mostly, partly or not protected"`` and the like where the test images are too few to tell; ``None`` where
            nothing allows one.
        learned: the largest share of what the clean copy teaches that a trainer still learned, where known.
        bounds: between which values that share lies, where they are too few to tell.
        row: the trainer it was.
        sentences: the figures, and what they rest on.
    """

    copy: str
    word: str | None
    learned: float | None
    bounds: tuple[float, float] | None
    row: Row | None
    sentences: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.copy}: {self.word or 'no verdict'}. {' '.join(self.sentences)}"


def judge(summary: Summary, copy: str) -> Verdict:
    """Say in words what a protected copy withstood.

    "Not protected" takes one trainer who learned more than half; the better words take all trainers measured, so one
    who learned from this copy and cannot be compared with the clean one forbids them. Trainers with clean images of the
    owner do not count.

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
    bounds = None if worst is None else summary.learned_bounds(copy, worst)
    grades = () if bounds is None else GRADES[_grade(bounds[0]) : _grade(bounds[1]) + 1]
    word = None
    # who learned next to nothing from either copy takes no word away
    if grades and all(row in shares or summary.is_chance(accuracy) for row, accuracy in best.items()):
        word = f"{_either(grades)} protected"
    elif learned is not None and learned > QUARTERS[1]:
        word = "not protected"
    if len(grades) < 2:
        bounds = None
    sentences = _figures(summary, copy, best)
    if worst is not None and learned is not None:
        lesson = f"{percent(learned)} of what the clean copy teaches"
        if worst == top and not worst.trainer.place:
            sentences.append(f"So the most successful trainer still learns {lesson} beyond guessing.")
        else:
            sentences.append(
                f"The largest share is still learned by the trainer {who(worst, summary)}: {lesson} the same trainer "
                "beyond guessing."
            )
    if bounds is not None:
        sentences.append(f"This share is from only {summary.test_images:,} test images: {between(bounds)}.")
    return Verdict(copy, word, learned, bounds, worst, (*sentences, *_caveats(summary, copy, best, shares)))


def _grade(learned: float) -> int:
    """The position in ``GRADES`` of a share; a bound belongs to the better one."""
    return bisect_left(QUARTERS[:2], learned)


def _either(words: Sequence[str]) -> str:
    """``"a"``, ``"a or b"``, ``"a, b or c"``."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def between(bounds: tuple[float, float]) -> str:
    """Two shares as a text: ``"between 3 % and 41 %"``."""
    return f"between {percent(bounds[0])} and {percent(bounds[1])}"


def _figures(summary: Summary, copy: str, best: Mapping[Row, float]) -> list[str]:
    """What the trainer who does nothing special reaches, and what the most successful one does."""
    guess = f"guessing {percent(summary.guess)}"
    plain = [row for row in best if not deeds(row)]
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
    if places := dict.fromkeys(row.trainer.place for row in cells if row.trainer.place):
        sentences.append(f"Sizes and crops tried: {', '.join(places)}; a trainer at others may learn more.")
    if mixed := dict.fromkeys(row.countermeasure for row in cells if row.has_clean_images):
        sentences.append(f"Not counted, since clean images of the owner were trained on: {', '.join(mixed)}.")
    held = {row: cell.best for row, cell in cells.items() if row.holds_pairs and cell.best is not None}
    if held:
        top = max(held, key=held.__getitem__)
        sentences.append(
            f"Of them, who holds originals with their copies reaches {percent(held[top])} ({top.countermeasure})."
        )
    if diverged := sum(cell.diverged for cell in cells.values()):
        runs = sum(cell.runs for cell in cells.values())
        sentences.append(f"Runs that diverged and are left out, which is no protection: {diverged} of {runs}.")
    if missing := not_played(name for row in best for name in names_of(row)):
        sentences.append(f"Not played, of the trainers that an owner must know: {', '.join(missing)}.")
    once = sum(row.draws and (found := cells[row].accuracy) is not None and found.n == 1 for row in best)
    if once == len(best) == 1:
        sentences.append("This rests on one trainer and one seed.")
    elif once:
        some = "All" if once == len(best) else f"Of the {len(best)} trainers, {once}"
        sentences.append(f"{some} were run with one seed only (n=1), so their spread is not known.")
    clean = {Row(row.trainer, NONE) for row in shares}
    if any(row.draws and (found := summary.cells[CLEAN, row].accuracy) and found.n == 1 for row in clean):
        sentences.append("The clean copy, which this is compared with, was tried with one seed only.")
    return sentences


def names_of(row: Row) -> list[str]:
    """The named trainers that a row stands for.

    Args:
        row: trainer and countermeasure.
    """
    trainer, way = row.trainer, row.trainer.transfer or STANDARD
    if trainer.rho_a or trainer.stops_early or trainer.way or trainer.longer > 1:
        return []
    if row.countermeasure != NONE:
        return [row.countermeasure] if way == STANDARD else []
    if way != STANDARD or trainer.train_size is None:
        return [way]
    return [way, "shrink", *(["random-resized"] if trainer.crop == "random-resized" else [])]  # photographs, resized


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
    at = f" at {row.trainer.place}" if row.trainer.place else ""
    return f"who {' and '.join(deeds(row)) or 'does nothing special'}{at}{which}"


def deeds(row: Row) -> list[str]:
    """What a trainer does beyond the usual, as the ends of relative clauses.

    Args:
        row: trainer and countermeasure.
    """
    trainer, deeds = row.trainer, []
    if trainer.transfer:
        deeds.append(f"{_TRANSFERS[trainer.transfer]} {trainer.network} ({trainer.pretrained})")
    if trainer.way:
        deeds.append(_WAYS[trainer.way])
    if trainer.longer > 1:
        deeds.append(f"trains {trainer.longer} times as long")
    if trainer.rho_a:
        deeds.append(f"trains adversarially at {radius_text(trainer.rho_a, trainer.norm)}")
    if trainer.stops_early:
        deeds.append("stops early")
    for part in row.countermeasure.split("+") if row.countermeasure != NONE else ():
        quality = re.fullmatch(r"jpeg-(\d+)", part)
        deeds.append(f"compresses to JPEG at quality {quality[1]}" if quality else _DEEDS.get(part, f"uses {part}"))
    return deeds


_TRANSFERS = {
    "fine-tune": "fine-tunes the pretrained",
    "last-block": "trains the last block of the pretrained",
    "probe": "fits a linear layer on the features of the pretrained",
}
_WAYS = {
    "sam": "trains sharpness-aware",
    "simclr": "learns without labels and fits a linear layer on that",
}
_DEEDS = {
    "greyscale": "converts to greyscale",
    "informed-same-seed": "washes the noise out with the generator and the owner's seed",
    "informed-other-seed": "washes the noise out with the generator and another seed",
}

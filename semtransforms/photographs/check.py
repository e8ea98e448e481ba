"""A quick trainer on a sample of what was published, and on the originals: the verdict an owner gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

from semtransforms.core.config import GeneratorConfig
from semtransforms.data.images import as_pixels
from semtransforms.data.loading import resized
from semtransforms.data.opening import open_image
from semtransforms.data.remote import Place
from semtransforms.evaluation.protocol import evaluate
from semtransforms.evaluation.records import CLEAN, NONE
from semtransforms.evaluation.report import EvaluationReport
from semtransforms.evaluation.report.summary import percent, summarise
from semtransforms.evaluation.report.verdict import between, judge
from semtransforms.evaluation.victims import VictimConfig
from semtransforms.photographs.look import Found

SAMPLE = 600  # photographs that are looked at, those to test with included
HELD_OUT = 5  # every which one is to test with
COPY = "published"  # its name in the report
TRAINER = VictimConfig(network="convnet", width=32, batch_size=64)
COUNTERMEASURES = (NONE, "greyscale")  # the second undoes noise that lies in the colours
RUNS = 1 + len(COUNTERMEASURES)  # trainings at each size: on the originals, and on the copies under each
# learns from noise that holds the small one; played at S alone, once on the originals and once on the copies
LARGER = VictimConfig(network="torchvision/resnet18", batch_size=64)
LARGER_COST = 4  # times the small one's time for an update at S (64 px, two cores)
LARGER_FROM = 300  # updates: a shorter check, after a short fit, goes without it
SMALL_NAME, LARGER_NAME = "standard", "ResNet-18"  # in the report
# its updates: half of the fit's, within these. Stopped while the originals, too, have taught it little, it tells what a
# moment teaches, not what the photographs do; more than 500 were not measured
FEWEST_UPDATES, MOST_UPDATES = 200, 500


@dataclass(frozen=True)
class Checked:
    """What the check found.

    Args:
        verdict: two sentences.
        report: the page; it shows originals and noise, so it must stay private. ``None`` where nothing was measured.
        learned: share of what the originals teach beyond guessing that the trainer still learned; ``None`` without a
            verdict.
    """

    verdict: tuple[str, str]
    report: Path | None
    learned: float | None


class Sample:
    """Some of an owner's photographs as a map-style dataset, as they are or as they were published.

    Args:
        found: the photographs.
        rows: which of them.
        copies: the files that were published, row by row; ``None`` for the originals.
    """

    def __init__(self, found: Found, rows: Sequence[int], copies: Sequence[Place] | None = None) -> None:
        self.source, self.rows, self.copies = found.source, rows, copies
        self.classes = found.source.classes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if self.copies is None:
            return self.source[self.rows[index]]
        with open_image(self.copies[index], self.source.most_pixels) as image:
            return as_pixels(image), int(self.source.labels[self.rows[index]])


def updates_of_check(config: GeneratorConfig) -> int:
    """How many updates each trainer of the check gets, for copies of a generator."""
    return min(MOST_UPDATES, max(FEWEST_UPDATES, config.train_steps // 2))


def seconds_of_check(found: Found, config: GeneratorConfig, *, passes: float, read: float) -> float:
    """How long the check takes.

    Args:
        found: the photographs.
        config: of the generator.
        passes: images a second that the trainer's network sends forward and backward at S.
        read: seconds to read one pixel of the photographs.
    """
    # at S and with a quarter of the pixels
    updates = updates_of_check(config)
    larger = updates >= LARGER_FROM
    trained = (RUNS * 1.25 + 2 * LARGER_COST * larger) * updates * TRAINER.batch_size
    sample = min(SAMPLE, len(found.rows)) / len(found.rows)
    # all are compared; then each network gets all, and what it trains on as copies and, beside them, as originals
    decoded = 1 + (1 + larger) * (1 + 2 * (1 - 1 / HELD_OUT))
    return trained / passes + decoded * read * found.pixels * sample


def check_copy(
    found: Found, copies: dict[int, Place], config: GeneratorConfig, folder: Path, *, device: str | None, progress: bool
) -> Checked:
    """Train two networks on a sample of the published photographs, and on their originals.

    The small one makes them grey too, and half as large; the larger one, a ResNet-18, is left out after a short fit.

    A fifth of the sample is kept from both trainings. Its originals are what is tested with: the trainer never had
    them, in no form.

    Args:
        found: the photographs.
        copies: row to published file.
        config: of the generator, with S, the size that the trainer trains at.
        folder: for the report, in the private folder; a check that was killed goes on in it.
        device: where to train; default: CUDA if present.
        progress: show bars.

    Returns:
        The verdict.
    """
    assert config.image_size is not None
    side = min(config.image_size)
    train, held_out = draw(found, sorted(copies))
    held_out = _unseen(found, train, held_out, side, progress)
    if not held_out:
        lesson = "Nothing was checked: the photographs held out for it are all copies of others."
        return Checked((lesson, "Take the copies out of SOURCE, and give the same command again."), None, None)
    updates = updates_of_check(config)
    trainers: list[tuple[str, VictimConfig, Sequence[str], Sequence[int]]]
    # the larger one first: a check that is killed between them leaves no report that is milder than the verdict
    trainers = [(LARGER_NAME, LARGER, COUNTERMEASURES[:1], (side,))] if updates >= LARGER_FROM else []
    trainers.append((SMALL_NAME, TRAINER, COUNTERMEASURES, (side // 2, side)))
    for name, trainer, countermeasures, sizes in trainers:
        report = evaluate(  # each adds to the same report
            Sample(found, train),
            protected=Sample(found, train, [copies[row] for row in train]),
            test=Sample(found, held_out),
            victims={name: replace(trainer, train_steps=updates)},
            countermeasures=countermeasures,
            train_sizes=sizes,
            crops=("random-resized",),
            seeds=(0,),
            name="photographs",
            copy_name=COPY,
            out=folder,
            device=device,
            progress=progress,
        )
    return Checked(*_verdict(report, folder))


def draw(found: Found, rows: Sequence[int]) -> tuple[list[int], list[int]]:
    """Draw a sample, class by class, and hold out a fifth of each class, one photograph at least.

    Args:
        found: the photographs.
        rows: those to draw from.

    Returns:
        Rows to train on and rows to test with, ascending; the same each time.
    """
    labels = found.source.labels[list(rows)].numpy()
    train: list[int] = []
    held_out: list[int] = []
    for label in np.unique(labels):
        members = np.asarray(rows)[labels == label]
        drawn = np.random.default_rng(0).permutation(members)[: max(2, SAMPLE * len(members) // len(rows))].tolist()
        cut = min(max(1, len(drawn) // HELD_OUT), len(drawn) - 1)
        held_out += drawn[:cut]
        train += drawn[cut:]
    return sorted(train), sorted(held_out)


def _unseen(found: Found, train: list[int], held_out: list[int], side: int, progress: bool) -> list[int]:
    """The held-out photographs that the trainer does not have under another name: as squares, which they train on."""

    rows = tqdm(train + held_out, desc="compare", unit="image", disable=not progress)
    squares = {row: resized(found.source[row][0], (side, side)).numpy() for row in rows}
    known = {squares[row].tobytes() for row in train}
    return [row for row in held_out if squares[row].tobytes() not in known]


def _verdict(report: EvaluationReport, folder: Path) -> tuple[tuple[str, str], Path, float | None]:
    """What the owner is told, in two sentences."""
    summary = summarise(report.records)
    found = judge(summary, COPY)
    # of the trainer who learned most of the lesson, so that both sentences speak of the same one
    rows = summary.rows if found.row is None else (found.row,)
    cells = summary.cells
    on_copy = max((cells[COPY, row].best or 0 for row in rows if (COPY, row) in cells), default=0.0)
    on_originals = max((cells[CLEAN, row.plain].best or 0 for row in rows if (CLEAN, row.plain) in cells), default=0.0)
    record = report.records[0]
    published, clean, guess = (percent(share) for share in (on_copy, on_originals, summary.guess))
    grey = ", made grey," if found.row is not None and found.row.countermeasure != NONE else ""
    larger = found.row is not None and found.row.trainer.victim.startswith(LARGER_NAME)
    first = (
        f"A {LARGER_NAME if larger else 'small network'} that trained on {record.train_images} of the published "
        f"photographs{grey} names {published} of {record.test_images} other, clean ones rightly; trained on the "
        f"originals, {clean}; guessing gives {guess}."
    )
    if found.learned is None:
        second = "The originals taught it next to nothing, so this says nothing about the protection."
    else:
        few = f" (from only {record.test_images} photographs: {between(found.bounds)})" if found.bounds else ""
        told = f": {found.word} against this trainer; others may learn more."
        if found.word is None:  # who learned most is not known
            told = ", which is no verdict: they taught another trainer next to nothing."
        share = "all" if found.learned >= 1 else percent(found.learned)
        second = f"So it learned {share} of what the originals teach{few}{told}"
    return (first, second), folder / "report.html", None if found.word is None else found.learned

"""The parts of the page as HTML: what was found, seen, planned, done, learned, and what can be taken home."""

from __future__ import annotations

from bisect import bisect_left
from pathlib import Path
from typing import Any, NamedTuple

from semtransforms.app import texts
from semtransforms.app.jobs import Bar
from semtransforms.app.looking import Shown, find
from semtransforms.app.routes import BASE
from semtransforms.app.visitors import KEPT_MINUTES, Visitor, Visitors
from semtransforms.core.templates import fill
from semtransforms.data.metadata import PROTECTION
from semtransforms.evaluation.records import CLEAN
from semtransforms.evaluation.report import EvaluationReport
from semtransforms.evaluation.report.summary import Summary, summarise
from semtransforms.evaluation.report.verdict import QUARTERS, names_of, who
from semtransforms.evaluation.sets import not_played
from semtransforms.photographs.check import COPY
from semtransforms.photographs.plan import in_words
from semtransforms.protect.figures import NOISE_GAIN

SECTIONS = Path(__file__).with_name("sections")
MOST_TYPED = 60  # photographs whose class can be typed at a time
MOST_LISTED = 300  # links to single files


def _section(name: str, visitor: Visitor | None = None, **values: Any) -> str:
    base = f"{BASE}/{visitor.token}" if visitor else ""
    return fill(SECTIONS / f"{name}.html.jinja", escape=True, t=texts, base=base, **values)


def intro(visitors: Visitors) -> str:
    """What the page is, where it runs, and what becomes of what is brought."""
    leaving = texts.LEAVING_LOCAL if visitors.keeps else texts.LEAVING_PUBLIC
    return _section("intro", is_public=not visitors.keeps, leaving=leaving.format(minutes=KEPT_MINUTES))


def bring(visitor: Visitor) -> str:
    """Where photographs are dropped."""
    return _section("bring", visitor)


def found(visitor: Visitor) -> str:
    """What was brought, what was left out, and fields for the classes that are missing."""
    counts: list[tuple[str, int]] = []
    lines: list[str] = []
    error = None
    if visitor.classes:
        try:
            seen = find(visitor)
            lines, counts = (
                [plain(line, visitor) for line in seen.describe()],
                list(zip(seen.classes, seen.counts, strict=True)),
            )
        except (ValueError, OSError) as wrong:
            error = plain(str(wrong), visitor)
    loose = sorted(path.name for path in visitor.unlabelled.iterdir()) if visitor.unlabelled.is_dir() else []
    return _section(
        "found", visitor, lines=lines, counts=counts, notes=visitor.notes, error=error, files=loose[:MOST_TYPED],
        count=len(loose),
    )  # fmt: skip


def shown(visitor: Visitor, picture: Shown | None, error: str | None = None) -> str:
    """The slider over a photograph, its noise and how visible it is."""
    before_fit = texts.BEFORE_FIT
    told = error and plain(error, visitor)
    return _section("shown", visitor, shown=picture, error=told, before_fit=before_fit, gain=NOISE_GAIN)


def work(visitor: Visitor, lines: list[str], error: str | None = None) -> str:
    """The plan, and how far the work is.

    Args:
        visitor: whose it is.
        lines: of a plan that was asked for; none: the work is shown.
        error: what went wrong with the plan.
    """
    job, step, end = None if lines or error else visitor.job, None, None
    story: list[str] = []
    if job is not None:
        story, error = list(job.lines), job.error and texts.FAILED.format(why=job.error)
        if job.result is not None:
            failed = [texts.NOT_PROTECTED.format(place=place) for place in job.result["failed"]]
            lines, end = [*failed, *job.result["lines"]], texts.DONE
        elif job.is_running:
            step = texts.WAITING if job.waits else _step(job.bar)
        elif job.is_stopped:
            end = texts.GO_ON
    lines, story = ([plain(line, visitor) for each in some for line in each.splitlines()] for some in (lines, story))
    told = error and plain(error, visitor)
    return _section("work", story=story, lines=lines, error=told, step=step, bar=job and job.bar, end=end)


def _step(bar: Bar | None) -> str:
    if bar is None:
        return texts.STARTING
    step = next(words for name, words in texts.STEPS.items() if bar.title.startswith(name))
    told, left = texts.PROGRESS.format(step=step, done=bar.done, total=bar.total), bar.seconds_left
    return told if not left else f"{told}, {texts.LEFT.format(left=in_words(left))}"


class Trainer(NamedTuple):
    """A trainer of the check: who, and what they reach as name, share and style."""

    name: str
    bars: list[tuple[str, float, str]]


def verdict(visitor: Visitor) -> str:
    """What is still learned: bars, two sentences, and who was not tried."""
    job = visitor.finished
    result = (job.result if job else None) or {"verdict": [], "report": None, "learned": None}
    summary = summarise(EvaluationReport.load(result["report"]).records) if result["report"] else None
    learned = result["learned"]
    return _section(
        "verdict",
        visitor,
        verdict=result["verdict"],
        band=None if learned is None else bisect_left(QUARTERS, learned),
        trainers=_trainers(summary) if summary else [],
        not_tried=not_played(name for row in summary.rows for name in names_of(row)) if summary else [],
        has_report=summary is not None,
    )


def _trainers(summary: Summary) -> list[Trainer]:
    trainers = []
    for row in summary.rows:
        on_originals, on_copy = summary.cells.get((CLEAN, row.plain)), summary.cells.get((COPY, row))
        reached = ((texts.ON_ORIGINALS, on_originals, "clean"), (texts.ON_COPY, on_copy, "copy"))
        bars = [(name, cell.best, style) for name, cell, style in reached if cell is not None and cell.best is not None]
        trainers.append(Trainer(who(row, summary), [*bars, (texts.GUESSING, summary.guess, "guessing")]))
    return trainers


def take(visitor: Visitor, visitors: Visitors) -> str:
    """What can be published, and apart from it what must not be."""
    job = visitor.finished
    out = Path(job.order["out"]) if job else None
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()) if out else []
    images = [file for file in files if file != PROTECTION]
    here = job is not None and visitors.keeps
    return _section(
        "take", visitor, files=images[:MOST_LISTED], count=len(images), published=here and out,
        private=here and job is not None and job.order["private"],
    )  # fmt: skip


def plain(text: str, visitor: Visitor) -> str:
    """A sentence of the package's in the words of the page: no options of a command line, no folders of ours."""
    for place in (visitor.photographs, visitor.unlabelled):
        text = text.replace(f"{place.resolve()}/", "").replace(f"{place}/", "").replace(repr(str(place)), "")
    text = text.replace(str(visitor.folder), texts.YOUR_FOLDER)
    for before, after in texts.PLAIN.items():
        text = text.replace(before, after)
    return " ".join(text.split())

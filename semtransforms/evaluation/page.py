"""The report as one HTML page: no other file, no network, no script; light and dark, wide and narrow."""

from __future__ import annotations

import base64
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from html import escape

from torch import Tensor

from semtransforms.data.images import encode_png
from semtransforms.evaluation.records import CLEAN, Record
from semtransforms.evaluation.summary import (
    QUARTERS,
    WITH_CLEAN_IMAGES,
    Cell,
    Row,
    Spread,
    Summary,
    Trainer,
    Verdict,
    conditions,
    judge,
    noise_table,
    percent,
    row_of,
    summarise,
)

SMALL = 96  # pixels: smaller images are enlarged to it, with hard edges, so that every byte is seen
COLOURS = 6  # of lines, and as many dashes; shifted against each other, 36 copies look different

# a panel of curves, in the units of its own viewBox: size, and what is left free for the figures on the axes
WIDTH, HEIGHT = 260, 150
LEFT, RIGHT, TOP, BOTTOM = 32, 6, 8, 20


_MISSING = '<span class="fine">not measured</span>'


def render_page(
    records: Sequence[Record], noise: Mapping[str, Mapping[str, float | None]], pictures: Mapping[str, Tensor]
) -> str:
    """Write the report as a page; every name in it is escaped.

    Args:
        records, noise, pictures: as of :class:`~semtransforms.EvaluationReport`.

    Returns:
        An HTML document.
    """
    summary = summarise(records)
    verdicts = {copy: judge(summary, copy) for copy in summary.protected}
    title = f"What a trainer still learns: {escape(records[0].dataset)}"
    sections = [
        ("verdict", "Verdict", _verdicts(verdicts.values())),
        ("accuracy", "Test accuracy", _accuracy_tables(summary, verdicts)),
        ("curves", "Accuracy during the training", _curves(summary, records)),
    ]
    if summary.attacks:
        sections.append(("robust", "Robust accuracy", _robust_tables(summary)))
    if pictures:
        sections.append(("pictures", "Pictures", _strips(pictures)))
    if noise:
        sections.append(("noise", "The noise", _noise(noise)))
    sections += [("conditions", "Conditions", _conditions(records)), ("reading", "How to read this", _guide(summary))]
    links = "".join(f'<li><a href="#{name}">{escape(heading)}</a></li>' for name, heading, _ in sections)
    body = "".join(
        f'<section id="{name}" aria-labelledby="{name}-h"><h2 id="{name}-h">{escape(heading)}</h2>{content}</section>\n'
        for name, heading, content in sections
    )
    first = records[0]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p>{len(records):,} trainings on {len(summary.copies)} copies of the data: {len(summary.rows)} trainers,
{first.classes:,} classes, {first.height} × {first.width} pixels; semtransforms {escape(first.semtransforms)}.</p>
</header>
<nav aria-label="Contents"><ul>{links}</ul></nav>
<main>
{body}</main>
</body>
</html>
"""


def _verdicts(verdicts: Iterable[Verdict]) -> str:
    cards = []
    for verdict in verdicts:
        level, figure = "", ""
        if verdict.learned is not None:
            level = f" b{_band(verdict.learned)}"
            figure = (
                f'<p class="figure"><b>{_nbsp(percent(verdict.learned))}</b> <span>of what the clean copy teaches is '
                "still learned, at worst</span></p>"
            )
        cards.append(
            f'<article class="card{level}"><h3>{escape(verdict.copy)} <span>{verdict.word or "no verdict"}</span></h3>'
            f"{figure}{''.join(f'<p>{_nbsp(escape(sentence))}</p>' for sentence in verdict.sentences)}</article>"
        )
    if not cards:
        return "<p>No protected copy was measured.</p>"
    return f'<div class="cards">{"".join(cards)}</div>'


def _accuracy_tables(summary: Summary, verdicts: Mapping[str, Verdict]) -> str:
    first, second, third = (_nbsp(percent(bound)) for bound in QUARTERS)
    bands = (
        f"up to {first}: mostly protected",
        f"up to {second}: partly protected",
        f"up to {third}: not protected",
        f"over {third}: not protected",
    )
    legend = "".join(f'<li><i class="b{k}"></i>{words}</li>' for k, words in enumerate(bands))

    def cell(copy: str, row: Row) -> str:
        worst = copy in verdicts and verdicts[copy].row == row
        return _accuracy_cell(copy, summary.cells.get((copy, row)), summary.learned(copy, row), worst)

    return (
        "<p>Final accuracy on clean test images in&nbsp;%, mean ± standard deviation over n seeds; below, the peak "
        f"during the training. Guessing reaches {_nbsp(percent(summary.guess))}. The figure at the right, the bar and "
        "the colour say how much of what the clean copy teaches the same trainer is still learned; <em>worst</em> "
        f'marks the largest of a copy.</p><ul class="legend" aria-label="Colours: share still learned">{legend}'
        "<li><i></i>clean copy, clean images trained on, or no clean run to compare with</li></ul>"
        f"{_tables(summary.copies, summary.rows, cell)}"
    )


def _accuracy_cell(copy: str, cell: Cell | None, learned: float | None, worst: bool) -> str:
    if cell is None:
        return _cell(copy, _MISSING)
    lost = f"{cell.diverged} of {cell.runs} diverged"
    if cell.accuracy is None or cell.peak is None:
        return _cell(copy, f'<b>diverged</b><span class="fine">{lost}</span>')
    peak = f"peak {100 * cell.peak.mean:.1f}, n&nbsp;{cell.accuracy.n}" + (f", {lost}" if cell.diverged else "")
    figure = _figure(cell.accuracy)
    if copy == CLEAN or learned is None:
        return _cell(copy, f'{figure}<span class="fine">{peak}</span>')
    mark = "<em>worst</em> " if worst else ""
    return _cell(
        copy,
        f'{figure}<span class="share">{mark}{_nbsp(percent(learned))}</span><span class="fine">{peak}</span>'
        f'<span class="bar"><i style="width:{100 * min(learned, 1):.0f}%"></i></span>',
        learned,
    )


def _robust_tables(summary: Summary) -> str:
    parts = [
        "<p>Accuracy on test images that an adversary (PGD) has perturbed, in&nbsp;%, mean ± standard deviation over n "
        "seeds.</p>"
    ]
    for attack in summary.attacks:
        cell = partial(_robust_cell, summary, attack)
        parts.append(_tables(summary.copies, summary.rows_under(attack), cell, f", under PGD at {attack}"))
    return "".join(parts)


def _robust_cell(summary: Summary, attack: str, copy: str, row: Row) -> str:
    cell = summary.cells.get((copy, row))
    spread = cell.robust.get(attack) if cell else None
    if spread is None:
        return _cell(copy, "<b>diverged</b>" if cell and cell.accuracy is None else _MISSING)
    return _cell(copy, f'{_figure(spread)}<span class="count">n&nbsp;{spread.n}</span>')


def _tables(copies: Sequence[str], rows: Iterable[Row], cell: Callable[[str, Row], str], addition: str = "") -> str:
    """One table per trainer: a row per countermeasure, a column per copy."""
    lines: dict[Trainer, list[tuple[str, list[str]]]] = {}
    for row in rows:
        lines.setdefault(row.trainer, []).append((row.countermeasure, [cell(copy, row) for copy in copies]))
    return "".join(
        _table(_trainer(trainer) + escape(addition), "countermeasure", copies, own) for trainer, own in lines.items()
    )


def _table(caption: str, corner: str, copies: Sequence[str], lines: Iterable[tuple[str, list[str]]]) -> str:
    head = "".join(f'<th scope="col">{escape(copy)}</th>' for copy in copies)
    body = "".join(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>\n' for name, cells in lines)
    return (
        '<div class="scroll" tabindex="0" role="group" aria-label="Table, scrolls sideways">'
        f'<table style="--copies:{len(copies)}"><caption>{caption}</caption>'
        f'<thead><tr><th scope="col">{corner}</th>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n'
    )


def _cell(copy: str, content: str, learned: float | None = None) -> str:
    level = "" if learned is None else f' class="b{_band(learned)}"'
    return f'<td{level} data-copy="{escape(copy)}"><div>{content}</div></td>'


def _trainer(trainer: Trainer) -> str:
    return f"<b>{escape(trainer.victim)}</b> {escape(trainer.network)}, {trainer.train_steps:,} updates"


def _curves(summary: Summary, records: Sequence[Record]) -> str:
    styles = {copy: f"c{k % COLOURS} d{(k + k // COLOURS) % COLOURS}" for k, copy in enumerate(summary.copies)}
    keys = "".join(f"<li>{_key(style)}{escape(copy)}</li>" for copy, style in styles.items())
    parts = [
        "<p>Accuracy on clean test images against the update, one line per seed; the last point is the end of the "
        "training. Runs that diverged are left out.</p>"
        f'<ul class="legend" aria-label="Lines">{keys}<li>{_key("guess")}guessing</li></ul>'
    ]
    for number, trainer in enumerate(dict.fromkeys(row.trainer for row in summary.rows)):
        panels = []
        for row in summary.rows:
            if row.trainer == trainer:
                runs = [r for r in records if row_of(r) == row and not r.diverged]
                panels.append(_panel(summary, row, runs, styles))
        opened = " open" if number == 0 else ""
        parts.append(
            f"<details{opened}><summary>{_trainer(trainer)}</summary>"
            f'<div class="panels">{"".join(panels)}</div></details>\n'
        )
    return "".join(parts)


def _panel(summary: Summary, row: Row, runs: Sequence[Record], styles: Mapping[str, str]) -> str:
    """The curves of one row, as a picture with its title."""
    last = max((step for run in runs for step, _, _ in run.curve), default=1)

    def place(step: float, accuracy: float) -> str:
        x = LEFT + (WIDTH - LEFT - RIGHT) * step / last
        return f"{x:.1f},{TOP + (HEIGHT - TOP - BOTTOM) * (1 - accuracy):.1f}"

    def level(accuracy: float, style: str) -> str:
        return f'<polyline class="{style}" points="{place(0, accuracy)} {place(last, accuracy)}"/>'

    def label(x: float, y: float, text: str, anchor: str) -> str:
        return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{text}</text>'

    height = HEIGHT - TOP - BOTTOM
    drawing = [level(share, "grid") for share in (0, 0.5, 1)]
    drawing += [label(LEFT - 4, TOP + 4 + height * (1 - share), f"{100 * share:.0f}", "end") for share in (0, 0.5, 1)]
    drawing += [label(LEFT, HEIGHT - 5, "0", "start"), label(WIDTH - RIGHT, HEIGHT - 5, f"{last:,} updates", "end")]
    drawing.append(level(summary.guess, "guess"))
    for run in runs:
        points = [place(step, accuracy) for step, _, accuracy in run.curve]
        points += points[:1] * (len(points) == 1)  # a line of no length, drawn as a dot
        drawing.append(f'<polyline class="{styles[run.copy]}" points="{" ".join(points)}"/>')
    ends = [
        f"{copy} ends at {percent(cell.accuracy.mean)}"
        for copy in summary.copies
        if (cell := summary.cells.get((copy, row))) and cell.accuracy
    ]
    words = f"Test accuracy in percent against updates, {row.countermeasure}: {', '.join(ends) or 'every run diverged'}"
    return (
        f'<figure><figcaption>{escape(row.countermeasure)}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(words)}">{"".join(drawing)}</svg></figure>'
    )


def _key(style: str) -> str:
    return f'<svg class="key" viewBox="0 0 34 8" aria-hidden="true"><polyline class="{style}" points="2,4 32,4"/></svg>'


def _strips(pictures: Mapping[str, Tensor]) -> str:
    figures = []
    for title, images in pictures.items():
        height, width = images.shape[2:]
        hard = ' class="px"' if max(height, width) <= SMALL else ""
        column = f"grid-template-columns:repeat({len(images)},minmax(0,{max(SMALL, width)}px))"
        tags = "".join(
            f'<img{hard} width="{width}" height="{height}" alt="{escape(title)}, image {k}" '
            f'src="data:image/png;base64,{base64.b64encode(encode_png(image)).decode()}">'
            for k, image in enumerate(images, start=1)
        )
        figures.append(f'<figure><figcaption>{escape(title)}</figcaption><div style="{column}">{tags}</div></figure>\n')
    return (
        "<p>The same images throughout, from the clean ones to what is left after each countermeasure. Whoever has "
        "this page has these images without their protection.</p>"
        f'<div class="strips">{"".join(figures)}</div>'
    )


def _noise(noise: Mapping[str, Mapping[str, float | None]]) -> str:
    lines = [
        (words, [_cell(copy, escape(texts.get(copy, "–"))) for copy in noise]) for words, texts in noise_table(noise)
    ]
    return "<p>Read off the stored bytes, after rounding and clipping.</p>" + _table(
        "<b>Measures</b> of protected minus clean", "measure", list(noise), lines
    )


def _conditions(records: Sequence[Record]) -> str:
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in conditions(records))
    return f"<dl>{facts}</dl>"


def _guide(summary: Summary) -> str:
    mixed = ", ".join(f"{name}…" for name in WITH_CLEAN_IMAGES)
    quarter, half = (_nbsp(percent(bound)) for bound in QUARTERS[:2])
    return f"""<p>Each accuracy is that of networks which an unauthorised trainer fitted to one copy of the data, tested
on clean images that they had not seen. A good protection leaves the trainer near {_nbsp(percent(summary.guess))}, which
guessing the most frequent label reaches.</p>
<p><b>Share still learned.</b> (accuracy − guessing) / (accuracy from the clean copy − guessing). Both accuracies are
those of the best moment of the training, and the clean one is the same trainer's without a countermeasure. The best
moment is chosen by the test images themselves, which favours the trainer and so does not flatter the protection.</p>
<p><b>The words.</b> The trainer who learns the largest share decides: up to {quarter} is <em>mostly protected</em>, up
to {half} <em>partly protected</em>, more is <em>not protected</em>. They speak of the trainers measured here and of no
others. The two better ones are withheld where a trainer cannot be compared with a clean run. Trainers who have
clean images of the owner ({mixed}) do not count: what these images teach, no protection can withhold. Compare
clean-share with clean-only, which is the same clean images alone.</p>
<p><b>Diverged</b> means that the loss of the training became infinite or undefined. Such a run shows a failure of the
trainer, not a success of the protection: it is counted, and enters no mean.</p>
"""


def _band(learned: float) -> int:
    """Which quarter of the clean copy's lesson a share lies in; a bound belongs to the quarter below it."""
    return bisect_left(QUARTERS, learned)


def _figure(spread: Spread) -> str:
    mean, _, deviation = str(spread).partition(" ")
    return f'<span class="mean"><b>{mean}</b> {deviation}</span>'


def _nbsp(text: str) -> str:
    """Keep a figure and its percent sign on one line."""
    return text.replace(" %", "&nbsp;%")


_STYLE = """
:root {
  --paper: #ffffff; --panel: #f6f7f8; --rule: #d5d9de; --ink: #1a1d21; --muted: #4d555e; --link: #0b5394;
  --b0: #c9dff3; --b1: #e6f0f8; --b2: #fdebd2; --b3: #f7cb9b;
  --s0: #1f5f99; --s1: #5b8db8; --s2: #b8741a; --s3: #a34700;
  --c0: #30363d; --c1: #0072b2; --c2: #b84a00; --c3: #00805c; --c4: #a8518a; --c5: #8a6a00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15181c; --panel: #1d2126; --rule: #3a414a; --ink: #e8eaed; --muted: #b3bac3; --link: #8ec1f0;
    --b0: #173f63; --b1: #1e2f3f; --b2: #43331c; --b3: #643a0b;
    --s0: #6cb0ea; --s1: #5f87a8; --s2: #b98d4e; --s3: #f0a04b;
    --c0: #d5d9de; --c1: #56b4e9; --c2: #f0803c; --c3: #2fbf94; --c4: #dd8fc0; --c5: #d9b93a;
  }
}
* { box-sizing: border-box; }
html { color-scheme: light dark; -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 1160px; padding: 40px 32px 64px; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
h1, h2, h3 { font-family: Charter, "Iowan Old Style", "Source Serif Pro", Georgia, "DejaVu Serif", serif;
  font-weight: 600; line-height: 1.25; margin: 0; }
h1 { font-size: 30px; }
h2 { font-size: 22px; margin: 48px 0 12px; padding-top: 14px; border-top: 1px solid var(--rule); }
h3 { font-size: 19px; }
p { margin: 0 0 12px; max-width: 76ch; }
header p, .fine, .count, figcaption, dt, nav { color: var(--muted); }
header p { margin: 6px 0 18px; }
a { color: var(--link); }
em { font-style: normal; font-weight: 600; }
nav ul, .legend { list-style: none; margin: 0 0 16px; padding: 0; display: flex; flex-wrap: wrap; gap: 4px 20px;
  font-size: 14px; }
.legend li { display: flex; align-items: center; gap: 7px; }
.legend i { width: 18px; height: 14px; border: 1px solid var(--rule); }
.b0 { background: var(--b0); } .b1 { background: var(--b1); }
.b2 { background: var(--b2); } .b3 { background: var(--b3); }

.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)); gap: 16px; }
.card { background: var(--panel); border-left: 5px solid var(--rule); padding: 16px 18px 8px; }
.card.b0 { border-color: var(--s0); } .card.b1 { border-color: var(--s1); }
.card.b2 { border-color: var(--s2); } .card.b3 { border-color: var(--s3); }
.card h3 span { font-family: system-ui, sans-serif; font-size: 15px; font-weight: 600; margin-left: 6px; }
.card p { font-size: 15px; margin-bottom: 9px; }
.card .figure { display: flex; align-items: center; gap: 12px; line-height: 1.3; margin: 8px 0 12px; }
.card .figure b { font-size: 34px; font-weight: 600; line-height: 1; white-space: nowrap; }

.scroll { overflow-x: auto; margin: 0 0 24px; }
table { border-collapse: collapse; table-layout: fixed; width: 100%; font-size: 15px;
  min-width: calc(150px + var(--copies) * 150px); }
caption { text-align: left; padding: 8px 0; }
th { text-align: left; font-weight: 500; padding: 7px 10px; vertical-align: top; }
thead th { border-bottom: 2px solid var(--rule); font-weight: 600; }
tbody th { padding-left: 0; line-height: 1.35; }
thead th:first-child { width: max(150px, 20%); padding-left: 0; }
tbody tr { border-bottom: 1px solid var(--rule); }
td { padding: 7px 10px; vertical-align: top; }
td[class] { border-left: 2px solid var(--paper); }
td div { display: flex; flex-wrap: wrap; column-gap: 10px; align-items: baseline; line-height: 1.35; }
.share { margin-left: auto; white-space: nowrap; }
.mean { white-space: nowrap; }
.fine { flex-basis: 100%; }
.fine, .count { font-size: 13px; }
.bar { flex-basis: 100%; height: 3px; margin-top: 3px; }
.bar i { display: block; height: 3px; }
.b0 .bar i { background: var(--s0); } .b1 .bar i { background: var(--s1); }
.b2 .bar i { background: var(--s2); } .b3 .bar i { background: var(--s3); }

details { border-top: 1px solid var(--rule); padding: 10px 0; }
summary { cursor: pointer; margin-bottom: 8px; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(240px, 100%), 1fr)); gap: 16px; }
figure { margin: 0; }
figcaption { font-size: 14px; }
.panels svg { display: block; width: 100%; height: auto; }
.key { width: 34px; height: 8px; }
svg text { font-size: 11px; fill: var(--muted); }
polyline { fill: none; stroke-width: 1.6; stroke-linecap: round; stroke-linejoin: round; }
.grid { stroke: var(--rule); stroke-width: 1; }
.guess { stroke: var(--muted); stroke-width: 1.2; stroke-dasharray: 1 4; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); }
.c3 { stroke: var(--c3); } .c4 { stroke: var(--c4); } .c5 { stroke: var(--c5); }
.d1 { stroke-dasharray: 8 3; } .d2 { stroke-dasharray: 2 3; } .d3 { stroke-dasharray: 9 3 2 3; }
.d4 { stroke-dasharray: 4 3; } .d5 { stroke-dasharray: 14 4; }

.strips figure { display: grid; grid-template-columns: 170px minmax(0, 1fr); gap: 12px; align-items: center;
  padding: 4px 0; }
.strips div { display: grid; gap: 4px; }
img { display: block; width: 100%; height: auto; }
img.px { image-rendering: pixelated; }

dl { display: grid; grid-template-columns: minmax(110px, max-content) minmax(0, 1fr); gap: 6px 20px; margin: 0;
  font-size: 15px; }
dd { margin: 0; }

@media (max-width: 640px) {
  body { padding: 24px 16px 48px; }
  h1 { font-size: 25px; }
  table, caption, tbody, tr, th, td { display: block; }
  table { min-width: 0; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  tbody tr { border: 1px solid var(--rule); margin-bottom: 12px; }
  tbody th { padding: 8px 10px; background: var(--panel); font-weight: 600; }
  td { display: grid; grid-template-columns: minmax(0, 34%) minmax(0, 1fr); gap: 10px; border: 0;
    border-top: 1px solid var(--rule); }
  td[class] { border-left: 0; }
  td::before { content: attr(data-copy); }
  .strips figure { grid-template-columns: minmax(0, 1fr); gap: 4px; padding: 8px 0; }
  dl { grid-template-columns: minmax(0, 1fr); gap: 0; }
  dd { margin-bottom: 10px; }
}
"""

"""The published figures beside ours, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import correlation, median
from typing import Any

from examples.reproduce.markdown import NOTHING, spread, table
from examples.reproduce.rows import NOTES, ROWS, TITLES, Row
from examples.reproduce.scales import Scale
from examples.reproduce.search_plus import passes
from examples.reproduce.work import differing, read_result

PASSES_ROWS = tuple(row for row in ROWS if row.table == "passes")
HEAD = ("row", "published", "its trainer", "ours", "our trainer", "seconds")

Result = Mapping[str, Any]


def render(scale: Scale, results: Path, rows: Sequence[Row] = ROWS) -> str:
    """All tables, with what was measured of them.

    Args:
        scale: of the results.
        results: folder of its ``ROW.json``.
        rows: to show.

    Raises:
        ValueError: a file is damaged.
    """
    found = {row.name: read_row(row, scale, results) for row in rows}
    parts = [
        f"# The paper's figures beside ours, scale {scale.name}",
        scale.about,
        "Test accuracy in % after the last update: mean ± standard deviation over n seeds, each of them a fit, a "
        "protection and a victim of its own. Seconds are medians of one fit, one protection and one victim; a fit in "
        "several pieces is marked. Measured on:",
        "\n".join(f"- {machine}" for machine in _machines(found.values())) or f"- {NOTHING}",
    ]
    for key, title in TITLES.items():
        own = [row for row in rows if row.table == key]
        if not own:
            continue
        parts += [f"## {title}", table(HEAD, (_line(row, found[row.name]) for row in own))]
        parts += [NOTES[key]] if key in NOTES else []
        parts += [_correlations([found[row.name] for row in own])] if key == "fig3" else []
        parts += ["Against the passes:", curve(scale, results, own)] if key == "passes" and scale.name == "cpu" else []
    return "\n\n".join(parts) + "\n"


def read_row(row: Row, scale: Scale, results: Path) -> Result:
    """What was measured of a row with the settings of today: what other settings gave is no figure of this table."""
    result = read_result(results / f"{row.name}.json")
    return {} if result and differing(result, row, scale) else result


def _line(row: Row, result: Result) -> list[str]:
    published = "no figure" if row.published is None else f"{row.published:.2f}"
    if row.hours:
        published += f", fit {row.hours}"
    words = ["standard" if row.rho_a == 0 else f"adversarial {row.rho_a}/255"]
    if row.trainer.get("network"):
        words.insert(0, row.trainer["network"])
    records = result.get("records", ())
    trainers = dict.fromkeys(map(_trainer, records))
    return [
        ", ".join(row.setting),
        published,
        ", ".join(words),
        _accuracy(records),
        "; ".join(trainers),
        _seconds(result),
    ]


def _accuracy(records: Sequence[Result]) -> str:
    good = [100 * record["test_accuracy"] for record in records if not record["diverged"]]
    lost = [f"{len(records) - len(good)} of {len(records)} diverged"] if len(good) < len(records) else []
    if not records:
        return NOTHING
    alone = " (n=1)" if len(good) == 1 else ""
    return ", ".join(([spread(good, 2) + alone] if good else []) + lost)


def _trainer(record: Result) -> str:
    how = "standard" if record["rho_a"] == 0 else f"adversarial {255 * record['rho_a']:g}/255"
    return f"{record['network']}, {how}, {record['train_steps']:,} updates"


def _seconds(result: Result) -> str:
    fits, records = result.get("fits", ()), result.get("records", ())
    parts = []
    if fits:
        # a time with a stop inside is a sum of pieces, on a machine that may have been another
        whole = [fit["fit_seconds"] for fit in fits if not fit["fit_interruptions"]]
        pieces = [fit["fit_seconds"] for fit in fits if fit["fit_interruptions"]]
        parts.append(f"fit {median(whole):.0f}" if whole else f"fit {median(pieces):.0f} in pieces")
        threads = " and ".join(sorted({str(fit["threads"]) for fit in fits}))
        parts[0] += f" ({threads} {'thread' if threads == '1' else 'threads'})"
        protections = [fit["protect_seconds"] for fit in fits if fit["protect_seconds"] is not None]
        parts += [f"protect {median(protections):.0f}"] if protections else []
    parts += [f"victim {median(record['seconds'] for record in records):.0f}"] if records else []
    return ", ".join(parts)


def _machines(results: Iterable[Result]) -> list[str]:
    measured = [each for result in results for kind in ("records", "fits") for each in result.get(kind, ())]
    return sorted(
        {
            f"{each['processor']}, threads: {each['threads']}, Python {each['python']}, torch {each['torch']}, "
            f"semtransforms {each['semtransforms']}"
            for each in measured
        }
    )


def curve(scale: Scale, results: Path, rows: Sequence[Row] = PASSES_ROWS) -> str:
    """Accuracy against the passes of the fit, the dearest fit first.

    Args:
        scale: of the results.
        results: folder of its ``ROW.json``.
        rows: fits with fewer passes, each under a standard trainer and one at 2/255.
    """
    fits: dict[str, dict[int, Row]] = {}
    for row in rows:
        fits.setdefault(row.setting[0], {})[row.rho_a] = row
    lines = []
    for name, by_radius in fits.items():
        config, _, _ = scale.plan(by_radius[0])
        assert config is not None  # each of them is a fit
        noise = str(config.steps_u * config.num_samples)
        cells = [_accuracy(read_row(by_radius[rho_a], scale, results).get("records", ())) for rho_a in (0, 2)]
        lines.append((passes(config), [name, f"{passes(config) / 1e6:.2f}", noise, *cells]))
    head = ("fit", "its passes, millions", "passes of an image's noise", "standard", "adversarial 2/255")
    return table(head, [cells for _, cells in sorted(lines, key=lambda line: line[0], reverse=True)])


def _correlations(results: Sequence[Result]) -> str:
    """Pearson's r of both robustnesses with F, over all runs."""
    runs = [pair for result in results for pair in zip(result.get("records", ()), result.get("fits", ()), strict=True)]
    if len(runs) < 3:
        return f"Pearson's r: {NOTHING} ({len(runs)} of at least 3 runs)."
    protection = [1 - record["test_accuracy"] for record, _ in runs]
    surrogate = [fit["surrogate_robustness"] for _, fit in runs]
    noise = [-record["curve"][-1][1] for record, _ in runs]
    return (
        f"Pearson's r with F over {len(runs)} runs: R_theta {correlation(surrogate, protection):+.2f}, R_delta_u "
        f"{correlation(noise, protection):+.2f}."
    )

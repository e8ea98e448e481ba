"""Write the tables of the README, the guides, the model cards and the page of the paper's figures from the records.

    python -m examples.reproduce.tables

A table of a guide stands between the lines ``<!-- table: NAME -->`` and ``<!-- end of table -->``; each NAME is a
function of ``TABLES``. Nothing is written if a name or a marker is wrong. Figures are test accuracies in %: mean ±
standard deviation and n, a single one alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from examples.reproduce import photograph_tables, search_plus, worst_case
from examples.reproduce.headline import headline
from examples.reproduce.markdown import MISSING, cell, fill, share, spread, table
from examples.reproduce.other_data import MODULO, PREDICTED
from examples.reproduce.protect_photographs import VICTIMS
from examples.reproduce.records import RESULTS, of_bundled, of_other_data, of_row, worst_cases
from examples.reproduce.records import guessing as guessing_at
from examples.reproduce.render import curve, render
from examples.reproduce.rows import COUNTERMEASURES, SHARES, VICTIM
from examples.reproduce.scales import SCALES
from examples.reproduce.words import in_words
from semtransforms import GeneratorConfig, NoiseGenerator
from semtransforms.core.files import read_json, write_atomically
from semtransforms.evaluation.sets import SETS, TRAINERS

ROOT = Path(__file__).parents[2]
GUIDES = ("*.md", "examples/*.md", "examples/reproduce/*.md", "tests/**/*.md")
OF_TODAY = ("sem-one-pass-cifar10", "sem-plus-cifar10", "sem-plus-cifar10-small")  # judged by the trainers of today
DOING_NOTHING = ("standard", "none")
COMPARED = ("clean", "em", "rem", "sem")
OTHERS = {
    "tap": "TAP",
    "sc-linf": "SC, within 8/255",
    "sc-l2": "SC, in its authors' norm",
    "ntga": "NTGA",
    "ar-linf": "AR, within 8/255",
    "ar-l2": "AR, in its authors' norm",
}


def trainers(root: Path) -> str:
    """The trainers that have names: their sets, where they come from and what they cost."""
    smallest = {name: each for each in reversed(SETS) for name in SETS[each]}
    return table(
        ["trainer", "smallest set", "source", "time, in trainings of `standard`"],
        [[f"`{name}`", smallest[name], known.source, known.cost] for name, known in TRAINERS.items()],
    )


def methods(root: Path) -> str:
    """Clean, EM, REM and SEM under each radius, and SEM's share of what the clean images teach beyond guessing."""
    lines = []
    for rho, victim in VICTIM.items():
        steps = f"{VICTIMS[victim].train_steps:,} updates"
        trainer = f"adversarial, PGD-{VICTIMS[victim].steps_a} at {rho}/255" if rho else "standard"
        found = [of_row(root, f"table2-cifar10-{method}-rho{rho}") or () for method in COMPARED]
        lines.append([f"{trainer}, {steps}", *map(cell, found), share(found[-1], found[0], 10)])
    return table(("the trainer", "clean", "EM", "REM", "SEM", "SEM's share"), lines)


def other_methods(root: Path) -> str:
    """The other methods under each radius, one seed; with NTGA's trainer who does not augment."""
    places = {name: [f"table2-cifar10-{name}-rho{rho}" for rho in (0, 2, 4)] for name in OTHERS}
    places |= {name: [f"others-{name}-rho{rho}" for rho in (0, 2, 4)] for name in ("ar-linf", "ar-l2")}
    lines = [[OTHERS[name], *(cell(of_row(root, row)) for row in rows)] for name, rows in places.items()]
    for name, words in (("ntga", "NTGA"), ("clean", "clean images")):
        alone = cell(of_row(root, f"others-{name}-without-augmentation"))
        lines.append([f"{words}, a trainer who does not augment", alone, MISSING, MISSING])
    return table(("noise", "standard", "adversarial at 2/255", "at 4/255"), lines)


def countermeasures(root: Path) -> str:
    """What a standard trainer may do against the noise; nobody holds a generator of the clean copy."""
    lines = [
        [in_words(name), *(cell(of_row(root, f"countermeasures-{method}-{name}")) for method in COMPARED)]
        for name in COUNTERMEASURES
    ]
    return table(("before or during training", "clean", "EM", "REM", "SEM"), lines)


def pretrained(root: Path) -> str:
    """What the generators that come with the package were fitted on, and with how much effort."""
    lines = []
    for folder in sorted(path for path in (root / "pretrained").iterdir() if path.is_dir()):
        record = read_json(folder / "config.json")
        config = GeneratorConfig.from_dict(record["config"])
        assert config.image_size is not None  # it was fitted
        lines.append(
            [
                f"[`{folder.name}`](../../pretrained/{folder.name}/README.md)",
                f"{record['card']['data']}, {config.image_size[0]} px, {config.num_classes} classes",
                config.method,
                f"{config.surrogate}, {config.width}",
                *map(str, (config.train_steps, config.steps_u, config.num_samples)),
                *(f"{255 * rho:g}/255" for rho in (config.rho_u, config.rho_a)),
                f"{search_plus.passes(config) / 1e6:.2f}",
            ]
        )
    head = ("generator", "images", "method", "surrogate, width", "M", "K_u", "J", "ρ_u", "ρ_a", "passes, millions")
    return table(head, lines)


def on_cifar10(root: Path) -> str:
    """The generators fitted on CIFAR-10 itself against every trainer of their cards."""
    return _side_by_side(root, ("sem-cifar10", "sem-plus-cifar10", "sem-one-pass-cifar10"))


def at_32_px(root: Path) -> str:
    """Both small generators for CIFAR-10 re-encoded as JPEG, likewise."""
    return _side_by_side(root, ("sem-cifar10-small", "sem-plus-cifar10-small"))


def _side_by_side(root: Path, names: Sequence[str]) -> str:
    """Generators that were judged on the same images."""
    clean, *protected = of_bundled(root, names[0], "clean"), *(of_bundled(root, name, "protected") for name in names)
    trainers = max(protected, key=len)
    lines = [[in_words(each), *(spread(found.get(each, ())) for found in (clean, *protected))] for each in trainers]
    return table(("the trainer", "clean", *(f"`{name}`" for name in names)), lines)


def at_64_px(root: Path) -> str:
    """The small generator for 64 px against every trainer of its card, and the share of what clean images teach."""
    name = "sem-imagenet100-small"
    clean, protected, guessing = (
        of_bundled(root, name, "clean"),
        of_bundled(root, name, "protected"),
        guessing_at(root, name),
    )
    standard = next(iter(clean))  # who holds the generator has no clean figure of their own
    lines = [
        [
            in_words(trainer),
            spread(clean.get(trainer, ())),
            spread(figures),
            share(figures, clean.get(trainer, clean[standard]), guessing),
        ]
        for trainer, figures in protected.items()
    ]
    return table(("the trainer", "clean", "protected", "share"), lines)


def worst(root: Path) -> str:
    """The trainer who learns most, of fourteen, for each generator that was judged so."""
    return worst_case.compare(worst_cases(root))


def noise_size(root: Path) -> str:
    """What a trainer learns who shrinks what was published, by the size at which the noise was made."""
    rows = read_json(root / RESULTS / "noise_size-sem-plus-cifar10-small.json")["rows"]
    lines = [
        [
            f"{row['trained_at']} px",
            row["copy"] if row["copy"] == "clean" else f"{row['copy']} px",
            f"{100 * row['accuracy']:.1f}",
            "" if row["copy"] == "clean" else str(row["seconds_of_noise"]),
        ]
        for row in rows
    ]
    return table(("trains at", "copy", "accuracy", "seconds of noise"), lines)


def other_data(root: Path) -> str:
    """A generator on classes and sizes that it was not fitted for, by the label that it is told."""
    found = of_other_data(root)
    victims = {"standard": "standard", "adversarial-2": "adversarial at 2/255"}
    runs = sorted({run[:3] for run in found}, key=lambda run: (run[:2], list(victims).index(run[2])))
    lines = [
        [
            f"{run[0]} classes, {run[1]} px, {victims[run[2]]}",
            *(f"{found[*run, copy]:.1f}" for copy in ("clean", MODULO, PREDICTED)),
        ]
        for run in runs
    ]
    return table(("classes, size, trainer", "clean", "label k mod 10", "the surrogate's own label"), lines)


def today(root: Path) -> str:
    """What the trainers of today learn from lossless CIFAR-10; at their end, and at their best moment."""
    found: dict[tuple[str, ...], dict[tuple[str, str], list[dict[str, Any]]]] = {}
    for generator in OF_TODAY:
        file = root / RESULTS / f"today-{generator}.json"
        for row in read_json(file)["rows"] if file.exists() else ():
            place = f"{row['rows']:,}" + (f", at {row['trained_at']} px" if row["trained_at"] else "")
            network = f"`{row['network']}`" + (f", rate {row['learning_rate']:g}" if "learning_rate" in row else "")
            of = found.setdefault((row["victim"], row["countermeasure"], network, place), {})
            of.setdefault((row["copy"], generator), []).append(row)
    lines = []
    for trainer in sorted(found, key=lambda each: (each[2:], [name not in DOING_NOTHING for name in each])):
        victim, countermeasure, network, place = trainer
        name = "+".join(each for each in (victim, countermeasure) if each not in DOING_NOTHING) or "standard"
        for generator in OF_TODAY:
            rows = found[trainer].get(("protected", generator))
            if not rows:
                continue
            # what the share is of, as in a verdict
            plain = _clean_today(found.get((victim, "none", network, place), {}), generator)
            same = _clean_today(found[trainer], generator)
            learned, best = ([100 * row[key] for row in rows] for key in ("accuracy", "peak"))
            cells = (*map(spread, (plain, same, learned, best)), share(learned, plain, 10))
            seconds = median(row["seconds"] for row in rows)
            lines.append([f"`{name}`", network, place, f"`{generator}`", *cells, f"{seconds:.0f}"])
    head = ("trainer", "network", "rows", "noise of", "clean, doing nothing", "clean, doing the same", "protected",
            "at best", "share", "seconds")  # fmt: skip
    return table(head, lines)


def _clean_today(copies: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]], generator: str) -> list[float]:
    """What clean images taught a trainer: as measured beside this generator, or beside another one."""
    names = [generator, *OF_TODAY]
    rows = next((copies["clean", name] for name in names if ("clean", name) in copies), [])
    return [100 * row["accuracy"] for row in rows]


def clean_shares(root: Path) -> str:
    """What protected images add to a share of clean ones."""
    lines = [
        [
            f"{each} %",
            *(cell(of_row(root, f"shares-{name}-{each}")) for name in ("sem-clean-share", "clean-clean-only")),
        ]
        for each in SHARES
    ]
    return table(("clean images", "beside SEM's copies of the others", "alone"), lines)


def passes(root: Path) -> str:
    """What a fit with fewer passes costs."""
    return curve(SCALES["cpu"], root / RESULTS / "cpu")


def search(root: Path) -> str:
    """The trials for SEM_PLUS, the best first."""
    return search_plus.compare(read_json(root / RESULTS / "search_plus.json"))


def fit_and_protect(root: Path) -> str:
    """Seconds of a fit and a protection of the miniature, two threads."""
    timed = {
        "2/255, K_u = 15": read_json(root / RESULTS / "fit_and_protect.json"),
        "4/255, K_u = 30": read_json(root / RESULTS / "cpu" / "table2-cifar10-sem-rho4.json")["fits"],
    }
    lines = []
    for words, fits in timed.items():
        fit, protect = ([each[f"{part}_seconds"] for each in fits] for part in ("fit", "protect"))
        both = [sum(pair) for pair in zip(fit, protect, strict=True)]
        together = f"{median(both):.0f} ({min(both):.0f}–{max(both):.0f}, n={len(both)})"
        lines.append([words, f"{median(fit):.0f}", f"{median(protect):.0f}", together])
    return table(("fitted against", "fit, s", "protect, s", "together, s"), lines)


TABLES: Mapping[str, Callable[[Path], str]] = {
    "readme": headline,
    "methods": methods,
    "other-methods": other_methods,
    "countermeasures": countermeasures,
    "pretrained": pretrained,
    "cifar10": on_cifar10,
    "32-px": at_32_px,
    "64-px": at_64_px,
    "worst-case": worst,
    "other-data": other_data,
    "noise-size": noise_size,
    "today": today,
    "photographs": photograph_tables.photographs,
    "one-label": photograph_tables.one_label,
    "starting": photograph_tables.starting,
    "seen": photograph_tables.seen,
    "seen-classwise": photograph_tables.seen_classwise,
    "clean-shares": clean_shares,
    "passes": passes,
    "search": search,
    "trainers": trainers,
    "fit-and-protect": fit_and_protect,
}


def card(folder: Path) -> str:
    """The model card of a generator of ``pretrained/``, as ``save_pretrained`` writes it."""
    with TemporaryDirectory() as place:
        saved = NoiseGenerator.from_pretrained(folder, device="cpu").save_pretrained(place)
        return (saved / "README.md").read_text(encoding="utf-8")


def written(root: Path) -> dict[Path, str]:
    """Every file with tables and its text with the figures of today.

    Raises:
        ValueError: a guide has an unknown table or a marker too few; a record is damaged.
    """
    tables = {name: partial(make, root) for name, make in TABLES.items()}
    guides = sorted(path for pattern in GUIDES for path in root.glob(pattern))
    texts = {path: fill(path.read_text(encoding="utf-8"), str(path), tables) for path in guides}
    texts |= {
        root / RESULTS / f"{name}.md": render(scale, root / RESULTS / name)
        for name, scale in SCALES.items()
        if (root / RESULTS / name).is_dir()
    }
    return texts | {file: card(file.parent) for file in sorted((root / "pretrained").glob("*/README.md"))}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT, help="of the repository")
    root = parser.parse_args(words).root
    try:
        texts = written(root)
    except ValueError as error:
        parser.error(str(error))
    for path, text in texts.items():  # all of them are known to be sound
        if path.read_bytes() != text.encode():
            write_atomically(path, text.encode())
            print(path.relative_to(root))


if __name__ == "__main__":
    main()

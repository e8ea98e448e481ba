"""README's measured tables: every figure comes from the records beside it."""

import inspect
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # examples/ is no part of the package

from examples.reproduce import search_plus, worst_case  # noqa: E402
from examples.reproduce.render import render  # noqa: E402
from examples.reproduce.rows import ROWS  # noqa: E402
from examples.reproduce.scales import SCALES  # noqa: E402
from examples.reproduce.work import differing, read_result  # noqa: E402
from semtransforms import SEM_PLUS, NoiseGenerator, ProtectedDataset, cli  # noqa: E402

RESULTS = ROOT / "examples" / "reproduce" / "results" / "cpu"
BY_NAME = {row.name: row for row in ROWS}


def cells_behind(marker):
    """Label of the line, head of the column and text of each cell of the table behind ``<!-- results: MARKER -->``."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").split(f"<!-- results: {marker} -->")[1]
    head, _, *lines = re.match(r"\s*((?:\|.*\n)+)", text)[1].splitlines()
    methods = [cell.strip().lower() for cell in head.split("|")[2:-1]]
    for line in lines:
        label, *cells = (cell.strip(" *") for cell in line.split("|")[1:-1])
        yield from ((label, method, cell) for method, cell in zip(methods, cells, strict=True))


def measured(name):
    """The test accuracies recorded for a row with today's settings, in %; none where it was not measured."""
    result = read_result(RESULTS / f"{name}.json")
    assert not result or differing(result, BY_NAME[name], SCALES["cpu"]) == []
    return [100 * record["test_accuracy"] for record in result.get("records", ())]


def written(figures):
    """How README writes them: mean ± standard deviation and n; a single one alone."""
    if len(figures) < 2:
        return f"{figures[0]:.1f}" if figures else "not measured"
    return f"{fmean(figures):.1f} ± {stdev(figures):.1f} (n={len(figures)})"


@pytest.mark.parametrize("marker", ["table2-cifar10", "countermeasures"])
def test_every_figure_of_readme_was_measured(marker):
    """A figure that no run gave, or that an older setting gave, is a promise to a data owner that nobody keeps."""
    cells = list(cells_behind(marker))
    assert len(cells) >= 12
    for label, method, cell in cells:
        if cell == "–":  # nobody holds a generator of the clean copy
            assert (method, label.startswith("holds")) == ("clean", True)
            continue
        radius = re.search(r"(\d)/255", label)
        setting = f"rho{radius[1] if radius else 0}" if marker.startswith("table2") else label.split("`")[1]
        assert cell == written(measured(f"{marker}-{method}-{setting}")), (label, method)


def test_the_shares_that_a_trainer_gets():
    """The sentence that a data owner reads first says more or less than the table below it."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("<!-- results: table2-cifar10 -->")[1]
    shares = [
        (fmean(measured(f"table2-cifar10-sem-rho{radius}")) - 10)
        / (fmean(measured(f"table2-cifar10-clean-rho{radius}")) - 10)
        for radius in (0, 2, 4)
    ]
    standard, two, four = (f"{100 * share:.0f} %" for share in shares)
    words = f"{standard} of what the clean copy teaches.*{two} if.*at 2/255.*{four} if.*at 4/255"
    assert re.search(words, text, re.DOTALL)


@pytest.mark.parametrize(
    ("name", "least"), [("sem-cifar10-small", 20), ("sem-plus-cifar10-small", 12), ("sem-imagenet100-small", 12)]
)
def test_the_figures_of_a_generator_that_comes_along(name, least):
    """What a user protects with first is one of these; their cards have the same figures, by another test."""
    results = json.loads((RESULTS.parent / f"{name}.json").read_text(encoding="utf-8"))
    rows = {row["trainer"]: row for row in results["trainers"]}
    cells = list(cells_behind(name))
    assert len(cells) >= least
    for label, copy, cell in cells:
        trainer = label.split("`")[1] if "`" in label else label
        figures = [100 * record["test_accuracy"] for record in rows[trainer][copy]]
        assert cell == (written(figures) if figures else "–"), (label, copy)


def test_the_shares_that_a_trainer_gets_at_64_px():
    """The sentence below that table: of what the clean copy teaches beyond guessing one of a hundred."""
    results = json.loads((RESULTS.parent / "sem-imagenet100-small.json").read_text(encoding="utf-8"))
    found = {
        row["trainer"]: [100 * record["test_accuracy"] - 1 for copy in ("protected", "clean") for record in row[copy]]
        for row in results["trainers"]
    }
    clean = found["standard, 1,000 updates"][1]
    pairs = [found[name] for name in ("standard, 1,000 updates", "greyscale", "jpeg-10")]
    pairs += [[found["informed-other-seed"][0], clean], found["adversarial at 4/255, 1,000 updates"]]
    shares = [f"{100 * protected / taught:.0f} %" for protected, taught in pairs]
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    told = "nothing gets {}, after greyscale {}, after JPEG-10 {}, with the generator in his hands {}, and "
    assert (told + "adversarially at 4/255 {}").format(*shares) in text


def test_the_figures_on_other_data():
    """Whoever protects data of other classes decides by these whether he may."""
    found = json.loads((RESULTS.parent / "other_data-sem-cifar10-small.json").read_text(encoding="utf-8"))["records"]
    victims = {"standard": "standard", "at 2/255": "adversarial-2"}
    ways = {"clean": "clean", "k mod 10": "k mod C", "the surrogate's own": "the surrogate's own"}
    cells = list(cells_behind("other-data"))
    assert len(cells) >= 12
    for label, column, cell in cells:
        classes, side, trainer = re.fullmatch(r"(\d+) classes, (\d+) px, (.+)", label).groups()
        run = (int(classes), int(side), victims[trainer], ways[column])
        (accuracy,) = [
            100 * each["test_accuracy"]
            for each in found
            if (each["classes"], each["height"], each["victim"], each["copy"]) == run
        ]
        assert cell == f"{accuracy:.1f}", (label, column)


def test_the_curve_over_passes_is_the_records():
    """A researcher chooses by it what to leave out of a fit."""
    text = (RESULTS.parents[1] / "README.md").read_text(encoding="utf-8").split("<!-- results: passes -->\n")[1]
    table = text.split("\n\n")[0]
    assert table.count("\n") >= 6
    assert f"\n{table}\n" in render(SCALES["cpu"], RESULTS)


def test_the_table_of_the_search_is_the_records():
    """A trial measured anew would stand beside the old ones' figures."""
    text = (RESULTS.parents[1] / "README.md").read_text(encoding="utf-8").split("<!-- results: search_plus -->\n")[1]
    trials = json.loads((RESULTS.parent / "search_plus.json").read_text(encoding="utf-8"))
    assert text.startswith(search_plus.table(trials) + "\n")


def test_the_worst_cases_are_the_records():
    """The table that decides which generator is recommended would be of other runs, or of another generator."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("<!-- results: worst_case -->\n")[1]
    judged = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(RESULTS.parent.glob("worst_case-*.json"))]
    assert text.startswith(worst_case.table(judged) + "\n")
    for each in judged:
        if not (ROOT / "pretrained" / each["generator"]).exists():  # a trial of the search
            assert each["generator"] in search_plus.TRIALS
            continue
        generator = NoiseGenerator.from_pretrained(ROOT / "pretrained" / each["generator"])
        assert each["fingerprint"] == generator.fingerprint
        assert generator.config.rho_u == 8 / 255  # larger noise would be compared with smaller
    # whoever names no generator or method is given what the best of trainers learns least from
    best = min(judged, key=lambda each: max(fmean(found) for found in each["accuracy"].values()))
    for default in (defaults(ProtectedDataset)["generator"], f"{defaults(cli.fit.fit_command)['method']}-cifar10"):
        assert NoiseGenerator.from_pretrained(default).fingerprint == best["fingerprint"]


def test_sem_plus_is_what_was_measured():
    """README's table would be of other noise: other shares of T's image changes, another adversary or effort."""
    trial = search_plus.TRIALS["grey-20+jpeg-20-width32-M500-K40-J1"]
    taken = {"method": "sem-plus", "train_steps": 800, "decay_every": 320, "surrogate": "resnet18", "width": None}
    assert replace(trial, **taken) == SEM_PLUS
    bundled = NoiseGenerator.from_pretrained("sem-plus-cifar10-small", device="cpu").config
    fitted_on = {"surrogate": "convnet", "width": 32, "num_classes": 10, "image_size": (32, 32)}
    assert bundled == replace(SEM_PLUS, **fitted_on)


def test_nothing_is_left_to_be_filled_in():
    """A mark where a figure was to be put would be read for months."""
    assert "@@" not in (ROOT / "README.md").read_text(encoding="utf-8")


def defaults(function):
    return {name: each.default for name, each in inspect.signature(function).parameters.items()}

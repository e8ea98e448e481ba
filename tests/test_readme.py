"""README's measured tables: every figure comes from the records beside it."""

import json
import re
from pathlib import Path
from statistics import fmean, stdev

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "examples" / "reproduce" / "results" / "cpu"


def cells_behind(marker):
    """Label of the line, head of the column and text of each cell of the table behind ``<!-- results: MARKER -->``."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").split(f"<!-- results: {marker} -->")[1]
    head, _, *lines = re.match(r"\s*((?:\|.*\n)+)", text)[1].splitlines()
    methods = [cell.strip().lower() for cell in head.split("|")[2:-1]]
    for line in lines:
        label, *cells = (cell.strip(" *") for cell in line.split("|")[1:-1])
        yield from ((label, method, cell) for method, cell in zip(methods, cells, strict=True))


def measured(row):
    """The test accuracies recorded for a row, in %; none where it was not measured."""
    file = RESULTS / f"{row}.json"
    return [100 * each["test_accuracy"] for each in json.loads(file.read_text())["records"]] if file.exists() else []


def written(figures):
    """How README writes them: mean ± standard deviation and n; a single one alone."""
    if len(figures) < 2:
        return f"{figures[0]:.1f}" if figures else "not measured"
    return f"{fmean(figures):.1f} ± {stdev(figures):.1f} (n={len(figures)})"


@pytest.mark.parametrize("marker", ["table2-cifar10", "tricks"])
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

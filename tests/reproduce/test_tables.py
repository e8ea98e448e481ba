"""The tables of README, guides and cards: written by one command from the records, and nothing is lost by it."""

import difflib
import json
import shutil
import sys
from pathlib import Path
from statistics import mean, stdev

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # examples/ is no part of the package

from examples.reproduce import tables  # noqa: E402
from examples.reproduce.markdown import fill, spread  # noqa: E402

RESULTS = Path("examples", "reproduce", "results")


@pytest.fixture
def copy(tmp_path):
    """What the command reads and writes, to be changed at will."""
    for name in ("examples", "pretrained", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.png", "*.py"))
    shutil.copy(ROOT / "README.md", tmp_path)
    return tmp_path


def cells(name, root=ROOT):
    """First cell of each line of a table to the other cells."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables.TABLES[name](root).splitlines()]
    return {line[0]: line[1:] for line in lines[2:]}


def test_the_files_say_what_the_records_say(copy):
    """A figure that no run gave is a promise to a data owner that nobody keeps. Run the command to mend it."""
    tables.main(["--root", str(copy)])
    files = sorted(path.relative_to(copy) for path in copy.rglob("*.md"))
    assert {Path("README.md"), RESULTS / "cpu.md", Path("pretrained", "sem-digits", "README.md")} <= set(files)
    changed = [
        line
        for file in files
        if (ROOT / file).read_bytes() != (copy / file).read_bytes()
        for line in difflib.unified_diff(
            (ROOT / file).read_text(encoding="utf-8").splitlines(),
            (copy / file).read_text(encoding="utf-8").splitlines(),
            str(file),
            "python -m examples.reproduce.tables",
            lineterm="",
            n=0,
        )
    ]
    assert changed == [], "\n".join(changed)


def test_a_changed_record_changes_every_file_that_shows_it(copy, capsys):
    """The test above would pass if the command wrote nothing."""
    file = copy / RESULTS / "cpu" / "table2-cifar10-sem-rho0.json"
    result = json.loads(file.read_text(encoding="utf-8"))
    result["records"][0]["test_accuracy"] = 0.98
    file.write_text(json.dumps(result), encoding="utf-8")
    figures = [98.0] + [100 * each["test_accuracy"] for each in result["records"][1:]]
    tables.main(["--root", str(copy)])
    written = capsys.readouterr().out.split()
    assert {"examples/reproduce/README.md", "examples/reproduce/results/cpu.md"} <= set(written)
    expected = f"{mean(figures):.1f} ± {stdev(figures):.1f} (n=3)"
    assert expected in (copy / "examples" / "reproduce" / "README.md").read_text(encoding="utf-8")
    tables.main(["--root", str(copy)])
    assert capsys.readouterr().out == ""  # the second time there is nothing to write


def test_every_table_stands_in_a_guide():
    """A table that nobody reads is code that nobody misses. README's is there too."""
    guides = [path.read_text(encoding="utf-8") for pattern in tables.GUIDES for path in ROOT.glob(pattern)]
    missing = [name for name in tables.TABLES if not any(f"<!-- table: {name} -->\n" in text for text in guides)]
    assert missing == []


def test_what_stands_around_a_table_is_kept():
    """A guide's prose, and a last line without a newline, would be lost."""
    end = "<!-- end of table -->"
    text = f"before\n<!-- table: a -->\nold\n\nolder\n{end}\nbetween\n<!-- table: b -->\n{end}"
    filled = fill(text, "guide.md", {"a": lambda: "| new |", "b": lambda: "| x |\n| y |"})
    assert filled == f"before\n<!-- table: a -->\n| new |\n{end}\nbetween\n<!-- table: b -->\n| x |\n| y |\n{end}"
    assert fill("no table\n", "guide.md", {}) == "no table\n"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (("<!-- table: methodes -->", "<!-- end of table -->"), ("methodes", "'methods'", "fit-and-protect")),
        (("<!-- table: methods -->", "prose that must stay"), ("methods", "no end")),
        (("<!-- table: methods -->", "<!-- table: passes -->", "<!-- end of table -->"), ("methods", "no end")),
        (("prose", "<!-- end of table -->"), ("ends no table",)),
    ],
)
def test_a_wrong_marker_is_an_error_and_loses_nothing(copy, lines, told, capsys):
    """All text behind a table without an end would be taken for the table, and thrown away."""
    guide = copy / "tests" / "benchmarks" / "README.md"
    guide.write_text("\n".join(lines) + "\n", encoding="utf-8")
    results = copy / "examples" / "reproduce" / "README.md"
    results.write_text("<!-- table: passes -->\n<!-- end of table -->\n", encoding="utf-8")  # sound, and out of date
    before = {path: path.read_bytes() for path in copy.rglob("*.md")}
    with pytest.raises(SystemExit, match="2"):
        tables.main(["--root", str(copy)])
    error = capsys.readouterr().err
    for words in (str(guide), *told):
        assert words in error
    assert {path: path.read_bytes() for path in copy.rglob("*.md")} == before


def test_a_spread_by_hand():
    """20, 24 and 28: the deviation is of a sample, sqrt((16 + 0 + 16) / 2)."""
    assert spread([20, 24, 28]) == "24.0 ± 4.0 (n=3)"
    assert spread([20.04]) == "20.0"
    assert spread([]) == "–"
    assert spread([1, 2], 2) == "1.50 ± 0.71 (n=2)"


def test_a_share_by_hand():
    """Of 70 points a clean copy teaches 60 beyond guessing 10; a protected one that leaves 25 teaches 15: a quarter."""
    assert tables.share([20, 30], [70], 10) == "25 %"
    assert tables.share([], [70], 10) == "–"


def test_the_readme_table_names_the_strongest_trainer(copy):
    """A data owner reads the last columns alone: a stronger trainer left out is what the noise does not withstand."""
    file = copy / RESULTS / "sem-imagenet100-small.json"
    result = json.loads(file.read_text(encoding="utf-8"))
    trainers = {row["trainer"]: row["protected"] for row in result["trainers"]}
    trainers["mixup"][0]["test_accuracy"] = 0.5
    file.write_text(json.dumps(result), encoding="utf-8")
    row = next(cells for label, cells in cells("readme", copy).items() if "sem-imagenet100-small" in label)
    found = {name.split(",")[0]: f"{100 * each[0]['test_accuracy']:.1f}" for name, each in trainers.items()}
    assert row[0] == "1"  # guessing one of a hundred
    assert row[2:5] == [found[name] for name in ("standard", "adversarial at 2/255", "adversarial at 4/255")]
    assert row[5] == f"50.0: mixup, of {len(trainers)}"


def test_the_readme_table_takes_three_seeds_where_they_are(copy):
    """One seed in the place of three would be the figure that the spread is there to replace."""
    judged = json.loads((copy / RESULTS / "worst_case-sem-cifar10-small.json").read_text(encoding="utf-8"))
    judged["generator"] = "sem-cifar10"
    (copy / RESULTS / "worst_case-sem-cifar10.json").write_text(json.dumps(judged), encoding="utf-8")
    row = next(cells for label, cells in cells("readme", copy).items() if "32 px: `sem-cifar10`," in label)
    nothing, jpeg = judged["accuracy"]["none"], judged["accuracy"]["jpeg-10"]
    assert row[2] == f"{mean(nothing):.1f} ± {stdev(nothing):.1f} (n=3)"
    assert row[5].startswith(f"{mean(jpeg):.1f} ± {stdev(jpeg):.1f} (n=3): JPEG")
    assert mean(jpeg) == max(map(mean, judged["accuracy"].values()))


def test_a_figure_of_another_setting_is_not_shown(copy):
    """After a change of the preset the old figure would stand for the new one."""
    file = copy / RESULTS / "cpu" / "countermeasures-sem-cutout.json"
    result = json.loads(file.read_text(encoding="utf-8"))
    result["settings"]["trainer"]["train_steps"] = 5
    file.write_text(json.dumps(result), encoding="utf-8")
    assert cells("countermeasures", copy)["cutout (`cutout`)"][-1] == "not measured"
    assert cells("countermeasures", copy)["mixup (`mixup`)"][-1] != "not measured"


def test_the_figures_on_other_data():
    """Whoever protects data of other classes decides by these whether they may."""
    records = json.loads((ROOT / RESULTS / "other_data-sem-cifar10-small.json").read_text(encoding="utf-8"))["records"]
    wanted = {"classes": 20, "height": 32, "victim": "adversarial-2"}
    found = {each["copy"]: each["test_accuracy"] for each in records if wanted.items() <= each.items()}
    expected = [f"{100 * found[copy]:.1f}" for copy in ("clean", "k mod C", "the surrogate's own")]
    assert cells("other-data")["20 classes, 32 px, adversarial at 2/255"] == expected

"""README and the guides: links that lead somewhere, code that can be run, and generators that are what was measured.

Their tables are tested in ``tests/reproduce/test_tables.py``.
"""

import ast
import importlib
import inspect
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # examples/ is no part of the package

from examples.reproduce import search_plus  # noqa: E402
from examples.reproduce.records import of_bundled, worst_cases  # noqa: E402
from semtransforms import SEM_PLUS, NoiseGenerator, ProtectedDataset  # noqa: E402

README = ROOT / "README.md"
FOLDERS = ("*.md", "examples/**/*.md", "pretrained/**/*.md", "tests/**/*.md")
FOUND = sorted(path for pattern in FOLDERS for path in ROOT.glob(pattern))
PAGES = [path for path in FOUND if "node_modules" not in path.parts]  # npm's, in examples/browser
GUIDES = [README, *sorted((ROOT / "examples").glob("*.md"))]


def prose(text):
    """A page without its blocks of code, in which nothing is a link or a heading."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text):
    """What GitHub calls the headings of a page: lower case, no punctuation, hyphens, a number if repeated."""
    found = []
    for heading in re.findall(r"^#+ +(.+?) *$", prose(text), flags=re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        found.append(f"{name}-{found.count(name)}" if name in found else name)
    return found


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# Two commands\n", ["two-commands"]),
        ("## At 64 px: `SEM_PLUS`, K_u\n", ["at-64-px-sem_plus-k_u"]),
        ("# A\n```bash\n# no heading\n```\n# A\n", ["a", "a-1"]),
        ("# [The paper](x.md)'s tables\n", ["the-papers-tables"]),
    ],
)
def test_anchors_are_githubs(text, expected):
    """A link to a heading would be called sound, or broken, by a rule that GitHub does not have."""
    assert anchors(text) == expected


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """A reader who follows a link to a moved file or a renamed section finds nothing."""
    text = prose(page.read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    broken = []
    for link in links:
        place, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        target = (page.parent / place).resolve() if place else page
        known = target.exists() and target.is_relative_to(ROOT)
        if not known or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: str(path.relative_to(ROOT)))
def test_code_can_be_run(guide):
    """The first thing a newcomer copies fails: it does not compile, or imports a name that was moved."""
    missing = []
    for block in blocks(guide, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Import):
                for name in node.names:
                    importlib.import_module(name.name)
            elif isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                missing += [name.name for name in node.names if not hasattr(module, name.name)]
    assert missing == []


def test_readme_has_code_to_copy():
    """The test above finds nothing wrong where there is nothing."""
    assert len(blocks(README, "python")) >= 3
    assert len(blocks(README, "bash")) >= 2


def test_readme_fits_its_reader():
    """What a newcomer does not read to the end tells them nothing of what the noise does not withstand."""
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    tables = [line for line in lines if line.startswith("| ") and not line.startswith("| ---")]
    assert 3 <= len(tables) - 1 <= 10  # one table: a head, and its rows


def test_the_commands_of_ci_are_in_readme():
    """The check of a fresh clone would run nothing, or something else than what a newcomer is told."""
    wanted = re.findall(r"\$\(readme_command (\w+)\)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    assert wanted == ["demo", "tests"]
    text = README.read_text(encoding="utf-8")
    assert [name for name in wanted if f"<!-- ci: {name} -->\n```bash\n" not in text] == []


def test_the_default_is_what_the_strongest_trainer_learns_least_from():
    """Whoever names no generator would be given one that a comparison of the project speaks against."""
    largest = {}
    for folder in (ROOT / "pretrained").iterdir():
        generator = NoiseGenerator.from_pretrained(folder)
        if generator.card["data"] == "cifar10":  # of one data set and the same trainers
            assert generator.config.rho_u == 8 / 255  # larger noise would be compared with smaller
            trainers = of_bundled(ROOT, folder.name, "protected")
            assert len(trainers) >= 14
            largest[generator.fingerprint] = max(fmean(found) for found in trainers.values())
    assert len(largest) >= 2
    default = inspect.signature(ProtectedDataset).parameters["generator"].default
    assert NoiseGenerator.from_pretrained(default).fingerprint == min(largest, key=lambda each: largest[each])


def test_what_was_judged_by_three_seeds_is_what_comes_along():
    """After another fit the table would still show the old one's figures."""
    judged = worst_cases(ROOT)
    assert len(judged) >= 3
    for each in judged:
        if not (ROOT / "pretrained" / each["generator"]).exists():  # a trial of the search
            assert each["generator"] in search_plus.TRIALS
            continue
        assert (
            each["fingerprint"] == NoiseGenerator.from_pretrained(ROOT / "pretrained" / each["generator"]).fingerprint
        )


def test_sem_plus_is_what_was_measured():
    """README's table would be of other noise: other shares of T's image changes, another adversary or effort."""
    trial = search_plus.TRIALS["grey-20+jpeg-20-width32-M500-K40-J1"]
    taken = {"method": "sem-plus", "train_steps": 800, "decay_every": 320, "surrogate": "resnet18", "width": None}
    assert replace(trial, **taken) == SEM_PLUS
    bundled = NoiseGenerator.from_pretrained("sem-plus-cifar10", device="cpu").config
    fitted_on = {"surrogate": "convnet", "width": 32, "num_classes": 10, "image_size": (32, 32)}
    assert bundled == replace(SEM_PLUS, **fitted_on)


@pytest.mark.parametrize("name", sorted(folder.name for folder in (ROOT / "pretrained").iterdir()))
def test_the_figures_are_of_the_generator_that_comes_along(name):
    """After another fit the tables would still show the old one's figures."""
    record = json.loads((ROOT / "examples" / "reproduce" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    generator = NoiseGenerator.from_pretrained(ROOT / "pretrained" / name, device="cpu")
    assert record["fingerprint"] == generator.fingerprint

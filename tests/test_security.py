"""The page on security: its lines are held by tests that are there, its dependencies are those of the package."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "examples" / "security.md").read_text(encoding="utf-8")


def rows(name: str) -> list[list[str]]:
    """The cells of a table's rows, without its head."""
    found = re.search(rf"<!-- list: {name} -->\n(.*?)<!-- end of list -->", PAGE, flags=re.DOTALL)
    assert found is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()[2:]]


def test_each_threat_is_held_by_tests_that_are_there():
    """A line without a test is a promise; a test that was renamed leaves one."""
    known = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    }
    lines = rows("threats")
    assert len(lines) >= 20
    for threat, _, held in lines:
        named = re.findall(r"`(test_\w+)`", held)
        assert named, threat
        assert [name for name in named if name not in known] == [], threat


def test_the_threats_cover_the_tests_of_secrets():
    """A new test of a secret, without its line, is known to nobody who reads the page."""
    written = " ".join(held for *_, held in rows("threats"))
    for file in ("test_secrets.py", "test_planted_links.py"):
        text = (ROOT / "tests" / "reliability" / file).read_text(encoding="utf-8")
        names = re.findall(r"^def (test_\w+)", text, flags=re.MULTILINE)
        of_the_test_itself = {
            "test_the_search_finds_what_is_there",
            "test_what_is_fitted_is_the_methods",
            "test_a_link_of_an_unfinished_files_name_is_not_followed",
        }
        assert [name for name in names if name not in written and name not in of_the_test_itself] == []


def test_the_dependencies_are_those_of_the_package():
    """Whoever looks through the list would not see what is installed beside it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [re.split(r"[<>=\[]", each)[0] for each in project["dependencies"]]
    listed = rows("dependencies")
    assert [name for name, *_ in listed] == names
    assert all(why for _, why, _ in listed)
    extras = [re.split(r"[<>=\[]", each)[0] for name in ("demo", "heif", "timm", "app")
              for each in project["optional-dependencies"][name]]  # fmt: skip
    told = next(line for line in PAGE.splitlines() if line.startswith("Extras:"))
    assert re.findall(r"`([\w-]+)`", told) == extras


def test_the_page_is_found_from_readme():
    """Who finds a weakness looks in README for where to say so."""
    assert "examples/security.md#report-a-weakness" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "security.md" in (ROOT / "examples" / "README.md").read_text(encoding="utf-8")

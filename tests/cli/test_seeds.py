"""A secret seed on the command line: from a file or a prompt, never in a message."""

import io
import sys
from pathlib import Path

import pytest
from owner import tree, write_photographs
from test_cli import fails, run, save_generator
from typer.testing import CliRunner

from semtransforms.cli import app
from semtransforms.cli.options import read_seed

SEED = 7_426_301_985_513_947_771


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photographs(tmp_path / "photos", each=2)


@pytest.fixture
def generator(tmp_path: Path) -> Path:
    return save_generator(tmp_path / "generator", 2)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "seed.txt"
    path.write_text(f"{SEED}\n")
    path.chmod(0o600)
    return path


def protected(photos: Path, out: Path, generator: Path, *options: object, typed: str | None = None) -> dict[str, bytes]:
    arguments = ["protect", photos, out, "--generator", generator, "--cache-dir", out.parent / "p", *options]
    result = CliRunner().invoke(app, [str(each) for each in arguments], input=typed)
    assert result.exit_code == 0, result.output
    assert str(SEED) not in result.output
    return {name: data for name, data in tree(out).items() if name.endswith(".png")}


def test_a_seed_comes_from_a_file_or_standard_input(photos: Path, generator: Path, secret: Path, tmp_path: Path):
    """On the command line it stands in the shell's history, and in the list of processes for all users."""
    plain = protected(photos, tmp_path / "a", generator, "--seed", SEED)
    assert protected(photos, tmp_path / "b", generator, "--seed-file", secret) == plain
    assert protected(photos, tmp_path / "c", generator, "--seed-file", "-", typed=f"{SEED}\n") == plain
    assert protected(photos, tmp_path / "d", generator, "--seed", "-", typed=f"{SEED}\n") == plain
    assert protected(photos, tmp_path / "e", generator, "--seed", SEED + 1) != plain


def test_a_seed_is_asked_for_unseen(monkeypatch: pytest.MonkeyPatch):
    """Whoever looks over the owner's shoulder, or at a recording of the terminal, reads it."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    asked = []
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("typer.prompt", lambda *texts, **options: asked.append((texts, options)) or str(SEED))
    assert read_seed("-", None) == SEED
    assert asked == [(("seed",), {"hide_input": True})]


@pytest.mark.parametrize("command", ["show", "evaluate"])
def test_other_commands_take_the_same(command: str, photos: Path, generator: Path, secret: Path, tmp_path: Path):
    """An owner who looks at the noise, or judges it, would have to show the seed after all."""
    test = write_photographs(tmp_path / "test", each=2, sizes=((31, 29),))
    arguments = {
        "show": lambda option, value, out: ["--out", f"{out}.png", f"--seed{option}", value],
        "evaluate": lambda option, value, out: [
            out, "--test", test, f"--protection-seed{option}", value, "--network", "convnet", "--width", 4,
            "--train-size", 16, "--seeds", 0, "--cache-dir", tmp_path / "p",
        ],
    }[command]  # fmt: skip
    for name, option, value in (("a", "", SEED), ("b", "-file", secret)):
        given = arguments(option, value, tmp_path / name)
        first = given.pop(0) if command == "evaluate" else None
        places = [photos, *([first] if first else [])]
        result = run(command, *places, "--generator", generator, *given)
        assert result.exit_code == 0, result.output
        assert str(SEED) not in result.output
    if command == "show":
        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    else:
        strips = [sorted((tmp_path / name / "pictures").glob("*noise*"))[0].read_bytes() for name in "ab"]
        assert strips[0] == strips[1]


@pytest.mark.parametrize("wrong", ["7426301985513947771x", "correct horse battery", "1.5", "", "9" * 5_000])
def test_a_wrong_seed_is_not_repeated(wrong: str, photos: Path, generator: Path, tmp_path: Path):
    """A slip of the finger would put all but one of its digits into a log."""
    (tmp_path / "wrong.txt").write_text(wrong)
    (tmp_path / "wrong.txt").chmod(0o600)
    for options in (("--seed", wrong), ("--seed-file", tmp_path / "wrong.txt")):
        result = run("protect", photos, tmp_path / "out", "--generator", generator, *options)
        fails(result, options[0], "whole number")
        assert not wrong or wrong not in result.output
        assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("default")
def test_what_is_wrong_with_a_seed_file_is_said(photos: Path, generator: Path, secret: Path, tmp_path: Path):
    """The seed would be another one, or a fresh one, and nobody would know."""
    begin = ("protect", photos, tmp_path / "out", "--generator", generator)
    fails(run(*begin, "--seed-file", tmp_path / "missing"), "--seed-file", "cannot be read")
    fails(run(*begin, "--seed-file", tmp_path), "--seed-file", "cannot be read")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    fails(run(*begin, "--seed-file", tmp_path / "binary"), "--seed-file", "no text")
    fails(run(*begin, "--seed-file", secret, "--seed", SEED), "both given")
    secret.chmod(0o644)
    result = run(*begin, "--seed-file", secret, "--cache-dir", tmp_path / "p")
    assert result.exit_code == 0
    assert "warning: --seed-file" in result.stderr
    assert "chmod 600" in result.stderr


@pytest.mark.parametrize(
    ("command", "option"), [("protect", "--seed"), ("show", "--seed"), ("evaluate", "--protection-seed")]
)
def test_help_says_who_sees_a_seed(command: str, option: str, monkeypatch: pytest.MonkeyPatch):
    """Nobody looks for an option that the help does not name."""
    monkeypatch.setenv("COLUMNS", "300")
    told = CliRunner().invoke(app, [command, "--help"], env={"TERMINAL_WIDTH": "300"}).output
    assert f"{option}-file" in told
    assert "list of processes" in told

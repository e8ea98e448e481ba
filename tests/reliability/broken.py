"""What reads files and arguments that others may have written, and broken ones of each kind for it."""

from __future__ import annotations

import copy
import json
import os
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NoReturn

from .jobs import SMALL, Given, Running, evaluate, protect, wrap  # isort: skip - says where the others lie

import click
import numpy as np
import typer
from hypothesis import strategies as st
from owner import quicken
from torchvision.datasets import ImageFolder
from typer.testing import CliRunner

from semtransforms import SEM, NoiseStore, fit_generator
from semtransforms.cli import COMMANDS, app
from semtransforms.core.checkpoint import load_checkpoint
from semtransforms.core.files import read_json
from semtransforms.data.colour import profile_effect
from semtransforms.data.images import UNDECODABLE, size_in_header, to_rgb
from semtransforms.data.opening import open_image
from semtransforms.data.shards import DamagedStoreError
from semtransforms.data.sources import open_source, reason
from semtransforms.evaluation import trial
from semtransforms.evaluation.report import EvaluationReport
from semtransforms.evaluation.results import Results
from semtransforms.generators import fitting
from semtransforms.generators.weights import from_files
from semtransforms.photographs.plan import Plan
from semtransforms.protect.journal import Journal
from semtransforms.protect.making import carries_metadata
from semtransforms.protect.shelves import Folder
from semtransforms.protect.verify import verify

from .pictures import KINDS, broken, broken_picture

MOST_PIXELS = 1_000_000  # of the pictures here; as with --max-megapixels 1
MENDABLE = (ValueError, TypeError, OSError)  # what a user can mend, and a command tells in one line
NASTY = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 1e308, -0.5, float("nan"), float("inf"), "", "0", "\0",
    "x" * 5000, "../../etc/passwd", "/", "é\u202e", [], {}, [[]], {"": None}, "NaN", "8/0", "1e999999999",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """Something that reads what others may have written.

    Args:
        inputs: broken ones, and some that are whole.
        read: reads one; what it raises beside ``refusals`` is a fault.
        refusals: the errors it may have.
    """

    inputs: st.SearchStrategy[Any]
    read: Callable[[Any], None]
    refusals: tuple[type[BaseException], ...] = MENDABLE


def look_at_picture(data: bytes) -> None:
    """All that protecting does to a file before noise is made, and what is said where it does not decode."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow's, which a command never shows twice
            known = size_in_header(data)
            with open_image(data, MOST_PIXELS) as image:
                profile_effect(image)
                carries_metadata(image)
                pixels = to_rgb(image).pixels
    except UNDECODABLE as error:
        if not reason(error).strip():
            raise RuntimeError(f"{type(error).__name__} says nothing") from error
        raise
    assert known in (None, tuple(pixels.shape[1:])), f"{known} by its header, {tuple(pixels.shape[1:])} decoded"


@st.composite
def broken_json(draw: st.DrawFn, data: bytes) -> bytes:
    """JSON with values, keys or bytes that nobody expects."""
    if draw(st.booleans()):
        return draw(broken((data,), head=len(data)))
    root = [copy.deepcopy(json.loads(data))]
    for _ in range(draw(st.integers(1, 3))):
        value, key = root, 0
        while isinstance(value[key], dict | list) and value[key] and draw(st.integers(0, 4)):
            value = value[key]
            key = draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
        if draw(st.booleans()) or value is root:
            value[key] = draw(st.sampled_from(NASTY))
        else:
            del value[key]
    return json.dumps(root[0] if root else None).encode()


def file_target(path: Path, read: Callable[[], None], refusals: tuple[type[BaseException], ...] = MENDABLE) -> Target:
    """A file that is broken in its place."""
    whole = path.read_bytes()
    inputs = broken_json(whole) if path.suffix == ".json" else broken((whole,), head=400)

    def write_and_read(data: bytes) -> None:
        path.write_bytes(data)
        try:
            read()
        finally:
            path.write_bytes(whole)

    return Target(inputs | st.just(whole), write_and_read, refusals)


def make_targets(given: Given, root: Path) -> dict[str, Target]:
    """Everything that is fuzzed, by name.

    Args:
        given: of ``jobs``.
        root: an empty folder for the files that are broken.
    """
    for work in (protect, wrap, evaluate):
        ended = Running.start(partial(work, given, root)).wait()
        assert ended.status == 0, ended
    fitted, out, report = given.generator, root / "out", root / "report"
    checkpoint = root / "checkpoint" / "checkpoint.safetensors"
    config = replace(SEM, **SMALL, train_steps=1, image_size=(16, 16))
    fit = partial(fit_generator, ImageFolder(given.photographs), config, checkpoint_dir=checkpoint.parent,
                  device="cpu", progress=False)  # fmt: skip
    assert Running.start(lambda: (fit(), None)[1]).wait().status == 0
    (shard, *_), store = sorted(root.glob("stores/*/shard-*")), next(root.glob("stores/noise-*"))
    noise = [NoiseStore(store).read(index).copy() for index in range(len(NoiseStore(store)))]
    journal = next(root.glob("private/*/*/secret.json")).parent
    table = out / "metadata.csv"
    names = [file.relative_to(out).as_posix() for file in sorted(out.rglob("*.png"))]
    table.write_text("file_name,label\n" + "".join(f"{name},{number % 2}\n" for number, name in enumerate(names)))
    without_sum = root / "old" / "config.json"
    _copy_without_checksum(fitted, without_sum.parent)

    def read_store() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opened = NoiseStore(store)
            for index, wanted in enumerate(noise):
                with suppress(FileNotFoundError):
                    found = opened.read(index)
                    assert np.array_equal(found, wanted), "another noise than was written"

    def keep(target: Target, damaged: Path) -> Target:
        """A store sets aside what is damaged."""

        def read(data: bytes) -> None:
            try:
                target.read(data)
            finally:
                for path in damaged.parent.glob("*.damaged"):
                    path.unlink() if path.with_suffix(damaged.suffix).exists() else path.rename(damaged)

        return replace(target, read=read)

    facts = read_json(report / "evaluation.json")
    record = next(report.glob("runs/*.json"))
    stores = (DamagedStoreError, FileNotFoundError, IndexError)
    found = {f"picture {kind}": Target(broken_picture(kind), look_at_picture, UNDECODABLE) for kind in KINDS}
    return found | {
        "config.json": file_target(fitted / "config.json", lambda: from_files(fitted)),
        "config.json without checksum": file_target(without_sum, lambda: from_files(without_sum.parent)),
        "model.safetensors": file_target(fitted / "model.safetensors", lambda: from_files(fitted)),
        "checkpoint.safetensors": file_target(checkpoint, lambda: load_checkpoint(checkpoint)),
        "manifest.json": keep(file_target(store / "manifest.json", read_store, stores), shard),
        "shard.safetensors": keep(file_target(shard, read_store, stores), shard),
        "protection.json": file_target(out / "protection.json", lambda: look_at_copy(out)),
        "metadata.csv": file_target(table, lambda: open_source(str(out))),
        "secret.json": file_target(journal / "secret.json", lambda: Journal(journal, Folder(out))),
        "finished.jsonl": file_target(journal / "finished.jsonl", lambda: Journal(journal, Folder(out))),
        "plan.json": file_target(_plan(root), lambda: Plan.from_dict(read_json(root / "plan.json"))),
        "report.json": file_target(report / "report.json", lambda: EvaluationReport.load(report)),
        "a record of a run": file_target(record, lambda: Results(report, facts).go_on([], False)),
        "evaluation.json": file_target(report / "evaluation.json", lambda: Results(report, facts).go_on([], False)),
        "Parquet": file_target(_parquet(given, root), lambda: read_table(root / "table.parquet")),
        "command lines": Target(command_lines(given, root), run_command, (click.exceptions.Exit,)),
    }


def look_at_copy(out: Path) -> None:
    for finding in verify(out):
        assert "\n" not in finding.text
    open_source(str(out))


def read_table(file: Path) -> None:
    source = open_source(str(file))
    for index in range(len(source)):
        source[index]


def _copy_without_checksum(fitted: Path, other: Path) -> None:
    """A generator as version 0.1.0 saved it."""
    other.mkdir()
    (other / "model.safetensors").write_bytes((fitted / "model.safetensors").read_bytes())
    record = read_json(fitted / "config.json")
    del record["sha256"]
    (other / "config.json").write_text(json.dumps(record))


def _plan(root: Path) -> Path:
    plan = Plan(replace(SEM, num_classes=2, image_size=(16, 16)), 5.0, 1000.0, "a digest", 1000.0)
    (root / "plan.json").write_text(json.dumps(plan.to_dict()))
    return root / "plan.json"


def _parquet(given: Given, root: Path) -> Path:
    import datasets

    files = sorted(given.photographs.rglob("*.jpg"))[:3]
    rows = {"image": [{"bytes": file.read_bytes(), "path": None} for file in files], "label": [0, 1, 0]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(root / "table.parquet")
    return root / "table.parquet"


WORDS = (
    "", "0", "-1", "1", "7", "1e9", "99999999999999999999", "nan", "inf", "8/0", "-8/255", "300/255", "x", "é\u202e",
    "x" * 5000, "none", "../..", "/dev/null", "/proc/self/mem", "~nobody/x", "a,b,,c", "{}", "--", "\n", "cuda:7",
    "timm/x", "torchvision/resnet18=", "org/name", "org/name@main", "informed-by=x", "full", "png", "0,1",
)  # fmt: skip


@st.composite
def command_lines(draw: st.DrawFn, given: Given, root: Path) -> list[str]:
    """A command with arguments and options that are of the right kind, of another, or nonsense."""
    name = draw(st.sampled_from(sorted(set(COMMANDS) - {"demo", "app"})))
    places = [str(each) for each in (given.photographs, given.generator, root / "out", root / "new", root / "none")]
    word = st.sampled_from(WORDS) | st.sampled_from(places) | st.text(max_size=6).filter(lambda text: "\0" not in text)
    line = [name]
    for parameter in typer.main.get_command(app).commands[name].params:  # type: ignore[attr-defined]
        if parameter.param_type_name == "argument":
            line.append(draw(word))
        elif not draw(st.integers(0, 4)) and parameter.opts != ["--help"]:
            line += [parameter.opts[0]] if parameter.is_flag else [parameter.opts[0], draw(word)]
    return line


@cache
def _begin_nothing_long() -> str:
    """Let what would compute for long be refused, in this process; returns a folder for what a line writes."""

    def refuse(*arguments: object, **options: object) -> NoReturn:
        raise ValueError("it would begin now")

    quicken(setattr)
    trial.train_victim = refuse
    fitting.FITTED_BY.update(dict.fromkeys(fitting.FITTED_BY, refuse))  # type: ignore[attr-defined]
    return tempfile.mkdtemp()


def run_command(line: list[str]) -> None:
    """What a user sees of a wrong command: one line, or the usage; never a stack of calls."""
    os.chdir(_begin_nothing_long())
    result = CliRunner().invoke(app, line, env={"HF_HUB_OFFLINE": "1", "COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in (0, 1, 2), result.exit_code
    errors = [each for each in result.stderr.splitlines() if each.startswith("error: ")]
    usage = "Usage:" in result.stderr
    assert result.exit_code != 2 or usage or len(errors) == 1, result.stderr
    if result.exit_code:
        raise click.exceptions.Exit(result.exit_code)

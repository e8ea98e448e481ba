"""The reproduction of the paper's tables: what was published, what is run beside it, and that it can be stopped."""

import json
import math
import re
import sys
import time
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch
from killing import kill_at_rename

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # examples/ is no part of the package

from examples.reproduce import __main__ as command  # noqa: E402
from examples.reproduce import driver, protect_photographs  # noqa: E402
from examples.reproduce.data import find  # noqa: E402
from examples.reproduce.render import render  # noqa: E402
from examples.reproduce.rows import ROWS, TITLES, Row, select  # noqa: E402
from examples.reproduce.scales import SCALES, Scale  # noqa: E402
from examples.reproduce.work import BUSY, lock, measure_row, missing_seeds, settings  # noqa: E402
from semtransforms import EM, REM, REM_THETA, SEM, TAP, NoiseGenerator, VictimConfig  # noqa: E402
from semtransforms.data.loading import Labelled  # noqa: E402
from semtransforms.evaluation.records import Record  # noqa: E402
from semtransforms.generators import fitting  # noqa: E402
from semtransforms.noise.methods import NTGA, SC_LINF  # noqa: E402

BY_NAME = {row.name: row for row in ROWS}


def read_tiny(dataset: str, pause: float = 0.0) -> tuple[Labelled, Labelled]:
    """Eight-pixel images of two classes."""
    time.sleep(pause)
    if dataset == "broken":
        raise RuntimeError("the disk is gone")
    pixels = torch.randint(0, 256, (96, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(96) % 2
    return Labelled(pixels[:64], labels[:64]), Labelled(pixels[64:], labels[64:])


def find_tiny(dataset: str) -> None:
    """It is always there."""


def plan_tiny(row: Row, train_steps: int = 4):
    """Networks and trainings that take no time."""
    if row.method == "unheard-of":
        raise ValueError("unknown method 'unheard-of'")
    small = replace(SEM, surrogate="convnet", width=4, train_steps=train_steps, batch_size=16, steps_u=1, num_samples=1)
    generator = None if row.method == "clean" else replace(small, method=row.method, rho_a=row.rho_a / 255, steps_a=1)
    return generator, "standard", VictimConfig("convnet", width=4, train_steps=5, batch_size=16)


def read_before_a_kill(dataset: str) -> tuple[Labelled, Labelled]:
    """For a process that is killed while it writes the fit's third checkpoint."""
    kill_at_rename(3, "checkpoint.safetensors")
    return read_tiny(dataset)


# module-level functions and partials: a spawned process gets them by name
TINY = Scale("tiny", "Tiny.", plan_tiny, read_tiny, find_tiny, checkpoint_every=5)
LONG_FIT = replace(TINY, plan=partial(plan_tiny, train_steps=20))
SLOW = replace(TINY, read=partial(read_tiny, pause=3600.0))


def tiny_row(name: str, method: str = "clean", dataset: str = "tiny", seeds: tuple[int, ...] = (0,)) -> Row:
    """A row of no table of the paper."""
    return Row("2", (name,), dataset, method, 31.92, 2, seeds={"tiny": seeds})


def at_once(row: Row, scale: Scale, out: Path, results: Path, seconds: float) -> int:
    """A row in this process, in the place of ``run_row``: starting another one takes seconds."""
    try:
        measure_row(row, scale, out, results)
    except SystemExit as stop:
        return int(stop.code or 0)
    except RuntimeError:
        return 1
    return 0


class Clock:
    """A clock of the driver that goes when something is waited for, and not because the machine has other work."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(driver, "time", clock)
    return clock


def drive(rows, tmp_path, scale=TINY, seconds=math.inf):
    """The driver on folders of the test."""
    deadline = driver.time.monotonic() + seconds
    return driver.drive(rows, scale, tmp_path / "out", tmp_path / "results" / scale.name, deadline)


def result_of(row, tmp_path, scale=TINY):
    return json.loads((tmp_path / "results" / scale.name / f"{row.name}.json").read_text())


@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("table1-rem-delta-u", 88.28),
        ("table2-cifar10-sem-rho4", 31.92),
        ("table2-cifar10-em-rho2", 71.43),
        ("table2-cifar100-rem-rho0", 1.89),
        ("table2-cifar100-sc-linf-rho3", 65.81),
        ("table2-cifar10-sc-l2-rho0", None),
        ("table2-imagenet-subset-sem-rho0", 4.1),
        ("table2-imagenet-subset-ntga-rho4", 63.06),
        ("table3-cifar10-sem-densenet121", 77.85),
        ("table3-cifar100-clean-resnet18", 63.43),
        ("table4-cifar10-tap-median", 85.10),
        ("table4-cifar100-sem-gaussian", 8.10),
        ("table5-clean50-patience25000", 47.22),
        ("table6-rho0-random0", 15.87),
        ("table6-rho1-random1", 12.11),
        ("table6-rho2-random2", 11.49),
        ("table6-rho3-random3", 20.91),
        ("table6-rho4-random4", 31.92),
        ("table6-rho4-random1", 67.52),
        ("table7-random-adversary", 30.03),
        ("table7-nothing-random", 89.15),
        ("table8-em-rho4", 19.72),
        ("fig5-samples6", None),
    ],
)
def test_published_figures(name, figure):
    """A figure in the wrong column is compared with a measurement of something else, for good."""
    assert BY_NAME[name].published == figure


def test_every_published_figure_counts():
    """A wrong digit anywhere: the sums were added up apart from the file, from the paper's own tables."""
    sums = {table: sum(row.published or 0 for row in ROWS if row.table == table) for table in TITLES}
    expected = dict(zip("12345678", (203.16, 5280.75, 3823.37, 1508.61, 811.79, 740.07, 293.03, 921.46), strict=True))
    ours = ("fig3", "fig5", "others", "countermeasures", "shares", "passes")
    assert sums == pytest.approx(expected | dict.fromkeys(ours, 0.0))


def test_every_cell_of_the_paper_is_a_row():
    """A table that lost a line would pass as complete; names must be files, and one file each."""
    counts = {table: len(list(rows)) for table, rows in groupby(sorted(row.table for row in ROWS))}
    # 7 x 15 and 7 x 5 cells, SC in both of its norms
    assert counts == {
        "1": 4, "2": 105 + 15, "3": 60, "4": 36, "5": 20, "6": 25, "7": 5, "8": 30 + 5, "fig3": 10, "fig5": 12,
        "others": 2 * 4 + 2, "countermeasures": 10 * 4 + 3 * 3, "shares": 4 * 2, "passes": 7 * 2,
    }  # fmt: skip
    assert len(BY_NAME) == len(ROWS)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9_-]{1,60}", name) for name in BY_NAME)


def test_rows_come_in_the_order_of_their_importance():
    """What a budget leaves out is what comes last."""
    at_cpu = [row for row in ROWS if row.seeds_at("cpu")]
    methods = ("clean", "sem", "rem", "em")
    order = ["2", "1", "6", "7", "4", "3", "fig5", "5", "8", "fig3", "others", "countermeasures", "shares", "passes"]
    assert [row.name for row in at_cpu[:8]] == [f"table2-cifar10-{m}-rho{r}" for r in (0, 4) for m in methods]
    assert [table for table, _ in groupby(row.table for row in ROWS)] == order
    at_cpu_too = [*order[:5], "fig5", "8", "fig3", "others", "countermeasures", "shares", "passes"]
    assert [table for table, _ in groupby(row.table for row in at_cpu)] == at_cpu_too


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_a_trainers_name_stands_for_one_setting(scale):
    """Two settings under one name would share their trainings: a figure of the wrong trainer."""
    known: dict[str, VictimConfig] = {}
    for row in ROWS:
        if row.seeds_at(scale.name):
            generator, victim, trainer = scale.plan(row)
            assert known.setdefault(victim, trainer) == trainer
            assert (generator is None) == (row.method == "clean")


def test_the_papers_setting():
    """At this scale nothing may stand between a row and the paper."""
    plan = {name: SCALES["paper"].plan(row) for name, row in BY_NAME.items() if row.seeds_at("paper")}
    generator, _, trainer = plan["table2-cifar10-sem-rho4"]
    assert generator == SEM
    assert (trainer.network, trainer.train_steps, trainer.rho_a, trainer.steps_a) == ("resnet18", 40_000, 4 / 255, 10)
    assert plan["table1-rem"][0] == REM
    assert plan["table2-cifar10-rem-rho2"][0] == replace(REM, rho_a=2 / 255, alpha_a=0.4 / 255)
    assert plan["table4-cifar100-em-mean"][0] == replace(EM, rho_u=16 / 255, alpha_u=3.2 / 255)
    assert plan["table7-nothing-adversary"][0] == REM_THETA
    assert plan["table3-cifar100-tap-resnet50"][0] == TAP
    # Fowl et al.'s step for 224 px: both travel 16/255
    assert plan["table2-imagenet-subset-tap-rho1"][0] == replace(TAP, alpha_u=0.16 / 255, steps_u=100)
    assert (plan["table2-cifar10-ntga-rho2"][0], plan["table8-sc-linf-rho3"][0]) == (NTGA, SC_LINF)
    row = plan["table7-random-random"][0]
    assert (row.defense_sees, row.surrogate_sees, row.num_samples) == ("uniform", "uniform", 5)
    row, _, trainer = plan["table6-rho1-random3"]
    assert (round(255 * row.random_radius), round(255 * trainer.rho_a)) == (3, 1)
    _, _, trainer = plan["table5-clean30-patience10000"]
    assert (trainer.patience, trainer.validation_clean, trainer.validation) == (10_000, 0.3, 0.1)


def test_the_miniature_is_the_photographs():
    """Two miniatures that drift apart cannot be read beside each other."""
    plan = SCALES["cpu"].plan
    known = protect_photographs.METHODS
    assert plan(BY_NAME["table2-cifar10-sem-rho2"])[0] == known["sem-2"]
    assert plan(BY_NAME["table2-cifar10-sem-rho4"])[0] == known["sem-4"]
    assert plan(BY_NAME["table2-cifar10-rem-rho0"])[0] == known["rem-2"]
    assert plan(BY_NAME["table2-cifar10-em-rho0"])[0] == known["em"]
    assert plan(BY_NAME["table2-cifar10-clean-rho4"])[2] == protect_photographs.VICTIMS["adversarial-4"]
    small = known["em"]
    # TAP with its authors' 40 epochs of 10,000 images, and a fifth of their noise steps of five times the size
    tap = replace(TAP, surrogate="convnet", width=small.width, train_steps=40 * 78, alpha_u=5 * TAP.alpha_u,
                  steps_u=TAP.steps_u // 5, rho_a=small.rho_a, alpha_a=small.alpha_a, steps_a=small.steps_a,
                  decay_every=1_200)  # fmt: skip
    assert plan(BY_NAME["table2-cifar10-tap-rho0"])[0] == tap
    # declared: a trainer of 2/255 where the paper has 4/255
    assert (plan(BY_NAME["table1-sem"])[1], BY_NAME["table1-sem"].rho_a) == ("adversarial-2", 4)
    steps = {row.name: plan(row)[0].train_steps for row in ROWS if row.name.startswith("fig5-steps") and row.cpu}
    assert steps["fig5-steps5000"] == protect_photographs.SMALL.train_steps == 10 * steps["fig5-steps500"]


def test_what_cannot_be_run_is_said_first(tmp_path, monkeypatch, capsys):
    """An error after an hour that the first second could have found."""
    with pytest.raises(ValueError, match="did you mean 'table2-cifar10-sem-rho0'"):
        select([], ["table2-cifar10-semm-rho0"])
    with pytest.raises(ValueError, match="unknown table '9'; known: 1, 2"):
        select(["9"], [])
    assert len(select(["7"], [])) == 5
    assert len(select([], ["table2-cifar10-em-*"])) == 5
    monkeypatch.delenv("SEMTRANSFORMS_DATA", raising=False)
    with pytest.raises(ValueError, match="set SEMTRANSFORMS_DATA to the folder that holds cifar10-jpeg/"):
        find("cifar10-jpeg")
    monkeypatch.setenv("SEMTRANSFORMS_DATA", str(tmp_path))
    monkeypatch.setattr(driver, "run_row", None)
    monkeypatch.setattr(command, "RESULTS", tmp_path / "results")
    for arguments, words in (
        (["--table", "2"], "cifar10-jpeg is no folder"),
        (["--table", "8", "--scale", "paper"], "facescrub is no folder"),
        (["--table", "3"], "none of these 60 rows exists at scale cpu"),
    ):
        monkeypatch.setattr(sys, "argv", ["reproduce", *arguments])
        with pytest.raises(SystemExit, match="2"):
            command.main()
        assert words in capsys.readouterr().err


def test_a_row_is_measured_recorded_and_not_measured_again(tmp_path, monkeypatch):
    """The whole way of a row: a file that is no record, or work that is done twice."""
    monkeypatch.setattr(driver, "run_row", at_once)
    rows = [tiny_row("reference"), tiny_row("protected", "sem", seeds=(0, 1))]
    assert drive(rows, tmp_path) == 0
    reference, protected = (result_of(row, tmp_path) for row in rows)
    records = [Record.from_dict(each) for each in protected["records"]]
    assert [record.seed for record in records] == [0, 1]
    assert records[0].copy_sha256 != records[1].copy_sha256  # each seed its own fit and protection
    assert Record.from_dict(reference["records"][0]).copy == "clean"
    assert protected["row"]["published"] == protected["published"] == 31.92
    assert all(fit["fit_seconds"] > 0 and fit["protect_seconds"] > 0 for fit in protected["fits"])
    assert [fit["fit_interruptions"] for fit in protected["fits"]] == [0, 0]
    assert str(tmp_path) not in json.dumps([reference, protected])

    monkeypatch.setattr(driver, "run_row", None)  # would be called
    assert drive(rows, tmp_path) == 0
    file = tmp_path / "results" / "tiny" / "table2-protected.json"
    del protected["settings"]["generator"]["fitted_on"]  # a field that did not exist yet
    file.write_text(json.dumps(protected))
    assert drive(rows, tmp_path) == 0
    protected["settings"]["generator"]["momentum"] = 0.8  # what was the default then
    file.write_text(json.dumps(protected))
    with pytest.raises(ValueError, match=r"protected\.json was measured with another generator"):
        drive(rows, tmp_path)
    with pytest.raises(ValueError, match=r"protected\.json was measured with another generator"):
        drive(rows, tmp_path, scale=LONG_FIT)


def test_rows_with_the_same_fit_share_it(tmp_path, monkeypatch):
    """Table 2's columns and half of Tables 1, 6 and 7 are one generator: hours of fits for nothing."""
    monkeypatch.setattr(driver, "run_row", at_once)
    rows = [tiny_row("one", "sem"), tiny_row("two", "sem")]
    assert drive(rows, tmp_path) == 0
    one, two = (result_of(row, tmp_path) for row in rows)
    assert one["fits"] == two["fits"]
    assert one["records"] == two["records"]  # seconds included: not trained again


def test_noise_of_other_defaults_is_not_taken_for_todays(tmp_path):
    """A default that changes leaves the name of a fit as it was: the old noise would pass for the new one's."""
    row = tiny_row("kept", "sem")
    assert at_once(row, TINY, tmp_path / "out", tmp_path / "first", 0) == 0
    (folder,) = (tmp_path / "out" / "tiny-tiny" / "generators").iterdir()
    kept = NoiseGenerator.from_pretrained(folder)
    kept.config = replace(kept.config, momentum=0.8)  # what was the default then
    kept.save_pretrained(folder)
    with pytest.raises(ValueError, match="was fitted when configs had other defaults"):
        measure_row(row, TINY, tmp_path / "out", tmp_path / "second")


def test_a_longer_fit_goes_on_from_a_shorter_one(tmp_path, monkeypatch):
    """Figure 3 wants ten lengths of one fit, which on a GPU takes 17 minutes: five times over, had each its own."""
    updates, train_step = [], fitting.train_step
    monkeypatch.setattr(fitting, "train_step", lambda *given, **named: updates.append(1) or train_step(*given, **named))
    row = tiny_row("longer", "sem")
    for length in (4, 9):
        scale = replace(TINY, plan=partial(plan_tiny, train_steps=length))
        assert at_once(row, scale, tmp_path / "out", tmp_path / str(length), 0) == 0
    assert len(updates) == 9
    apart = replace(TINY, plan=partial(plan_tiny, train_steps=9))
    assert at_once(row, apart, tmp_path / "apart", tmp_path / "fresh", 0) == 0
    prolonged, fresh = (json.loads((tmp_path / f / "table2-longer.json").read_text()) for f in ("9", "fresh"))
    assert prolonged["records"][0]["copy_sha256"] == fresh["records"][0]["copy_sha256"]
    before = json.loads((tmp_path / "4" / "table2-longer.json").read_text())["fits"][0]["fit_seconds"]
    assert prolonged["fits"][0]["fit_seconds"] > before
    assert prolonged["fits"][0]["fit_interruptions"] == 0


@pytest.mark.processes
def test_a_killed_row_fails_and_goes_on(tmp_path, capsys):
    """A crash that exits with 0 is taken for done; and a time with a kill inside must not pass for a clean one."""
    row = tiny_row("long", "sem")
    assert drive([row], tmp_path, replace(LONG_FIT, read=read_before_a_kill)) == 1
    assert len(list((tmp_path / "out" / "tiny-tiny" / "fits").glob("*/checkpoint.safetensors"))) == 1
    assert "failed, and not recorded: table2-long" in capsys.readouterr().err
    assert not (tmp_path / "results" / "tiny").exists()

    for folder in (tmp_path, tmp_path / "unbroken"):
        assert at_once(row, LONG_FIT, folder / "out", folder / "results" / "tiny", 0) == 0
    broken, unbroken = result_of(row, tmp_path), result_of(row, tmp_path / "unbroken")
    assert broken["records"][0]["copy_sha256"] == unbroken["records"][0]["copy_sha256"]
    assert broken["records"][0]["test_accuracy"] == unbroken["records"][0]["test_accuracy"]
    assert (broken["fits"][0]["fit_interruptions"], unbroken["fits"][0]["fit_interruptions"]) == (1, 0)


@pytest.mark.processes
def test_the_budget_holds(tmp_path, monkeypatch, capsys, clock):
    """Whoever calls it has a limit of their own, after which everything is killed."""
    monkeypatch.setattr(driver, "MARGIN", 3.0)
    monkeypatch.setattr(driver, "GRACE", 1.0)
    run_row, given = driver.run_row, []

    def watched(row, scale, out, results, seconds):
        given.append(seconds)
        clock.sleep(seconds)
        return run_row(row, scale, out, results, seconds)

    monkeypatch.setattr(driver, "run_row", watched)
    assert drive([tiny_row("slow")], tmp_path, SLOW, seconds=6.0) == 0  # after an hour, if it waited for the row
    assert given == [3.0]
    assert "rows left: 1; the same command goes on with table2-slow" in capsys.readouterr().out
    with lock(tmp_path / "out", "row-tiny-table2-slow"):  # the process is gone
        assert missing_seeds(tiny_row("slow"), SLOW, tmp_path / "results" / "tiny") == [0]


def test_a_row_that_fails_stops_no_other(tmp_path, monkeypatch, capsys):
    """A method that is not there yet would keep all others from being measured."""
    monkeypatch.setattr(driver, "run_row", at_once)
    rows = [tiny_row("unheard", "unheard-of"), tiny_row("crashing", dataset="broken"), tiny_row("sound")]
    assert drive(rows, tmp_path) == 1
    assert [file.name for file in (tmp_path / "results" / "tiny").glob("*.json")] == ["table2-sound.json"]
    error = capsys.readouterr().err
    assert "table2-unheard: unknown method 'unheard-of'" in error
    assert "failed, and not recorded: table2-unheard, table2-crashing" in error


def test_two_processes_do_not_do_the_same(tmp_path, monkeypatch, clock):
    """They would write into each other's checkpoints, and take twice the time."""
    monkeypatch.setattr(driver, "run_row", at_once)
    monkeypatch.setattr(driver, "RETRY", 0.0)
    rows, out = [tiny_row("taken"), tiny_row("free", "sem")], tmp_path / "out"
    with lock(out, "row-tiny-table2-taken"):
        assert drive(rows, tmp_path, seconds=driver.MARGIN + 2) == 0
        assert at_once(rows[0], TINY, out, tmp_path / "results" / "tiny", 0) == BUSY
    done = tmp_path / "results" / "tiny"
    assert [file.name for file in done.glob("*.json")] == ["table2-free.json"]
    # nor the same training for two rows
    with lock(out / "tiny-tiny", "clean-standard-none-0"):
        assert at_once(rows[0], TINY, out, done, 0) == BUSY
    assert drive(rows, tmp_path) == 0
    assert len(list(done.glob("*.json"))) == 2


def write_result(row, scale, results, accuracies, **fit):
    """What a row leaves, as far as it is shown."""
    machine = {"processor": "Pocket calculator", "threads": 1, "python": "3.11", "torch": "2.11", "semtransforms": "0"}
    trained = {"network": "convnet", "rho_a": 2 / 255, "train_steps": 600, "diverged": False, **machine}
    results.mkdir(parents=True, exist_ok=True)
    content = {
        "settings": settings(row, scale),
        "records": [
            {"seed": seed, "test_accuracy": each, "seconds": 100 + seed, "curve": [[600, each, each]], **trained}
            for seed, each in enumerate(accuracies)
        ],
        "fits": [{"seed": seed, **machine, **fit} for seed in range(len(accuracies) if fit else 0)],
    }
    (results / f"{row.name}.json").write_text(json.dumps(content))


def test_our_mean_stands_beside_the_published_figure(tmp_path):
    """What a reader takes away: mean and spread by hand, the trainers of both, and what was not measured."""
    cpu = SCALES["cpu"]
    clocked = {"fit_seconds": 62.7, "fit_interruptions": 0, "protect_seconds": 9.2}
    write_result(BY_NAME["table1-sem"], cpu, tmp_path, [0.30, 0.34], **clocked)
    write_result(BY_NAME["table1-rem"], cpu, tmp_path, [0.41], **clocked | {"fit_interruptions": 2})
    stale = BY_NAME["table7-random-adversary"]
    write_result(stale, cpu, tmp_path, [0.77])
    text = json.loads((tmp_path / f"{stale.name}.json").read_text())
    text["settings"]["trainer"]["train_steps"] = 5
    (tmp_path / f"{stale.name}.json").write_text(json.dumps(text))
    lines = render(cpu, tmp_path).splitlines()
    ours = "convnet, adversarial 2/255, 600 updates"
    # mean 32, standard deviation sqrt((2^2 + 2^2) / 1) = 2.83
    assert (
        f"| sem | 30.26, fit 6h | adversarial 4/255 | 32.00 ± 2.83 (n=2) | {ours} "
        "| fit 63 (1 thread), protect 9, victim 100 |" in lines
    )
    assert any(line.startswith("| rem |") and "fit 63 in pieces (1 thread)" in line for line in lines)
    assert "| rem-theta | 37.90, fit 6h | adversarial 4/255 | not measured |  |  |" in lines
    assert "| cifar10, sem, vgg16_bn | 44.37 | vgg16_bn, adversarial 4/255 | not measured |  |  |" in lines
    assert not any("77.00" in line for line in lines)  # of another setting
    assert [line for line in lines if "Pocket" in line] == [
        "- Pocket calculator, threads: 1, Python 3.11, torch 2.11, semtransforms 0"
    ]
    assert "first 10,000 rows of cifar10-jpeg" in "".join(lines)
    assert sum("not measured" in line for line in lines) >= len(ROWS) - 2


def test_the_curve_over_passes(tmp_path):
    """What a reader chooses a cheaper fit by: its price counted by hand, both trainers, the dearest first."""
    cpu = SCALES["cpu"]
    write_result(BY_NAME["passes-quarter-rho0"], cpu, tmp_path, [0.20, 0.24])
    write_result(BY_NAME["passes-quarter-rho2"], cpu, tmp_path, [0.31])
    text = render(cpu, tmp_path)
    lines = [line.split(" | ") for line in text.split("## Not in the paper: what the passes")[1].splitlines()]
    curve = [line for line in lines if len(line) == 5][2:]
    # M 200, K_u 8, J 1, K_a 3, batches of 128; M 300, K_u 15, J 2
    assert ["| quarter", f"{200 * 128 * (8 + 3 + 1) / 1e6:.2f}", "8", "22.00 ± 2.83 (n=2)", "31.00 (n=1) |"] in curve
    assert ["| default", f"{300 * 128 * (15 * 2 + 3 + 1) / 1e6:.2f}", "30", "not measured", "not measured |"] in curve
    prices = [float(line[1]) for line in curve]
    assert prices == sorted(prices, reverse=True)
    assert len(prices) == 7


def test_the_correlations_of_figure_3(tmp_path):
    """The sign is the paper's claim: the surrogate's robustness protects, the noise's does not."""
    paper, rows = SCALES["paper"], [row for row in ROWS if row.table == "fig3"]
    assert "Pearson's r: not measured (0 of at least 3 runs)." in render(paper, tmp_path)
    accuracies, robustness = [0.8, 0.5, 0.6, 0.3], [-2.0, -1.5, -1.4, -1.0]
    for row, accuracy, value in zip(rows, accuracies, robustness, strict=False):
        fit = {"fit_seconds": 1, "fit_interruptions": 0, "protect_seconds": 1, "surrogate_robustness": value}
        write_result(row, paper, tmp_path, [accuracy], **fit)
    expected = np.corrcoef(robustness, 1 - np.array(accuracies))[0, 1]
    # the loss written is the accuracy: minus it goes exactly with 1 - accuracy
    words = f"Pearson's r with F over 4 runs: R_theta {expected:+.2f}, R_delta_u +1.00."
    assert words in render(paper, tmp_path)

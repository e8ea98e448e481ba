"""Several processes share the runs of an evaluation: the same figures, and nothing lost with a process."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
from PIL import Image
from spread_jobs import work
from test_protocol import VICTIM, halves

from semtransforms.evaluation import spreading
from semtransforms.evaluation.countermeasures import Purifier
from semtransforms.evaluation.protocol import evaluate
from semtransforms.evaluation.report import EvaluationReport


@dataclass(frozen=True)
class EndsOnce:
    """A denoiser whose process is ended from outside (kill -9), once, unless it is the one that evaluates."""

    mark: Path

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        if multiprocessing.parent_process() and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return 1 - images


def played(report: EvaluationReport) -> list[dict]:
    """All records without their seconds."""
    ordered = sorted(report.records, key=lambda each: (each.copy, each.countermeasure, each.seed))
    return [replace(each, seconds=0).to_dict() for each in ordered]


@pytest.mark.processes
def test_two_processes_give_the_figures_of_one_though_one_is_killed(tmp_path: Path, capsys: pytest.CaptureFixture):
    """Runs that get another copy, seed or countermeasure in a process, or end with it, are a wrong verdict."""

    def play(progress: bool = False, **options) -> EvaluationReport:
        return evaluate(
            halves(), protected=halves(seed=3), test=halves(30, seed=1), victims={"tiny": VICTIM}, seeds=(0, 1),
            countermeasures=["none", Purifier(EndsOnce(tmp_path / "ended"), "negative")], device="cpu",
            progress=progress, **options,
        )  # fmt: skip

    alone = play()
    assert not (tmp_path / "ended").exists()
    shared = play(workers=2, out=tmp_path / "out", progress=True)
    assert re.search(
        r"evaluate: 100%\|.*\| 6/6 \[.* *(s/run|run/s)\]", capsys.readouterr().err
    )  # how long it will take
    assert (tmp_path / "ended").exists()
    assert played(shared) == played(alone)
    assert len(list((tmp_path / "out" / "runs").glob("*.json"))) == len(alone.records) == 6
    assert played(EvaluationReport.load(tmp_path / "out")) == played(alone)


def jobs(folder: Path, *names: str) -> dict[str, partial]:
    return {name: partial(work, folder, name) for name in names}


@pytest.mark.processes
def test_an_error_is_told_once_with_its_run_and_ends_the_others(tmp_path: Path):
    """Of eight processes with 90 runs nobody finds the one that failed; the others would go on for hours."""
    tasks = jobs(tmp_path, "slow", "bad")
    with pytest.raises(ValueError, match="nothing to learn") as caught:
        list(spreading.spread(tasks, tasks, 2, "cpu", False))
    assert str(caught.value) == "bad: nothing to learn"
    assert "in work" in caught.value.__notes__[0]  # where it was
    assert not multiprocessing.active_children()
    assert len((tmp_path / "bad").read_text().split()) == 1


@pytest.mark.processes
def test_a_run_that_ends_every_process_is_given_up_and_named(tmp_path: Path, monkeypatch):
    """One that needs more memory than there is would be begun anew for ever."""
    monkeypatch.setattr(spreading, "TRIES", 2)
    tasks = jobs(tmp_path, "good", "fatal")
    done = spreading.spread(tasks, tasks, 1, "cpu", False)
    assert next(done) == ("good", "good")
    with pytest.raises(OSError, match=r"workers=1: fatal: 2 processes were ended"):
        next(done)
    assert len((tmp_path / "good").read_text().split()) == 1
    assert len(set((tmp_path / "fatal").read_text().split())) == 2
    assert not multiprocessing.active_children()


def test_what_cannot_be_sent_to_a_process_is_named_before_it_is_begun():
    """A traceback of pickle's does not say whose function it was, nor what to do."""
    data = halves()
    with pytest.raises(ValueError, match=r"workers: a run cannot be sent to another process .*lambda"):
        evaluate(
            data, protected=data, test=halves(30, seed=1), victims={"tiny": VICTIM}, seeds=(0,), device="cpu",
            countermeasures=[Purifier(lambda images: 1 - images, "negative")], progress=False, workers=1,
        )  # fmt: skip
    assert not multiprocessing.active_children()
    with pytest.raises(ValueError, match="workers must be an integer >= 0, got -1"):
        evaluate(data, protected=data, test=data, workers=-1)


@pytest.mark.parametrize(
    ("device", "expected"),
    [(None, ["cuda:0", "cuda:1", "cuda:0"]), ("cuda", ["cuda:0", "cuda:1", "cuda:0"]), ("cuda:1", ["cuda:1"] * 3)],
)
def test_processes_take_turns_at_the_devices(monkeypatch, device, expected):
    """All on the first device would run out of its memory while the others idle."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [spreading._device_of(number, device) for number in range(3)] == expected
    assert spreading._device_of(1, "cpu") == "cpu"


def left_behind(mark: str) -> list[int]:
    """Processes that have a word in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SPREADING_TEST") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def command(folder: Path) -> list[str]:
    """An evaluation of sixty runs by two processes."""
    for part, seed in (("train", 0), ("test", 1)):
        for row, (image, label) in enumerate(halves(24, seed=seed)):
            path = folder / part / str(int(label)) / f"{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    arguments = [
        # a shell's background job, such as a CI run may be, would ignore the signal
        sys.executable, "-c", "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from semtransforms.cli import app; app()", "evaluate", folder / "train", folder / "out",
        "--test", folder / "test", "--protected", folder / "train", "--network", "convnet", "--width", 4,
        "--device", "cpu", "--workers", 2, "--seeds", ",".join(map(str, range(60))),
    ]  # fmt: skip
    return list(map(str, arguments))


def ended(running: subprocess.Popen, folder: Path, how: signal.Signals) -> str:
    """Send a signal when the first run is done; what was told until the end."""
    while not list(folder.glob("out/runs/*.json")):
        assert running.poll() is None
        time.sleep(0.05)
    if how == signal.SIGINT:
        os.killpg(running.pid, how)
    else:
        os.kill(running.pid, how)
    return running.communicate(timeout=60)[1]


@pytest.mark.processes
@pytest.mark.skipif(os.name != "posix", reason="signals to a group of processes")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_what_ends_the_command_ends_all_processes_and_costs_no_run_that_is_done(tmp_path: Path, how: signal.Signals):
    """Workers that live on hold the memory and the devices; each that hears Ctrl-C itself prints a traceback."""
    environment = {**os.environ, "SPREADING_TEST": str(tmp_path)}
    with subprocess.Popen(
        command(tmp_path), env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True
    ) as running:
        told = ended(running, tmp_path, how)
    if how == signal.SIGINT:
        assert running.returncode == 130
        assert "Traceback" not in told, told
        assert "resource_tracker" not in told
        assert told.strip().endswith("interrupted: the same command goes on from here")
    else:
        deadline = time.monotonic() + 20
        while left_behind(str(tmp_path)) and time.monotonic() < deadline:
            time.sleep(0.1)
    assert not left_behind(str(tmp_path))
    for record in (tmp_path / "out" / "runs").glob("*.json"):
        assert json.loads(record.read_bytes())["test_accuracy"] >= 0

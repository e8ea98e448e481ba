"""One fit in several processes, which torchrun starts: the weights of one process alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from semtransforms import fit_generator
from semtransforms.core.sharing import ALONE, Share, own_device, shared, started
from semtransforms.noise.methods import SEM, SEM_CLASSWISE, method, with_effort

IMAGES = torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(40) % 4
# batches of 10, which 4 processes cannot share evenly
TINY = {"width": 4, "batch_size": 10, "surrogate": "convnet", "precision": "fp32"}
METHODS = {
    "sem": replace(with_effort(SEM, train_steps=20, steps_u=2, steps_a=2), **TINY),
    "sem-classwise": replace(with_effort(SEM_CLASSWISE, train_steps=20), **TINY, hold_steps=3),
}
SCRIPT = f"""
import sys, time
import torch
from semtransforms import fit_generator
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_sharing import IMAGES, LABELS, METHODS
from semtransforms.core.sharing import shared, started

def fit(name, folder, images=IMAGES, every=20):
    fit_generator((images, LABELS), METHODS[name], checkpoint_dir=folder, checkpoint_every=every, resume=True,
                  device="cpu", distributed=True, progress=False)
"""


def run(words: str, folder: Path, processes: int) -> subprocess.Popen[str]:
    """Start a script in so many processes."""
    script = folder / "script.py"
    script.write_text(SCRIPT + words)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, str(script)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            env=environment)  # fmt: skip


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """What a fit has left, in full precision: weights, momentum, and the noises of classes."""
    return load_file(folder / "checkpoint.safetensors")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    """The fits of one process."""
    found = {}
    for name, config in METHODS.items():
        folder = tmp_path_factory.mktemp(name)
        fit_generator((IMAGES, LABELS), config, checkpoint_dir=folder, device="cpu", progress=False)
        found[name] = weights(folder)
    return found


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_that_share_give_the_weights_of_one(alone, tmp_path: Path, processes: int):
    """Who fits on eight devices would otherwise get another generator than the one that was measured.

    A data set that differs is told first: the processes would train on half of the one and half of the other.
    """
    words = f"""
try:
    fit("sem", {str(tmp_path / "other")!r}, IMAGES if started().writes else 255 - IMAGES)
except ValueError as error:
    print(error)
for name in METHODS:
    fit(name, {str(tmp_path)!r} + "/" + name)
layer = torch.nn.BatchNorm1d(3)
layer.weight.data += started().rank  # as on GPUs, whose sums differ
shared(torch.device("cpu")).follow_first(layer)
assert layer.weight.eq(1).all()
"""
    process = run(words, tmp_path, processes)
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert told.count(f"process 1 of {processes} has another config or data set than process 0") == processes
    for name, expected in alone.items():
        found = weights(tmp_path / name)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=0, atol=1e-5)


def test_a_killed_process_costs_what_is_behind_the_checkpoint(alone, tmp_path: Path):
    """One of eight devices fails in most long fits; starting anew each time never ends."""
    slow = "import semtransforms.generators.fitting as fitting\nstep = fitting.train_step\n"
    slow += "fitting.train_step = lambda *r, **k: (time.sleep(0.2), step(*r, **k))[1]\n"
    folder = tmp_path / "sem"
    process = run(f"{slow}fit('sem', {str(folder)!r}, every=2)", tmp_path, 2)
    until = time.monotonic() + 120
    while not (folder / "checkpoint.safetensors").exists() and time.monotonic() < until:
        time.sleep(0.05)
    started = [
        each for each in psutil.Process(process.pid).children(recursive=True) if "script.py" in each.cmdline()[-1]
    ]
    os.kill(started[-1].pid, signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode != 0
    process = run(f"fit('sem', {str(folder)!r}, every=2)", tmp_path, 2)
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 0, told
    for key, value in alone["sem"].items():
        torch.testing.assert_close(weights(folder)[key], value, rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [3, 4, 7])
def test_rows_come_back_in_their_order(monkeypatch: pytest.MonkeyPatch, count: int):
    """Joined in another order, rows meet labels of others, and the surrogate learns nothing."""
    rows = torch.arange(2 * count).view(count, 2)
    shares = [Share(rank, 3) for rank in range(3)]
    padded = [torch.cat([own, own.new_zeros(-(-count // 3) - len(own), 2)]) for own in (s.own(rows) for s in shares)]

    def gather(parts: list[torch.Tensor], mine: torch.Tensor) -> None:
        assert any(torch.equal(mine, each) for each in padded)
        for part, each in zip(parts, padded, strict=True):
            part.copy_(each)

    monkeypatch.setattr("torch.distributed.all_gather", gather)
    for share in shares:
        assert torch.equal(share.join(share.own(rows), count), rows)


def test_what_cannot_be_shared_is_said_before_work(monkeypatch: pytest.MonkeyPatch):
    """A process that waits for others that never come waits for half an hour."""
    with pytest.raises(ValueError, match="torchrun"):
        fit_generator((IMAGES, LABELS), METHODS["sem"], distributed=True, progress=False)
    with pytest.raises(ValueError, match="'sc-linf' is fitted by one process"):
        fit_generator((IMAGES, LABELS), method("sc-linf"), distributed=True, progress=False)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert own_device(torch.device("cuda")) == torch.device("cuda:3")
    assert own_device(torch.device("cuda:1")) == torch.device("cuda:1")
    assert own_device(torch.device("cpu")) == torch.device("cpu")


def test_each_process_has_its_own_gpu_for_objects_too(monkeypatch: pytest.MonkeyPatch):
    """NCCL sends what is no tensor from the current device: the first one of all processes, which it refuses."""
    chosen = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("torch.cuda.set_device", chosen.append)
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 1)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    assert shared(torch.device("cuda:1")) == Share(1, 2)
    assert chosen == [torch.device("cuda:1")]


def test_who_is_alone_writes(monkeypatch: pytest.MonkeyPatch):
    """A launcher that sets RANK alone: the fit runs to its end, exit 0, and its generator is nowhere."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("RANK", "1")
    assert started() == ALONE
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert started() == Share(1, 2)

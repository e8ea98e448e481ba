"""What is disturbed: the package's long jobs on tiny data, each in a process of its own, and what came of it.

The process is forked from one that has imported torch and computed nothing, so that most of its time is the job's.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

sys.path.append(str(Path(__file__).parents[1]))  # what the tests share is no package
sys.path.append(str(Path(__file__).parents[2]))  # nor are the examples

import datasets
import torch
import typer
from hub_server import HubServer
from huggingface_hub import constants
from owner import quicken, tree, write_photographs
from PIL import Image
from safetensors import safe_open
from torchvision.datasets import ImageFolder

from semtransforms import SEM, ProtectedDataset, fit_generator
from semtransforms.cli import app
from semtransforms.cli.errors import one_line_errors
from semtransforms.core.files import UNFINISHED
from semtransforms.data import store
from semtransforms.evaluation.victims import config as victims
from semtransforms.evaluation.victims import training
from semtransforms.photographs import journey  # noqa: F401 - imported once, here, and not in each process
from semtransforms.protect import publish

SMALL = {"surrogate": "convnet", "width": 4, "steps_u": 2, "steps_a": 1, "num_samples": 1, "batch_size": 8}
REPOSITORY = "org/fitted"
SEED = 5
PR_SET_PDEATHSIG = 1  # of sys/prctl.h


@dataclass(frozen=True)
class Given:
    """What the jobs read, and never write.

    Args:
        photographs: an image folder of two classes.
        generator: the folder of a generator for them.
        test: other photographs of the same classes.
    """

    photographs: Path
    generator: Path
    test: Path

    @classmethod
    def make(cls, root: Path) -> Given:
        """Write it, in processes of their own: this one must not have computed anything when it forks."""
        given = cls(root / "photographs", root / "generator", root / "test")

        def write() -> None:
            write_photographs(given.photographs)
            write_photographs(given.test, each=3, sizes=((32, 40),))
            for number, file in enumerate(sorted(given.test.rglob("*.jpg"))):  # no image of the training set
                Image.open(file).transpose(Image.Transpose.ROTATE_180).save(file, quality=80 + number)
            config = replace(SEM, **SMALL, train_steps=2, image_size=(16, 16))
            fit_generator(ImageFolder(given.photographs), config, device="cpu", progress=False).save_pretrained(
                given.generator
            )

        ended = Running.start(write).wait()
        assert ended.status == 0, ended.stderr
        return given


class Ended(NamedTuple):
    """How a process ended: its exit code (negative: the signal), what it wrote to stderr, and how long it took."""

    status: int
    stderr: str
    seconds: float

    @property
    def errors(self) -> list[str]:
        """The lines of stderr that are neither bars nor warnings."""
        lines = [line.rpartition("\r")[2].strip() for line in self.stderr.split("\n")]
        return [line for line in lines if line and not re.search(r"^warning: |(it|image|examples)/s|s/it|\d%\|", line)]

    @property
    def is_refusal(self) -> bool:
        """Whether it ended as a mistake of the user ends: one line, exit code 2."""
        return self.status == 2 and len(self.errors) == 1 and self.errors[0].startswith("error: ")


class Running:
    """A forked process that does something; its stdout is thrown away, its stderr kept."""

    def __init__(self, pid: int, stderr: int) -> None:
        self.pid, self._stderr, self._said, self._started = pid, stderr, bytearray(), time.monotonic()
        os.set_blocking(stderr, False)

    @classmethod
    def start(cls, work: Callable[[], None]) -> Running:
        """Begin."""
        # a pipe, and no file: a disk may be full, and a file's size limited
        reading, writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            os.close(writing)
            return cls(pid, reading)
        status = 70  # an exception that is no error of ours
        try:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # nobody is left when the script is ended
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(writing, 2)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
            torch.set_num_threads(1)
            work()
            status = 0
        except (SystemExit, typer.Exit) as end:
            code = end.code if isinstance(end, SystemExit) else end.exit_code
            status = code if isinstance(code, int) else 0 if code is None else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)  # what pytest and the script hold must not be closed twice

    def wait(self, seconds: float = 300.0) -> Ended:
        """Its end; whoever takes longer than that is killed, and says so."""
        if self._ended_within(seconds):
            return self._end()
        os.kill(self.pid, signal.SIGKILL)
        return self._end(f"took longer than {seconds:g} s")

    def goes_on_after(self, seconds: float) -> bool:
        """Whether it is not over when it has run so long."""
        return not self._ended_within(seconds)

    def kill_after(self, seconds: float) -> Ended:
        """Its end by kill -9 when it has run so long; its own end where that comes first."""
        if not self._ended_within(seconds):
            os.kill(self.pid, signal.SIGKILL)
        return self._end()

    def _ended_within(self, seconds: float) -> bool:
        end = self._started + seconds
        while (left := end - time.monotonic()) > 0:
            self._listen()
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return True
            time.sleep(min(left, 0.002))
        return False

    def _listen(self) -> None:
        with suppress(BlockingIOError):
            while part := os.read(self._stderr, 1 << 16):
                self._said += part

    def _end(self, more: str = "") -> Ended:
        _, status = os.waitpid(self.pid, 0)
        seconds = time.monotonic() - self._started
        self._listen()
        os.close(self._stderr)
        return Ended(os.waitstatus_to_exitcode(status), self._said.decode(errors="replace") + more, seconds)


@dataclass(frozen=True)
class Job:
    """Something long that the package does.

    Args:
        run: ``run(given, where, *options)`` does it, with the command's further options; in a process of its own, and
            again after it was disturbed.
        result: what of the folder must be the same however often it was disturbed, by name.
        seeds: the secret seeds in the folder; ``None`` where the seed is given and so always the same.
        folder: the one that it fills; ``None`` where it fills none.
        hub: whether it speaks to a Hub.
        in_memory: whether what it gives is in memory, so that its folder may be gone when it ends well.
    """

    run: Callable[..., None]
    result: Callable[[Path], dict[str, bytes]]
    seeds: Callable[[Path], dict[str, int]] | None = None
    folder: str | None = None
    hub: bool = False
    in_memory: bool = False


def command(*arguments: object) -> None:
    """The command line, in this process; ends it."""
    app([str(each) for each in arguments])


def fit(given: Given, where: Path) -> None:
    fit_generator.__kwdefaults__["checkpoint_every"] = 1  # the command's is for fits of hours
    command(
        "fit", given.photographs, where / "out", "--method", "sem", "--surrogate", "convnet", "--width", 4,
        "--size", 16, "--train-steps", 12, "--batch-size", 8, "--steps-u", 2, "--steps-a", 1, "--num-samples", 1,
        "--device", "cpu", "--checkpoint-dir", where / "checkpoint", "--resume",
    )  # fmt: skip


def protect(given: Given, where: Path, *options: object, out: str = "out") -> None:
    publish.BATCH_IMAGES = 2
    private = "--cache-dir", where / "private"
    command("protect", given.photographs, where / out, "--generator", given.generator, *private, *options)


def protect_as_parquet(given: Given, where: Path, *options: object) -> None:
    datasets.config.HF_DATASETS_CACHE = where / "datasets"
    protect(given, where, "--format", "parquet", *options, out="out.parquet")


def protect_with_fit(given: Given, where: Path, *options: object) -> None:
    quicken(setattr)
    publish.BATCH_IMAGES = 4
    place = where / "out", "--cache-dir", where / "private"
    # given: the fit's and the noise's are drawn apart else, and each undisturbed run is another one
    command("protect", given.photographs, *place, "--device", "cpu", "--seed", SEED, *options)


def wrap(given: Given, where: Path) -> None:
    store.SHARD_BYTES = 2000
    with one_line_errors():  # as a command would, for what is told
        data = ImageFolder(given.photographs)
        protected = ProtectedDataset(
            data, given.generator, seed=SEED, cache_dir=where / "stores", device="cpu", batch_size=1, progress=False
        )
        reach = max(int((protected.protected(i).int() - protected.clean(i)).abs().max()) for i in range(len(data)))
    assert reach <= 8, f"noise of {reach} levels at rho_u of 8"


def evaluate(given: Given, where: Path) -> None:
    training.CHECKPOINT_SECONDS = 0
    victims.FEWEST_STEPS = 10
    command(
        "evaluate", given.photographs, where / "report", "--test", given.test, "--generator", given.generator,
        "--network", "convnet", "--width", 4, "--seeds", "0,1", "--size", 16, "--cache-dir", where / "stores",
        "--device", "cpu",
    )  # fmt: skip


def push(given: Given, where: Path) -> None:
    constants.HF_HUB_CACHE = str(where / "cache")
    command("push", given.generator, REPOSITORY)


def files_of(folder: str) -> Callable[[Path], dict[str, bytes]]:
    """Every file of a folder, without locks."""
    return lambda where: {name: data for name, data in tree(where / folder).items() if not name.endswith(".lock")}


def parquet_of(where: Path) -> dict[str, bytes]:
    return {name: data for name, data in tree(where).items() if name.startswith("out")}


def copy_and_generator(where: Path) -> dict[str, bytes]:
    """What was published, and the generator; how long it took is told in the reports."""
    kept = ("out/", "private/generators/")
    return {
        name: data
        for name, data in tree(where).items()
        if name.startswith(kept) and "report" not in name and not name.endswith(("lock", "plan.json"))
    }


def report_of(where: Path) -> dict[str, bytes]:
    """Records without the time they took, and the pictures."""
    found = {name: data for name, data in tree(where / "report").items() if name.endswith((".json", ".png"))}
    return {name: _timeless(data) if name.endswith(".json") else data for name, data in found.items()}


def _timeless(data: bytes) -> bytes:
    def drop(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: drop(each) for name, each in value.items() if name != "seconds"}
        return [drop(each) for each in value] if isinstance(value, list) else value

    return json.dumps(drop(json.loads(data)), sort_keys=True).encode()


def secret_seeds(where: Path) -> dict[str, int]:
    """The seed of each protection that was begun."""
    return {
        file.relative_to(where).as_posix(): json.loads(file.read_bytes())["seed"]
        for file in sorted(where.rglob("secret.json"))
    }


JOBS = {
    "fit": Job(fit, files_of("out"), folder="out"),
    "protect": Job(protect, files_of("out"), secret_seeds, folder="out"),
    "protect-parquet": Job(protect_as_parquet, parquet_of, secret_seeds, folder="out.parquet.unfinished"),
    "protect-with-fit": Job(protect_with_fit, copy_and_generator, folder="out"),
    "ProtectedDataset": Job(wrap, files_of("stores"), folder="stores", in_memory=True),
    "evaluate": Job(evaluate, report_of, folder="report"),
    "push": Job(push, lambda where: {}, hub=True),
}


def half_written(root: Path) -> list[str]:
    """Files below a folder that are not whole and do not say so by their name."""
    torn = []
    for name, data in tree(root).items():
        if any(part.startswith((UNFINISHED, ".")) for part in Path(name).parts) or name.endswith(".lock"):
            continue
        try:
            _read_whole(root / name, data)
        except Exception as error:
            torn.append(f"{name} ({type(error).__name__}: {error})")
    return torn


def _read_whole(file: Path, data: bytes) -> None:
    if file.suffix == ".json":
        json.loads(data)
    elif file.suffix == ".jsonl":
        for line in data.splitlines(keepends=True):
            if line.endswith(b"\n"):  # appended to: the last line of a kill may be cut, and is written anew
                json.loads(line)
    elif file.suffix in (".png", ".jpg"):
        Image.open(file).load()
    elif file.suffix == ".safetensors":
        with safe_open(file, "np") as tensors:
            list(tensors.keys())
    elif file.suffix == ".html":
        assert data.rstrip().endswith(b"</html>")


class Hub:
    """The Hub that a process of its own serves.

    Args:
        pipe: to that process.
    """

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def commits(self) -> list[dict[str, bytes]]:
        """What was committed to :data:`REPOSITORY` so far, each time all its files."""
        return self._ask("tell")

    def begun(self) -> bool:
        """Whether anything has come."""
        return bool(self._ask("begun"))

    def forget(self) -> None:
        """Begin anew, without repositories."""
        self._ask("forget")

    def _ask(self, what: str | None) -> Any:
        self._pipe.send(what)
        return self._pipe.recv()


@contextmanager
def hub() -> Iterator[Hub]:
    """A Hub in a process of its own (this one must have no threads when it forks), which all here speak to."""
    ours, theirs = get_context("fork").Pipe()
    server = get_context("fork").Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    endpoint = ours.recv()
    replaced = {"ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": True,
                "HUGGINGFACE_CO_URL_TEMPLATE": endpoint + "/{repo_id}/resolve/{revision}/{filename}"}  # fmt: skip
    kept, token = {name: getattr(constants, name) for name in replaced}, os.environ.get("HF_TOKEN")
    for name, value in replaced.items():
        setattr(constants, name, value)
    os.environ["HF_TOKEN"] = HubServer.token
    try:
        yield Hub(ours)
    finally:
        server.terminate()
        server.join()
        for name, value in kept.items():
            setattr(constants, name, value)
        del os.environ["HF_TOKEN"]
        os.environ.update({} if token is None else {"HF_TOKEN": token})


def _serve(pipe: Any) -> None:
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - of connections that a kill has cut
    with HubServer() as server:
        pipe.send(server.endpoint)
        while True:
            asked = pipe.recv()
            if asked == "forget":
                server.repositories.clear()
                server.storage.clear()
            found = server.repositories.get(REPOSITORY)
            commits = [] if found is None else list(found.commits.values())[1:]  # the first one is empty
            pipe.send(bool(server.repositories or server.storage) if asked == "begun" else commits)

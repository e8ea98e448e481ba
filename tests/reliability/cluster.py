"""Kill the workers and the driver of protections with a Ray cluster, and compare with what nobody disturbed.

    python -m tests.reliability.cluster --kills 20

The cluster is one of this machine, started for it, or that of RAY_ADDRESS, which does nothing else. A run is disturbed
five times, each after as many files as chance has it: workers by SIGKILL and by ``ray.kill``, in turn, and last the
driver by SIGKILL; then the same call goes on.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # what the tests share is no package
sys.path.append(str(Path(__file__).parents[2]))  # nor are the examples

from examples.reproduce.markdown import table

PHOTOGRAPHS, GROUP = 48, 2
KINDS = ("SIGKILL of a worker", "ray.kill", "SIGKILL of a worker", "ray.kill", "SIGKILL of the driver")
HEAD = ["kills", *dict.fromkeys(KINDS), "runs", "result equal", "seconds", "faults"]
WAIT = 600  # seconds without a new file, at most


@dataclass
class Trials:
    """What came of it: the kills by kind, the runs, how many had the undisturbed result, what was wrong, seconds."""

    kills: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    equal: int = 0
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def row(self) -> list[str]:
        """For the table."""
        kinds = (str(self.kills[kind]) for kind in dict.fromkeys(KINDS))
        equal = f"{self.equal} of {self.runs}"
        return [str(self.kills.total()), *kinds, str(self.runs), equal, f"{self.seconds:.0f}", str(len(self.wrong))]


def drive(root: Path, out: str) -> None:
    """Be the driver, in a process of its own; SIGUSR1 lets it ``ray.kill`` one of its actors."""
    import ray
    from test_publish import small_generator

    from semtransforms import protect_with_ray
    from semtransforms.protect import publish

    def kill_one(*_: object) -> None:
        actors = [each for each in gc.get_objects() if type(each) is ray.actor.ActorHandle and "Map" in repr(each)]
        if actors:
            ray.kill(random.choice(actors))

    signal.signal(signal.SIGUSR1, kill_one)
    publish.BATCH_IMAGES = GROUP
    photographs = str(root / "photographs")
    protect_with_ray(photographs, root / out, small_generator(), workers=2, private=root / "private")


def kill_runs(root: Path, kills: int, seed: int) -> Trials:
    """Disturb protections so often.

    Args:
        root: an empty folder.
        kills: how many.
        seed: of the points.
    """
    from owner import tree, write_photographs
    from test_publish import small_generator

    from semtransforms.data.sources import open_source
    from semtransforms.protect.publish import protect_source

    trials, rng, started = Trials(), random.Random(seed), time.monotonic()
    write_photographs(root / "photographs", each=PHOTOGRAPHS // 2)
    while trials.kills.total() < kills:
        out = root / f"out {trials.runs}"
        kinds = KINDS[: kills - trials.kills.total()]
        points = sorted(rng.sample(range(1, PHOTOGRAPHS - 2 * GROUP), len(kinds)))
        driver = _start(root, out.name)
        for kind, point in zip(kinds, points, strict=True):
            _wait_for(out, point, driver)
            if driver.poll() is not None:
                trials.wrong.append(f"run {trials.runs}: over before {kind} at {point} files")
                break
            trials.kills[kind] += _kill(kind, driver)
            if driver.poll() is not None:
                driver = _start(root, out.name)
        if driver.wait(timeout=WAIT):
            trials.wrong.append(f"run {trials.runs}: exit code {driver.returncode}")
        trials.runs += 1
        trials.wrong += [f"left behind: {path}" for path in out.rglob(".unfinished*")]
        secrets = [json.loads(file.read_text()) for file in (root / "private").glob("*/secret.json")]
        (given,) = [each["seed"] for each in secrets if each["protection"][1] == str(out)]
        again = root / "again" / out.name
        protect_source(open_source(str(root / "photographs")), again, small_generator(), seed=given,
                       private=root / "others")  # fmt: skip
        trials.equal += tree(out) == tree(again)
        print(*trials.row(), *trials.wrong, sep="; ", file=sys.stderr, flush=True)
    trials.seconds = time.monotonic() - started
    return trials


def _start(root: Path, out: str) -> subprocess.Popen[bytes]:
    here = Path(__file__)
    places = (str(here.parents[1] / "protect"), str(here.parents[1]), os.environ.get("PYTHONPATH", ""))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places)), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, str(here), "--drive", str(root), out], env=environment)


def _wait_for(out: Path, files: int, driver: subprocess.Popen[bytes]) -> None:
    """Until so many files are there, the driver is over, or nothing happens."""
    last, since = -1, time.monotonic()
    while driver.poll() is None and time.monotonic() - since < WAIT:
        now = sum(1 for _ in out.rglob("*.png"))
        if now >= files:
            return
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.02)


def _kill(kind: str, driver: subprocess.Popen[bytes]) -> int:
    """Kill; how many were hit."""
    if kind.endswith("driver"):
        driver.kill()
        driver.wait()
        return 1
    if kind == "ray.kill":
        driver.send_signal(signal.SIGUSR1)
        return 1
    import ray

    actors = [each for each in ray._private.state.actors().values() if each["State"] == "ALIVE"]
    workers = [each["Pid"] for each in actors if "MapWorker" in each["ActorClassName"]]
    if workers:
        os.kill(random.choice(workers), signal.SIGKILL)
    return bool(workers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=5, help="of the points")
    parser.add_argument("--drive", nargs=2, metavar=("ROOT", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.drive:
        drive(Path(arguments.drive[0]), arguments.drive[1])
        return
    import ray

    sys.path.append(str(Path(__file__).parents[1] / "protect"))
    own = {} if "RAY_ADDRESS" in os.environ else {"address": "local", "num_cpus": 2, "include_dashboard": False}
    with ray.init(log_to_driver=False, **own), tempfile.TemporaryDirectory() as scratch:
        trials = kill_runs(Path(scratch), arguments.kills, arguments.seed)
    print(table(HEAD, [trials.row()]), *trials.wrong, sep="\n")
    raise SystemExit(bool(trials.wrong) or trials.equal < trials.runs)


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()

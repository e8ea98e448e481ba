"""Kill the package's jobs with kill -9 at random points, go on, and compare with what nobody disturbed.

    python -m tests.reliability.kills --kills 40                   # of each job
    python -m tests.reliability.kills --kills 40 --what protect

A run is killed twice, the second time while it goes on, and then left alone. The points are spread evenly over the
length of an undisturbed run, each at a random place within its part.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from .jobs import JOBS, SEED, Ended, Given, Hub, Job, Running, half_written, hub

from examples.reproduce.markdown import table  # behind .jobs, which says where it lies  # isort: skip

PARTS = 5  # of a run's length, that the table counts kills in
BEYOND = 1.1  # kills come up to so much later than an undisturbed run's end


class Kill(NamedTuple):
    """One kill -9: at which share of the undisturbed run's length, and whether the job was ``"at work"``.

    Else it had not written anything (``"before"``), or was over (``"after"``).
    """

    share: float
    when: str


@dataclass
class Trials:
    """What came of killing one job.

    Args:
        kills: each of them.
        runs: how many were killed, gone on with and finished.
        equal: of those, how many had the result of an undisturbed run.
        wrong: what was not as it must be, a line each.
        seconds: of an undisturbed run.
    """

    kills: list[Kill] = field(default_factory=list)
    runs: int = 0
    equal: int = 0
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def row(self, name: str) -> list[str]:
        """For the table."""
        spread = Counter(min(int(kill.share * PARTS), PARTS) for kill in self.kills)
        when = Counter(kill.when for kill in self.kills)
        return [
            name, f"{self.seconds:.1f}", str(len(self.kills)), " ".join(str(spread[part]) for part in range(PARTS + 1)),
            *(str(when[each]) for each in ("before", "at work", "after")), f"{self.equal} of {self.runs}",
            str(len(self.wrong)),
        ]  # fmt: skip


HEAD = [
    "job", "undisturbed, s", "kills", "by fifth of its length, and behind it", "before it wrote", "at work",
    "after the end", "result equal", "faults",
]  # fmt: skip


def kill_job(job: Job, given: Given, scratch: Path, kills: int, seed: int, server: Hub | None) -> Trials:
    """Kill a job so often, and see what comes of it.

    Args:
        job: one of ``JOBS``.
        given: what it reads.
        scratch: an empty folder.
        kills: how many; two of each run.
        seed: of the points.
        server: where the job speaks to a Hub.
    """
    trials = Trials()
    place = Place(job, given, scratch, server)
    lengths = [place.undisturbed(scratch / "undisturbed").seconds for _ in range(3 if kills > 2 else 1)]
    trials.seconds = statistics.median(lengths)
    wanted = place.result(scratch / "undisturbed")
    for shares in _points(kills, seed):
        where = scratch / "killed"
        place.clear(where)
        seeds: dict[str, int] = {}
        for share in shares:
            before = place.written(where)
            ended = place.start(where).kill_after(share * trials.seconds)
            when = "after" if ended.status >= 0 else "at work" if place.written(where) or before else "before"
            trials.kills.append(Kill(share, when))
            trials.wrong += [f"after {share:.0%}: half-written {each}" for each in half_written(where)]
            trials.wrong += _lost(seeds, seeds := place.seeds(where), f"after {share:.0%}")
            trials.wrong += place.told(ended, f"at {share:.0%}")
        trials.wrong += place.told(place.start(where).wait(), f"gone on after {shares[-1]:.0%}")
        trials.wrong += _lost(seeds, place.seeds(where), "at the end")
        trials.wrong += _left(where)
        trials.runs += 1
        same = place.result(where) == (wanted if job.seeds is None else place.again(where))
        trials.equal += same
        if not same:
            trials.wrong.append(f"another result after {', '.join(f'{share:.0%}' for share in shares)}")
    return trials


def _points(kills: int, seed: int) -> Iterator[Sequence[float]]:
    """Shares of a run's length at which it is killed, two for each run (of an odd number one for the last)."""
    rng = random.Random(seed)
    shares = [BEYOND * (k + rng.random()) / kills for k in range(kills)]
    rng.shuffle(shares)
    return (shares[k : k + 2] for k in range(0, kills, 2))


def _lost(before: dict[str, int], now: dict[str, int], when: str) -> list[str]:
    """A seed that was written once must stay, and stay the only one: with another one the noise would be another's."""
    gone = [f"{when}: the seed in {name} is lost" for name in before if now.get(name) != before[name]]
    return gone + ([f"{when}: {len(now)} seeds of one protection"] if len(now) > 1 else [])


def _left(where: Path) -> list[str]:
    """What is not whole and still lies there at the end."""
    return [f"left behind: {path.relative_to(where)}" for path in where.rglob("*") if ".unfinished" in path.name]


class Place:
    """Where a job is run and looked at."""

    def __init__(self, job: Job, given: Given, scratch: Path, server: Hub | None) -> None:
        self.job, self.given, self.scratch, self.server = job, given, scratch, server

    def clear(self, where: Path) -> None:
        shutil.rmtree(where, ignore_errors=True)
        where.mkdir()
        if self.server is not None:
            self.server.forget()

    def start(self, where: Path) -> Running:
        return Running.start(lambda: self.job.run(self.given, where))

    def undisturbed(self, where: Path) -> Ended:
        self.clear(where)
        ended = self.start(where).wait()
        assert ended.status == 0, ended
        return ended

    def again(self, where: Path) -> dict[str, bytes]:
        """The result of an undisturbed run with the seeds of a disturbed one."""
        seed = next(iter(self.seeds(where).values()), None)
        if seed is None:
            return {"no seed": b""}
        other = self.scratch / "again" / where.name  # the same name, which stands in what is published
        shutil.rmtree(other.parent, ignore_errors=True)
        other.parent.mkdir()
        self.clear(other)
        ended = Running.start(lambda: self.job.run(self.given, other, "--seed", seed)).wait()
        assert ended.status == 0, ended
        return self.result(other)

    def result(self, where: Path) -> dict[str, bytes]:
        commits = [] if self.server is None else self.server.commits()
        return self.job.result(where) | {
            f"commit {number}, {name}": data for number, files in enumerate(commits) for name, data in files.items()
        }

    def seeds(self, where: Path) -> dict[str, int]:
        return {} if self.job.seeds is None else self.job.seeds(where)

    def written(self, where: Path) -> bool:
        found = any(path.is_file() for path in where.rglob("*"))
        return found or (self.server is not None and self.server.begun())

    def told(self, ended: Ended, when: str) -> list[str]:
        """What is wrong with an end that was not by the kill: it must be the right one, or say that all is there."""
        finished = ended.is_refusal and re.match("error: OUT .* (exists|is a file)", ended.errors[0])
        return [f"{when}: exit code {ended.status}, {ended.errors}"] if ended.status > 0 and not finished else []


def measure(names: Sequence[str], kills: int, seed: int = SEED) -> dict[str, Trials]:
    """Kill jobs, each so often.

    Args:
        names: of ``JOBS``.
        kills: how many of each.
        seed: of the points.
    """
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(hub()) if any(JOBS[name].hub for name in names) else None
        given = Given.make(scratch)
        found = {}
        for name in names:
            place = scratch / f"{name} runs"
            place.mkdir()
            found[name] = kill_job(JOBS[name], given, place, kills, seed, server if JOBS[name].hub else None)
            print(*found[name].row(name), *found[name].wrong, sep="; ", file=sys.stderr, flush=True)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40, help="of each job")
    parser.add_argument("--what", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--seed", type=int, default=SEED, help="of the points")
    arguments = parser.parse_args()
    found = measure(arguments.what, arguments.kills, arguments.seed)
    print(table(HEAD, [trials.row(name) for name, trials in found.items()]))
    for name, trials in found.items():
        for line in trials.wrong:
            print(f"{name}: {line}")
    raise SystemExit(any(trials.wrong for trials in found.values()))


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()

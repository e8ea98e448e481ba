"""Give the package broken files and command lines: no crash, no hang, no memory without end, and a word for each.

    python -m tests.reliability.fuzz --inputs 10000                      # of each kind of picture
    python -m tests.reliability.fuzz --inputs 200000 --what "picture PNG" --seed 7

Inputs are drawn by Hypothesis, which shrinks what fails to the bytes that matter. Each kind is read in a process of its
own, whose memory may grow by so much and no more. Of what is slower to read, fewer are given (``SLOWER``).
"""

from __future__ import annotations

import argparse
import json
import logging
import mmap
import os
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from .broken import Target, make_targets
from .jobs import SEED, Given, Running

from examples.reproduce.markdown import table  # behind .jobs, which says where it lies  # isort: skip

MOST_MEMORY = 512 << 20  # bytes that a process may take beyond what it had
MOST_SECONDS = 5  # for one input
LONGEST = 1 << 16  # bytes of an input that is remembered, for a process that ends without a word
SLOWER = {"Parquet": 100, "command lines": 20, "a record of a run": 5, "report.json": 5, "evaluation.json": 5,
          "protection.json": 5, "metadata.csv": 2, "finished.jsonl": 2, "secret.json": 2}  # fmt: skip


class Hung(BaseException):
    """One input took too long; nothing catches it on the way."""


@dataclass
class Read:
    """What came of reading broken inputs.

    Args:
        inputs: how many.
        accepted: how many were read.
        refused: the errors of the others, by their names.
        slowest: seconds that one took.
        grown: bytes of resident memory that the process took beyond what it had.
        faults: what must not happen, each with the smallest input that was found for it.
    """

    inputs: int = 0
    accepted: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    slowest: float = 0.0
    grown: int = 0
    faults: list[str] = field(default_factory=list)

    def row(self, name: str) -> list[str]:
        """For the table."""
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in Counter(self.refused).most_common(4))
        return [name, f"{self.inputs:,}", f"{self.accepted:,}", kinds or "–", f"{self.slowest * 1000:.0f}",
                f"{self.grown >> 20}", str(len(self.faults))]  # fmt: skip


HEAD = ["what", "inputs", "read", "refused with", "slowest, ms", "memory, MiB more", "faults"]


def hammer(target: Target, inputs: int, seed: int) -> Read:
    """Let a target read so many inputs, in this process.

    Args:
        target: what reads.
        inputs: how many; more where one fails, which is shrunk.
        seed: of what is drawn.
    """
    read, refused = Read(), Counter[str]()
    last = mmap.mmap(-1, LONGEST)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @seeded(seed)
    @settings(
        max_examples=inputs, deadline=None, database=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink], print_blob=False, report_multiple_bugs=True,
    )  # fmt: skip
    @given(target.inputs)
    def reads(data: Any) -> None:
        kept = repr(data).encode()[:LONGEST]
        last[: len(kept)] = kept
        started = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
        try:
            target.read(data)
            read.accepted += 1
        except target.refusals as error:
            refused[type(error).__name__] += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            read.inputs += 1
            read.slowest = max(read.slowest, time.perf_counter() - started)

    def hang(*_: object) -> None:
        raise Hung(f"one input took more than {MOST_SECONDS} s")

    signal.signal(signal.SIGALRM, hang)
    try:
        reads()
    except BaseException as error:
        read.faults = [_told(each) for each in getattr(error, "exceptions", [error])]
    read.refused = dict(refused)
    read.grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    return read


def _told(error: BaseException) -> str:
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    place = "" if where is None else f" at {Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}"
    example = " ".join(getattr(error, "__notes__", []))
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{place}; {example[:600]}"


def in_own_process(target: Target, inputs: int, seed: int, scratch: Path) -> Read:
    """As :func:`hammer`, in a process of its own with a limit on its memory."""
    told = scratch / "read.json"
    told.unlink(missing_ok=True)

    def work() -> None:
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MOST_MEMORY,) * 2)
        logging.disable()
        warnings.simplefilter("ignore")
        told.write_text(json.dumps(vars(hammer(target, inputs, seed))))

    ended = Running.start(work).wait(24 * 3600)
    if ended.status != 0 or not told.exists():
        return Read(faults=[f"the process ended with {ended.status}: {ended.stderr[-500:]}"])
    return Read(**json.loads(told.read_text()))


def measure(names: Sequence[str] | None, inputs: int, seed: int = SEED) -> dict[str, Read]:
    """Fuzz.

    Args:
        names: of what; None for all.
        inputs: of each kind of picture; of what is slower, fewer.
        seed: of what is drawn.
    """
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        (scratch / "broken").mkdir()
        targets = make_targets(Given.make(scratch), scratch / "broken")
        if unknown := set(names or ()) - targets.keys():
            raise ValueError(f"nothing is called {sorted(unknown)}; there are {sorted(targets)}")
        found = {}
        for name in names or targets:
            found[name] = in_own_process(targets[name], max(1, inputs // SLOWER.get(name, 1)), seed, scratch)
            print(*found[name].row(name), *found[name].faults, sep="; ", file=sys.stderr, flush=True)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000, help="of each kind of picture")
    parser.add_argument("--what", nargs="+")
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    found = measure(arguments.what, arguments.inputs, arguments.seed)
    print(table(HEAD, [read.row(name) for name, read in found.items()]))
    print(f"{sum(read.inputs for read in found.values()):,} inputs")
    for name, read in found.items():
        for fault in read.faults:
            print(f"{name}: {fault}")
    raise SystemExit(any(read.faults for read in found.values()))


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()

"""Disturb the disk under the package's jobs, let them go on when it is mended, and compare with an undisturbed run.

    python -m tests.reliability.disk
    python -m tests.reliability.disk --what protect --faults full read-only

``full``: a disk (a tmpfs where one can be mounted, else the limit on a file's size) with room for k pages, for every k
(of large jobs for some) until the job fits. ``read-only``: folders that may not be written. ``deleted``: all folders,
the one that a job fills, or a folder in it, removed at a random point. ``four at once``, and ``four, no locks``: on a
disk that has none. ``clock``: killed, and all files get a time long ago or in the future. Linux only.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import errno
import fcntl
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from .jobs import JOBS, SEED, Ended, Given, Job, Running, half_written
from .kills import Place

from examples.reproduce.markdown import table  # behind .jobs, which says where it lies  # isort: skip

PAGE = 4096  # bytes that a file of a tmpfs takes at least
MOST_PAGES = 2000
AMPLE = 64 << 20  # bytes


@dataclass
class Tried:
    """What came of one fault.

    Args:
        times: how often it was tried.
        refused: ended in one line that says why.
        right: ended with the right result.
        wrong: neither, or what came afterwards was not right; a line each.
    """

    times: int = 0
    refused: int = 0
    right: int = 0
    wrong: list[str] = field(default_factory=list)

    def count(self, ended: Ended, when: str) -> None:
        """One more end; whether its result is right is seen when all is compared."""
        self.times += 1
        self.refused += ended.is_refusal
        self.right += ended.status == 0
        if ended.status != 0 and not ended.is_refusal:
            self.wrong.append(f"{when}: exit code {ended.status}, {ended.errors[-3:]}")

    def row(self, fault: str, job: str) -> list[str]:
        """For the table."""
        return [fault, job, *map(str, (self.times, self.refused, self.right, len(self.wrong)))]


HEAD = ["fault", "job", "times", "one line, exit code 2", "went through", "faults"]


class Bench:
    """A job that is disturbed, and what it gives undisturbed."""

    def __init__(self, job: Job, given: Given, scratch: Path) -> None:
        self.job, self.given, self.scratch = job, given, scratch
        self.place = Place(job, given, scratch, None)
        self.options: tuple[object, ...] = () if job.seeds is None else ("--seed", SEED)
        undisturbed = scratch / "undisturbed"
        lengths = []
        for _ in range(2):  # the first may be the one that reads the files of the package
            self.place.clear(undisturbed)
            ended = self.start(undisturbed).wait()
            assert ended.status == 0, ended
            lengths.append(ended.seconds)
        self.seconds, self.wanted = min(lengths), self.place.result(undisturbed)

    def pages(self) -> int:
        """So many an undisturbed run leaves behind."""
        files = [path for path in (self.scratch / "undisturbed").rglob("*") if path.is_file()]
        return sum(-(-path.stat().st_size // PAGE) for path in files)

    def start(self, where: Path, disturb: Callable[[], None] = lambda: None) -> Running:
        def work() -> None:
            disturb()
            self.job.run(self.given, where, *self.options)

        return Running.start(work)

    def is_whole(self, where: Path) -> bool:
        """Whether all of the result is there already."""
        with suppress(OSError, ValueError):  # while files come and go
            return self.place.result(where) == self.wanted
        return False

    def compare(self, where: Path, tried: Tried, when: str) -> None:
        """The result must be that of an undisturbed run."""
        fresh = self.job.seeds is not None and not self.options
        wanted = self.place.again(where) if fresh else self.wanted
        if (found := self.place.result(where)) != wanted:
            names = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
            tried.wrong.append(f"{when}: another result ({', '.join(names[:4])})")
        tried.wrong += [f"{when}: half-written {each}" for each in half_written(where)]

    def go_on(self, where: Path, tried: Tried, when: str) -> None:
        """Give the command again, undisturbed: it must end, and its result be right."""
        ended = self.start(where).wait()
        whole = ended.is_refusal and re.search("exists|is a file", ended.errors[0])  # finished before
        if ended.status != 0 and not whole:
            tried.wrong.append(f"gone on after {when}: exit code {ended.status}, {ended.errors[-3:]}")
            return
        self.compare(where, tried, when)


def fill(bench: Bench, every: int) -> Tried:
    """A disk with room for k pages, for every k (or every n-th one)."""
    tried, where = Tried(), bench.scratch / "full"
    where.mkdir()
    for pages in range(1, MOST_PAGES, every):
        with small_disk(where) as disk:
            disk.limit(pages)
            ended = bench.start(where, lambda pages=pages, disk=disk: disk.limit_process(pages)).wait()
            tried.count(ended, f"{pages} pages")
            tried.wrong += [f"{pages} pages: half-written {each}" for each in half_written(where)]
            disk.lift()
            bench.go_on(where, tried, f"a disk of {pages} pages")
        if ended.status == 0:
            return tried
    tried.wrong.append(f"a disk of {MOST_PAGES} pages did not do")
    return tried


@dataclass(frozen=True)
class SmallDisk:
    """A folder with room for so much and no more.

    Args:
        where: the folder.
        mounted: whether it is a disk of its own; else only the size of each file is limited.
    """

    where: Path
    mounted: bool

    def limit(self, pages: int) -> None:
        """From now on so many pages."""
        if self.mounted:
            _mount(self.where, f"remount,size={pages * PAGE}")

    def lift(self) -> None:
        """No limit worth the name any more."""
        if self.mounted:
            _mount(self.where, f"remount,size={AMPLE}")

    def limit_process(self, pages: int) -> None:
        """What only a process can do to itself: its disk was full only after it was asked how full it is."""
        usage = type("Usage", (), {"free": 1 << 40})
        shutil.disk_usage = lambda path: usage  # type: ignore[assignment]
        if not self.mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (pages * PAGE // 8,) * 2)


@contextmanager
def small_disk(where: Path) -> Iterator[SmallDisk]:
    """Put a small disk at a folder, which is empty again behind the block."""
    mounted = _mount(where, f"size={AMPLE}")
    try:
        yield SmallDisk(where, mounted)
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", where], check=True)
        else:
            shutil.rmtree(where)
            where.mkdir()


def _mount(where: Path, options: str) -> bool:
    call = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", where]
    return shutil.which("mount") is not None and subprocess.run(call, capture_output=True).returncode == 0


def forbid(bench: Bench) -> Tried:
    """Folders that may not be written: all of them, then the one that the job fills."""
    tried = Tried()
    for name in (".", bench.job.folder):
        where = bench.scratch / "read-only"
        bench.place.clear(where)
        folder = where / name
        folder.mkdir(exist_ok=True)
        folder.chmod(0o555)
        tried.count(bench.start(where, obey_permissions).wait(), f"{name} read-only")
        folder.chmod(0o755)
        bench.go_on(where, tried, f"{name} was read-only")
    return tried


def obey_permissions() -> None:
    """Let the permissions of files count for root, too, as for everybody else; in a process of its own."""
    if os.geteuid():
        return
    override, read_search, version = 1, 2, 0x20080522
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = (ctypes.c_uint32 * 2)(version, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, data)
    for word in range(2):  # effective and permitted
        data[word] &= ~(1 << override | 1 << read_search)
    if libc.capset(header, data):
        raise OSError(ctypes.get_errno(), "capset")


def delete(bench: Bench, times: int) -> Tried:
    """Folders removed while the job runs, at points spread over its length; runs that were over before do not count."""
    tried, rng = Tried(), random.Random(SEED)
    for number in range(3 * times):
        if tried.times == times:
            break
        where = bench.scratch / "deleted"
        bench.place.clear(where)
        running = bench.start(where)
        share = (number % times + rng.random()) / times
        hit = running.goes_on_after(share * bench.seconds)
        folder = where / str(bench.job.folder)
        inside = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
        what, gone = [("everything", list(where.iterdir())), (folder.name, [folder]), ("a part", inside[:1])][
            number % 3
        ]
        hit = hit and not bench.is_whole(where)  # what is removed behind its last look nobody can notice
        if hit:
            for each in gone:
                shutil.rmtree(each, ignore_errors=True)
        ended = running.wait()
        if not hit:
            continue
        when = f"{what} deleted at {share:.0%}"
        tried.count(ended, when)
        if ended.status == 0 and not bench.job.in_memory:
            bench.compare(where, tried, when)
        for each in where.iterdir():  # half a folder without its private memory: the user clears it
            shutil.rmtree(each, ignore_errors=True)
        bench.go_on(where, tried, when)
    return tried


def together(bench: Bench, times: int, *, locks: bool) -> Tried:
    """Four processes with one and the same place, each of which would draw a seed of its own."""
    tried = Tried()
    bench = copy.copy(bench)
    bench.options = ()
    for _ in range(times):
        where = bench.scratch / "together"
        bench.place.clear(where)
        ends = [each.wait() for each in [bench.start(where, without_locks if not locks else int) for _ in range(4)]]
        for ended in ends:
            tried.count(ended, "four at once")
        if not any(ended.status == 0 for ended in ends):
            tried.wrong.append(f"none of four went through: {[ended.errors[-1:] for ended in ends]}")
        bench.go_on(where, tried, "four at once")
    return tried


def without_locks() -> None:
    """A network disk that has none; in a process of its own."""

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    fcntl.flock = fcntl.lockf = refuse  # type: ignore[assignment]


def turn_clock(bench: Bench, times: int) -> Tried:
    """Killed half-way; every file is then from another time, and so is the clock."""
    tried, rng = Tried(), random.Random(SEED)
    for number in range(times):
        where = bench.scratch / "clock"
        bench.place.clear(where)
        bench.start(where).kill_after((number + rng.random()) / times * bench.seconds)
        for path in [where, *where.rglob("*")]:
            with suppress(FileNotFoundError):
                os.utime(path, (rng.choice((0, 4_000_000_000)),) * 2)
        tried.times += 1
        tried.right += 1
        bench.go_on(where, tried, "other times of files")
    return tried


FAULTS: dict[str, Callable[[Bench, int], Tried]] = {
    "full": lambda bench, times: fill(bench, max(1, round(bench.pages() / (6 * times)))),
    "read-only": lambda bench, times: forbid(bench),
    "deleted": delete,
    "four at once": lambda bench, times: together(bench, max(1, times // 4), locks=True),
    "four, no locks": lambda bench, times: together(bench, max(1, times // 4), locks=False),
    "clock": turn_clock,
}


def measure(jobs: Sequence[str], faults: Sequence[str], times: int) -> dict[tuple[str, str], Tried]:
    """Disturb jobs.

    Args:
        jobs: of ``JOBS``, those that write into a folder.
        faults: of ``FAULTS``.
        times: how often, where that is a matter of choice.
    """
    with tempfile.TemporaryDirectory() as folder:
        scratch, found = Path(folder), {}
        given = Given.make(scratch)
        for name in jobs:
            place = scratch / f"{name} runs"
            place.mkdir()
            bench = Bench(JOBS[name], given, place)
            for fault in faults:
                found[fault, name] = tried = FAULTS[fault](bench, times)
                print(*tried.row(fault, name), *tried.wrong, sep="; ", file=sys.stderr, flush=True)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [name for name, job in JOBS.items() if job.folder is not None]
    parser.add_argument("--what", nargs="+", choices=names, default=names)
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--times", type=int, default=12, help="of what is tried at random points")
    arguments = parser.parse_args()
    found = measure(arguments.what, arguments.faults, arguments.times)
    print(table(HEAD, [tried.row(*key) for key, tried in sorted(found.items())]))
    for (fault, job), tried in found.items():
        for line in tried.wrong:
            print(f"{fault}, {job}: {line}")
    raise SystemExit(any(tried.wrong for tried in found.values()))


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()

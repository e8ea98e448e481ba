"""Work that is done in this process, or spread over several: a device each where there are several."""

from __future__ import annotations

import copyreg
import multiprocessing
import signal
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from semtransforms.core.hardware import pick_device
from semtransforms.core.processes import end_with_parent

Job = Callable[..., Any]
"""Takes ``device`` and ``progress``; it must be picklable where several processes work."""

TRIES = 3  # processes that a job may lose: what ends three of them will end the fourth
TOLD_AS = (ValueError, TypeError, OSError, FloatingPointError, ModuleNotFoundError)  # else as RuntimeError


def spread(
    jobs: Mapping[str, Job], names: Iterable[str], workers: int, device: str | torch.device | None, progress: bool
) -> Generator[tuple[str, Any], None, None]:
    """Do jobs, and give what came of each as it ends.

    A process that is ended from outside is replaced, and its job done again.

    Args:
        jobs: name -> what is to be done.
        names: of the jobs to do; asked for as the work goes on, one for each process that is free.
        workers: so many processes, started anew and not forked, which share this one's threads; 0 works in this one.
        device: as for :func:`semtransforms.core.hardware.pick_device`. Without a number the processes take turns at
            the CUDA devices.
        progress: show bars, in this process.

    Yields:
        The name of a job, and what it gave.

    Raises:
        ValueError: a job cannot be sent to another process.
        OSError: three processes at the same job were ended from outside.
        Exception: what a job failed with, under its name; the others are ended.
    """
    if not workers:
        yield from ((name, jobs[name](device=device, progress=progress)) for name in names)
        return
    lost: Counter[str] = Counter()
    again: deque[str] = deque()
    following = iter(names)
    crew = _Crew(jobs, device, max(1, torch.get_num_threads() // workers))
    try:
        crew.hire(range(workers))
        crew.idle += range(workers)
        while True:
            while crew.idle and (name := again.popleft() if again else next(following, None)):
                crew.give(name)
            if not crew.busy:
                return
            for name, outcome in crew.wait():
                if isinstance(outcome, _Failed):
                    error = outcome.kind(f"{name}: {outcome.words}")
                    error.add_note(outcome.where)
                    raise error
                if outcome is not None:
                    yield name, outcome.result
                    continue
                lost[name] += 1
                if lost[name] == TRIES:
                    raise OSError(
                        f"workers={workers}: {name}: {TRIES} processes were ended from outside, as a rule for want of "
                        "memory. What is finished is kept where there is an out: the same call with fewer workers "
                        "goes on from there. A script must begin its work behind if __name__ == '__main__'."
                    )
                again.append(name)
    finally:
        crew.end()


class _Done(NamedTuple):
    """What a job gave."""

    result: Any


class _Failed(NamedTuple):
    """What a job failed with: as which error it is told, its words, and where it was."""

    kind: type[Exception]
    words: str
    where: str


class _Crew:
    """Processes with one job each, or none.

    Args:
        jobs: name -> job; every process has them all.
        device: for their work.
        threads: of each.
    """

    def __init__(self, jobs: Mapping[str, Job], device: str | torch.device | None, threads: int) -> None:
        self.jobs, self.device, self.threads = jobs, device, threads
        self._processes: dict[int, tuple[BaseProcess, Connection]] = {}
        self.idle: list[int] = []  # their numbers
        self.busy: dict[int, str] = {}

    def hire(self, numbers: Iterable[int]) -> None:
        """Start the processes of these numbers, all before the first is waited for: each imports for seconds."""
        numbers, jobs = list(numbers), _packed(self.jobs)
        context = multiprocessing.get_context("spawn")
        for number in numbers:
            here, there = context.Pipe()
            arguments = (there, _device_of(number, self.device), self.threads)
            process = context.Process(target=_work, args=arguments, daemon=True)
            with _deaf_to_interrupts():
                process.start()
                self._processes[number] = process, here
            there.close()  # else nobody would notice that the process is gone
        for number in numbers:
            with suppress(OSError):  # it is gone already: found out when a job's result is waited for
                self._processes[number][1].send_bytes(jobs)

    def give(self, name: str) -> None:
        """Let an idle process begin a job."""
        number = self.idle.pop(0)
        self.busy[number] = name
        if number not in self._processes:
            self.hire([number])
        with suppress(OSError):
            self._processes[number][1].send(name)

    def wait(self) -> Iterator[tuple[str, _Done | _Failed | None]]:
        """The jobs that have ended, at least one, and their outcomes; ``None`` for that of a process that is gone."""
        at_work = {self._processes[number][1]: number for number in self.busy}
        for connection in wait(list(at_work)):
            assert isinstance(connection, Connection)
            number = at_work[connection]
            try:
                outcome = connection.recv()
            except (EOFError, OSError):
                outcome = None
                self._end(number)
            self.idle.append(number)
            yield self.busy.pop(number), outcome

    def end(self) -> None:
        """End all processes at once."""
        for process, _ in self._processes.values():
            process.kill()
        for number in list(self._processes):
            self._end(number)

    def _end(self, number: int) -> None:
        process, connection = self._processes.pop(number)
        connection.close()
        process.kill()
        process.join()


def _work(connection: Connection, device: str | torch.device | None, threads: int) -> None:
    """A process of the crew: take names of jobs, give back what came of them."""
    end_with_parent()
    torch.set_num_threads(threads)
    tqdm.set_lock(threading.RLock())  # no bars here: its own is a semaphore that outlives a process that is killed
    jobs: Mapping[str, Job] | None = None
    while True:
        outcome: _Done | _Failed
        try:
            jobs = jobs or connection.recv()
            outcome = _Done(jobs[connection.recv()](device=device, progress=False))
        except Exception as error:
            kind = next((kind for kind in TOLD_AS if isinstance(error, kind)), RuntimeError)
            outcome = _Failed(kind, str(error), traceback.format_exc())
        connection.send(outcome)


class _AsBytes(ForkingPickler):
    """Sends tensors as they are: torch would send an open file for each, and a process may have a thousand of them."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.dispatch_table = copyreg.dispatch_table


def _packed(jobs: Mapping[str, Job]) -> memoryview:
    try:
        return _AsBytes.dumps(dict(jobs))
    except Exception as error:  # whatever a user's own network or countermeasure says when it is to be pickled
        raise ValueError(
            f"workers: a run cannot be sent to another process ({error}). Define its functions and networks in a "
            "module and not inside a function, or leave workers out."
        ) from error


def _device_of(number: int, device: str | torch.device | None) -> str:
    """The device of a process of the crew."""
    chosen = pick_device(device)
    if chosen.type == "cuda" and chosen.index is None:
        return f"cuda:{number % torch.cuda.device_count()}"
    return str(chosen)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes that are started meanwhile do not hear Ctrl-C: the one that started them ends them, once, in silence.

    It hears of one itself when the block ends.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # multiprocessing's own; where it starts it lets Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

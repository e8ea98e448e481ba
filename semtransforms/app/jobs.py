"""A protection that runs in a process of its own, so that it can be stopped and the page stays awake."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from semtransforms.app import texts


@dataclass
class Bar:
    """How far a step is.

    Args:
        title: of the step, as the package calls it.
        done: how much of it.
        total: how much there is.
        rate: a second; ``None`` before it is known.
    """

    title: str
    done: int
    total: int
    rate: float | None

    @property
    def seconds_left(self) -> float | None:
        """As it went so far."""
        return (self.total - self.done) / self.rate if self.rate else None


@dataclass
class Job:
    """One protection: what the process that does it has told so far.

    Args:
        order: what the worker is to do.
    """

    order: Mapping[str, Any]
    lines: list[str] = field(default_factory=list)
    bar: Bar | None = None
    result: dict[str, Any] | None = None
    error: str | None = None
    is_running: bool = True
    is_stopped: bool = False
    waits: bool = False
    _process: subprocess.Popen[str] | None = None

    def start(self, worker: Sequence[str], turn: threading.Lock) -> None:
        """Begin, once it is this job's turn.

        Args:
            worker: the command.
            turn: held while it works.
        """
        threading.Thread(target=self._run, args=(worker, turn), daemon=True).start()

    def stop(self, why: str | None = None) -> None:
        """End it as a power failure would; what is finished stays, and the same order goes on.

        Args:
            why: what to tell who did not ask for it.
        """
        self.error, self.is_stopped = self.error or why, True
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _run(self, worker: Sequence[str], turn: threading.Lock) -> None:
        try:
            while not turn.acquire(timeout=0.2):
                self.waits = True
                if self.is_stopped:
                    return
            self.waits = False
            try:
                self._work(worker)
            finally:
                turn.release()
        except OSError as error:
            self.error = str(error)
        finally:
            self.is_running = False

    def _work(self, worker: Sequence[str]) -> None:
        if self.is_stopped:
            return
        env = os.environ | {"PYTHONIOENCODING": "utf-8"}
        with subprocess.Popen(
            worker, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=env
        ) as process:
            self._process = process
            if self.is_stopped:
                process.kill()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(json.dumps(self.order) + "\n")
                process.stdin.flush()  # and open: the worker ends when it is closed
            except BrokenPipeError:
                pass
            for line in process.stdout:
                with suppress(ValueError):  # cut off by the end of the worker, which is told below
                    self._hear(json.loads(line))
        if self.result is None and self.error is None and not self.is_stopped:
            self.error = texts.DIED.format(code=process.returncode)

    def _hear(self, told: Mapping[str, Any]) -> None:
        hear: Mapping[str, Callable[[Any], None]] = {
            "say": self.lines.append,
            "bar": lambda values: setattr(self, "bar", Bar(**values)),
            "done": lambda values: setattr(self, "result", values),
            "error": lambda text: setattr(self, "error", text),
        }
        for name, value in told.items():
            hear[name](value)

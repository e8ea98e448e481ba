"""The process behind a job: reads an order on standard input, protects, and tells of it in lines of JSON.

``python -m semtransforms.app.worker``. It is ``semtransforms protect`` with other eyes and ears. It ends when its
standard input is closed, as it is when the page ends.
"""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import tqdm.std

from semtransforms.app import texts
from semtransforms.photographs.journey import protect_photographs
from semtransforms.protect.telling import describe_outcome

TOLD_SECONDS = 0.3  # between two words about a bar

Tell = Callable[..., None]


def main() -> None:
    """Do what standard input asks for."""
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_page, daemon=True).start()
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as channel:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not look like a word of ours

        def tell(**event: Any) -> None:
            channel.write(json.dumps(event) + "\n")
            channel.flush()

        with _heard(tell):
            try:
                tell(done=_protect(order))
            except (ValueError, TypeError, OSError, FloatingPointError, MemoryError) as error:
                tell(error=" ".join(str(error).split()) or type(error).__name__)


def _protect(order: dict[str, Any]) -> dict[str, Any]:
    done = protect_photographs(**order)
    report = done.checked.report
    return {
        "lines": describe_outcome(done.outcome, Path(order["out"]), order["format"], done.found.source),
        "failed": done.outcome.failed,
        "verdict": list(done.checked.verdict),
        "learned": done.checked.learned,
        "report": None if report is None else str(report.parent),
        "generator": str(done.generator),
    }


def _end_with_the_page() -> None:
    sys.stdin.read()
    os._exit(1)


@contextmanager
def _heard(tell: Tell) -> Iterator[None]:
    """Hand on what is said, warned of and drawn as a bar."""
    last: dict[str, float] = {}

    def draw(bar: Any, *_: Any, **__: Any) -> bool:
        values, now = bar.format_dict, time.monotonic()
        title = (values["prefix"] or "").strip(" :")
        if values["total"] and (now - last.get(title, 0) >= TOLD_SECONDS or values["n"] >= values["total"]):
            last[title] = now
            done = values["n"] - values["initial"]
            rate = values["rate"] or (done / values["elapsed"] if done and values["elapsed"] else None)
            tell(bar={"title": title, "done": values["n"], "total": values["total"], "rate": rate})
        return True

    before, tqdm.std.tqdm.display = tqdm.std.tqdm.display, draw
    try:
        with redirect_stdout(_Lines(tell)), redirect_stderr(_Terminal()), warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: tell(say=texts.WARNED.format(text=message))
            yield
    finally:
        tqdm.std.tqdm.display = before


class _Lines(io.TextIOBase):
    """Standard output, line by line."""

    def __init__(self, tell: Tell) -> None:
        self.heard, self.left = tell, ""

    def write(self, text: str) -> int:
        *lines, self.left = (self.left + text).split("\n")
        for line in filter(None, lines):
            self.heard(say=line)
        return len(text)


class _Terminal(io.TextIOBase):
    """Where bars believe that they are drawn: some are drawn for a terminal only."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)


if __name__ == "__main__":
    main()

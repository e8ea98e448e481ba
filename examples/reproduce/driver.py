"""Take the next missing rows until they are done or the time is over."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from examples.reproduce.render import render
from examples.reproduce.rows import Row
from examples.reproduce.scales import Scale
from examples.reproduce.work import BUSY, lock, measure_row, missing_seeds
from semtransforms.core.files import write_atomically

MARGIN = 10.0  # seconds before the deadline at which a row is stopped
GRACE = 5.0  # of them for an interrupted row to end by itself
RETRY = 20.0  # seconds after which a row is tried again that another process was at


def drive(rows: Sequence[Row], scale: Scale, out: Path, results: Path, deadline: float) -> int:
    """Measure rows in their order, each in a process of its own.

    Args:
        rows: to measure; those that are done or do not exist at the scale are passed over.
        scale: at which.
        out: work folder; processes that share it share the rows too.
        results: folder of ``ROW.json``; ``SCALE.md`` is written beside it.
        deadline: of ``time.monotonic``, when to be done at the latest.

    Returns:
        Exit status: 0 when all is done or the time is over, 1 when a row failed.

    Raises:
        ValueError, FileNotFoundError: a dataset is missing, or a row was measured with other settings; found before
            anything is run.
    """
    for dataset in dict.fromkeys(scale.dataset(row) for row in rows if missing_seeds(row, scale, results)):
        scale.find(dataset)
    failed: list[str] = []
    not_before: dict[str, float] = {}
    while waiting := [row for row in rows if row.name not in failed and missing_seeds(row, scale, results)]:
        now = time.monotonic()
        if now >= deadline - MARGIN:
            print(f"the time is over, rows left: {len(waiting)}; the same command goes on with {waiting[0].name}")
            break
        free = (row for row in waiting if not_before.get(row.name, now) <= now and _is_free(row, scale, out))
        if (row := next(free, None)) is None:
            time.sleep(min(1.0, deadline - MARGIN - now))
            continue
        try:
            scale.plan(row)
            print(f"{row.name}: seeds {missing_seeds(row, scale, results)}", flush=True)
            status = run_row(row, scale, out, results, deadline - MARGIN - now)
        except ValueError as error:  # of the plan, such as a method that is not known
            print(f"{row.name}: {error}", file=sys.stderr)
            status = 1
        if status == BUSY:
            not_before[row.name] = time.monotonic() + RETRY
        elif status:
            failed.append(row.name)
        write_markdown(scale, results)
    if failed:
        print(f"failed, and not recorded: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def run_row(row: Row, scale: Scale, out: Path, results: Path, seconds: float) -> int:
    """Measure a row in a process of its own, and stop that when its time is over.

    Returns:
        Its exit status; 0 where it was stopped.
    """
    process = multiprocessing.get_context("spawn").Process(target=measure_row, args=(row, scale, out, results))
    process.start()
    try:
        process.join(None if seconds == float("inf") else seconds)
        if process.exitcode is not None:
            return process.exitcode
    finally:
        _stop(process)
    return 0


def write_markdown(scale: Scale, results: Path) -> None:
    """Write ``SCALE.md`` beside the folder of results, whole or not at all."""
    results.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(results.with_name(f"{scale.name}.md"), render(scale, results).encode())


def _is_free(row: Row, scale: Scale, out: Path) -> bool:
    try:
        with lock(out, f"row-{scale.name}-{row.name}"):
            return True
    except BlockingIOError:
        return False


def _stop(process: multiprocessing.process.BaseProcess) -> None:
    if process.pid is not None and process.is_alive():
        os.kill(process.pid, signal.SIGINT)
        process.join(GRACE)
        process.kill()  # a kernel that does not come back; what it was at goes on from its checkpoint
    process.join()

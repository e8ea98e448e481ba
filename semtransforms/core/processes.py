"""Processes that are started anew, and that leave nobody behind."""

from __future__ import annotations

import multiprocessing
import os
import threading


def end_with_parent(number: int = 0) -> None:
    """Let a worker end at once when its parent is killed: one that waits to read or write would stay forever.

    Args:
        number: of the worker, as a ``DataLoader`` gives it; not used.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None  # it is a worker

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()

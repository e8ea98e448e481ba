"""A job for the processes of ``test_spreading``, in a module that imports nothing heavy: each of them imports it."""

import os
import signal
import time
from pathlib import Path


def work(folder: Path, name: str, *, device: str, progress: bool) -> str:
    """Notes that it began; ``bad`` fails, ``fatal`` ends its process each time, ``slow`` waits to be ended."""
    with (folder / name).open("a") as notes:
        notes.write(f"{os.getpid()}\n")
    if name == "bad":
        raise ValueError("nothing to learn")
    if name == "fatal":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "slow":
        time.sleep(600)
    return name

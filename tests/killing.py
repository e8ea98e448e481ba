"""Processes that kill themselves (kill -9) at a chosen write: the same place on an idle machine and on a loaded one."""

import os
import signal
import subprocess
import sys
from pathlib import Path


def kill_at_rename(number: int, pattern: str = "*", *, done: bool = False) -> None:
    """Let this process kill itself where a file gets its name, the end of every atomic write.

    Args:
        number: which one, from 1.
        pattern: of the names that count, as ``Path.match`` reads it.
        done: behind that; else before it, when the bytes are there and the name is not.
    """
    left = [number]

    def killing(give_name):
        def give(source, target, **options):
            left[0] -= Path(target).match(pattern)
            if left[0] == 0 and not done:
                os.kill(os.getpid(), signal.SIGKILL)
            give_name(source, target, **options)
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        return give

    os.replace, os.link = killing(os.replace), killing(os.link)


def run_killed(code: str, beside: str) -> None:
    """Run code in a process of its own, which has to end by kill -9.

    Args:
        code: of the process; it can import from ``tests/`` and from the folder of ``beside``.
        beside: the file of the test.
    """
    tests = Path(__file__).parent
    places = [str(Path(beside).parent), str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}
    status = subprocess.run([sys.executable, "-c", code], env=environment).returncode
    assert status == -signal.SIGKILL, "it ended before it could be killed"

"""Folders that their owner alone may read: they hold seeds, noise, generators, and reports that show originals."""

from __future__ import annotations

import os
import stat
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from semtransforms.core.files import CHOOSE_ANOTHER, explained, making_folder

OTHERS = 0o077  # what a mode gives to group and world
PRIVATE_FILE = 0o600  # the mode of a file for its owner alone


@contextmanager
def making_private(folder: Path, argument: str) -> Iterator[None]:
    """As :func:`~semtransforms.core.files.making_folder`, for a folder that its owner alone may read.

    What is missing above it is made so too. One that is there is closed: nobody else then reaches what is in it, which
    stays as it is, since not all of it need be ours.

    Raises:
        OSError: it cannot be made or written, or is somebody else's.
    """
    with making_folder(folder, argument, mode=0o700):
        _refuse_foreign(folder, argument)
        _close(folder, argument)
        yield


def make_private(folder: Path, argument: str, advice: str = CHOOSE_ANOTHER) -> None:
    """Make a folder that its owner alone may read; as :func:`making_private`, but it stays whatever comes.

    Args:
        folder: one that this package names.
        argument: its name in messages.
        advice: what to do where it cannot be written, a sentence.

    Raises:
        ValueError: it is a link.
        OSError: as there.
    """
    refuse_link(folder, argument)
    with explained(argument, folder, advice):
        for place in reversed((folder, *folder.parents)):
            place.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    tighten(folder, argument)


def keep_private(folder: Path, argument: str) -> None:
    """Look again at a private folder that is read: others may read it by now. Of one that is not ours, warn."""
    try:
        tighten(folder, argument)
    except PermissionError as error:
        warnings.warn(f"{error} Whoever has the noise subtracts it.", stacklevel=4)


def tighten(folder: Path, argument: str) -> None:
    """Take a folder, and all that is in it, from everybody but its owner; links in it are not followed.

    Args:
        folder: one of ours.
        argument: its name in messages.

    Raises:
        PermissionError: it is, or is a link that is, somebody else's: who owns a folder reads all that is put there.
    """
    _refuse_foreign(folder, argument)
    _close(folder, argument)
    for place, folders, files in os.walk(folder):
        for path in (Path(place, name) for name in (*folders, *files)):
            if not path.is_symlink():
                _close(path, argument)


def _refuse_foreign(folder: Path, argument: str) -> None:
    if os.name != "posix":
        return
    for status in (folder.lstat(), folder.stat()):
        if os.geteuid() not in (0, status.st_uid):
            raise PermissionError(
                f"{argument} {str(folder)!r} belongs to another user (number {status.st_uid}), who could read what is "
                "private there. Choose a folder of your own."
            )


def _close(path: Path, argument: str) -> None:
    if os.name != "posix":
        return
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if not mode & OTHERS:
            return
        path.chmod(mode & ~OTHERS)
    except FileNotFoundError:  # unfinished, and by now under its own name
        return
    except OSError as error:
        raise PermissionError(
            f"{argument} {str(path)!r} can be read by others, and that cannot be changed ({error.strerror}). Choose a "
            "folder of your own, on a disk that keeps permissions."
        ) from error
    if path.stat().st_mode & OTHERS:  # a disk of Windows, say, under Linux
        warnings.warn(f"{argument} {str(path)!r} can be read by others: its disk keeps no permissions.", stacklevel=2)


def warn_if_open(file: Path, argument: str) -> None:
    """Tell of a secret file of the user's that others may read; it is not ours to change.

    Args:
        file: what was read.
        argument: its name in messages.
    """
    if os.name == "posix" and file.is_file() and file.stat().st_mode & OTHERS:
        warnings.warn(f"{argument} {str(file)!r} can be read by others: chmod 600 {file}", stacklevel=3)


def refuse_link(path: Path, argument: str) -> None:
    """See that a place which this package names is no link: somebody else may have put it there.

    Args:
        path: what is to be written, there or not.
        argument: its name in messages.

    Raises:
        ValueError: it is one.
    """
    if path.is_symlink():
        raise ValueError(f"{argument}: {str(path)!r} is a link, and what it leads to would be written. Remove it.")

"""Files that are there whole or not at all, folders that one process writes at a time, errors that say which."""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

if sys.platform != "win32":
    import fcntl

UNFINISHED = ".unfinished-"  # begins the name of a file that is being written; what a kill leaves is found by it
_OURS = re.compile(r"\d+(-\d+)+")  # what follows: process, thread, number
_NUMBERS = itertools.count()
CHOOSE_ANOTHER = "Choose a place you may write to, on a disk with free space."


@contextmanager
def writing(path: Path, *, mode: int = 0o666, first: bool = False, flush: bool = True) -> Iterator[Path]:
    """A temporary file that takes its name when the block ends and its bytes are on the disk.

    Args:
        path: the name it takes, in a folder that is there; a file of that name is replaced.
        mode: its permissions, before the umask.
        first: a file of that name stays instead: of several processes that write it, the first one's.
        flush: wait for the disk. Without it a kill still finds a file whole or not at all, and a power failure may
            not, until :func:`flush_all`.

    Yields:
        The temporary file, empty, in the same folder. If the block fails it is removed, and ``path`` is as it was.
    """
    # not named after the file, whose name may be as long as the disk allows; numbered, since a thread may write
    # several that belong together
    temporary = path.with_name(unfinished_name())
    temporary.unlink(missing_ok=True)  # the mode counts only for a new file
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        yield temporary
        if flush:
            flush_file(temporary)
        if not (first and _link(temporary, path)):
            os.replace(temporary, path)
        if flush and os.name == "posix":  # the new name lies in the folder's own bytes
            flush_file(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _link(temporary: Path, path: Path) -> bool:
    """Give a file a second name, unless there is one of that name; whether that name is taken now."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return True
    except OSError:  # a disk without second names
        return path.exists()
    return True


def sweep(folder: Path) -> None:
    """Remove what a kill has left of unfinished files.

    Args:
        folder: one of ours, in which nobody else writes now: its lock is held.
    """
    for left in filter(is_unfinished, folder.glob(f"{UNFINISHED}*")):
        left.unlink(missing_ok=True)


def is_unfinished(path: Path) -> bool:
    """Whether it is what a kill has left of a file that :func:`writing` wrote; a folder of such a name is another's."""
    return is_unfinished_name(path.name) and (path.is_symlink() or not path.is_dir())


def is_unfinished_name(name: str) -> bool:
    """Whether it is one that :func:`unfinished_name` has given."""
    return name.startswith(UNFINISHED) and bool(_OURS.fullmatch(name.removeprefix(UNFINISHED)))


def unfinished_name() -> str:
    """A name for what is being written, of no other file, thread or process of this machine."""
    return f"{UNFINISHED}{os.getpid()}-{threading.get_ident()}-{next(_NUMBERS)}"


def write_atomically(path: Path, data: bytes, *, mode: int = 0o666, first: bool = False, flush: bool = True) -> None:
    """Write a file so that it is there whole or not at all, even after a power failure.

    Args:
        path: its name, in a folder that is there.
        data: its content.
        mode, first, flush: as for :func:`writing`.
    """
    no_link = getattr(os, "O_NOFOLLOW", 0)  # where others may write too, one could stand there by now
    with (
        writing(path, mode=mode, first=first, flush=flush) as temporary,
        os.fdopen(os.open(temporary, os.O_WRONLY | no_link), "wb") as file,
    ):
        file.write(data)


def to_json(value: Any) -> bytes:
    """A JSON value as the bytes of a readable file."""
    return (json.dumps(value, indent=1) + "\n").encode()


class Readable(Protocol):
    """A file, on this machine or elsewhere."""

    def read_bytes(self) -> bytes:
        """What is in it."""
        ...


def read_json(path: Readable) -> Any:
    """The JSON value in a file.

    Raises:
        ValueError: the file is cut or damaged; the message names it.
    """
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({error}). Remove it to make it anew.") from error


def flush_all(files: Iterable[Path]) -> None:
    """Wait until files that were written without ``flush`` are on the disk: together, as waiting for each takes long.

    Args:
        files: which are there.
    """
    if sys.platform == "linux":  # elsewhere it may return before
        os.sync()
    else:
        for file in files:
            flush_file(file)


def flush_file(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(file: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a lock on a file. It goes with its process, so a kill leaves none behind.

    Args:
        file: made if missing, in a folder that is there; it stays.
        wait: wait for another process that holds it.

    Yields:
        Whether it is held. ``False`` where another process holds it and ``wait`` is false, and where the disk has no
        locks (some network disks).
    """
    lock = FileLock(file, mode=0o600)
    try:
        lock.acquire(blocking=wait)
    except (Timeout, OSError, NotImplementedError):  # the last: filelock 3 on a disk without flock
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@contextmanager
def alone_in(folder: Path, argument: str) -> Iterator[bool]:
    """Keep other processes out of a folder; a kill leaves no lock behind.

    The folder itself is locked, not a file in it: what is published carries no trace of it, and two processes with
    different private folders exclude each other too.

    Args:
        folder: must exist.
        argument: its name in messages.

    Yields:
        Whether others are kept out; ``False`` on Windows, and where the disk has no locks (some network disks).

    Raises:
        ValueError: another process holds it.
    """
    if sys.platform == "win32":  # a folder cannot be locked there
        yield False
        return
    handle, held = os.open(folder, os.O_RDONLY), True
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{argument} {str(folder)!r} is being written by another process. Wait for it, or choose another one."
            ) from None
        except OSError:
            held = False
        yield held
    finally:
        os.close(handle)


@contextmanager
def swept(folder: Path, *inside: str) -> Iterator[None]:
    """Write into a folder of ours that other processes may write too; who comes when it is empty of them tidies up.

    What a kill has left can be told from what another process is writing only while there is none.

    Args:
        folder: must exist.
        inside: sub-folders that are written too; they need not exist.
    """
    if sys.platform == "win32":  # a folder cannot be locked there
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # others are there, or the disk has no locks: nothing is removed
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for place in (folder, *(folder / name for name in inside)):
                sweep(place)
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


@contextmanager
def making_folder(folder: Path, argument: str, *, mode: int = 0o777) -> Iterator[None]:
    """Make a folder that can be written into; if the block fails, remove what was made and is still empty.

    Args:
        folder: made with its parents where it is missing.
        argument: its name in messages.
        mode: permissions of what is made, before the umask.

    Raises:
        OSError: it cannot be made, or not be written.
    """
    made = [place for place in (folder, *folder.parents) if not os.path.exists(place)]
    try:
        with explained(argument, folder):
            for place in reversed(made):
                place.mkdir(mode=mode, exist_ok=True)
            folder.mkdir(exist_ok=True)  # refuses a file of that name
            with tempfile.TemporaryFile(dir=folder):
                pass
        yield
    except BaseException:
        for place in made:
            with suppress(OSError):
                place.rmdir()
        raise


@contextmanager
def explained(argument: str, place: object, advice: str = CHOOSE_ANOTHER) -> Iterator[None]:
    """Let the system's refusal to write name the argument, its value and the remedy.

    Args:
        argument: its name in messages.
        place: its value.
        advice: the remedy, a sentence.

    Raises:
        OSError: the block raised one.
    """
    try:
        yield
    except OSError as error:
        raise OSError(f"{argument} {str(place)!r} cannot be written ({error.strerror or error}). {advice}") from error

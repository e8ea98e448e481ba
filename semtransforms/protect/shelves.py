"""Where the files of a protection go while it works: a folder of this machine, or an address."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

from semtransforms.core.files import (
    alone_in,
    flush_all,
    is_unfinished_name,
    making_folder,
    read_json,
    sweep,
    unfinished_name,
    write_atomically,
)
from semtransforms.core.private import refuse_link
from semtransforms.data.metadata import PROTECTION
from semtransforms.data.refusals import StorageError
from semtransforms.data.remote import AT_ONCE, Place, RemotePath, named
from semtransforms.protect.finished import Finished, Line


class Folder:
    """A folder of this machine.

    Args:
        place: it; there, but for :meth:`first` and :meth:`made`.
    """

    at_once = 0  # files on their way; 0: one after the other

    def __init__(self, place: Path) -> None:
        self.place = place
        self.identity = str(place.resolve())

    def made(self) -> AbstractContextManager[None]:
        """Make it and see that it can be written; if the block fails, what was made and is empty goes again."""
        return making_folder(self.place, "OUT")

    def alone(self, lock: Path) -> AbstractContextManager[bool]:
        """Keep other processes out; gives whether they are. ``lock``: of no use here."""
        return alone_in(self.place, "OUT")

    def first(self) -> str | None:
        """The name of something in it, where there is anything."""
        return next((path.name for path in self.place.iterdir()), None) if self.place.is_dir() else None

    def whole(self, lines: Iterable[Line]) -> Iterator[Line]:
        """The lines whose folders and files are there as they were written."""
        for line in lines:
            if self._link_in(line.name) is not None:  # not as we left it
                continue
            path = self.place / line.name
            if line.name.endswith("/"):
                as_left = path.is_dir()
            else:
                as_left = path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == line.sha256
            if as_left:
                yield line

    def lost(self, lines: Iterable[Line]) -> Iterator[str]:
        """The names of those files that are no longer there."""
        return (line.name for line in lines if not (self.place / line.name).is_file())

    def any_there(self, lines: Iterable[Line]) -> bool:
        """Whether any of some files may be there."""
        return any((self.place / line.name).is_file() for line in lines)

    def missing_folders(self, name: str) -> list[str]:
        """The folders that a file's name wants and that are not there, from the outside in.

        Raises:
            ValueError: a link stands there, which would lead copies to somewhere else.
        """
        folder = name.rpartition("/")[0]
        if link := self._link_in(folder):
            refuse_link(link, "OUT")
        return [] if not folder or (self.place / folder).is_dir() else [*self.missing_folders(folder), folder]

    def make_folder(self, name: str) -> None:
        """Make one of them."""
        (self.place / name).mkdir(exist_ok=True)

    def write(self, name: str, data: bytes, *, mode: int = 0o666, flush: bool = True) -> None:
        """Write a file so that it is there whole or not at all; ``mode`` and ``flush`` as for ``writing``."""
        write_atomically(self.place / name, data, mode=mode, flush=flush)

    def flush(self, lines: Iterable[Line]) -> None:
        """Wait until files that were written without ``flush`` are on the disk."""
        flush_all(self.place / line.name for line in lines)

    def remove(self, name: str, twin: str | None = None) -> None:
        """Remove a file, unless it is the one of another name: where case does not count (macOS)."""
        if twin is None or not (self.place / name).samefile(self.place / twin):
            (self.place / name).unlink(missing_ok=True)

    def remove_folder(self, name: str) -> bool:
        """Remove a folder if it is empty; whether it was."""
        with suppress(OSError):
            (self.place / name).rmdir()
            return True
        return False

    def sweep(self, folders: Iterable[str]) -> None:
        """Remove what a kill has left of unfinished files, in it and in some folders of it."""
        for name in ("", *folders):
            sweep(self.place / name)

    def record(self) -> Any:
        """What an earlier protection has written of itself; ``None`` where none has."""
        with suppress(FileNotFoundError):
            return None if (self.place / PROTECTION).is_symlink() else read_json(self.place / PROTECTION)
        return None

    def _link_in(self, name: str) -> Path | None:
        """The first link on the way to what lies at a name below it; the folder itself may be one."""
        places = [self.place / name, *(self.place / name).parents]
        return next((place for place in places[: places.index(self.place)] if place.is_symlink()), None)


class Bucket:
    """A folder at an address, by the methods of :class:`Folder`. It has no locks, and makes folders by itself.

    That a file is whole is told by its size: of millions, reading them all again would take days. So none is written
    over another one, which might have the same (:meth:`semtransforms.protect.journal.Journal.remember`).

    Args:
        place: it.
    """

    at_once = AT_ONCE

    def __init__(self, place: RemotePath) -> None:
        self.place = place
        self.identity = str(place)
        self._trials: list[str] = []  # that a kill has left, as they were listed last

    @contextmanager
    def made(self) -> Iterator[None]:
        """See that files can be written and removed there."""
        with named("OUT", self.place):
            trial = self.place / unfinished_name()
            trial.write_bytes(b"semtransforms: can this be written?\n")
            trial.unlink()
        yield

    @contextmanager
    def alone(self, lock: Path) -> Iterator[bool]:
        """Keep other processes out that have the same private folder, in which ``lock`` is a folder for that."""
        with (
            making_folder(lock, "--cache-dir", mode=0o700),
            alone_in(lock, f"OUT {str(self.place)!r}, whose lock is") as alone,
        ):
            yield alone

    def first(self) -> str | None:
        """The name of a file in it, where there is any; what a kill has left of :meth:`made` does not count."""
        with named("OUT", self.place):
            return next((name for name, _ in self._listed() if not is_unfinished_name(name)), None)

    def whole(self, lines: Iterable[Line]) -> Iterator[Line]:
        """The lines whose files are there; without stamp those that have another size."""
        with closing(self._sizes()) as sizes:
            for line in lines:
                if (size := sizes.get(line.name)) is not None:
                    yield line if int(size) == line.size else line._replace(stamp="")

    def lost(self, lines: Iterable[Line]) -> Iterator[str]:
        """The names of those files that are no longer there, or have another size."""
        with closing(self._sizes()) as sizes:
            for line in lines:
                size = sizes.get(line.name)
                if size is None or line.size not in (0, int(size)):
                    yield line.name

    def any_there(self, lines: Iterable[Line]) -> bool:
        """Whether any of some files may be there: without asking, as this is for when the storage has failed."""
        return any(True for _ in lines)

    def missing_folders(self, name: str) -> list[str]:
        """None that anybody would have to remember."""
        return []

    def make_folder(self, name: str) -> None:
        """Nothing, as there are none."""

    def write(self, name: str, data: bytes, *, mode: int = 0o666, flush: bool = True) -> None:
        """Write a file; who may read it is the storage's own affair."""
        with _going_on():
            (self.place / name).write_bytes(data)

    def flush(self, lines: Iterable[Line]) -> None:
        """Nothing: what the storage has confirmed is there."""

    def remove(self, name: str, twin: str | None = None) -> None:
        """Remove a file."""
        with _going_on():
            (self.place / name).unlink()

    def remove_folder(self, name: str) -> bool:
        """Nothing, as there are none."""
        return True

    def sweep(self, folders: Iterable[str]) -> None:
        """Remove what a kill has left of :meth:`made`."""
        while self._trials:
            self.remove(self._trials.pop())

    def record(self) -> Any:
        """What an earlier protection has written of itself; ``None`` where none has, or a kill has cut it."""
        with suppress(FileNotFoundError, ValueError), _going_on():
            return read_json(self.place / PROTECTION)
        return None

    def _listed(self) -> Iterator[tuple[str, int]]:
        """The names and sizes of all files."""
        with suppress(FileNotFoundError):  # a bucket has no folders without files
            for file in self.place.rglob("*"):
                yield file.relative_to(self.place).as_posix(), file.size

    def _sizes(self) -> Finished:
        sizes = Finished()
        with _going_on():
            for name, size in self._listed():
                sizes[name] = str(size)
                if is_unfinished_name(name):
                    self._trials.append(name)
        return sizes


Shelf: TypeAlias = Folder | Bucket


def shelf_at(place: Place) -> Shelf:
    """What lies at a place, by one set of methods."""
    return Folder(place) if isinstance(place, Path) else Bucket(place)


@contextmanager
def _going_on() -> Iterator[None]:
    """Let the error of a storage that is silent say how to go on."""
    try:
        yield
    except StorageError as error:
        raise StorageError(f"OUT: {error}. What is finished is kept: the same command goes on from here.") from error

"""Files and folders behind an address (s3://, gs://, memory://), with those methods of a path that reading needs."""

from __future__ import annotations

import errno
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import xxhash

from semtransforms.data.refusals import StorageError, storage_errors

AT_ONCE = 16  # requests on their way: each waits for the network, not for this machine

_ADDRESS = re.compile(r"([a-zA-Z][\w+.-]+):/{1,2}(.*)", re.DOTALL)  # one letter is a disk of Windows
_PASSWORD = re.compile(r"([\w+.-]+)://[^/@]*:[^/]*@")
_HEAD = 1 << 17  # bytes asked for at a time where only the beginning of a file is wanted, as a rule
_LONGEST = 255  # bytes of a folder's name that disks allow
# by what the kinds of storage tell that a file is another one now; no time does, which many files of a tar share
_TELLING = ("ETag", "etag", "md5Hash", "generation", "CRC")
# names that no file or folder of a disk has; on Windows one with a drive or a backslash would lead elsewhere
_NOT_ON_WINDOWS = re.compile(r'[\\:*?"<>|\x00-\x1f]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE)
_NOT_ON_DISKS = _NOT_ON_WINDOWS if os.name == "nt" else re.compile("\0")


@dataclass(frozen=True)
class RemotePath:
    """A file or folder behind an address; travels to other processes, which log in by themselves.

    Args:
        head: what its address begins with, down to the bucket, the server or the archive, with ``/`` at the end.
        below: the rest, names with ``/`` between them; may be empty.
        tail: ``::`` and the address of the archive that it lies in, where it lies in one.
        kind: ``"file"`` or ``"directory"`` as it was listed; empty where nobody has looked.
        version: as it was listed, a number that changes when the file does; 0 where the storage does not tell.
        size: as it was listed, in bytes.
    """

    head: str
    below: str = ""
    tail: str = ""
    kind: str = field(default="", compare=False)
    version: int = field(default=0, compare=False)
    size: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return self.head + self.below + self.tail

    def __truediv__(self, names: str) -> RemotePath:
        return RemotePath(self.head, f"{self.below}/{names}" if self.below else names, self.tail)

    @property
    def name(self) -> str:
        """The last of its names."""
        return self.below.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The ending of its name, as a path's."""
        return Path(self.name).suffix

    @property
    def parent(self) -> RemotePath:
        """The folder that it lies in; of the uppermost one, itself."""
        return RemotePath(self.head, self.below.rpartition("/")[0], self.tail)

    @property
    def parents(self) -> tuple[RemotePath, ...]:
        """The folders that it lies in, from the inside out."""
        parts = self.below.split("/") if self.below else []
        return tuple(RemotePath(self.head, "/".join(parts[:end]), self.tail) for end in reversed(range(len(parts))))

    def relative_to(self, folder: RemotePath) -> PurePosixPath:
        """Its names below a folder that it lies in."""
        return PurePosixPath(self.below).relative_to(folder.below)

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """The file system of fsspec, and what it calls this place."""
        import fsspec

        with storage_errors(str(self)):
            # what it lists it would else keep, and not see what comes meanwhile
            system, top = fsspec.core.url_to_fs(self.head + self.tail, use_listings_cache=False)
        return system, "/".join(part for part in (top.rstrip("/"), self.below) if part)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_opened"}

    def check_opens(self) -> None:
        """See that something opens such addresses, without asking the storage.

        Raises:
            ValueError, ModuleNotFoundError: nothing does, or it is not installed.
        """
        _ = self._opened  # no assertion, which python -O leaves out

    def seen(self) -> RemotePath:
        """The same with its kind and version, as they are now where they are not known; without, where nothing is."""
        if self.kind:
            return self
        system, place = self._opened
        with suppress(FileNotFoundError), storage_errors(str(self)):
            told = system.info(place)
            return self._as_told(told)
        return self

    def _as_told(self, told: dict[str, Any]) -> RemotePath:
        return replace(self, kind=told["type"], version=_version(told), size=int(told.get("size") or 0))

    def exists(self) -> bool:
        """Whether anything is there."""
        return bool(self.seen().kind)

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return self.seen().kind == "directory"

    def is_file(self) -> bool:
        """Whether it is a file."""
        return self.seen().kind == "file"

    def iterdir(self) -> Iterator[RemotePath]:
        """What lies in a folder, as it was listed now, each with its kind and version.

        Raises:
            OSError: it is not there, or cannot be listed.
            ValueError: something in it has a name that no folder on a disk can have.
        """
        system, place = self._opened
        with storage_errors(str(self)):
            found = system.ls(place, detail=True)
        for entry in found:
            name = str(entry["name"])
            inside = name.rstrip("/").rpartition("/")[2]
            if name.strip("/") == place.strip("/") and not (entry["type"] == "directory" and name.endswith("/")):
                continue  # what a folder without files is made of: a file of no bytes and the folder's name
            strange = inside in ("", ".", "..") or _NOT_ON_DISKS.search(inside) or len(os.fsencode(inside)) > _LONGEST
            if strange or name.strip("/") == place.strip("/"):
                raise ValueError(
                    f"{self} holds {name!r}, a name that no folder on a disk can have. Rename it, or move it elsewhere."
                )
            yield (self / inside)._as_told(entry)

    def glob(self, pattern: str) -> list[RemotePath]:
        """What lies in a folder and has a name of some form; ``data/*.parquet`` looks into a folder in it.

        A folder that is not there holds nothing.
        """
        folder, _, names = pattern.rpartition("/")
        with suppress(FileNotFoundError):
            return [each for each in (self / folder if folder else self).iterdir() if fnmatchcase(each.name, names)]
        return []

    def rglob(self, pattern: str) -> Iterator[RemotePath]:
        """The files in a folder and its sub-folders that have a name of some form."""
        for each in self.iterdir():
            if each.is_dir():
                yield from each.rglob(pattern)
            elif fnmatchcase(each.name, pattern):
                yield each

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """The file, open for reading as bytes; only what is asked for is fetched, and a little more.

        Raises:
            OSError: it is not there, or cannot be read.
        """
        system, place = self._opened
        with storage_errors(str(self)):
            return io.BufferedReader(_Opened(self, system.open(place, mode, block_size=_HEAD)))

    def read_bytes(self, start: int | None = None, stop: int | None = None) -> bytes:
        """The file, or the bytes of it from ``start`` to before ``stop``.

        Raises:
            OSError: it is not there, or cannot be read; a ``StorageError`` where that says nothing of this file.
        """
        system, place = self._opened
        with storage_errors(str(self)):
            return bytes(system.cat_file(place, start=start, end=stop))

    def download(self, path: Path) -> None:
        """Write the file to a path of this machine.

        Raises:
            OSError: it is not there, or cannot be read, or there is no room.
        """
        system, place = self._opened
        with storage_errors(str(self)):
            system.get_file(place, str(path))

    def write_bytes(self, data: bytes) -> None:
        """Write the file, and the folders it lies in where the storage has such; of buckets none is made.

        Object stores have it whole or not at all. Elsewhere a kill may leave a part of it.

        Raises:
            OSError: it cannot be written; a ``StorageError`` where that says nothing of this file.
        """
        system, place = self._opened
        with storage_errors(str(self), "write"):
            try:
                system.pipe_file(place, data)
            except FileNotFoundError:
                if not system.exists(RemotePath(self.head, "", self.tail)._opened[1]):
                    raise FileNotFoundError(errno.ENOENT, "no such bucket") from None
                system.makedirs(self.parent._opened[1], exist_ok=True)
                system.pipe_file(place, data)

    def unlink(self) -> None:
        """Remove the file, if it is there.

        Raises:
            OSError: it cannot be removed; a ``StorageError`` where that says nothing of this file.
        """
        system, place = self._opened
        with suppress(FileNotFoundError), storage_errors(str(self), "remove"):
            system.rm_file(place)


class _Opened(io.RawIOBase):
    """An opened file whose every reading may be refused, as its opening may."""

    def __init__(self, place: RemotePath, file: Any) -> None:
        self._place, self._file = place, file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with storage_errors(str(self._place)):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        self._file.close()
        super().close()


Place: TypeAlias = Path | RemotePath


def place_of(spec: str) -> Place:
    """What an argument names: a path of this machine, or an address that fsspec opens.

    Args:
        spec: a path, ``file://`` and a path, or an address such as ``s3://bucket/photos``.

    Raises:
        ValueError: the address names no bucket, or what stands for one, or has a password in it.
    """
    address = _ADDRESS.fullmatch(spec)
    if address is not None and (login := _PASSWORD.search(spec)):
        kind, without = login.group(1).upper(), _PASSWORD.sub(r"\1://***@", spec)
        raise ValueError(
            f"{without!r}: an address must hold no password, which others see in the list of "
            f"processes and in messages. Set FSSPEC_{kind}_USERNAME and FSSPEC_{kind}_PASSWORD in the environment."
        )
    if re.match(r"[\w+.-]+::[\w+.-]+://", spec):
        raise ValueError(f"{spec!r} begins with what keeps files of an address. Give the address alone, behind '::'.")
    if address is None or not spec.startswith(f"{address.group(1)}://"):
        return Path(spec).expanduser()
    scheme, rest = address.group(1).lower(), address.group(2)
    if scheme in ("file", "local"):
        return Path(re.sub(r"^/(?=[a-zA-Z]:)", "", rest) if os.name == "nt" else rest)
    inside, chain, outside = rest.partition("::")
    if chain:
        return RemotePath(f"{scheme}://", inside.strip("/"), chain + outside)
    top, _, below = inside.partition("/")
    if not top:
        raise ValueError(f"{spec!r} names no bucket. Give {scheme}://BUCKET/FOLDER.")
    return RemotePath(f"{scheme}://{top}/", below.strip("/"))


def is_address(path: Path) -> bool:
    """Whether a path was an address, of which a path takes a slash away; ``C:/`` is none."""
    return _ADDRESS.fullmatch(path.as_posix()) is not None


def check_there(place: RemotePath) -> None:
    """See that something is at an address, or that it is a pattern of names in a folder that is there.

    Raises:
        OSError, ModuleNotFoundError, ValueError: nothing is, or it cannot be read; or its bucket is not there.
    """
    is_pattern = any(letter in place.name for letter in "*?[")
    if (place.parent if is_pattern else place).exists():
        return
    top = RemotePath(place.head, "", place.tail)
    try:
        next(top.iterdir(), None)
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, f"there is no {top}. Correct the name, or make it") from None
    raise FileNotFoundError(errno.ENOENT, f"nothing of that name is in {top}. Correct the name")


def read_part(file: Place, start: int, size: int) -> bytes:
    """So many bytes of a file from one on; fewer where it ends before.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    if isinstance(file, RemotePath):
        return file.read_bytes(start, start + size)
    with file.open("rb") as opened:
        opened.seek(start)
        return opened.read(size)


@contextmanager
def named(argument: str, place: Place) -> Iterator[None]:
    """Let what a storage refuses name the argument and the remedy; errors of paths of this machine pass.

    Raises:
        OSError, StorageError, ModuleNotFoundError, ValueError: the block raised one.
    """
    try:
        yield
    except (OSError, StorageError, ModuleNotFoundError) as error:
        if isinstance(place, Path):
            raise
        what = getattr(error, "strerror", None) or error
        raise type(error)(f"{argument} {str(place)!r}: {what}") from error


def _version(entry: dict[str, Any]) -> int:
    told = [str(entry[key]) for key in _TELLING if entry.get(key) is not None]
    return xxhash.xxh3_64_intdigest(repr((entry.get("size"), *told)).encode()) or 1 if told else 0

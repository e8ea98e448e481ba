"""What visitors bring: single files, folders and zip archives, until they lie in class folders.

Nobody's names or sizes are trusted: nothing is written outside the folder that is given, and no more than was allowed.
"""

from __future__ import annotations

import filecmp
import io
import lzma
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path, PurePosixPath

from semtransforms.app import texts
from semtransforms.data.listing import IMAGE_SUFFIXES, is_hidden

MOST_BYTES = 4 << 30  # that a visitor may bring, unpacked
MOST_FILES = 20_000  # in one archive
MOST_LISTING = 300 * MOST_FILES  # bytes of its list of files: 46 each, the name, and what packers put beside it
LONGEST_NAME = 200  # bytes of a file's or folder's name: disks take 255, and a copy's ending needs some
CHUNK = 1 << 20
ZIP = ".zip"
_UNWANTED = re.compile(r"[\x00-\x1f\x7f]")


def safe_place(path: str) -> PurePosixPath:
    """A relative path that leads nowhere but down.

    Args:
        path: as a browser or an archive says it.

    Raises:
        ValueError: it does not, or a name in it is none that a disk takes.
    """
    parts = path.replace("\\", "/").split("/")
    odd = any(part in ("", ".", "..") or _UNWANTED.search(part) or part != part.strip() for part in parts)
    if odd or any(len(part.encode("utf-8", "replace")) > LONGEST_NAME for part in parts) or re.match("[A-Za-z]:", path):
        raise ValueError(texts.NAME_REFUSED.format(name=_UNWANTED.sub("?", path)[:LONGEST_NAME]))
    return PurePosixPath(*parts)


def is_wanted(place: PurePosixPath) -> bool:
    """Whether a file is kept: by its name an image, and not hidden, as what systems put beside photographs is."""
    unseen = any(is_hidden(part) or part == "__MACOSX" for part in place.parts)
    return place.suffix.lower() in IMAGE_SUFFIXES and not unseen


# a file where a folder should be, or the other way round
_CLASHES = (FileExistsError, NotADirectoryError, IsADirectoryError)
# what zipfile and the decoders under it raise; NotImplementedError is its word for a compression that it does not know
_DAMAGED = (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, zlib.error, lzma.LZMAError)


def take_in(file: Path, path: str, folder: Path, room: int) -> list[str]:
    """Take in a file that has arrived: an image as it is, an archive unpacked.

    Args:
        file: it is moved or removed.
        path: what the browser called it, with the folders above it.
        folder: for what is brought together; made if missing.
        room: bytes that may be written.

    Returns:
        A line for each thing that was left out.

    Raises:
        ValueError: all of it was: the message says why, and what to do.
        OSError: it cannot be written.
    """
    try:
        place = safe_place(path)
        if place.suffix.lower() == ZIP:
            return list(_unpack(file, place, folder, room))
        if not is_wanted(place):
            return [texts.NO_IMAGE_NAME.format(name=place)]
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, target)
        return []
    except _CLASHES:
        return [texts.CLASHES.format(name=place)]
    finally:
        file.unlink(missing_ok=True)


class _Opened(io.FileIO):
    """An archive whose list of files is refused before it is read: zipfile keeps all of it, and reads it at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MOST_LISTING:
            raise _ListingTooLong
        return super().read(size)


class _ListingTooLong(Exception):
    pass


def _unpack(file: Path, name: PurePosixPath, folder: Path, room: int) -> Iterator[str]:
    try:
        with _Opened(file) as opened, zipfile.ZipFile(opened) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            _check_sizes(members, name, folder, room)
            for member in members:
                yield from _unpack_one(archive, member, folder)
    except _ListingTooLong:
        size = megabytes(MOST_LISTING)
        raise ValueError(texts.ZIP_LISTING.format(name=name, size=size, most=f"{MOST_FILES:,}")) from None
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        UnicodeDecodeError,
    ) as error:  # the second: of a later format of zip
        raise ValueError(texts.ZIP_BROKEN.format(name=name, why=error)) from error


def _check_sizes(members: list[zipfile.ZipInfo], name: PurePosixPath, folder: Path, room: int) -> None:
    """Refuse an archive by what it declares; zipfile gives no more than that of a member, whatever is packed in it."""
    if len(members) > MOST_FILES:
        raise ValueError(texts.ZIP_MANY.format(name=name, files=f"{len(members):,}", most=f"{MOST_FILES:,}"))
    size = sum(member.file_size for member in members)
    if size > room:
        raise ValueError(texts.ZIP_LARGE.format(name=name, size=megabytes(size), room=megabytes(room)))
    folder.mkdir(parents=True, exist_ok=True)
    if size > (free := shutil.disk_usage(folder).free):
        raise ValueError(texts.DISK_SMALL.format(size=megabytes(size), free=megabytes(free)))


def _unpack_one(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> Iterator[str]:
    try:
        place = safe_place(member.filename)
    except ValueError as error:
        yield str(error)
        return
    if stat.S_ISLNK(member.external_attr >> 16):
        yield texts.ZIP_LINK.format(name=place)
    elif member.flag_bits & 1:
        yield texts.ZIP_LOCKED.format(name=place)
    elif not is_wanted(place):
        yield texts.NO_IMAGE_NAME.format(name=place)
    else:
        target = folder / place
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as packed, target.open("wb") as written:
                shutil.copyfileobj(packed, written, CHUNK)
        except _CLASHES:
            yield texts.CLASHES.format(name=place)
        except (*_DAMAGED, OSError) as error:
            target.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno is not None:  # the disk's; bzip2 has one without a number
                raise
            yield texts.ZIP_DAMAGED.format(name=place, why=error)


def sort_in(arrived: Path, photographs: Path, unlabelled: Path) -> list[str]:
    """Move what was brought together to its classes: the folders in it, below the one folder that holds all.

    Args:
        arrived: removed.
        photographs: gets ``class/name``.
        unlabelled: gets what lies in no folder.

    Returns:
        A line for each file that has no place there.
    """
    notes = []
    files = sorted(path.relative_to(arrived) for path in arrived.rglob("*") if path.is_file())
    tops = {file.parts[0] for file in files if len(file.parts) > 1}
    # dropped as "photos", or packed as it, with the classes below; single files may have come with it
    depth = 1 if len(tops) == 1 and any(len(file.parts) > 2 for file in files) else 0
    for file in files:
        inner = Path(*file.parts[min(depth, len(file.parts) - 1) :])
        try:
            move_in(arrived / file, (photographs if len(inner.parts) > 1 else unlabelled) / inner)
        except _CLASHES:
            notes.append(texts.CLASHES.format(name=file))
    shutil.rmtree(arrived, ignore_errors=True)
    return notes


def move_in(file: Path, target: Path) -> None:
    """Give a file its place. What is there and the same is replaced; beside another one it gets a number."""
    target.parent.mkdir(parents=True, exist_ok=True)
    numbered = (target.with_name(f"{target.stem}-{number}{target.suffix}") for number in count(2))
    free = next(
        place
        for place in chain([target], numbered)
        if not place.exists() or (place.is_file() and filecmp.cmp(file, place, shallow=False))
    )  # fmt: skip
    os.replace(file, free)


def class_name(typed: str) -> str:
    """A class as somebody typed it, as the name of a folder.

    Raises:
        ValueError: it is empty, hidden, or no name of a folder.
    """
    name = " ".join(typed.split())
    if not name or is_hidden(name) or len(safe_place(name).parts) != 1:
        raise ValueError(texts.CLASS_REFUSED.format(name=name))
    return name


def megabytes(size: int) -> str:
    """A size in words."""
    return f"{size / 1e6:,.1f} MB"


def gigabytes(size: int) -> str:
    """A large size in words."""
    return f"{size / (1 << 30):,.0f} GiB"

"""Where protected copies go: the names of their files and folders."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from itertools import chain, count, groupby
from os.path import splitext

from semtransforms.core.strings import Strings

COPY_SUFFIXES = (".png", ".jpg")  # what published copies end in, by their format
_LONGEST = 251  # bytes of a name: with ".png" the 255 that disks allow


def unique_names(paths: Iterable[str]) -> Strings:
    """Name each file's copy so that copies sort as the files do: who pairs both row by row pairs the right ones.

    By their stems, as a rule. ``photo.jpg`` comes before ``photo.large.jpg`` and ``photo.png`` after
    ``photo.large.png``, so in such a folder they are ``photo.jpg`` and ``photo.large.jpg``, or numbered.

    Args:
        paths: relative paths, with ``/``.

    Returns:
        Such paths without suffix, no two equal even where upper and lower case are (macOS, Windows): of
        ``a.jpg`` and ``a.png`` the first becomes ``a``, the second ``a.png``.
    """
    files = paths if isinstance(paths, Sequence) else Strings(paths)
    runs = [folder for folder, _ in groupby(files, key=_folder)]
    if len(set(runs)) == len(runs):  # folder by folder, as they are listed: so one at a time
        return Strings(chain.from_iterable(_named_in_order(list(some)) for _, some in groupby(files, key=_folder)))
    folders: dict[str, list[int]] = {}
    for row, file in enumerate(files):
        folders.setdefault(_folder(file), []).append(row)
    names = [""] * len(files)
    for rows in folders.values():
        for row, name in zip(rows, _named_in_order([files[row] for row in rows]), strict=True):
            names[row] = name
    return Strings(names)


def _folder(file: str) -> str:
    return file.rpartition("/")[0].lower()


def _named_in_order(files: list[str]) -> list[str]:
    """The copies of one folder's files, by the first way of naming that keeps their order."""
    places, names = [file[: file.rfind("/") + 1] for file in files], [file[file.rfind("/") + 1 :] for file in files]
    order = _order(places, names)
    for ways in (_stems(names), names):
        copies = list(map(_short, ways))
        distinct = len({copy.lower() for copy in copies}) == len(files)
        if distinct and all(order == _order(places, [copy + suffix for copy in copies]) for suffix in COPY_SUFFIXES):
            break
    else:
        digits = len(str(len(files) - 1))
        ranks = {row: rank for rank, row in enumerate(order)}
        copies = [_short(f"{ranks[row]:0{digits}d}-{splitext(name)[0]}") for row, name in enumerate(names)]
    return [place + copy for place, copy in zip(places, copies, strict=True)]


def _order(places: Sequence[str], names: Sequence[str]) -> list[int]:
    """Rows in the order of their files, of which those with one place have one folder."""
    pairs = list(zip(places, names, strict=True))
    return sorted(range(len(pairs)), key=pairs.__getitem__)


def _stems(names: Sequence[str]) -> list[str]:
    """The stems, or more where another file has that stem already."""
    taken: set[str] = set()
    stems = []
    for name in names:
        stem = splitext(name)[0]
        if stem.lower() in taken:
            stem = next(each for each in chain([name], (f"{name}-{k}" for k in count(2))) if each.lower() not in taken)
        taken.add(stem.lower())
        stems.append(stem)
    return stems


def _short(name: str) -> str:
    """A name that a disk takes, with what tells it from others in place of its end where it has to be cut."""
    if len(os.fsencode(name)) <= _LONGEST:
        return name
    end = "~" + hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
    while len(os.fsencode(name)) > _LONGEST - len(end):
        name = name[:-1]
    return name + end


def class_folders(classes: Sequence[str] | None, num_classes: int) -> tuple[str, ...]:
    """Name one folder per class so that sorting the names gives the labels back, as ImageFolder does.

    Args:
        classes: label names, or ``None``.
        num_classes: number of labels.

    Returns:
        The names, cleaned of what a file system refuses; with the label in front where their order needs it.
    """
    digits = len(str(max(num_classes - 1, 0)))
    if classes is None:
        return tuple(f"{label:0{digits}d}" for label in range(num_classes))
    clean = [re.sub(r"[^\w .,+()&'-]", "_", name).strip(" .") or "_" for name in classes]
    if clean == sorted(clean) and len({name.lower() for name in clean}) == len(clean):
        return tuple(clean)
    return tuple(f"{label:0{digits}d}-{name}" for label, name in enumerate(clean))

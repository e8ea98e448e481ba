"""Where protected copies go: the names of their files and folders."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from itertools import chain, count
from pathlib import Path

COPY_SUFFIXES = (".png", ".jpg")  # what published copies end in, by their format
_LONGEST = 251  # bytes of a name: with ".png" the 255 that disks allow


def unique_names(paths: Iterable[Path]) -> list[str]:
    """Name each file's copy so that copies sort as the files do: who pairs both row by row pairs the right ones.

    By their stems, as a rule. ``photo.jpg`` comes before ``photo.large.jpg`` and ``photo.png`` after
    ``photo.large.png``, so in such a folder they are ``photo.jpg`` and ``photo.large.jpg``, or numbered.

    Args:
        paths: relative paths.

    Returns:
        Posix paths without suffix, no two equal even where upper and lower case are (macOS, Windows): of
        ``a.jpg`` and ``a.png`` the first becomes ``a``, the second ``a.png``.
    """
    files = list(paths)
    folders: dict[str, list[int]] = {}
    for row, file in enumerate(files):
        folders.setdefault(file.parent.as_posix().lower(), []).append(row)
    names = [""] * len(files)
    for rows in folders.values():
        for row, path in zip(rows, _named_in_order([files[row] for row in rows]), strict=True):
            names[row] = path.as_posix()
    return names


def _named_in_order(files: list[Path]) -> list[Path]:
    """The copies of one folder's files, by the first way of naming that keeps their order."""
    order = _order(files)
    for names in (_stems(files), [file.name for file in files]):
        copies = [file.with_name(_short(name)) for file, name in zip(files, names, strict=True)]
        distinct = len({copy.name.lower() for copy in copies}) == len(files)
        if distinct and all(order == _order(copies, suffix) for suffix in COPY_SUFFIXES):
            return copies
    digits = len(str(len(files) - 1))
    ranks = {row: rank for rank, row in enumerate(order)}
    return [file.with_name(_short(f"{ranks[row]:0{digits}d}-{file.stem}")) for row, file in enumerate(files)]


def _order(files: list[Path], suffix: str = "") -> list[int]:
    return sorted(range(len(files)), key=lambda row: (files[row].parent.as_posix(), files[row].name + suffix))


def _stems(files: list[Path]) -> list[str]:
    """The stems, or more where another file has that stem already."""
    taken: set[str] = set()
    names = []
    for file in files:
        candidates = chain([file.stem, file.name], (f"{file.name}-{k}" for k in count(2)))
        names.append(next(name for name in candidates if name.lower() not in taken))
        taken.add(names[-1].lower())
    return names


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

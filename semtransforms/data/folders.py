"""Labelled images in folders: a sub-folder for each class, labels in ``metadata.csv``, or one label for all."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from semtransforms.core.files import read_json
from semtransforms.core.strings import Strings
from semtransforms.data.images import check_labels
from semtransforms.data.listing import IMAGE_SUFFIXES, PARTS, files_below, is_hidden, is_part
from semtransforms.data.metadata import METADATA, PROTECTION, read_metadata, sorted_names
from semtransforms.data.naming import class_folders
from semtransforms.data.remote import Place
from semtransforms.data.tables import FORMS


class Listed(NamedTuple):
    """The images of a folder.

    Args:
        files: their paths below it, with ``/``.
        labels: int64 ``(N,)``.
        classes: label names in the order of the labels, where known.
        folders: for each class the folder that copies go to; empty where they keep their places.
        others: paths of files that are no images.
        versions: of the files, as for :class:`semtransforms.data.listing.Files`.
    """

    files: Sequence[str]
    labels: Tensor
    classes: tuple[str, ...] | None
    folders: tuple[str, ...]
    others: Sequence[str]
    versions: array[int]


def list_classes(root: Place) -> Listed:
    """The images of a folder with a sub-folder for each class.

    Raises:
        ValueError: it has none, or one that is no class, or without images.
    """
    folders = sorted(p.name for p in root.iterdir() if p.is_dir() and not is_hidden(p.name))
    if not folders:
        raise ValueError(
            f"SOURCE {str(root)!r} has no class sub-folders. Say what is on each image: put them into one sub-folder "
            f"per class; or write {METADATA} there, with columns file_name and label; or give all of them one label, a "
            "class of a generator that is there: semtransforms protect SOURCE OUT --generator NAME --label CLASS. Else "
            f"SOURCE is {FORMS}."
        )
    parts = [name for name in folders if name.lower() in PARTS and is_part(root / name)]
    if parts:
        part = "train" if "train" in parts else parts[0]
        raise ValueError(
            f"SOURCE {str(root)!r} holds parts ({', '.join(parts)}) where class folders should be. "
            f"Give one part: {str(root / part)!r}."
        )
    files = Strings()
    others: list[str] = []
    versions = array("Q")
    counts = []
    for folder in folders:
        found = files_below(root / folder, root)
        others += found.others
        if not found.images:
            raise ValueError(
                f"SOURCE: class folder {str(root / folder)!r} holds no images ({', '.join(IMAGE_SUFFIXES)}). "
                "Remove it, or fill it."
            )
        files.extend(found.images)
        versions.extend(found.versions)
        counts.append(len(found.images))
    labels = check_labels(np.repeat(np.arange(len(folders)), counts), None)
    return Listed(files, labels, tuple(folders), tuple(folders), others, versions)


def list_labelled(root: Place, label_column: str | None) -> Listed:
    """The images of a folder whose labels stand in ``metadata.csv``.

    Raises:
        ValueError: it has images without a row there, or rows without an image.
    """
    found = files_below(root, root)
    is_there = None if isinstance(root, Path) else {*found.images, *found.others}.__contains__  # without asking again
    listed = read_metadata(root, label_column, is_there)
    unlisted = [path for path in found.images if path not in listed]
    if unlisted:
        raise ValueError(
            f"SOURCE: {root / METADATA} has no row for {len(unlisted)} images, the first: {str(root / unlisted[0])!r}. "
            "Add their rows, or move the images elsewhere."
        )
    others = [path for path in found.others if path != METADATA]
    versions = array("Q")
    if found.versions:
        known = dict(zip(found.images, found.versions, strict=True))
        versions.extend(known.get(path, 0) for path in listed)
    if (root / PROTECTION).is_file() and (record := read_json(root / PROTECTION)).get("labels") == METADATA:
        # a copy of ours, in which some classes have no image: the labels are the numbers themselves
        names = record["classes"]
        labels = check_labels(list(map(int, listed.values())), len(names) if names else None)
        return Listed(list(listed), labels, tuple(names) if names else None, (), others, versions)
    classes = sorted_names(listed.values())
    numbers = {name: number for number, name in enumerate(classes)}
    labels = check_labels([numbers[name] for name in listed.values()], None)
    return Listed(list(listed), labels, classes, class_folders(classes, len(classes)), others, versions)


def list_alike(folder: Place, label: int, classes: tuple[str, ...] | None) -> Listed:
    """The images of a folder and its sub-folders, all with one label; their copies keep their places.

    Raises:
        ValueError: it is no folder, or holds no images.
    """
    found = files_below(folder, folder)
    if not found.images:
        raise ValueError(f"SOURCE {str(folder)!r} must be a folder of images ({', '.join(IMAGE_SUFFIXES)}).")
    labels = check_labels([label] * len(found.images), None)
    return Listed(found.images, labels, classes, (), found.others, found.versions)


def files_since(root: Place, listed: Listed) -> list[str]:
    """The images that lie in a folder now, or in a class's folder where it has these, and did not when it was listed.

    Args:
        root: the folder.
        listed: its images then.

    Raises:
        OSError: it cannot be read any more.
    """
    known = np.sort(_numbers(listed.files))
    in_classes = listed.folders and not (root / METADATA).is_file()
    new: list[str] = []
    for folder in [each for each in root.iterdir() if each.is_dir()] if in_classes else [root]:
        now = files_below(folder, root).images  # of one class at a time: there may be millions
        numbers = _numbers(now)
        places = np.minimum(np.searchsorted(known, numbers), len(known) - 1)
        new += [now[row] for row in np.flatnonzero(known[places] != numbers)]
    return sorted(new)


def _numbers(paths: Sequence[str]) -> NDArray[np.uint64]:
    """A number of 64 bits for each path: of millions, a set of strings would take half a gigabyte."""
    numbers = (xxhash.xxh3_64_intdigest(path.encode("utf-8", "surrogatepass")) for path in paths)
    return np.fromiter(numbers, np.uint64, len(paths))

"""The image files below a folder: all of them, or a word on why not."""

from __future__ import annotations

import os
from array import array
from pathlib import Path
from typing import NamedTuple, TypeGuard

from semtransforms.data.metadata import METADATA
from semtransforms.data.remote import Place, RemotePath

IMAGE_SUFFIXES = (
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg",
    ".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
)  # fmt: skip

# How people call the parts of a data set: a folder of such a name that holds folders only, or labels, is no class.
PARTS = ("train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval", "evaluation")


# Folders that systems make, with thumbnails and what was thrown away.
_OF_SYSTEMS = {"@eadir", "#recycle", "$recycle.bin", "__macosx", "lost+found", "system volume information"}


def is_hidden(name: str) -> bool:
    """Whether a folder or file of that name is nobody's picture: hidden, or a system's own."""
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def is_part(folder: Place) -> bool:
    """Whether a folder of such a name is a part and no class: it holds folders only, or the labels of its images."""
    if (folder / METADATA).is_file():
        return True
    inside: list[Place] = [*folder.iterdir()]
    return any(p.is_dir() and not is_hidden(p.name) for p in inside) and not any(map(_is_image, inside))


def _is_image(path: Place) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(path.name) and path.is_file()


class Files(NamedTuple):
    """Paths of files, relative to a root, with ``/``.

    Args:
        images: of image files.
        others: of those of other suffixes.
        versions: of the images, ``RemotePath.version``; empty where they lie on this machine.
    """

    images: list[str]
    others: list[str]
    versions: array[int]


def files_below(folder: Place, root: Place) -> Files:
    """The images in a folder and its sub-folders, in ImageFolder's order, and the files of other suffixes.

    What is hidden is left out: trash, thumbnails, older versions. Links are followed, as ImageFolder follows them; one
    that leads nowhere counts as an image that cannot be read. Strings, since there may be millions: a path object
    takes ten times as long to make, and four times the memory.

    Args:
        folder: where to look.
        root: of the source; what is hidden above it does not matter.

    Returns:
        The images and the others.

    Raises:
        OSError: a folder cannot be read.
        ValueError: a link leads to a folder that holds it.
    """
    found = Files([], [], array("Q"))
    inside = () if folder == root else folder.relative_to(root).parts  # type: ignore[arg-type]  # of one kind
    if not folder.is_dir() or any(map(is_hidden, inside)):
        return found
    for place, names, others, versions in _visible(folder, "".join(f"{part}/" for part in inside)):
        found.images.extend(place + name for name in names)
        found.others.extend(place + name for name in sorted(others))
        found.versions.extend(versions)
    return found


def hidden_below(folder: Path) -> list[Path]:
    """The files in a folder and its sub-folders that are left out since they, or a folder they lie in, are hidden.

    Args:
        folder: of a source that was opened, so no link in it leads to what holds it.
    """
    found: list[Path] = []
    for place, folders, names in os.walk(folder, followlinks=True):
        found += [Path(place, name) for name in names if is_hidden(name)]
        for name in filter(is_hidden, folders):
            found += [Path(inner, file) for inner, _, files in os.walk(Path(place, name)) for file in files]
        folders[:] = [name for name in folders if not is_hidden(name)]
    return sorted(found)


def _visible(start: Place, place: str) -> list[tuple[str, list[str], list[str], array[int]]]:
    """The folders from one down, in ImageFolder's order, with the images in each, its other files, and the versions.

    Args:
        start: where to look.
        place: the same as it begins the paths of its files: empty, or ending in ``/``.
    """
    found = []
    todo: list[tuple[str | RemotePath, str]] = [(start if isinstance(start, RemotePath) else str(start), place)]
    while todo:
        folder, place = todo.pop()
        images: list[str] = []
        others: list[str] = []
        versions: dict[str, int] = {}
        for entry in folder.iterdir() if isinstance(folder, RemotePath) else _entries(folder):
            if is_hidden(entry.name):
                continue
            if _is_folder(entry):
                inner = entry if isinstance(entry, RemotePath) else _not_above(entry, str(folder))
                todo.append((inner, f"{place}{entry.name}/"))
            elif entry.name.lower().endswith(IMAGE_SUFFIXES) and _is_file_or_lost(entry):
                images.append(entry.name)
                if isinstance(entry, RemotePath):
                    versions[entry.name] = entry.version
            else:
                others.append(entry.name)
        images.sort()
        found.append((place, images, others, array("Q", map(versions.pop, images if versions else ()))))
    return sorted(found, key=lambda each: each[0].removesuffix("/"))  # "a" comes before "a-b", and "a-b" before "a/b"


def _not_above(entry: os.DirEntry[str], folder: str) -> str:
    """The path of a folder in a folder; refused where a link leads to one that holds it, so without end."""
    if entry.is_symlink() and Path(folder).resolve().is_relative_to(Path(entry.path).resolve()):
        raise ValueError(f"SOURCE: {entry.path!r} is a link to a folder that holds it. Remove it.")
    return entry.path


# a link is asked by its path: its entry raises where it leads to itself, or behind a folder that cannot be read


def _is_folder(entry: os.DirEntry[str] | RemotePath) -> bool:
    return os.path.isdir(entry.path) if _is_link(entry) else entry.is_dir()


def _is_file_or_lost(entry: os.DirEntry[str] | RemotePath) -> bool:
    if _is_link(entry):
        return os.path.isfile(entry.path) or not os.path.exists(entry.path)
    return entry.is_file()


def _is_link(entry: os.DirEntry[str] | RemotePath) -> TypeGuard[os.DirEntry[str]]:
    return not isinstance(entry, RemotePath) and entry.is_symlink()


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise OSError(
            f"SOURCE: the folder {error.filename!r} cannot be read ({error.strerror}), so its images would be left "
            "out. Let yourself read it, or move it elsewhere."
        ) from error

"""The image files below a folder: all of them, or a word on why not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from semtransforms.data.metadata import METADATA

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


def is_part(folder: Path) -> bool:
    """Whether a folder of such a name is a part and no class: it holds folders only, or the labels of its images."""
    if (folder / METADATA).is_file():
        return True
    inside = list(folder.iterdir())
    return any(p.is_dir() and not is_hidden(p.name) for p in inside) and not any(map(_is_image, inside))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(path.name) and path.is_file()


def files_below(folder: Path, root: Path) -> tuple[list[Path], list[str]]:
    """The images in a folder and its sub-folders, in ImageFolder's order, and the files of other suffixes.

    What is hidden is left out: trash, thumbnails, older versions. Links are followed, as ImageFolder follows them; one
    that leads nowhere counts as an image that cannot be read.

    Args:
        folder: where to look.
        root: of the source; what is hidden above it does not matter.

    Returns:
        The images' paths, and those of the others.

    Raises:
        OSError: a folder cannot be read.
        ValueError: a link leads to a folder that holds it.
    """
    images: list[Path] = []
    others: list[str] = []
    if not folder.is_dir() or any(map(is_hidden, folder.relative_to(root).parts)):
        return images, others
    for place, names in _visible(folder):
        for path in (place / name for name in sorted(names)):
            if path.suffix.lower() in IMAGE_SUFFIXES and (path.is_file() or not path.exists()):
                images.append(path)
            else:
                others.append(str(path))
    return images, others


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


def _visible(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """The folders below one, in their order, and the files in each; without hidden ones."""
    found = []
    for place, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        folders[:] = [name for name in folders if not is_hidden(name)]
        for link in (Path(place, name) for name in folders):
            if link.is_symlink() and Path(place).resolve().is_relative_to(link.resolve()):
                raise ValueError(f"SOURCE: {str(link)!r} is a link to a folder that holds it. Remove it.")
        found.append((place, [name for name in names if not is_hidden(name)]))
    return ((Path(place), names) for place, names in sorted(found))


def _refuse(error: OSError) -> NoReturn:
    raise OSError(
        f"SOURCE: the folder {error.filename!r} cannot be read ({error.strerror}), so its images would be left out. "
        "Let yourself read it, or move it elsewhere."
    ) from error

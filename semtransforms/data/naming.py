"""Where protected copies go: the names of their files and folders."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain, count
from pathlib import Path


def unique_names(paths: Iterable[Path]) -> list[str]:
    """Name each file by its stem, or by more where another file has that stem already.

    Args:
        paths: relative paths.

    Returns:
        Posix paths without suffix, no two equal even where upper and lower case are (macOS, Windows): of
        ``a.jpg`` and ``a.png`` the first becomes ``a``, the second ``a.png``.
    """
    taken: set[str] = set()
    names = []
    for path in paths:
        candidates = chain([path.stem, path.name], (f"{path.name}-{k}" for k in count(2)))
        name = next(n for c in candidates if (n := path.with_name(c).as_posix()).lower() not in taken)
        taken.add(name.lower())
        names.append(name)
    return names


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

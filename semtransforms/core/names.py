"""What is said of a name that nobody has: the nearest ones that somebody has."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LISTED = 20  # names at most: a library has thousands of networks, which no one reads


def unknown(what: str, name: str, known: Iterable[str], *, near: int = 3, all_in: str = "") -> str:
    """The message for an unknown name, in one wording everywhere.

    Args:
        what: what it should be the name of, such as ``"method"``.
        name: the name given.
        known: the names there are.
        near: how many of the nearest ones to offer.
        all_in: where all names can be seen, when there are too many to list.

    Returns:
        ``unknown method 'semm', did you mean 'sem' or 'em'?``, or the known names where none is near; of
        many, the nearest and where the others are.
    """
    names = list(known)
    nearest = difflib.get_close_matches(name, names, n=near, cutoff=0.4)
    if nearest:
        return f"unknown {what} {name!r}, did you mean {' or '.join(map(repr, nearest))}?"
    if len(names) <= _LISTED:
        return f"unknown {what} {name!r}; known: {', '.join(names)}"
    some = difflib.get_close_matches(name, names, n=near, cutoff=0.0)
    where = f"; all: {all_in}" if all_in else ""
    return f"unknown {what} {name!r}; known: {', '.join(some)} and {len(names) - len(some):,} others{where}"

"""What is said of a name that nobody has: the nearest ones that somebody has."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LISTED = 100  # names at most: a library has thousands of networks, which no one reads


def unknown(what: str, name: str, known: Iterable[str], *, near: int = 3) -> str:
    """The message for an unknown name, in one wording everywhere.

    Args:
        what: what it should be the name of, such as ``"method"``.
        name: the name given.
        known: the names there are.
        near: how many of the nearest ones to offer.

    Returns:
        ``unknown method 'semm', did you mean 'sem' or 'em'?``, or the known names where none is near.
    """
    names = list(known)
    nearest = difflib.get_close_matches(name, names, n=near, cutoff=0.4)
    if nearest:
        return f"unknown {what} {name!r}, did you mean {' or '.join(map(repr, nearest))}?"
    others = f", and {len(names) - _LISTED:,} others" if len(names) > _LISTED else ""
    return f"unknown {what} {name!r}; known: {', '.join(names[:_LISTED])}{others}"

"""Checks of single numbers and words, for configs and arguments: the error names the argument and the value given."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any


def check_number(name: str, value: Any, *, low: float = 0, high: float = math.inf, advice: str = "") -> None:
    """See that a value is a finite number in a range.

    Args:
        name: of the argument, for the message.
        value: what was given.
        low, high: the range, its ends included.
        advice: what to do instead, a sentence.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(_message(name, "a finite number", value, advice))
    if not low <= value <= high:
        wanted = f"a number >= {low:g}" if high == math.inf else f"in {low:g}..{high:g}"
        raise ValueError(_message(name, wanted, value, advice))


def check_integer(name: str, value: Any, *, low: int | None = None, advice: str = "") -> None:
    """See that a value is a whole number.

    Args:
        name: of the argument, for the message.
        value: what was given; NumPy's whole numbers do not count, since JSON does not know them.
        low: the smallest that will do; ``None`` for any.
        advice: what to do instead, a sentence.

    Raises:
        ValueError: it is none, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, int) or (low is not None and value < low):
        raise ValueError(_message(name, "an integer" if low is None else f"an integer >= {low}", value, advice))


def check_choice(name: str, value: Any, choices: Collection[Any]) -> None:
    """See that a value is one of some.

    Args:
        name: of the argument, for the message.
        value: what was given.
        choices: what will do.

    Raises:
        ValueError: it is none of them.
    """
    if value not in choices:
        *most, last = map(repr, choices)
        raise ValueError(f"{name} must be {', '.join(most)} or {last}, got {value!r}.")


def _message(name: str, wanted: str, value: Any, advice: str) -> str:
    return f"{name} must be {wanted}, got {value!r}." + (f" {advice}" if advice else "")

"""Checks of single numbers and words, for configs and arguments: the error names the argument and the value given."""

from __future__ import annotations

import math
from collections.abc import Collection
from fractions import Fraction
from typing import Any

LONGEST = 200  # letters of a value in a message


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
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        raise ValueError(_message(name, "a finite number", value, advice))
    if not low <= value <= high:
        wanted = f"a number >= {low:g}" if high == math.inf else f"in {low:g}..{high:g}"
        raise ValueError(_message(name, wanted, value, advice))


def check_integer(name: str, value: Any, *, low: int | None = None, high: int | None = None, advice: str = "") -> None:
    """See that a value is a whole number.

    Args:
        name: of the argument, for the message.
        value: what was given; NumPy's whole numbers do not count, since JSON does not know them.
        low, high: the smallest and the largest that will do; ``None`` for any.
        advice: what to do instead, a sentence.

    Raises:
        ValueError: it is none, too small or too large.
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or (low is not None and value < low):
        raise ValueError(_message(name, "an integer" if low is None else f"an integer >= {low}", value, advice))
    if high is not None and value > high:
        raise ValueError(_message(name, f"an integer <= {high:,}", value, advice))


def whole_seed(name: str, value: Any) -> int:
    """A seed of noise as a whole number. It is secret: the message does not repeat what was given.

    Args:
        name: of the argument, for the message.
        value: what was given; all that ``int`` takes.

    Raises:
        ValueError: it is no whole number.
    """
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        pass  # the error raised below has no memory of this one, which holds the value
    raise ValueError(
        f"{name} must be a whole number, and what was given is none. It is not repeated here, since a seed is secret."
    )


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
        raise ValueError(f"{name} must be {', '.join(most)} or {last}, got {in_short(value)}.")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of 400 digits
        return False


def _message(name: str, wanted: str, value: Any, advice: str) -> str:
    return f"{name} must be {wanted}, got {in_short(value)}." + (f" {advice}" if advice else "")


def in_short(value: Any) -> str:
    """A value for a message: of what others wrote, such as a config, the beginning."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def parse_radius(text: str | float) -> float:
    """Read a radius as people type it: ``"8/255"``, ``"0.03"`` or a number.

    Args:
        text: a fraction, a decimal or a float, in units of the pixel range.

    Returns:
        The radius as a fraction of the pixel range, in [0, 1].

    Raises:
        ValueError: if it is not a finite number in [0, 1].
    """
    try:
        radius = float(Fraction(text)) if isinstance(text, str) else float(text)
    except (ValueError, ZeroDivisionError, TypeError, OverflowError):
        raise ValueError(f"a radius must be a number such as 8/255, got {text!r}") from None
    if not (math.isfinite(radius) and 0 <= radius <= 1):
        raise ValueError(f"a radius is a fraction of the pixel range in 0..1, got {text!r}. Write 8/255, not 8.")
    return radius

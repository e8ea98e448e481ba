"""How much a config may ask for: far above all use, and far below what would fill a memory or never end.

A config comes from a Hub or a colleague, so it is looked at before anything is made of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from semtransforms.core.checks import check_integer, in_short

MOST: Mapping[str, int] = {
    "num_classes": 1_000_000,
    "width": 4_096,
    "steps_u": 10_000,
    "steps_a": 10_000,
    "num_samples": 1_000,
    "classwise": 10_000,
    "one_pass": 10**9,
    "train_steps": 10**9,
    "batch_size": 10**9,
    "decay_every": 10**9,
    "seed": 2**64 - 1,  # what torch's generators take
}
MOST_CLASSES = {"shortcut-patches": 100_000, "autoregressive": 10_000}  # something is drawn anew for each of them
MOST_PASSES = 1_000_000  # for the noise of one image
LONGEST_SIDE = 16_384  # px
MOST_MEMBERS = 64  # of T, of a choice

# of T's arguments, by a word in their names; the first that is there
MOST_BY_WORD = {"kernel": 63, "padding": 256, "size": 1_024, "resolution": 1_024, "grid": 64, "": 10_000}
DEEPEST = 8  # lists within lists


def check_amounts(values: Mapping[str, Any], image_size: Any, surrogate: str) -> None:
    """See that the numbers of a config are such as somebody may mean.

    Args:
        values: those of ``MOST`` that are set, each a whole number.
        image_size: two numbers of pixels, or ``None``.
        surrogate: by name.

    Raises:
        ValueError: one is too large, or the size is none.
    """
    for name, value in values.items():
        most = min(MOST[name], MOST_CLASSES.get(surrogate, MOST[name])) if name == "num_classes" else MOST[name]
        check_integer(name, value, low=-(2**63) if name == "seed" else None, high=most)
    passes = values["steps_u"] * values["num_samples"]
    if passes > MOST_PASSES:
        raise ValueError(
            f"steps_u * num_samples must be at most {MOST_PASSES:,}, got {passes:,}: the noise of one image takes as "
            "many passes."
        )
    if image_size is not None:
        if not isinstance(image_size, tuple) or len(image_size) != 2:
            raise ValueError(f"image_size must be (height, width) in pixels, got {in_short(image_size)}.")
        for side in image_size:
            check_integer("image_size", side, low=1, high=LONGEST_SIDE)


def check_arguments(name: str, arguments: Any, *, word: str = "", depth: int = 0) -> None:
    """See that the arguments of a transformation are JSON values of a size that somebody may mean.

    Args:
        name: of the transformation.
        arguments: its arguments, or a value among them.
        word: the name of the argument that the value belongs to.
        depth: lists and mappings around it.

    Raises:
        ValueError: a number is not finite or too large, a list too long, or too deep.
    """
    inside: list[tuple[str, Any]] = []
    if depth > DEEPEST:
        raise ValueError(f"transformation {name!r}: its arguments lie deeper than {DEEPEST} lists in each other")
    if isinstance(arguments, Mapping):
        inside = [(str(key), value) for key, value in arguments.items()]
    elif isinstance(arguments, list | tuple):
        inside = [(word, value) for value in arguments]
    elif isinstance(arguments, int | float) and not isinstance(arguments, bool):
        most = next(most for part, most in MOST_BY_WORD.items() if part in word.lower())
        # compared first: a whole number of 400 digits is no float
        if not -most <= arguments <= most or not math.isfinite(arguments):
            raise ValueError(
                f"transformation {name!r}: {word} must be finite and at most {most:,}, got {in_short(arguments)}"
            )
    elif isinstance(arguments, str) and len(arguments) > 200:
        raise ValueError(f"transformation {name!r}: {word} must be a word, got {in_short(arguments)}")
    if len(inside) > MOST_MEMBERS:
        raise ValueError(f"transformation {name!r}: {word or 'it'} has {len(inside):,} values, {MOST_MEMBERS} at most")
    for key, value in inside:
        check_arguments(name, value, word=key, depth=depth + 1)

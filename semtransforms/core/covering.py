"""The size that trainers bring an image to before they crop it."""

from __future__ import annotations

from collections.abc import Sequence


def covering(size: Sequence[int], rectangle: Sequence[int]) -> tuple[int, int]:
    """The size at which an image just covers a rectangle, its shape kept, as torchvision's ``Resize`` has it.

    The side that decides becomes what is wanted, and the other one follows it, rounded down.

    Args:
        size: height and width of the image, in pixels.
        rectangle: height and width; of a square the shorter side of the image decides.

    Returns:
        Height and width.
    """
    (old_height, old_width), (height, width) = size, rectangle
    if height * old_width >= width * old_height:  # the height decides
        return height, old_width * height // old_height
    return old_height * width // old_width, width

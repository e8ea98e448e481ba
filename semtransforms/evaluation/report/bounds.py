"""How sure a share is that was measured on few test images."""

from __future__ import annotations

import math
from statistics import NormalDist

Z = NormalDist().inv_cdf(0.975)  # both bounds together hold 95 times of 100


def accuracy_bounds(accuracy: float, images: int) -> tuple[float, float]:
    """Wilson's interval of a share of images.

    Args:
        accuracy: the share that was found, 0..1.
        images: how many were looked at.

    Returns:
        Lower and upper bound.
    """
    middle = (accuracy + Z**2 / (2 * images)) / (1 + Z**2 / images)
    reach = math.sqrt(accuracy * (1 - accuracy) / images + Z**2 / (4 * images**2)) * Z / (1 + Z**2 / images)
    return middle - reach, middle + reach


def share_bounds(accuracy: float, clean: float, guess: float, images: int) -> tuple[float, float]:
    """Between which values the share still learned lies: (accuracy - guess) / (clean - guess).

    A share s is inside where accuracy - guess - s (clean - guess) may be 0, by the Wilson intervals of both accuracies
    (the method MOVER-R: Newcombe, Statistical Methods in Medical Research 25, 2016). It takes them for independent;
    where the same images are hard for both trainers, the true interval is a little narrower.

    Args:
        accuracy, clean: of the trainer on the protected and on the clean copy, 0..1; the latter above ``guess``.
        guess: accuracy of guessing.
        images: how many test images there are.

    Returns:
        Lower bound, not below 0, and upper bound; infinity where the clean copy may teach nothing.
    """
    (low, high), (clean_low, clean_high) = accuracy_bounds(accuracy, images), accuracy_bounds(clean, images)
    got, gain = accuracy - guess, clean - guess
    lower, upper = 0.0, math.inf
    if low > guess:
        down, up = accuracy - low, clean_high - clean
        lower = (got**2 - down**2) / (got * gain + _root(got, gain, down, up))
    if clean_low > guess:
        up, down = high - accuracy, clean - clean_low
        upper = max(0.0, (got * gain + _root(got, gain, up, down)) / (gain**2 - down**2))
    return lower, upper


def _root(got: float, gain: float, error: float, clean_error: float) -> float:
    """Of the quadratic equation whose solution is a bound."""
    return math.sqrt((got * clean_error) ** 2 + (gain * error) ** 2 - (error * clean_error) ** 2)

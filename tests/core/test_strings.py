"""Strings in one block: a list, but for its memory."""

import pickle
import tracemalloc

import pytest

from semtransforms.core.strings import Strings


def test_it_is_the_list_of_its_strings():
    """A name that is cut or swapped pairs an image with another's copy."""
    wanted = ["cat/1.png", "", "cat/ö.png", "cat/\udcff.png", "x" * 300, "\0", "猫/1.png"]
    ours = Strings(wanted[:3])
    ours.extend(iter(wanted[3:]))
    assert list(ours) == wanted == ours
    assert tuple(wanted) == ours != wanted[1:]
    assert [ours[place] for place in range(-7, 7)] == wanted + wanted
    assert ours[1:6:2] == wanted[1:6:2]
    assert pickle.loads(pickle.dumps(ours)) == ours
    assert not Strings()
    for place in (7, -8):
        with pytest.raises(IndexError):
            ours[place]


def test_it_takes_little_more_than_its_letters():
    """Of four million photographs a list would take a gigabyte."""
    tracemalloc.start()
    ours = Strings(f"class-{number % 10}/IMG_{number:08d}.png" for number in range(20_000))
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(ours) == 20_000
    assert taken < 20_000 * (24 + 8) * 1.3  # what grows keeps some room ahead

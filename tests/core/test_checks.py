"""Numbers and names that are refused, by the argument's name and with the value."""

import numpy as np
import pytest

from semtransforms.core.checks import check_choice, check_integer, check_number
from semtransforms.core.names import unknown


@pytest.mark.parametrize("value", [True, "1", None, float("nan"), float("inf"), -0.1, 2.1, [1]])
def test_what_is_no_number_of_the_range_is_refused(value):
    """True is 1 to Python, and a radius of nan passes every comparison that is written the other way round."""
    with pytest.raises(ValueError, match=r"rho_u .*got .*Write 8/255"):
        check_number("rho_u", value, high=2, advice="Write 8/255.")


@pytest.mark.parametrize("value", [0, 2, 0.5, np.float64(1)])
def test_numbers_of_the_range_pass(value):
    """The ends belong to the range, and NumPy's float is one."""
    check_number("rho_u", value, high=2)


@pytest.mark.parametrize("value", [True, 1.0, "1", None, 0, np.int64(3)])
def test_what_is_no_whole_number_is_refused(value):
    """A config with NumPy's int cannot be written as JSON after hours of a fit."""
    with pytest.raises(ValueError, match=r"steps_u must be an integer >= 1, got "):
        check_integer("steps_u", value, low=1)


def test_a_choice_names_all_that_will_do():
    """The reader should not have to look the words up."""
    check_choice("norm", "l2", ("linf", "l2"))
    with pytest.raises(ValueError, match=r"norm must be 'linf' or 'l2', got 'l3'"):
        check_choice("norm", "l3", ("linf", "l2"))


def test_the_nearest_names_come_first():
    """A typing mistake is mended at first sight; where nothing is near, the reader sees what there is."""
    assert unknown("method", "semm", ["rem", "sem"]) == "unknown method 'semm', did you mean 'sem' or 'rem'?"
    assert unknown("method", "xyz", ["rem", "sem"]) == "unknown method 'xyz'; known: rem, sem"
    assert unknown("x", "q", map(str, range(20))).endswith("18, 19")  # one that is cut hides what is looked for


def test_thousands_of_names_are_not_listed():
    """Else an unknown network fills screens, and the error is lost among names."""
    names = [f"network{number}" for number in range(2000)]
    told = unknown("network", "xyz", names, all_in="timm.list_models()")
    assert told.endswith(" and 1,997 others; all: timm.list_models()")
    assert len(told) < 150

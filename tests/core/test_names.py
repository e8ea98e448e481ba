"""What is said of unknown names."""

import pytest

from semtransforms.core.names import unknown
from semtransforms.evaluation.countermeasures.names import KNOWN, parse_countermeasure


def test_of_many_names_it_is_said_where_all_are():
    """'And 29 others' leaves the user to guess."""
    with pytest.raises(ValueError, match=f"and {len(KNOWN) - 3} others; all: (.*)") as caught:
        parse_countermeasure("qqqq")
    module, _, name = str(caught.value).rpartition("all: ")[2].rpartition(".")
    assert getattr(__import__(module, fromlist=[name]), name) is KNOWN


def test_few_names_are_listed():
    """Who has three classes would have to look them up."""
    assert unknown("class", "9", ["cat", "dog"]) == "unknown class '9'; known: cat, dog"

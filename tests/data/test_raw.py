"""What is known of a dataset before its samples are read."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from semtransforms.data.raw import class_names


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        (["cat", "dog"], ("cat", "dog")),
        (np.array(["cat", "dog"]), ("cat", "dog")),
        (np.array([3, 5]), ("3", "5")),
        (pd.Series(["cat", "dog"]), ("cat", "dog")),
        (pd.Index(["cat", "dog"]), ("cat", "dog")),
        (torch.tensor([3, 5]), ("3", "5")),
        ({"cat": 0, "dog": 1}, ("cat", "dog")),
        ([], None),
        (2, None),
        (None, None),
    ],
)
def test_class_names_of_any_form(classes, names):
    """scikit-learn and pandas give arrays: 'the truth value of an array is ambiguous' names nothing an owner knows."""
    assert class_names(SimpleNamespace(classes=classes)) == names
    assert class_names(SimpleNamespace()) is None

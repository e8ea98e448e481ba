"""Which images of a dataset are protected, and what is known of them under the names that samplers ask for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from semtransforms.data.metadata import record_above
from semtransforms.data.raw import unwrap_subsets
from semtransforms.data.tables import is_protected

KNOWN = ("targets", "samples", "class_to_idx")  # what torchvision's datasets keep beside their samples


def choose(size: int, fraction: float, indices: Sequence[int] | Tensor | None, seed: int) -> NDArray[np.int64]:
    """Sorted positions of the images to protect; arguments as for ``ProtectedDataset``.

    Raises:
        ValueError: there are none, or an argument does not fit.
    """
    if size == 0:
        raise ValueError("dataset is empty: there is nothing to protect. Check its path and split.")
    if indices is None:
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction must be in (0, 1], got {fraction}. For no protection use the dataset itself.")
        if fraction == 1:
            return np.arange(size)
        draw = np.random.default_rng(int.from_bytes(hashlib.sha256(str(seed).encode()).digest(), "little"))
        return np.sort(draw.permutation(size)[: max(1, round(fraction * size))])
    if fraction != 1:
        raise ValueError(f"fraction={fraction} and indices were both given. Pass one of them.")
    chosen = np.asarray(indices)
    if chosen.ndim != 1 or chosen.size == 0 or chosen.dtype.kind not in "iu":
        raise ValueError(f"indices must be a sequence of whole numbers, at least one, got {indices!r}.")
    wrong = chosen[(chosen < 0) | (chosen >= size)]
    if wrong.size:
        raise ValueError(f"indices must be in 0..{size - 1}, got {wrong[0]}.")
    return np.unique(chosen).astype(np.int64)


def is_protected_copy(dataset: Any) -> bool:
    """Whether a dataset's own images were protected and published before: in a folder, or in rows of `datasets`."""
    root = getattr(dataset, "root", None)
    if isinstance(root, (str, Path)) and hasattr(dataset, "samples"):
        return record_above(Path(root)) is not None
    if type(dataset).__module__.partition(".")[0] == "datasets":
        return any(map(is_protected, dataset.data.columns))
    return False


def known_of(dataset: Any, name: str) -> Any:
    """What a dataset keeps beside its samples; of a subset's dataset, for the subset's rows.

    Args:
        dataset: of raw samples.
        name: one of ``KNOWN``.

    Raises:
        AttributeError: it has no such thing.
    """
    inner, rows = unwrap_subsets(dataset, np.arange(len(dataset)))
    value = getattr(inner, name)
    if inner is dataset or name == "class_to_idx":
        return value
    return value[rows] if isinstance(value, (Tensor, np.ndarray)) else [value[row] for row in rows.tolist()]

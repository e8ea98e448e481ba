"""Raw samples: what lies behind a dataset's transforms and subsets."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision.datasets.vision import StandardTransform

from semtransforms.data.images import LABEL_REMEDY, UNDECODABLE, as_pixels, check_labels


def _same(value: Any) -> Any:
    return value


def _same_pair(image: Any, label: Any) -> tuple[Any, Any]:
    return image, label


# What stands where a transform was: many datasets call theirs without asking for None. Functions of the module, so
# that the datasets travel to spawned workers.
_NOTHING: dict[str, Callable[..., Any]] = {"transform": _same, "target_transform": _same, "transforms": _same_pair}


def wrapped(dataset: Any) -> Iterator[Any]:
    """A dataset and what it wraps, from the outside in: a ``Subset``, its ``dataset``, and so on."""
    while dataset is not None:
        yield dataset
        dataset = getattr(dataset, "dataset", None)


def class_names(dataset: Any) -> tuple[str, ...] | None:
    """The label names of a data set, as torchvision keeps them, in any form; ``None`` where it has none."""
    names = getattr(dataset, "classes", None)
    if not isinstance(names, Iterable):  # a number of classes, which others keep under that name
        return None
    return tuple(str(name) for name in (names.tolist() if isinstance(names, Tensor) else names)) or None


def label_names(dataset: Any) -> Sequence[str] | None:
    """The label names as torchvision keeps them, or as ``datasets`` does (``ClassLabel``), or None."""
    features = getattr(dataset, "features", None)
    label = features.get("label") if isinstance(features, Mapping) else None
    return class_names(dataset) or getattr(label, "names", None)


def datasets_inside(dataset: Any) -> Iterator[Any]:
    """A dataset and all that it holds under any name, also in lists (``ConcatDataset``), each once."""
    known: set[int] = set()
    todo = [dataset]
    while todo:
        part = todo.pop()
        if id(part) in known:
            continue
        known.add(id(part))
        yield part
        for held in getattr(part, "__dict__", {}).values():
            inside = held if isinstance(held, (list, tuple)) else (held,)
            todo += [each for each in inside if isinstance(each, Dataset) or each is getattr(part, "dataset", None)]


def unwrap_subsets(
    dataset: Any, rows: NDArray[np.integer[Any]], *, subclasses: bool = False
) -> tuple[Any, NDArray[np.int64]]:
    """Find what lies inside of ``Subset``.

    Args:
        dataset: a dataset, a ``Subset`` of it, a ``Subset`` of that, ...
        rows: int (N,), positions in it.
        subclasses: go through subclasses of ``Subset`` too. They may do anything with what they read, so for messages
            only.

    Returns:
        The innermost dataset and the positions in it, int64 (N,). Positions that a ``Subset`` counts from the end
        (``Subset(data, [-1])``) are counted from the start.
    """
    while type(dataset) is Subset or (subclasses and isinstance(dataset, Subset)):
        rows, dataset = np.asarray(dataset.indices)[rows], dataset.dataset
        rows = np.where(rows < 0, rows + len(dataset), rows)
    return dataset, rows.astype(np.int64)


def take_off_transforms(dataset: Any) -> tuple[Any, Callable[[Any, Any], tuple[Any, Any]] | None]:
    """Take ``transform``, ``target_transform`` and ``transforms`` off a copy of a dataset and of what it wraps.

    Args:
        dataset: a map-style dataset, or a chain of them (``Subset`` of ``Subset`` of ``CIFAR10``), never changed.

    Returns:
        The copy, which gives raw samples, and the function ``(image, label) -> (image, label)`` that does what was
        taken off, inner transforms first; None when there was nothing.

    Raises:
        TypeError: the dataset joins datasets (``ConcatDataset``) that have transforms of their own.
    """
    if any(take_off_transforms(part)[1] for part in getattr(dataset, "datasets", None) or ()):
        raise TypeError(
            f"dataset is a {type(dataset).__name__} of datasets with transforms of their own. Protect each "
            "part, then join them: ConcatDataset([ProtectedDataset(a), ProtectedDataset(b)])."
        )
    raw, steps = dataset, []
    if hasattr(getattr(dataset, "dataset", None), "__getitem__"):
        inner, step = take_off_transforms(dataset.dataset)
        if step:
            raw = copy.copy(dataset)
            raw.dataset = inner
            steps.append(step)
    found = {
        name: value
        for name in ("transform", "target_transform", "transforms")
        if callable(value := getattr(dataset, name, None)) and value not in _NOTHING.values()
    }
    if found:
        raw = copy.copy(dataset) if raw is dataset else raw
        for name in found:
            setattr(raw, name, _NOTHING[name])
        # torchvision keeps transform and target_transform a second time as a StandardTransform
        if isinstance(found.get("transforms"), StandardTransform) and hasattr(dataset, "transform"):
            del found["transforms"]
        if found:
            steps.append(_Transforms(**found))
    if not steps:
        return raw, None
    return raw, steps[0] if len(steps) == 1 else _InTurn(steps)


@dataclass(frozen=True)
class _Transforms:
    """What torchvision does with a sample: a joint transform, or one for the image and one for the label."""

    transform: Callable[[Any], Any] | None = None
    target_transform: Callable[[Any], Any] | None = None
    transforms: Callable[[Any, Any], tuple[Any, Any]] | None = None

    def __call__(self, image: Any, label: Any) -> tuple[Any, Any]:
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            label = self.target_transform(label)
        return (image, label) if self.transforms is None else self.transforms(image, label)


@dataclass(frozen=True)
class _InTurn:
    steps: Sequence[Callable[[Any, Any], tuple[Any, Any]]]

    def __call__(self, image: Any, label: Any) -> tuple[Any, Any]:
        for step in self.steps:
            image, label = step(image, label)
        return image, label


def read_sample(dataset: Any, index: int) -> tuple[Any, Any]:
    """Read one (image, label) from a map-style dataset, naming the sample that does not decode.

    Args:
        dataset: gives ``(image, label)`` tuples, or rows ``{"image": ..., "label": ...}``.
        index: position in the dataset.

    Returns:
        The image and the label as the dataset gives them.

    Raises:
        ValueError: the image does not decode.
        TypeError: the sample is neither a pair nor such a row.
    """
    try:
        sample = dataset[index]
        pair = _pair(sample)
        if pair is not None and isinstance(pair[0], Image.Image):
            pair[0].load()  # PIL decodes late; a truncated file must fail here, where its index is known
    except UNDECODABLE as error:
        raise ValueError(
            f"dataset: the image at index {index}{_path_of(dataset, index)} does not decode ({error}). "
            "Repair or remove the file, or leave it out (torch.utils.data.Subset)."
        ) from error
    if pair is None:
        raise TypeError(
            f"dataset must give (image, label), or rows with columns 'image' and 'label', got "
            f"{_describe(sample)} at index {index}. For other columns use "
            "dataset.map(SEMProtect(...).map_fn(image_column, label_column), batched=True)."
        )
    return pair


def _pair(sample: Any) -> tuple[Any, Any] | None:
    """The image and the label of a sample, or None where it is neither a pair nor such a row."""
    if isinstance(sample, (tuple, list)) and len(sample) == 2:
        return sample[0], sample[1]
    if isinstance(sample, Mapping) and "image" in sample and "label" in sample:
        return sample["image"], sample["label"]
    return None


def read_samples(dataset: Any, rows: Iterable[int] | None = None) -> Iterator[tuple[Tensor, int]]:
    """Read the raw samples of a map-style dataset one by one, without its transforms.

    Args:
        dataset: any map-style dataset of (PIL image or uint8 tensor, int label), or of such rows.
        rows: positions of those to read; default: all.

    Yields:
        Pixels, uint8 (3, H, W), and the label.

    Raises:
        ValueError: an image does not decode, or a label is missing; the message names the index.
        TypeError: an image is float or a label is not a whole number; the message names the index.
    """
    raw, _ = take_off_transforms(dataset)
    for index in range(len(raw)) if rows is None else rows:
        yield read_pixels(raw, index)


def read_pixels(dataset: Any, index: int) -> tuple[Tensor, int]:
    """Read one raw sample, checked.

    Args:
        dataset: gives raw samples (:func:`take_off_transforms`).
        index: position in it.

    Returns:
        Pixels, uint8 (3, H, W), and the label.

    Raises:
        ValueError, TypeError: as for :func:`read_samples`.
    """
    image, label = read_sample(dataset, index)
    return sample_pixels(image, index), sample_label(label, index)


def sample_pixels(image: Any, index: int) -> Tensor:
    """``as_pixels`` whose errors name the sample's index."""
    try:
        return as_pixels(image)
    except (TypeError, ValueError) as error:
        raise type(error)(f"dataset: sample {index}: {error}") from error


def sample_label(label: Any, index: int) -> int:
    """A sample's label as an int; the error names the sample's index."""
    if isinstance(label, Tensor) and label.numel() == 1:
        label = label.item()
    if type(label) is int and label >= 0:  # as good as all of them
        return label
    if np.ndim(label) > 0:
        raise TypeError(f"dataset: labels must be whole numbers, got {label!r} at index {index}. {LABEL_REMEDY}")
    return int(check_labels([label], None, place="dataset: ", rows=[index]))


def _describe(sample: Any) -> str:
    if isinstance(sample, Mapping):
        return f"a row with columns {sorted(map(str, sample))}"
    size = f" of {len(sample)}" if isinstance(sample, (tuple, list)) else ""
    return f"a {type(sample).__name__}{size}"


def _path_of(dataset: Any, index: int) -> str:
    """The file behind a sample, where the dataset is a folder of files (or a subset of one)."""
    inner, rows = unwrap_subsets(dataset, np.array([index]), subclasses=True)
    samples = getattr(inner, "samples", None)
    return f" ({samples[rows[0]][0]})" if samples else ""

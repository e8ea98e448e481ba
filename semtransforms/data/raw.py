"""Raw samples: what lies behind a dataset's transforms and subsets."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset
from torchvision.datasets.vision import StandardTransform

from semtransforms.data.images import LABEL_REMEDY, UNDECODABLE, as_pixels, check_labels
from semtransforms.data.opening import load

Step = Callable[[Any, Any], tuple[Any, Any]]  # (image, label) -> (image, label)


class CalledOtherwise(Exception):
    """A dataset does not call its transform with an image alone, so it cannot be taken off."""


def _unchanged(count: int, name: str, values: tuple[Any, ...], keywords: Mapping[str, Any]) -> tuple[Any, ...]:
    if keywords or len(values) != count:
        given = f"keywords ({', '.join(keywords)})" if keywords else f"{len(values)} arguments"
        raise CalledOtherwise(f"calls its {name} with {given}")
    return values


def _same(*values: Any, **keywords: Any) -> Any:
    return _unchanged(1, "transform", values, keywords)[0]


def _same_pair(*values: Any, **keywords: Any) -> tuple[Any, ...]:
    return _unchanged(2, "joint transform", values, keywords)


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


def take_off_transforms(dataset: Any) -> tuple[Any, Step | None]:
    """Take ``transform``, ``target_transform`` and ``transforms`` off a copy of a dataset and of what it wraps.

    Args:
        dataset: a map-style dataset, or a chain of them (``Subset`` of ``Subset`` of ``CIFAR10``), never changed.

    Returns:
        The copy, which gives raw samples, whatever the dataset is set to later; and the function
        ``(image, label) -> (image, label)`` that does what was taken off, inner transforms first; None when there was
        nothing. A ``target_transform`` stays on the copy where the labels are no whole numbers without it.

    Raises:
        TypeError: the dataset joins datasets (``ConcatDataset``) that have transforms of their own.
    """
    raw, steps = dataset, []
    if isinstance(parts := getattr(dataset, "datasets", None), (list, tuple)):
        taken = [take_off_transforms(part) for part in parts]
        if any(step for _, step in taken):
            raise TypeError(
                f"dataset is a {type(dataset).__name__} of datasets with transforms of their own. Protect each "
                "part, then join them: ConcatDataset([ProtectedDataset(a), ProtectedDataset(b)])."
            )
        if any(new is not old for (new, _), old in zip(taken, parts, strict=True)):
            raw = copy.copy(dataset)
            raw.datasets = [new for new, _ in taken]
    if hasattr(getattr(dataset, "dataset", None), "__getitem__"):
        inner, step = take_off_transforms(dataset.dataset)
        if inner is not dataset.dataset:
            raw = copy.copy(raw)
            raw.dataset = inner
        if step:
            steps.append(step)
    named = [name for name in _NOTHING if hasattr(dataset, name)]
    if named and raw is dataset:
        raw = copy.copy(dataset)  # even without a transform: one that is set later must not come under the noise
    found = {
        name: value for name in named if callable(value := getattr(dataset, name)) and value not in _NOTHING.values()
    }
    if found:
        _take_off(raw, found)
        if isinstance(found.get("transforms"), (_Transforms, _InTurn)):  # ours, which have the others inside
            found = {"transforms": found["transforms"]}
        # torchvision keeps transform and target_transform a second time as a StandardTransform
        elif isinstance(found.get("transforms"), StandardTransform) and hasattr(dataset, "transform"):
            del found["transforms"]
        if found:
            steps.append(_Transforms(**found))
    if not steps:
        return raw, None
    return raw, steps[0] if len(steps) == 1 else _InTurn(tuple(steps))


def _take_off(raw: Any, found: dict[str, Any]) -> None:
    """Put what does nothing where transforms were; what makes the label stays, and is no longer ``found``."""
    for name in found:
        setattr(raw, name, _NOTHING[name])
    makes_label = found.get("target_transform")
    if makes_label is None or _has_whole_labels(raw):
        return
    raw.target_transform = found.pop("target_transform")
    if isinstance(found.get("transforms"), StandardTransform):
        raw.transforms = StandardTransform(None, makes_label)


def _has_whole_labels(raw: Any) -> bool:
    """Whether the label of the first image is a whole number; so it is taken where it cannot be read."""
    try:
        label = whole_label(read_sample(raw, 0)[1])
    except Exception:  # whatever it is, reading the images will meet it, and name the image
        return True
    return isinstance(label, (int, np.integer)) and not isinstance(label, bool)


def keeps_target_transform(raw: Any) -> bool:
    """Whether a dataset of raw samples still has a ``target_transform``, since its labels are no numbers without."""
    value = getattr(raw, "target_transform", None)
    return callable(value) and value not in _NOTHING.values()


def replaced(transforms: Step | None, **changes: Callable[..., Any] | None) -> Step:
    """What a dataset does with a sample, after its ``transform`` or ``target_transform`` was set to another one.

    Args:
        transforms: what it did, as from :func:`take_off_transforms`.
        changes: the new ones; the outermost dataset's give way to them.
    """
    if isinstance(transforms, _InTurn):
        return _InTurn((*transforms.steps[:-1], replaced(transforms.steps[-1], **changes)))
    if isinstance(transforms, _Transforms):
        return replace(transforms, **changes)
    return _Transforms(transforms=transforms, **changes)  # none, or a joint one that was set by hand


def current(transforms: Step | None, name: str) -> Callable[..., Any] | None:
    """The ``transform`` or ``target_transform`` that :func:`replaced` would replace."""
    last = transforms.steps[-1] if isinstance(transforms, _InTurn) else transforms
    return getattr(last, name, None)


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
    steps: tuple[Step, ...]

    def __call__(self, image: Any, label: Any) -> tuple[Any, Any]:
        for step in self.steps:
            image, label = step(image, label)
        return image, label


def read_sample(dataset: Any, index: int) -> tuple[Any, Any]:
    """The image and the label of :func:`read_whole`."""
    return pair_of(read_whole(dataset, index))


def read_whole(dataset: Any, index: int) -> Any:
    """Read one sample from a map-style dataset, naming the one that does not decode.

    Args:
        dataset: gives ``(image, label)`` tuples, or rows ``{"image": ..., "label": ...}``.
        index: position in the dataset.

    Returns:
        The sample as the dataset gives it.

    Raises:
        ValueError: the image does not decode.
        TypeError: the sample is neither a pair nor such a row, or the dataset calls its transform in a way of its own.
    """
    try:
        sample = dataset[index]
        pair = _pair(sample)
        if pair is not None and isinstance(pair[0], Image.Image):
            load(pair[0])  # PIL decodes late; a truncated file must fail here, where its index is known
    except CalledOtherwise as error:
        raise TypeError(
            f"dataset {error}, which cannot be taken off like one of an image alone. Construct the dataset with "
            "transform=None, and set on the protected one what comes after the noise: protected.transform = lambda "
            "image: t(image=numpy.asarray(image))['image'], or, of image and label, protected.transforms = t."
        ) from error
    except UNDECODABLE as error:
        if isinstance(error, RuntimeError) and not _is_pillows(error):
            raise  # torch's word for mistakes in a dataset's own code
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
    return sample


def pair_of(sample: Any) -> tuple[Any, Any]:
    """The image and the label of a sample that :func:`read_whole` has read."""
    return (sample["image"], sample["label"]) if isinstance(sample, Mapping) else (sample[0], sample[1])


def _is_pillows(error: BaseException) -> bool:
    """Whether an error was raised where Pillow reads a file."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith("PIL.")


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
    if isinstance(dataset, IterableDataset):  # which has a __getitem__ that does nothing, and may have a length
        raise TypeError(
            f"dataset must be map-style (have __getitem__ and __len__), got {type(dataset).__name__}, which streams. "
            "Read its samples into a list first: list(dataset)."
        )
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
    label = whole_label(label)
    if type(label) is int and label >= 0:  # as good as all of them
        return label
    if np.ndim(label) > 0:
        raise TypeError(f"dataset: labels must be whole numbers, got {label!r} at index {index}. {LABEL_REMEDY}")
    return int(check_labels([label], None, place="dataset: ", rows=[index]))


def whole_label(label: Any) -> Any:
    """A label, taken out of the array or tensor of one value that some datasets give it in (MedMNIST)."""
    if isinstance(label, (Tensor, np.ndarray)) and np.prod(label.shape) == 1:
        return label.item()
    return label


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

"""The function that ``datasets.Dataset.map`` calls: a column of images in, PNG bytes with noise out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import datasets
import multiprocess  # what datasets starts its processes with
import PIL.Image
import torch
from datasets.utils._dill import pklregister
from torch import Tensor

from semtransforms.data.images import UNDECODABLE, RGBImage, encode_png, to_rgb, without_colour_key
from semtransforms.data.tables import PROTECTED, is_protected
from semtransforms.protect.batch import check_class_count, warn_of_other_names


class MapFunction:
    """Protect one column of a batch; made by ``SEMProtect.map_fn``.

    Images come back as freshly encoded PNG bytes without a file's path: given a PIL image, ``datasets`` would store
    only the path of the clean file it was read from, or encode it as JPEG again.

    Args:
        protect: (list of uint8 (3, H, W), N labels, device) -> list of uint8 (3, H, W).
        identity: () -> what decides the result of ``protect``; hashed in its place, so plain values only.
        image_column: column of ``datasets.Image``, or of ``{"bytes", "path"}``.
        label_column: column of whole numbers.
        device: where ``protect`` computes; ``None`` or ``"cuda"`` gives each rank an accelerator of its own.
        num_classes: how many classes a ``ClassLabel`` column must have; ``None`` where ``protect`` maps its labels.
        classes: their names, where the generator has some; a column with some of them at other numbers is warned of.
    """

    def __init__(
        self,
        protect: Callable[[list[Tensor], Sequence[Any], torch.device | str | None], list[Tensor]],
        identity: Callable[[], tuple[Any, ...]],
        image_column: str,
        label_column: str,
        device: torch.device | str | None,
        num_classes: int | None,
        classes: tuple[str, ...] | None = None,
    ) -> None:
        self.protect = protect
        self.identity = identity
        self.image_column = image_column
        self.label_column = label_column
        self.device = device
        self.num_classes = num_classes
        self.classes = classes

    def __call__(self, batch: Mapping[str, Any], *extra: Any) -> dict[str, list[dict[str, bytes | str]]]:
        """Protect the images of a batch.

        Args:
            batch: columns; only the two named ones are read.
            extra: what ``with_indices=True`` adds (numbers of the rows, for messages) and ``with_rank=True`` (an int).

        Returns:
            The image column alone, N times ``{"bytes": PNG, "path": PROTECTED}``.

        Raises:
            TypeError: ``batched=True`` is missing, or a value is not an image or not a label.
            ValueError: a column does not exist, or is protected already, an image does not decode, a label is missing
                or out of range, the label column has another number of classes than the generator.
        """
        if not isinstance(batch, Mapping):
            raise TypeError(
                f"this function takes batches with all columns, got a {type(batch).__name__}. Leave input_columns out: "
                "dataset.map(..., batched=True)."
            )
        for name in (self.image_column, self.label_column):
            if name not in batch:
                raise ValueError(
                    f"column {name!r} does not exist, the dataset has {sorted(batch)}. "
                    f"Name them: map_fn(image_column, label_column)."
                )
        labels = batch[self.label_column]
        if isinstance(labels, int | None):
            raise TypeError("this function takes batches, got a single row. Call dataset.map(..., batched=True).")
        rows: Sequence[int] | None = next((value for value in extra if isinstance(value, Sequence)), None)
        rank = next((value for value in extra if isinstance(value, int)), None)
        device = _device_of(rank, self.device)
        features = getattr(getattr(batch, "formatter", None), "features", None) or {}  # a stream gives plain dicts
        self._check_features(features)
        if hasattr(batch, "pa_table") and is_protected(column := batch.pa_table[self.image_column]):
            if not is_protected(column, wholly=True):
                raise ValueError(self._protected_already)
            warnings.warn(f"{self._protected_already} These rows are left as they are.", stacklevel=2)
            images: list[dict[str, bytes | str]] = column.to_pylist()
            return {self.image_column: images}
        clean = self._read(batch, rows)
        try:
            protected = self.protect([image.pixels for image in clean], labels, device)
        except TypeError as error:
            raise TypeError(f"column {self.label_column!r}: {error} {_origin(rows)}") from error
        except ValueError as error:
            raise ValueError(f"column {self.label_column!r}: {error} {_origin(rows)}") from error
        pngs = [encode_png(pixels, image.alpha) for pixels, image in zip(protected, clean, strict=True)]
        return {self.image_column: [{"bytes": png, "path": PROTECTED} for png in pngs]}

    @property
    def _protected_already(self) -> str:
        return (
            f"column {self.image_column!r} is protected already: twice the noise would leave the radius. Map the clean "
            "dataset."
        )

    def _check_features(self, features: Mapping[str, Any]) -> None:
        mode = getattr(features.get(self.image_column), "mode", None)
        if mode not in (None, "RGB", "RGBA"):
            raise ValueError(
                f"column {self.image_column!r} is Image(mode={mode!r}): every read would convert the "
                f"noise away. Call dataset.cast_column({self.image_column!r}, datasets.Image())."
            )
        names = getattr(features.get(self.label_column), "names", None)
        if self.num_classes is not None:
            check_class_count(f"column {self.label_column!r}", names, self.num_classes)
            warn_of_other_names(f"column {self.label_column!r}", names, self.classes)

    def _read(self, batch: Mapping[str, Any], rows: Sequence[int] | None) -> list[RGBImage]:
        try:
            values = batch[self.image_column]
        except UNDECODABLE:
            # datasets decodes a whole column and does not say which row fails: take the encoded ones, one by one
            if not hasattr(batch, "pa_table"):
                raise
            values = batch.pa_table[self.image_column].to_pylist()
        images = []
        for index, value in enumerate(values):
            place = f"column {self.image_column!r}, index {index}:"
            if not isinstance(value, PIL.Image.Image) and not (isinstance(value, dict) and "bytes" in value):
                raise TypeError(
                    f"{place} expected an image or {{'bytes', 'path'}}, got {type(value).__name__}. Call "
                    "dataset.with_format(None), or dataset.cast_column(column, datasets.Image()). "
                    f"{_origin(rows)}"
                )
            if isinstance(value, dict) and value.get("path") == PROTECTED:
                raise ValueError(self._protected_already)
            try:
                image = value if isinstance(value, PIL.Image.Image) else _decode(value)
                image.load()  # a stream may hand over images that are opened only
            except UNDECODABLE as error:
                path = value.get("path") if isinstance(value, dict) else None
                raise ValueError(
                    f"column {self.image_column!r}: the image at index {index}"
                    f"{f' ({path})' if path else ''} does not decode ({error}). Repair it, or leave the "
                    f"row out with dataset.select. {_origin(rows)}"
                ) from error
            try:
                images.append(to_rgb(without_colour_key(image)))
            except (TypeError, ValueError) as error:
                raise type(error)(f"{place} {error} {_origin(rows)}") from error
        return images


@pklregister(MapFunction)  # type: ignore[untyped-decorator]
def _save_for_hash(pickler: Any, function: MapFunction) -> None:
    # This pickler of datasets serves its hashes alone; workers get the function from another. Hashing what decides
    # the result instead of the weights is cheap, and equal for a generator in memory and the same one read by name.
    state = (*function.identity(), function.image_column, function.label_column)
    pickler.save_reduce(MapFunction, state, obj=function)


def _decode(value: dict[str, Any]) -> PIL.Image.Image:
    image: PIL.Image.Image = datasets.Image().decode_example({"path": None, **value})
    return image


def _device_of(rank: int | None, device: torch.device | str | None) -> torch.device | str | None:
    """The device of a process: one accelerator per rank unless one is named."""
    forked = multiprocess.parent_process() is not None and multiprocess.get_start_method(allow_none=True) == "fork"
    on_cuda = torch.cuda.is_available() if device is None else torch.device(device).type == "cuda"
    if forked and on_cuda:
        raise RuntimeError(
            "a forked process cannot use CUDA. Call multiprocess.set_start_method('spawn', force=True) "
            "before dataset.map(num_proc=...), or SEMProtect(..., device='cpu')."
        )
    if forked:
        torch.set_num_threads(1)  # the parent's threads do not exist here: waiting for them would hang
    if rank is None or not on_cuda or (device is not None and torch.device(device).index is not None):
        return device
    return torch.device("cuda", rank % torch.cuda.device_count())


def _origin(rows: Sequence[int] | None) -> str:
    if rows is None:
        return "Index 0 is the batch's first row; map(..., with_indices=True) gives its number in the dataset."
    return f"Index 0 is row {rows[0]} of the dataset."

"""Tables of images: what `datasets` has saved, Parquet, and data sets on the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from semtransforms.core.files import read_json
from semtransforms.data.metadata import METADATA
from semtransforms.data.remote import Place

FORMS = f"""an image folder with one sub-folder per class (photos/cat/1.jpg) or with labels in {METADATA}, \
a folder written by datasets' save_to_disk, a Parquet file, a folder or a 'pattern*.parquet' of them, \
likewise WebDataset's tars, \
the address of any of these (s3://bucket/photos), \
a dataset on the Hugging Face Hub (uoft-cs/cifar10), \
or torchvision:NAME:ROOT (torchvision:CIFAR10:./data)"""


def is_tabular(folder: Place) -> bool:
    """Whether a folder holds a table of images instead of image files."""
    return is_saved(folder) or _holds_parquet(folder)


def is_saved(folder: Place) -> bool:
    """Whether ``save_to_disk`` wrote it."""
    return (folder / "dataset_dict.json").exists() or (folder / "state.json").exists()


def _holds_parquet(folder: Place) -> bool:
    """Whether Parquet lies there, or in ``data``, as in a clone of a dataset on the Hub."""
    return any(any(folder.glob(pattern)) for pattern in ("*.parquet", "data/*.parquet"))


# Where a table keeps an image's file name: a protected image's, so that it is not protected again. No file has it.
PROTECTED = "semtransforms:protected"


def is_protected(column: Any, *, wholly: bool = False) -> bool:
    """Whether a column of images, as Arrow has it, holds some that were protected here, or nothing else."""
    if not str(column.type).startswith("struct<") or column.type.get_field_index("path") < 0:
        return False
    names = {name for chunk in column.chunks for name in chunk.field("path").unique().to_pylist()}
    return names == {PROTECTED} if wholly else PROTECTED in names


def homes_of_files(path: Path) -> tuple[Path, ...]:
    """The folders in which the files may lie that a table names in the place of images.

    Args:
        path: the table, or the folder of tables; nothing there for a name on the Hub, whose files are in the cache.
    """
    import datasets

    if path.is_dir():
        return (path.resolve(),)
    if path.exists() or any(letter in path.name for letter in "*?["):
        return (path.parent.resolve(),)
    caches = (datasets.config.HF_DATASETS_CACHE, datasets.config.DOWNLOADED_DATASETS_PATH, constants.HF_HUB_CACHE)
    return tuple(Path(cache).resolve() for cache in caches)


def image_of_row(value: Any, homes: Sequence[Path]) -> Path | bytes:
    """What an image of a table is opened from.

    Args:
        value: of the image column, as it is stored: bytes, or ``{"bytes", "path"}``.
        homes: of :func:`homes_of_files`. A table from elsewhere could else have any picture of its reader's published.

    Returns:
        The bytes of a file, or the path of one.

    Raises:
        ValueError: there is no image, or a file that lies elsewhere.
    """
    data, name = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if data is None and name is None:
        raise ValueError("there is no image in this row")
    if data is None and isinstance(name, str):
        place = Path(name) if Path(name).is_absolute() else homes[0] / name
        if not any(place.resolve().is_relative_to(home) for home in homes):
            raise ValueError(
                f"the table has no bytes for it and names the file {name!r}, which lies outside of its folder"
            )
        if not place.is_file():
            raise ValueError(f"the table has no bytes for it and names the file {name!r}, which is not there")
        return place
    if not isinstance(data, bytes):
        raise ValueError(f"it is a {type(data or name).__name__} and no image")
    return data


def _cache_for(files: list[Path]) -> str:
    """A folder of `datasets`' cache for these bytes: it would take a new file of the same size and time for the old."""
    import datasets

    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return str(Path(datasets.config.HF_DATASETS_CACHE, f"semtransforms-{digest.hexdigest()[:32]}"))


def identity_of(table: Any) -> str:
    """What tells a table from another one: the SHA-256 of its Parquet files, or of others what `datasets` has."""
    found = (re.search(r"semtransforms-([0-9a-f]{32})[\\/]", each["filename"]) for each in table.cache_files)
    return next((each[1] for each in found if each), str(table._fingerprint))


# what `datasets` and Arrow raise of a table, or of what it says of itself, that they cannot make sense of
_UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    IndexError,
    RecursionError,
    NotImplementedError,
)


def _check_saved(spec: str, folder: Path) -> None:
    """See that the files which a saved table names lie beside the record that names them.

    Raises:
        ValueError: one lies elsewhere, or a record cannot be read.
    """
    for record in (folder / "state.json", *folder.glob("*/state.json")):
        if not record.is_file():
            continue
        try:
            names = [each["filename"] for each in read_json(record)["_data_files"]]
        except (TypeError, KeyError) as error:
            raise ValueError(f"SOURCE {spec!r}: {record} is damaged ({error!r}). Save the dataset again.") from error
        for name in names:
            if not isinstance(name, str) or Path(name).name != name:
                raise ValueError(
                    f"SOURCE {spec!r}: {record} names the file {name!r}, which lies outside of its folder."
                )


def load_table(spec: str, path: Path, split: str | None) -> tuple[str, Any]:
    """Load one part of a table of images.

    Args:
        spec: as it was given, for messages.
        path: the same as a path; nothing there for a name on the Hub.
        split: the part; ``None`` for the only one, or ``"train"``.

    Returns:
        The part's name, and the part, a ``datasets.Dataset``.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    import datasets

    if path.is_dir() and is_saved(path):
        _check_saved(spec, path)
        try:
            table = datasets.load_from_disk(str(path))
        except _UNREADABLE as error:
            raise ValueError(f"SOURCE {spec!r} is no folder that save_to_disk wrote ({_first_line(error)}).") from error
    elif path.is_dir():
        try:
            # finds the parts by the names of the files, as on the Hub
            cache = _cache_for(sorted(path.rglob("*.parquet")))
            table = datasets.load_dataset(str(path), cache_dir=cache)
        except (datasets.exceptions.DatasetsError, *_UNREADABLE) as error:
            raise ValueError(
                f"SOURCE {spec!r}: its Parquet files cannot be loaded together ({_first_line(error)}). "
                "Give one of them, or a 'pattern*.parquet'."
            ) from error
    elif path.exists() or (any(c in spec for c in "*?[") and list(path.parent.glob(path.name))):
        files = [str(path)] if path.exists() else sorted(map(str, path.parent.glob(path.name)))
        if not all(file.endswith(".parquet") for file in files):
            raise ValueError(f"SOURCE {spec!r} is a file that is not Parquet. SOURCE is {FORMS}.")
        try:
            # files that were named are one part
            table = datasets.load_dataset("parquet", data_files=files, cache_dir=_cache_for([Path(f) for f in files]))
        except (datasets.exceptions.DatasetsError, *_UNREADABLE) as error:
            raise ValueError(f"SOURCE {spec!r} is not readable as Parquet ({_first_line(error)}).") from error
    elif re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", spec):
        try:
            table = datasets.load_dataset(spec)
        except Exception as error:  # the Hub's client raises its own, requests' and httpx's families of errors
            raise ValueError(
                f"SOURCE {spec!r} is nothing on this disk, and as a dataset on the Hub it cannot be loaded "
                f"({_first_line(error)}). SOURCE is {FORMS}."
            ) from error
    else:
        raise ValueError(f"SOURCE {spec!r} does not exist. SOURCE is {FORMS}.")
    parts = table if isinstance(table, dict) else {str(table.split or "train"): table}
    if split is None:
        split = next(iter(parts)) if len(parts) == 1 else "train"
    if split not in parts:
        raise ValueError(f"SOURCE {spec!r} has no split {split!r}. Give --split, one of: {', '.join(parts)}.")
    return split, parts[split]


def _first_line(error: BaseException) -> str:
    """What went wrong in the beginning: `datasets` says at the top only that something did."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).partition("\n")[0]


def find_column(spec: str, kind: str, given: str | None, features: Any, typed: list[str]) -> str:
    """The column given, or the one of the right type, or the one of the usual name.

    Args:
        spec: the table as it was given, for messages.
        kind: ``"image"`` or ``"label"``.
        given: a column's name, or ``None``.
        features: the table's columns by name.
        typed: those of the right type.

    Returns:
        Its name.

    Raises:
        ValueError: there is no such column, or no telling which.
    """
    remedy = f"Give --{kind}-column, one of: {', '.join(features)}."
    if given is not None and given not in features:
        raise ValueError(f"SOURCE {spec!r} has no column {given!r}. {remedy}")
    found = given or (typed[0] if len(typed) == 1 else kind if kind in features else None)
    if found is None:
        raise ValueError(f"SOURCE {spec!r} does not say which of its columns is the {kind}. {remedy}")
    return found

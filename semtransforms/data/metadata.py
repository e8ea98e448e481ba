"""Labels in ``metadata.csv``, a table beside the images, as `datasets` reads it too."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from semtransforms.data.remote import Place

METADATA = "metadata.csv"
FILE_COLUMN = "file_name"
PROTECTION = "protection.json"  # lies in a protected copy; where it says that labels are in METADATA, they are numbers


def read_metadata(
    root: Place, label_column: str | None = None, is_there: Callable[[str], bool] | None = None
) -> dict[str, str]:
    """Read which label each image of a folder has.

    Args:
        root: the folder with ``metadata.csv``: UTF-8, with a head, and the path of each image in ``file_name``.
        label_column: column of the labels; ``None`` for ``label``, or for the only other column.
        is_there: whether a path below the root is a file; ``None`` asks the disk.

    Returns:
        The images' paths, relative to ``root`` and with ``/``, to their labels, in the order of folders and names.

    Raises:
        ValueError: a column or a label is missing, a file is missing, named twice, or not in the folder; the message
            names the line.
    """
    table = root / METADATA
    try:
        reader = csv.DictReader(io.StringIO(table.read_bytes().decode("utf-8-sig"), newline=""))
        columns = list(reader.fieldnames or ())
        rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{table} is no CSV in UTF-8 ({error}). Save it as one.") from error
    label_column = _label_column(table, columns, label_column)
    there = is_there or (lambda image: os.path.isfile(os.path.join(str(root), image)))
    labels: dict[str, str] = {}
    for line, row in rows:
        name, label = ((row[column] or "").strip() for column in (FILE_COLUMN, label_column))
        where = f"{table}, line {line}:"
        if not name or not label:
            raise ValueError(f"{where} {label_column if name else FILE_COLUMN} is empty. Every image needs a label.")
        image = _below(root, name)
        if image is None or not there(image):
            raise ValueError(f"{where} there is no file {name!r} in the folder. Correct the name, or remove the line.")
        if image in labels:
            raise ValueError(f"{where} {name!r} stands there twice. An image has one label: remove a line.")
        labels[image] = label
    return dict(sorted(labels.items(), key=lambda item: item[0].split("/")))


def _below(root: Place, name: str) -> str | None:
    """A file's name relative to the folder; ``None`` where it lies outside."""
    if os.path.isabs(name):
        if not isinstance(root, Path) or not Path(name).is_relative_to(root):
            return None
        name = str(Path(name).relative_to(root))
    parts = [part for part in name.replace(os.sep, "/").split("/") if part not in ("", ".")]
    return None if ".." in parts else "/".join(parts)


def record_above(path: Place) -> Place | None:
    """The record of the protected copy that a folder is, or lies in; None where it is none."""
    place = path.resolve() if isinstance(path, Path) else path
    places = (place, *place.parents)
    return next((place / PROTECTION for place in places if (place / PROTECTION).is_file()), None)


def label_table(labels: Mapping[str, int]) -> bytes:
    """A ``metadata.csv`` of files and their labels' numbers."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerows([(FILE_COLUMN, "label"), *labels.items()])
    return table.getvalue().encode()


def sorted_names(labels: Iterable[str]) -> tuple[str, ...]:
    """The labels in order, each once: numbers by their value, other names by the alphabet."""
    names = set(labels)
    return tuple(sorted(names, key=int if all(name.isdecimal() for name in names) else None))


def _label_column(table: Place, columns: list[str], given: str | None) -> str:
    if FILE_COLUMN not in columns:
        raise ValueError(f"{table} must have a column {FILE_COLUMN!r} in its first line, got {', '.join(columns)}.")
    others = [column for column in columns if column != FILE_COLUMN]
    found = given or ("label" if "label" in others or len(others) != 1 else others[0])
    if found not in others:
        raise ValueError(
            f"{table} has no column {found!r}. Give --label-column, one of: {', '.join(others) or 'none'}."
        )
    return found

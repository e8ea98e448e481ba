"""How readers of a published folder find the labels where folders alone would number them anew."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from semtransforms.core.files import read_json, write_atomically
from semtransforms.data.metadata import METADATA, PROTECTION, label_table
from semtransforms.data.sources import Source


def write_labels(source: Source, published: Sequence[int], suffix: str, files: Path) -> tuple[str, ...]:
    """Write ``metadata.csv`` where some classes have no image: an empty folder is refused, and a missing one renumbers.

    Args:
        source: the images.
        published: rows of those whose copies are there.
        suffix: of the copies.
        files: the folder of the copies.

    Returns:
        The folders of the classes without images.
    """
    present = {int(source.labels[row]) for row in published}
    empty = tuple(folder for label, folder in enumerate(source.folders) if label not in present)
    if empty:
        labels = {f"{source.names[row]}{suffix}": int(source.labels[row]) for row in published}
        write_atomically(files / METADATA, label_table(labels))
    elif _is_ours(files):  # of an earlier run, when some had none
        (files / METADATA).unlink(missing_ok=True)
    return empty


def _is_ours(files: Path) -> bool:
    if (files / PROTECTION).is_symlink():
        return False
    with suppress(FileNotFoundError):
        return bool(read_json(files / PROTECTION).get("labels") == METADATA)
    return False

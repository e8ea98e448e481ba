"""How readers of a published folder find the labels where folders alone would number them anew."""

from __future__ import annotations

from collections.abc import Sequence

from semtransforms.data.metadata import METADATA, label_table
from semtransforms.data.sources import Source
from semtransforms.protect.shelves import Shelf


def write_labels(source: Source, published: Sequence[int], suffix: str, shelf: Shelf) -> tuple[str, ...]:
    """Write ``metadata.csv`` where some classes have no image: an empty folder is refused, and a missing one renumbers.

    Args:
        source: the images.
        published: rows of those whose copies are there.
        suffix: of the copies.
        shelf: the folder of the copies.

    Returns:
        The folders of the classes without images.
    """
    present = {int(source.labels[row]) for row in published}
    empty = tuple(folder for label, folder in enumerate(source.folders) if label not in present)
    if empty:
        labels = {f"{source.names[row]}{suffix}": int(source.labels[row]) for row in published}
        shelf.write(METADATA, label_table(labels))
    elif (shelf.record() or {}).get("labels") == METADATA:  # of an earlier run, when some had none
        shelf.remove(METADATA)
    return empty

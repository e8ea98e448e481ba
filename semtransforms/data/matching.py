"""The copies in a published folder, in the order of their originals, and both without images that do not decode."""

from __future__ import annotations

from dataclasses import replace
from os.path import splitext
from pathlib import Path

from tqdm import tqdm

from semtransforms.data.images import UNDECODABLE, as_pixels, size_in_header
from semtransforms.data.opening import open_image
from semtransforms.data.sources import Source, reason


def in_order_of(source: Source, published: Source) -> Source:
    """Find the copy of each image by its name without suffix: ``dog/1.jpg`` is the copy of ``dog/1.png``.

    Rows of a table keep their order, and so do files of which none has the name of an original.

    Args:
        source: the originals.
        published: copies of them.

    Returns:
        The copies, in the order of the originals.

    Raises:
        ValueError: two files are a copy of one original, an original has no copy, or a copy no original.
    """
    if not published.files or published.files == source.files:
        return published
    found: dict[str, int] = {}
    for index, file in enumerate(published.files):
        name = splitext(file)[0]
        if (other := found.setdefault(name, index)) != index:
            raise ValueError(
                f"--protected: {published.place(other)!r} and {published.place(index)!r} may both be the copy of "
                f"{name!r}. Move one of them elsewhere."
            )
    wanted = set(source.names)
    if wanted.isdisjoint(found):
        return published
    for these, those, what in (
        (source.names, found, "has no copy of"),
        (list(found), wanted, "has a copy of what SOURCE does not hold,"),
    ):
        if lost := [name for name in these if name not in those]:
            more = f" and {len(lost) - 1:,} more" if len(lost) > 1 else ""
            raise ValueError(f"--protected {what} {lost[0]!r}{more}. Give the copy of all images of SOURCE.")
    order = [found[name] for name in source.names]
    return published.at(order)


def without_damaged(argument: str, source: Source) -> Source:
    """Leave out images that do not decode.

    Args:
        argument: what messages call the source.
        source: labelled images.

    Returns:
        The others; ``left_out`` names those that are gone.

    Raises:
        ValueError: they are more than half of all.
    """
    damaged = _damaged(source)
    return _left(argument, source, {row: _named(source, row, why) for row, why in damaged.items()})


def pairs_without_damaged(source: Source, published: Source) -> tuple[Source, Source]:
    """Match copies with their originals, as :func:`in_order_of` does, and leave out pairs of which one is damaged.

    Protecting leaves out an original that does not decode, so it needs no copy.

    Args:
        source: the originals.
        published: copies of them.

    Returns:
        Originals and copies, in the order of the originals; ``left_out`` of the first names the pairs that are gone.

    Raises:
        ValueError: as for :func:`in_order_of`; or these pairs are more than half of all.
    """
    lost = {row: _named(source, row, why) for row, why in _damaged(source).items()}
    copied = {splitext(file)[0] for file in published.files}
    if copied.isdisjoint(source.names):  # by their order: the damaged ones have a copy each, or none has
        alone = set(lost) if len(published) == len(source) - len(lost) else set()
    else:
        alone = {row for row in lost if source.names[row] not in copied}
    rows = [row for row in range(len(source)) if row not in alone]
    copies = in_order_of(source.at(rows), published)
    if len(copies) == len(rows):  # else they are refused where they are compared
        for index, why in _damaged(copies).items():
            lost.setdefault(rows[index], _named(copies, index, why))
        copies = copies.at([index for index, row in enumerate(rows) if row not in lost])
    return _left("SOURCE with --protected", source, lost), copies


def _left(argument: str, source: Source, lost: dict[int, str]) -> Source:
    """A source without some images, row to what is said of it."""
    if not lost:
        return source
    said = tuple(lost[row] for row in sorted(lost))
    if 2 * len(lost) > len(source):
        raise ValueError(
            f"{argument}: {len(lost)} of {len(source)} images do not decode, more than half; the first: {said[0]}. "
            "Copy them anew from where they are whole."
        )
    return replace(source.at([row for row in range(len(source)) if row not in lost]), left_out=said)


def _named(source: Source, row: int, why: str) -> str:
    return f"{source.place(row)} ({why})"


def _damaged(source: Source) -> dict[int, str]:
    """The images that do not decode, and why; decoded are only those whose file does not tell that it is whole."""
    found = {}
    for row in tqdm(range(len(source)), desc="check", unit="image", disable=None, leave=False):
        try:
            file = source.read(row)
            data = file.read_bytes() if isinstance(file, Path) else file
            with open_image(data, source.most_pixels) as image:
                if not isinstance(data, bytes) or size_in_header(data) is None:
                    as_pixels(image)
        except UNDECODABLE as error:
            found[row] = reason(error)
    return found

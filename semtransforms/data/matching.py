"""The copies in a published folder, in the order of their originals."""

from __future__ import annotations

from dataclasses import replace

from semtransforms.data.sources import Source


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
        name = file.with_suffix("").as_posix()
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
    return replace(
        published,
        labels=published.labels[order],
        names=[published.names[index] for index in order],
        files=tuple(published.files[index] for index in order),
        read=lambda index: published.read(order[index]),
        place=lambda index: published.place(order[index]),
    )

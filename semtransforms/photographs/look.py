"""What an owner's folder holds: photographs, classes, sizes, formats, and what is left out and why."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from semtransforms.data.images import UNDECODABLE, to_rgb
from semtransforms.data.listing import IMAGE_SUFFIXES, hidden_below
from semtransforms.data.loading import Labelled
from semtransforms.data.sources import Source, reason
from semtransforms.protect.making import stamp
from semtransforms.views.resize import centre_square

FEWEST = 2  # photographs a class: one to learn from, one to test with
FEWEST_MEASURED = 20  # photographs a class, below which nothing was measured
NAMED = 5  # how many of a kind a message names

Say = Callable[[str], Any]


@dataclass(frozen=True)
class Found:
    """The photographs of a source that can be protected, and what is left out.

    Args:
        source: what was looked at.
        rows: positions of the photographs to learn from: they open and are large enough.
        sizes: int64 (N, 2), their widths and heights in pixels as their files say.
        formats: how many of each file format.
        skipped: photographs that cannot be learned from: where they are and why.
        left_out: files that are no photographs of any class, in sentences.
    """

    source: Source
    rows: tuple[int, ...]
    sizes: NDArray[np.int64]
    formats: Counter[str]
    skipped: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, or their numbers."""
        if self.source.classes is not None:
            return self.source.classes
        return tuple(map(str, range(int(self.source.labels.max()) + 1)))

    @property
    def counts(self) -> list[int]:
        """Photographs of each class to learn from."""
        found = Counter(self.source.labels[list(self.rows)].tolist())
        return [found[label] for label in range(len(self.classes))]

    @property
    def pixels(self) -> int:
        """Of all photographs together."""
        return int(self.sizes.prod(axis=1).sum())

    @property
    def by_size(self) -> list[int]:
        """The rows, the smallest photograph first."""
        return [self.rows[k] for k in np.argsort(self.sizes.prod(axis=1), kind="stable")]

    @cached_property
    def digest(self) -> str:
        """Changes when a photograph does, comes or goes, or gets another label."""
        source = self.source
        listed = [(source.names[row], stamp(int(source.labels[row]), source.read(row))) for row in self.rows]
        return hashlib.sha256(json.dumps([source.identity, listed]).encode()).hexdigest()

    def without(self, failed: dict[int, str]) -> Found:
        """The same without photographs that turned out not to decode, row to why."""
        kept = [k for k, row in enumerate(self.rows) if row not in failed]
        skipped = (*self.skipped, *(f"{self.source.place(row)} ({why})" for row, why in failed.items()))
        rows = tuple(self.rows[k] for k in kept)
        return Found(self.source, rows, self.sizes[kept], self.formats, skipped, self.left_out)

    def describe(self) -> list[str]:
        """Lines that say what is there."""
        areas, counts = self.sizes.prod(axis=1), self.counts
        ends = ["x".join(map(str, self.sizes[k].tolist())) for k in (areas.argmin(), areas.argmax())]
        sizes = f"{ends[0]} px" if (self.sizes == self.sizes[0]).all() else f"{ends[0]} to {ends[1]} px"
        each = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
        formats = ", ".join(f"{name} {count}" for name, count in self.formats.most_common())
        lines = [f"Found: {len(self.rows)} photographs of {len(counts)} classes ({each} a class), {sizes}, {formats}."]
        return lines + [f"Left out: {each}" for each in self.left_out] + [f"Skipped: {each}" for each in self.skipped]


def look(source: Source, smallest: int, *, progress: bool = False) -> Found:
    """Look at every photograph's header, and at the files beside them.

    Args:
        source: labelled photographs.
        smallest: shorter side in pixels of the smallest photograph that can be learned from.
        progress: show a bar.

    Returns:
        What is there. A photograph that is cut behind its header is found only when it is decoded.

    Raises:
        ValueError: not one can be learned from.
    """
    rows, sizes, skipped = [], [], []
    formats: Counter[str] = Counter()
    for row in tqdm(range(len(source)), desc="look", unit="image", disable=not progress, leave=False):
        try:
            with source.open(row) as image:
                if min(image.size) < smallest:
                    raise ValueError(f"{image.width}x{image.height} px, too small to learn from, not to protect")
                formats[image.format or "pixels"] += 1
                sizes.append(image.size)
        except UNDECODABLE as error:
            skipped.append(f"{source.place(row)} ({reason(error)})")
        else:
            rows.append(row)
    if not rows:
        raise ValueError(f"SOURCE has no photograph to learn from; the first of {len(source)}: {skipped[0]}.")
    return Found(source, tuple(rows), np.array(sizes, np.int64), formats, tuple(skipped), tuple(_beside(source)))


def check_enough(found: Found) -> None:
    """Refuse photographs that no generator can be fitted for, and warn of few ones.

    Raises:
        ValueError: fewer than two classes, or a class with one photograph or none.
    """
    counts, classes = found.counts, found.classes
    if len(classes) < 2:
        raise ValueError(
            f"SOURCE has one class, {classes[0]!r}: noise makes a trainer mix up classes, so there must be two at "
            "least. Put photographs of something else into a second sub-folder."
        )
    least = min(counts)
    if least < FEWEST:
        few = [name for name, count in zip(classes, counts, strict=True) if count < FEWEST]
        raise ValueError(
            f"{len(few)} of the {len(classes)} classes have fewer than {FEWEST} photographs to learn from "
            f"({_few(few)}). Add some, or take these classes out."
        )
    if least < FEWEST_MEASURED:
        warnings.warn(
            f"a class has {least} photographs; what fewer than {FEWEST_MEASURED} a class get was not measured.",
            stacklevel=3,
        )


def _beside(source: Source) -> list[str]:
    """What lies in an image folder and is no photograph of any class."""
    places = {Path(place) for place, _ in source.samples}
    if source.folder is None or not next(iter(places)).is_file():
        return []  # a table: its folder's other files are its own
    hidden = hidden_below(source.folder)
    known = places.union(hidden)
    others = [path for path in sorted(source.folder.rglob("*")) if path not in known and path.is_file()]
    stray = [str(path) for path in others if path.suffix.lower() in IMAGE_SUFFIXES]
    strange = Counter(path.suffix.lower() or path.name for path in others if path.suffix.lower() not in IMAGE_SUFFIXES)
    lines = [f"images that are in no class, {len(stray)} in all ({_few(stray)})."] if stray else []
    if strange:
        kinds = ", ".join(f"{suffix} {count}" for suffix, count in strange.most_common(NAMED))
        lines.append(f"files of no known image format ({kinds}).")
    if hidden:
        lines.append(f"hidden files, {len(hidden)} in all ({_few([str(path) for path in hidden])}).")
    return lines


def _few(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def read_squares(found: Found, side: int, progress: bool, say: Say) -> Labelled:
    """The middle of each photograph at the noise's size, decoded one at a time.

    Args:
        found: the photographs.
        side: S.
        progress: show a bar.
        say: told of photographs that do not decode.

    Returns:
        Squares uint8 (N, 3, S, S) and labels, of those that decode.

    Raises:
        ValueError: too few are left.
    """
    squares, labels, failed = [], [], {}
    for row in tqdm(found.rows, desc="read", unit="image", disable=not progress):
        try:
            with found.source.open(row) as image:
                squares.append(centre_square(to_rgb(image).pixels, side))
        except UNDECODABLE as error:
            failed[row] = reason(error)
            say(f"Skipped: {found.source.place(row)} ({failed[row]})")
        else:
            labels.append(int(found.source.labels[row]))
    if failed:
        check_enough(found.without(failed))
    return Labelled(torch.stack(squares), torch.tensor(labels), found.source.classes)

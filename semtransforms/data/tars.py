"""Images in tars as WebDataset keeps them: files that follow each other and share a name up to its first dot."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semtransforms.data.listing import IMAGE_SUFFIXES, is_hidden
from semtransforms.data.metadata import METADATA
from semtransforms.data.remote import Place, read_part

LABEL = "cls"  # the ending of the file with an image's label
_LONGEST_NUMBER = 32  # bytes


@dataclass(frozen=True)
class Tars:
    """Where the images of some tars lie.

    Args:
        files: the tars.
        keys: what the files of each image share of their names.
        labels: of each image.
        spans: int64 (N, 3): which tar, from which byte on, how many bytes.
        others: the endings of what is not read.
    """

    files: Sequence[Place]
    keys: Sequence[str]
    labels: Sequence[int]
    spans: NDArray[np.int64]
    others: tuple[str, ...]

    def read(self, index: int) -> bytes:
        """The file of an image.

        Raises:
            OSError: the tar is gone, or shorter than it was.
        """
        number, offset, size = self.spans[index].tolist()
        data = read_part(self.files[number], offset, size)
        if len(data) < size:
            raise OSError(f"{self.files[number].name} is shorter than it was")
        return data

    def place(self, index: int) -> str:
        """How a message names an image."""
        return f"{self.keys[index]} in {self.files[int(self.spans[index, 0])]}"


def find_tars(path: Place) -> Sequence[Place]:
    """The tars that a source is made of, in order; none where it is something else.

    Args:
        path: a tar, a pattern of them, or a folder of tars without sub-folders.
    """
    if path.is_dir():
        found = sorted((each for each in path.glob("*.tar") if not is_hidden(each.name)), key=lambda each: each.name)
        if not found or (path / METADATA).is_file():
            return []
        return [] if any(each.is_dir() and not is_hidden(each.name) for each in path.iterdir()) else found
    if path.suffix == ".tar" and path.exists():
        return [path]
    is_pattern = path.suffix == ".tar" and any(letter in path.name for letter in "*?[")
    return sorted(path.parent.glob(path.name), key=lambda each: each.name) if is_pattern else []


def list_tars(spec: str, files: Sequence[Place], image: str | None, label: str | None) -> Tars:
    """List the images of tars, without decoding any.

    Args:
        spec: the source as it was given, for messages.
        files: of :func:`find_tars`.
        image: ending of the images' files; ``None`` for whatever image there is.
        label: ending of the files with the labels' numbers; ``None`` for ``cls``.

    Returns:
        The images with their labels, in the order of the tars.

    Raises:
        ValueError: a tar is damaged or compressed, an image has no label or a label no image.
    """
    keys: list[str] = []
    labels: list[int] = []
    spans: list[tuple[int, int, int]] = []
    others: set[str] = set()
    for number, file in enumerate(files):
        for key, group in groupby(_members(spec, file, label or LABEL), key=lambda each: each.key):
            sample = {each.ending: each for each in group}
            images = [ending for ending in sample if _is_image(ending) and ending != label]
            wanted = [ending for ending in images if ending == image] if image else images
            told = sample.get(label or LABEL)
            others.update(sample.keys() - wanted - {label or LABEL})
            if not wanted and told is None:
                continue  # what is beside the images
            where = f"SOURCE {spec!r}: {key} in {file}"
            if len(wanted) != 1:
                has = f"several images ({', '.join(wanted)})" if wanted else "a label and no image"
                raise ValueError(f"{where} has {has}. Give --image-column, the ending of the images' names.")
            if told is None or told.number is None:
                raise ValueError(
                    f"{where} has no number in a file *.{label or LABEL}, which is to hold its label. Add it; or give "
                    "--label-column, the ending of the names of the files with the labels."
                )
            keys.append(key)
            labels.append(told.number)
            spans.append((number, sample[wanted[0]].offset, sample[wanted[0]].size))
    return Tars(files, keys, labels, np.array(spans, np.int64).reshape(-1, 3), tuple(sorted(others)))


class _Member(NamedTuple):
    key: str
    ending: str
    offset: int
    size: int
    number: int | None  # that it holds, where it is a label's file


def _members(spec: str, path: Place, label: str) -> Iterator[_Member]:
    """The files in a tar."""
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                folder, _, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                if not member.isreg() or member.issparse() or is_hidden(name):
                    continue
                opened = tar.extractfile(member) if ending == label else None
                number = None if opened is None else _number(opened.read(_LONGEST_NUMBER))
                yield _Member(f"{folder}/{stem}" if folder else stem, ending, member.offset_data, member.size, number)
            _check_end(file, tar.offset)
    except tarfile.TarError as error:
        raise ValueError(
            f"SOURCE {spec!r}: {path} is damaged, or no tar as it is read here ({error}). Unpack it if it is "
            "compressed, else fetch or write it again."
        ) from error


def _check_end(file: BinaryIO, offset: int) -> None:
    """See that nothing but its end mark is left of a tar: Python stops without a word where a header is none.

    Raises:
        tarfile.ReadError: it is cut, or something follows.
    """
    file.seek(offset)
    if not (mark := file.read(tarfile.BLOCKSIZE)):
        raise tarfile.ReadError("it is cut: its end mark is missing")
    while mark:
        if mark.strip(b"\0"):
            raise tarfile.ReadError(f"behind byte {offset} something follows that is no file of it")
        mark = file.read(1 << 20)


def _number(data: bytes) -> int | None:
    text = data.strip()
    return int(text) if text.isdigit() else None


def _is_image(ending: str) -> bool:
    return f".{ending}".lower().endswith(IMAGE_SUFFIXES)

"""Whether a published folder is what its owner believes: whole, unchanged, within the bound, with nothing private."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from PIL import Image
from tqdm.auto import tqdm

from semtransforms.core.config import parse_radius
from semtransforms.core.grid import levels
from semtransforms.data.images import UNDECODABLE, to_rgb
from semtransforms.data.metadata import METADATA, PROTECTION
from semtransforms.data.sources import Source, open_source
from semtransforms.protect.formats import FORMATS, Difference, published_difference

# what Pillow itself says of a file's form; everything else in ``info`` came with the file
_OF_JPEG = {"jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi", "progressive", "progression"}
_OF_PNG = {"dpi", "transparency"}

_FOLDERS = "Image folders are what can be checked: publish as png or jpeg. A table's record has its files' SHA-256."


class Finding(NamedTuple):
    """One question and its answer.

    Args:
        holds: whether all is well.
        text: what was asked and found, a line.
    """

    holds: bool
    text: str


def verify(published: Path, source: Source | None = None) -> Iterator[Finding]:
    """Look at a published folder as its owner should before anybody else does.

    Args:
        published: a folder that ``semtransforms protect`` wrote as PNG or JPEG.
        source: the originals; without them bound, completeness and labels are not asked for.

    Yields:
        What was found, one question after the other.

    Raises:
        ValueError: it is no such folder, or its ``protection.json`` is damaged.
    """
    record = _record(published)
    files: dict[str, str] = record["files"]
    yield _checksums(published, files)
    yield _others(published, {*files, PROTECTION, *([METADATA] if "labels" in record else [])})
    yield _metadata(published, files)
    if source is not None:
        copies = {Path(name).with_suffix("").as_posix(): name for name in files}
        yield _completeness(source, copies)
        yield _labels(published, source)
        yield _bound(published, source, copies, record)


def _record(published: Path) -> dict[str, Any]:
    file = published / PROTECTION
    if published.is_file():
        raise ValueError(f"PUBLISHED {str(published)!r} is a file. {_FOLDERS}")
    if table := next(published.glob(f"*.{PROTECTION}"), None):
        raise ValueError(f"PUBLISHED {str(published)!r} holds {table.name!r}, so a table of Parquet. {_FOLDERS}")
    if not file.is_file():
        raise ValueError(
            f"PUBLISHED {str(published)!r} holds no {PROTECTION}: it is no folder that `semtransforms protect` wrote."
        )
    try:
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        packed = FORMATS[record["format"]].packed
        parse_radius(record["rho_u"])
        if not all(isinstance(each, str) for pair in record["files"].items() for each in pair):
            raise TypeError("files")
        beside = [name for name in record["files"] if PurePath(name).is_absolute() or ".." in PurePath(name).parts]
        if beside:
            raise ValueError(f"{beside[0]!r} lies elsewhere")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"PUBLISHED: {file.name} is damaged ({error!r}). Protect the images again.") from error
    if packed:
        raise ValueError(f"PUBLISHED {str(published)!r} is of the format {record['format']!r}. {_FOLDERS}")
    return record


def _checksums(published: Path, files: dict[str, str]) -> Finding:
    lost, other = [], []
    for name, sha256 in tqdm(files.items(), desc="checksums", unit="file", disable=None):
        file = published / name
        if not file.is_file():
            lost.append(name)
        elif hashlib.sha256(file.read_bytes()).hexdigest() != sha256:
            other.append(name)
    wrong = [*_some("missing", lost), *_some("changed since", other)]
    return Finding(not wrong, f"files: {'; '.join(wrong) or f'all {len(files):,} are as they were written'}")


def _others(published: Path, known: set[str]) -> Finding:
    found = sorted(
        path.relative_to(published).as_posix() for path in published.rglob("*") if path.is_symlink() or path.is_file()
    )
    strange = [name for name in found if name not in known]
    text = "; ".join(_some("not written by `semtransforms protect`, look before you publish", strange))
    return Finding(not strange, f"nothing else: {text or 'no other file, so neither seed, noise nor generator'}")


def _metadata(published: Path, files: dict[str, str]) -> Finding:
    some = []
    for name in files:
        try:
            with Image.open(published / name) as image:
                if set(image.info) - _OF_JPEG - _OF_PNG or image.getexif():
                    some.append(name)
        except (OSError, *UNDECODABLE):  # missing or damaged: named where checksums are
            continue
    return Finding(not some, f"metadata: {'; '.join(_some('some', some)) or 'none in any file'}")


def _completeness(source: Source, copies: dict[str, str]) -> Finding:
    damaged: list[str] = []
    lost: list[str] = []
    for row, name in enumerate(source.names):
        if name not in copies:
            (lost if _decodes(source, row) else damaged).append(source.place(row))
    strange = sorted(set(copies) - set(source.names))
    wrong = [*_some("without a copy", lost), *_some("copies of what is not there", strange)]
    text = "; ".join(wrong) or f"each of {len(source) - len(damaged):,} originals has its copy"
    without = f" ({len(damaged):,} do not decode and have none)" if damaged else ""
    return Finding(not wrong, f"completeness: {text}{without}")


def _labels(published: Path, source: Source) -> Finding:
    read = open_source(str(published))
    told = {name: _class(read, row) for row, name in enumerate(read.names)}
    wrong = [name for row, name in enumerate(source.names) if name in told and told[name] != _class(source, row)]
    return Finding(not wrong, f"labels: {'; '.join(_some('another class', wrong)) or 'as in the originals'}")


def _bound(published: Path, source: Source, copies: dict[str, str], record: dict[str, Any]) -> Finding:
    reach, exact = levels(parse_radius(record["rho_u"])), FORMATS[record["format"]].lossless
    whole, beyond = Difference(), []
    for row, name in enumerate(tqdm(source.names, desc="bound", unit="image", disable=None)):
        if name not in copies or not (published / copies[name]).is_file():
            continue
        try:
            clean = to_rgb(source.open(row)).pixels
            apart = published_difference(clean, (published / copies[name]).read_bytes())
        except (OSError, *UNDECODABLE, ValueError):
            beyond.append(copies[name])  # of another size, or it does not decode
            continue
        whole = whole.and_of(apart)
        if exact and apart.largest > reach:
            beyond.append(copies[name])
    measured = f"at most {whole.largest} grey levels from the originals, {whole.rms:.1f} root mean square"
    promised = f", rho_u is {reach}" if exact else "; as JPEG, whose own changes no rho_u bounds"
    return Finding(not beyond, f"bound: {measured}{promised}{''.join('; ' + each for each in _some('beyond', beyond))}")


def _class(source: Source, row: int) -> str:
    label = int(source.labels[row])
    return str(label) if source.classes is None else source.classes[label]


def _decodes(source: Source, row: int) -> bool:
    try:
        source.open(row)
    except UNDECODABLE:
        return False
    return True


def _some(what: str, names: Sequence[str]) -> list[str]:
    """A few of many names; nothing where there are none."""
    if not names:
        return []
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return [f"{what}: {', '.join(names[:3])}{more}"]

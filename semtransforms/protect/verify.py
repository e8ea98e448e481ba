"""Whether what was published is what its owner believes: whole, unchanged, within the bound, with nothing private."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from os.path import splitext
from pathlib import PurePath
from typing import Any, NamedTuple

from PIL import Image
from tqdm.auto import tqdm

from semtransforms.core.ahead import ahead
from semtransforms.core.checks import parse_radius
from semtransforms.core.grid import levels
from semtransforms.data.images import UNDECODABLE, to_rgb
from semtransforms.data.metadata import METADATA, PROTECTION
from semtransforms.data.remote import AT_ONCE, Place, RemotePath, read_part
from semtransforms.data.sources import Source, open_source
from semtransforms.protect.checksums import read_checksums
from semtransforms.protect.formats import FORMATS, Difference, published_difference

# what Pillow itself says of a file's form; everything else in ``info`` came with the file
_OF_JPEG = {"jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi", "progressive", "progression"}
_OF_PNG = {"dpi", "transparency"}
_PART = 8 << 20  # bytes of a file that lies elsewhere, fetched at a time


class Finding(NamedTuple):
    """One question and its answer.

    Args:
        holds: whether all is well.
        text: what was asked and found, a line.
    """

    holds: bool
    text: str


class Copy(NamedTuple):
    """One published image.

    Args:
        name: what a line calls it.
        read: gives the bytes of its file; raises what ``UNDECODABLE`` has where there are none.
    """

    name: str
    read: Callable[[], bytes]


def verify(published: Place, source: Source | None = None) -> Iterator[Finding]:
    """Look at what was published as its owner should before anybody else does.

    Args:
        published: what ``semtransforms protect`` wrote: a folder of PNG or JPEG, Parquet, or a folder of
            `datasets`; here or elsewhere.
        source: the originals; without them bound, completeness and labels are not asked for.

    Yields:
        What was found, one question after the other.

    Raises:
        ValueError: it is no such thing, or its ``protection.json`` is damaged.
        OSError, StorageError: it lies elsewhere and cannot be read.
    """
    at_once = AT_ONCE if isinstance(published, RemotePath) else 0
    record = _record(published)
    files: dict[str, str] = record["files"]
    yield _checksums(published.parent if published.is_file() else published, files, at_once)
    if FORMATS[record["format"]].packed:
        yield from _verify_table(published, source, record)
        return
    ours = {PROTECTION, *record.get("tables", ()), *([METADATA] if "labels" in record else [])}
    yield _others(published, {*files, *ours})
    copies = {splitext(name)[0]: Copy(name, (published / name).read_bytes) for name in files}
    yield _metadata(copies.values(), at_once)
    if source is not None:
        yield _completeness(source, copies)
        read = open_source(str(published))
        told = {name: _class(read, row) for row, name in enumerate(read.names)}
        found = {row: name for row, name in enumerate(source.names) if name in told}
        yield _labels(source, {row: told[name] for row, name in found.items()})
        here = {row: copies[name] for row, name in found.items() if name in copies}
        yield _bound(source, here, record, at_once)


def _verify_table(published: Place, source: Source | None, record: dict[str, Any]) -> Iterator[Finding]:
    image, label = record.get("columns", (None, None))  # older records name none
    table = open_source(str(published), image_column=image, label_column=label)
    yield _others(published, {*record["files"], PROTECTION}, table.other_columns)
    copies = [Copy(f"row {row}", partial(_bytes_of, table, row)) for row in range(len(table))]
    yield _metadata(copies)
    if source is not None:
        # rows carry no name: they are in the order of the originals, without those that do not decode
        originals: Sequence[int] = range(len(source))
        if len(table) != len(source):
            originals = [row for row in originals if _decodes(source, row)]
        fits = len(originals) == len(table)
        yield Finding(fits, f"completeness: {len(table):,} rows for {_counted(source, originals)}")
        if fits:
            yield _labels(source, {row: _class(table, number) for number, row in enumerate(originals)})
            yield _bound(source, dict(zip(originals, copies, strict=True)), record)


def _counted(source: Source, originals: Sequence[int]) -> str:
    damaged = len(source) - len(originals)
    return f"{len(originals):,} originals" + (f" ({damaged:,} do not decode and have none)" if damaged else "")


def _bytes_of(table: Source, row: int) -> bytes:
    file = table.read(row)
    if not isinstance(file, bytes):
        raise ValueError("the table does not hold the file, but its name")
    return file


def _record(published: Place) -> dict[str, Any]:
    of_table = PurePath(published.name).with_suffix(f".{PROTECTION}").name if published.is_file() else None
    file = published / PROTECTION if of_table is None else published.parent / of_table
    tables = [path.name for path in published.glob(f"*.{PROTECTION}")]
    if tables:
        name = tables[0].replace(PROTECTION, "parquet")
        raise ValueError(
            f"PUBLISHED {str(published)!r} holds {tables[0]!r}, so a table. Give that: {str(published / name)!r}."
        )
    if not file.is_file():
        raise ValueError(
            f"PUBLISHED {str(published)!r} has no {file.name}: it is nothing that `semtransforms protect` wrote."
        )
    try:
        record: dict[str, Any] = json.loads(file.read_bytes().decode())
        packed = FORMATS[record["format"]].packed
        parse_radius(record["rho_u"])
        record["files"] = read_checksums(published, record)
        if not all(isinstance(each, str) for pair in record["files"].items() for each in pair):
            raise TypeError("files")
        columns = record.get("columns", ["", ""])
        if len(columns) != 2 or not all(isinstance(each, str) for each in columns):
            raise TypeError("columns")
        beside = [name for name in record["files"] if PurePath(name).is_absolute() or ".." in PurePath(name).parts]
        if beside:
            raise ValueError(f"{beside[0]!r} lies elsewhere")
        if packed and published.is_file() and record["files"].keys() != {published.name}:
            raise ValueError(f"it is of {', '.join(record['files'])}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"PUBLISHED: {file.name} is damaged ({error!r}). Protect the images again.") from error
    return record


def _checksums(published: Place, files: dict[str, str], at_once: int) -> Finding:
    lost, other = [], []
    found = ahead(_sha256, (published / name for name in files), at_once)
    for name, now in zip(tqdm(files, desc="checksums", unit="file", disable=None), found, strict=True):
        if now is None:
            lost.append(name)
        elif now != files[name]:
            other.append(name)
    wrong = [*_some("missing", lost), *_some("changed since", other)]
    return Finding(not wrong, f"files: {'; '.join(wrong) or f'all {len(files):,} are as they were written'}")


def _sha256(file: Place) -> str | None:
    """Of a file's bytes; ``None`` where it is not there."""
    if isinstance(file, RemotePath):
        digest, size = hashlib.sha256(), (seen := file.seen()).size
        for start in range(0, size, _PART):
            digest.update(read_part(file, start, _PART))
        return digest.hexdigest() if seen.kind == "file" else None
    if not file.is_file():
        return None
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _others(published: Place, known: set[str], columns: Sequence[str] = ()) -> Finding:
    if isinstance(published, RemotePath):
        names = [path.relative_to(published).as_posix() for path in published.rglob("*")]
    else:
        files = (path for path in published.rglob("*") if path.is_symlink() or path.is_file())
        names = [path.relative_to(published).as_posix() for path in files]
    strange = [name for name in sorted(names) if name not in known]
    wrong = _some("not written by `semtransforms protect`, look before you publish", strange)
    wrong += _some("columns that are neither image nor label", columns)
    what = "column" if published.is_file() else "file"
    text = "; ".join(wrong) or f"no other {what}, so neither seed, noise nor generator"
    return Finding(not wrong, f"nothing else: {text}")


def _metadata(copies: Iterable[Copy], at_once: int = 0) -> Finding:
    def carries_some(copy: Copy) -> str | None:
        with suppress(OSError, *UNDECODABLE), Image.open(io.BytesIO(copy.read())) as image:
            if set(image.info) - _OF_JPEG - _OF_PNG or image.getexif():
                return copy.name
        return None  # or missing or damaged: named where checksums are

    some = [name for name in ahead(carries_some, copies, at_once) if name is not None]
    return Finding(not some, f"metadata: {'; '.join(_some('some', some)) or 'none in any file'}")


def _completeness(source: Source, copies: Mapping[str, Copy]) -> Finding:
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


def _labels(source: Source, told: Mapping[int, str]) -> Finding:
    wrong = [source.place(row) for row, name in told.items() if name != _class(source, row)]
    return Finding(not wrong, f"labels: {'; '.join(_some('another class', wrong)) or 'as in the originals'}")


def _bound(source: Source, copies: Mapping[int, Copy], record: dict[str, Any], at_once: int = 0) -> Finding:
    def apart_from_original(each: tuple[int, Copy]) -> Difference | None:
        row, copy = each
        with suppress(OSError, *UNDECODABLE, ValueError):  # of another size, or it does not decode
            return published_difference(to_rgb(source.open(row)).pixels, copy.read())
        return None

    reach, exact = levels(parse_radius(record["rho_u"])), FORMATS[record["format"]].lossless
    whole, beyond = Difference(), []
    found = ahead(apart_from_original, copies.items(), at_once)
    for copy, apart in zip(tqdm(copies.values(), desc="bound", unit="image", disable=None), found, strict=True):
        whole = whole.and_of(apart or Difference())
        if apart is None or (exact and apart.largest > reach):
            beyond.append(copy.name)
    measured = f"at most {whole.largest} grey levels from the originals, {whole.rms:.1f} root mean square"
    promised = f", rho_u is {reach}" if exact else "; as JPEG, whose own changes no rho_u bounds"
    return Finding(not beyond, f"bound: {measured}{promised}{''.join('; ' + each for each in _some('beyond', beyond))}")


def _class(source: Source, row: int) -> str:
    label = int(source.labels[row])
    return str(label) if source.classes is None else source.classes[label]


def _decodes(source: Source, row: int) -> bool:
    try:
        to_rgb(source.open(row))
    except UNDECODABLE:
        return False
    return True


def _some(what: str, names: Sequence[str]) -> list[str]:
    """A few of many names; nothing where there are none."""
    if not names:
        return []
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return [f"{what}: {', '.join(names[:3])}{more}"]

"""The SHA-256 of the files of a published folder: in its record, or in tables beside it where they are very many."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from typing import Any

from semtransforms.data.remote import Place
from semtransforms.protect.shelves import Shelf

MOST = 10_000  # files in a record or a table: 1 MB of text
_TABLE = re.compile(r"protection-\d+\.jsonl")


def write_checksums(shelf: Shelf, sums: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Write tables where a record would be too long, so that never more than a part of it is in memory as text.

    Args:
        shelf: the published folder.
        sums: names of its files and their SHA-256.

    Returns:
        What the record says of them: ``files`` with all of them, or ``tables`` with the SHA-256 of each table.
    """
    left = iter(sums)
    first, more = list(islice(left, MOST)), next(left, None)
    tables: dict[str, str] = {}
    if more is not None:
        left, part = chain([more], left), first
        while part:
            name, data = f"protection-{len(tables):04d}.jsonl", "".join(json.dumps(each) + "\n" for each in part)
            shelf.write(name, data.encode())
            tables[name] = hashlib.sha256(data.encode()).hexdigest()
            part = list(islice(left, MOST))
    for name in set(_earlier_tables(shelf)).difference(tables):
        shelf.remove(name)
    return {"tables": tables} if tables else {"files": dict(first)}


def read_checksums(files: Place, record: dict[str, Any]) -> dict[str, str]:
    """The SHA-256 of each file.

    Args:
        files: the published folder.
        record: its ``protection.json``.

    Raises:
        ValueError: a table is missing or changed.
    """
    if "tables" not in record:
        sums: dict[str, str] = record["files"]
        return sums
    return dict(chain.from_iterable(_read_table(files, name, record["tables"][name]) for name in record["tables"]))


def _read_table(files: Place, name: str, sha256: str) -> Iterator[tuple[str, str]]:
    data = (files / name).read_bytes() if _TABLE.fullmatch(name) and (files / name).is_file() else b""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"{name} is not as it was written")
    return (tuple(json.loads(line)) for line in data.splitlines())


def _earlier_tables(shelf: Shelf) -> list[str]:
    """Those that an earlier record of this folder names; no others of such names are ours."""
    with suppress(ValueError, AttributeError, TypeError):  # it is no record
        return [name for name in (shelf.record() or {}).get("tables", ()) if _TABLE.fullmatch(name)]
    return []

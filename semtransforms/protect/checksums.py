"""The SHA-256 of the files of a published folder: in its record, or in tables beside it where they are very many."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any

from semtransforms.core.files import read_json, write_atomically
from semtransforms.data.metadata import PROTECTION

MOST = 10_000  # files in a record or a table: 1 MB of text
_TABLE = re.compile(r"protection-\d+\.jsonl")


def write_checksums(files: Path, sums: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Write tables where a record would be too long, so that never more than a part of it is in memory as text.

    Args:
        files: the published folder.
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
            write_atomically(files / name, data.encode())
            tables[name] = hashlib.sha256(data.encode()).hexdigest()
            part = list(islice(left, MOST))
    for name in set(_earlier_tables(files)).difference(tables):
        (files / name).unlink(missing_ok=True)
    return {"tables": tables} if tables else {"files": dict(first)}


def read_checksums(files: Path, record: dict[str, Any]) -> dict[str, str]:
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


def _read_table(files: Path, name: str, sha256: str) -> Iterator[tuple[str, str]]:
    data = (files / name).read_bytes() if _TABLE.fullmatch(name) and (files / name).is_file() else b""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"{name} is not as it was written")
    return (tuple(json.loads(line)) for line in data.splitlines())


def _earlier_tables(files: Path) -> list[str]:
    """Those that an earlier record of this folder names; no others of such names are ours."""
    if not (files / PROTECTION).is_symlink():
        with suppress(FileNotFoundError, ValueError, AttributeError, TypeError):  # or it is no record
            return [name for name in read_json(files / PROTECTION).get("tables", ()) if _TABLE.fullmatch(name)]
    return []

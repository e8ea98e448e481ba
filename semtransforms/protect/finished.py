"""What is known of each finished file, on the disk: of millions, a dictionary takes half a kilobyte each."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from semtransforms.protect.formats import Difference

_AT_ONCE = 1000  # names
_GOING = f"""
SELECT name, (SELECT other.name FROM finished AS other WHERE other.lower = finished.lower AND other.kept LIMIT 1)
FROM finished WHERE NOT kept AND name > ? ORDER BY name LIMIT {_AT_ONCE}
"""


class Line(NamedTuple):
    """What is known of one finished file; of a folder that was made, its name with ``/`` at the end.

    Args:
        name: below the folder that is filled, with ``/``.
        stamp: what it was made from; empty where it is to be made anew.
        sha256: of its bytes.
        difference: from its original.
        size: of its bytes; 0 where nobody has noted it.
    """

    name: str
    stamp: str = ""
    sha256: str = ""
    difference: Difference = Difference()
    size: int = 0

    def __str__(self) -> str:
        return json.dumps([self.name, self.stamp, self.sha256, *self.difference, self.size]) + "\n"

    @classmethod
    def read(cls, line: str | bytes) -> Line:
        """The line that a text is of."""
        name, stamp, sha256, *numbers = json.loads(line)
        largest, squares, values, size = map(int, (*numbers, 0) if len(numbers) == 3 else numbers)
        return cls(name, str(stamp), str(sha256), Difference(largest, squares, values), size)


def read_lines(path: Path) -> Iterator[Line]:
    """What was finished; a line that a kill has cut, or that is damaged, is left out, and its file made anew."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            with suppress(ValueError, TypeError, RecursionError):
                found = Line.read(line)
                place = Path(found.name)
                outside = "\0" in found.name or place.anchor != "" or ".." in place.parts
                if line.endswith(b"\n") and not outside:
                    yield found


class Finished:
    """A text for each name, in a file without a name that goes with the process; small ones stay in memory."""

    def __init__(self) -> None:
        with _explained():
            self._table = sqlite3.connect("", isolation_level=None)
            for setting in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -4096"):  # KiB
                self._table.execute(f"PRAGMA {setting}")
            # bytes: names of files may be no text
            self._table.execute(
                "CREATE TABLE finished (name BLOB PRIMARY KEY, lower BLOB, line TEXT, kept INTEGER) WITHOUT ROWID"
            )
            self._table.execute("CREATE INDEX by_lower ON finished (lower)")

    def close(self) -> None:
        """Remove the file."""
        self._table.close()

    def __setitem__(self, name: str, line: str) -> None:
        with _explained():
            self._table.execute(
                "INSERT OR REPLACE INTO finished VALUES (?, ?, ?, 0)", (_key(name), _key(name.lower()), line)
            )

    def get(self, name: str) -> str | None:
        """The text of a name, where there is one."""
        with _explained():
            found = self._table.execute("SELECT line FROM finished WHERE name = ?", (_key(name),)).fetchone()
        return None if found is None else found[0]

    def lines(self) -> Iterator[str]:
        """All texts, in the order of the names."""
        with _explained():
            for (line,) in self._table.execute("SELECT line FROM finished"):
                yield line

    def keep_only(self, names: Iterable[str]) -> Iterator[tuple[str, str | None]]:
        """Forget all names but some.

        Args:
            names: to keep.

        Yields:
            Each name that goes, before it is forgotten; and one that stays and differs in its case alone, if there is.
        """
        last = b""
        with _explained():
            self._table.execute("UPDATE finished SET kept = 0")
            self._table.executemany("UPDATE finished SET kept = 1 WHERE name = ?", ((_key(name),) for name in names))
            while part := self._table.execute(_GOING, (last,)).fetchall():
                for name, twin in part:
                    yield _name(name), None if twin is None else _name(twin)
                self._table.executemany("DELETE FROM finished WHERE name = ?", ((name,) for name, _ in part))
                last = part[-1][0]  # so that those that stay are gone through once


def _key(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


def _name(key: bytes) -> str:
    return key.decode("utf-8", "surrogatepass")


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise OSError(
            f"the list of finished files cannot be kept ({error}). It is in the system's folder for temporary files: "
            "free space there, or name another one in TMPDIR."
        ) from error

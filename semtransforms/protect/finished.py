"""What is known of each finished file, on the disk: of millions, a dictionary takes half a kilobyte each."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_AT_ONCE = 1000  # names


class Finished:
    """A text for each name, in a file without a name that goes with the process; small ones stay in memory."""

    def __init__(self) -> None:
        with _explained():
            self._table = sqlite3.connect("", isolation_level=None)
            for setting in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -4096"):  # KiB
                self._table.execute(f"PRAGMA {setting}")
            # bytes: names of files may be no text
            self._table.execute("CREATE TABLE finished (name BLOB PRIMARY KEY, line TEXT, kept INTEGER) WITHOUT ROWID")

    def close(self) -> None:
        """Remove the file."""
        self._table.close()

    def __setitem__(self, name: str, line: str) -> None:
        with _explained():
            self._table.execute("INSERT OR REPLACE INTO finished VALUES (?, ?, 0)", (_key(name), line))

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

    def keep_only(self, names: Iterable[str]) -> Iterator[list[str]]:
        """Forget all names but some; gives those that go, a part at a time, each before it is forgotten.

        Args:
            names: to keep.
        """
        with _explained():
            self._table.execute("UPDATE finished SET kept = 0")
            self._table.executemany("UPDATE finished SET kept = 1 WHERE name = ?", ((_key(name),) for name in names))
            query = f"SELECT name FROM finished WHERE NOT kept LIMIT {_AT_ONCE}"
            while part := self._table.execute(query).fetchall():
                yield [name.decode("utf-8", "surrogatepass") for (name,) in part]
                self._table.executemany("DELETE FROM finished WHERE name = ?", part)


def _key(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise OSError(
            f"the list of finished files cannot be kept ({error}). It is in the system's folder for temporary files: "
            "free space there, or name another one in TMPDIR."
        ) from error

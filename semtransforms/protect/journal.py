"""The private memory of one protection: its secret seed, and which files are finished."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from functools import reduce
from pathlib import Path

from semtransforms.core.ahead import ahead
from semtransforms.core.files import explained, read_json, sweep, to_json, write_atomically, writing
from semtransforms.core.private import refuse_link, tighten
from semtransforms.protect.finished import Finished, Line, read_lines
from semtransforms.protect.formats import Difference
from semtransforms.protect.shelves import Shelf

FINISHED = "finished.jsonl"


class Journal:
    """The private memory of one protection: its seed, and which files are finished.

    Lies in ``<private>/<hash of source, OUT, generator, format>-<n>/``, readable by its owner only.
    """

    def __init__(self, folder: Path, shelf: Shelf) -> None:
        self.folder = folder
        self.shelf = shelf
        self.seed = _read_seed(folder / "secret.json")
        self._path = folder / FINISHED
        self._finished = Finished()
        self._folders: set[str] = set()  # those that we made
        for line in shelf.whole(read_lines(self._path)):
            if line.name.endswith("/"):
                self._folders.add(line.name)
            else:
                self._finished[line.name] = str(line)
        # written anew: a line that a kill cut short must not swallow the next one
        with writing(self._path, mode=0o600) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.writelines(str(Line(name)) for name in self._folders)
            file.writelines(self._finished.lines())

    @classmethod
    @contextmanager
    def begin(
        cls, private: Path, identity: list[str], shelf: Shelf, seed: int | None, *, alone: bool
    ) -> Iterator[Journal]:
        """Open the journal of an interrupted protection, or start one; one that a failure leaves empty is removed.

        Args:
            private: folder of all journals.
            identity: what makes this protection this one.
            shelf: what is being filled.
            seed: given by the user, or ``None``.
            alone: no other process writes there now; what a kill has left there is removed then.

        Yields:
            The journal.

        Raises:
            ValueError: ``shelf`` holds something else, or was begun with another seed.
        """
        key, earlier = _earlier(private, identity)
        first = shelf.first()
        fresh = first is None
        if not fresh and not earlier:
            raise ValueError(
                f"OUT {str(shelf.place)!r} is not empty (it holds {first!r}), and not an unfinished protection of this "
                "SOURCE with this generator, format, noise size and visibility. Choose an empty folder."
            )
        # a fresh seed for a fresh copy; the earlier ones stay, for the copies made with them may live elsewhere. One
        # that a kill came upon before any copy is used
        unused = fresh and bool(earlier) and not any(read_lines(private / f"{key}-{earlier[-1]}" / FINISHED))
        folder = private / f"{key}-{(earlier or [-1])[-1] + (fresh and not unused)}"
        refuse_link(folder, "--cache-dir")
        if fresh and not (unused and seed is None):
            with explained("--cache-dir", folder):
                folder.mkdir(mode=0o700, exist_ok=True)
                # 63 bits: what every integer on the way can hold, and too many to try
                secret = {"seed": secrets.randbits(63) if seed is None else seed, "protection": identity}
                # without locks two may be here at once: one seed for both, that of the file which stays
                write_atomically(folder / "secret.json", to_json(secret), mode=0o600, first=not unused)
        with explained("--cache-dir", folder):
            tighten(folder, "--cache-dir")
            journal = cls(folder, shelf)
        with closing(journal._finished):
            if alone:
                sweep(folder)
                shelf.sweep(journal._folders)
            if seed is not None and seed != journal.seed:
                raise ValueError(
                    f"OUT {str(shelf.place)!r} was begun with another seed. Give none, or choose another OUT."
                )
            try:
                yield journal
            except BaseException:
                # another one may be at work with it where there are no locks
                if fresh and alone and not shelf.any_there(journal.lines()):
                    journal.keep_only()
                    shutil.rmtree(folder)
                raise

    @staticmethod
    def was_begun(private: Path, identity: list[str]) -> bool:
        """Whether there is a journal of this protection; arguments as for :meth:`begin`."""
        return bool(_earlier(private, identity)[1])

    @classmethod
    def remove_left(cls, private: Path, identity: list[str], shelf: Shelf) -> None:
        """Remove what a kill behind a protection's end has left; arguments as for :meth:`begin`."""
        key, earlier = _earlier(private, identity)
        if shelf.first():  # of an empty one the journal would forget that it was filled, and use its seed again
            journal = cls(private / f"{key}-{earlier[-1]}", shelf)
            with closing(journal._finished):
                journal.keep_only()
        shelf.remove_folder("")

    def remove_copies(self) -> None:
        """Remove all finished files, and their folder unless it holds another's; they lie elsewhere now."""
        self.keep_only()
        self.shelf.remove_folder("")

    def stamp(self, name: str) -> str | None:
        """The stamp a file was finished with; ``None`` where it is not there, or not whole."""
        line = self._finished.get(name)
        return None if line is None else Line.read(line).stamp

    def sha256(self, name: str) -> str:
        """SHA-256 of a finished file."""
        line = self._finished.get(name)
        assert line is not None
        return Line.read(line).sha256

    def lines(self) -> Iterator[Line]:
        """What is known of all finished files, in the order of their names."""
        return map(Line.read, self._finished.lines())

    def difference(self) -> Difference:
        """How far all finished files are from their originals."""
        return reduce(Difference.and_of, (line.difference for line in self.lines()), Difference())

    def remember(self, name: str, stamp: str, data: bytes, difference: Difference) -> None:
        """Note a file that is written next: before it, so that after a kill none of ours is taken for another's.

        Args:
            name: where it goes.
            stamp: what it was made from.
            data: its bytes.
            difference: from its original.

        Raises:
            ValueError, OSError: it cannot be written there.
        """
        for folder in self.shelf.missing_folders(name):
            self._folders.add(f"{folder}/")
            self._append(Line(f"{folder}/"))
            with explained("OUT", self.shelf.place):
                self.shelf.make_folder(folder)
        if self.shelf.at_once and self._finished.get(name) is not None:
            with explained("OUT", self.shelf.place):  # of the same size, what is there would be taken for the new one
                self.shelf.remove(name)
        line = Line(name, stamp, hashlib.sha256(data).hexdigest(), difference, len(data))
        self._append(line)
        self._finished[name] = str(line)

    def keep_only(self, names: Iterable[str] = ()) -> int:
        """Remove the files and the empty folders that we made and that are no longer wanted; never anyone else's.

        Args:
            names: of the files to keep, all of them finished.

        Returns:
            How many files are no longer there.
        """
        removed = 0
        with explained("OUT", self.shelf.place):
            going = self._finished.keep_only(names)
            for _ in ahead(lambda each: self.shelf.remove(*each), going, self.shelf.at_once):
                removed += 1
            # a folder comes after its sub-folders
            for name in sorted(self._folders, reverse=True):
                if self.shelf.remove_folder(name):
                    self._folders.remove(name)
        return removed

    def _append(self, line: Line) -> None:
        with explained("--cache-dir", self.folder), self._path.open("a", encoding="utf-8") as file:
            file.write(str(line))


def key_of(identity: list[str]) -> str:
    """What the journals of a protection are called by; arguments as for :meth:`Journal.begin`."""
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def _earlier(private: Path, identity: list[str]) -> tuple[str, list[int]]:
    """What the journals of a protection are called by, and the numbers of those that are there."""
    key = key_of(identity)
    return key, sorted(int(p.parent.name.partition("-")[2]) for p in private.glob(f"{key}-*/secret.json"))


def _read_seed(path: Path) -> int:
    """The seed of a protection.

    Raises:
        ValueError: the file is damaged; without its seed the protection cannot go on.
    """
    found = read_json(path)
    seed = found.get("seed") if isinstance(found, dict) else None
    if type(seed) is not int:
        raise ValueError(
            f"{path} is damaged: it holds no seed. Put back what was there, or protect into another OUT, with a seed "
            "of its own."
        )
    return seed

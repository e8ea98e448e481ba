"""The private memory of one protection: its secret seed, and which files are finished."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import reduce
from pathlib import Path

from semtransforms.core.files import explained, flush_all, read_json, sweep, to_json, write_atomically, writing
from semtransforms.core.private import refuse_link, tighten
from semtransforms.protect.finished import Finished
from semtransforms.protect.formats import Difference

FINISHED = "finished.jsonl"
_NOTHING = Difference()


class Journal:
    """The private memory of one protection: its seed, and which files are finished.

    Lies in ``<private>/<hash of source, OUT, generator, format>-<n>/``, readable by its owner only.
    """

    def __init__(self, folder: Path, files: Path) -> None:
        self.folder = folder
        self._files = files
        self.seed = _read_seed(folder / "secret.json")
        self._path = folder / FINISHED
        self._finished = Finished()
        self._folders: set[str] = set()  # those that we made
        for name, stamp, sha256, apart in _lines(self._path):
            if _link_in(files, name) is not None:  # not as we left it
                continue
            if name.endswith("/") and (files / name).is_dir():
                self._folders.add(name)
            elif (files / name).is_file() and hashlib.sha256((files / name).read_bytes()).hexdigest() == sha256:
                self._finished[name] = _line(name, stamp, sha256, apart)
        # written anew: a line that a kill cut short must not swallow the next one
        with writing(self._path, mode=0o600) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.writelines(map(_line, self._folders))
            file.writelines(self._finished.lines())

    @classmethod
    @contextmanager
    def begin(
        cls, private: Path, identity: list[str], files: Path, seed: int | None, *, alone: bool
    ) -> Iterator[Journal]:
        """Open the journal of an interrupted protection, or start one; one that a failure leaves empty is removed.

        Args:
            private: folder of all journals.
            identity: what makes this protection this one.
            files: the folder that is being filled.
            seed: given by the user, or ``None``.
            alone: no other process writes into ``files`` now; what a kill has left there is removed then.

        Yields:
            The journal.

        Raises:
            ValueError: ``files`` holds something else, or was begun with another seed.
        """
        key, earlier = _earlier(private, identity)
        fresh = not any(files.iterdir())
        if not fresh and not earlier:
            raise ValueError(
                f"OUT {str(files)!r} is not empty (it holds {next(files.iterdir()).name!r}), and not an unfinished "
                "protection of this SOURCE with this generator, format, noise size and visibility. Choose an empty "
                "folder."
            )
        # a fresh seed for a fresh copy; the earlier ones stay, for the copies made with them may live elsewhere
        unused = fresh and bool(earlier) and not any(_lines(private / f"{key}-{earlier[-1]}" / FINISHED))  # a kill's
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
            journal = cls(folder, files)
        with closing(journal._finished):
            if alone:
                for ours in (folder, files, *(files / name for name in journal._folders)):
                    sweep(ours)
            if seed is not None and seed != journal.seed:
                raise ValueError(f"OUT {str(files)!r} was begun with another seed. Give none, or choose another OUT.")
            try:
                yield journal
            except BaseException:
                # another one may be at work with it where there are no locks
                made = (files / _parsed(line)[0] for line in journal._finished.lines())
                if fresh and alone and not any(path.is_file() for path in made):
                    journal.keep_only()
                    shutil.rmtree(folder)
                raise

    @staticmethod
    def was_begun(private: Path, identity: list[str]) -> bool:
        """Whether there is a journal of this protection; arguments as for :meth:`begin`."""
        return bool(_earlier(private, identity)[1])

    @classmethod
    def remove_left(cls, private: Path, identity: list[str], files: Path) -> None:
        """Remove what a kill behind a protection's end has left; arguments as for :meth:`begin`."""
        key, earlier = _earlier(private, identity)
        if any(files.iterdir()):  # of an empty one the journal would forget that it was filled, and use its seed again
            journal = cls(private / f"{key}-{earlier[-1]}", files)
            with closing(journal._finished):
                journal.remove_copies()
        with suppress(OSError):
            files.rmdir()

    def remove_copies(self) -> None:
        """Remove all finished files, and their folder unless it holds another's; they lie elsewhere now."""
        self.keep_only()
        with suppress(OSError):  # not empty
            self._files.rmdir()

    def stamp(self, name: str) -> str | None:
        """The stamp a file was finished with; ``None`` where it is not there, or not whole."""
        line = self._finished.get(name)
        return None if line is None else _parsed(line)[1]

    def sha256(self, name: str) -> str:
        """SHA-256 of a finished file."""
        line = self._finished.get(name)
        assert line is not None
        return _parsed(line)[2]

    def difference(self) -> Difference:
        """How far all finished files are from their originals."""
        return reduce(Difference.and_of, (_parsed(line)[3] for line in self._finished.lines()), _NOTHING)

    def make_folder(self, name: str) -> None:
        """Make a folder, and remember that it is ours.

        Raises:
            ValueError: a link stands there, which would lead copies to somewhere else.
        """
        if link := _link_in(self._files, name):
            refuse_link(link, "OUT")
        if not (self._files / name).is_dir():
            if "/" in name:
                self.make_folder(name.rpartition("/")[0])
            self._folders.add(f"{name}/")
            self._append(_line(f"{name}/"))
            with explained("OUT", self._files):
                (self._files / name).mkdir(exist_ok=True)

    def finish(self, name: str, stamp: str, data: bytes, difference: Difference, *, mode: int) -> None:
        """Write a file, and remember it: first, so that after a kill no file of ours is taken for another's."""
        self.make_folder(name.rpartition("/")[0])
        self._append(line := _line(name, stamp, hashlib.sha256(data).hexdigest(), difference))
        self._finished[name] = line
        with explained("OUT", self._files):
            # what a power failure takes of it is made again: it is looked at when the protection goes on
            write_atomically(self._files / name, data, mode=mode, flush=False)

    def flush(self) -> None:
        """Wait until all finished files are on the disk."""
        with explained("OUT", self._files):
            flush_all(self._files / _parsed(line)[0] for line in self._finished.lines())

    def keep_only(self, names: Iterable[str] = ()) -> int:
        """Remove the files and the empty folders that we made and that are no longer wanted; never anyone else's.

        Args:
            names: of the files to keep, all of them finished.

        Returns:
            How many files are no longer there.
        """
        removed = 0
        with explained("OUT", self._files):
            for name, twin in self._finished.keep_only(names):
                # one and the same file where case does not count (macOS)
                if twin is None or not (self._files / name).samefile(self._files / twin):
                    (self._files / name).unlink(missing_ok=True)
                removed += 1
            # a folder comes after its sub-folders
            for name in sorted(self._folders, reverse=True):
                with suppress(OSError):  # not empty
                    (self._files / name).rmdir()
                    self._folders.remove(name)
        return removed

    def _append(self, line: str) -> None:
        with explained("--cache-dir", self.folder), self._path.open("a", encoding="utf-8") as file:
            file.write(line)


def _link_in(files: Path, name: str) -> Path | None:
    """The first link on the way from ``files`` to what lies at a name below it; ``files`` itself may be one."""
    places = [files / name, *(files / name).parents]
    return next((place for place in places[: places.index(files)] if place.is_symlink()), None)


def _earlier(private: Path, identity: list[str]) -> tuple[str, list[int]]:
    """What the journals of a protection are called by, and the numbers of those that are there."""
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    return key, sorted(int(p.parent.name.partition("-")[2]) for p in private.glob(f"{key}-*/secret.json"))


def _line(name: str, stamp: str = "", sha256: str = "", difference: Difference = _NOTHING) -> str:
    return json.dumps([name, stamp, sha256, *difference]) + "\n"


def _lines(path: Path) -> Iterator[tuple[str, str, str, Difference]]:
    """What was finished; a line that a kill has cut, or that is damaged, is left out, and its file made anew."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            with suppress(ValueError, TypeError, RecursionError):
                found = _parsed(line)
                place = Path(found[0])
                outside = "\0" in found[0] or place.anchor != "" or ".." in place.parts
                if line.endswith(b"\n") and not outside:
                    yield found


def _parsed(line: str | bytes) -> tuple[str, str, str, Difference]:
    name, stamp, sha256, *apart = json.loads(line)
    return name, str(stamp), str(sha256), Difference(*map(int, apart))


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

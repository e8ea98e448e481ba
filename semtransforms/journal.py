"""The private memory of one protection: its secret seed, and which files are finished."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Journal:
    """The private memory of one protection: its seed, and which files are finished.

    Lies in ``<private>/<hash of source, OUT, generator, format>-<n>/``, readable by its owner only.
    """

    def __init__(self, folder: Path, files: Path) -> None:
        self.folder = folder
        self.seed: int = json.loads((folder / "secret.json").read_text(encoding="utf-8"))["seed"]
        self._path = folder / "finished.jsonl"
        self._finished: dict[str, tuple[str, str]] = {}  # file: (stamp of the clean image, SHA-256 of the protected)
        for name, stamp, sha256 in _lines(self._path):
            if (files / name).is_file() and hashlib.sha256((files / name).read_bytes()).hexdigest() == sha256:
                self._finished[name] = (stamp, sha256)
        # written anew: a line that a kill cut short must not swallow the next one
        lines = [_line(name, *entry) for name, entry in self._finished.items()]
        write_atomically(self._path, "".join(lines).encode(), mode=0o600)

    @classmethod
    def begin(cls, private: Path, identity: list[str], files: Path, seed: int | None) -> Journal:
        """Open the journal of an interrupted protection, or start one.

        Args:
            private: folder of all journals.
            identity: what makes this protection this one.
            files: the folder that is being filled.
            seed: given by the user, or ``None``.

        Returns:
            The journal.

        Raises:
            ValueError: ``files`` holds something else, or was begun with another seed.
        """
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
        earlier = sorted(int(p.parent.name.partition("-")[2]) for p in private.glob(f"{key}-*/secret.json"))
        if not files.exists() or not any(files.iterdir()):
            # a fresh seed for a fresh copy; the earlier ones stay, for the copies made with them may live elsewhere
            folder = private / f"{key}-{earlier[-1] + 1 if earlier else 0}"
            folder.mkdir(parents=True, exist_ok=True)
            private.chmod(0o700)
            folder.chmod(0o700)
            # 63 bits: what every integer on the way can hold, and too many to try
            secret = {"seed": secrets.randbits(63) if seed is None else seed, "protection": identity}
            write_atomically(folder / "secret.json", to_json(secret), mode=0o600)
            return cls(folder, files)
        if not earlier:
            raise ValueError(
                f"OUT {str(files)!r} is not empty, and not an unfinished protection of this SOURCE with this generator "
                "and format. Choose an empty folder."
            )
        journal = cls(private / f"{key}-{earlier[-1]}", files)
        if seed is not None and seed != journal.seed:
            raise ValueError(f"OUT {str(files)!r} was begun with another seed. Give none, or choose another OUT.")
        return journal

    def is_finished(self, name: str, stamp: str) -> bool:
        """Whether a file is there, whole, and of the clean image as it is now."""
        return self._finished.get(name, (None, ""))[0] == stamp

    def sha256(self, name: str) -> str:
        """SHA-256 of a finished file."""
        return self._finished[name][1]

    def finish(self, name: str, stamp: str, data: bytes) -> None:
        """Remember a file that now lies under its own name."""
        self._finished[name] = (stamp, hashlib.sha256(data).hexdigest())
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(name, *self._finished[name]))


def write_atomically(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a file so that it is there whole or not at all.

    Args:
        path: its name.
        data: its content.
        mode: its permissions, before the umask.
    """
    temporary = path.with_name(f".{path.name}.unfinished")
    temporary.unlink(missing_ok=True)  # the mode below counts only for a new file
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(data)
    os.replace(temporary, path)


def to_json(value: Any) -> bytes:
    """A JSON value as the bytes of a readable file."""
    return (json.dumps(value, indent=1) + "\n").encode()


def _line(name: str, stamp: str, sha256: str) -> str:
    return json.dumps([name, stamp, sha256]) + "\n"


def _lines(path: Path) -> Iterator[list[str]]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):  # the last line of a killed process may be cut
            yield json.loads(line)

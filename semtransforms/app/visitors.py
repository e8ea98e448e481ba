"""Visitors of the page: each has a folder and a generator of their own, and what they brought goes when they leave."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semtransforms.app import texts
from semtransforms.app.bringing import MOST_BYTES, gigabytes, megabytes, sort_in
from semtransforms.app.jobs import Job
from semtransforms.core.files import alone_in
from semtransforms.core.private import making_private

MOST_TOGETHER = 32 << 30  # bytes in the folder of a page that others reach, copies and private folders too
MOST_VISITORS = 100  # of such a page at a time: each has some megabytes of its memory
KEPT_MINUTES = 10  # after a visitor has left; whoever reloads the page comes back within
SWEEP_SECONDS = 15
MOST_NOTES = 50  # lines about what was left out

_TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")
_FOLDER = re.compile(r"[0-9a-f]{32}")  # of a visitor


@dataclass(frozen=True)
class Wish:
    """How a visitor wants their photographs protected.

    Args:
        rho_u: in grey levels.
        visibility: in 0..1.
        format: ``"png"`` or ``"jpeg"``.
        quality: of JPEG.
    """

    rho_u: int = 8
    visibility: float = 1.0
    format: str = "png"
    quality: int | None = None


@dataclass
class Visitor:
    """One person's photographs, and what is made of them.

    Args:
        token: a secret of their browser's, which leads to all of it.
        folder: of theirs alone.
    """

    token: str
    folder: Path
    sessions: set[str] = field(default_factory=set)
    left_at: float | None = None
    notes: list[str] = field(default_factory=list)
    used: int = 0  # bytes
    job: Job | None = None
    previews: dict[Any, Any] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    gate: asyncio.Lock = field(default_factory=asyncio.Lock)  # one file arrives at a time, so that the room is known

    @property
    def photographs(self) -> Path:
        """What was brought, in class folders."""
        return self.folder / "photographs"

    @property
    def unlabelled(self) -> Path:
        """What was brought and has no class yet."""
        return self.folder / "unlabelled"

    @property
    def arriving(self) -> Path:
        """What is being brought."""
        return self.folder / "arriving"

    @property
    def shown(self) -> Path:
        """Pictures of the preview."""
        return self.folder / "shown"

    @property
    def brought(self) -> tuple[Path, ...]:
        """All that is deleted when they leave."""
        return (self.photographs, self.unlabelled, self.arriving, self.shown)

    @property
    def classes(self) -> list[str]:
        """Names of the class folders."""
        return sorted(place.name for place in self.photographs.iterdir()) if self.photographs.is_dir() else []

    def private(self, wish: Wish) -> Path:
        """What must not be published: noise is for classes and a radius, so others get another generator."""
        return self.folder / "private" / _digest([self.classes, wish.rho_u])

    def published(self, wish: Wish) -> Path:
        """The protected copies."""
        told = [self.classes, wish.rho_u, wish.visibility, wish.format, wish.quality]
        return self.folder / "published" / _digest(told)

    def protect(self, wish: Wish, minutes: float, worker: Sequence[str], turn: threading.Lock) -> None:
        """Begin to protect what they brought, or go on.

        Args:
            wish: how.
            minutes: for the fit.
            worker, turn: as for :meth:`Job.start`.
        """
        self.job = Job(
            {
                "source": str(self.photographs), "out": str(self.published(wish)), "private": str(self.private(wish)),
                "minutes": minutes, "rho_u": wish.rho_u / 255, "visibility": wish.visibility, "format": wish.format,
                "quality": wish.quality,
            }
        )  # fmt: skip
        self.job.start(worker, turn)

    @property
    def finished(self) -> Job | None:
        """The protection that was carried through, if there is one."""
        return self.job if self.job is not None and self.job.result is not None else None

    @property
    def is_busy(self) -> bool:
        """Whether their photographs are being protected."""
        return self.job is not None and self.job.is_running

    @property
    def room(self) -> int:
        """Bytes that they may still bring."""
        return MOST_BYTES - self.used

    def weigh(self) -> None:
        """Find out how much they have brought."""
        self.used = sum(map(_weight, self.brought))

    def note(self, *lines: str) -> None:
        """Keep lines about what was left out."""
        self.notes = [*self.notes, *lines][:MOST_NOTES]

    def sort_in(self) -> None:
        """Bring what has arrived to its classes."""
        with self.lock:
            for batch in sorted(self.arriving.iterdir()) if self.arriving.is_dir() else ():
                self.note(*sort_in(batch, self.photographs, self.unlabelled))
            self.previews.clear()
            self.weigh()

    def forget_brought(self) -> None:
        """Delete what they brought, and stop what works on it."""
        if self.job is not None:
            self.job.stop()
        with self.lock:
            for place in self.brought:
                shutil.rmtree(place, ignore_errors=True)
            self.notes, self.job, self.used = [], None, 0
            self.previews.clear()

    def forget_all(self) -> None:
        """Delete everything of theirs, the private folder too."""
        self.forget_brought()
        shutil.rmtree(self.folder, ignore_errors=True)


class Visitors:
    """All visitors of a page that runs.

    Args:
        root: holds the folder of theirs; what else is in it stays as it is.
        keeps: keep copies and private folders of those who left, as on a machine of one's own.
        worker: the command that protects; see :mod:`semtransforms.app.worker`.
    """

    def __init__(self, root: Path, *, keeps: bool, worker: Sequence[str]) -> None:
        # folders of ours alone, one for each kind: a public page deletes all that visitors left, also of the last time
        self.root = root / ("visitors" if keeps else "public-visitors")
        self.keeps, self.worker = keeps, list(worker)
        self.turn = threading.Lock()  # one protection at a time: two would halve each other's speed, and fill memory
        self.unpacking = asyncio.Lock()  # one archive at a time, so that the room for it is known
        self.taken = 0  # bytes of all visitors together, as of the last sweep and with what arrived since
        self._known: dict[str, Visitor] = {}
        self._lock = threading.Lock()

    def enter(self, token: str | None, session: str) -> Visitor:
        """A visitor comes, or comes back.

        Args:
            token: what their browser remembers.
            session: a page of theirs.

        Raises:
            ValueError: too many are here.
        """
        with self._lock:
            visitor = self._known.get(token or "")
            if visitor is None:
                if not self.keeps and len(self._known) >= MOST_VISITORS:
                    raise ValueError(texts.CROWDED.format(most=MOST_VISITORS))
                if not token or not _TOKEN.fullmatch(token) or not self._folder(token).is_dir():
                    token = secrets.token_urlsafe(16)
                visitor = self._known[token] = Visitor(token, self._folder(token))
            visitor.sessions.add(session)
            visitor.left_at = None
        return visitor

    def get(self, token: str | None) -> Visitor:
        """Who has a token.

        Raises:
            ValueError: nobody who is here.
        """
        visitor = self._known.get(token or "")
        if visitor is None:
            raise ValueError(texts.GONE)
        return visitor

    def room(self, visitor: Visitor) -> int:
        """Bytes that a visitor may still bring, and where others reach the page, that all of them may."""
        return visitor.room if self.keeps else min(visitor.room, MOST_TOGETHER - self.taken)

    def no_room(self, visitor: Visitor, name: str) -> str:
        """Why there is none for a file."""
        if self.room(visitor) < visitor.room:
            return texts.FULL_LEFT_OUT.format(name=name, full=texts.FULL.format(most=gigabytes(MOST_TOGETHER)))
        return texts.LARGE.format(name=name, most=megabytes(MOST_BYTES))

    def count(self, visitor: Visitor, size: int) -> None:
        """Bytes that a visitor brings just now, or that are gone again."""
        visitor.used += size
        self.taken += size

    def weigh(self) -> None:
        """Find out how much all of them have; where it is too much, stop the protection that writes more."""
        self.taken = _weight(self.root)
        if self.keeps or self.taken <= MOST_TOGETHER:
            return
        for visitor in list(self._known.values()):
            if visitor.job is not None and visitor.is_busy:
                visitor.job.stop(texts.FULL.format(most=gigabytes(MOST_TOGETHER)))

    def leave(self, session: str) -> None:
        """A page was closed or is loaded anew; a visitor leaves with the last one."""
        with self._lock:
            for visitor in self._known.values():
                visitor.sessions.discard(session)
                if not visitor.sessions and visitor.left_at is None:
                    visitor.left_at = time.monotonic()

    def sweep(self, after: float) -> None:
        """Forget who left so many seconds ago."""
        with self._lock:
            now = time.monotonic()
            gone = [each for each in self._known.values() if each.left_at is not None and now - each.left_at >= after]
            for visitor in gone:
                del self._known[visitor.token]
        for visitor in gone:
            self._forget(visitor)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Use the folder: nobody else does meanwhile, who left is forgotten, and in the end everybody is.

        Raises:
            ValueError: another page uses it.
            OSError: it cannot be written.
        """
        stopped = threading.Event()

        def keep_sweeping() -> None:
            while not stopped.wait(SWEEP_SECONDS):
                self.sweep(after=60 * KEPT_MINUTES)
                self.weigh()

        with making_private(self.root, "--cache-dir"), alone_in(self.root, "--cache-dir"):
            self._forget_left_behind()
            self.weigh()
            threading.Thread(target=keep_sweeping, daemon=True).start()
            try:
                yield
            finally:
                stopped.set()
                for visitor in self._known.values():
                    self._forget(visitor)

    def _forget(self, visitor: Visitor) -> None:
        if not self.keeps:
            visitor.forget_all()
            return
        visitor.forget_brought()
        with suppress(OSError):  # there is more in it, which is kept; or it was never made
            visitor.folder.rmdir()

    def _forget_left_behind(self) -> None:
        """What a page that was killed could not delete."""
        for folder in self.root.iterdir():
            if _FOLDER.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
                self._forget(Visitor("", folder))

    def _folder(self, token: str) -> Path:
        return self.root / hashlib.sha256(token.encode()).hexdigest()[:32]  # who lists the disk learns no token


def _weight(folder: Path) -> int:
    """Bytes of the files in a folder, some of which may go meanwhile."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size += os.lstat(os.path.join(place, name)).st_size
    return size


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]

"""Where and how a fit runs; nothing of it changes what comes out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from semtransforms.core.checkpoint import save_checkpoint
from semtransforms.core.files import explained, swept
from semtransforms.core.sharing import Share
from semtransforms.noise.classwise import Classwise


@dataclass(frozen=True)
class Run:
    """Where and how a fit runs.

    Args:
        device: where it computes.
        checkpoint: the file; ``None`` for none.
        checkpoint_every: updates between checkpoints.
        progress: show a bar.
        share: what of each batch is this process's.
    """

    device: torch.device
    checkpoint: Path | None
    checkpoint_every: int
    progress: bool
    share: Share

    @contextmanager
    def folder(self) -> Iterator[None]:
        """The checkpoint's folder, where there is to be one, without what a kill has left in it."""
        if self.checkpoint is None or not self.share.writes:
            yield
            return
        with explained("checkpoint_dir", self.checkpoint.parent):
            self.checkpoint.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with swept(self.checkpoint.parent):
            yield

    def saver(
        self, surrogate: nn.Module, optimizer: torch.optim.Optimizer, description: Mapping[str, str], *, last: int
    ) -> Callable[[int], None]:
        """What is given the updates done, after each, and writes a checkpoint where one is due."""

        def save(done: int) -> None:
            due = done % self.checkpoint_every == 0 or done == last
            if self.checkpoint is not None and self.share.writes and due:
                extra = {"noise_momentum": surrogate.momentum} if isinstance(surrogate, Classwise) else None
                save_checkpoint(self.checkpoint, surrogate, optimizer, done, description, extra)

        return save


def checkpoint_file(folder: str | Path | None, resume: bool, name: str = "checkpoint.safetensors") -> Path | None:
    """Where the checkpoint is to lie, in a folder that can be written and holds none that is not to be gone on with."""
    if folder is None:
        return None
    checkpoint = Path(folder).expanduser() / name
    _check_writable(checkpoint.parent)
    if checkpoint.exists() and not resume:
        raise FileExistsError(
            f"checkpoint_dir already holds {checkpoint}. Pass resume=True (--resume on the command line) to go "
            "on with it, or another folder."
        )
    return checkpoint


def _check_writable(folder: Path) -> None:
    """Whether a folder is there or can be made, without making it."""
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise OSError(f"checkpoint_dir: cannot write {folder} ({place} is no folder you may write to). Use another.")

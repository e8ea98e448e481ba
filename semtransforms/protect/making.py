"""From groups of images to the bytes of their protected files, in this process or in several."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from semtransforms.core.ahead import ahead
from semtransforms.core.hardware import give_back_freed_memory
from semtransforms.core.processes import end_with_parent
from semtransforms.data.colour import ProfileEffect, profile_effect
from semtransforms.data.images import UNDECODABLE, RGBImage, to_rgb
from semtransforms.data.opening import MOST_PIXELS, ImageFile, open_image
from semtransforms.data.remote import AT_ONCE, RemotePath
from semtransforms.data.sources import reason
from semtransforms.protect.batch import protect_batch
from semtransforms.protect.formats import FORMATS, Difference, Format, published_difference
from semtransforms.views.resize import NoiseScale

if TYPE_CHECKING:
    from semtransforms.generators.generator import NoiseGenerator, NoiseSize


class Task(NamedTuple):
    """One image to protect: its row in the source, its label, how messages call it, and what it is opened from."""

    row: int
    label: int
    place: str
    file: ImageFile


class Made(NamedTuple):
    """One protected file: what it was made from (``stamp``), its bytes, and what there is to tell about it."""

    row: int
    stamp: str
    data: bytes
    difference: Difference
    with_metadata: bool
    profile: ProfileEffect
    without_alpha: bool


class Failed(NamedTuple):
    """An image that was not protected: where it is, and why."""

    place: str


class _Read(NamedTuple):
    task: Task
    stamp: str
    image: RGBImage
    with_metadata: bool
    profile: ProfileEffect


@dataclass(frozen=True)
class Maker(Dataset[Any]):
    """What makes files: pickled into every process. As a data set its rows are groups of tasks.

    Args:
        generator: makes the noise.
        format: one of ``FORMATS``.
        quality: of :func:`semtransforms.protect.formats.pick_quality`.
        seed: of the noise.
        noise_size, visibility, device: as for :func:`semtransforms.protect.batch.protect_batch`.
        most_pixels: larger images are refused before they are decoded.
    """

    generator: NoiseGenerator
    format: str = "png"
    quality: int | None = None
    seed: int = field(default=0, repr=False)  # what is shown ends up in logs
    noise_size: NoiseSize = None
    visibility: float = 1.0
    device: str | None = None
    most_pixels: int = MOST_PIXELS

    @property
    def kind(self) -> Format:
        """The format."""
        return FORMATS[self.format]

    def __getitem__(self, tasks: Sequence[Task | Failed]) -> list[Made | Failed]:
        made = self._make(tasks)
        # else it lies beside what a process takes at its end, where it touches all of CUDA's libraries: 130 MB
        give_back_freed_memory()
        return made

    def _make(self, tasks: Sequence[Task | Failed]) -> list[Made | Failed]:
        read = [
            task if isinstance(task, Failed) else self._read(task, data)
            for task, data in zip(tasks, ahead(_fetch, tasks, AT_ONCE if any(map(_is_far, tasks)) else 0), strict=True)
        ]
        good = [each for each in read if isinstance(each, _Read)]
        batch = protect_batch(
            [each.image.pixels for each in good],
            torch.tensor([each.task.label for each in good], dtype=torch.int64),
            self.generator,
            seed=self.seed,
            noise_size=self.noise_size,
            visibility=self.visibility,
            device=self.device,
        )
        made = (self._encode(*each, batch.scale) for each in zip(good, batch.made, strict=True))
        return [each if isinstance(each, Failed) else next(made) for each in read]

    def _read(self, task: Task, file: bytes | Image.Image | Exception) -> _Read | Failed:
        try:
            if isinstance(file, Exception):
                raise file
            with open_image(file, self.most_pixels) as opened:
                image = to_rgb(opened)
                smallest, (height, width) = self.generator.smallest, image.pixels.shape[1:]
                if min(height, width) < smallest:
                    raise ValueError(f"{width}x{height} pixels; the generator takes {smallest} and more")
                # as it was listed: who wrote it between that and the reading has it made anew the next time
                known = task.file if isinstance(task.file, RemotePath) and task.file.version else file
                return _Read(task, stamp(task.label, known), image, carries_metadata(opened), profile_effect(opened))
        except UNDECODABLE as error:
            return Failed(f"{task.place} ({reason(error)})")

    def _encode(self, read: _Read, noise: torch.Tensor, scale: NoiseScale) -> Made:
        clean, alpha = read.image
        protected = scale.add(noise, clean)
        data = self.kind.encode(RGBImage(protected, alpha), clean, self.quality)
        published = protected if self.kind.lossless else data
        del protected  # before a file is decoded: of 12 megapixels they take 36 MB each
        difference = published_difference(clean, published)
        lost = alpha is not None and not self.kind.lossless
        return Made(read.task.row, read.stamp, data, difference, read.with_metadata, read.profile, lost)


def _is_far(task: Task | Failed) -> bool:
    return isinstance(task, Task) and isinstance(task.file, RemotePath)


def _fetch(task: Task | Failed) -> bytes | Image.Image | Exception:
    """What is decoded, read once: it is what the stamp is of, even where someone writes the file meanwhile."""
    if isinstance(task, Failed):
        return b""
    if not isinstance(task.file, Path | RemotePath):
        return task.file
    try:
        return task.file.read_bytes()
    except UNDECODABLE as error:
        return error


Engine = Callable[[Maker, Iterable[Sequence[Task | Failed]], int], Iterator[list[Made | Failed]]]
"""What turns groups into files: :func:`make`, or the adapter of a cluster."""


def make(maker: Maker, groups: Iterable[Sequence[Task | Failed]], workers: int) -> Iterator[list[Made | Failed]]:
    """Make the files of groups of images, in order.

    Args:
        maker: how.
        groups: asked for as the work goes on, a few ahead.
        workers: so many processes of one thread, started anew and not forked; 0 works in this one. The files are the
            same.

    Yields:
        What became of each group.

    Raises:
        OSError: a process was ended from outside, for want of memory as a rule.
        StorageError: the images lie elsewhere, and cannot be reached any more.
    """
    loader = DataLoader(
        maker,
        sampler=groups,
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=end_with_parent,
        generator=torch.Generator(),  # it would else draw from the user's
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise OSError(
            f"--workers {workers}: a process was ended from outside ({error}), as a rule for want of memory. What is "
            "finished is kept: the same command with fewer workers goes on from here."
        ) from error


def _as_it_is(made: list[Made | Failed]) -> list[Made | Failed]:
    return made


def stamp(label: int, file: ImageFile) -> str:
    """A word that changes when an image or its label does, for noise is made for both. It tells the content: private.

    Args:
        label: of the image.
        file: what it is opened from.

    Raises:
        OSError: it cannot be read.
    """
    if isinstance(file, RemotePath) and file.version:
        return f"{label}-{file.version}"  # of many, reading them all would take days
    if isinstance(file, Image.Image):
        data = f"{file.mode} {file.size} ".encode() + file.tobytes()
    else:
        data = file if isinstance(file, bytes) else file.read_bytes()
    return f"{label}-{hashlib.sha256(data).hexdigest()}"


def carries_metadata(image: Image.Image) -> bool:
    """Whether an open image file says more than its pixels: EXIF (with GPS), XMP, an ICC profile, a comment, text."""
    named = {"exif", "xmp", "icc_profile", "comment", "photoshop", "XML:com.adobe.xmp"}
    return bool(named & image.info.keys() or image.getexif() or getattr(image, "text", None))

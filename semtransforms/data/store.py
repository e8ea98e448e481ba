"""NoiseStore: defensive noise on disk, computed once, read by memory map.

A store is a private folder: whoever has the noise subtracts it. Layout::

    manifest.json                   written last; without it the store is not complete
    shard-00000.safetensors         see :mod:`semtransforms.data.shards`

Opening a store compares sizes only; each read checks the CRC-32 of the one image it reads. Together with the SHA-256 of
each shard they find damage without reading the data set twice.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from semtransforms import __version__
from semtransforms.core.files import explained, locked, read_json, sweep, to_json, write_atomically
from semtransforms.core.private import keep_private, make_private, refuse_link
from semtransforms.data.imported import read_noise
from semtransforms.data.shards import DamagedStoreError, Shard, write_shard

SHARD_BYTES = 4 << 20  # what a kill may cost: 1,365 images of 32 x 32
MAX_SHARDS = 256  # each open shard holds a file descriptor
SPARE_BYTES = 1 << 20  # headers, manifest, directory entries
HELD_BYTES = 8 << 20  # read by a process before it hands the mapped pages back to the system

FREE_OR_CHOOSE = (
    "Free space there, or pass cache_dir= another folder (default: in XDG_CACHE_HOME); finished shards are kept."
)

_SHARD = re.compile(r"shard-\d+\.safetensors")

Compute = Callable[[int, int], Iterable[Tensor | Sequence[Tensor]]]
Part = tuple[str, int, int]  # a shard: its file, first image, end


def default_cache_dir() -> Path:
    """The folder that holds the stores: ``$XDG_CACHE_HOME/semtransforms``, or ``~/.cache/semtransforms``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "semtransforms"


def store_key(description: Mapping[str, Any]) -> str:
    """Hash everything the noise depends on, together with the package's version.

    Args:
        description: JSON values: the data's hash, the generator's fingerprint and config, seed, indices.

    Returns:
        32 hexadecimal digits, the name of the store's folder.
    """
    text = json.dumps({**description, "package": __version__}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class NoiseStore:
    """A complete store of int8 noise, opened for reading.

    Opening costs a stat per shard. Pixels are read by memory map, so that resident memory does not grow with the data
    set. A pickled store carries its folder only and reopens where it is used.

    Args:
        folder: the store's folder.

    Raises:
        FileNotFoundError: the store is not complete (no manifest).
        DamagedStoreError: the manifest cannot be read, or a shard is missing or has the wrong size.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.description, shards = _read_manifest(self.folder)
        self.files: tuple[str, ...] = tuple(shard["file"] for shard in shards)
        self._checksums = tuple(shard["sha256"] for shard in shards)
        self._starts = list(itertools.accumulate((shard["images"] for shard in shards), initial=0))
        for shard in shards:
            path = self.folder / shard["file"]
            if not path.is_file() or path.stat().st_size != shard["bytes"]:
                raise DamagedStoreError(
                    f"{path} is missing or has the wrong size. Build the store again: only this shard is recomputed."
                )
        self._open: list[Shard | None] = [None] * len(shards)
        self._held = 0
        keep_private(self.folder, "cache_dir")

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __repr__(self) -> str:
        return f"NoiseStore({str(self.folder)!r}, images={len(self)}, shards={len(self.files)})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": [None] * len(self.files)}  # memory maps stay in their process

    def read(self, index: int) -> NDArray[np.int8]:
        """Read the noise of one image as PIL lays pixels out, without copying.

        Args:
            index: position in the store, 0..len-1.

        Returns:
            int8 (H, W, 3), a read-only view of the memory map.

        Raises:
            IndexError: there is no such image.
            DamagedStoreError: the bytes are not those that were written; the shard is set aside, so that building
                the store again recomputes it.
        """
        if not 0 <= index < self._starts[-1]:
            raise IndexError(f"index must be in 0..{len(self) - 1}, got {index}.")
        number = bisect.bisect_right(self._starts, index) - 1
        try:
            shard = self._open[number] or self._open_shard(number)
            noise = shard.read(index - self._starts[number])
        except (DamagedStoreError, FileNotFoundError) as error:
            path = self.folder / self.files[number]
            with contextlib.suppress(OSError):  # a folder we may not write to stays as it is
                path.replace(path.with_suffix(".damaged"))
            self._open[number] = None
            raise DamagedStoreError(
                f"{path} is damaged: {error}. Build the store again (construct the "
                "ProtectedDataset again): only this shard is recomputed."
            ) from error
        self._held += noise.nbytes
        if self._held > HELD_BYTES:  # else the whole store becomes resident in the course of an epoch
            self._held = 0
            for shard in filter(None, self._open):
                shard.release()
        return noise

    def made_for(self, index: int) -> int | None:
        """``checksum_of_image`` of the image that noise was made for, if it is known; index as for :meth:`read`."""
        number = bisect.bisect_right(self._starts, index) - 1
        shard = self._open[number] or self._open_shard(number)
        return shard.made_for(index - self._starts[number])

    def __getitem__(self, index: int) -> Tensor:
        """The noise of one image, int8 (3, H, W), a copy."""
        return torch.from_numpy(self.read(index).transpose(2, 0, 1).copy())

    def _open_shard(self, number: int) -> Shard:
        shard = Shard(self.folder / self.files[number])
        if shard.checksum != self._checksums[number]:
            raise DamagedStoreError("its header is not the one in the manifest")
        self._open[number] = shard
        return shard

    @classmethod
    def build(
        cls,
        folder: str | os.PathLike[str],
        shapes: NDArray[np.integer[Any]],
        compute: Compute,
        *,
        images: NDArray[np.uint64] | None = None,
        description: Mapping[str, Any] | None = None,
        progress: bool = True,
    ) -> NoiseStore:
        """Compute the shards that are missing or damaged, then open the store.

        A killed computation continues at the first missing shard. Of two processes that build the same store one
        computes and the other waits; the lock dies with its process.

        Args:
            folder: the store's folder, made private (0700).
            shapes: int (N, 2), height and width of every image.
            compute: ``compute(start, stop)`` gives the noise of images start..stop-1 in pieces, each int8
                (n, 3, H, W) or a list of n int8 (3, H, W).
            images: uint64 (N,), checksums of the images, filled in by ``compute``; None where they are not there.
            description: what the noise depends on, JSON values, kept in the manifest.
            progress: show a progress bar (images/s, time left).

        Returns:
            The complete store.

        Raises:
            OSError: the folder cannot be written, or the disk has not enough room; raised before ``compute`` is called.
            ValueError: ``compute`` gave noise of another shape, type or number.
        """
        folder = Path(folder)
        shapes = np.asarray(shapes, dtype=np.int64).reshape(-1, 2)
        plan = _plan(shapes)
        make_private(folder, "cache_dir", FREE_OR_CHOOSE)
        refuse_link(folder / ".lock", "cache_dir")
        with _alone(folder, progress):
            with contextlib.suppress(FileNotFoundError, DamagedStoreError):
                return cls(folder)  # another process was faster
            missing = _missing(folder, plan, shapes)
            _check_room(folder, sum(3 * int(shapes[start:stop].prod(axis=1).sum()) for _, start, stop in missing))
            _fill(folder, missing, shapes, images, compute, progress)
            with explained("cache_dir", folder, FREE_OR_CHOOSE):
                _write_manifest(folder, plan, dict(description or {}))
        return cls(folder)

    @classmethod
    def from_array(
        cls, noise: NDArray[Any] | Tensor, cache_dir: str | os.PathLike[str] | None = None, *, progress: bool = False
    ) -> NoiseStore:
        """Take noise that others have published, one row per image of a data set, in its order.

        ``ProtectedDataset(dataset, store)`` puts it on the images, ``evaluate(dataset, store, test=...)`` judges it.

        Args:
            noise: (N, H, W, 3) or (N, 3, H, W); whole numbers or floats in grey levels, or floats in units of the pixel
                range (no value beyond 1). A memory-mapped ``.npy`` file will do (``np.load(..., mmap_mode="r")``).
            cache_dir: the folder that holds the stores; default ``~/.cache/semtransforms``.
            progress: show a progress bar.

        Returns:
            The store, whose description says ``method`` ("imported"), ``rho_u`` and the noise's digest.

        Raises:
            TypeError: unsigned or boolean values, which cannot say what is subtracted.
            ValueError: another shape, values that are not finite or beyond 127 levels, or zero everywhere.
            OSError: the folder cannot be written.
        """
        found = read_noise(noise)
        description = {"method": "imported", "rho_u": found.reach / 255, "noise": found.digest}
        folder = Path(cache_dir or default_cache_dir()).expanduser() / f"noise-{store_key(description)}"
        return cls.build(folder, found.shapes, found.levels, description=description, progress=progress)


def _plan(shapes: NDArray[np.int64]) -> list[Part]:
    """Cut the images into shards (file, start, stop) of about equal bytes; the same shapes give the same cut."""
    sizes = 3 * shapes.prod(axis=1)
    limit = max(SHARD_BYTES, -(-int(sizes.sum()) // MAX_SHARDS))
    return [(f"shard-{number:05d}.safetensors", start, stop) for number, (start, stop) in enumerate(cut(sizes, limit))]


def cut(sizes: NDArray[np.int64], limit: int, count: int | None = None) -> list[tuple[int, int]]:
    """Cut a row of images into ranges, in order.

    Args:
        sizes: int64 (N,), bytes of each image.
        limit: bytes of a range; a single larger image is a range of its own.
        count: images of a range, at most.

    Returns:
        The ranges (start, stop), without gaps.
    """
    cuts, room = [0], limit
    for index, size in enumerate(sizes.tolist()):
        if index > cuts[-1] and (size > room or index - cuts[-1] == count):
            cuts.append(index)
            room = limit
        room -= size
    return list(itertools.pairwise([*cuts, len(sizes)]))


def _missing(folder: Path, plan: list[Part], shapes: NDArray[np.int64]) -> list[Part]:
    """The shards that are not there, or do not hold what was written for these images."""
    missing = []
    for name, start, stop in plan:
        try:
            shard = Shard(folder / name)
            intact = shard.is_intact() and np.array_equal(shard.shapes, shapes[start:stop])
        except FileNotFoundError:
            missing.append((name, start, stop))
            continue
        except DamagedStoreError:
            intact = False
        if not intact:
            warnings.warn(f"{folder / name} is damaged (checksum); it is computed again.", stacklevel=3)
            missing.append((name, start, stop))
    return missing


def _fill(
    folder: Path,
    missing: list[Part],
    shapes: NDArray[np.int64],
    images: NDArray[np.uint64] | None,
    compute: Compute,
    progress: bool,
) -> None:
    """Compute shards and write them, one by one."""
    found = len(shapes) - sum(stop - start for _, start, stop in missing)
    with tqdm(total=len(shapes), initial=found, desc="noise", unit="image", disable=not progress) as bar:
        for name, start, stop in missing:
            noise = _collect(compute(start, stop), shapes[start:stop], bar)
            with explained("cache_dir", folder, FREE_OR_CHOOSE):
                write_shard(folder / name, noise, shapes[start:stop], None if images is None else images[start:stop])


def _collect(pieces: Iterable[Tensor | Sequence[Tensor]], shapes: NDArray[np.int64], bar: Any) -> NDArray[np.int8]:
    """Lay the noise of one shard out flat, (H, W, 3) per image: as PIL has its pixels, so that addition is fast."""
    flat, index, offset = np.empty(3 * int(shapes.prod(axis=1).sum()), np.int8), 0, 0
    for piece in pieces:
        for noise in piece:
            expected = (3, *shapes[index].tolist()) if index < len(shapes) else None
            if noise.dtype != torch.int8 or tuple(noise.shape) != expected:
                raise ValueError(
                    f"compute gave noise {noise.dtype} {tuple(noise.shape)} for image {index} of a shard "
                    f"of {len(shapes)}, expected torch.int8 {expected}."
                )
            flat[offset : offset + noise.numel()] = noise.permute(1, 2, 0).reshape(-1).cpu().numpy()
            index, offset = index + 1, offset + noise.numel()
        bar.update(len(piece))
    if index != len(shapes):
        raise ValueError(f"compute gave noise for {index} images, expected {len(shapes)}.")
    return flat


def _write_manifest(folder: Path, plan: list[Part], description: dict[str, Any]) -> None:
    shards = [
        {
            "file": name,
            "images": stop - start,
            "bytes": (folder / name).stat().st_size,
            "sha256": Shard(folder / name).checksum,
        }
        for name, start, stop in plan
    ]
    manifest = {"package": __version__, "description": description, "shards": shards}
    write_atomically(folder / "manifest.json", to_json(manifest), mode=0o600)


def _read_manifest(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    path = folder / "manifest.json"
    kinds = {"file": str, "images": int, "bytes": int, "sha256": str}
    try:
        manifest = read_json(path)
        shards = [{name: kind(shard[name]) for name, kind in kinds.items()} for shard in manifest["shards"]]
        if strange := [shard["file"] for shard in shards if not _SHARD.fullmatch(shard["file"])]:
            raise ValueError(f"it names the file {strange[0]!r}")  # which would be renamed where it is no shard
        return dict(manifest["description"]), shards
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedStoreError(
            f"{path} is damaged ({error!r}). Build the store again: it is written anew from the shards."
        ) from error


@contextlib.contextmanager
def _alone(folder: Path, progress: bool) -> Iterator[None]:
    """Hold the folder's lock. On a disk without locks two processes may both compute, and rename equal shards."""
    lock = folder / ".lock"
    with locked(lock, wait=False) as held:
        if held:
            _tidy(folder)
            yield
            return
    if progress:
        tqdm.write(f"waiting for another process that computes {folder}")
    with locked(lock, wait=True) as held:
        if held:
            _tidy(folder)
        yield


def _tidy(folder: Path) -> None:
    """Remove what a kill has left, and what readers have set aside."""
    sweep(folder)
    for damaged in folder.glob("*.damaged"):
        damaged.unlink(missing_ok=True)


def check_cache(cache_dir: Path) -> None:
    """Find out before any work that no store can be written; makes no folder and leaves no file.

    Args:
        cache_dir: the folder that holds the stores, which need not exist yet.

    Raises:
        OSError: neither a store is there nor can one be made.
    """
    with explained("cache_dir", cache_dir, FREE_OR_CHOOSE):
        if any(cache_dir.glob("noise-*")):
            return  # complete stores are read where nothing can be written, too
        existing = next(path for path in (cache_dir, *cache_dir.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=existing):
            pass


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed and needed + SPARE_BYTES > free:
        raise OSError(
            f"cache_dir: {folder} needs {needed + SPARE_BYTES:,} bytes for the noise and its disk has "
            f"{free:,} free. Free space there, or pass cache_dir= a folder on a larger disk."
        )

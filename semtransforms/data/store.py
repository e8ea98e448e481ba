"""NoiseStore: defensive noise on disk, computed once, read by memory map.

A store is a private folder: whoever has the noise subtracts it. Layout::

    manifest.json                   written last; without it the store is not complete
    shard-00000.safetensors         noise (flat int8, each image H x W x 3), shapes (n, 2), crc32 (n,)

Every shard carries its SHA-256 in its own header, so that it can be checked before there is a manifest. Opening a
store compares sizes only; each read checks the CRC-32 of the one image it reads. Both together find damage without
reading the data set twice.
"""

import bisect
import contextlib
import hashlib
import itertools
import json
import mmap
import os
import shutil
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from semtransforms import __version__

if sys.platform != "win32":
    import fcntl

SHARD_BYTES = 4 << 20  # what a kill may cost: 1,365 images of 32 x 32
MAX_SHARDS = 256  # each open shard holds a file descriptor
SPARE_BYTES = 1 << 20  # headers, manifest, directory entries
HELD_BYTES = 8 << 20  # read by a process before it hands the mapped pages back to the system

Compute = Callable[[int, int], Iterable[Tensor | Sequence[Tensor]]]


class DamagedStoreError(RuntimeError):
    """A shard is missing or does not hold the bytes that were written; building the store again recomputes it."""


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
        self._open: list[_Shard | None] = [None] * len(shards)
        self._held = 0

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

    def __getitem__(self, index: int) -> Tensor:
        """The noise of one image, int8 (3, H, W), a copy."""
        return torch.from_numpy(self.read(index).transpose(2, 0, 1).copy())

    def _open_shard(self, number: int) -> "_Shard":
        shard = _Shard(self.folder / self.files[number])
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
        description: Mapping[str, Any] | None = None,
        progress: bool = True,
    ) -> "NoiseStore":
        """Compute the shards that are missing or damaged, then open the store.

        A killed computation continues at the first missing shard. Of two processes that build the same store one
        computes and the other waits; the lock dies with its process.

        Args:
            folder: the store's folder, made private (0700).
            shapes: int (N, 2), height and width of every image.
            compute: ``compute(start, stop)`` gives the noise of images start..stop-1 in pieces, each int8
                (n, 3, H, W) or a list of n int8 (3, H, W).
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
        _make_private(folder)
        with _locked(folder, progress):
            with contextlib.suppress(FileNotFoundError, DamagedStoreError):
                return cls(folder)  # another process was faster
            intact = {name for name, start, stop in plan if _is_intact(folder / name, shapes[start:stop])}
            missing = [part for part in plan if part[0] not in intact]
            _check_room(folder, sum(3 * int(shapes[start:stop].prod(axis=1).sum()) for _, start, stop in missing))
            with tqdm(
                total=len(shapes),
                initial=len(shapes) - sum(stop - start for _, start, stop in missing),
                desc="noise",
                unit="image",
                disable=not progress,
            ) as bar:
                for name, start, stop in missing:
                    noise = _collect(compute(start, stop), shapes[start:stop], bar)
                    with _explained(folder):
                        _write_shard(folder / name, noise, shapes[start:stop])
            with _explained(folder):
                _write_manifest(folder, plan, dict(description or {}))
        return cls(folder)

    @classmethod
    def from_array(
        cls, noise: NDArray[Any] | Tensor, cache_dir: str | os.PathLike[str] | None = None, *, progress: bool = False
    ) -> "NoiseStore":
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
        if isinstance(noise, Tensor):
            noise = (noise.float() if noise.dtype == torch.bfloat16 else noise).detach().cpu().numpy()
        array, unit = _checked_noise(np.asarray(noise))

        def compute(start: int, stop: int) -> Iterator[Tensor]:
            for row in array[start:stop]:
                yield torch.from_numpy(np.rint(np.multiply(row, unit)).astype(np.int8))[None]

        digest, reach = hashlib.sha256(repr(array.shape).encode()), 0
        for levels in compute(0, len(array)):  # the same noise in another form is the same store
            digest.update(levels.numpy().tobytes())
            reach = max(reach, int(levels.abs().max()))
        description = {"method": "imported", "rho_u": reach / 255, "noise": digest.hexdigest()}

        folder = Path(cache_dir or default_cache_dir()).expanduser() / f"noise-{store_key(description)}"
        shapes = np.tile(array.shape[2:], (len(array), 1))
        return cls.build(folder, shapes, compute, description=description, progress=progress)


def _checked_noise(array: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Noise of others as (N, 3, H, W), and what its values are multiplied by to be grey levels."""
    if array.ndim != 4 or 0 in array.shape or 3 not in (array.shape[1], array.shape[3]):
        raise ValueError(
            f"noise must be (N, H, W, 3) or (N, 3, H, W), none of them 0, got {array.shape}. Class-wise "
            "noise becomes a row for each image by noise[labels]."
        )
    if array.shape[1] == array.shape[3]:
        raise ValueError(f"noise of shape {array.shape} could be (N, H, W, 3) or (N, 3, H, W): images must be larger.")
    if array.dtype.kind not in "if":
        raise TypeError(
            f"noise must be signed whole numbers or floats, got {array.dtype}: it cannot say what is "
            "subtracted. Take protected.astype('int16') - clean."
        )
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("noise holds NaN or infinity. Fetch or compute it again.")
    unit = 255 if array.dtype.kind == "f" and max(-low, high) <= 1 else 1
    reach = round(unit * max(-low, high))
    if reach > 127:
        remedy = (
            "Floats up to 1 are taken for shares of the pixel range: pass whole levels as int8."
            if unit == 255
            else "Are these images? Take the difference to the clean ones."
        )
        raise ValueError(f"noise reaches {reach} grey levels, which no store holds (127). {remedy}")
    if reach == 0:
        raise ValueError("noise is zero everywhere: nothing would be protected.")
    if low >= 0:
        warnings.warn("noise is nowhere negative: was it clamped when it was saved?", stacklevel=3)
    return (array if array.shape[1] == 3 else array.transpose(0, 3, 1, 2)), unit


class _Shard:
    """One memory-mapped shard."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            try:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                length = 8 + int.from_bytes(self._map[:8], "little")
                header = json.loads(self._map[8:length])
                self.checksum: str = header["__metadata__"]["sha256"]
                self.noise = self._tensor(header["noise"], length, np.int8)
                self.shapes = self._tensor(header["shapes"], length, np.int32).reshape(-1, 2)
                self.crc32 = self._tensor(header["crc32"], length, np.uint32)
            except (ValueError, KeyError, TypeError) as error:  # what a header that is not one leads to
                raise DamagedStoreError(f"its header cannot be read ({error!r})") from error
        self._offsets = np.concatenate([[0], 3 * self.shapes.astype(np.int64).prod(axis=1).cumsum()])

    def _tensor(self, entry: Mapping[str, Any], base: int, dtype: type[np.generic]) -> NDArray[Any]:
        begin, end = entry["data_offsets"]
        return np.frombuffer(self._map, dtype, (end - begin) // np.dtype(dtype).itemsize, base + begin)

    def read(self, index: int) -> NDArray[np.int8]:
        height, width = self.shapes[index].tolist()
        flat = self.noise[self._offsets[index] : self._offsets[index + 1]]
        if flat.size != 3 * height * width or _crc32(flat, height, width) != self.crc32[index]:
            raise DamagedStoreError(f"the checksum of its image {index} is wrong")
        return flat.reshape(height, width, 3)

    def release(self) -> None:
        """Drop the pages from this process; what is still in use comes back from the system's cache."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def is_intact(self) -> bool:
        return self.checksum == _sha256(self.noise, self.shapes, self.crc32)


def _crc32(flat: NDArray[np.int8], height: int, width: int) -> int:
    """The checksum of one image's noise; it starts from the shape, so that it covers the shape as well."""
    return zlib.crc32(flat.data, (height * 65_537 + width) & 0xFFFFFFFF)


def _sha256(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _plan(shapes: NDArray[np.int64]) -> list[tuple[str, int, int]]:
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


def _is_intact(path: Path, shapes: NDArray[np.int64]) -> bool:
    """Whether a shard on disk holds what was written for these images; says so where it is damaged."""
    try:
        shard = _Shard(path)
        if shard.is_intact() and np.array_equal(shard.shapes, shapes):
            return True
    except FileNotFoundError:
        return False
    except DamagedStoreError:
        pass
    warnings.warn(f"{path} is damaged (checksum); it is computed again.", stacklevel=4)
    return False


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


def _write_shard(path: Path, noise: NDArray[np.int8], shapes: NDArray[np.int64]) -> None:
    offsets = [0, *(3 * shapes.prod(axis=1).cumsum()).tolist()]
    crc32 = np.array(
        [
            _crc32(noise[begin:end], height, width)
            for (begin, end), (height, width) in zip(itertools.pairwise(offsets), shapes.tolist(), strict=True)
        ],
        np.uint32,
    )
    small = shapes.astype(np.int32)
    metadata = {"sha256": _sha256(noise, small, crc32)}
    with _renamed_to(path) as temporary:
        safetensors.numpy.save_file({"noise": noise, "shapes": small, "crc32": crc32}, temporary, metadata)


def _write_manifest(folder: Path, plan: list[tuple[str, int, int]], description: dict[str, Any]) -> None:
    shards = [
        {
            "file": name,
            "images": stop - start,
            "bytes": (folder / name).stat().st_size,
            "sha256": _Shard(folder / name).checksum,
        }
        for name, start, stop in plan
    ]
    manifest = {"package": __version__, "description": description, "shards": shards}
    with _renamed_to(folder / "manifest.json") as temporary:
        temporary.write_text(json.dumps(manifest, indent=1))


def _read_manifest(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_bytes())
        shards = [
            {
                "file": str(shard["file"]),
                "images": int(shard["images"]),
                "bytes": int(shard["bytes"]),
                "sha256": str(shard["sha256"]),
            }
            for shard in manifest["shards"]
        ]
        return dict(manifest["description"]), shards
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedStoreError(
            f"{path} is damaged ({error!r}). Build the store again: it is written anew from the shards."
        ) from error


@contextlib.contextmanager
def _renamed_to(path: Path) -> Iterator[Path]:
    """A temporary file that takes its name only when its bytes are on the disk."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _fsync(temporary)
        temporary.replace(path)
        if os.name == "posix":  # the new name lies in the folder's own bytes
            _fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _locked(folder: Path, progress: bool) -> Iterator[None]:
    """Hold the folder's lock; the system drops it with the process, so a kill leaves none behind."""
    with (folder / ".lock").open("w") as file:
        if _lock(file, wait=False):
            for stale in (*folder.glob(".*.tmp"), *folder.glob("*.damaged")):  # nobody else writes now
                stale.unlink(missing_ok=True)
        elif sys.platform != "win32":
            if progress:
                tqdm.write(f"waiting for another process that computes {folder}")
            _lock(file, wait=True)
        yield


def _lock(file: IO[str], *, wait: bool) -> bool:
    """Take the lock; without one (Windows, some network disks) both processes compute and rename equal shards."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def check_cache(cache_dir: Path) -> None:
    """Find out before any work that no store can be written; makes no folder and leaves no file.

    Args:
        cache_dir: the folder that holds the stores, which need not exist yet.

    Raises:
        OSError: neither a store is there nor can one be made.
    """
    with _writing(cache_dir):
        if any(cache_dir.glob("noise-*")):
            return  # complete stores are read where nothing can be written, too
        existing = next(path for path in (cache_dir, *cache_dir.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=existing):
            pass


def _make_private(folder: Path) -> None:
    with _writing(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        with tempfile.TemporaryFile(dir=folder):
            pass


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"cache_dir: cannot write {folder} ({error.strerror}). Pass cache_dir= a folder you "
            "may write to, or set XDG_CACHE_HOME",
        ) from error


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed and needed + SPARE_BYTES > free:
        raise OSError(
            f"cache_dir: {folder} needs {needed + SPARE_BYTES:,} bytes for the noise and its disk has "
            f"{free:,} free. Free space there, or pass cache_dir= a folder on a larger disk."
        )


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, safetensors.SafetensorError) as error:
        raise OSError(
            f"cache_dir: writing {folder} failed ({error}). Free space there, or pass cache_dir= another "
            "folder; finished shards are kept."
        ) from error

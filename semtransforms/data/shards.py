"""The file format of a shard: the noise of some images, guarded byte by byte.

A safetensors file of tensors: ``noise`` (flat int8, each image H x W x 3), ``shapes`` (n, 2), ``crc32`` (n,) of the
noise, and ``images`` (n,), what tells the images that it was made for; others' noise, which is imported, has none.
Its SHA-256 lies in its own header, so that a shard can be checked before there is a manifest.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import mmap
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import xxhash
from numpy.typing import NDArray

from semtransforms.core.files import writing


class DamagedStoreError(RuntimeError):
    """A shard is missing or does not hold the bytes that were written; building the store again recomputes it."""


class Shard:
    """One memory-mapped shard.

    Args:
        path: its file.

    Attributes:
        checksum: SHA-256 of the tensors, as its header says.
        shapes: int32 (n, 2), height and width of each image.

    Raises:
        FileNotFoundError: there is none.
        DamagedStoreError: its header cannot be read.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            try:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                length = 8 + int.from_bytes(self._map[:8], "little")
                header = json.loads(self._map[8:length])
                self.checksum: str = header["__metadata__"]["sha256"]
                self._noise = self._tensor(header["noise"], length, np.int8)
                self.shapes = self._tensor(header["shapes"], length, np.int32).reshape(-1, 2)
                self._crc32 = self._tensor(header["crc32"], length, np.uint32)
                entry = header.get("images")
                self._images = None if entry is None else self._tensor(entry, length, np.uint64)
            except (ValueError, KeyError, TypeError) as error:  # what a header that is not one leads to
                raise DamagedStoreError(f"its header cannot be read ({error!r})") from error
        self._offsets = np.concatenate([[0], 3 * self.shapes.astype(np.int64).prod(axis=1).cumsum()])

    def _tensor(self, entry: Mapping[str, Any], base: int, dtype: type[np.generic]) -> NDArray[Any]:
        begin, end = entry["data_offsets"]
        return np.frombuffer(self._map, dtype, (end - begin) // np.dtype(dtype).itemsize, base + begin)

    def read(self, index: int) -> NDArray[np.int8]:
        """The noise of one image, int8 (H, W, 3), a read-only view of the memory map.

        Raises:
            DamagedStoreError: its bytes are not those that were written.
        """
        height, width = self.shapes[index].tolist()
        flat = self._noise[self._offsets[index] : self._offsets[index + 1]]
        if flat.size != 3 * height * width or _checksum(flat, height, width) != self._crc32[index]:
            raise DamagedStoreError(f"the checksum of its image {index} is wrong")
        return flat.reshape(height, width, 3)

    def made_for(self, index: int) -> int | None:
        """:func:`checksum_of_image` of the image that noise was made for, or None where that is not known."""
        return None if self._images is None else int(self._images[index])

    def release(self) -> None:
        """Drop the pages from this process; what is still in use comes back from the system's cache."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def is_intact(self) -> bool:
        """Whether every byte is the one that was written."""
        of_images = () if self._images is None else (self._images,)
        return self.checksum == _sha256(self._noise, self.shapes, self._crc32, *of_images)


def write_shard(
    path: Path, noise: NDArray[np.int8], shapes: NDArray[np.int64], images: NDArray[np.uint64] | None = None
) -> None:
    """Write a shard, whole or not at all, readable by its owner only.

    Args:
        path: its file.
        noise: int8, flat: (H, W, 3) of each image, one after the other.
        shapes: int64 (n, 2), height and width of each.
        images: uint64 (n,), :func:`checksum_of_image` of each; None where only the noise is known.

    Raises:
        OSError: it cannot be written.
    """
    offsets = [0, *(3 * shapes.prod(axis=1).cumsum()).tolist()]
    crc32 = np.array(
        [
            _checksum(noise[begin:end], height, width)
            for (begin, end), (height, width) in zip(itertools.pairwise(offsets), shapes.tolist(), strict=True)
        ],
        np.uint32,
    )
    tensors: dict[str, NDArray[Any]] = {"noise": noise, "shapes": shapes.astype(np.int32), "crc32": crc32}
    if images is not None:
        tensors["images"] = images
    metadata = {"sha256": _sha256(*tensors.values())}
    with writing(path, mode=0o600) as temporary:
        try:
            safetensors.numpy.save_file(tensors, temporary, metadata)
        except safetensors.SafetensorError as error:  # its word for a full disk, too
            raise OSError(str(error)) from error


def checksum_of_image(pixels: NDArray[np.uint8]) -> int:
    """What tells an image from another one: XXH3 (64 bits) of its shape and pixels, uint8 (H, W, 3)."""
    height, width = pixels.shape[:2]
    # a fifth to a seventieth of the time of CRC-32, and every image that is read pays for it
    return xxhash.xxh3_64_intdigest(np.ascontiguousarray(pixels).data, height * 65_537 + width)


def _checksum(flat: NDArray[np.int8], height: int, width: int) -> int:
    """The CRC-32 of one image's noise; it starts from the shape, so that it covers the shape as well."""
    return zlib.crc32(flat.data, (height * 65_537 + width) & 0xFFFFFFFF)


def _sha256(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()

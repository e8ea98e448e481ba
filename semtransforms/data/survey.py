"""What tells one set of images from another: their bytes, their labels, their sizes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import TensorDataset
from torchvision.datasets.folder import DatasetFolder, default_loader
from tqdm.auto import tqdm

from semtransforms.data.images import size_in_header
from semtransforms.data.raw import keeps_target_transform, read_pixels, unwrap_subsets
from semtransforms.data.shards import checksum_of_image

Read = Callable[[int], tuple[Tensor, Any]]  # a row to its pixels, uint8 (3, H, W), and its label


class Survey(NamedTuple):
    """What tells one set of images from another, their labels (N,), and where known their shapes and checksums.

    ``shapes`` are heights and widths (N, 2), ``checksums`` those of :func:`checksum_of_image` (N,).
    """

    digest: str
    labels: NDArray[Any]
    shapes: NDArray[np.int64] | None = None
    checksums: NDArray[np.uint64] | None = None


def survey(dataset: Any, rows: NDArray[np.int64], read: Read, progress: bool) -> Survey:
    """Look at images once, without decoding them where the dataset is of a kind that spares it.

    Args:
        dataset: gives raw samples.
        rows: int64 (N,), positions of the images.
        read: reads one of them.
        progress: show a bar where each image is read.

    Returns:
        For image folders the digest of the files' bytes, for everything else of the pixels.

    Raises:
        ValueError: the dataset gives another image each time it is asked, or one cannot be read.
    """
    inner, inner_rows = unwrap_subsets(dataset, rows)
    arrays = None if keeps_target_transform(inner) else _arrays(inner)  # labels are made as each image is read
    if arrays is not None:
        images, labels = arrays
        shapes = np.full((len(rows), 2), read(int(rows[0]))[0].shape[1:])
        return Survey(f"{type(inner).__name__} {_hash(images, inner_rows)}", labels[inner_rows], shapes)
    if _is_image_folder(inner) and not keeps_target_transform(inner):
        return _survey_files(inner, inner_rows)
    return _survey_samples(dataset, rows, read, progress)


def file_shapes(dataset: Any, rows: NDArray[np.int64], read: Read, progress: bool) -> NDArray[np.int64]:
    """Find the sizes of an image folder's images, decoding only those whose file does not say.

    Args:
        dataset, rows, read, progress: as for :func:`survey`.

    Returns:
        int64 (N, 2), heights and widths.

    Raises:
        ValueError: a file that is cut, or whose checksums are wrong, does not decode; the message names it.
    """
    inner, inner_rows = unwrap_subsets(dataset, rows)
    pairs = zip(rows.tolist(), inner_rows.tolist(), strict=True)
    return np.array(
        [
            size_in_header(Path(inner.samples[file][0]).read_bytes()) or read(row)[0].shape[1:]
            for row, file in tqdm(pairs, total=len(rows), desc="check", unit="image", disable=not progress)
        ]
    )


def _is_torchvision(dataset: Any) -> bool:
    return type(dataset).__module__.startswith("torchvision.datasets.")  # a user's subclass may do anything


def _is_image_folder(dataset: Any) -> bool:
    return isinstance(dataset, DatasetFolder) and _is_torchvision(dataset) and dataset.loader is default_loader


def _arrays(dataset: Any) -> tuple[NDArray[np.uint8], NDArray[Any]] | None:
    """Images and labels of a dataset that holds them as arrays (CIFAR, MNIST, SVHN, STL-10, TensorDataset)."""
    if type(dataset) is TensorDataset and len(dataset.tensors) == 2:
        images, labels = (part.detach().cpu().numpy() for part in dataset.tensors)
    elif _is_torchvision(dataset):
        images = np.asarray(getattr(dataset, "data", None))
        labels = np.asarray(getattr(dataset, "targets", getattr(dataset, "labels", None)))
    else:
        return None
    if images.dtype != np.uint8 or images.ndim < 3 or labels.shape != (len(images),) or len(images) != len(dataset):
        return None
    return images, labels


def _hash(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> str:
    axes = [0, *sorted(range(1, images.ndim), key=lambda axis: -images.strides[axis])]
    images = images.transpose(axes)  # as it lies in memory: CIFAR10.data is a transposed view
    digest = hashlib.sha256(f"{axes} {images.shape[1:]}".encode())
    whole = bool((np.diff(rows) == 1).all())
    for start in range(0, len(rows), 4096):
        part = rows[start : start + 4096]
        digest.update(np.ascontiguousarray(images[part[0] : part[-1] + 1] if whole else images[part]).data)
    return digest.hexdigest()


def _survey_files(dataset: Any, rows: NDArray[np.int64]) -> Survey:
    digest, labels = hashlib.sha256(), []
    for row in rows.tolist():
        path, label = dataset.samples[row]
        digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
        labels.append(label)
    return Survey(digest.hexdigest(), np.asarray(labels))


def _survey_samples(dataset: Any, rows: NDArray[np.int64], read: Read, progress: bool) -> Survey:
    digest, labels, shapes, checksums = hashlib.sha256(), [], [], []
    for row in tqdm(rows.tolist(), desc="hash", unit="image", disable=not progress):
        pixels, label = read(row)
        labels.append(label)
        shapes.append(tuple(pixels.shape[1:]))
        digest.update(f"{shapes[-1]}".encode())
        digest.update(pixels.numpy().data)
        checksums.append(checksum_of_image(pixels.numpy().transpose(1, 2, 0)))
    first = int(rows[0])
    # asked anew: what reads for us may keep what it has read
    check_same(checksums[0], read_pixels(dataset, first)[0].numpy().transpose(1, 2, 0), first)
    return Survey(digest.hexdigest(), np.asarray(labels), np.asarray(shapes), np.array(checksums, np.uint64))


def check_same(checksum: int | None, pixels: NDArray[np.uint8], index: int) -> None:
    """See that a dataset gives the image it gave before.

    Args:
        checksum: :func:`checksum_of_image` of that one; None where it is not known.
        pixels: uint8 (H, W, 3), what it gives now.
        index: of the image, for the message.

    Raises:
        ValueError: it is another one.
    """
    if checksum is not None and checksum_of_image(pixels) != checksum:
        raise ValueError(
            f"dataset gives another image at index {index} than before, so noise made for one does not fit the next. "
            "If it changes images as it reads them (flips, crops, others for broken ones), move that to its attribute "
            "`transform`, which is applied after the noise. If its files changed, construct the ProtectedDataset again."
        )

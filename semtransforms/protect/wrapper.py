"""ProtectedDataset: a map-style dataset whose images carry defensive noise."""

from __future__ import annotations

import hashlib
import operator
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset, get_worker_info
from torchvision import tv_tensors
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets.folder import DatasetFolder, default_loader
from tqdm.auto import tqdm

from semtransforms.core.grid import add_noise
from semtransforms.core.hardware import pick_device
from semtransforms.data.decoded import DecodedOnce
from semtransforms.data.images import as_pixels, rgb_array
from semtransforms.data.raw import read_sample, sample_label, sample_pixels, take_off_transforms
from semtransforms.data.store import DamagedStoreError, NoiseStore, check_cache, cut, default_cache_dir, store_key

if TYPE_CHECKING:
    from semtransforms.generators.generator import NoiseGenerator

NoiseSource: TypeAlias = "str | os.PathLike[str] | NoiseGenerator | NoiseStore"

GROUP_BYTES = 64 << 20  # images in memory at a time while noise is computed
TURN_BYTES = 256 << 10  # of noise, in a turn of reading, adding and transforming: 21 images of 64 px, 1 of 224


class ProtectedDataset(Dataset[Any]):
    """A labelled dataset with defensive noise on its raw images.

    A sample is read without the dataset's transforms, the noise is added in uint8, then the transforms run. The
    dataset given is never changed. A PIL image stays a PIL image (RGB, or RGBA where it has alpha), a tensor a tensor.

    The noise is computed once and kept in a private ``NoiseStore``: whoever has it, or the seed and the generator,
    subtracts it. Its folder is named by a hash of everything the noise depends on: for image folders the bytes of the
    files, for everything else the pixels.

    Args:
        dataset: map-style: torchvision's datasets, ``Subset``, ``TensorDataset`` of uint8, or any that gives
            (PIL image or uint8 tensor, int label), or rows with columns "image" and "label".
        generator: a folder, ``org/name@revision`` on the Hub or a short name, as for
            ``NoiseGenerator.from_pretrained``; a ``NoiseGenerator``; or a ``NoiseStore`` with a row for each image of
            the dataset (``NoiseStore.from_array``: noise of others), whose noise does not depend on the seed.
        fraction: share of the images to protect, in (0, 1], drawn by the seed.
        indices: positions of the images to protect, instead of ``fraction``.
        seed: secret and fresh for a real protection.
        cache_dir: where stores are kept; default ``~/.cache/semtransforms``.
        device: where the noise is computed; default: where the generator lies, a named one on a GPU if present.
        batch_size: images per step of the computation; the default suits the device.
        progress: show a progress bar while computing.
        label_map: the dataset's label to the generator's label, where they differ.

    Attributes:
        indices: sorted positions of the protected images.
        store: the ``NoiseStore``.
        classes: the dataset's label names, or None.
        transforms: what was taken off the dataset, ``(image, label) -> (image, label)``, or None.
        origin: whose noise it is: ``name``, ``generator`` (a fingerprint), ``method`` and ``rho_u``.

    Raises:
        ValueError: an empty dataset; fraction, indices or labels out of range; another number of classes than the
            generator's; an image that does not decode or is smaller than the surrogate takes.
        TypeError: float images, labels that are not whole numbers.
        OSError: the cache cannot be written or has not enough room.
    """

    def __init__(
        self,
        dataset: Any,
        generator: NoiseSource = "sem-plus-cifar10",
        *,
        fraction: float = 1.0,
        indices: Sequence[int] | Tensor | None = None,
        seed: int = 0,
        cache_dir: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        batch_size: int | None = None,
        progress: bool = True,
        label_map: Mapping[int, int] | None = None,
    ) -> None:
        if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
            raise TypeError(
                f"dataset must be map-style (have __getitem__ and __len__), got {type(dataset).__name__}. "
                "Protect the samples of a stream with SEMProtect instead."
            )
        rows = _choose(len(dataset), fraction, indices, seed)
        if batch_size is not None and batch_size < 1:
            raise ValueError(
                f"batch_size must be at least 1, got {batch_size}. Leave it out for one that suits the device."
            )
        pick_device(device)  # a device that is not there must not cost a pass over the images first
        cache = Path(cache_dir or default_cache_dir()).expanduser()
        if not isinstance(generator, NoiseStore):
            check_cache(cache)  # nor a cache that cannot be written
        if any(isinstance(part, ProtectedDataset) for part in _chain(dataset)):
            raise TypeError(
                "dataset is protected already: twice the noise would leave the radius. Protect the clean dataset."
            )
        self._raw, self.transforms = take_off_transforms(dataset)
        if isinstance(generator, (str, os.PathLike)):
            from semtransforms.generators.generator import (
                NoiseGenerator,  # a spawned worker, which only reads, spares kornia
            )

            generator = NoiseGenerator.from_pretrained(os.fspath(generator), device=device)
        self.classes = next(filter(None, map(_class_names, _chain(dataset))), None)
        self._rows, self._cifar = rows, _as_cifar(self._raw)
        self._generator: NoiseGenerator | None = None
        self._position: NDArray[np.int64] | None = None  # all protected: the position is the index
        if isinstance(generator, NoiseStore):
            self._adopt(generator, label_map)
            return
        if label_map is None and self.classes is not None and len(self.classes) != generator.num_classes:
            raise ValueError(
                f"dataset has {len(self.classes)} classes, the generator {generator.num_classes}. Fit a "
                "generator on this data (fit_generator), or pass label_map={label: generator's label}."
            )
        sample_pixels(read_sample(self._raw, int(rows[0]))[0], int(rows[0]))  # float images fail here, in no time
        found = _survey(self._raw, rows, progress)
        labels = _generator_labels(found.labels, rows, label_map, generator.num_classes)
        self._description = {
            "data": found.digest,
            "labels": hashlib.sha256(labels.numpy().tobytes()).hexdigest(),
            "indices": "all" if len(rows) == len(dataset) else hashlib.sha256(rows.tobytes()).hexdigest(),
            "generator": generator.fingerprint,
            "config": generator.config.to_dict(),
            "seed": int(seed),
        }
        self.origin: dict[str, Any] = {
            "name": generator.name,
            "generator": generator.fingerprint,
            "method": generator.config.method,
            "rho_u": generator.config.rho_u,
        }
        self._folder = cache / f"noise-{store_key(self._description)}"
        if len(rows) < len(dataset):
            self._position = np.full(len(dataset), -1)
            self._position[rows] = np.arange(len(rows))
        self._shapes, self._labels, self._generator = found.shapes, labels, generator
        self._seed, self._batch_size, self._device = int(seed), batch_size, device
        self._progress = progress
        try:
            self.store = NoiseStore(self._folder)
        except FileNotFoundError:
            self._build()
        except DamagedStoreError as error:
            warnings.warn(str(error), stacklevel=2)
            self._build()

    @property
    def indices(self) -> list[int]:
        """Sorted positions of the protected images."""
        return [int(row) for row in self._rows]

    def __len__(self) -> int:
        return len(self._raw)

    def __repr__(self) -> str:
        return (
            f"ProtectedDataset({type(self._raw).__name__}, protected={len(self._rows)} of {len(self)}, "
            f"store={self.store!r})"
        )

    def __getitem__(self, index: int) -> Any:
        row = self._checked(index)
        return self._samples([row], [self._noise_of(row)])[0]

    def __getitems__(self, indices: Iterable[int]) -> list[Any]:
        """The samples of a batch, as a ``DataLoader`` asks for them.

        Reading, adding and transforming take turns of a few small images: image by image, each of them pushes the code
        of the others out of the processor's cache, which costs more than the noise (``tests/benchmarks/README.md``).
        """
        if type(self).__getitem__ is not ProtectedDataset.__getitem__:  # a subclass whose samples are others
            return [self[index] for index in indices]
        rows = [self._checked(index) for index in indices]
        noise = list(map(self._noise_of, rows))
        sizes = np.array([TURN_BYTES if each is None else each.nbytes for each in noise])
        return [
            sample
            for start, stop in cut(sizes, TURN_BYTES)
            if start < stop
            for sample in self._samples(rows[start:stop], noise[start:stop])
        ]

    def _samples(self, rows: Sequence[int], noise: Sequence[NDArray[np.int8] | None]) -> list[Any]:
        """Read, add, transform: each for all of them."""
        if self._cifar is not None:
            return self._transformed(list(map(self._cifar.read, rows, noise)))
        samples = [self._raw[row] for row in rows]
        pairs = [(each["image"], each["label"]) if isinstance(each, Mapping) else each for each in samples]
        pairs = self._transformed(
            [
                (_as_rgb(image) if levels is None else _with_noise(image, levels, row), label)
                for (image, label), levels, row in zip(pairs, noise, rows, strict=True)
            ]
        )
        return [
            {**each, "image": pair[0], "label": pair[1]} if isinstance(each, Mapping) else pair
            for each, pair in zip(samples, pairs, strict=True)
        ]

    def _transformed(self, pairs: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        if self.transforms is None:
            return pairs
        return [(image, label) for image, label in (self.transforms(*pair) for pair in pairs)]

    def noise(self, index: int) -> Tensor:
        """The noise of an image: int8 (3, H, W) in levels of 1/255, zero where the image is not protected."""
        noise = self._noise_of(self._checked(index))
        if noise is None:
            return torch.zeros_like(self.clean(index), dtype=torch.int8)
        return torch.from_numpy(noise.transpose(2, 0, 1).copy())

    def clean(self, index: int) -> Tensor:
        """The raw image, uint8 (3, H, W)."""
        index = self._checked(index)
        return sample_pixels(read_sample(self._raw, index)[0], index)

    def protected(self, index: int) -> Tensor:
        """The raw image with its noise, uint8 (3, H, W)."""
        return add_noise(self.clean(index), self.noise(index))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_generator": None}  # workers only read the store

    def _adopt(self, store: NoiseStore, label_map: Mapping[int, int] | None) -> None:
        """Use noise that is there already, row for row."""
        if label_map is not None:
            raise ValueError(
                "label_map needs a generator: the noise of a store does not depend on labels. Leave it out."
            )
        if len(store) != len(self._raw):
            raise ValueError(
                f"generator: the store has noise for {len(store)} images, the dataset has "
                f"{len(self._raw)}. They must be the same images in the same order; class-wise noise "
                "becomes a row for each image by noise[labels]."
            )
        self._generator, self.store = None, store
        # imported noise says itself what it is, noise that was computed here by its generator's config
        facts = {**store.description.get("config", {}), **store.description}
        self.origin = {
            "name": None,
            "generator": facts.get("noise", facts.get("generator")),
            "method": facts.get("method"),
            "rho_u": facts.get("rho_u"),
        }
        if len(self._rows) < len(self._raw):
            self._position = np.full(len(self._raw), -1)
            self._position[self._rows] = self._rows
        for row in (int(self._rows[0]), int(self._rows[-1])):
            found = sample_pixels(read_sample(self._raw, row)[0], row).shape
            _check_shape((*found[1:], 3), store.read(row).shape, row)

    def _checked(self, index: int) -> int:
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must be in 0..{len(self) - 1}, got {index}.")
        return index % len(self)

    def _noise_of(self, index: int) -> NDArray[np.int8] | None:
        """Noise (H, W, 3) from the store, or None where the image is not protected."""
        position = index if self._position is None else int(self._position[index])
        if position < 0:
            return None
        try:
            return self.store.read(position)
        except DamagedStoreError as error:
            if self._generator is None or get_worker_info() is not None:
                raise
            warnings.warn(str(error), stacklevel=3)
            self._build()
            return self.store.read(position)

    def _build(self) -> None:
        if self._shapes is None:  # every file decodes, or the error comes before the first gradient
            self._shapes = np.array(
                [
                    sample_pixels(read_sample(self._raw, row)[0], row).shape[1:]
                    for row in tqdm(self._rows.tolist(), desc="check", unit="image", disable=not self._progress)
                ]
            )
        self._check_sizes(self._shapes)
        self.store = NoiseStore.build(
            self._folder, self._shapes, self._compute, description=self._description, progress=self._progress
        )

    def _check_sizes(self, shapes: NDArray[np.int64]) -> None:
        assert self._generator is not None
        surrogate, smallest = self._generator.config.surrogate, self._generator.smallest
        small = np.flatnonzero(shapes.min(axis=1) < smallest)
        if small.size:
            height, width = shapes[small[0]]
            raise ValueError(
                f"dataset: the image at index {self._rows[small[0]]} is {height} x {width}, the "
                f"generator's surrogate {surrogate!r} takes {smallest} x {smallest} and larger. Enlarge "
                "it, or leave it out (torch.utils.data.Subset)."
            )

    def _compute(self, start: int, stop: int) -> Iterator[list[Tensor]]:
        assert self._generator is not None
        assert self._shapes is not None
        device = getattr(self._generator, "device", "cpu") if self._device is None else self._device
        count = self._batch_size or (2048 if torch.device(device).type == "cuda" else 128)
        for begin, end in cut(3 * self._shapes[start:stop].prod(axis=1), GROUP_BYTES, count):
            group = slice(start + begin, start + end)
            images = [sample_pixels(read_sample(self._raw, row)[0], row) for row in self._rows[group].tolist()]
            noise = self._generator.noise(
                images, self._labels[group], seed=self._seed, batch_size=self._batch_size, device=self._device
            )
            # what saturates is cut off here, once, so that clean + noise is what is stored
            yield [
                (add_noise(image, levels).to(torch.int16) - image).to(torch.int8)
                for image, levels in zip(images, noise, strict=True)
            ]


def _choose(size: int, fraction: float, indices: Sequence[int] | Tensor | None, seed: int) -> NDArray[np.int64]:
    """Sorted positions of the images to protect."""
    if size == 0:
        raise ValueError("dataset is empty: there is nothing to protect. Check its path and split.")
    if indices is None:
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction must be in (0, 1], got {fraction}. For no protection use the dataset itself.")
        if fraction == 1:
            return np.arange(size)
        draw = np.random.default_rng(int.from_bytes(hashlib.sha256(str(seed).encode()).digest(), "little"))
        return np.sort(draw.permutation(size)[: max(1, round(fraction * size))])
    if fraction != 1:
        raise ValueError(f"fraction={fraction} and indices were both given. Pass one of them.")
    chosen = np.asarray(indices)
    if chosen.ndim != 1 or chosen.size == 0 or chosen.dtype.kind not in "iu":
        raise ValueError(f"indices must be a sequence of whole numbers, at least one, got {indices!r}.")
    wrong = chosen[(chosen < 0) | (chosen >= size)]
    if wrong.size:
        raise ValueError(f"indices must be in 0..{size - 1}, got {wrong[0]}.")
    return np.unique(chosen).astype(np.int64)


def _chain(dataset: Any) -> Iterator[Any]:
    """The dataset and what it wraps."""
    while dataset is not None:
        yield dataset
        dataset = getattr(dataset, "dataset", None)


def _class_names(dataset: Any) -> Any:
    """The label names as torchvision keeps them, or as ``datasets`` does (``ClassLabel``), or None."""
    features = getattr(dataset, "features", None)
    label = features.get("label") if isinstance(features, Mapping) else None
    return getattr(dataset, "classes", None) or getattr(label, "names", None)


def _generator_labels(
    found: NDArray[Any], rows: NDArray[np.int64], label_map: Mapping[int, int] | None, num_classes: int
) -> Tensor:
    """The labels as the generator counts them, int64 (N,)."""
    labels = [sample_label(label, row) for label, row in zip(found.tolist(), rows.tolist(), strict=True)]
    if label_map is None:
        large = int(np.argmax(labels))
        if labels[large] >= num_classes:
            raise ValueError(
                f"dataset: labels must be in 0..{num_classes - 1} for this generator, got {labels[large]} "
                f"at index {rows[large]}. Fit a generator on this data (fit_generator), or pass "
                "label_map={label: generator's label}."
            )
        return torch.tensor(labels)
    for value in sorted(set(labels)):
        if value not in label_map:
            raise ValueError(
                f"label_map has no entry for label {value!r}. Map every label of the dataset to one in "
                f"0..{num_classes - 1}."
            )
        if label_map[value] not in range(num_classes):
            raise ValueError(f"label_map[{value!r}] must be in 0..{num_classes - 1}, got {label_map[value]!r}.")
    return torch.tensor([label_map[value] for value in labels])


class _Cifar(NamedTuple):
    """CIFAR's own arrays, behind any number of subsets: the noise is added before PIL, at half the cost of after."""

    images: NDArray[np.uint8]  # (M, 32, 32, 3)
    labels: list[int]
    rows: NDArray[np.int64]  # index to position in the arrays

    def read(self, index: int, noise: NDArray[np.int8] | None) -> tuple[Image.Image, int]:
        row = self.rows[index]
        pixels = np.ascontiguousarray(self.images[row])
        return _pil(pixels if noise is None else _saturated(pixels, noise), None), self.labels[row]


def _as_cifar(dataset: Any) -> _Cifar | None:
    rows = np.arange(len(dataset))
    while type(dataset) is Subset:
        dataset, rows = dataset.dataset, np.asarray(dataset.indices)[rows]
    return _Cifar(dataset.data, dataset.targets, rows) if type(dataset) in (CIFAR10, CIFAR100) else None


class _Survey(NamedTuple):
    """What tells one set of images from another, their labels (N,), and their shapes (N, 2) where known."""

    digest: str
    labels: NDArray[Any]
    shapes: NDArray[np.int64] | None


def _survey(dataset: Any, rows: NDArray[np.int64], progress: bool) -> _Survey:
    """Look at the images to protect once, without decoding where the dataset is of a kind that spares it."""
    inner: Any = dataset
    inner_rows = rows
    while type(inner) in (Subset, DecodedOnce):
        inner, inner_rows = inner.dataset, np.asarray(inner.indices)[inner_rows]
    arrays = _arrays(inner)
    if arrays is not None:
        images, labels = arrays
        height, width = as_pixels(read_sample(dataset, int(rows[0]))[0]).shape[1:]
        shapes = np.full((len(rows), 2), (height, width))
        return _Survey(f"{type(inner).__name__} {_hash(images, inner_rows)}", labels[inner_rows], shapes)
    if isinstance(inner, DatasetFolder) and _is_torchvision(inner) and inner.loader is default_loader:
        return _survey_files(inner, inner_rows)
    return _survey_samples(dataset, rows, progress)


def _hash(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> str:
    axes = [0, *sorted(range(1, images.ndim), key=lambda axis: -images.strides[axis])]
    images = images.transpose(axes)  # as it lies in memory: CIFAR10.data is a transposed view
    digest = hashlib.sha256(f"{axes} {images.shape[1:]}".encode())
    whole = bool((np.diff(rows) == 1).all())
    for start in range(0, len(rows), 4096):
        part = rows[start : start + 4096]
        digest.update(np.ascontiguousarray(images[part[0] : part[-1] + 1] if whole else images[part]).data)
    return digest.hexdigest()


def _is_torchvision(dataset: Any) -> bool:
    return type(dataset).__module__.startswith("torchvision.datasets.")  # a user's subclass may do anything


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


def _survey_files(dataset: Any, rows: NDArray[np.int64]) -> _Survey:
    digest, labels = hashlib.sha256(), []
    for row in rows.tolist():
        path, label = dataset.samples[row]
        digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
        labels.append(label)
    return _Survey(digest.hexdigest(), np.asarray(labels), None)


def _survey_samples(dataset: Any, rows: NDArray[np.int64], progress: bool) -> _Survey:
    digest, labels, shapes = hashlib.sha256(), [], []
    for row in tqdm(rows.tolist(), desc="hash", unit="image", disable=not progress):
        image, label = read_sample(dataset, row)
        pixels = sample_pixels(image, row)
        labels.append(sample_label(label, row))
        shapes.append(tuple(pixels.shape[1:]))
        digest.update(f"{shapes[-1]}".encode())
        digest.update(pixels.numpy().data)
    first = int(rows[0])
    anew = dataset.dataset if isinstance(dataset, DecodedOnce) else dataset
    if not torch.equal(as_pixels(read_sample(dataset, first)[0]), as_pixels(read_sample(anew, first)[0])):
        raise ValueError(
            f"dataset gives another image each time it is asked for index {first}, so noise computed for "
            "one does not fit the next. Move its random transform to the attribute `transform`, which is "
            "applied after the noise."
        )
    return _Survey(digest.hexdigest(), np.asarray(labels), np.asarray(shapes))


def _saturated(pixels: NDArray[np.uint8], noise: NDArray[np.int8]) -> NDArray[np.uint8]:
    """uint8 + int8 in 0..255; the sum wraps around only where the image is not the one the noise was made for."""
    total = np.add(pixels, noise.view(np.uint8), order="C")
    if ((total > pixels) ^ (noise > 0)).any():  # not !=, which takes 30 times as long for booleans
        return np.clip(np.add(pixels, noise, dtype=np.int16, order="C"), 0, 255).astype(np.uint8)
    return total


def _with_noise(image: Any, noise: NDArray[np.int8], index: int) -> Any:
    """Add noise (H, W, 3) to a raw image, keeping the image's type."""
    if isinstance(image, Image.Image):
        pixels, alpha = rgb_array(image)
        _check_shape(pixels.shape, noise.shape, index)
        return _pil(_saturated(pixels, noise), alpha)
    pixels = as_pixels(image).numpy()
    _check_shape((*pixels.shape[1:], 3), noise.shape, index)
    return _like(image, _saturated(pixels, noise.transpose(2, 0, 1)))


def _as_rgb(image: Any) -> Any:
    """An unprotected image in the form its protected neighbours have."""
    if isinstance(image, Image.Image):
        return _pil(*rgb_array(image))
    return _like(image, as_pixels(image).numpy())


def _pil(pixels: NDArray[np.uint8], alpha: NDArray[np.uint8] | None) -> Image.Image:
    height, width = pixels.shape[:2]
    image = Image.frombytes("RGB", (width, height), np.ascontiguousarray(pixels))  # half the time of fromarray
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    return image


def _like(image: Any, pixels: NDArray[np.uint8]) -> Any:
    if isinstance(image, np.ndarray):
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))
    tensor = torch.from_numpy(pixels)
    return tv_tensors.wrap(tensor, like=image) if isinstance(image, tv_tensors.TVTensor) else tensor


def _check_shape(found: tuple[int, ...], expected: tuple[int, ...], index: int) -> None:
    if found != expected:
        raise ValueError(
            f"dataset: the image at index {index} is {found[0]} x {found[1]}, its noise was made for "
            f"{expected[0]} x {expected[1]}. The dataset changed: construct the ProtectedDataset again."
        )

"""ProtectedDataset: a map-style dataset whose images carry defensive noise."""

from __future__ import annotations

import operator
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from semtransforms.core.checks import check_integer, whole_seed
from semtransforms.core.grid import add_noise, levels
from semtransforms.core.hardware import pick_device
from semtransforms.data.raw import (
    current,
    datasets_inside,
    label_names,
    pair_of,
    read_sample,
    replaced,
    sample_pixels,
    take_off_transforms,
    wrapped,
)
from semtransforms.data.shards import DamagedStoreError
from semtransforms.data.store import NoiseStore, check_cache, cut, default_cache_dir
from semtransforms.data.survey import Read
from semtransforms.protect.adding import (
    TWICE,
    MadeNoise,
    as_rgb,
    check_shape,
    full_noise,
    is_marked,
    read_clean,
    with_noise,
)
from semtransforms.protect.batch import NoiseMaker, check_class_count, warn_of_other_names
from semtransforms.protect.cifar import as_cifar
from semtransforms.protect.filling import Filling, plan_filling
from semtransforms.protect.live import LiveNoise, read_in_turns
from semtransforms.protect.rows import KNOWN, choose, is_protected_copy, known_of
from semtransforms.views.resize import NoiseScale

if TYPE_CHECKING:
    from semtransforms.generators.generator import NoiseGenerator, NoiseSize

NoiseSource: TypeAlias = "str | os.PathLike[str] | NoiseGenerator | NoiseStore"

_SETTABLE = ("transform", "target_transform")  # as of torchvision's datasets: timm's loader sets them

TURN_BYTES = 256 << 10  # of noise, in a turn of reading, adding and transforming: 21 images of 64 px, 1 of 224


class ProtectedDataset(Dataset[Any]):
    """A labelled dataset with defensive noise on its raw images.

    A sample is read without the dataset's transforms, the noise is added in uint8, then the transforms run. The
    dataset given is never changed. A PIL image stays a PIL image (RGB, or RGBA where it has alpha), a tensor a tensor.

    The noise is computed once and kept in a private ``NoiseStore``: whoever has it, or the seed and the generator,
    subtracts it. Images that were protected before are refused where that can be known: in a wrapper, in a published
    folder or table, and where they are in memory as they were given out (PIL images, and tensors that nothing was done
    to). Arrays, and files without their ``protection.json``, cannot tell. The store's folder is named by a hash of
    everything the noise depends on: for image folders the bytes of the files, for everything else the pixels.

    Args:
        dataset: map-style: torchvision's datasets, ``Subset``, ``TensorDataset`` of uint8, or any that gives
            (PIL image or uint8 tensor, int label), or rows with columns "image" and "label".
        generator: a folder, ``org/name@revision`` on the Hub or a short name, as for
            ``NoiseGenerator.from_pretrained``; a ``NoiseGenerator``; or a ``NoiseStore`` with a row for each image of
            the dataset (``NoiseStore.from_array``: noise of others), whose noise does not depend on the seed.
        fraction: share of the images to protect, in (0, 1], drawn by the seed.
        indices: positions of the images to protect, instead of ``fraction``.
        seed: secret and fresh for a real protection.
        noise_size: S, the shorter side in pixels at which the noise of larger images is made, before it is enlarged;
            default: the size that the generator was fitted at. ``"full"`` makes it at each image's own size, for
            trainers who do not resize.
        visibility: in 0..1, how much of rho_u the noise has where the eye tolerates little, such as in sky and skin;
            see ``NoiseGenerator.scale``. 1 is all of it.
        cache_dir: where stores are kept; default ``~/.cache/semtransforms``.
        device: where the noise is computed; default: where the generator lies, a named one on a GPU if present.
        batch_size: images per step of the computation; the default suits the device.
        progress: show a progress bar while computing.
        label_map: the dataset's label to the generator's label, where they differ. Without it noise goes by the
            label's number; a warning says where the class names tell that the order is another one.
        store: ``False`` keeps no noise: each sample's is made when it is asked for, in the worker that reads it, the
            same bytes again and again. For one-pass generators; others take longer than the reading by far. Labels and
            images are then looked at when their turn comes. Let a ``DataLoader`` spawn its workers
            (``multiprocessing_context="spawn"``): forked ones cannot use a GPU.

    Attributes:
        indices: sorted positions of the protected images.
        store: the ``NoiseStore``, which holds the noise as it was made; ``None`` with ``store=False``.
        scale: how the noise comes to the images' sizes.
        classes: the dataset's label names, or None.
        transforms: what was taken off the dataset, ``(image, label) -> (image, label)``, or None.
        transform, target_transform: those of the outermost dataset; may be set, and are applied after the noise.
        targets, samples, class_to_idx: the dataset's, where it has them.
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
        generator: NoiseSource = "sem-one-pass-cifar10",
        *,
        fraction: float = 1.0,
        indices: Sequence[int] | Tensor | None = None,
        seed: int = 0,
        noise_size: NoiseSize = None,
        visibility: float = 1.0,
        cache_dir: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        batch_size: int | None = None,
        progress: bool = True,
        label_map: Mapping[int, int] | None = None,
        store: bool = True,
    ) -> None:
        _check_dataset(dataset)
        seed = whole_seed("seed", seed)
        rows = choose(len(dataset), fraction, indices, seed)
        if batch_size is not None:
            check_integer("batch_size", batch_size, low=1, advice="Leave it out for one that suits the device.")
        pick_device(device)  # a device that is not there must not cost a pass over the images first
        cache = Path(cache_dir or default_cache_dir()).expanduser()
        if isinstance(generator, NoiseStore) and not store:
            raise ValueError("store=False makes noise with a generator, got a NoiseStore. Leave it out, or give one.")
        if store and not isinstance(generator, NoiseStore):
            check_cache(cache)  # nor a cache that cannot be written
        self._raw, self.transforms = take_off_transforms(dataset)
        self.classes = next(filter(None, map(label_names, wrapped(dataset))), None)
        self._rows, self._cifar = rows, as_cifar(self._raw)
        self._position: NDArray[np.int64] | None = None  # all protected: the position is the index
        self._filling: Filling | None = None
        self._live: LiveNoise | None = None
        self.store: NoiseStore | None = None
        self.origin: dict[str, Any]
        if isinstance(generator, NoiseStore):
            self._adopt(generator, label_map, noise_size, visibility)
            return
        found = _by_name(generator, device)
        if label_map is None:
            check_class_count("dataset", self.classes, found.num_classes, generator=found.name)
            warn_of_other_names("dataset", self.classes, found.classes, generator=found.name)
        self.scale = found.scale(noise_size, visibility)
        self._follow(found)
        maker = NoiseMaker(found, seed, noise_size, visibility, batch_size, device)
        if not store:
            self._live = LiveNoise(maker, label_map)
            return
        self._filling = self._plan(maker, label_map, cache, progress)
        try:
            self.store = NoiseStore(self._filling.folder)
        except FileNotFoundError:
            self.store = self._filling.fill()
        except DamagedStoreError as error:
            warnings.warn(str(error), stacklevel=2)
            self.store = self._filling.fill()

    def _plan(self, *arguments: Any) -> Filling:
        """What the store is to be filled from; the last arguments of ``plan_filling``."""
        return plan_filling(self._raw, self._rows, self._reader(), *arguments)

    def _reader(self) -> Read:
        """What reads an image whose noise is to be made."""
        return partial(read_clean, self._raw)

    def _follow(self, generator: NoiseGenerator) -> None:
        """Keep whose noise it is, and which images get it."""
        config, fingerprint = generator.config, generator.fingerprint
        self.origin = {
            "name": generator.name, "generator": fingerprint, "method": config.method, "rho_u": config.rho_u
        }  # fmt: skip
        if len(self._rows) < len(self._raw):
            self._position = np.full(len(self._raw), -1)
            self._position[self._rows] = np.arange(len(self._rows))

    @property
    def indices(self) -> list[int]:
        """Sorted positions of the protected images."""
        return [int(row) for row in self._rows]

    def __getattr__(self, name: str) -> Any:
        if name in _SETTABLE:
            return current(self.transforms, name)
        if name in KNOWN and "_raw" in self.__dict__:
            return known_of(self._raw, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _SETTABLE:
            name, value = "transforms", replaced(self.transforms, **{name: value})
        super().__setattr__(name, value)

    def __len__(self) -> int:
        return len(self._raw)

    def __repr__(self) -> str:
        return (
            f"ProtectedDataset({type(self._raw).__name__}, protected={len(self._rows)} of {len(self)}, "
            f"store={self.store!r})"
        )

    def __getitem__(self, index: int) -> Any:
        row = self._checked(index)
        return next(self._made_now([row])) if self._live else self._stored([row], [self._noise_of(row)])[0]

    def __getitems__(self, indices: Iterable[int]) -> list[Any]:
        """The samples of a batch, as a ``DataLoader`` asks for them.

        Reading, adding and transforming take turns of a few small images: image by image, each of them pushes the code
        of the others out of the processor's cache, which costs more than the noise (``tests/benchmarks/README.md``).
        """
        if type(self).__getitem__ is not ProtectedDataset.__getitem__:  # a subclass whose samples are others
            return [self[index] for index in indices]
        rows = [self._checked(index) for index in indices]
        if self._live:
            return list(self._made_now(rows))
        noise = list(map(self._noise_of, rows))
        sizes = np.array([TURN_BYTES if each is None else each.levels.nbytes for each in noise])
        return [
            sample
            for start, stop in cut(sizes, TURN_BYTES)
            if start < stop
            for sample in self._stored(rows[start:stop], noise[start:stop])
        ]

    def _stored(self, rows: Sequence[int], noise: Sequence[MadeNoise | None]) -> list[Any]:
        """Samples whose noise is there."""
        if self._cifar is not None:
            return self._transformed(
                [self._cifar.read(row, made, self.scale) for row, made in zip(rows, noise, strict=True)]
            )
        return self._joined(rows, [self._raw[row] for row in rows], noise)

    def _made_now(self, rows: Sequence[int]) -> Iterator[Any]:
        """Samples whose noise is made behind their reading, by a generator that takes many at once."""
        assert self._live is not None
        for places, samples in read_in_turns(self._raw, rows):
            known = self._position
            chosen = [number for number, row in enumerate(places) if known is None or known[row] >= 0]
            pairs = [pair_of(samples[number]) for number in chosen]
            made = self._live.made(pairs, [places[number] for number in chosen])
            found = dict(zip(chosen, made, strict=True))
            yield from self._joined(places, samples, [found.get(number) for number in range(len(places))])

    def _joined(self, rows: Sequence[int], samples: Sequence[Any], noise: Sequence[MadeNoise | None]) -> list[Any]:
        """Add and transform: each for all of them."""
        pairs = self._transformed(
            [
                (as_rgb(image) if made is None else with_noise(image, made, self.scale, row), label)
                for (image, label), made, row in zip(map(pair_of, samples), noise, rows, strict=True)
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
        return self._noise_for(self._checked(index), None)

    def _noise_for(self, index: int, clean: Tensor | None) -> Tensor:
        """Noise at the size of its image, which is read where it is not given and its size decides."""
        made = self._noise_of(index)
        if (
            clean is None
            and made is not None
            and self.scale.visibility == 1
            and min(made.levels.shape[:2]) != self.scale.side
        ):
            return torch.from_numpy(made.levels.transpose(2, 0, 1).copy())  # made at the image's own size
        image = self.clean(index) if clean is None else clean
        if made is None:
            return torch.zeros_like(image, dtype=torch.int8)
        noise = full_noise(made, image.numpy().transpose(1, 2, 0), self.scale, index)
        return torch.from_numpy(noise.transpose(2, 0, 1).copy())

    def clean(self, index: int) -> Tensor:
        """The raw image, uint8 (3, H, W)."""
        index = self._checked(index)
        return sample_pixels(read_sample(self._raw, index)[0], index)

    def protected(self, index: int) -> Tensor:
        """The raw image with its noise, uint8 (3, H, W)."""
        clean = self.clean(index)
        return add_noise(clean, self._noise_for(self._checked(index), clean))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_filling": None}  # workers only read the store

    def _adopt(
        self, store: NoiseStore, label_map: Mapping[int, int] | None, noise_size: NoiseSize, visibility: float
    ) -> None:
        """Use noise that is there already, row for row."""
        for name, value, default in (("noise_size", noise_size, None), ("visibility", visibility, 1)):
            if value != default:
                raise ValueError(f"{name}={value!r} needs a generator: a store's noise is made. Leave it out.")
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
        self.store = store
        # imported noise says itself what it is, noise that was computed here by its generator's config
        facts = {**store.description.get("config", {}), **store.description}
        self.scale = NoiseScale(facts.get("noise_size"), levels(facts.get("rho_u", 1 / 2)), facts.get("visibility", 1))
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
            check_shape(found[1:], store.read(row).shape[:2], self.scale, row)

    def _checked(self, index: int) -> int:
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must be in 0..{len(self) - 1}, got {index}.")
        return index % len(self)

    def _noise_of(self, index: int) -> MadeNoise | None:
        """Noise from the store, or made now; None where the image is not protected."""
        position = index if self._position is None else int(self._position[index])
        if position < 0:
            return None
        if self._live:
            return self._live.made([read_sample(self._raw, index)], [index])[0]
        assert self.store is not None
        try:
            return MadeNoise(self.store.read(position), self.store.made_for(position))
        except DamagedStoreError as error:
            if self._filling is None or get_worker_info() is not None:
                raise
            warnings.warn(str(error), stacklevel=3)
            self.store = self._filling.fill()
            return MadeNoise(self.store.read(position), self.store.made_for(position))


def _check_dataset(dataset: Any) -> None:
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        raise TypeError(
            f"dataset must be map-style (have __getitem__ and __len__), got {type(dataset).__name__}. "
            "Protect the samples of a stream with SEMProtect instead."
        )
    for part in datasets_inside(dataset):
        tensors = getattr(part, "tensors", ())  # of a TensorDataset
        if isinstance(part, ProtectedDataset) or is_protected_copy(part) or any(map(is_marked, tensors)):
            raise TypeError(f"dataset is protected already: {TWICE}. Protect the clean dataset.")


def _by_name(generator: str | os.PathLike[str] | NoiseGenerator, device: str | torch.device | None) -> NoiseGenerator:
    """The generator of a name or folder."""
    if not isinstance(generator, (str, os.PathLike)):
        return generator
    from semtransforms.generators.generator import NoiseGenerator  # a spawned worker, which only reads, spares kornia

    return NoiseGenerator.from_pretrained(os.fspath(generator), device=device)

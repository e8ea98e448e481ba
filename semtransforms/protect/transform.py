"""SEMProtect: noise as a torchvision transform, for samples, dicts and batches; and, through map_fn, for datasets."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import PIL.Image
import torch
from torch import Tensor
from torch.utils._pytree import GetAttrKey, MappingKey, keystr, tree_flatten_with_path, tree_unflatten
from torchvision import tv_tensors
from torchvision.transforms import v2

from semtransforms import __version__
from semtransforms.core.checks import whole_seed
from semtransforms.core.hub import CONFIG_FILE
from semtransforms.data.images import RGBImage, as_pixels, to_pil, to_rgb, without_colour_key
from semtransforms.generators.generator import NoiseGenerator, NoiseSize
from semtransforms.protect.adding import TWICE, is_marked, marked
from semtransforms.protect.batch import check_label_map, protect_batch

if TYPE_CHECKING:
    from semtransforms.protect.hf import MapFunction

IMAGE_KEYS = ("image", "images", "img", "imgs", "pixel_values")
LABEL_KEYS = ("label", "labels", "target", "targets", "fine_label")


class SEMProtect(v2.Transform):  # type: ignore[misc]  # torchvision is untyped
    """Add defensive noise to images, before any other transform.

    Takes an image and its label in any order, batches and lists of both, nested, e.g. ``(image, label)``,
    ``{"image": image, "label": label}``, ``(images, labels)``. Images are PIL, ``tv_tensors.Image`` or uint8 tensors
    ``(C, H, W)`` or ``(N, C, H, W)``; labels are ints or integer tensors ``()`` or ``(N,)``. Images keep their type
    (a PIL image comes back as RGB, or RGBA where it has alpha; grey becomes RGB), labels and all else pass through.

    In a dict the keys decide what is what (``image``, ``images``, ``img``, ``imgs``, ``pixel_values``; ``label``,
    ``labels``, ``target``, ``targets``, ``fine_label``), in a tuple or list the types do. A sample in which that is
    missing or ambiguous is refused.

    Put it into a pipeline once. An image that it gave out is refused where that can be known: a PIL image tells, also
    behind most other transforms, a tensor as long as nothing is done to it. Twice the noise would leave the radius.

    Samples carry no class names, so nothing here can compare them with the generator's: see to it that label k means
    the same class in both, or pass ``label_map``. :class:`ProtectedDataset` and :meth:`map_fn` compare them.

    Args:
        generator: where the noise comes from.
        seed: keeps the noise secret; draw a fresh one for a real protection.
        device: where the noise is computed; ``None`` leaves it to the generator.
        label_map: label of the data -> label of the generator, where the two differ. Labels are returned as given.
        noise_size: S, the shorter side in pixels at which the noise of larger images is made, before it is enlarged;
            see :meth:`NoiseGenerator.scale`.
        visibility: in 0..1, how much of rho_u the noise has where the eye tolerates little; see there. 1 is all of it.

    Raises:
        TypeError: ``generator`` is a name; when called: an image is not uint8, a label is not a whole number.
        ValueError: ``label_map`` leads outside the generator's labels; when called: a label is missing or out of
            range, the sample has no image or no label, or not one label per image, or an image is protected already.
    """

    def __init__(
        self,
        generator: NoiseGenerator,
        *,
        seed: int = 0,
        device: torch.device | str | None = None,
        label_map: Mapping[int, int] | None = None,
        noise_size: NoiseSize = None,
        visibility: float = 1.0,
    ) -> None:
        super().__init__()
        if isinstance(generator, str | Path):
            raise TypeError(
                f"generator must be a NoiseGenerator, got the name {str(generator)!r}. "
                f"Use SEMProtect.from_pretrained({str(generator)!r})."
            )
        check_label_map(label_map or {}, generator.num_classes)
        generator.scale(noise_size, visibility)  # a wrong one is found before any sample comes
        self.noise_size = noise_size
        self.visibility = visibility
        self.generator = generator
        self.seed = whole_seed("seed", seed)
        self.device = device
        self.label_map = None if label_map is None else dict(label_map)
        self._home: torch.device | None = None  # after unpickling: where the generator was

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        seed: int = 0,
        device: torch.device | str | None = None,
        label_map: Mapping[int, int] | None = None,
        noise_size: NoiseSize = None,
        visibility: float = 1.0,
    ) -> SEMProtect:
        """Build the transform from a generator's name or folder.

        Args:
            name: a folder, ``org/name@revision`` on the Hub, or a short name, as for
                :meth:`NoiseGenerator.from_pretrained`.
            seed, device, label_map, noise_size, visibility: as for the class.

        Returns:
            The transform.
        """
        generator = NoiseGenerator.from_pretrained(name, device=device)
        return cls(
            generator, seed=seed, device=device, label_map=label_map, noise_size=noise_size, visibility=visibility
        )

    def forward(self, *inputs: Any) -> Any:
        """Add noise to the images of one sample or batch.

        Args:
            inputs: the sample, in one argument or spread over several, as for any transform of torchvision.

        Returns:
            The same structure and types with the images protected; the inputs are not written to.
        """
        # Overrides forward, as MixUp does: make_params and transform never see labels.
        paths, spec = tree_flatten_with_path(inputs if len(inputs) > 1 else inputs[0])
        leaves = [_Leaf(_key(path), keystr(path), value) for path, value in paths]
        images = _find_images(leaves)
        labels = _find_labels(leaves)

        if twice := [i for i in images if is_marked(leaves[i].value)]:
            raise ValueError(
                f"the image at {_places(leaves, twice)} is protected already: {TWICE}. Apply SEMProtect once, to clean "
                "images."
            )
        clean = {i: _unpack(leaves[i]) for i in images}
        values = [value for i in labels for value in _label_values(leaves[i])]
        count = sum(map(len, clean.values()))
        if count != len(values):
            raise ValueError(
                f"SEMProtect needs one label per image, found {count} images at {_places(leaves, images)} and "
                f"{len(values)} labels at {_places(leaves, labels)}. Give a dict with keys 'image' and 'label', or "
                f"only (image, label)."
            )
        protected = iter(self._protect([image.pixels for group in clean.values() for image in group], values))
        outputs = [leaf.value for leaf in leaves]
        for i, group in clean.items():
            repacked = _repack(leaves[i].value, [RGBImage(next(protected), image.alpha) for image in group])
            outputs[i] = marked(repacked) if group else repacked
        return tree_unflatten(outputs, spec)

    def _protect(
        self, images: list[Tensor], labels: Sequence[Any], device: torch.device | str | None = None
    ) -> list[Tensor]:
        """Protect a list of uint8 (3, H, W), given labels of the data, on ``device`` instead of the transform's."""
        return protect_batch(
            images,
            labels,
            self.generator,
            seed=self.seed,
            label_map=self.label_map,
            noise_size=self.noise_size,
            visibility=self.visibility,
            device=device or self.device or self._home,
        ).protected

    def map_fn(self, image_column: str = "image", label_column: str = "label") -> MapFunction:
        """A function for ``datasets.Dataset.map(..., batched=True)`` that protects a column of images.

        In several processes, ``num_proc`` > 1, give each rank its own accelerator, and start the processes fresh
        (a forked one inherits neither CUDA nor the threads of torch)::

            import multiprocess  # the package that datasets uses, not multiprocessing
            if __name__ == "__main__":
                multiprocess.set_start_method("spawn", force=True)
                dataset.map(protect.map_fn(), batched=True, with_rank=True, num_proc=torch.cuda.device_count())

        An ``IterableDataset`` does not decode what its map returns: let ``.cast(dataset.features)`` follow.

        Args:
            image_column: column of ``datasets.Image``, or of ``{"bytes", "path"}``.
            label_column: column of whole numbers, ``ClassLabel`` or not. A warning says where a ``ClassLabel`` has
                the generator's names at other numbers.

        Returns:
            A picklable function whose hash, and so the cache of ``datasets``, depends on the generator's weights and
            config, the seed, ``label_map``, ``noise_size``, ``visibility``, the columns and the package's
            version.
        """
        from semtransforms.protect.hf import (
            MapFunction,  # importing datasets costs a second, and only this method needs it
        )

        num_classes = self.generator.num_classes if self.label_map is None else None
        return MapFunction(
            self._protect, self._identity, image_column, label_column, self.device, num_classes, self.generator.classes
        )

    def _identity(self) -> tuple[Any, ...]:
        """What decides the noise of an image and label, in plain values."""
        label_map = None if self.label_map is None else tuple(sorted(self.label_map.items()))
        return __version__, self.generator.fingerprint, self.seed, label_map, self.noise_size, self.visibility

    def extra_repr(self) -> str:
        """What ``repr`` says: everything but the seed, which is secret while a repr ends up in logs."""
        config = self.generator.config
        parts = [
            f"generator={self.generator.name!r}",
            f"method={config.method!r}",
            f"rho_u={config.rho_u * 255:g}/255",
            f"num_classes={self.generator.num_classes}",
            f"fingerprint={self.generator.fingerprint[:12]!r}",
        ]
        parts += [
            f"{name}={getattr(self, name)!r}" for name in ("device", "label_map", "noise_size") if getattr(self, name)
        ]
        if self.visibility != 1:
            parts.append(f"visibility={self.visibility!r}")
        return ", ".join(parts)

    def __getstate__(self) -> dict[str, Any]:
        # Workers get the generator on the CPU, whatever its device: each moves it where it computes, and no rank
        # but the first touches the first accelerator.
        return {**self.__dict__, "generator": _portable(self.generator), "_home": self.generator.device}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if isinstance(self.generator, _Loaded):
            self.generator = self.generator.load()


class _Loaded(NamedTuple):
    """A generator by the place it was loaded from, for pickling."""

    kind: type[NoiseGenerator]
    name: str
    folder: Path
    fingerprint: str

    def load(self) -> NoiseGenerator:
        # by the folder where it is there: no request, whatever the cache and the token were; by name on other machines
        generator = self.kind.from_pretrained(self.folder if self.folder.is_dir() else self.name, device="cpu")
        if generator.fingerprint != self.fingerprint:
            raise ValueError(
                f"generator {self.name!r} is not the one that was pickled: its fingerprint is "
                f"{generator.fingerprint[:12]}, expected {self.fingerprint[:12]}. Save a changed "
                f"generator in a folder of its own (save_pretrained) and load it from there."
            )
        generator.name = self.name
        return generator


def _portable(generator: NoiseGenerator) -> NoiseGenerator | _Loaded:
    """What to pickle: a reference where the weights can be read again, else the generator itself on the CPU."""
    folder = getattr(generator, "folder", None)
    if generator.name is not None and folder is not None and (folder / CONFIG_FILE).is_file():
        return _Loaded(type(generator), generator.name, folder, generator.fingerprint)
    return generator if generator.device.type == "cpu" else copy.deepcopy(generator).to("cpu")


class _Leaf(NamedTuple):
    """One value of a sample: the innermost key of a dict that leads to it, its place in words, itself."""

    key: str | None
    place: str
    value: Any


def _key(path: tuple[Any, ...]) -> str | None:
    for step in reversed(path):
        if isinstance(step, MappingKey):
            return str(step.key).lower()
        if isinstance(step, GetAttrKey):  # a named tuple
            return step.name.lower()
    return None


def _find_images(leaves: list[_Leaf]) -> list[int]:
    """Positions of the images: those of a dict's image keys, else explicit images, else uint8 tensors."""
    unkeyed = [i for i, leaf in enumerate(leaves) if leaf.key is None]
    found = (
        [i for i, leaf in enumerate(leaves) if leaf.key in IMAGE_KEYS]
        or [i for i in unkeyed if isinstance(leaves[i].value, PIL.Image.Image | tv_tensors.Image)]
        or [
            i
            for i in unkeyed
            if _is_pure(leaves[i].value) and leaves[i].value.dtype == torch.uint8 and leaves[i].value.ndim >= 3
        ]
        # nothing but float images: found, so that they are refused by their dtype
        or [i for i in unkeyed if _is_pure(leaves[i].value) and leaves[i].value.ndim >= 3]
    )
    if not found:
        raise ValueError(
            f"SEMProtect found no image in {_describe(leaves)}. Give (image, label) with a PIL image or a "
            f"uint8 tensor (3, H, W) or (N, 3, H, W), or a dict with one of the keys "
            f"{', '.join(IMAGE_KEYS)}."
        )
    return found


def _find_labels(leaves: list[_Leaf]) -> list[int]:
    """Positions of the labels: those of a dict's label keys, else ints and integer tensors of at most one axis."""
    found = [i for i, leaf in enumerate(leaves) if leaf.key in LABEL_KEYS] or [
        i for i, leaf in enumerate(leaves) if leaf.key is None and _is_label(leaf.value)
    ]
    if not found:
        raise ValueError(
            f"SEMProtect found no label in {_describe(leaves)}. Give (image, label) with an int or an "
            f"integer tensor () or (N,), not one-hot (put SEMProtect before MixUp or CutMix), or a dict "
            f"with one of the keys {', '.join(LABEL_KEYS)}."
        )
    return found


def _is_pure(value: Any) -> bool:
    return isinstance(value, Tensor) and not isinstance(value, tv_tensors.TVTensor)


def _is_label(value: Any) -> bool:
    if _is_pure(value):
        return value.ndim <= 1 and not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)
    return isinstance(value, Integral) and not isinstance(value, bool)


def _label_values(leaf: _Leaf) -> list[Any]:
    if not isinstance(leaf.value, Tensor):
        return [leaf.value]
    if leaf.value.ndim > 1:
        raise ValueError(
            f"labels must be one whole number per image, got a tensor {tuple(leaf.value.shape)} at "
            f"{leaf.place}. Put SEMProtect before MixUp, CutMix or one-hot encoding."
        )
    values: list[Any] = leaf.value.reshape(-1).tolist()
    return values


def _unpack(leaf: _Leaf) -> list[RGBImage]:
    """The images behind one value, each uint8 (3, H, W) with its alpha channel."""
    image = leaf.value
    if isinstance(image, PIL.Image.Image):
        return [to_rgb(without_colour_key(image))]
    if not isinstance(image, Tensor):
        raise TypeError(f"the image at {leaf.place} must be a PIL image or a uint8 tensor, got {_kind(image)}.")
    if image.dtype != torch.uint8:
        raise TypeError(
            f"the image at {leaf.place} must be uint8, got {image.dtype}: the noise is exact in the bytes "
            f"of an image. Put SEMProtect before the conversion to float (ToDtype, ToTensor, Normalize)."
        )
    if image.ndim not in (3, 4):
        raise ValueError(f"the image at {leaf.place} must be (C, H, W) or (N, C, H, W), got {tuple(image.shape)}.")
    images = image.as_subclass(Tensor).cpu()
    return [
        RGBImage(as_pixels(planes[:-1]), planes[-1:]) if len(planes) in (2, 4) else RGBImage(as_pixels(planes), None)
        for planes in (images if image.ndim == 4 else images[None])
    ]


def _repack(like: Any, images: list[RGBImage]) -> Any:
    """The inverse of :func:`_unpack`: the type, number of axes and device of ``like``."""
    if isinstance(like, PIL.Image.Image):
        return to_pil(*images[0])
    if not images:
        return like
    planes = [image.pixels if image.alpha is None else torch.cat([image.pixels, image.alpha]) for image in images]
    tensor = (torch.stack(planes) if like.ndim == 4 else planes[0]).to(like.device)
    return tv_tensors.wrap(tensor, like=like) if isinstance(like, tv_tensors.Image) else tensor


def _places(leaves: list[_Leaf], positions: list[int]) -> str:
    return ", ".join(leaves[i].place or "the sample itself" for i in positions)


def _describe(leaves: list[_Leaf]) -> str:
    return "{" + ", ".join(f"{leaf.place or 'sample'}: {_kind(leaf.value)}" for leaf in leaves) + "}"


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{type(value).__name__} {tuple(value.shape)} {value.dtype}"
    return type(value).__name__

"""Protect a batch: the one place where images get noise.

The wrapper, the transform, ``datasets.map``, publishing, the demo and the command line call :func:`protect_batch`, and
so will a worker of a cluster: it knows no dataset and no files, and pickles by its name.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from semtransforms.data.images import check_labels
from semtransforms.views.resize import NoiseScale

if TYPE_CHECKING:
    from semtransforms.generators.generator import NoiseGenerator, NoiseSize

FIT_OR_MAP = (
    "Fit a generator on this data (fit_generator, semtransforms fit), or pass label_map={label: generator's label}."
)


@dataclass(frozen=True)
class ProtectedBatch:
    """Images and their noise.

    Args:
        clean: N times uint8 (3, H, W), of any sizes.
        made: N times int8 (3, h, w), the noise as it was made, in grey levels.
        scale: how it comes to the images' sizes.
    """

    clean: Sequence[Tensor]
    made: Sequence[Tensor]
    scale: NoiseScale

    @cached_property
    def noise(self) -> list[Tensor]:
        """The noise at the images' sizes, N times int8 (3, H, W); ``clean + noise`` lies in 0..255."""
        return [self.scale.enlarge(made, image) for made, image in zip(self.made, self.clean, strict=True)]

    @property
    def protected(self) -> list[Tensor]:
        """The images with their noise, N times uint8 (3, H, W)."""
        return [self.scale.add(made, image) for made, image in zip(self.made, self.clean, strict=True)]


def protect_batch(
    images: Sequence[Tensor],
    labels: Any,
    generator: NoiseGenerator,
    *,
    seed: int,
    label_map: Mapping[int, int] | None = None,
    noise_size: NoiseSize = None,
    visibility: float = 1.0,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> ProtectedBatch:
    """Make the noise of images.

    Args:
        images: N times uint8 (3, H, W), of any sizes.
        labels: N whole numbers, as the data has them.
        generator: makes the noise.
        seed: secret and fresh for a real protection.
        label_map: label of the data -> label of the generator, where the two differ.
        noise_size: S, the shorter side at which the noise of larger images is made; see ``NoiseGenerator.scale``.
        visibility: in 0..1, how much of rho_u the noise has where the eye tolerates little; see there.
        device: where to compute; default: where the generator lies.
        batch_size: images per loop; the default suits the device. It does not change the result.
        progress: show a bar.

    Returns:
        The images and their noise, ``|noise| <= floor(255 * rho_u)``, on the CPU.

    Raises:
        TypeError: images are not uint8, or labels are not whole numbers.
        ValueError: labels that do not fit the images or the generator, images too small for it, or a wrong
            ``noise_size`` or ``visibility``; messages count the images from 0.
    """
    targets = generator_labels(labels, label_map, generator.num_classes)
    scale = generator.scale(noise_size, visibility)
    made = generator.make_noise(
        images, targets, scale=scale, seed=seed, batch_size=batch_size, device=device, progress=progress
    )
    return ProtectedBatch(images, made, scale)


@dataclass(frozen=True)
class NoiseMaker:
    """What makes the noise of a dataset's images; it pickles with its generator.

    Args:
        generator: makes the noise.
        seed, noise_size, visibility, batch_size, device: as for :func:`protect_batch`.
    """

    generator: NoiseGenerator
    seed: int = field(repr=False)  # what is shown ends up in logs
    noise_size: NoiseSize
    visibility: float
    batch_size: int | None
    device: str | torch.device | None

    @property
    def scale(self) -> NoiseScale:
        """How the noise comes to the images' sizes."""
        return self.generator.scale(self.noise_size, self.visibility)

    def make(self, images: Sequence[Tensor], labels: Tensor) -> ProtectedBatch:
        """The noise of uint8 (3, H, W) images, by the generator's labels."""
        return protect_batch(
            images, labels, self.generator, seed=self.seed, noise_size=self.noise_size, visibility=self.visibility,
            batch_size=self.batch_size, device=self.device,
        )  # fmt: skip

    def check_sizes(self, sizes: Iterable[Sequence[int]], rows: Sequence[int]) -> None:
        """See that no image is smaller than the generator takes.

        Args:
            sizes: height and width of each.
            rows: the positions that a message names them by.

        Raises:
            ValueError: one is.
        """
        smallest = self.generator.smallest
        for (height, width), row in zip(sizes, rows, strict=True):
            if min(height, width) < smallest:
                raise ValueError(
                    f"dataset: the image at index {row} is {height} x {width}, the generator's surrogate "
                    f"{self.generator.config.surrogate!r} takes {smallest} x {smallest} and larger. Enlarge it, or "
                    "leave it out (torch.utils.data.Subset)."
                )


def generator_labels(
    labels: Any,
    label_map: Mapping[int, int] | None,
    num_classes: int,
    *,
    place: str = "",
    rows: Sequence[int] | None = None,
) -> Tensor:
    """The labels as the generator counts them.

    Args:
        labels: N whole numbers, as the data has them.
        label_map: label of the data -> label of the generator, where the two differ.
        num_classes: C of the generator.
        place: what messages begin with, such as ``"dataset: "``.
        rows: N numbers that messages call the images by; default: their positions.

    Returns:
        int64 (N,), in 0..C-1.

    Raises:
        TypeError: a label is not a whole number.
        ValueError: a label is missing, out of range, or not in ``label_map``, or that one leads out of range.
    """
    if label_map is None:
        return check_labels(labels, num_classes, place=place, rows=rows)
    found = check_labels(labels, None, place=place, rows=rows).tolist()
    for position, label in enumerate(found):
        if label not in label_map:
            raise ValueError(
                f"{place}label_map has no entry for label {label} at index "
                f"{position if rows is None else rows[position]}. Map every label of the data to one in "
                f"0..{num_classes - 1}."
            )
    check_label_map({label: label_map[label] for label in sorted(set(found))}, num_classes)
    return torch.tensor([label_map[label] for label in found], dtype=torch.int64)


def check_label_map(label_map: Mapping[int, int], num_classes: int) -> None:
    """See that a map leads to labels of the generator.

    Args:
        label_map: label of the data -> label of the generator.
        num_classes: C of the generator.

    Raises:
        ValueError: it leads outside 0..C-1.
    """
    for label, target in label_map.items():
        if target not in range(num_classes):
            raise ValueError(f"label_map[{label!r}] must be in 0..{num_classes - 1}, got {target!r}.")


def check_class_count(
    place: str,
    classes: Sequence[Any] | None,
    num_classes: int,
    *,
    generator: str | None = None,
    remedy: str = FIT_OR_MAP,
) -> None:
    """See that data has as many classes as the generator: noise for the first two of three says nothing about two.

    Args:
        place: whose classes they are, for the message, such as ``"dataset"``.
        classes: label names, or None where they are not known.
        num_classes: C of the generator.
        generator: its name, where it has one.
        remedy: what to do instead, a sentence.

    Raises:
        ValueError: the numbers differ.
    """
    if classes is not None and len(classes) != num_classes:
        named = f"generator {generator!r}" if generator else "the generator"
        raise ValueError(f"{place} has {len(classes)} classes, {named} {num_classes}. {remedy}")


def first_other_name(classes: Sequence[Any] | None, known: Sequence[str] | None) -> tuple[str, str] | None:
    """The first class that the data and the generator call by different names; upper and lower case are the same.

    Args:
        classes: label names of the data, or None where they are not known.
        known: those of the generator, likewise.

    Returns:
        The data's name and the generator's; ``None`` where all agree, or where one side has no names.
    """
    pairs = zip(map(str, classes or ()), known or (), strict=False)
    return next(((mine, other) for mine, other in pairs if mine.casefold() != other.casefold()), None)


def share_names(classes: Sequence[Any] | None, known: Sequence[str] | None) -> bool:
    """Whether the data and the generator have a class of the same name, at any number.

    Args:
        classes, known: as for :func:`first_other_name`.
    """
    mine, others = ({str(name).casefold() for name in names or ()} for names in (classes, known))
    return not mine.isdisjoint(others)


def warn_of_other_names(
    place: str,
    classes: Sequence[Any] | None,
    known: Sequence[str] | None,
    *,
    generator: str | None = None,
    remedy: str = FIT_OR_MAP,
) -> None:
    """Warn where some classes of the data are the generator's and others are not, or have other numbers.

    Where no name is shared, a generator is used for other classes than its own, as the bundled ones are: no mistake.

    Args:
        place, generator, remedy: as for :func:`check_class_count`.
        classes, known: as for :func:`first_other_name`; as many of each.
    """
    pair = first_other_name(classes, known)
    if pair is None or not share_names(classes, known):
        return
    named = f"generator {generator!r}" if generator else "the generator"
    warnings.warn(
        f"{place} has other class names than {named}, or another order: {pair[0]!r} is where it has {pair[1]!r}. Noise "
        f"goes by the label's number, so {pair[0]!r} gets that of {pair[1]!r}. {remedy}",
        stacklevel=4,  # of whoever called ProtectedDataset
    )

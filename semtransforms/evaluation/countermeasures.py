"""What an unauthorised trainer does about the noise: once to the stored images, or to every training batch.

kornia, torchvision and PIL do the image work. Ours are the draws keyed per image (kornia and torchvision draw from a
global stream, some of them once per batch), cutout, mixup and cutmix, the linear removal and the informed trainer.
"""

from __future__ import annotations

import difflib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal, Protocol

import kornia.augmentation
import kornia.filters
import torch
from kornia.augmentation.auto import TrivialAugment
from kornia.losses import total_variation
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import posterize, rgb_to_grayscale

from semtransforms.core.config import GeneratorConfig
from semtransforms.core.grid import add_noise, quantize, to_float
from semtransforms.core.hardware import autocast_dtype, keep_freed_memory
from semtransforms.core.keys import fold_in, image_keys, index_keys, keyed_uniform
from semtransforms.data.images import as_pixels, to_pil
from semtransforms.noise.fuse import fuse_batch_norm
from semtransforms.noise.pgd import forward, frozen, pgd
from semtransforms.views.eot import EOT
from semtransforms.views.members import Kornia, Parameters


@dataclass(frozen=True)
class TrainingSet:
    """What the unauthorised trainer holds.

    Args:
        images: uint8 (N, 3, H, W), as published.
        labels: int64 (N,).
        clean: uint8 (N, 3, H, W), the owner's images in the same order, for conditions under which the trainer has
            some of them; ``None`` where he has none.
    """

    images: Tensor
    labels: Tensor
    clean: Tensor | None = None


class Countermeasure:
    """Something a trainer does about the noise; a subclass overrides what it does, the rest is the identity.

    Attributes:
        name: what records and files call it, without ``+``.
        acts_on: ``"stored"``: once, on what was published; ``"batch"``: on every training batch, after the trainer's
            own augmentation.
    """

    name: str
    acts_on: ClassVar[Literal["stored", "batch"]]

    def on_stored(self, data: TrainingSet, *, seed: int) -> TrainingSet:
        """The training set it makes of what was published; ``data`` is not written to.

        Args:
            data: what the trainer holds.
            seed: of its draws.
        """
        return data

    def at_test(self, images: Tensor) -> Tensor:
        """The same for test images, where it is a fixed map of one image.

        Args:
            images: uint8 (N, 3, H, W), not written to.

        Returns:
            uint8 (N, 3, H, W); the same tensor where there is nothing to do.
        """
        return images

    def on_batch(self, images: Tensor, targets: Tensor, *, keys: Tensor, network: nn.Module) -> tuple[Tensor, Tensor]:
        """The batch to train on in place of this one, which is not written to.

        Args:
            images: float32 (B, 3, H, W) in [0, 1].
            targets: float32 (B, C), rows sum to 1.
            keys: int64 (B,), one per image and step, on the same device: all randomness comes from them.
            network: what is being trained; its mode is left as it is.

        Returns:
            Images and targets of the same shapes.
        """
        return images, targets


def apply_stored(countermeasures: Sequence[Countermeasure], data: TrainingSet, *, seed: int) -> TrainingSet:
    """Apply those that act on stored images, in order.

    Args:
        countermeasures: of both kinds.
        data: what the trainer holds.
        seed: of their draws.

    Returns:
        What he trains on.

    Raises:
        ValueError: one changes the size of the images or leaves them without one label each, or needs the owner's
            clean images where there are none.
    """
    size = data.images.shape[1:]
    _check_set(data, size, "data")
    for each in countermeasures:
        if each.acts_on == "stored":
            data = each.on_stored(data, seed=seed)
            _check_set(data, size, f"countermeasure {each.name!r}")
    return data


def apply_at_test(countermeasures: Sequence[Countermeasure], images: Tensor) -> Tensor:
    """What the trainer shows his network at test, if he processes test images as he did the stored ones.

    Args:
        countermeasures: of both kinds.
        images: uint8 (N, 3, H, W).

    Returns:
        uint8 (N, 3, H, W); the same tensor where none of them is a fixed map of one image.

    Raises:
        ValueError: one changes the size or the number of the images.
    """
    for each in countermeasures:
        if each.acts_on == "stored":
            changed = each.at_test(images)
            _check_images(changed, images.shape, f"countermeasure {each.name!r}")
            images = changed
    return images


def _check_set(data: TrainingSet, size: torch.Size, who: str) -> None:
    count = len(data.labels)
    if count == 0:
        raise ValueError(f"{who} leaves no images to train on")
    _check_images(data.images, (count, *size), who)
    if data.clean is not None:
        _check_images(data.clean, (count, *size), f"{who}, clean images")


def _check_images(images: Tensor, shape: Sequence[int], who: str) -> None:
    if images.dtype != torch.uint8 or images.shape != tuple(shape):
        raise ValueError(
            f"{who}: images must be uint8 of size {tuple(shape)} (count, 3, height, width), got {images.dtype} "
            f"{tuple(images.shape)}. Keep the size of the images and one label per image."
        )


# --- fixed maps of one image -------------------------------------------------------------------------------------

_CHUNK_PIXELS = 2**18  # per call: 256 images of 32 x 32; larger ones leave the cache (a third slower, measured)


@dataclass(frozen=True)
class ImageMap(Countermeasure):
    """The same function of every image, applied to the stored images once and, where the trainer chooses, at test.

    Args:
        function: uint8 (N, 3, H, W) to the same shape and type, image by image.
        name: for records.
    """

    function: Callable[[Tensor], Tensor]
    name: str
    acts_on = "stored"

    def on_stored(self, data: TrainingSet, *, seed: int) -> TrainingSet:
        """The images mapped; labels as they are, and the owner's clean images as he has them."""
        return replace(data, images=self.at_test(data.images))

    @torch.no_grad()
    def at_test(self, images: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) to the same shape and type."""
        count = max(1, _CHUNK_PIXELS // images.shape[2:].numel())
        return torch.cat([self._mapped(some) for some in torch.split(images, count)])

    def _mapped(self, images: Tensor) -> Tensor:
        return self.function(images)


@dataclass(frozen=True)
class Purifier(ImageMap):
    """Any denoiser of float images; its result is rounded to whole grey levels.

    Args:
        function: float32 (N, 3, H, W) in [0, 1] to the same shape, image by image; what leaves [0, 1] is clamped.
        name: for records; one that no other countermeasure of yours has.

    Raises:
        ValueError: when it is applied: the function changes the image size, gives something else than floats, or NaN.
    """

    def _mapped(self, images: Tensor) -> Tensor:
        result = self.function(to_float(images))
        if result.shape != images.shape:
            raise ValueError(
                f"countermeasure {self.name!r} changes the image size from {tuple(images.shape)} to "
                f"{tuple(result.shape)}. Give a function that keeps it."
            )
        if not result.is_floating_point() or not bool(result.isfinite().all()):
            raise ValueError(
                f"countermeasure {self.name!r} must give finite floats in [0, 1], got {result.dtype}"
                f"{' with NaN or infinity' if result.is_floating_point() else ''}"
            )
        return _to_bytes(result)


def _to_bytes(images: Tensor) -> Tensor:
    return images.clamp(0, 1).mul_(255).round_().to(torch.uint8)


def denoise(images: Tensor) -> Tensor:
    """Total-variation denoising: the image near the given one that varies least (Rudin, Osher and Fatemi 1992).

    Minimises ``|x - images|^2 / 2 + weight * TV(x)``, kornia's anisotropic TV, by subgradient steps of size
    2 / (k + 2) and an average weighted by k (Lacoste-Julien et al. 2012), within a few per cent of the minimum.

    Args:
        images: float32 (N, 3, H, W) in [0, 1].

    Returns:
        float32 (N, 3, H, W) in [0, 1].
    """
    # 3/255 takes most of +-8 levels off photographs: mean square error 61 -> 30; 1, 2, 4, 8: 42, 33, 33, 60
    weight, steps = 3 / 255, 30
    point, average = images, images
    for k in range(steps):
        with torch.enable_grad():
            leaf = point.detach().requires_grad_()
            slope = torch.autograd.grad(total_variation(leaf).sum(), leaf)[0]
        point = torch.lerp(point, images - weight * slope, 2 / (k + 2))
        average = torch.lerp(average, point, 2 / (k + 2))
    return average.clamp(0, 1)


def _jpeg(quality: int) -> ImageMap:
    """Really encoded, with PIL's defaults: 4:2:0, so colour keeps a quarter of its resolution."""
    if not 1 <= quality <= 100:
        raise ValueError(f"the quality of JPEG is 1..100, got {quality}")
    return ImageMap(partial(_through_jpeg, quality=quality), f"jpeg-{quality}")


def _through_jpeg(images: Tensor, quality: int) -> Tensor:
    results = []
    for image in images:
        file = io.BytesIO()
        to_pil(image).save(file, format="JPEG", quality=quality)
        results.append(as_pixels(Image.open(file)))
    return torch.stack(results).to(images.device)


def _bit_depth(bits: int) -> ImageMap:
    """The upper bits of each byte, as image shortcut squeezing reduces them (Liu et al. 2023): truncated, not rounded.

    Feature squeezing (Xu et al. 2018) rounds to 2**B levels spread over 0..255 instead; the difference is a shift to
    darker, which equally processed test images share.
    """
    if not 1 <= bits <= 7:
        raise ValueError(f"bit-depth keeps 1..7 bits of 8, got {bits}")
    return ImageMap(partial(posterize, bits=bits), f"bit-depth-{bits}")


# --- batches -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Augmentation(Countermeasure):
    """A random change of each image, which leaves its target as it is.

    Args:
        function: float32 (B, 3, H, W) in [0, 1] and keys int64 (B,) to the same shape; a new tensor.
        name: for records.
    """

    function: Callable[[Tensor, Tensor], Tensor]
    name: str
    acts_on = "batch"

    @torch.no_grad()
    def on_batch(self, images: Tensor, targets: Tensor, *, keys: Tensor, network: nn.Module) -> tuple[Tensor, Tensor]:
        """Images changed, targets as they are."""
        return self.function(images, keys), targets


@dataclass(frozen=True)
class Mixture(Countermeasure):
    """A mixture of each image with another of its batch, and of their targets.

    Partners come from a random permutation; how much is mixed is drawn once per batch, as the published methods do.

    Args:
        function: images, targets and keys to images and targets of the same shapes; new tensors.
        name: for records.
    """

    function: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    name: str
    acts_on = "batch"

    @torch.no_grad()
    def on_batch(self, images: Tensor, targets: Tensor, *, keys: Tensor, network: nn.Module) -> tuple[Tensor, Tensor]:
        """Images and targets mixed."""
        return self.function(images, targets, keys)


def _cutout(images: Tensor, keys: Tensor) -> Tensor:
    # DeVries and Taylor 2017: one square of half the image's side (16 of 32), black; its centre is any pixel, so that
    # a part of it may hang over the border
    height, width = images.shape[2:]
    side = min(height, width) // 2
    corner = _pixel(keys, height, width) - side // 2
    return images.masked_fill(_box(images, corner[:, 0], corner[:, 1], side, side), 0)


def _mixup(images: Tensor, targets: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    # Zhang et al. 2018, Beta(1, 1), which is uniform
    partner = keyed_uniform(fold_in(keys, 0), ()).argsort()
    share = keyed_uniform(fold_in(keys[:1], 1), ())
    return torch.lerp(images[partner], images, share), torch.lerp(targets[partner], targets, share)


def _cutmix(images: Tensor, targets: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    # Yun et al. 2019, Beta(1, 1), every batch: a box of 1 - share of the area, its centre any pixel, clipped at the
    # border; targets by the area that is left
    height, width = images.shape[2:]
    partner = keyed_uniform(fold_in(keys, 0), ()).argsort()
    ratio = (1 - keyed_uniform(fold_in(keys[:1], 1), ())).sqrt()
    box_height, box_width = (height * ratio).to(torch.int64), (width * ratio).to(torch.int64)
    centre = _pixel(fold_in(keys[:1], 2), height, width)
    box = _box(images, centre[:, 0] - box_height // 2, centre[:, 1] - box_width // 2, box_height, box_width)
    cut = box.float().mean()
    return torch.where(box, images[partner], images), torch.lerp(targets, targets[partner], cut)


def _pixel(keys: Tensor, height: int, width: int) -> Tensor:
    """A uniform pixel per key: int64 (N, 2), row and column."""
    return (keyed_uniform(keys, (2,)) * torch.tensor([height, width], device=keys.device)).to(torch.int64)


def _box(images: Tensor, top: Tensor, left: Tensor, height: int | Tensor, width: int | Tensor) -> Tensor:
    """Boxes as masks: bool (N, 1, H, W), from the row and column int64 (N,) of their upper left corners."""
    rows = torch.arange(images.shape[2], device=images.device) - top[:, None]
    columns = torch.arange(images.shape[3], device=images.device) - left[:, None]
    inside = [(places >= 0) & (places < length) for places, length in ((rows, height), (columns, width))]
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]


def _gaussian_noise(images: Tensor, keys: Tensor) -> Tensor:
    # Box and Muller; 1 - u is in (0, 1]
    first, second = keyed_uniform(keys, (2, *images.shape[1:])).unbind(1)
    normal = (-2 * (1 - first).log()).sqrt_().mul_((2 * torch.pi * second).cos_())
    return normal.mul_(8 / 255).add_(images).clamp_(0, 1)


def _randaugment(images: Tensor, keys: Tensor) -> Tensor:
    # Cubuk et al. 2020 with torchvision's defaults (2 operations of magnitude 9). torchvision and kornia draw the
    # operations once per batch, so each image goes through alone.
    augment = v2.RandAugment()
    results = []
    with torch.random.fork_rng(devices=[]):
        for image, key in zip(_to_bytes(images), keys.tolist(), strict=True):
            torch.default_generator.manual_seed(key)
            results.append(augment(image))
    return to_float(torch.stack(results))


def _colour_jitter() -> Augmentation:
    # a fixed order: kornia draws one order for a whole batch
    jitter = kornia.augmentation.ColorJitter(0.4, 0.4, 0.4, 0.1, order=(0, 1, 2, 3))
    return Augmentation(EOT([Kornia(jitter)]), "colour-jitter")


# --- UEraser -----------------------------------------------------------------------------------------------------


class _Fractal(Kornia):
    """An augmentation whose parameters are whole maps: the larger the images, the fewer rows in its table (50 MB)."""

    def draw(self, keys: Tensor, shape: Sequence[int]) -> Parameters:
        self.table_size = max(64, min(4096, 2**22 // (shape[2] * shape[3])))
        return super().draw(keys, shape)


class _OneOf(nn.Module):
    """A member of T that is one of several, drawn per image."""

    members: Any  # a ModuleList, whose items have draw besides forward

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def draw(self, keys: Tensor, shape: Sequence[int]) -> Parameters:
        choice = keyed_uniform(fold_in(keys, 0), ()) * len(self.members)
        return {"member": choice.to(torch.int64), "keys": fold_in(keys, 1)}

    def forward(self, images: Tensor, parameters: Parameters) -> Tensor:
        result = images.clone()
        for number, member in enumerate(self.members):
            rows = (parameters["member"] == number).nonzero()[:, 0]
            if len(rows):
                some = images[rows]
                result[rows] = member(some, member.draw(parameters["keys"][rows], some.shape))
        return result


def _ueraser_policy() -> EOT:
    plasma: dict[str, Any] = {"roughness": (0.3, 0.7), "p": 0.5}
    operations = [policy[0] for policy in TrivialAugment().children()]
    for operation in operations:
        operation.p = 1.0  # what Kornia asks for: the one that is drawn is applied
    return EOT(
        [
            _Fractal(kornia.augmentation.RandomPlasmaBrightness(intensity=(0.5, 1.0), **plasma)),
            _Fractal(kornia.augmentation.RandomPlasmaContrast(**plasma)),
            Kornia(kornia.augmentation.RandomChannelShuffle(p=0.5)),
            _OneOf([Kornia(operation) for operation in operations]),
        ]
    )


@dataclass(frozen=True)
class UEraser(Countermeasure):
    """Of five strong augmentations of each image, the one with the network's largest loss (Qin et al. 2023).

    Each draw is, as in the authors' code: kornia's plasma brightness (intensity 0.5 to 1) and plasma contrast
    (roughness 0.3 to 0.7) and a channel shuffle, each with probability 1/2, then one operation of kornia's
    TrivialAugment. Here it stays on until the end (their UEraser-max; UEraser itself stops maximising after 50 to 60 of
    200 epochs), and the loss is seen in eval mode.
    """

    policy: EOT = field(default_factory=_ueraser_policy, repr=False, compare=False)
    name: str = field(default="ueraser", init=False)
    acts_on = "batch"

    @torch.no_grad()
    def on_batch(self, images: Tensor, targets: Tensor, *, keys: Tensor, network: nn.Module) -> tuple[Tensor, Tensor]:
        """Images replaced by their worst draw, targets as they are."""
        draws = 5
        views = self.policy(images.repeat(draws, 1, 1, 1), torch.cat([fold_in(keys, draw) for draw in range(draws)]))
        dtype = autocast_dtype("auto", images.device)  # losses are only compared
        with frozen(network):
            folded = fuse_batch_norm(network)
            logits = [
                forward(folded, some.to(memory_format=torch.channels_last), dtype) for some in views.split(len(images))
            ]
        losses = torch.stack([F.cross_entropy(some, targets, reduction="none") for some in logits])
        worst = losses.argmax(0)
        return views.unflatten(0, (draws, -1))[worst, torch.arange(len(images), device=images.device)], targets


# --- conditions of the data --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Share(Countermeasure):
    """A condition that has a percentage, above 0 and at most 100, and is named by it."""

    percent: float
    name: str = field(init=False)
    acts_on = "stored"
    kind: ClassVar[str]

    def __post_init__(self) -> None:
        if not 0 < self.percent <= 100:
            raise ValueError(f"{self.kind} takes a percentage above 0 and at most 100, got {self.percent:g}")
        object.__setattr__(self, "name", f"{self.kind}-{self.percent:g}")


@dataclass(frozen=True)
class CleanShare(_Share):
    """A share of the images are the owner's clean ones (partial poisoning), drawn by the seed.

    Args:
        percent: of the images, above 0 and at most 100; at least one image.

    Raises:
        ValueError: a percentage outside; when it is applied: the owner's clean images are not given.
    """

    kind = "clean-share"

    def on_stored(self, data: TrainingSet, *, seed: int) -> TrainingSet:
        """The drawn images clean, the others as they are."""
        rows, clean = _drawn(len(data.labels), self.percent, seed), _clean_images(data, self.name)
        images = data.images.clone()
        images[rows] = clean[rows]
        return replace(data, images=images)


@dataclass(frozen=True)
class CleanOnly(_Share):
    """The clean images of :class:`CleanShare` alone: what the trainer would learn without any protected image.

    Args:
        percent: as for :class:`CleanShare`; the same images for the same seed.

    Raises:
        ValueError: as :class:`CleanShare`.
    """

    kind = "clean-only"

    def on_stored(self, data: TrainingSet, *, seed: int) -> TrainingSet:
        """The drawn images, clean, with their labels."""
        rows, clean = _drawn(len(data.labels), self.percent, seed), _clean_images(data, self.name)
        return TrainingSet(clean[rows], data.labels[rows], clean[rows])


@dataclass(frozen=True)
class ProtectedClasses(Countermeasure):
    """Only the images of some classes are protected; all others are the owner's clean ones.

    Args:
        classes: labels of the protected classes; those that have no image do not matter.

    Raises:
        ValueError: no class; when it is applied: the owner's clean images are not given.
    """

    classes: tuple[int, ...]
    name: str = field(init=False)
    acts_on = "stored"

    def __post_init__(self) -> None:
        if not self.classes or min(self.classes) < 0:
            raise ValueError(f"protected-classes must name labels >= 0, got {self.classes}")
        object.__setattr__(self, "name", f"protected-classes-{','.join(map(str, self.classes))}")

    def on_stored(self, data: TrainingSet, *, seed: int) -> TrainingSet:
        """The images of the other classes replaced by clean ones."""
        return _protect_only(data, torch.tensor(self.classes), self.name)


@dataclass(frozen=True)
class ProtectedClassShare(_Share):
    """As :class:`ProtectedClasses`, for a share of the classes, drawn by the seed.

    Args:
        percent: of the classes, above 0 and at most 100; at least one class.

    Raises:
        ValueError: a percentage outside; when it is applied: the owner's clean images are not given.
    """

    kind = "protected-class-share"

    def on_stored(self, data: TrainingSet, *, seed: int) -> TrainingSet:
        """The images of the classes not drawn replaced by clean ones."""
        classes = torch.unique(data.labels)
        return _protect_only(data, classes[_drawn(len(classes), self.percent, seed)], self.name)


def _drawn(count: int, percent: float, seed: int) -> Tensor:
    """Numbers of the drawn ones of ``count``, sorted; a larger share holds those of a smaller one."""
    order = keyed_uniform(index_keys(torch.arange(count), seed), ()).argsort(stable=True)
    return order[: max(1, round(count * percent / 100))].sort().values


def _clean_images(data: TrainingSet, name: str) -> Tensor:
    if data.clean is None:
        raise ValueError(f"countermeasure {name!r} needs the owner's clean images, got none. Pass clean=...")
    return data.clean


def _protect_only(data: TrainingSet, classes: Tensor, name: str) -> TrainingSet:
    protected = torch.isin(data.labels, classes)[:, None, None, None]
    return replace(data, images=torch.where(protected, data.images, _clean_images(data, name)))


# --- trainers who know more --------------------------------------------------------------------------------------


class PublishedGenerator(Protocol):
    """What a published generator holds, of which a :class:`~semtransforms.NoiseGenerator` is one."""

    @property
    def surrogate(self) -> nn.Module:
        """float (N, 3, H, W) in [0, 1] to logits."""

    @property
    def config(self) -> GeneratorConfig:
        """How it makes noise."""

    @property
    def eot(self) -> EOT:
        """Its transformations T."""


@dataclass(frozen=True)
class InformedTrainer(Countermeasure):
    """Holds the published generator and runs its loop in reverse on the protected images, to wash the noise out.

    He climbs the surrogate's loss, which the noise lowered (or descends it, where the noise climbed), by projected
    gradients with the generator's own radius, step size, transformations and inner perturbation. The clean image lies
    within rho_u of the protected one, so that is the ball he climbs in, from a random start inside it; he may
    overshoot, up to 2 rho_u from the clean image.
    The seed alone does not give him the owner's draws: those are keyed by the clean images, which he lacks.

    Args:
        generator: the published one.
        seed: of his draws.
        steps: gradient steps K; ``None`` for as many as the generator takes.
        name: for records.

    Raises:
        ValueError: ``steps`` is under 1; when it is applied: a label the generator does not know.
    """

    generator: PublishedGenerator
    seed: int
    steps: int | None = None
    name: str = "informed"
    acts_on = "stored"

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps must be >= 1, got {self.steps}. Leave it out for the generator's own.")

    def on_stored(self, data: TrainingSet, *, seed: int) -> TrainingSet:
        """The images with the loop's result added, in whole grey levels; the draws have the trainer's own seed."""
        config = self.generator.config
        if next(self.generator.surrogate.parameters(), None) is None:
            raise ValueError(
                f"countermeasure {self.name!r}: method {config.method!r} has no surrogate network to run in reverse. "
                "Leave it out, or use a generator that has one."
            )
        if config.num_classes is not None and int(data.labels.max()) >= config.num_classes:
            raise ValueError(
                f"countermeasure {self.name!r}: the generator knows labels 0..{config.num_classes - 1}, got "
                f"{int(data.labels.max())}. Use a generator of these classes."
            )
        keep_freed_memory()
        device = next(self.generator.surrogate.parameters()).device
        keys = image_keys(data.images, data.labels, self.seed)
        chunk = max(1, 2 * _CHUNK_PIXELS // data.images.shape[2:].numel())
        parts = zip(*(torch.split(each, chunk) for each in (data.images, data.labels, keys)), strict=True)
        washed = []
        for images, labels, some in parts:
            delta = pgd(
                self.generator.surrogate,
                to_float(images.to(device)),
                config.target_labels(labels.to(device)),
                replace(config.defense, steps=self.steps or config.steps_u),
                keys=some.to(device),
                maximise=not config.climbs,
                eot=self.generator.eot,
                dtype=autocast_dtype(config.precision, device),
            )
            washed.append(add_noise(images, quantize(delta, config.rho_u).to(images.device)))
        return replace(data, images=torch.cat(washed))


@dataclass(frozen=True)
class LinearRemoval(Countermeasure):
    """Projects out of the pixels what a linear model tells the classes by (Sandoval-Segura et al. 2023).

    The directions are those of a softmax classifier fitted on the stored images; the images keep their mean. Theirs is
    fitted by 20 epochs of SGD from a random start, ours to the minimum of a convex problem, so it needs no seed.
    """

    name: str = field(default="linear-removal", init=False)
    acts_on = "stored"

    def on_stored(self, data: TrainingSet, *, seed: int) -> TrainingSet:
        """The images projected onto the complement of the directions, in whole grey levels."""
        pixels = to_float(data.images).flatten(1)
        mean = pixels.mean(0)
        pixels.sub_(mean)
        directions = class_directions(pixels, data.labels)
        pixels.sub_(pixels @ directions @ directions.T).add_(mean)
        return replace(data, images=_to_bytes(pixels).view(data.images.shape))


def class_directions(pixels: Tensor, labels: Tensor) -> Tensor:
    """Orthonormal directions that a linear softmax classifier tells the classes by.

    Args:
        pixels: float32 (N, D), zero mean, in units of the pixel range.
        labels: int64 (N,), of C different classes.

    Returns:
        float32 (D, C - 1): a basis of the differences between the classes' weights, for the mean cross-entropy plus
        ``ridge / 2`` times the squared weights.
    """
    # on 10,000 images of CIFAR-10 with class-wise noise this leaves 22 % of random signs and 57 % of patches of 8 x 8
    # (norms); 0.1 leaves 33 and 51 %, 0.001 leaves 20 and 64 %
    ridge = 0.01
    classes, named = torch.unique(labels, return_inverse=True)
    weight = pixels.new_zeros(len(classes), pixels.shape[1], requires_grad=True)
    bias = pixels.new_zeros(len(classes), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(F.linear(pixels, weight, bias), named) + ridge / 2 * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    # a shift common to all classes changes no prediction: C weights span C - 1 directions
    basis: Tensor = torch.linalg.qr((weight[1:] - weight[:1]).detach().T).Q
    return basis


# --- names -------------------------------------------------------------------------------------------------------

_FLOAT_MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": partial(kornia.filters.box_blur, kernel_size=3),
    "median": partial(kornia.filters.median_blur, kernel_size=3),
    # sigma as OpenCV derives it from a window of 3
    "gaussian": partial(kornia.filters.gaussian_blur2d, kernel_size=3, sigma=(0.8, 0.8)),
    # neighbours that noise of 8/255 can part (2 * 8/255 in each of 3 channels, summed) still weigh exp(-1/2)
    "bilateral": partial(kornia.filters.bilateral_blur, kernel_size=3, sigma_color=0.2, sigma_space=(1.5, 1.5)),
    "greyscale": partial(rgb_to_grayscale, num_output_channels=3),
    "denoise": denoise,
}

_PLAIN: dict[str, Callable[[], Countermeasure]] = {
    **{name: partial(Purifier, function, name) for name, function in _FLOAT_MAPS.items()},
    "linear-removal": LinearRemoval,
    "cutout": partial(Augmentation, _cutout, "cutout"),
    "mixup": partial(Mixture, _mixup, "mixup"),
    "cutmix": partial(Mixture, _cutmix, "cutmix"),
    "randaugment": partial(Augmentation, _randaugment, "randaugment"),
    "colour-jitter": _colour_jitter,
    "gaussian-noise": partial(Augmentation, _gaussian_noise, "gaussian-noise"),
    "ueraser": UEraser,
}

# with what follows the last hyphen, and an example of it
_WITH_VALUE: dict[str, tuple[Callable[[str], Countermeasure], str]] = {
    "jpeg": (lambda text: _jpeg(int(text)), "10"),
    "bit-depth": (lambda text: _bit_depth(int(text)), "4"),
    "clean-share": (lambda text: CleanShare(float(text)), "20"),
    "clean-only": (lambda text: CleanOnly(float(text)), "20"),
    "protected-classes": (lambda text: ProtectedClasses(tuple(map(int, text.split(",")))), "0,1"),
    "protected-class-share": (lambda text: ProtectedClassShare(float(text)), "50"),
}

# what parse_countermeasure reads, with an example where a value follows
KNOWN = ("none", *_PLAIN, *(f"{name}-{example}" for name, (_, example) in _WITH_VALUE.items()))


def parse_countermeasure(text: str) -> tuple[Countermeasure, ...]:
    """Countermeasures from their names.

    Args:
        text: ``"none"``, a name such as ``"greyscale"`` or ``"jpeg-10"``, or several joined by ``+``, applied in that
            order (``"clean-share-20+jpeg-10"`` compresses the clean images too).

    Returns:
        The countermeasures; empty for ``"none"``.

    Raises:
        ValueError: an unknown name, with the nearest ones, or a value that does not fit.
    """
    return () if text == "none" else tuple(_parse_one(name) for name in text.split("+"))


def _parse_one(name: str) -> Countermeasure:
    if name in _PLAIN:
        return _PLAIN[name]()
    if name.startswith("informed"):
        raise ValueError(
            f"countermeasure {name!r} needs the published generator: evaluate(..., generator=...) builds it for "
            "'informed-same-seed' and 'informed-other-seed', or use InformedTrainer(generator, seed=...) yourself"
        )
    kind, _, value = name.rpartition("-")
    if kind in _WITH_VALUE:
        build, example = _WITH_VALUE[kind]
        try:
            return build(value)
        except ValueError as error:
            raise ValueError(f"countermeasure {name!r}: {error}. Write, say, {kind}-{example}.") from None
    nearest = difflib.get_close_matches(name, KNOWN, n=3)
    raise ValueError(
        f"unknown countermeasure {name!r}"
        + (f", did you mean {' or '.join(map(repr, nearest))}?" if nearest else f"; known: {', '.join(KNOWN)}")
    )

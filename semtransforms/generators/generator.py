"""A fitted noise generator: a surrogate with its config, and Eq. 7 for images of any number and size."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict, Unpack, overload

import torch
from torch import Tensor, nn

from semtransforms.core import hub
from semtransforms.core.checks import check_integer
from semtransforms.core.config import GeneratorConfig
from semtransforms.core.files import writing
from semtransforms.core.grid import add_noise, levels
from semtransforms.core.hardware import pick_device
from semtransforms.core.keys import image_keys, index_keys
from semtransforms.generators.batching import noise_by_shape
from semtransforms.generators.card import check_card
from semtransforms.generators.checks import check_pairs, check_surrogate_weights
from semtransforms.generators.exporting import OPSET, secret_field, write_onnx
from semtransforms.generators.names import resolve
from semtransforms.generators.weights import from_files, to_files
from semtransforms.noise.engine import Engine, engine_of
from semtransforms.views.eot import build_eot
from semtransforms.views.resize import NoiseScale

NoiseSize: TypeAlias = "int | Literal['full'] | None"


class NoiseOptions(TypedDict, total=False):
    """What :meth:`NoiseGenerator.noise` takes beside images and labels, which says what each is."""

    seed: int
    ids: Tensor | None
    noise_size: NoiseSize
    visibility: float
    batch_size: int | None
    device: str | torch.device | None
    progress: bool


class NoiseGenerator:
    """A surrogate network, or a closed form, that turns images and labels into defensive noise.

    Args:
        surrogate: network, float (N, 3, H, W) in [0, 1] to logits (N, num_classes); or the closed form of a method
            that has no network (SC, AR, NTGA).
        config: how it was fitted and how it makes noise; ``num_classes`` and ``image_size`` must be set.
        classes: label names in order, where they are known.
        name: what it is called, for messages and published records.
        card: facts for readers (data, licence, measured protection), JSON values; they do not change the noise. What
            the model card makes of them stands in :mod:`semtransforms.generators.card`.

    Attributes:
        folder: where it was loaded from, or None.

    Raises:
        ValueError: the config lacks ``num_classes`` or ``image_size``, a weight is NaN or infinite, or the config wants
            a surrogate fitted on clean data and this one is as initialised. That shows in ``BatchNorm2d`` layers which
            have counted no batch, as every network of the package has them; one without them is taken at its word.
    """

    def __init__(
        self,
        surrogate: nn.Module,
        config: GeneratorConfig,
        *,
        classes: Sequence[str] | None = None,
        name: str | None = None,
        card: Mapping[str, Any] | None = None,
    ) -> None:
        if config.num_classes is None or config.image_size is None:
            raise ValueError("config must have num_classes and image_size set; fit_generator sets them from the data")
        if classes is not None and len(classes) != config.num_classes:
            raise ValueError(f"classes has {len(classes)} names for num_classes={config.num_classes}")
        check_surrogate_weights(surrogate, config)
        self.surrogate = surrogate.eval().to(memory_format=torch.channels_last)
        self.config = config
        self.classes = None if classes is None else tuple(map(str, classes))
        self.name = name
        self.card = check_card(card or {})
        self.folder: Path | None = None
        self.eot = build_eot(config.eot)
        self._fingerprint: str | None = None

    def __repr__(self) -> str:
        c = self.config
        return (
            f"NoiseGenerator({self.name or c.method!r}, surrogate={c.surrogate!r}, num_classes={c.num_classes}, "
            f"rho_u={c.rho_u * 255:g}/255)"
        )

    @property
    def engine(self) -> Engine:
        """What makes its noise, whatever that is."""
        return engine_of(self.config)(self.surrogate, self.config, self.eot)

    @property
    def num_classes(self) -> int:
        """C: labels are 0..C-1."""
        assert self.config.num_classes is not None  # the constructor has checked it
        return self.config.num_classes

    @property
    def smallest(self) -> int:
        """The shorter side of the smallest image it takes, in pixels."""
        return self.engine.smallest

    @property
    def device(self) -> torch.device:
        """Where the surrogate lies; the CPU where it holds nothing."""
        return self.engine.device

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the config and every weight: equal where the noise is equal, in any process."""
        if self._fingerprint is None:
            digest = hashlib.sha256(json.dumps(self.config.to_dict(), sort_keys=True).encode())
            for key, value in sorted(self.surrogate.state_dict().items()):
                digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
                digest.update(value.cpu().contiguous().numpy())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def to(self, device: str | torch.device) -> NoiseGenerator:
        """Move the surrogate; returns itself.

        Raises:
            ValueError: the device does not exist on this machine.
        """
        self.surrogate.to(pick_device(device))
        return self

    @overload
    def noise(self, images: Tensor, labels: Any, **options: Unpack[NoiseOptions]) -> Tensor: ...
    @overload
    def noise(self, images: Sequence[Tensor], labels: Any, **options: Unpack[NoiseOptions]) -> list[Tensor]: ...
    def noise(
        self,
        images: Tensor | Sequence[Tensor],
        labels: Any,
        *,
        seed: int = 0,
        ids: Tensor | None = None,
        noise_size: NoiseSize = None,
        visibility: float = 1.0,
        batch_size: int | None = None,
        device: str | torch.device | None = None,
        progress: bool = False,
    ) -> Tensor | list[Tensor]:
        """Compute the defensive noise of every image once (Eq. 7; SEM's expectation is Eq. 10's).

        The noise of an image depends on its bytes, its label, this generator and the seed, not on the batch, the
        order or the machine (up to floating-point ties).

        Args:
            images: uint8 (N, 3, H, W), or a sequence of uint8 (3, H, W) of mixed sizes.
            labels: N whole numbers in 0..C-1.
            seed: secret and fresh for a real protection.
            ids: int64 (N,), draws keyed by these numbers instead of by the images' bytes.
            noise_size, visibility: at which size noise is made, and how much of it is seen; see :meth:`scale`.
            batch_size: images per loop; the default suits the device. It does not change the result.
            device: where to compute; default: where the surrogate lies.
            progress: show a bar with rate and remaining time.

        Returns:
            int8 noise in grey levels on the CPU, in the form of ``images``: ``|noise| <= floor(255 * rho_u)`` and
            ``images + noise`` in 0..255.

        Raises:
            TypeError: images are not uint8.
            ValueError: labels that do not fit the images or the generator, images of another form or too small.
        """
        pixels = list(images)
        scale = self.scale(noise_size, visibility)
        made = self.make_noise(
            pixels, labels, scale=scale, seed=seed, ids=ids, batch_size=batch_size, device=device, progress=progress
        )
        results = [scale.enlarge(each, image.cpu()) for each, image in zip(made, pixels, strict=True)]
        if isinstance(images, Tensor):
            return torch.stack(results) if results else torch.empty(images.shape, dtype=torch.int8)
        return results

    def scale(self, noise_size: NoiseSize = None, visibility: float = 1.0) -> NoiseScale:
        """At which size noise is made, and how far it reaches where.

        Args:
            noise_size: S, the shorter side in pixels at which the noise of larger images is made, before it is
                enlarged. ``None`` is the size that the generator was fitted at; ``"full"`` makes it at each image's own
                size, for trainers who do not resize.
            visibility: in 0..1. 1 is all of rho_u everywhere, 0 what the eye tolerates in each place: little in flat
                sky and skin, up to rho_u in leaves and gravel; see :mod:`semtransforms.views.visibility`.

        Returns:
            The scale. Noise that is kept for its images (NTGA) is theirs alone and never enlarged.

        Raises:
            ValueError: S is no whole number, or smaller than the surrogate takes; visibility is not in 0..1.
        """
        reach = min(levels(self.config.rho_u), 127)
        if noise_size is None:
            noise_size = self.engine.side
        if noise_size != "full":
            check_integer(
                "noise_size", noise_size, low=self.smallest, advice="'full' makes noise at each image's own size."
            )
        if noise_size == "full" or self.engine.exact:
            noise_size = None
        return NoiseScale(noise_size, reach, visibility)

    def make_noise(
        self,
        images: Sequence[Tensor],
        labels: Any,
        *,
        scale: NoiseScale,
        seed: int = 0,
        ids: Tensor | None = None,
        batch_size: int | None = None,
        device: str | torch.device | None = None,
        progress: bool = False,
    ) -> list[Tensor]:
        """The noise of images at the size at which it is made: what a store keeps, and :meth:`noise` enlarges.

        Args:
            images: N times uint8 (3, H, W), at their own sizes.
            labels, seed, ids, batch_size, device, progress: as for :meth:`noise`.
            scale: of :meth:`scale`.

        Returns:
            N times int8 (3, h, w) on the CPU, ``|noise| <= floor(255 * rho_u)``.

        Raises:
            TypeError, ValueError: as for :meth:`noise`.
        """
        targets = check_pairs(images, labels, self.engine)
        if device is not None:
            self.to(device)
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be >= 1 images, got {batch_size}. Leave it out for one that suits.")
        if ids is not None and (ids.shape != (len(images),) or ids.dtype.is_floating_point or ids.dtype.is_complex):
            raise ValueError(f"ids must be {len(images)} whole numbers, got {ids.dtype} {tuple(ids.shape)}")
        # by the whole image: two photographs that look alike when shrunk get draws of their own
        keys = image_keys(images, targets, seed) if ids is None else index_keys(ids, seed)
        small = [scale.shrink(each) for each in images]
        return noise_by_shape(self.engine, small, targets, keys, batch_size=batch_size, progress=progress)

    def protect(self, images: Tensor, labels: Any, *, seed: int = 0, **options: Any) -> Tensor:
        """Add the defensive noise.

        Args:
            images: uint8 (N, 3, H, W).
            labels: N whole numbers in 0..C-1.
            seed: as for :meth:`noise`; ``options`` too.

        Returns:
            uint8 (N, 3, H, W), no pixel further than ``floor(255 * rho_u)`` from its original.
        """
        return add_noise(images.cpu(), self.noise(images, labels, seed=seed, **options))

    def export_onnx(self, path: str | Path, *, opset: int = OPSET) -> Path:
        """Write a one-pass generator as an ONNX file, which protects without this package, torch or Python.

        Its inputs are ``images``, uint8 (N, 3, H, W) of any size, at which their noise is made; ``labels``, int64 (N,);
        and ``field``, float32, what :meth:`secret_field` draws. Its output ``protected`` is uint8 (N, 3, H, W), no
        byte further than ``floor(255 * rho_u)`` from its original. Keep the file as private as the generator.

        Args:
            path: of the file, in a folder that is there; for its owner alone to read.
            opset: version of ONNX's set of operations.

        Returns:
            The path.

        Raises:
            ValueError: the generator does not paint its noise in one pass; an opset that lacks an operation.
            FileNotFoundError, ModuleNotFoundError: there is no such folder; onnx and onnxscript are not installed.
        """
        return write_onnx(self.engine, path, self.classes, opset=opset)

    def secret_field(self, images: Tensor, labels: Any, *, seed: int, noise_size: NoiseSize = None) -> Tensor:
        """What the secret decides of a one-pass generator's noise: the input ``field`` of :meth:`export_onnx`.

        Args:
            images: uint8 (N, 3, H, W), whole: their bytes are part of the key, as for :meth:`noise`.
            labels, seed, noise_size: as for :meth:`noise`.

        Returns:
            float32 (N, 8, ceil(h / 4), ceil(w / 4)) in [-1, 1), for noise that is made at h x w pixels.
        """
        targets, scale = check_pairs(images, labels, self.engine), self.scale(noise_size)
        return secret_field(images, targets, seed, scale.made_at(*images.shape[2:]))

    def save_pretrained(
        self, save_directory: str | Path, *, repo_id: str | None = None, push_to_hub: bool = False, **options: Any
    ) -> Path:
        """Write ``config.json``, ``model.safetensors`` and the model card ``README.md``.

        Args:
            save_directory: made if missing, for its owner alone to read, as the files are: whoever has the generator
                undoes its noise. Files of the same names are replaced, each whole, and only when all can be written.
            repo_id: where it is pushed; default: the folder's name.
            push_to_hub: publish it too.
            options: those of :meth:`push_to_hub`.

        Returns:
            The folder.

        Raises:
            ValueError: the surrogate has weights of another type than float32, which loading would change.
        """
        folder, files = Path(save_directory).expanduser(), self._files()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with ExitStack() as stack:  # its end gives all of them their names
            for name, content in files.items():
                stack.enter_context(writing(folder / name, mode=0o600)).write_bytes(content)
        if push_to_hub:
            self.push_to_hub(repo_id or folder.name, **options)
        return folder

    def _files(self) -> dict[str, bytes]:
        """What is saved and pushed: name to content."""
        return to_files(self.surrogate, self.config, self.classes, self.card)

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, token: str | None = None, **options: Any
    ) -> str:
        """Publish the generator on the Hugging Face Hub.

        Whoever has it can wash its noise out of images: publish one that others are to fit or to compare with, not the
        one that protects your own.

        Args:
            repo_id: ``org/name``, made if missing.
            private: whether only you and your organisation may read it; ``None`` is the organisation's default.
            token: for the Hub; default: the one of ``hf auth login`` or ``HF_TOKEN``.
            options: those of :func:`semtransforms.core.hub.push`, such as ``branch`` and ``commit_message``.

        Returns:
            The commit's address.

        Raises:
            ValueError: the generator keeps noise of certain images (NTGA) and ``private`` is not set; ``private`` is
                set and the repository is there and public; the Hub does not know the token or the repository.
            OSError: the Hub cannot be reached or refuses.
        """
        if "/" not in repo_id:
            raise ValueError(f"repo_id must be org/name, your own name or your organisation's first, got {repo_id!r}.")
        if self.engine.keeps_noise and not private:
            raise ValueError(
                f"repo_id {repo_id!r}: a generator of {self.config.method!r} is the noise itself, and whoever has it "
                "subtracts it. Keep it, or pass private=True (--private on the command line)."
            )
        return hub.push(repo_id, self._files(), private=private, token=token, **options)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        device: str | torch.device | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> NoiseGenerator:
        """Load a generator from a folder, from the Hub, or by a short name.

        Args:
            name: a folder that :meth:`save_pretrained` wrote, ``org/name`` or ``org/name@revision`` on the Hugging Face
                Hub, or a short name such as ``"sem-digits"`` (``semtransforms list``); the first that there is.
            device: where to put it; default: CUDA if present.
            revision: branch, tag or commit on the Hub, instead of ``@revision``.
            token: for the Hub; default: the one of ``hf auth login`` or ``HF_TOKEN``.
            cache_dir: where downloads are kept; default: huggingface-hub's cache.
            local_files_only: take what is in that cache, make no request.

        Returns:
            The generator, ready for :meth:`noise`.

        Raises:
            ValueError: unknown name, damaged or truncated files, weights of another shape or with NaN.
            FileNotFoundError: the folder or repository holds no generator, or pickled weights only.
            OSError: the Hub cannot be reached and the generator is not in the cache, or the Hub refuses it.
        """
        target = pick_device(device)
        folder = resolve(name, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only)
        surrogate, config, record = from_files(folder)
        generator = cls(surrogate, config, classes=record.get("classes"), name=str(name), card=record.get("card"))
        generator.folder = folder.absolute()
        return generator.to(target)

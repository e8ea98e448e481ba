"""A fitted noise generator: a surrogate network with its config, and Eq. 7."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import torch
from huggingface_hub import ModelCard, ModelHubMixin
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from tqdm import tqdm

from semtransforms.core.config import GeneratorConfig
from semtransforms.core.grid import add_noise, quantize, to_float
from semtransforms.core.hardware import autocast_dtype, keep_freed_memory, pick_device
from semtransforms.core.keys import image_keys, index_keys
from semtransforms.core.models import MODELS, build_model
from semtransforms.data.images import check_labels
from semtransforms.generators import hub as repository
from semtransforms.generators.card import check_card, write_card
from semtransforms.generators.hub import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE
from semtransforms.generators.names import resolve
from semtransforms.noise.ntga import RecordedNoise
from semtransforms.noise.painted import PAINTERS, ClosedForm
from semtransforms.noise.pgd import is_out_of_memory, pgd
from semtransforms.views.eot import build_eot


# Not PyTorchModelHubMixin: that one is for classes that are an nn.Module, loads with strict=False, and opens a pickled
# pytorch_model.bin where there is no safetensors file.
class NoiseGenerator(ModelHubMixin):
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
        for key, value in surrogate.state_dict().items():
            if value.is_floating_point() and not bool(value.isfinite().all()):
                raise ValueError(f"weight {key!r} holds NaN or infinity: the fit diverged or the file is damaged")
        updates = [layer.num_batches_tracked for layer in surrogate.modules() if isinstance(layer, nn.BatchNorm2d)]
        if config.fitted_on == "clean" and any(count == 0 for count in updates):
            raise ValueError(
                f"surrogate has never seen an image: {config.method!r} needs one that was fitted on clean data. Use "
                "fit_generator(dataset, config)."
            )
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
    def num_classes(self) -> int:
        """C: labels are 0..C-1."""
        assert self.config.num_classes is not None  # the constructor has checked it
        return self.config.num_classes

    @property
    def smallest(self) -> int:
        """The shorter side of the smallest image it takes, in pixels."""
        if isinstance(self.surrogate, ClosedForm):
            return self.surrogate.smallest
        return MODELS[self.config.surrogate].smallest

    @property
    def device(self) -> torch.device:
        """Where the surrogate lies; the CPU where it holds nothing."""
        for held in (*self.surrogate.parameters(), *self.surrogate.buffers()):
            return held.device
        return torch.device("cpu")

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
    def noise(
        self,
        images: Tensor,
        labels: Any,
        *,
        seed: int = 0,
        ids: Tensor | None = None,
        batch_size: int | None = None,
        device: str | torch.device | None = None,
        progress: bool = False,
    ) -> Tensor: ...
    @overload
    def noise(
        self,
        images: Sequence[Tensor],
        labels: Any,
        *,
        seed: int = 0,
        ids: Tensor | None = None,
        batch_size: int | None = None,
        device: str | torch.device | None = None,
        progress: bool = False,
    ) -> list[Tensor]: ...
    def noise(
        self,
        images: Tensor | Sequence[Tensor],
        labels: Any,
        *,
        seed: int = 0,
        ids: Tensor | None = None,
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
        smallest = self.smallest
        for index, image in enumerate(pixels):
            if not isinstance(image, Tensor) or image.dtype != torch.uint8:
                kind = image.dtype if isinstance(image, Tensor) else type(image).__name__
                raise TypeError(
                    f"images must be uint8 in 0..255, got {kind} at index {index}. Add the noise before the "
                    "conversion to float; the bound holds for the bytes a user stores."
                )
            if image.ndim != 3 or image.shape[0] != 3:
                raise ValueError(f"images must be (3, H, W), got {tuple(image.shape)} at index {index}")
            if min(image.shape[1:]) < smallest:
                raise ValueError(
                    f"images must be at least {smallest} x {smallest} for {self.config.surrogate!r}, got "
                    f"{image.shape[1]} x {image.shape[2]} at index {index}. Leave it out or enlarge it."
                )
        targets = check_labels(labels, self.num_classes)
        if len(targets) != len(pixels):
            raise ValueError(f"labels must have one entry per image: {len(targets)} labels for {len(pixels)} images")
        if device is not None:
            self.to(device)
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be >= 1 images, got {batch_size}. Leave it out for one that suits.")
        if ids is not None and (ids.shape != (len(pixels),) or ids.dtype.is_floating_point or ids.dtype.is_complex):
            raise ValueError(f"ids must be {len(pixels)} whole numbers, got {ids.dtype} {tuple(ids.shape)}")
        keep_freed_memory()
        keys = image_keys(pixels, targets, seed) if ids is None else index_keys(ids, seed)
        results: list[Tensor] = [torch.empty(0)] * len(pixels)
        shapes: defaultdict[torch.Size, list[int]] = defaultdict(list)
        for index, image in enumerate(pixels):
            shapes[image.shape].append(index)
        with tqdm(total=len(pixels), unit="img", desc="noise", disable=not progress) as bar:
            for shape, rows in shapes.items():
                count = batch_size or self._batch_size(shape)
                for start in range(0, len(rows), count):
                    batch = rows[start : start + count]
                    levels = self._batch_noise(torch.stack([pixels[i] for i in batch]), targets[batch], keys[batch])
                    for index, level in zip(batch, levels, strict=True):
                        results[index] = level
                    bar.update(len(batch))
        if isinstance(images, Tensor):
            return torch.stack(results) if results else torch.empty(images.shape, dtype=torch.int8)
        return results

    def _batch_size(self, shape: torch.Size) -> int:
        most = 2048 if self.device.type == "cuda" else 128
        return max(1, min(most, 2**26 // shape.numel()))  # 256 MiB of float32 for each copy of a batch

    def _batch_noise(self, images: Tensor, labels: Tensor, keys: Tensor) -> Tensor:
        device = self.device
        if isinstance(self.surrogate, ClosedForm):
            return quantize(self.surrogate.noise(images, labels, keys), self.config.rho_u)
        try:
            delta = pgd(
                self.surrogate,
                to_float(images.to(device)),
                self.config.target_labels(labels.to(device)),
                self.config.defense,
                keys=keys.to(device),
                maximise=self.config.climbs,
                eot=self.eot,
                dtype=autocast_dtype(self.config.precision, device),
            )
            return quantize(delta, self.config.rho_u).cpu()
        except RuntimeError as error:
            if not is_out_of_memory(error) or len(images) == 1:
                raise
        halves = zip(*(tensor.tensor_split(2) for tensor in (images, labels, keys)), strict=True)
        return torch.cat([self._batch_noise(*half) for half in halves])

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

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | Path, *, repo_id: str | None = None, push_to_hub: bool = False, **options: Any
    ) -> Path:
        """Write ``config.json``, ``model.safetensors`` and the model card ``README.md``.

        Args:
            save_directory: made if missing; files of the same names are replaced, each of them whole, and only when all
                can be written.
            repo_id, push_to_hub, options: as for huggingface-hub's ``ModelHubMixin.save_pretrained``; what is pushed is
                what :meth:`push_to_hub` pushes.

        Returns:
            The folder.

        Raises:
            ValueError: the surrogate has weights of another type than float32, which loading would change.
        """
        folder, contents = Path(save_directory).expanduser(), self._contents()
        folder.mkdir(parents=True, exist_ok=True)
        partial = {name: folder / f".{name}.{os.getpid()}.{threading.get_ident()}" for name in contents}
        try:
            for name, content in contents.items():
                partial[name].write_bytes(content)  # not safetensors' save_file, which makes it private (0600)
            for name, path in partial.items():
                path.replace(folder / name)
        finally:
            for path in partial.values():
                path.unlink(missing_ok=True)
        if push_to_hub:
            options = {key: value for key, value in options.items() if key not in ("config", "model_card_kwargs")}
            self.push_to_hub(repo_id or folder.name, **options)
        return folder

    def _contents(self) -> dict[str, bytes]:
        """The files of the generator: name to content."""
        from semtransforms import __version__

        for key, value in self.surrogate.state_dict().items():
            if value.is_floating_point() and value.dtype != torch.float32:
                raise ValueError(
                    f"weight {key!r} is {value.dtype}: a loaded generator computes in float32 and would make other "
                    "noise. Call surrogate.float() first."
                )
        stored = {key: _as_stored(value) for key, value in self.surrogate.state_dict().items()}
        weights = save(stored, metadata={"format": "pt"})
        config = self.config.to_dict()
        record = {
            "semtransforms": __version__,
            "config": config,
            "sha256": _checksum(config, [weights]),
            "classes": None if self.classes is None else list(self.classes),
            "card": self.card,
        }
        return {
            CARD_FILE: str(self.generate_model_card()).encode(),
            WEIGHTS_FILE: weights,
            CONFIG_FILE: (json.dumps(record, indent=1) + "\n").encode(),
        }

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """What ``README.md`` says: the text that ``card.write_card`` makes of this generator's config and card."""
        return ModelCard(write_card(self.config, self.classes, self.card))

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
            options: those of huggingface-hub's ``ModelHubMixin.push_to_hub``, such as ``branch``.

        Returns:
            The commit's address.

        Raises:
            ValueError: the generator keeps noise of certain images (NTGA) and ``private`` is not set; ``private`` is
                set and the repository is there and public; the Hub does not know the token or the repository.
            OSError: the Hub cannot be reached or refuses.
        """
        if "/" not in repo_id:
            raise ValueError(f"repo_id must be org/name, your own name or your organisation's first, got {repo_id!r}.")
        if isinstance(self.surrogate, RecordedNoise) and not private:
            raise ValueError(
                f"repo_id {repo_id!r}: a generator of {self.config.method!r} is the noise itself, and whoever has it "
                "subtracts it. Keep it, or pass private=True (--private on the command line)."
            )
        self._contents()  # what cannot be written is found before anything is made there
        with repository.explaining(repo_id, pushing=True):
            if private:
                repository.check_private(repo_id, token)
            return super().push_to_hub(repo_id, private=private, token=token, **options)

    @classmethod
    def from_pretrained(  # type: ignore[override]
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
        try:
            record = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            config = GeneratorConfig.from_dict(record["config"])
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{folder / CONFIG_FILE} is damaged ({error}). Fetch the generator again.") from error
        if config.num_classes is None or config.image_size is None:
            raise ValueError(f"{folder / CONFIG_FILE} lacks num_classes or image_size. Fetch the generator again.")
        try:
            stored = load_file(folder / WEIGHTS_FILE)
        except SafetensorError as error:
            raise ValueError(
                f"{folder / WEIGHTS_FILE} is truncated or no safetensors file ({error}). {_remedy(folder)}"
            ) from error
        weights = {key: value.float() if value.dtype == torch.float16 else value for key, value in stored.items()}
        surrogate = build_surrogate(config, images=len(weights.get("digests", ())))
        check_weights(surrogate, weights, folder / WEIGHTS_FILE)
        # files of version 0.1.0 have no checksum
        if "sha256" in record and record["sha256"] != _checksum(record["config"], _pieces(folder / WEIGHTS_FILE)):
            raise ValueError(
                f"{CONFIG_FILE} or {WEIGHTS_FILE} in {folder} is not what was saved: their SHA-256 is another. "
                f"{_remedy(folder)}"
            )
        surrogate.load_state_dict(weights, strict=True)
        generator = cls(surrogate, config, classes=record.get("classes"), name=str(name), card=record.get("card"))
        generator.folder = folder.absolute()
        return generator.to(target)


def _checksum(config: Mapping[str, Any], weights: Iterable[bytes]) -> str:
    """SHA-256 over what decides the noise, as the files hold it: whatever disk, mirror or proxy they come from."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for piece in weights:
        digest.update(piece)
    return digest.hexdigest()


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            yield piece


def _remedy(folder: Path) -> str:
    """What to do about files that do not fit each other."""
    file = (folder / WEIGHTS_FILE).resolve()
    if file.parent.name == "blobs":  # the Hub's cache: with the link alone removed it would be linked again
        return f"Delete {file} and fetch the generator again."
    return (
        "Put back the files that were saved. To change a config, build a NoiseGenerator with the changed one and save "
        "it in a folder of its own."
    )


def _as_stored(value: Tensor) -> Tensor:
    """A tensor as its file holds it: float32 as fp16 where that loses nothing, everything else as it is."""
    value = value.cpu().contiguous()
    if value.dtype != torch.float32:
        return value
    half = value.half()
    return half if torch.equal(half.float(), value) else value


@torch.no_grad()
def round_to_half(network: nn.Module) -> None:
    """Round a network's weights to values that fp16 holds, so that a file of half the size loses nothing.

    A tensor with a value beyond fp16's 65504, such as a BatchNorm's running variance may have, stays as it is.

    Args:
        network: changed in place.
    """
    for value in network.state_dict().values():
        if value.is_floating_point():
            half = value.half()
            if bool(half.isfinite().all()):
                value.copy_(half)


def build_surrogate(config: GeneratorConfig, *, images: int = 0) -> nn.Module:
    """The surrogate network of a config, initialised from its seed; or the closed form it names.

    Args:
        config: with ``num_classes`` and ``image_size`` set.
        images: how many a closed form keeps noise of, where it does.
    """
    assert config.num_classes is not None
    assert config.image_size is not None
    if config.kind == "painted":
        return PAINTERS[config.surrogate](config)
    if config.kind == "kernel":
        return RecordedNoise(images, config.image_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build_model(
            config.surrogate,
            num_classes=config.num_classes,
            image_size=min(config.image_size),
            width=config.width,
        )


def check_weights(network: nn.Module, weights: Mapping[str, Tensor], source: Path) -> None:
    """Compare a file's tensors with a network's, name by name, shape by shape, type by type.

    Raises:
        ValueError: missing, unexpected or different tensors, NaN or infinity.
    """
    wanted, found = (
        {key: f"{value.dtype} {tuple(value.shape)}".removeprefix("torch.") for key, value in tensors.items()}
        for tensors in (network.state_dict(), weights)
    )
    for key in sorted(wanted.keys() | found.keys()):
        if wanted.get(key) != found.get(key):
            raise ValueError(
                f"{source} does not fit the network of its config: {key!r} should be {wanted.get(key, 'absent')}, "
                f"is {found.get(key, 'absent')}. Fetch or fit the generator again."
            )
        if weights[key].is_floating_point() and not bool(weights[key].isfinite().all()):
            raise ValueError(f"{source} holds NaN or infinity in {key!r}. Fetch or fit the generator again.")

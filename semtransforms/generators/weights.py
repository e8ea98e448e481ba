"""A generator's files: what they hold, and whether they are what was saved."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from semtransforms.core.checks import in_short
from semtransforms.core.config import GeneratorConfig
from semtransforms.core.files import to_json
from semtransforms.core.hub import CARD_FILE, CONFIG_FILE, MOST_BYTES, WEIGHTS_FILE
from semtransforms.generators.card import write_card
from semtransforms.noise.engine import build_surrogate


def to_files(
    surrogate: nn.Module, config: GeneratorConfig, classes: Sequence[str] | None, card: Mapping[str, Any]
) -> dict[str, bytes]:
    """The files of a generator.

    Args:
        surrogate: what holds its weights.
        config: with ``num_classes`` and ``image_size`` set.
        classes: label names in order, where known.
        card: facts for readers.

    Returns:
        Name to content.

    Raises:
        ValueError: there are weights of another type than float32, which loading would change.
    """
    from semtransforms import __version__

    tensors = surrogate.state_dict()
    for key, value in tensors.items():
        if value.is_floating_point() and value.dtype != torch.float32:
            raise ValueError(
                f"weight {key!r} is {value.dtype}: a loaded generator computes in float32 and would make other "
                "noise. Call surrogate.float() first."
            )
    weights = save({key: _as_stored(value) for key, value in tensors.items()}, metadata={"format": "pt"})
    record = {
        "semtransforms": __version__,
        "config": config.to_dict(),
        "sha256": _checksum(config.to_dict(), [weights]),
        "classes": None if classes is None else list(classes),
        "card": card,
    }
    return {
        CARD_FILE: write_card(config, classes, card).encode(),
        WEIGHTS_FILE: weights,
        CONFIG_FILE: to_json(record),
    }


def from_files(folder: Path) -> tuple[nn.Module, GeneratorConfig, dict[str, Any]]:
    """Read what :func:`to_files` made, and see that it is still the same.

    Args:
        folder: with ``config.json`` and ``model.safetensors``.

    Returns:
        The surrogate with its weights, on the CPU; the config; everything in ``config.json``.

    Raises:
        ValueError: the files are damaged or truncated, or do not fit each other.
    """
    record, config = _read_config(folder / CONFIG_FILE)
    if config.num_classes is None or config.image_size is None:
        raise ValueError(f"{folder / CONFIG_FILE} lacks num_classes or image_size. Fetch the generator again.")
    try:
        stored = load_file(folder / WEIGHTS_FILE)
    except SafetensorError as error:
        raise ValueError(
            f"{folder / WEIGHTS_FILE} is truncated or no safetensors file ({error}). {_remedy(folder)}"
        ) from error
    weights = {key: value.float() if value.dtype == torch.float16 else value for key, value in stored.items()}
    _check_outline(config, weights, folder / WEIGHTS_FILE)
    surrogate = build_surrogate(config, weights)
    check_weights(surrogate, weights, folder / WEIGHTS_FILE)
    # files of version 0.1.0 have no checksum
    if "sha256" in record and record["sha256"] != _checksum(record["config"], _pieces(folder / WEIGHTS_FILE)):
        raise ValueError(
            f"{CONFIG_FILE} or {WEIGHTS_FILE} in {folder} is not what was saved: their SHA-256 is another. "
            f"{_remedy(folder)}"
        )
    surrogate.load_state_dict(weights, strict=True)
    return surrogate, config, record


def _read_config(path: Path) -> tuple[dict[str, Any], GeneratorConfig]:
    """Everything in ``config.json``, and the config in it."""
    if path.stat().st_size > MOST_BYTES[CONFIG_FILE]:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes: it is no generator's. Fetch the generator again.")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        config = GeneratorConfig.from_dict(record["config"])
        names, card = record.get("classes"), record.get("card")
        if not isinstance(names, list | None) or not isinstance(card, dict | None):
            raise TypeError(f"classes or card is a {type(card if isinstance(names, list | None) else names).__name__}")
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({in_short(str(error))}). Fetch the generator again.") from error
    return record, config


def _check_outline(config: GeneratorConfig, weights: Mapping[str, Tensor], source: Path) -> None:
    """See that a config is of these weights before any memory is taken for what it names.

    Raises:
        ValueError: it is not.
    """
    if config.pretrained and not weights:  # they would be fetched, or read from a file that the config names
        raise ValueError(f"{source} holds no tensors, and its config names some. Fetch the generator again.")
    # timm and torchvision cannot draw all of their networks in outline: those count when they are built
    inner, own = replace(config, pretrained=()), {k: v for k, v in weights.items() if not k.startswith("guides.")}
    try:
        with torch.device("meta"), _Undrawn():
            outline = build_surrogate(inner, own)
    except RuntimeError as error:  # more than 2**63 bytes
        raise ValueError(f"{source}: its config names a network that no memory holds ({error}).") from error
    check_weights(outline, own, source)


class _Undrawn(TorchFunctionMode):
    """An outline has no numbers to draw; torch would bring its compiler for it, 150 MB. So would arithmetic."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func is Tensor.normal_ else func(*args, **(kwargs or {}))


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


def _as_stored(value: Tensor) -> Tensor:
    """A tensor as its file holds it: float32 as fp16 where that loses nothing, everything else as it is."""
    value = value.cpu().contiguous()
    if value.dtype != torch.float32:
        return value
    half = value.half()
    return half if torch.equal(half.float(), value) else value


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

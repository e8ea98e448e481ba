"""Pretrained weights: the file they are in, read without running what it says, and whether they are of a network."""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from semtransforms.core.names import unknown
from semtransforms.core.pretrained.libraries import DEFAULT, Pixels, find

FURTHER_HEADS = ("aux1", "aux2", "AuxLogits")  # of GoogLeNet and Inception, which their files may hold

_LABELLED = re.compile("#[0-9a-f]{8}$")  # as the labels of Weights end

WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"  # of a folder as timm keeps a network on the Hub


@dataclass(frozen=True)
class Weights:
    """Where a network's weights are.

    Args:
        file: of this machine; no record names it.
        label: what a record names: file, or name on the Hub, with the first digits of the file's SHA-256.
        pixels: how a network with these weights sees images.
    """

    file: Path
    label: str
    pixels: Pixels


def find_weights(network: str, pretrained: str | os.PathLike[str]) -> Weights:
    """The weights that a caller means.

    Args:
        network: of timm or torchvision, by name.
        pretrained: a file (safetensors, or a torch file of tensors alone); a folder with ``model.safetensors`` and
            ``config.json`` as timm keeps them on the Hub, whose mean and std count; the name of published weights,
            such as ``"in1k"`` or ``"IMAGENET1K_V2"``; or ``"default"``. What is published comes from the user's cache,
            or else from the Hub (torchvision: from PyTorch's server) into it.

    Raises:
        ValueError: nothing of that name, with the nearest.
        OSError: they are not in the cache, and cannot be fetched.
    """
    library, name = find(network)
    given = os.fspath(pretrained)
    names = library.weights(name)
    published = (DEFAULT, *names) if names else ()
    place = library.fetch(name, given) if given in published else Path(given).expanduser()
    pixels = library.pixels(name, given if given in published else DEFAULT)
    if place.is_dir():
        pixels = _pixels_of(place / CONFIG_FILE, pixels)
        place = place / WEIGHTS_FILE
    if not place.is_file() and _LABELLED.search(given):
        raise ValueError(
            f"pretrained: {given!r} names weights as a record does, by their file and the first digits of its SHA-256. "
            "The file itself is in no record: give it again, as a path, or the name of published weights."
        )
    if not place.is_file():
        known = f"{unknown('weights', given, published).rstrip('.?')}." if published else f"{name} has none published."
        raise ValueError(
            f"pretrained: {known} There is no such file either: give a file, or a folder with {WEIGHTS_FILE}."
        )
    label = given if given in published else place.name
    return Weights(place, f"{label}#{_digest(place, place.stat().st_mtime_ns)[:8]}", pixels)


def load_weights(network: nn.Module, heads: tuple[str, ...], weights: Weights, name: str) -> None:
    """Put weights into a network, all but those of its head, which a trainer replaces.

    Args:
        network: changed in place.
        heads: names of its last layer or layers.
        weights: theirs.
        name: of the network, for messages.

    Raises:
        ValueError: the file is a pickle or damaged, or its weights are of another architecture.
    """
    left_out = (*heads, *FURTHER_HEADS)
    wanted, found = (_without_heads(each, left_out) for each in (network.state_dict(), read_weights(weights.file)))
    fitting = {key: value for key, value in found.items() if key in wanted and value.shape == wanted[key].shape}
    if len(fitting) < max(len(wanted), len(found)):
        first = next(key for key in (*wanted, *found) if key not in fitting)
        raise ValueError(
            f"pretrained {weights.file.name!r} holds weights of another architecture than {name!r}: {len(fitting)} of "
            f"its {len(found)} tensors fit the network, which has {len(wanted)}; {first!r} does not. Name the "
            "network that they are of, or give weights of this one."
        )
    for key, value in wanted.items():  # not by load_state_dict: MNASNet's asks for a version that safetensors lacks
        value.copy_(fitting[key])


def read_weights(file: Path) -> Mapping[str, Tensor]:
    """The tensors of a file by name; nothing that it says is run.

    Args:
        file: safetensors by the ending of its name, else a torch file of tensors, or with them as ``state_dict`` or
            ``model``.

    Raises:
        ValueError: it is a pickle of more than tensors, damaged, or holds no tensors by name.
    """
    found: Any
    if file.suffix == ".safetensors":
        try:
            found = load_file(file)
        except SafetensorError as error:
            raise ValueError(f"pretrained {file.name!r} is damaged or no safetensors file ({error}).") from error
    else:
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Detected pickle protocol")  # said before the error below
                found = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # a pickle's own error among them
            raise ValueError(
                f"pretrained {file.name!r} is a pickle that holds more than tensors, or is damaged. Reading it could "
                "run code, so it is not read. Where you trust it, write its tensors as safetensors: "
                "safetensors.torch.save_file(network.state_dict(), 'weights.safetensors')."
            ) from error
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not found or not all(isinstance(each, Tensor) for each in found.values()):
        raise ValueError(f"pretrained {file.name!r} holds no tensors by name. Give a network's state_dict.")
    tensors: Mapping[str, Tensor] = found
    return tensors


def _without_heads(tensors: Mapping[str, Tensor], heads: tuple[str, ...]) -> dict[str, Tensor]:
    """Nor the counters of BatchNorm, which old files lack and nothing uses."""
    left_out = tuple(f"{head}." for head in heads)
    return {
        key: value
        for key, value in tensors.items()
        if not key.startswith(left_out) and not key.endswith("num_batches_tracked")
    }


def _pixels_of(file: Path, usual: Pixels) -> Pixels:
    """What a folder's config says of pixels, and the usual where it says nothing."""
    try:
        config: Any = json.loads(file.read_text(encoding="utf-8"))
        config = config.get("pretrained_cfg", config)
        side = config.get("input_size", [3, usual.side, usual.side])[-1]
        mean, std = (tuple(map(float, config.get(part, getattr(usual, part)))) for part in ("mean", "std"))
        found = Pixels(int(side), bool(config.get("fixed_input_size", usual.fixed)), mean, std)
        if not len(mean) == len(std) == 3 or min(std) <= 0 or found.side < 1:
            raise ValueError(f"input_size {side}, mean {mean}, std {std}")
    except (OSError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(
            f"pretrained: {file.name} beside {WEIGHTS_FILE} is missing, or is no config of timm's ({error}). Give the "
            "file of the weights itself: then the network's usual mean and std count."
        ) from error
    return found


@lru_cache
def _digest(file: Path, changed: int) -> str:
    """SHA-256 of a file as it was at a time, hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

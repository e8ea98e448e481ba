"""A training that can be killed: weights, momentum and step in one safetensors file, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from semtransforms.core.files import explained, writing


@dataclass(frozen=True)
class Checkpoint:
    """What an interrupted training left.

    Args:
        step: updates behind it.
        metadata: what was written beside the tensors.
        tensors: ``weight.*``, ``momentum.*`` and ``extra.*``, on the CPU.
    """

    step: int
    metadata: Mapping[str, str]
    tensors: Mapping[str, Tensor]

    @property
    def extra(self) -> dict[str, Tensor]:
        """What else the training kept, by name."""
        return self._under("extra.")

    def restore(self, network: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Put the weights and the momentum back where they were.

        Raises:
            RuntimeError: they are another network's.
        """
        network.load_state_dict(self._under("weight."), strict=True)
        for key, weight in network.named_parameters():
            if optimizer is not None and f"momentum.{key}" in self.tensors:
                buffer = self.tensors[f"momentum.{key}"].to(weight.device)
                # in the weight's own layout, so that the same kernels run as in an unbroken training
                optimizer.state[weight]["momentum_buffer"] = torch.empty_like(weight).copy_(buffer)

    def _under(self, prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}


def check_same_fit(
    path: Path, found: Mapping[str, str], wanted: Mapping[str, str], *, may_change: Sequence[str] = ()
) -> None:
    """Whether a checkpoint was left by the fit that is to go on from it.

    Args:
        path: its name, for the message.
        found, wanted: the checkpoint's metadata and this fit's: ``config`` as JSON, ``data`` as a hash.
        may_change: fields of the config that need not agree.

    Raises:
        ValueError: another field differs, or the images do.
    """
    before, now = (json.loads(metadata.get("config", "{}")) for metadata in (found, wanted))
    # from both: a field that is left out where it says nothing may be in one alone
    fields = dict.fromkeys([*now, *before])
    differing = [key for key in fields if key not in may_change and now.get(key) != before.get(key)]
    if differing or found.get("data") != wanted["data"]:
        what = "; ".join(f"{key} was {before.get(key)!r}, is {now.get(key)!r}" for key in differing) or "other images"
        raise ValueError(
            f"checkpoint {path} belongs to another fit ({what}). Give again what that fit was given (weights by the "
            "path of their file), or use another checkpoint_dir."
        )


def save_checkpoint(
    path: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    step: int,
    metadata: Mapping[str, str],
    extra: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a checkpoint in place of the one before.

    Args:
        path: its name.
        network, optimizer: whose weights and momentum are kept (SGD's; ``None`` where there is none).
        step: updates behind it.
        metadata: what must agree, or is wanted, when it is read.
        extra: tensors that go with it.

    Raises:
        OSError: it cannot be written.
    """
    tensors = {f"weight.{key}": value for key, value in network.state_dict().items()}
    state = {} if optimizer is None else optimizer.state
    for key, weight in network.named_parameters():
        buffer = state[weight].get("momentum_buffer") if weight in state else None
        if buffer is not None:
            tensors[f"momentum.{key}"] = buffer
    tensors |= {f"extra.{key}": value for key, value in (extra or {}).items()}
    tensors = {key: value.cpu().contiguous() for key, value in tensors.items()}
    # who has a generator, or one that is not finished, undoes its noise
    with explained("checkpoint", path), writing(path, mode=0o600) as unfinished:
        try:
            save_file(tensors, unfinished, metadata={**metadata, "step": str(step)})
        except SafetensorError as error:  # its word for a full disk, too
            raise OSError(str(error)) from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
            return Checkpoint(int(metadata["step"]), metadata, tensors)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"checkpoint {path} is damaged ({error}). Delete it to start anew.") from error

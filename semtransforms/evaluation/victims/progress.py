"""What a victim's training knows besides weights and momentum: all of it survives a kill."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from semtransforms.core.checkpoint import load_checkpoint, save_checkpoint


@dataclass
class Progress:
    """How far a training is, and what was measured on the way.

    Args:
        losses, correct: float (train_steps,), loss and share of images named rightly, of the batch of each update done.
        done: updates.
        curve: (step, mean loss since the last point, test accuracy) at each evaluation.
        validated: (step, validation accuracy) at each evaluation, with early stopping.
        best: the weights of the best validation accuracy, by name.
        started: the time at which an unbroken training would have started, of ``time.perf_counter``.
    """

    losses: Tensor
    correct: Tensor
    done: int = 0
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    validated: list[tuple[int, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    @classmethod
    def none(cls, train_steps: int, device: torch.device) -> Progress:
        """Nothing done yet."""
        return cls(torch.zeros(train_steps, device=device), torch.zeros(train_steps, device=device))

    @property
    def seconds(self) -> float:
        """Wall time of the training so far; that between a kill and the next start does not count."""
        return time.perf_counter() - self.started

    @property
    def best_step(self) -> int:
        """The updates behind the first of the best validation accuracies."""
        return max(self.validated, key=lambda point: (point[1], -point[0]))[0]

    @property
    def diverged(self) -> bool:
        """Whether a loss is NaN or infinite."""
        return not bool(self.losses[: self.done].isfinite().all())

    def out_of_patience(self, patience: int | None) -> bool:
        """Whether early stopping gives up."""
        return bool(self.validated) and patience is not None and self.validated[-1][0] - self.best_step >= patience

    def record_update(self, loss: Tensor, correct: Tensor) -> None:
        """Note one more update; nothing waits for the device."""
        self.losses[self.done], self.correct[self.done] = loss, correct
        self.done += 1

    def record_accuracy(self, network: nn.Module, tested: float, validated: float | None) -> None:
        """Note an evaluation, and keep the weights where they are the best so far."""
        last = self.curve[-1][0] if self.curve else 0
        self.curve.append((self.done, self.losses[last : self.done].mean().item(), tested))
        if validated is not None:
            self.validated.append((self.done, validated))
            if self.best_step == self.done:
                self.best = {key: value.cpu().clone() for key, value in network.state_dict().items()}

    def save(
        self, path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, description: Mapping[str, str]
    ) -> None:
        """Write all of it, with the network's weights and momentum, in place of the checkpoint before."""
        small = {name: json.dumps(getattr(self, name)) for name in ("curve", "validated", "seconds")}
        tensors = {"losses": self.losses, "correct": self.correct}
        tensors |= {f"best.{key}": value for key, value in self.best.items()}
        save_checkpoint(path, network, optimizer, self.done, {**description, **small}, tensors)

    def resume(
        self, path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, description: Mapping[str, str]
    ) -> None:
        """Continue from a checkpoint.

        Raises:
            ValueError: it belongs to another training, or is damaged.
        """
        checkpoint = load_checkpoint(path)
        differing = [name for name, value in description.items() if checkpoint.metadata.get(name) != value]
        if differing:
            raise ValueError(
                f"checkpoint {str(path)!r} belongs to another training (other {', '.join(differing)}). Use another "
                "file."
            )
        checkpoint.restore(network, optimizer)
        extra = checkpoint.extra
        self.losses.copy_(extra["losses"])
        self.correct.copy_(extra["correct"])
        self.done = checkpoint.step
        self.best = {key.removeprefix("best."): value for key, value in extra.items() if key.startswith("best.")}
        self.curve = [tuple(point) for point in json.loads(checkpoint.metadata["curve"])]
        self.validated = [tuple(point) for point in json.loads(checkpoint.metadata["validated"])]
        self.started = time.perf_counter() - json.loads(checkpoint.metadata["seconds"])

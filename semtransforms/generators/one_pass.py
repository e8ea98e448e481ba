"""Fit what paints noise in one pass, against the surrogate of a generator."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from semtransforms.core.checkpoint import check_same_fit, load_checkpoint, save_checkpoint
from semtransforms.core.checks import check_integer
from semtransforms.core.config import GeneratorConfig
from semtransforms.core.hardware import pick_device
from semtransforms.core.sharing import ALONE
from semtransforms.data.loading import Labelled, load_labelled
from semtransforms.generators.generator import NoiseGenerator
from semtransforms.generators.running import Run, checkpoint_file
from semtransforms.generators.weights import round_to_half
from semtransforms.noise.engine import NetworkEngine, build_surrogate, engine_of
from semtransforms.noise.methods import SEM_ONE_PASS
from semtransforms.noise.one_pass import learn_to_paint, painters_optimizer
from semtransforms.views.eot import build_eot
from semtransforms.views.resize import centre_square

CHECKPOINT = "painter.safetensors"


def fit_one_pass(
    dataset: Any,
    generator: NoiseGenerator,
    *,
    updates: int = SEM_ONE_PASS.one_pass,
    checkpoint_dir: str | Path | None = None,
    checkpoint_every: int = 200,
    resume: bool = False,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> NoiseGenerator:
    """Make a generator that paints its noise in one pass out of one that takes gradient steps.

    Args:
        dataset: clean data of the generator's classes, as for :func:`~semtransforms.fit_generator`; those that it was
            fitted on will do.
        generator: one with a network that was fitted on protected images, such as of ``SEM_PLUS``.
        updates: of the new network.
        checkpoint_dir: keep the unfinished network here, in ``painter.safetensors``; keep it private.
        checkpoint_every: updates between checkpoints.
        resume: go on from the checkpoint that is there, if there is one.
        device: where to fit; default: CUDA if present.
        progress: show a bar.

    Returns:
        The new generator, of method ``sem-one-pass``, on ``device``; the other one stays as it is.

    Raises:
        ValueError: the generator has no such network; empty data, or labels that it does not know; a checkpoint of
            another fit.
        FileExistsError: there is a checkpoint, and ``resume`` is not set.
    """
    if engine_of(generator.config) is not NetworkEngine:
        raise ValueError(
            f"generator of {generator.config.method!r} takes no gradient steps that could be learned. Use one of "
            "'sem-plus' or 'sem'."
        )
    check_integer("checkpoint_every", checkpoint_every, low=1)
    run = Run(
        pick_device(device), checkpoint_file(checkpoint_dir, resume, name=CHECKPOINT), checkpoint_every, progress, ALONE
    )
    config = replace(generator.config, method=SEM_ONE_PASS.method, one_pass=updates)
    assert config.image_size is not None
    to_one_size = partial(centre_square, side=min(config.image_size))
    data = load_labelled(dataset, config.num_classes, config.image_size, exact=False, to_one_size=to_one_size)
    teacher = generator.fingerprint
    surrogate = generator.to(run.device).surrogate
    return NoiseGenerator(fit_painter(surrogate, data, config, run, teacher), config, classes=data.classes)


def fit_painter(surrogate: nn.Module, data: Labelled, config: GeneratorConfig, run: Run, teacher: str) -> nn.Module:
    """A new painter, fitted against a surrogate.

    Args:
        surrogate: fitted; it stays as it is.
        data: clean images of one size, and their labels.
        config: with ``one_pass`` set.
        run: where, and in which folder the unfinished painter is kept.
        teacher: says which surrogate it is; the config alone does where both are fitted together.

    Returns:
        The painter, where the surrogate lies.
    """
    device = next(surrogate.parameters()).device
    painter: nn.Module = build_surrogate(config)
    painter = painter.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer, labels = painters_optimizer(painter), data.labels.to(device)
    description = {"config": json.dumps(config.to_dict(), sort_keys=True), "data": f"{data.sha256()} {teacher}"}
    checkpoint = None if run.checkpoint is None else run.checkpoint.with_name(CHECKPOINT)

    def save(done: int) -> None:
        if checkpoint is not None and (done % run.checkpoint_every == 0 or done == config.one_pass):
            save_checkpoint(checkpoint, painter, None, done, description, _moments(painter, optimizer))

    with run.folder():
        learn_to_paint(
            painter, surrogate, data.images, labels, config, build_eot(config.eot), optimizer=optimizer,
            first=_resume(checkpoint, painter, optimizer, description), save=save, progress=run.progress,
        )  # fmt: skip
    round_to_half(painter)  # what is fitted is what is saved, published and loaded
    return painter


def _moments(painter: nn.Module, optimizer: torch.optim.Adam) -> Mapping[str, Tensor]:
    """What Adam has kept of each weight's gradients, and of how many."""
    return {
        f"{key}|{name}": torch.as_tensor(value)
        for key, weight in painter.named_parameters()
        for name, value in optimizer.state[weight].items()
    }


def _resume(path: Path | None, painter: nn.Module, optimizer: torch.optim.Adam, description: Mapping[str, str]) -> int:
    """Continue from a checkpoint if there is one, and it belongs to this fit: the updates behind it."""
    if path is None or not path.exists():
        return 0
    checkpoint = load_checkpoint(path)
    check_same_fit(path, checkpoint.metadata, description, may_change=["train_steps", "one_pass"])
    if checkpoint.metadata["config"] != description["config"]:
        warnings.warn(
            f"checkpoint {path} is of a fit of another length, whose schedule was another: the painter begins anew.",
            stacklevel=2,
        )
        return 0
    checkpoint.restore(painter)
    weights = dict(painter.named_parameters())
    for key, value in checkpoint.extra.items():
        weight, _, name = key.partition("|")
        like = weights[weight]  # in the weight's own layout; the count of steps is a number on the CPU
        kept = value if value.ndim == 0 else torch.empty_like(like).copy_(value)
        optimizer.state[like][name] = kept
    return checkpoint.step

"""Fit what paints noise in one pass, against the surrogate of a generator."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from semtransforms.core.config import GeneratorConfig
from semtransforms.core.hardware import pick_device
from semtransforms.data.loading import Labelled, load_labelled
from semtransforms.generators.generator import NoiseGenerator
from semtransforms.generators.weights import round_to_half
from semtransforms.noise.engine import NetworkEngine, build_surrogate, engine_of
from semtransforms.noise.methods import SEM_ONE_PASS
from semtransforms.noise.one_pass import learn_to_paint
from semtransforms.views.eot import build_eot
from semtransforms.views.resize import centre_square


def fit_one_pass(
    dataset: Any,
    generator: NoiseGenerator,
    *,
    updates: int = SEM_ONE_PASS.one_pass,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> NoiseGenerator:
    """Make a generator that paints its noise in one pass out of one that takes gradient steps.

    Args:
        dataset: clean data of the generator's classes, as for :func:`~semtransforms.fit_generator`; those that it was
            fitted on will do.
        generator: one with a network that was fitted on protected images, such as of ``SEM_PLUS``.
        updates: of the new network.
        device: where to fit; default: CUDA if present.
        progress: show a bar.

    Returns:
        The new generator, of method ``sem-one-pass``, on ``device``; the other one stays as it is.

    Raises:
        ValueError: the generator has no such network; empty data, or labels that it does not know.
    """
    if engine_of(generator.config) is not NetworkEngine:
        raise ValueError(
            f"generator of {generator.config.method!r} takes no gradient steps that could be learned. Use one of "
            "'sem-plus' or 'sem'."
        )
    config = replace(generator.config, method=SEM_ONE_PASS.method, one_pass=updates)
    assert config.image_size is not None
    to_one_size = partial(centre_square, side=min(config.image_size))
    data = load_labelled(dataset, config.num_classes, config.image_size, exact=False, to_one_size=to_one_size)
    surrogate = generator.to(pick_device(device)).surrogate
    return NoiseGenerator(fit_painter(surrogate, data, config, progress=progress), config, classes=data.classes)


def fit_painter(surrogate: nn.Module, data: Labelled, config: GeneratorConfig, *, progress: bool) -> nn.Module:
    """A new painter, fitted against a surrogate.

    Args:
        surrogate: fitted; it stays as it is.
        data: clean images of one size, and their labels.
        config: with ``one_pass`` set.
        progress: show a bar.

    Returns:
        The painter, where the surrogate lies.
    """
    device = next(surrogate.parameters()).device
    painter: nn.Module = build_surrogate(config)
    painter = painter.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    labels = data.labels.to(device)
    learn_to_paint(painter, surrogate, data.images, labels, config, build_eot(config.eot), progress=progress)
    round_to_half(painter)  # what is fitted is what is saved, published and loaded
    return painter

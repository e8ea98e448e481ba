"""Fit NTGA: the noise of a whole data set, block by block, kept for its images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from semtransforms.core.checkpoint import check_same_fit, load_checkpoint, save_checkpoint
from semtransforms.core.config import GeneratorConfig
from semtransforms.core.grid import quantize, to_float
from semtransforms.core.keys import batch_rows, stream_seed
from semtransforms.core.steps import every_seconds
from semtransforms.data.loading import Labelled
from semtransforms.noise.ntga import KernelSettings, Network, RecordedNoise, attack_block, build_network

CHECKPOINT_SECONDS = 60  # between two: each holds the noise of all images, 154 MB for CIFAR-10
# Images that every block's noise is judged by, the same for all: judged by images of its own, each block spoils
# another direction, and a trainer averages them out. The original has 10,000, which take ten times as long.
JUDGES = 1_024


def record_noise(
    data: Labelled,
    config: GeneratorConfig,
    *,
    checkpoint: Path | None,
    device: torch.device,
    progress: bool,
) -> RecordedNoise:
    """Make the noise of every image, in shuffled blocks of about equal size; the last one is not left out.

    Args:
        data: what is to be protected.
        config: ``surrogate`` names the kernel; :class:`KernelSettings` says which fields hold NTGA's own numbers.
        checkpoint: file to keep finished blocks in and to continue from, or ``None``. Written at most once a minute,
            and on the way out.
        device: where to compute.
        progress: show a bar.

    Returns:
        The noise with the images' digests, on the CPU.

    Raises:
        ValueError: there is one image only, or the checkpoint belongs to another fit.
    """
    settings = KernelSettings.of(config)
    count = len(data.labels)
    blocks, judges = _draw_blocks(count, config, settings)
    recorded = RecordedNoise(count, data.images.shape[2:])
    # the judges are no part of the config, and decide the noise as much
    decisive = {**config.to_dict(), "judges": JUDGES}
    description = {"config": json.dumps(decisive, sort_keys=True), "data": data.sha256()}
    first = 0
    if checkpoint is not None and checkpoint.exists():
        found = load_checkpoint(checkpoint)
        check_same_fit(checkpoint, found.metadata, description)
        found.restore(recorded)
        first = found.step
    networks = [
        [layer.to(device) for layer in build_network(config.surrogate, data.images.shape[1:], seed=seed)]
        for seed in (stream_seed(config.seed, draw) for draw in range(settings.networks))
    ]
    finished = kept = first
    due = every_seconds(CHECKPOINT_SECONDS)
    done = sum(map(len, blocks[:first]))
    with tqdm(total=count, initial=done, unit="image", desc=f"fit {config.method}", disable=not progress) as bar:
        try:
            for rows in blocks[first:]:
                levels = _noise_of_block(networks, data, rows, judges, config, settings, device)
                recorded.record(rows, data.images[rows], data.labels[rows], levels)
                finished += 1
                bar.update(len(rows))
                if checkpoint is not None and due(finished):
                    save_checkpoint(checkpoint, recorded, None, finished, description)
                    kept = finished
        finally:
            if checkpoint is not None and finished > kept:
                save_checkpoint(checkpoint, recorded, None, finished, description)
    return recorded


def _draw_blocks(count: int, config: GeneratorConfig, settings: KernelSettings) -> tuple[Sequence[Tensor], Tensor]:
    """The rows of each block, and of the images that all blocks are judged by.

    Raises:
        ValueError: there is one image only.
    """
    if count < 2:
        raise ValueError(
            f"dataset must have at least 2 images for method {config.method!r}, got {count}: the noise of some is "
            "judged by what others are named."
        )
    order = batch_rows(0, count, count, config.seed)
    # so many that half of them are left beside the largest block
    judges = batch_rows(1, count, count, config.seed)[: max(JUDGES, 2 * settings.block)]
    return order.tensor_split(max(2, -(-count // settings.block))), judges


def _noise_of_block(
    networks: Sequence[Network],
    data: Labelled,
    rows: Tensor,
    judges: Tensor,
    config: GeneratorConfig,
    settings: KernelSettings,
    device: torch.device,
) -> Tensor:
    """The noise of one block, int8: what it shall make a network name wrongly are the judges that are not in it."""
    assert config.num_classes is not None
    others = judges[~torch.isin(judges, rows)]
    delta = attack_block(
        networks,
        to_float(data.images[rows].to(device)),
        data.labels[rows].to(device),
        (to_float(data.images[others].to(device)), data.labels[others].to(device)),
        num_classes=config.num_classes,
        rho=config.rho_u,
        alpha=config.alpha_u,
        steps=config.steps_u,
        time=settings.time,
    )
    return quantize(delta, config.rho_u)

"""Fit NTGA: the noise of a whole data set, block by block, kept for its images."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from tqdm import tqdm

from semtransforms.core.checkpoint import check_same_fit, load_checkpoint, save_checkpoint
from semtransforms.core.config import GeneratorConfig
from semtransforms.core.grid import quantize, to_float
from semtransforms.core.keys import batch_rows, stream_seed
from semtransforms.data.loading import Labelled
from semtransforms.noise.ntga import RecordedNoise, attack_block, build_network

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
    """Make the noise of every image, in shuffled blocks of about ``config.batch_size``; the last one is not left out.

    What a block shall make a network name wrongly are drawn clean images, the same for all blocks but those in it.

    Args:
        data: what is to be protected.
        config: ``surrogate`` names the kernel, ``num_samples`` how many networks it is averaged over, ``train_steps``
            the time t, ``batch_size`` the images of a block.
        checkpoint: file to keep finished blocks in and to continue from, or ``None``. Written at most once a minute,
            and on the way out.
        device: where to compute.
        progress: show a bar.

    Returns:
        The noise with the images' digests, on the CPU.

    Raises:
        ValueError: there is one image only, or the checkpoint belongs to another fit.
    """
    assert config.num_classes is not None
    count = len(data.labels)
    if count < 2:
        raise ValueError(
            f"dataset must have at least 2 images for method {config.method!r}, got {count}: the noise of some is "
            "judged by what others are named."
        )
    order = batch_rows(0, count, count, config.seed)
    # so many that half of them are left beside the largest block
    judges = batch_rows(1, count, count, config.seed)[: max(JUDGES, 2 * config.batch_size)]
    blocks = order.tensor_split(max(2, -(-count // config.batch_size)))
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
        for seed in (stream_seed(config.seed, draw) for draw in range(config.num_samples))
    ]
    done = sum(map(len, blocks[:first]))
    finished = kept = first
    saved = time.monotonic()
    with tqdm(total=count, initial=done, unit="image", desc=f"fit {config.method}", disable=not progress) as bar:
        try:
            for number in range(first, len(blocks)):
                rows = blocks[number]
                others = judges[~torch.isin(judges, rows)]
                images, labels = data.images[rows], data.labels[rows]
                delta = attack_block(
                    networks,
                    to_float(images.to(device)),
                    labels.to(device),
                    (to_float(data.images[others].to(device)), data.labels[others].to(device)),
                    num_classes=config.num_classes,
                    rho=config.rho_u,
                    alpha=config.alpha_u,
                    steps=config.steps_u,
                    time=config.train_steps,
                )
                recorded.record(rows, images, labels, quantize(delta, config.rho_u))
                finished = number + 1
                bar.update(len(rows))
                if checkpoint is not None and time.monotonic() - saved > CHECKPOINT_SECONDS:
                    save_checkpoint(checkpoint, recorded, None, finished, description)
                    saved, kept = time.monotonic(), finished
        finally:
            if checkpoint is not None and finished > kept:
                save_checkpoint(checkpoint, recorded, None, finished, description)
    return recorded

"""Algorithm 1: fit a surrogate whose loss the defensive noise can minimise."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from semtransforms.core.checkpoint import check_same_fit, load_checkpoint
from semtransforms.core.config import GeneratorConfig
from semtransforms.core.grid import quantize, to_float
from semtransforms.core.hardware import (
    autocast_dtype,
    free_memory,
    give_back_freed_memory,
    keep_freed_memory,
    pick_device,
)
from semtransforms.core.keys import batch_rows, fold_in, keyed_uniform
from semtransforms.core.sharing import ALONE, Share, own_device, shared
from semtransforms.core.steps import seeded_steps, step_decay
from semtransforms.data.loading import Labelled, load_labelled, resized
from semtransforms.generators.generator import NoiseGenerator
from semtransforms.generators.one_pass import fit_painter
from semtransforms.generators.running import Run, checkpoint_file
from semtransforms.generators.weights import round_to_half
from semtransforms.noise.classwise import Classwise, learn_noises
from semtransforms.noise.engine import (
    ClasswiseEngine,
    Engine,
    NetworkEngine,
    OnePassEngine,
    PaintedEngine,
    RecordedEngine,
    build_surrogate,
    engine_of,
)
from semtransforms.noise.methods import DEFAULT, check_surrogate
from semtransforms.noise.pgd import forward, perturb_view, pgd, update_weights
from semtransforms.noise.recording import record_noise
from semtransforms.views.eot import EOT, build_eot
from semtransforms.views.resize import NOISE_SIZE, centre_square

# what a batch's keys are folded with
_DEFENSE, _VIEW, _ATTACK, _LABEL = range(4)

LEARNED_ON = 1_000  # drawn training images that tell whether a surrogate fitted on clean data has learned


def fit_generator(
    dataset: Any,
    config: GeneratorConfig = DEFAULT,
    *,
    checkpoint_dir: str | Path | None = None,
    resume: bool = False,
    checkpoint_every: int = 250,
    device: str | torch.device | None = None,
    distributed: bool = False,
    progress: bool = True,
) -> NoiseGenerator:
    """Fit a noise generator on clean data (Algorithm 1; the config chooses the method).

    A fit that was killed and resumed gives the same weights as one that was not, bit for bit on the CPU in fp32: all
    randomness is keyed by (seed, step, row), so a checkpoint holds the weights, the momentum and the step.

    Args:
        dataset: any map-style dataset of (PIL image or uint8 tensor, int label); or a pair of tensors, uint8
            (N, 3, H, W) and int64 (N,). Of mixed sizes the fit sees the middle at 64 px, or at ``config.image_size``.
        config: a preset of :mod:`semtransforms.noise.methods`, changed as you like: radii, steps and length by
            :func:`semtransforms.with_effort`, the rest by ``dataclasses.replace``.
        checkpoint_dir: where to keep ``checkpoint.safetensors``; ``None`` keeps none, and SC and AR have none.
        resume: continue from the checkpoint there, if there is one.
        checkpoint_every: surrogate updates between checkpoints (NTGA has none, and saves about once a minute).
        device: where to fit; default: CUDA if present, one for each process.
        distributed: share the rows of each batch with all processes that torchrun has started; each of them must call
            this with the same arguments, and gets the same generator: that of one process, but for the order of sums.
        progress: show step, loss, surrogate accuracy on protected data, images/s and remaining time.

    Returns:
        The generator, on ``device``.

    Raises:
        ValueError: empty data, bad labels, mixed sizes for a method whose noise is for exactly these images, a
            surrogate that is not of the method's kind, a checkpoint that belongs to another fit, a surrogate that
            learned nothing from clean data where the method needs one that did; ``distributed`` without torchrun, for
            a method that one process fits, with more processes than rows, or with arguments that differ.
        FileExistsError: ``checkpoint_dir`` holds a checkpoint and ``resume`` is false.
        FloatingPointError: the surrogate diverged.
    """
    target = own_device(pick_device(device)) if distributed else pick_device(device)
    keep_freed_memory()
    if checkpoint_every < 1:
        raise ValueError(f"checkpoint_every must be >= 1 updates, got {checkpoint_every}")
    # what can be wrong is found before the data are read
    build_eot(config.eot)
    check_surrogate(config)
    engine = engine_of(config)
    engine.check(config)
    share = _share(config, engine, target) if distributed else ALONE
    checkpoint = checkpoint_file(checkpoint_dir, resume)
    data, config = _load(dataset, config, engine)
    fitted_on = replace(data, images=resized(data.images, config.image_size))
    run = Run(target, checkpoint, checkpoint_every, progress and share.writes, share)
    surrogate = FITTED_BY[engine](fitted_on, config, run)
    give_back_freed_memory()  # else what the steps have used lies beside the photographs that are decoded next
    if isinstance(surrogate, Classwise) and surrogate.guides:
        _fit_heads(surrogate.guides, data, progress)
    return NoiseGenerator(surrogate, _without_paths(config), classes=data.classes)


def _share(config: GeneratorConfig, engine: type[Engine], device: torch.device) -> Share:
    """What of each batch is this process's, where several fit together.

    Raises:
        ValueError: they cannot.
    """
    if FITTED_BY[engine] is not _train:
        raise ValueError(f"distributed: {config.method!r} is fitted by one process. Leave it out, and torchrun.")
    share = shared(device)
    if share.world > config.batch_size:
        raise ValueError(f"distributed: {share.world} processes for batches of {config.batch_size} rows. Start fewer.")
    return share


def _load(dataset: Any, config: GeneratorConfig, engine: type[Engine]) -> tuple[Labelled, GeneratorConfig]:
    """The data, at the size that pretrained surrogates see, and the config with all that follows from them."""
    larger = config.pretrained_side
    to_one_size = None if engine.exact else partial(centre_square, side=max(NOISE_SIZE, larger))
    size = config.image_size and (max(config.image_size[0], larger), max(config.image_size[1], larger))
    data = load_labelled(dataset, config.num_classes, size, exact=engine.exact, to_one_size=to_one_size)
    height, width = config.image_size or data.images.shape[2:]
    if config.pretrained and config.image_size is None and min(height, width) > NOISE_SIZE:
        height, width = NOISE_SIZE, NOISE_SIZE
    num_classes = config.num_classes or (len(data.classes) if data.classes else int(data.labels.max()) + 1)
    return data, replace(config, num_classes=num_classes, image_size=(height, width))


def _paint(data: Labelled, config: GeneratorConfig, run: Run) -> nn.Module:
    """SC and AR: there is nothing to fit."""
    return build_surrogate(config)


def _record(data: Labelled, config: GeneratorConfig, run: Run) -> nn.Module:
    """NTGA: the noise of these images."""
    with run.folder():
        return record_noise(data, config, checkpoint=run.checkpoint, device=run.device, progress=run.progress)


def _train(data: Labelled, config: GeneratorConfig, run: Run) -> nn.Module:
    """Algorithm 1, or a training on clean data: a network."""
    target, checkpoint, share = run.device, run.checkpoint, run.share
    eot = build_eot(config.eot)
    surrogate: nn.Module = build_surrogate(replace(config, one_pass=0))
    surrogate = surrogate.to(target, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        [weight for weight in surrogate.parameters() if weight.requires_grad],
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    described = json.dumps(_without_paths(config).to_dict(), sort_keys=True)
    description = {"config": described, "data": data.sha256()}
    share.check_agreed("config or data set", description, "Give all of them the same.")
    first = _resume(checkpoint, surrogate, optimizer, config, description)
    share.check_agreed("checkpoint", first, "Its folder must lie where all of them can read it.")

    images, labels = data.images, data.labels.to(target)
    if images.nbytes < free_memory(target) // 4:
        images = images.to(target)

    started = time.perf_counter()
    with (
        run.folder(),
        seeded_steps(
            config,
            len(labels),
            optimizer,
            rate_share=lambda step: step_decay(step, config.decay_every, config.decay_factor),
            first=first,
            device=target,
            title=f"fit {config.method}",
            save=run.saver(surrogate, optimizer, description, last=config.train_steps),
            progress=run.progress,
        ) as (steps, bar),
    ):
        for step in steps:
            if isinstance(surrogate, Classwise):
                surrogate.held = step.number < config.hold_steps
            views, named = to_float(images[step.rows(images.device)].to(target)), labels[step.rows(target)]
            loss, accuracy = train_step(
                surrogate, optimizer, views, named, keys=step.keys, config=config, eot=eot, share=share
            )
            share.follow_first(surrogate)
            done = step.number + 1
            # reading a loss waits for the device: not at every step
            if done % 10 == 0 or done == config.train_steps:
                _check_finite(loss, done, config)
                rate = (done - first) * config.batch_size / (time.perf_counter() - started)
                bar.set_postfix_str(f"loss {loss:.3f}, accuracy {accuracy:.1%}, {rate:.0f} images/s")
    # behind the checkpoint, which goes on in full precision: what is fitted is what is saved, published and loaded
    round_to_half(surrogate)
    if config.fitted_on == "clean":
        _check_learned(surrogate, images, labels, config)
    return surrogate


def _train_painter(data: Labelled, config: GeneratorConfig, run: Run) -> nn.Module:
    """Algorithm 1, and then a network that paints in one pass what lowers the loss of its surrogate."""
    return fit_painter(_train(data, config, run), data, config, run, teacher="its own")


def _fit_heads(guides: nn.ModuleList, data: Labelled, progress: bool) -> None:
    """The layers of the pretrained surrogates, on clean images; rounded as all that is fitted."""
    from semtransforms.noise.guided import fit_heads

    fit_heads(guides, data.images, data.labels.to(next(guides.parameters()).device), progress=progress)
    round_to_half(guides)


def _without_paths(config: GeneratorConfig) -> GeneratorConfig:
    """The config with pretrained weights named by file and digest: a path tells of the owner's machine."""
    if not config.pretrained:
        return config
    from semtransforms.noise.guided import named  # imports torchvision, which costs seconds

    return named(config, config.pretrained)


# how the surrogate of each kind of engine comes to be
FITTED_BY: Mapping[type[Engine], Callable[[Labelled, GeneratorConfig, Run], nn.Module]] = {
    NetworkEngine: _train,
    ClasswiseEngine: _train,
    OnePassEngine: _train_painter,
    PaintedEngine: _paint,
    RecordedEngine: _record,
}


def train_step(
    surrogate: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    *,
    keys: Tensor,
    config: GeneratorConfig,
    eot: EOT,
    share: Share = ALONE,
) -> tuple[Tensor, Tensor]:
    """One pass through the body of Algorithm 1.

    Args:
        surrogate: the network theta, changed in place.
        optimizer: over its weights.
        images: float (B, 3, H, W) in [0, 1].
        labels: int64 (B,).
        keys: int64 (B,), this step's randomness.
        config, eot: the method and T.
        share: which of the rows this process makes noise and adversaries for; the update sees all.

    Returns:
        The loss and the accuracy of the surrogate on what it was updated with, 0-d tensors on the device.
    """
    dtype = autocast_dtype(config.precision, images.device)
    seen = share.own(images)
    if config.fitted_on == "shuffled":
        assert config.num_classes is not None  # the fit has set it
        labels = (keyed_uniform(fold_in(keys, _LABEL), ()) * config.num_classes).long()
    if config.fitted_on != "clean":
        # lines 2-9: descend on the noise
        delta = _defend(surrogate, images, labels, fold_in(keys, _DEFENSE), config, eot, dtype, share)
        # rounded as it will be stored, before the surrogate sees it
        seen = seen + quantize(delta, config.rho_u).to(images.dtype) / 255
    # line 10: a fresh transformation
    with torch.no_grad():
        view = eot(seen, share.own(fold_in(keys, _VIEW)))
    # line 11: the adversary of Eq. 5
    attacked = share.own(fold_in(keys, _ATTACK))
    view = perturb_view(surrogate, view, share.own(labels), config.perturbation(config.surrogate_sees), attacked, dtype)
    # line 12: update theta, batch statistics in train mode
    return update_weights(surrogate, optimizer, share.join(view, len(labels)), labels, dtype)


def _defend(
    surrogate: nn.Module,
    images: Tensor,
    labels: Tensor,
    keys: Tensor,
    config: GeneratorConfig,
    eot: EOT,
    dtype: torch.dtype | None,
    share: Share,
) -> Tensor:
    """The noise of a batch's own rows, float (b, 3, H, W); class-wise noise moves along, by all rows."""
    if isinstance(surrogate, Classwise):
        return learn_noises(surrogate, images, labels, config.defense, keys=keys, eot=eot, dtype=dtype, share=share)
    own = share.own
    return pgd(surrogate, own(images), own(labels), config.defense, keys=own(keys), eot=eot, dtype=dtype)


def _check_finite(loss: Tensor, done: int, config: GeneratorConfig) -> None:
    if not bool(loss.isfinite()):
        raise FloatingPointError(
            f"the surrogate diverged at step {done} (loss {loss.item()}). Lower learning_rate={config.learning_rate}, "
            "or use precision='fp32'."
        )


def _check_learned(surrogate: nn.Module, images: Tensor, labels: Tensor, config: GeneratorConfig) -> None:
    """Whether a surrogate fitted on clean data tells their classes apart: error-maximising noise follows what it sees.

    Raises:
        ValueError: it does no better than guessing.
    """
    # drawn, since folders are sorted by class; as many of each class as there are, since some are rare
    order, known = batch_rows(0, len(labels), len(labels), config.seed), labels.cpu()
    present = known.unique()  # type: ignore[no-untyped-call]
    each = max(1, LEARNED_ON // len(present))
    drawn = torch.cat([order[known[order] == label][:each] for label in present])
    named = labels[drawn.to(labels.device)]
    batches = torch.split(drawn, config.batch_size)
    surrogate.eval()
    with torch.no_grad():
        views = (to_float(images[rows.to(images.device)].to(named.device)) for rows in batches)
        right = torch.cat([forward(surrogate, view, None).argmax(1) for view in views]) == named
    classes, counts = named.unique(return_counts=True)  # type: ignore[no-untyped-call]
    # class by class: where one is rare, naming the commonest is right nearly always and tells nothing apart
    recall = sum(float(right[named == label].float().mean()) for label in classes) / len(classes)
    guess = 1 / len(classes)
    deviation = guess * float((guess * (1 - guess) / counts).sum()) ** 0.5
    # three standard deviations above guessing; of a class seen once or twice they would ask for more than everything
    if recall <= guess + min(3 * deviation, (1 - guess) / 2):
        raise ValueError(
            f"the surrogate learned nothing from the clean images (of a class {recall:.0%} are named rightly, guessing "
            f"gives {guess:.0%}): noise made with it protects nothing. Raise train_steps={config.train_steps}, or "
            f"change learning_rate={config.learning_rate}."
        )


def _resume(
    path: Path | None,
    surrogate: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: GeneratorConfig,
    description: Mapping[str, str],
) -> int:
    """Continue from a checkpoint if there is one, and it belongs to this fit: the updates behind it."""
    if path is None or not path.exists():
        return 0
    checkpoint = load_checkpoint(path)
    # a fit may be prolonged: everything but its length must agree
    check_same_fit(path, checkpoint.metadata, description, may_change=["train_steps", "one_pass"])
    if checkpoint.step > config.train_steps:
        raise ValueError(f"checkpoint {path} is at step {checkpoint.step}, beyond train_steps={config.train_steps}")
    checkpoint.restore(surrogate, optimizer)
    if isinstance(surrogate, Classwise):
        if "noise_momentum" not in checkpoint.extra:
            raise ValueError(f"checkpoint {path} was left by an earlier version. Delete it to start anew.")
        surrogate.momentum.copy_(checkpoint.extra["noise_momentum"])
    return checkpoint.step

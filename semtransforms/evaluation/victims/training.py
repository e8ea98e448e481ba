"""Train a victim: a network on published images, tested on clean ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semtransforms.core.grid import to_float
from semtransforms.core.hardware import autocast_dtype, keep_freed_memory, pick_device
from semtransforms.core.keys import batch_epochs, fold_in
from semtransforms.core.models import MODELS, build_model
from semtransforms.core.pretrained.libraries import smallest_side
from semtransforms.core.pretrained.network import build_from_library
from semtransforms.core.steps import Step, every_seconds, half_cosine, one_cycle, seeded_steps, step_decay
from semtransforms.data.images import check_labels
from semtransforms.data.loading import Labelled
from semtransforms.evaluation.countermeasures import Countermeasure, apply_at_test
from semtransforms.evaluation.victims.accuracy import accuracy, robust_accuracy
from semtransforms.evaluation.victims.config import VictimConfig
from semtransforms.evaluation.victims.contrastive import contrastive_update, put_projector, with_layer
from semtransforms.evaluation.victims.probe import fit_probe, refuse_batches
from semtransforms.evaluation.victims.progress import Progress
from semtransforms.evaluation.victims.seen import TrainingSet, training_set
from semtransforms.evaluation.victims.sharpness import update_sharpness_aware
from semtransforms.noise.pgd import perturb_view, update_weights
from semtransforms.views.eot import build_eot
from semtransforms.views.windows import centre_squares

CHECKPOINT_SECONDS = 30  # of training, what a kill may cost

# what a batch's keys are folded with
_AUGMENT, _ATTACK, _COUNTERMEASURE = range(3)


@dataclass(frozen=True)
class VictimResult:
    """What came of a victim's training.

    Args:
        test_accuracy: on the clean test images after the last step (with early stopping: of the network taken), 0..1;
            the better of the two below, since the trainer chooses.
        test_accuracy_plain: on the test images as they are.
        test_accuracy_processed: on test images that went through the same fixed maps (filters, JPEG, ...) as the stored
            ones; ``None`` without.
        peak_test_accuracy, peak_step: the best of all evaluations, and the updates behind it.
        robust_accuracy: of 1,000 of the test images (those of the two kinds that ``test_accuracy`` is of; drawn, the
            same in every run) under PGD of twice the trainer's steps, at the trainer's radius; ``None`` for standard
            training.
        train_accuracy, train_loss: mean over the training batches of the last tenth of the steps, as the trainer saw
            them: under their adversary, augmentation and countermeasures.
        diverged: the loss became NaN or infinite; the accuracies then say nothing about the protection.
        stopped_step: updates behind the network that early stopping took; ``None`` without.
        curve: (step, mean loss since the last point, test accuracy) at each evaluation.
        seconds: wall time of the training and its evaluations.
        passes: images sent forward and backward by the updates and the adversary.
    """

    test_accuracy: float
    test_accuracy_plain: float
    test_accuracy_processed: float | None
    peak_test_accuracy: float
    peak_step: int
    robust_accuracy: float | None
    train_accuracy: float
    train_loss: float
    diverged: bool
    stopped_step: int | None
    curve: tuple[tuple[int, float, float], ...]
    seconds: float
    passes: int


def train_victim(
    images: Tensor | Sequence[Tensor],
    labels: Tensor,
    config: VictimConfig,
    *,
    test_images: Tensor | Sequence[Tensor],
    test_labels: Tensor,
    countermeasures: Sequence[Countermeasure] = (),
    clean: Tensor | Sequence[Tensor] | None = None,
    checkpoint: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> VictimResult:
    """Train a network on published images and test it on clean ones.

    A training that was killed and started again with the same ``checkpoint`` gives the same result, bit for bit on the
    CPU in fp32.

    Args:
        images: uint8 (N, 3, H, W), what was published; where the config has a ``train_size``, also N times uint8
            (3, H, W) of any sizes.
        labels: int64 (N,).
        config: the trainer's choices.
        test_images, test_labels: clean, uint8 (M, 3, H, W) and int64 (M,); images as above.
        countermeasures: what the trainer does against the noise, in order.
        clean: the owner's images, of the same sizes in the same order, where the trainer has some of them.
        checkpoint: file to keep the state in and to continue from; removed at the end. ``None`` keeps none.
        settings: ``config.to_dict()`` as the checkpoint is to have it, where the config's own functions may have
            changed since; default: as it is now.
        device: where to train; default: CUDA if present.
        progress: show a bar.

    Returns:
        Accuracies, the curve, time and work done.

    Raises:
        ValueError: no images, labels that do not fit, an unknown network, a countermeasure that changes the image
            size, a checkpoint of another training.
        TypeError: images of several sizes without a ``train_size``.
    """
    target = pick_device(device)
    keep_freed_memory()
    side = config.train_size
    labels = _checked("images", images, labels, side)
    test_labels = _checked("test_images", test_images, test_labels, side)
    tests = Labelled(torch.as_tensor(test_images) if side is None else centre_squares(test_images, side), test_labels)
    num_classes = int(max(labels.max(), test_labels.max())) + 1
    network = _build(config, num_classes, min(tests.images.shape[2:]))
    if config.contrastive:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            put_projector(network)
    network = network.to(target, memory_format=torch.channels_last)  # type: ignore[call-overload]
    seen = training_set(images, labels, clean, config, countermeasures, device=target, progress=progress)
    dtype = autocast_dtype(config.precision, target)
    exams = _tests_as_tried(tests, seen.countermeasures)
    refuse_batches(config, countermeasures)
    if config.is_probe:
        network, state = fit_probe(network, seen.data, exams, num_classes, config, dtype)
        return replace(_judge(network, state, exams, config, dtype), passes=len(seen.data.labels))
    optimizer = torch.optim.SGD(
        [weight for weight in network.parameters() if weight.requires_grad],
        lr=0.0,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
    )
    update = _update_of(network, optimizer, seen, num_classes, config, countermeasures, dtype)

    def as_classifier() -> nn.Module:
        return with_layer(network, seen.data, num_classes, dtype) if config.contrastive else network

    state = Progress.none(config.train_steps, target)
    path = None if checkpoint is None else Path(checkpoint).expanduser()
    save = _keep_in(path, state, network, optimizer, config, settings, countermeasures, seen.data)

    with seeded_steps(
        config,
        len(seen.data.labels),
        optimizer,
        rate_share=lambda step: learning_rate_share(step, config),
        first=state.done,
        device=target,
        title=f"victim rho_a={config.rho_a * 255:g}/255",
        save=save,
        progress=progress,
    ) as (steps, bar):
        for step in steps:
            if state.out_of_patience(config.patience):
                break
            state.record_update(*update(step))
            if state.done in config.marks:
                trained = as_classifier()
                tested = max(accuracy(trained, each, dtype) for each in exams.values())
                validated = None if seen.validation is None else accuracy(network, seen.validation, dtype)
                state.record_accuracy(network, tested, validated)
                bar.set_postfix_str(f"loss {state.curve[-1][1]:.3f}, test accuracy {tested:.1%}")
                if state.diverged:
                    break  # nothing more comes of it
    result = _judge(as_classifier(), state, exams, config, dtype)
    if path is not None:
        path.unlink(missing_ok=True)
    return result


def learning_rate_share(step: int, config: VictimConfig) -> float:
    """Share of the peak learning rate at an update, 0..1."""
    if config.schedule == "steps":
        return step_decay(step, config.decay_every, config.decay_factor)
    return (half_cosine if config.schedule == "cosine" else one_cycle)(step, config.train_steps)


def _checked(name: str, images: Tensor | Sequence[Tensor], labels: Tensor, side: int | None) -> Tensor:
    if side is None and not isinstance(images, Tensor):
        raise TypeError(f"{name} must be one tensor, got a {type(images).__name__}. Give the victim a train_size.")
    labels = check_labels(labels, None)
    if len(images) == 0 or len(images) != len(labels):
        raise ValueError(f"{name} must be non-empty with one label each, got {len(images)} and {len(labels)} labels")
    return labels


def _build(config: VictimConfig, num_classes: int, side: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if isinstance(config.network, str):
            smallest_side(config.network, config.width)
            if config.network not in MODELS:
                return build_from_library(
                    config.network,
                    num_classes=num_classes,
                    train_size=config.train_size,
                    pretrained=config.pretrained,
                    transfer=config.transfer,
                )
            return build_model(config.network, num_classes=num_classes, image_size=side, width=config.width)
        if isinstance(config.network, nn.Module):
            return deepcopy(config.network)
        return config.network(num_classes)


def _tests_as_tried(tests: Labelled, countermeasures: Sequence[Countermeasure]) -> dict[str, Labelled]:
    """The test images as they are, and as the trainer's fixed maps make them, where there are any."""
    processed = apply_at_test(countermeasures, tests.images)
    as_they_are = {"plain": tests}
    return as_they_are if processed is tests.images else {**as_they_are, "processed": Labelled(processed, tests.labels)}


def _update_of(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    seen: TrainingSet,
    num_classes: int,
    config: VictimConfig,
    countermeasures: Sequence[Countermeasure],
    dtype: torch.dtype | None,
) -> Callable[[Step], tuple[Tensor, Tensor]]:
    """One update of the training, as a function of the step; gives the loss and the share named rightly."""
    device = next(network.parameters()).device
    labels = seen.data.labels.to(device)

    @lru_cache(maxsize=1)  # a batch that spans two epochs is done with the first when it asks for the second
    def at_epoch(epoch: int) -> Tensor:
        return seen.at_epoch(epoch).to(device)

    augment, attack = _augmentation(config), config.attack
    on_batch = [each for each in countermeasures if each.acts_on == "batch"]

    def update(step: Step) -> tuple[Tensor, Tensor]:
        rows, keys = step.rows(device), step.keys
        epochs = batch_epochs(step.number, len(labels), config.batch_size)
        with torch.no_grad():
            parts = torch.split(rows, [places.stop - places.start for _, places in epochs])
            images = torch.cat([at_epoch(epoch)[some] for (epoch, _), some in zip(epochs, parts, strict=True)])
        if config.contrastive:
            return contrastive_update(network, optimizer, to_float(images), fold_in(keys, _AUGMENT), dtype)
        with torch.no_grad():
            view, targets = augment(images, fold_in(keys, _AUGMENT)), labels[rows]
        if on_batch:
            targets = F.one_hot(targets, num_classes).float()
            for number, each in enumerate(on_batch):
                drawn = fold_in(fold_in(keys, _COUNTERMEASURE), number)
                view, targets = each.on_batch(view, targets, keys=drawn, network=network)
        view = perturb_view(network, view, targets, attack, fold_in(keys, _ATTACK), dtype)
        if config.sharpness:
            return update_sharpness_aware(network, optimizer, view, targets, dtype, config.sharpness)
        return update_weights(network, optimizer, view, targets, dtype)

    return update


def _augmentation(config: VictimConfig) -> Callable[[Tensor, Tensor], Tensor]:
    """From uint8 (B, 3, H, W) and their keys to float in [0, 1]."""
    if not callable(config.augmentation):
        eot = build_eot(config.augmentation)
        return lambda images, keys: eot(to_float(images), keys)
    one = config.augmentation

    def image_by_image(images: Tensor, keys: Tensor) -> Tensor:
        changed = torch.stack([torch.as_tensor(one(image)) for image in images])
        if changed.shape != images.shape:
            raise ValueError(
                f"augmentation must keep the size {tuple(images.shape[1:])}, gave {tuple(changed.shape[1:])}"
            )
        return changed.float() if changed.is_floating_point() else to_float(changed)

    return image_by_image


def _keep_in(
    path: Path | None,
    state: Progress,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: VictimConfig,
    settings: Mapping[str, Any] | None,
    countermeasures: Sequence[Countermeasure],
    data: Labelled,
) -> Callable[[int], None]:
    """Go on from the checkpoint if there is one; gives what writes the next ones."""
    if path is None:
        return lambda done: None
    description = {
        "config": json.dumps(settings or config.to_dict(), sort_keys=True),
        "countermeasures": "+".join(each.name for each in countermeasures),
        "data": Labelled(data.images, data.labels).sha256(),
    }
    if path.exists():
        state.resume(path, network, optimizer, description)
    path.parent.mkdir(parents=True, exist_ok=True)
    due = every_seconds(CHECKPOINT_SECONDS)

    def save(done: int) -> None:
        if due(done):
            state.save(path, network, optimizer, description)

    return save


def _judge(
    network: nn.Module,
    state: Progress,
    exams: Mapping[str, Labelled],
    config: VictimConfig,
    dtype: torch.dtype | None,
) -> VictimResult:
    """What the training gave; with early stopping, of the best network validated."""
    if state.best:
        network.load_state_dict(state.best)
    measured = {name: accuracy(network, each, dtype) for name, each in exams.items()}
    better = exams[max(measured, key=measured.__getitem__)]
    peak = max(state.curve, key=lambda point: point[2])
    tail = slice(state.done - max(1, state.done // 10), state.done)
    attack = config.attack
    return VictimResult(
        test_accuracy=max(measured.values()),
        test_accuracy_plain=measured["plain"],
        test_accuracy_processed=measured.get("processed"),
        peak_test_accuracy=peak[2],
        peak_step=peak[0],
        robust_accuracy=None if attack is None else robust_accuracy(network, better, attack, dtype),
        train_accuracy=state.correct[tail].mean().item(),
        train_loss=state.losses[tail].mean().item(),
        diverged=state.diverged,
        stopped_step=state.best_step if state.best else None,
        curve=tuple(state.curve),
        seconds=state.seconds,
        passes=state.done * config.batch_size * config.passes,
    )

"""The unauthorised trainer: fit a network on what was published, test it on clean images."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from semtransforms.core.checkpoint import load_checkpoint, save_checkpoint
from semtransforms.core.config import Norm, PGDConfig, Precision, Transformation
from semtransforms.core.grid import to_float
from semtransforms.core.hardware import autocast_dtype, keep_freed_memory, pick_device
from semtransforms.core.keys import batch_rows, fold_in, index_keys, stream_seed
from semtransforms.core.models import build_model
from semtransforms.data.images import check_labels
from semtransforms.data.loading import Labelled
from semtransforms.evaluation.countermeasures import Countermeasure, apply_at_test, apply_stored
from semtransforms.noise.pgd import forward, perturb_view, pgd, update_weights
from semtransforms.views.eot import build_eot

ROBUST_IMAGES = 1_000  # test images that robust accuracy is measured on
FEWEST_STEPS = 100  # of the quick protocol: with few images, 20 epochs teach nothing
CHECKPOINT_SECONDS = 30  # of training, what a kill may cost

# what a batch's keys are folded with
_AUGMENT, _ATTACK, _COUNTERMEASURE = range(3)


@dataclass(frozen=True)
class VictimConfig:
    """How a victim is trained; adversarially (Eq. 2) where ``rho_a`` is not 0.

    The defaults are those of the quick protocol at 1,500 updates; :func:`quick` counts in epochs, :func:`paper` is the
    paper's.

    Args:
        network: a name, an ``nn.Module`` to start from (copied, never changed), or a function of the number of classes
            that makes one.
        width: of a named network that has one.
        train_steps, batch_size: updates and images per update.
        learning_rate: the peak of the schedule.
        schedule: ``"one-cycle"`` (up over a fifth of the steps, then down to 0) or ``"steps"`` (times ``decay_factor``
            every ``decay_every`` updates).
        momentum, weight_decay, nesterov: of SGD.
        rho_a: radius of the adversarial training, a fraction of the pixel range; 0 for standard training.
        steps_a: PGD steps K of its adversary; the step size is 2 rho_a / K (the paper's rho_a / 5 at K = 10).
        norm: of the adversary's ball, ``"linf"`` or ``"l2"`` (of a whole image).
        augmentation: the trainer's own transformations; or any function of one uint8 image (3, H, W), such as a
            pipeline of torchvision's, that is called image by image.
        evaluations: how often, at equal distances, accuracy is measured during the training; the last is at the end.
        patience: early stopping: end after so many updates without a better accuracy on the validation images, and
            take the network of the best one (Table 5); ``None`` trains to the end.
        validation: share of the published images set aside for that.
        validation_clean: share of the validation images that the trainer has clean.
        precision: as in :class:`~semtransforms.GeneratorConfig`.
        seed: of the weights, the order and the draws.

    Raises:
        ValueError: a count is not positive, a radius or share lies outside 0..1, ...
    """

    network: str | nn.Module | Callable[[int], nn.Module] = "resnet18"
    width: int | None = None
    train_steps: int = 1500
    batch_size: int = 128
    learning_rate: float = 0.1
    schedule: Literal["one-cycle", "steps"] = "one-cycle"
    decay_every: int = 16_000
    decay_factor: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = True
    rho_a: float = 0.0
    steps_a: int = 10
    norm: Norm = "linf"
    augmentation: Sequence[Transformation] | Callable[[Tensor], Tensor] = (
        Transformation("crop", {"padding": 4}),
        Transformation("flip"),
    )
    evaluations: int = 5
    patience: int | None = None
    validation: float = 0.1
    validation_clean: float = 0.0
    precision: Precision = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("train_steps", "batch_size", "decay_every", "steps_a", "evaluations", "patience"):
            value = getattr(self, name)
            if value is None and name == "patience":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
        if self.norm not in ("linf", "l2"):
            raise ValueError(f"norm must be 'linf' or 'l2', got {self.norm!r}")
        if self.schedule not in ("one-cycle", "steps"):
            raise ValueError(f"schedule must be 'one-cycle' or 'steps', got {self.schedule!r}")
        for name in ("rho_a", "validation", "validation_clean"):
            value = getattr(self, name)
            # an l2 radius measures a whole image and may be beyond the range of one pixel
            largest = 1e6 if (name, self.norm) == ("rho_a", "l2") else 1
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= largest:
                advice = " Write 4/255, not 4." if name == "rho_a" else ""
                raise ValueError(f"{name} must be in 0..{largest:g}, got {value!r}.{advice}")
        for name in ("learning_rate", "momentum", "weight_decay", "decay_factor"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be a number >= 0, got {value!r}")

        if self.nesterov and not self.momentum:
            raise ValueError("momentum must be above 0 with nesterov=True, got 0. Pass nesterov=False.")

    @property
    def attack(self) -> PGDConfig | None:
        """The adversary of Eq. 2; ``None`` for standard training."""
        if not self.rho_a:
            return None
        return PGDConfig(self.rho_a, 2 * self.rho_a / self.steps_a, self.steps_a, norm=self.norm)

    def to_dict(self) -> dict[str, Any]:
        """Every field as JSON values; a module, pipeline or function by its name and a digest of what it does."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        values["network"] = _name(self.network)
        values["augmentation"] = (
            _name(self.augmentation) if callable(self.augmentation) else [asdict(each) for each in self.augmentation]
        )
        return json.loads(json.dumps(values))  # type: ignore[no-any-return]


def paper(**changes: Any) -> VictimConfig:
    """The paper's protocol: 40,000 updates, SGD 0.1, times 0.1 every 16,000, PGD-10.

    Args:
        changes: fields of :class:`VictimConfig`, such as ``rho_a=4 / 255``.
    """
    return replace(VictimConfig(train_steps=40_000, schedule="steps", nesterov=False), **changes)


def quick(images: int, **changes: Any) -> VictimConfig:
    """The quick protocol: one cycle of 20 epochs, at least 100 updates.

    Args:
        images: N, how many there are to train on.
        changes: fields of :class:`VictimConfig`.
    """
    config = VictimConfig(**changes)
    steps = max(FEWEST_STEPS, -(-20 * images // config.batch_size))
    return config if "train_steps" in changes else replace(config, train_steps=steps)


@dataclass(frozen=True)
class VictimResult:
    """What came of it.

    Args:
        test_accuracy: on the clean test images after the last step (with early stopping: of the network taken), 0..1;
            the better of the two below, since the trainer chooses.
        test_accuracy_plain: on the test images as they are.
        test_accuracy_processed: on test images that went through the same fixed maps (filters, JPEG, ...) as the stored
            ones; ``None`` without.
        peak_test_accuracy, peak_step: the best of all evaluations, and the updates behind it.
        robust_accuracy: of 1,000 of the test images (those of the two kinds that ``test_accuracy`` is of; drawn, the
            same in every run) under PGD of twice the trainer's steps, at his radius; ``None`` for standard training.
        train_accuracy, train_loss: mean over the training batches of the last tenth of the steps, as the trainer saw
            them: under his adversary, his augmentation and his countermeasures.
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


@dataclass
class _Progress:
    """What a training knows besides weights and momentum: all of it survives a kill."""

    losses: Tensor  # float (train_steps,), of the updates done
    correct: Tensor  # float (train_steps,), share of the batch
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    validated: list[tuple[int, float]] = field(default_factory=list)  # (step, validation accuracy)
    best: dict[str, Tensor] = field(default_factory=dict)  # the weights of the best validation accuracy
    seconds: float = 0.0

    def out_of_patience(self, patience: int | None) -> bool:
        return bool(self.validated) and patience is not None and self.validated[-1][0] - self.best_step >= patience

    @property
    def best_step(self) -> int:
        return max(self.validated, key=lambda point: (point[1], -point[0]))[0]


def train_victim(
    images: Tensor,
    labels: Tensor,
    config: VictimConfig,
    *,
    test_images: Tensor,
    test_labels: Tensor,
    countermeasures: Sequence[Countermeasure] = (),
    clean: Tensor | None = None,
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> VictimResult:
    """Train a network on published images and test it on clean ones.

    A training that was killed and started again with the same ``checkpoint`` gives the same result, bit for bit on the
    CPU in fp32.

    Args:
        images: uint8 (N, 3, H, W), what was published.
        labels: int64 (N,).
        config: the trainer's choices.
        test_images, test_labels: clean, uint8 (M, 3, H, W) and int64 (M,).
        countermeasures: what the trainer does against the noise, in order.
        clean: uint8 (N, 3, H, W), the owner's images in the same order, where the trainer has some of them.
        checkpoint: file to keep the state in and to continue from; removed at the end. ``None`` keeps none.
        device: where to train; default: CUDA if present.
        progress: show a bar.

    Returns:
        Accuracies, the curve, time and work done.

    Raises:
        ValueError: no images, labels that do not fit, an unknown network, a countermeasure that changes the image
            size, a checkpoint of another training.
    """
    target = pick_device(device)
    keep_freed_memory()
    labels, test_labels = check_labels(labels, None), check_labels(test_labels, None)
    for name, pixels, named in (("images", images, labels), ("test_images", test_images, test_labels)):
        if len(pixels) == 0 or len(pixels) != len(named):
            raise ValueError(f"{name} must be non-empty with one label each, got {len(pixels)} and {len(named)} labels")
    num_classes = int(max(labels.max(), test_labels.max())) + 1
    network = _build(config, num_classes, min(images.shape[2:])).to(target, memory_format=torch.channels_last)  # type: ignore[call-overload]
    augment = _augmentation(config)

    data = apply_stored(countermeasures, Labelled(images, labels, clean=clean), seed=config.seed)
    data, validation = _split(data, config, countermeasures)
    tests = {"plain": Labelled(test_images, test_labels)}
    processed = apply_at_test(countermeasures, test_images)
    if processed is not test_images:
        tests["processed"] = Labelled(processed, test_labels)
    on_batch = [each for each in countermeasures if each.acts_on == "batch"]

    dtype = autocast_dtype(config.precision, target)
    attack = config.attack
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=0.0,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
    )
    description = {
        "config": json.dumps(config.to_dict(), sort_keys=True),
        "countermeasures": "+".join(each.name for each in countermeasures),
        "data": Labelled(data.images, data.labels).sha256(),
    }
    path = None if checkpoint is None else Path(checkpoint).expanduser()
    state = _Progress(torch.zeros(config.train_steps, device=target), torch.zeros(config.train_steps, device=target))
    first = _resume(path, network, optimizer, state, description) if path is not None and path.exists() else 0
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    images, labels = data.images.to(target), data.labels.to(target)

    started = saved = time.perf_counter()
    before = state.seconds
    marks = {round(config.train_steps * (k + 1) / config.evaluations) for k in range(config.evaluations)}
    with (
        torch.random.fork_rng([target] if target.type == "cuda" else []),
        tqdm(
            total=config.train_steps,
            initial=first,
            desc=f"victim rho_a={config.rho_a * 255:g}/255",
            disable=not progress,
        ) as bar,
    ):
        step = first
        while step < config.train_steps and not state.out_of_patience(config.patience):
            # for what draws by itself: dropout, the transforms of a caller
            torch.manual_seed(stream_seed(config.seed, step))
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * learning_rate_share(step, config)
            rows = batch_rows(step, len(labels), config.batch_size, config.seed, target)
            keys = fold_in(index_keys(rows, config.seed), step)
            with torch.no_grad():
                view, targets = augment(images[rows], fold_in(keys, _AUGMENT)), labels[rows]
            if on_batch:
                targets = F.one_hot(targets, num_classes).float()
                for number, each in enumerate(on_batch):
                    drawn = fold_in(fold_in(keys, _COUNTERMEASURE), number)
                    view, targets = each.on_batch(view, targets, keys=drawn, network=network)
            view = perturb_view(network, view, targets, attack, fold_in(keys, _ATTACK), dtype)
            state.losses[step], state.correct[step] = update_weights(network, optimizer, view, targets, dtype)
            step += 1
            bar.update()
            if step in marks:
                last = state.curve[-1][0] if state.curve else 0
                mean_loss = state.losses[last:step].mean().item()
                measured = max(accuracy(network, each, dtype) for each in tests.values())
                state.curve.append((step, mean_loss, measured))
                if validation is not None:
                    state.validated.append((step, accuracy(network, validation, dtype)))
                    if state.best_step == step:
                        state.best = {key: value.cpu().clone() for key, value in network.state_dict().items()}
                bar.set_postfix_str(f"loss {mean_loss:.3f}, test accuracy {measured:.1%}")
                if not bool(state.losses[:step].isfinite().all()):
                    break  # nothing more comes of it
            if path is not None and time.perf_counter() - saved > CHECKPOINT_SECONDS:
                saved = time.perf_counter()
                state.seconds = before + saved - started
                _save(path, network, optimizer, state, step, description)

    if state.best:
        network.load_state_dict(state.best)
    measured_on = {name: accuracy(network, each, dtype) for name, each in tests.items()}
    better = tests[max(measured_on, key=measured_on.__getitem__)]
    best_point = max(state.curve, key=lambda point: point[2])
    tail = slice(step - max(1, step // 10), step)
    result = VictimResult(
        test_accuracy=max(measured_on.values()),
        test_accuracy_plain=measured_on["plain"],
        test_accuracy_processed=measured_on.get("processed"),
        peak_test_accuracy=best_point[2],
        peak_step=best_point[0],
        robust_accuracy=None if attack is None else robust_accuracy(network, better, attack, dtype),
        train_accuracy=state.correct[tail].mean().item(),
        train_loss=state.losses[tail].mean().item(),
        diverged=not bool(state.losses[:step].isfinite().all()),
        stopped_step=state.best_step if state.best else None,
        curve=tuple(state.curve),
        seconds=before + time.perf_counter() - started,
        passes=step * config.batch_size * (1 + (config.steps_a if attack else 0)),
    )
    if path is not None:
        path.unlink(missing_ok=True)
    return result


def learning_rate_share(step: int, config: VictimConfig) -> float:
    """Share of the peak learning rate at an update, 0..1."""
    if config.schedule == "steps":
        return float(config.decay_factor ** (step // config.decay_every))
    done = (step + 1) / config.train_steps
    return min(done / 0.2, (1 - done) / 0.8)


@torch.no_grad()
def accuracy(network: nn.Module, data: Labelled, dtype: torch.dtype | None) -> float:
    """Share of images whose label the network names, in eval mode; its mode is restored.

    Args:
        network: logits of float images in [0, 1].
        data: uint8 images and their labels.
        dtype: autocast to it; ``None`` for fp32.
    """
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    right = torch.zeros((), dtype=torch.int64, device=device)
    for some, named in zip(torch.split(data.images, 512), torch.split(data.labels, 512), strict=True):
        batch = to_float(some.to(device)).to(memory_format=torch.channels_last)
        right += (forward(network, batch, dtype).argmax(1) == named.to(device)).sum()
    network.train(training)
    return int(right) / len(data.labels)


def robust_accuracy(network: nn.Module, data: Labelled, attack: PGDConfig, dtype: torch.dtype | None) -> float:
    """Share of 1,000 drawn images still named rightly under PGD of twice the attack's steps and half its step size.

    Args:
        network, data, dtype: as for :func:`accuracy`.
        attack: the trainer's own adversary; radius and norm are kept.
    """
    device = next(network.parameters()).device
    attack = replace(attack, steps=2 * attack.steps, alpha=attack.alpha / 2)
    # drawn, since folders are sorted by class
    drawn = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(0))[:ROBUST_IMAGES]
    right = 0
    training = network.training
    network.eval()
    for rows in torch.split(drawn, 256):
        views, labels = to_float(data.images[rows].to(device)), data.labels[rows].to(device)
        keys = index_keys(rows, 0).to(device)
        worst = views + pgd(network, views, labels, attack, keys=keys, maximise=True, dtype=dtype)
        with torch.no_grad():
            logits = forward(network, worst.to(memory_format=torch.channels_last), dtype)
        right += int((logits.argmax(1) == labels).sum())
    network.train(training)
    return right / len(drawn)


def _build(config: VictimConfig, num_classes: int, side: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if isinstance(config.network, str):
            return build_model(config.network, num_classes=num_classes, image_size=side, width=config.width)
        if isinstance(config.network, nn.Module):
            return deepcopy(config.network)
        return config.network(num_classes)


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


def validation_images(config: VictimConfig, count: int) -> int:
    """How many of ``count`` training images early stopping sets aside; 0 without it.

    Raises:
        ValueError: none would be left to validate or to train on.
    """
    if config.patience is None:
        return 0
    held = round(config.validation * count)
    if not 0 < held < count:
        raise ValueError(
            f"validation={config.validation} of {count} images leaves {held} to validate and {count - held} to train on"
        )
    return held


def _split(
    data: Labelled, config: VictimConfig, countermeasures: Sequence[Countermeasure]
) -> tuple[Labelled, Labelled | None]:
    """Set the validation images of early stopping aside, some of them clean (and processed as he processes all)."""
    count = len(data.labels)
    held = validation_images(config, count)
    if not held:
        return data, None
    rows = torch.randperm(count, generator=torch.Generator().manual_seed(stream_seed(config.seed, 0)))
    aside, kept = rows[:held], rows[held:].sort().values
    images = data.images[aside]
    if known := round(config.validation_clean * held):
        if data.clean is None:
            raise ValueError("validation_clean is above 0, but the owner's clean images were not given (clean=...)")
        images[:known] = apply_at_test(countermeasures, data.clean[aside[:known]])
    clean = None if data.clean is None else data.clean[kept]
    return Labelled(data.images[kept], data.labels[kept], clean=clean), Labelled(images, data.labels[aside])


def _name(thing: Any) -> str:
    """What a record calls a network or a pipeline: two that differ must not pass for one."""
    if isinstance(thing, str):
        return thing
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    digest = hashlib.sha256()
    if hasattr(thing, "__code__"):
        digest.update(thing.__code__.co_code + repr(thing.__code__.co_consts).encode())
    else:
        digest.update(re.sub(r" at 0x[0-9a-f]+", "", repr(thing)).encode())
    if isinstance(thing, nn.Module):
        for value in thing.state_dict().values():
            digest.update(value.cpu().contiguous().view(torch.uint8).numpy() if value.ndim else str(value).encode())
    return f"{named.__module__}.{named.__qualname__}#{digest.hexdigest()[:8]}"


def _save(
    path: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: _Progress,
    step: int,
    description: dict[str, str],
) -> None:
    small = {name: json.dumps(getattr(state, name)) for name in ("curve", "validated", "seconds")}
    tensors = {"losses": state.losses, "correct": state.correct}
    tensors |= {f"best.{key}": value for key, value in state.best.items()}
    save_checkpoint(path, network, optimizer, step, {**description, **small}, tensors)


def _resume(
    path: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: _Progress,
    description: dict[str, str],
) -> int:
    """Continue from a checkpoint if it belongs to this training: the updates behind it."""
    checkpoint = load_checkpoint(path)
    differing = [name for name, value in description.items() if checkpoint.metadata.get(name) != value]
    if differing:
        raise ValueError(
            f"checkpoint {str(path)!r} belongs to another training (other {', '.join(differing)}). Use another file."
        )
    checkpoint.restore(network, optimizer)
    extra = checkpoint.extra
    state.losses.copy_(extra["losses"])
    state.correct.copy_(extra["correct"])
    state.best = {key.removeprefix("best."): value for key, value in extra.items() if key.startswith("best.")}
    state.curve = [tuple(point) for point in json.loads(checkpoint.metadata["curve"])]
    state.validated = [tuple(point) for point in json.loads(checkpoint.metadata["validated"])]
    state.seconds = json.loads(checkpoint.metadata["seconds"])
    return checkpoint.step

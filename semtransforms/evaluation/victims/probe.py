"""The linear probe: a linear layer on the features that a pretrained network gives of what was published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semtransforms.data.loading import Labelled
from semtransforms.evaluation.countermeasures import Countermeasure
from semtransforms.evaluation.victims.config import VictimConfig
from semtransforms.evaluation.victims.progress import Progress
from semtransforms.noise.linear import features_of, logistic_regression


def fit_probe(
    network: nn.Module,
    data: Labelled,
    exams: Mapping[str, Labelled],
    num_classes: int,
    config: VictimConfig,
    dtype: torch.dtype | None,
) -> tuple[nn.Module, Progress]:
    """Fit the layer by L-BFGS: multinomial logistic regression with an l2 penalty, on features taken once.

    Args:
        network: gives features (N, F) of float images in [0, 1].
        data: what was published, as it is: no augmentation.
        exams: test images to follow the accuracy on.
        num_classes: of the layer.
        config: iterations at most (``train_steps``), penalty (``weight_decay`` / 2 of the squared weights, without the
            bias, beside the mean cross-entropy), evaluations.
        dtype: autocast to it; ``None`` for fp32.

    Returns:
        The network with the layer behind it, and what was measured on the way.
    """
    state = Progress.none(config.train_steps, torch.device("cpu"))  # whose clock runs from now on
    features, labels = features_of(network, data.images, dtype).double(), data.labels
    tests = {name: features_of(network, each.images, dtype) for name, each in exams.items()}
    longest = -(-config.train_steps // config.evaluations)
    penalty = config.weight_decay
    layer, solver, loss = logistic_regression(features, labels, num_classes, penalty=penalty, iterations=longest)
    while state.done < config.train_steps:
        solver.step(loss)  # type: ignore[no-untyped-call]
        done = min(solver.state[layer.weight]["n_iter"], config.train_steps)
        part = slice(state.done, done)
        state.losses[part] = loss().item()
        state.correct[part] = _share_right(layer(features), labels)
        arrived = done - state.done < longest
        state.done = done
        head = layer.weight.float(), layer.bias.float()
        tested = max(_share_right(F.linear(tests[name], *head), exams[name].labels) for name in tests)
        state.record_accuracy(layer, tested, None)
        if arrived:
            break
    return nn.Sequential(network, layer.float().to(next(network.parameters()).device)), state


def refuse_batches(config: VictimConfig, countermeasures: Sequence[Countermeasure]) -> None:
    """See that a trainer who has no batches of images with targets can do what they do about the noise.

    Args:
        config: of a probe, or of who learns without labels; all others may do anything.
        countermeasures: theirs, in order.

    Raises:
        ValueError: something acts on the batches of a training.
    """
    if not config.is_probe and not config.contrastive:
        return
    for each in countermeasures:
        if each.acts_on == "batch":
            why = "a probe takes its features once. Leave one of the two out, or use last-block."
            if config.contrastive:
                why = "contrastive training draws its own views of each image. Leave one of the two out."
            raise ValueError(f"countermeasure {each.name!r} acts on each batch of a training, and {why}")


def _share_right(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(1) == labels).float().mean().item()

"""The linear probe: a linear layer on the features that a pretrained network gives of what was published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semtransforms.core.grid import to_float
from semtransforms.data.loading import Labelled
from semtransforms.evaluation.countermeasures import Countermeasure
from semtransforms.evaluation.victims.config import VictimConfig
from semtransforms.evaluation.victims.progress import Progress
from semtransforms.noise.pgd import forward

FLAT = 1e-6  # largest slope of the loss at which the solver is done


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
    device = next(network.parameters()).device
    layer = nn.Linear(features.shape[1], num_classes, dtype=torch.float64)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    # in few calls of many iterations each: torch forgets the curvature between calls, and would stall in short ones
    longest = -(-config.train_steps // config.evaluations)
    optimizer = torch.optim.LBFGS(
        layer.parameters(), max_iter=longest, tolerance_grad=FLAT, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        found: Tensor = F.cross_entropy(layer(features), labels)
        found = found + config.weight_decay / 2 * layer.weight.square().sum()
        found.backward()  # type: ignore[no-untyped-call]
        return found

    while state.done < config.train_steps:
        optimizer.step(loss)  # type: ignore[no-untyped-call]
        done = min(optimizer.state[layer.weight]["n_iter"], config.train_steps)
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
    return nn.Sequential(network, layer.float().to(device)), state


def refuse_batches(countermeasures: Sequence[Countermeasure]) -> None:
    """See that a probe can do what a trainer does about the noise.

    Raises:
        ValueError: something acts on the batches of a training, which a probe does not have.
    """
    for each in countermeasures:
        if each.acts_on == "batch":
            raise ValueError(
                f"countermeasure {each.name!r} acts on each batch of a training, and a probe takes its features once. "
                "Leave one of the two out, or use last-block."
            )


def _share_right(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(1) == labels).float().mean().item()


@torch.no_grad()
def features_of(network: nn.Module, images: Tensor, dtype: torch.dtype | None) -> Tensor:
    """The features of images, in eval mode.

    Args:
        network: gives them.
        images: uint8 (N, 3, H, W).
        dtype: autocast to it; ``None`` for fp32.

    Returns:
        float32 (N, F), on the CPU.
    """
    network.eval()
    device = next(network.parameters()).device
    batches = (to_float(some.to(device)).to(memory_format=torch.channels_last) for some in torch.split(images, 128))
    return torch.cat([forward(network, batch, dtype).cpu() for batch in batches])

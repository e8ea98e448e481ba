"""A linear layer on the features of a network: what a pretrained surrogate and a probe have behind them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from semtransforms.core.grid import to_float
from semtransforms.noise.pgd import forward

FLAT = 1e-6  # largest slope of the loss at which the solver is done


@torch.no_grad()
def features_of(
    network: nn.Module, images: Tensor, dtype: torch.dtype | None, *, batch: int = 128, progress: bool = False
) -> Tensor:
    """The features of images; puts the network into eval mode.

    Args:
        network: gives features (N, F) of float images in [0, 1].
        images: uint8 (N, 3, H, W).
        dtype: autocast to it; ``None`` for fp32.
        batch: images at a time.
        progress: show a bar.

    Returns:
        float32 (N, F), on the CPU.
    """
    device = next(network.parameters()).device
    found = []
    network.eval()
    with tqdm(total=len(images), desc="features", unit="img", disable=not progress) as bar:
        for some in torch.split(images, batch):
            views = to_float(some.to(device)).to(memory_format=torch.channels_last)
            found.append(forward(network, views, dtype).cpu())
            bar.update(len(some))
    return torch.cat(found)


def logistic_regression(
    features: Tensor, labels: Tensor, num_classes: int, *, penalty: float, iterations: int
) -> tuple[nn.Linear, torch.optim.LBFGS, Callable[[], Tensor]]:
    """A layer of zeros, and what fits it: multinomial logistic regression by L-BFGS.

    Args:
        features: float (N, F).
        labels: int64 (N,), on the same device.
        num_classes: C.
        penalty: half of it times the squared weights, without the bias, is added to the mean cross-entropy.
        iterations: of one call of the solver's ``step``, at most. It ends before where the loss is flat.

    Returns:
        The float64 layer, its solver, and the loss that ``solver.step`` takes.
    """
    features = features.double()
    layer = nn.Linear(features.shape[1], num_classes, dtype=torch.float64, device=features.device)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    solver = torch.optim.LBFGS(
        layer.parameters(),
        max_iter=iterations,
        max_eval=25 * iterations,  # a call that ends at torch's own limit would look like the end of the way
        tolerance_grad=FLAT,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        solver.zero_grad()
        found: Tensor = F.cross_entropy(layer(features), labels) + penalty / 2 * layer.weight.square().sum()
        found.backward()  # type: ignore[no-untyped-call]
        return found

    return layer, solver, loss

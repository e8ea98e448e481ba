"""The one loop: projected gradients on a frozen network (Algorithm 1, lines 2-9 and 11)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semtransforms.core.config import PGDConfig, Uniform
from semtransforms.core.hardware import free_memory
from semtransforms.core.keys import fold_in, keyed_uniform
from semtransforms.noise.ball import per_image_norm, project, project_l2
from semtransforms.noise.fuse import fuse_batch_norm
from semtransforms.views.eot import EOT

# what a key is folded with, so that no two draws of a step share numbers
_START, _TRANSFORM, _INNER, _STEPS = range(4)
_LENGTH = 1  # of an l2 start; free here, since _TRANSFORM and _INNER are folded into a step's keys only


def pgd(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    config: PGDConfig,
    *,
    keys: Tensor,
    maximise: bool = False,
    eot: EOT | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Descend (or climb) the network's loss inside a ball around each image.

    At each of K steps the gradient is the mean over J draws of: transform the perturbed image by t ~ T, add the
    inner perturbation (held constant, Eq. 6 and 10), take the gradient there, pull it back through t.

    Args:
        network: maps float (N, C, H, W) in [0, 1] to logits (N, classes). Its mode and ``requires_grad`` are
            restored afterwards.
        images: float32 (N, C, H, W) in [0, 1].
        labels: int64 (N,), or float (N, classes), the probabilities of soft labels.
        config: radius, step, K, J, the norm and the inner perturbation.
        keys: int64 (N,), one per image: all randomness comes from them.
        maximise: climb the loss (an adversary) instead of descending it (defensive noise).
        eot: T; ``None`` for the identity.
        dtype: autocast the network to it; ``None`` for fp32.

    Returns:
        float32 (N, C, H, W): delta with norm <= rho and ``images + delta`` in [0, 1].
    """
    largest_batch = largest_batches(network)
    into_ball, direction = (project, torch.Tensor.sign_) if config.norm == "linf" else (project_l2, _unit)
    with frozen(network):
        fused = fuse_batch_norm(network)
        _LARGEST_BATCH[fused] = largest_batch  # for the loop inside this one (REM), which is given the fused network
        delta = 2 * keyed_uniform(fold_in(keys, _START), images.shape[1:]) - 1
        if config.norm == "l2":  # any length up to the radius, each equally often
            delta = _unit(delta).mul_(keyed_uniform(fold_in(keys, _LENGTH), (1, 1, 1)))
        delta = into_ball(delta.mul_(config.rho), images, config.rho)
        step = config.alpha if maximise else -config.alpha
        for k in range(config.steps):
            gradient = mean_gradient(
                fused, images + delta, labels, config, fold_in(keys, _STEPS + k), eot, dtype, largest_batch
            )
            delta = into_ball(delta.add_(direction(gradient), alpha=step), images, config.rho)
    return delta


def _unit(gradient: Tensor) -> Tensor:
    """Each image's gradient at length 1; one that vanishes stays 0."""
    return gradient / per_image_norm(gradient).clamp_(min=torch.finfo(gradient.dtype).tiny)


def perturb_view(
    network: nn.Module,
    views: Tensor,
    labels: Tensor,
    inner: Uniform | PGDConfig | None,
    keys: Tensor,
    dtype: torch.dtype | None,
) -> Tensor:
    """Add to transformed images what the loss is to be seen through: nothing, uniform noise, or an adversary's worst.

    Args:
        network, labels, keys, dtype: as for :func:`pgd`.
        views: float32 (N, C, H, W) in [0, 1], already transformed.
        inner: the perturbation; ``None`` returns the views as they are.

    Returns:
        float32 (N, C, H, W) in [0, 1].
    """
    if inner is None:
        return views
    if isinstance(inner, Uniform):
        noise = keyed_uniform(keys, views.shape[1:]).mul_(2).sub_(1).mul_(inner.radius)
        return noise.add_(views).clamp_(0, 1)
    return views + pgd(network, views, labels, inner, keys=keys, maximise=True, dtype=dtype)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Eval mode and no weight gradients inside; every module's mode and ``requires_grad`` restored afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    wanted = [(weight, weight.requires_grad) for weight in network.parameters()]
    # eval mode: batch statistics of perturbed images would leak into the noise, and one image into another's
    network.eval()
    for weight, _ in wanted:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for weight, want in wanted:
            weight.requires_grad_(want)


def mean_gradient(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    config: PGDConfig,
    keys: Tensor,
    eot: EOT | None,
    dtype: torch.dtype | None,
    largest_batch: dict[torch.Size, int],
) -> Tensor:
    """Line 7: the sum over J samples (its sign is the mean's), J * N images at a time as far as memory goes."""
    count, samples = len(images), config.num_samples
    gradients = images.new_empty(samples * count, *images.shape[1:])
    sample_keys = torch.cat([fold_in(keys, j) for j in range(samples)])
    rows = torch.arange(count, device=images.device).repeat(samples)
    start = 0
    shape = images.shape[1:]
    while start < len(gradients):
        if shape not in largest_batch:
            largest_batch[shape] = _measure_largest_batch(network, images[:1])
        part = slice(start, min(start + largest_batch[shape], len(gradients)))
        try:
            gradients[part] = _gradient(
                network, images[rows[part]], labels[rows[part]], config.inner, sample_keys[part], eot, dtype
            )
        except RuntimeError as error:
            if not is_out_of_memory(error) or largest_batch[shape] == 1:
                raise
        else:
            start = part.stop
            continue
        # outside the handler, whose traceback would keep the failed attempt's tensors alive
        largest_batch[shape] = max(1, (part.stop - part.start) // 2)
        if images.device.type == "cuda":
            torch.cuda.empty_cache()
    return gradients.view(samples, *images.shape).sum(0)


def _gradient(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    inner: Uniform | PGDConfig | None,
    keys: Tensor,
    eot: EOT | None,
    dtype: torch.dtype | None,
) -> Tensor:
    images = images.detach()
    if eot is None:
        point = perturb_view(network, images, labels, inner, fold_in(keys, _INNER), dtype)
        return _gradient_at(network, point, labels, dtype)
    with torch.enable_grad():
        images.requires_grad_()
        views = eot(images, fold_in(keys, _TRANSFORM))
    point = perturb_view(network, views.detach(), labels, inner, fold_in(keys, _INNER), dtype)
    pulled = torch.autograd.grad(views, images, _gradient_at(network, point, labels, dtype))[0]
    # where t has no derivative (gamma at black), this sample has no say
    return pulled.nan_to_num_(0, 0, 0)


def _gradient_at(network: nn.Module, point: Tensor, labels: Tensor, dtype: torch.dtype | None) -> Tensor:
    # a fresh leaf: the perturbation is held constant (Eq. 6, 10), the gradient is the perturbed point's own
    point = point.detach().to(memory_format=torch.channels_last).requires_grad_()
    with torch.enable_grad():
        logits = forward(network, point, dtype)
        # summed, not averaged: an image's gradient must not scale with the batch it comes in
        loss = F.cross_entropy(logits, labels, reduction="sum")
    return torch.autograd.grad(loss, point)[0]


def forward(network: nn.Module, images: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Logits in float32, computed under autocast to ``dtype`` unless it is ``None``."""
    with torch.autocast(images.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        logits: Tensor = network(images)
    return logits.float()


def update_weights(
    network: nn.Module, optimizer: torch.optim.Optimizer, views: Tensor, targets: Tensor, dtype: torch.dtype | None
) -> tuple[Tensor, Tensor]:
    """One update by the mean cross-entropy, in train mode: batch statistics (Algorithm 1, line 12).

    Args:
        network, dtype: as for :func:`pgd`.
        optimizer: over the network's weights.
        views: float32 (N, C, H, W) in [0, 1], as the network is to see them.
        targets: int64 (N,), or float (N, classes), the probabilities of soft labels.

    Returns:
        The loss and the share of images named rightly before the update, 0-d tensors on the device.
    """
    found = weight_gradient(network, optimizer, views, targets, dtype)
    optimizer.step()
    return found


def weight_gradient(
    network: nn.Module, optimizer: torch.optim.Optimizer, views: Tensor, targets: Tensor, dtype: torch.dtype | None
) -> tuple[Tensor, Tensor]:
    """The gradient of :func:`update_weights`, left in the weights; arguments and returns are its."""
    network.train()
    logits = forward(network, views.to(memory_format=torch.channels_last), dtype)
    loss = F.cross_entropy(logits, targets)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    named = targets if targets.ndim == 1 else targets.argmax(1)
    return loss.detach(), (logits.argmax(1) == named).float().mean()


# --- how many images one gradient can take -----------------------------------------------------------------------

# per network and image shape; measured at the first gradient, lowered where memory runs out after all
_LARGEST_BATCH: WeakKeyDictionary[nn.Module, dict[torch.Size, int]] = WeakKeyDictionary()


def largest_batches(network: nn.Module) -> dict[torch.Size, int]:
    """What is known of a network: image shape to the images that one gradient can take; for :func:`mean_gradient`."""
    return _LARGEST_BATCH.setdefault(network, {})


def _measure_largest_batch(network: nn.Module, image: Tensor) -> int:
    """Images whose activations fill half of the free memory, from what the graph of one image keeps."""
    saved: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        saved[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        network(image.detach().requires_grad_())
    weights = {weight.data_ptr() for weight in network.parameters()}
    size = sum(bytes_ for pointer, bytes_ in saved.items() if pointer not in weights)
    # twice: the gradients of the activations live beside them, and convolutions want workspace
    return max(1, free_memory(image.device) // 2 // max(1, 2 * size))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch failed for want of memory, on any device."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)

"""What the noise is like: how visible, how strong, how linear, and how robust (Definitions 1 and 2).

Figure 3's correlation of the two robustnesses with the protection is ``statistics.correlation`` of the standard
library.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from kornia.metrics import ssim
from torch import Tensor, nn
from torch.nn import functional as F

from semtransforms.core.config import PGDConfig
from semtransforms.core.grid import levels, to_float
from semtransforms.core.keys import fold_in, index_keys
from semtransforms.data.images import check_labels
from semtransforms.evaluation.victims import VictimConfig, train_victim
from semtransforms.noise.pgd import forward, frozen, perturb_view, pgd
from semtransforms.views.eot import EOT

WINDOW = 11  # pixels: the Gaussian window (sigma 1.5) of SSIM, Wang et al. 2004
BANDS = (1 / 8, 1 / 4)  # cycles per pixel: periods above 8 pixels are low, from 8 to above 4 mid, the others high
CHUNK = 2**22  # values looked at together: 1,365 images of 3 x 32 x 32
LINEAR_VALUES = 2**27  # values the linear model sees, 1 GiB in float64: 43,690 images of 3 x 32 x 32

# what a key is folded with, so that no two draws of an image share numbers
_NOISE, _VIEW, _ATTACK = range(3)


@dataclass(frozen=True)
class NoiseMetrics:
    """What was done to a set of images, read off the stored bytes; a value is one channel of one pixel.

    Args:
        psnr: peak signal-to-noise ratio in dB, the mean over the images that were changed (an unchanged one's is
            infinite, which JSON cannot say); ``None`` if none was.
        ssim: structural similarity (Wang et al. 2004), -1..1, the mean over images and channels; ``None`` for images
            smaller than its window of 11 x 11 pixels.
        linf: largest change of a value, in grey levels.
        l2: norm of an image's change, the mean over images, in units of the pixel range.
        share_at_bound: share of values changed by the bound or more, 0..1.
        share_changed: share of values changed at all, 0..1.
        unchanged_images: number of images of which no value was changed.
        spectrum_low, spectrum_mid, spectrum_high: the noise's power per frequency, averaged over the band, as shares
            of the three bands' sum: a third each for white noise, all 0 without noise. Low are periods above 8
            pixels and the mean, mid from 8 to above 4 pixels, high 4 pixels and less.
        linear_accuracy: of a linear model on the noise alone, 0..1, as :func:`linear_accuracy`; ``None`` for fewer than
            five images.
        guess_rate: share of the most frequent label, 0..1: what a model reaches that looks at nothing.
    """

    psnr: float | None
    ssim: float | None
    linf: int
    l2: float
    share_at_bound: float
    share_changed: float
    unchanged_images: int
    spectrum_low: float
    spectrum_mid: float
    spectrum_high: float
    linear_accuracy: float | None
    guess_rate: float

    def to_dict(self) -> dict[str, Any]:
        """Every field as a JSON value."""
        return asdict(self)


def describe_noise(
    clean: Tensor, protected: Tensor, labels: Tensor, *, rho_u: float | None = None, seed: int = 0
) -> NoiseMetrics:
    """Measure what protection did to images: the difference of the stored bytes, clipping included.

    Args:
        clean: uint8 (N, 3, H, W).
        protected: uint8, the same images in the same order.
        labels: int64 (N,).
        rho_u: the bound for ``share_at_bound``, a fraction of the pixel range; ``None`` for the largest change found.
        seed: of the linear model's split.

    Returns:
        The metrics.

    Raises:
        TypeError: images are not one uint8 tensor.
        ValueError: shapes or lengths differ.
    """
    labels = _checked("clean", clean, labels)
    _checked("protected", protected, labels)
    if clean.shape != protected.shape:
        raise ValueError(
            f"protected must be the images of clean, in the same order and size: got shapes {tuple(protected.shape)} "
            f"and {tuple(clean.shape)}"
        )
    noise = protected.to(torch.int16) - clean
    linf = int(noise.abs().max())
    bound = linf if rho_u is None else levels(rho_u)
    power = torch.zeros(noise.shape[2:], dtype=torch.float64)
    similarities, energies = [], []
    chunk = max(1, CHUNK // noise[0].numel())
    for before, after, some in zip(*(torch.split(part, chunk) for part in (clean, protected, noise)), strict=True):
        change = some.float() / 255
        energies.append(change.double().square().sum((1, 2, 3)))
        power += torch.fft.fft2(change).abs().double().square().sum((0, 1))
        if min(noise.shape[2:]) >= WINDOW:
            pair = to_float(before), to_float(after)
            # no border and no epsilon, as in the original: figures compare with those of other libraries
            similarities.append(ssim(*pair, WINDOW, eps=0.0, padding="valid").mean((1, 2, 3)))
    energy = torch.cat(energies)
    changed = energy > 0
    decibel = -10 * (energy[changed] / noise[0].numel()).log10()
    low, mid, high = _spectrum(power)
    return NoiseMetrics(
        psnr=decibel.mean().item() if len(decibel) else None,
        ssim=torch.cat(similarities).mean().item() if similarities else None,
        linf=linf,
        l2=energy.sqrt().mean().item(),
        share_at_bound=(noise.abs() >= max(1, bound)).double().mean().item(),  # no change is at no bound
        share_changed=(noise != 0).double().mean().item(),
        unchanged_images=int((~changed).sum()),
        spectrum_low=low,
        spectrum_mid=mid,
        spectrum_high=high,
        linear_accuracy=linear_accuracy(noise, labels, seed=seed) if len(noise) >= 5 else None,
        guess_rate=int(labels.bincount().max()) / len(labels),
    )


def _spectrum(power: Tensor) -> list[float]:
    """Shares of the bands in the mean power per frequency, from float64 (H, W) as ``fft2`` orders it."""
    rows, columns = (torch.fft.fftfreq(side, dtype=torch.float64) for side in power.shape)
    band = torch.bucketize(torch.hypot(rows[:, None], columns), torch.tensor(BANDS, dtype=torch.float64), right=True)
    in_band = F.one_hot(band, len(BANDS) + 1).double()
    # images of four pixels and less have no mid frequency: nothing there, not 0 / 0
    mean = (in_band * power[..., None]).sum((0, 1)) / in_band.sum((0, 1)).clamp(min=1)
    shares: list[float] = (mean / mean.sum().clamp(min=torch.finfo(mean.dtype).tiny)).tolist()
    return shares


def linear_accuracy(noise: Tensor, labels: Tensor, *, seed: int = 0) -> float:
    """How well a linear model reads the label from the noise alone: what makes noise a shortcut (Yu et al. 2022).

    Ridge regression to one-hot labels with intercept, in closed form; the penalty is the mean squared norm of the
    centred noise, so that neither its scale nor the size of the images matters. A fifth of the images is held out:
    the first of ``torch.randperm`` under the seed. Of more than 2**27 values (43,690 images of 3 x 32 x 32) only as
    many images as that holds are used, again the first.

    Args:
        noise: (N, 3, H, W), any type that holds grey levels.
        labels: int64 (N,).
        seed: of the split.

    Returns:
        Accuracy on the held-out images, 0..1.

    Raises:
        ValueError: fewer than five images, or labels of another number.
    """
    if len(noise) < 5 or len(noise) != len(labels):
        raise ValueError(
            f"noise must hold at least five images (a fifth is held out) with one label each, got {len(noise)} and "
            f"{len(labels)} labels"
        )
    order = torch.randperm(len(noise), generator=torch.Generator().manual_seed(seed))
    order = order[: max(5, LINEAR_VALUES // noise[0].numel())]
    test, train = order[: len(order) // 5], order[len(order) // 5 :]
    fitted, held_out = noise[train].flatten(1).double(), noise[test].flatten(1).double()
    centre = fitted.mean(0)
    fitted -= centre
    wanted = F.one_hot(labels, int(labels.max()) + 1)[train].double()
    penalty = fitted.square().sum().div(len(fitted)).clamp(min=1e-9).item()  # without noise every weight is 0
    if len(fitted) < fitted.shape[1]:  # the dual form: the smaller system of the two, the same weights
        weights = fitted.T @ _solve(fitted @ fitted.T, penalty, wanted)
    else:
        weights = _solve(fitted.T @ fitted, penalty, fitted.T @ wanted)
    named = ((held_out - centre) @ weights + wanted.mean(0)).argmax(1)
    return (named == labels[test]).double().mean().item()


def _solve(gram: Tensor, penalty: float, right: Tensor) -> Tensor:
    gram.diagonal().add_(penalty)
    return torch.cholesky_solve(right, torch.linalg.cholesky(gram))


def surrogate_robustness(
    surrogate: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    defense: PGDConfig,
    attack: PGDConfig,
    eot: EOT | None = None,
    seed: int = 0,
    batch_size: int = 256,
    dtype: torch.dtype | None = None,
) -> float:
    """R_theta of Eq. 8: how little an adversary gains on a fixed surrogate against noise made for it anew.

    As in the paper's own loop, the noise descends on what the adversary leaves at each of its steps; then comes a
    fresh transformation, the worst perturbation of that view, and the loss.

    Args:
        surrogate: maps float (N, 3, H, W) in [0, 1] to logits; its mode and ``requires_grad`` are restored.
        images: uint8 (N, 3, H, W), clean.
        labels: int64 (N,).
        defense: rho_u, alpha_u, K_u and J of the noise; its ``inner`` is replaced by ``attack``.
        attack: rho_a, alpha_a and K_a of the adversary.
        eot: T; ``None`` for the identity.
        seed: of the starting points and transformations, drawn per image.
        batch_size: images at a time; up to rounding it does not change the result.
        dtype: autocast the surrogate to it; ``None`` for fp32.

    Returns:
        Minus the mean loss: 0 is the most robust.

    Raises:
        TypeError: images are not one uint8 tensor.
        ValueError: no images, or labels of another number.
    """
    labels = _checked("images", images, labels)
    device = next(surrogate.parameters()).device
    defense = replace(defense, inner=attack)
    keys = index_keys(torch.arange(len(images)), seed)
    total = 0.0
    batches = zip(*(torch.split(part, batch_size) for part in (images, labels, keys)), strict=True)
    with frozen(surrogate), torch.no_grad():
        for pixels, named, own in batches:
            pixels, named, own = pixels.to(device), named.to(device), own.to(device)
            view = to_float(pixels)
            view += pgd(surrogate, view, named, defense, keys=fold_in(own, _NOISE), eot=eot, dtype=dtype)
            if eot is not None:
                view = eot(view, fold_in(own, _VIEW))
            view = perturb_view(surrogate, view, named, attack, fold_in(own, _ATTACK), dtype)
            total += F.cross_entropy(forward(surrogate, view, dtype), named, reduction="sum").item()
    return -total / len(images)


def noise_robustness(
    protected: Tensor, labels: Tensor, config: VictimConfig, *, device: str | torch.device | None = None
) -> float:
    """R_delta_u of Eq. 9: how well a fresh network, trained adversarially, still fits the images with a fixed noise.

    Args:
        protected: uint8 (N, 3, H, W).
        labels: int64 (N,).
        config: of the training; ``rho_a`` is the adversary's radius.
        device: where to train; default: CUDA if present.

    Returns:
        Minus the adversarial training loss, the mean over the last tenth of the steps: 0 is the most robust.

    Raises:
        TypeError: images are not one uint8 tensor.
        ValueError: no images, labels of another number, an unknown network.
    """
    labels = _checked("protected", protected, labels)
    # the trainer wants a test set, the equation has none: the least that will do
    result = train_victim(
        protected, labels, config, test_images=protected[:1], test_labels=labels[:1], device=device, progress=False
    )
    return -result.train_loss


def _checked(name: str, images: Tensor, labels: Tensor) -> Tensor:
    """The labels as int64, after a look at what goes with them."""
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        found = str(images.dtype) if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(
            f"{name} must be one uint8 tensor (N, 3, H, W), got {found}. Measure each image size by itself."
        )
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"{name} must be uint8 (N, 3, H, W), got shape {tuple(images.shape)}")
    labels = check_labels(labels, None)
    if len(images) == 0 or len(images) != len(labels):
        raise ValueError(f"{name} must be non-empty with one label each, got {len(images)} and {len(labels)} labels")
    return labels

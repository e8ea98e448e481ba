"""The one loop, against NumPy on a network whose gradient is known in closed form."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import nn

import semtransforms.noise.pgd as pgd_module
from semtransforms.core.config import PGDConfig, Transformation, Uniform
from semtransforms.core.keys import fold_in, index_keys, keyed_uniform
from semtransforms.core.models import build_model
from semtransforms.noise.pgd import pgd
from semtransforms.views.eot import build_eot
from semtransforms.views.members import Crop

SHAPE = (3, 6, 6)
RHO, ALPHA = 8 / 255, 3 / 255


class Linear(nn.Module):
    """Logits W x: the gradient of the cross-entropy is W^T (softmax(W x) - onehot(y))."""

    def __init__(self, classes=4):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(classes, int(np.prod(SHAPE)), generator=generator) * 0.3)

    def forward(self, images):
        return images.flatten(1) @ self.weight.T

    def numpy_gradient(self, point, label):
        weight = self.weight.detach().double().numpy()
        logits = weight @ point.reshape(-1)
        softmax = np.exp(logits - logits.max())
        softmax /= softmax.sum()
        return (weight.T @ (softmax - np.eye(len(weight))[label])).reshape(point.shape)


def problem(count=5):
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(count, *SHAPE, generator=generator)
    return Linear(), images, torch.arange(count) % 4, index_keys(torch.arange(count), seed=0)


def start_of(keys, images):
    return project(RHO * (2 * keyed_uniform(fold_in(keys, 0), SHAPE).numpy().astype(float) - 1), images, RHO)


def project(delta, images, rho):
    return np.clip(images + np.clip(delta, -rho, rho), 0, 1) - images


@pytest.mark.parametrize("maximise", [False, True])
@pytest.mark.parametrize("inner", [None, Uniform(4 / 255)])
@pytest.mark.parametrize("with_eot", [False, True])
def test_agrees_with_numpy(maximise, inner, with_eot):
    """Eq. 6 and 10 written out in NumPy: a wrong sign, order, clamp or pull-back through t shows here."""
    network, images, labels, keys = problem()
    config = PGDConfig(RHO, ALPHA, steps=3, inner=inner, num_samples=3)
    eot = build_eot([Transformation("crop", {"padding": 1})]) if with_eot else None
    got = pgd(network, images, labels, config, keys=keys, maximise=maximise, eot=eot).numpy()

    clean = images.double().numpy()
    delta = start_of(keys, clean)
    for k in range(config.steps):
        gradient = np.zeros_like(clean)
        step_keys = fold_in(keys, 3 + k)
        for j in range(config.num_samples):
            sample_keys = fold_in(step_keys, j)
            offsets = np.ones((len(clean), 2), dtype=int)
            if with_eot:
                offsets = Crop(1).draw(fold_in(fold_in(sample_keys, 1), 0), images.shape)["offset"].numpy()
            noise = np.zeros_like(clean)
            if inner is not None:
                noise = inner.radius * (2 * keyed_uniform(fold_in(sample_keys, 2), SHAPE).double().numpy() - 1)
            for i, (row, column) in enumerate(offsets):
                padded = np.pad(clean[i] + delta[i], ((0, 0), (1, 1), (1, 1)))
                view = padded[:, row : row + 6, column : column + 6]
                point = np.clip(view + noise[i], 0, 1)  # added after t, clamped, held constant
                pulled = np.zeros_like(padded)
                pulled[:, row : row + 6, column : column + 6] = network.numpy_gradient(point, labels[i])
                gradient[i] += pulled[:, 1:7, 1:7] / config.num_samples
        delta = project(delta + (ALPHA if maximise else -ALPHA) * np.sign(gradient), clean, RHO)
    np.testing.assert_allclose(got, delta, atol=1e-6)


def test_the_inner_adversary_is_the_same_loop():
    """REM's noise step: the adversary climbs at the transformed image, and its result is held constant."""
    network, images, labels, keys = problem()
    adversary = PGDConfig(4 / 255, 2 / 255, steps=2)
    got = pgd(network, images, labels, PGDConfig(RHO, ALPHA, 1, inner=adversary), keys=keys).numpy()
    clean = images.double().numpy()
    delta = start_of(keys, clean)
    worst = pgd(
        network, torch.from_numpy(clean + delta).float(), labels, adversary,
        keys=fold_in(fold_in(fold_in(keys, 3), 0), 2), maximise=True,
    ).double().numpy()  # fmt: skip
    gradient = np.stack([network.numpy_gradient(p, y) for p, y in zip(clean + delta + worst, labels, strict=True)])
    np.testing.assert_allclose(got, project(delta - ALPHA * np.sign(gradient), clean, RHO), atol=1e-6)


def test_descends_and_climbs():
    """Defensive noise must lower the loss and an adversary raise it, or the two are swapped."""
    network, images, labels, keys = problem(32)
    config = PGDConfig(RHO, RHO / 4, steps=10)

    def loss(delta):
        return nn.functional.cross_entropy(network(images + delta), labels).item()

    clean = loss(torch.zeros_like(images))
    assert loss(pgd(network, images, labels, config, keys=keys)) < clean - 0.2
    assert loss(pgd(network, images, labels, config, keys=keys, maximise=True)) > clean + 0.2


def test_stays_in_the_ball_and_the_image():
    """The bound is the product's promise."""
    network, images, labels, keys = problem()
    images[0], images[1] = 0.0, 1.0
    delta = pgd(network, images, labels, PGDConfig(RHO, 1.0, steps=2), keys=keys)
    assert delta.abs().max() <= RHO + 1e-7
    assert (images + delta).min() >= -1e-7
    assert (images + delta).max() <= 1 + 1e-7


def test_l2_agrees_with_numpy():
    """Steps along the gradient at unit length, projected by scaling: a sign step here would be another adversary."""
    network, images, labels, keys = problem()
    images[0, :, :3] = 0.0  # where the range of pixels binds
    rho, alpha = 0.8, 0.3
    config = PGDConfig(rho, alpha, steps=4, norm="l2")
    start = pgd(network, images, labels, replace(config, steps=0), keys=keys).double().numpy()
    delta, clean = start, images.double().numpy()
    for _ in range(config.steps):
        for i, label in enumerate(labels):
            gradient = network.numpy_gradient(clean[i] + delta[i], label)
            delta[i] += alpha * gradient / np.linalg.norm(gradient)
            delta[i] *= min(1, rho / np.linalg.norm(delta[i]))
            delta[i] = np.clip(clean[i] + delta[i], 0, 1) - clean[i]
    got = pgd(network, images, labels, config, keys=keys, maximise=True).numpy()
    np.testing.assert_allclose(got, delta, atol=1e-5)
    assert np.linalg.norm(got.reshape(len(got), -1), axis=1).max() <= rho + 1e-5


def test_l2_starts_anywhere_in_the_ball():
    """A start always at the centre or the rim makes the adversary weaker than the one it is named after."""
    network, images, labels, _ = problem(200)
    images[:] = 0.5
    keys = index_keys(torch.arange(200), seed=0)
    start = pgd(network, images, labels, PGDConfig(0.4, 0.1, 0, norm="l2"), keys=keys)
    lengths = start.flatten(1).norm(dim=1) / 0.4
    assert lengths.max() <= 1 + 1e-5
    assert kstest(lengths.numpy(), "uniform").pvalue > 0.001


def test_l2_of_a_vanishing_gradient_stays():
    """0 / 0 would fill the image with NaN where the network is flat."""
    _, images, labels, keys = problem()
    flat = Linear()
    flat.weight.data.zero_()
    delta = pgd(flat, images, labels, PGDConfig(0.4, 0.1, 2, norm="l2"), keys=keys)
    assert bool(delta.isfinite().all())


def test_soft_labels_pull_towards_their_mixture():
    """A trainer with MixUp and an adversary attacks the mixture; taking its first label would be a weaker one."""
    network, images, labels, keys = problem()
    config = PGDConfig(RHO, ALPHA, steps=2)
    hard = pgd(network, images, labels, config, keys=keys)
    soft = pgd(network, images, nn.functional.one_hot(labels, 4).float(), config, keys=keys)
    mixed = pgd(network, images, torch.full((len(labels), 4), 0.25), config, keys=keys)
    assert torch.equal(hard, soft)
    assert not torch.equal(hard, mixed)


def convnet():
    torch.manual_seed(0)
    network = build_model("convnet", num_classes=4, image_size=8, width=4)
    network(torch.rand(16, 3, 8, 8))  # running statistics that differ from the batch's
    return network


@pytest.mark.parametrize("most", [1, 4, 7])
def test_samples_as_one_batch_equal_one_after_the_other(most, monkeypatch):
    """The J * B batch is a speed-up only if its parts, whatever memory allows, give the same noise."""
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels, keys = torch.arange(6) % 4, index_keys(torch.arange(6), 0)
    config = PGDConfig(RHO, ALPHA, steps=3, inner=Uniform(4 / 255), num_samples=5)
    eot = build_eot([Transformation("crop", {"padding": 2}), Transformation("flip")])
    whole = pgd(convnet(), images, labels, config, keys=keys, eot=eot)
    monkeypatch.setattr(pgd_module, "_measure_largest_batch", lambda network, image: most)
    sizes = []
    network = convnet()
    network[0].register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    parts = pgd(network, images, labels, config, keys=keys, eot=eot)
    assert max(sizes) == most
    assert sum(sizes) == 3 * 5 * 6
    agree = ((whole - parts).abs() < 1e-6).float().mean()
    assert agree >= 0.999  # a sign may flip where the gradient is 0 up to rounding


def test_memory_decides_how_many_images_a_gradient_takes(monkeypatch):
    """With half the free memory half as many images may go at once; with next to none still one."""
    network, image = convnet().eval(), torch.rand(1, 3, 8, 8)
    found = []
    for free in (1 << 30, 1 << 29, 1):
        monkeypatch.setattr(pgd_module, "free_memory", lambda device, free=free: free)
        found.append(pgd_module._measure_largest_batch(network, image))
    assert found[0] // 2 == found[1]
    assert found[2] == 1
    # by hand: the activations of one 8 x 8 image in a convnet of width 4 take some kilobytes, not megabytes
    assert 1e4 < found[0] < 1e6


def test_out_of_memory_halves_until_it_fits():
    """A user with a small GPU must get their noise, slower; only a single image that does not fit is an error."""
    network, images, labels, keys = problem(8)
    config = PGDConfig(RHO, ALPHA, steps=2, num_samples=4)
    expected = pgd(network, images, labels, config, keys=keys)

    class Small(Linear):
        def __init__(self, capacity):
            super().__init__()
            self.capacity, self.sizes = capacity, []

        def forward(self, images):
            self.sizes.append(len(images))
            if len(images) > self.capacity:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(images)

    small = Small(capacity=5)
    torch.testing.assert_close(pgd(small, images, labels, config, keys=keys), expected)
    assert [size for size in small.sizes if size > 5] == [32, 16, 8]  # found once, then remembered
    with pytest.raises(torch.OutOfMemoryError):
        pgd(Small(capacity=0), images, labels, config, keys=keys)


def test_modes_and_gradient_flags_are_restored():
    """A user's frozen layer that thaws, or a network left in eval mode, ruins the training that follows."""
    network = convnet().train()
    layers = list(network.modules())
    norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
    norms[0].eval()
    weights = list(network.parameters())
    weights[0].requires_grad_(False)
    modes, wanted = [m.training for m in layers], [w.requires_grad for w in weights]
    statistics = [norm.running_mean.clone() for norm in norms]
    images = torch.rand(4, 3, 8, 8)
    pgd(network, images, torch.arange(4), PGDConfig(RHO, ALPHA, 2), keys=index_keys(torch.arange(4), 0))
    assert [m.training for m in layers] == modes
    assert [w.requires_grad for w in weights] == wanted
    assert all(w.grad is None for w in weights)
    assert all(torch.equal(a, norm.running_mean) for a, norm in zip(statistics, norms, strict=True))

    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = network

        def forward(self, images):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        pgd(Broken(), images, torch.arange(4), PGDConfig(RHO, ALPHA, 2), keys=index_keys(torch.arange(4), 0))
    assert [m.training for m in layers] == modes


def test_inputs_are_not_written():
    """The caller's images are the clean copy."""
    network, images, labels, keys = problem()
    before = images.clone()
    pgd(network, images, labels, PGDConfig(RHO, ALPHA, 2, inner=Uniform(0.1)), keys=keys)
    assert torch.equal(images, before)

"""Noises of a class: which window an image gets, how the fit moves them, and how whoever holds them takes them off."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from semtransforms import NoiseGenerator, fit_generator
from semtransforms.core.keys import index_keys
from semtransforms.noise.classwise import Classwise, learn_noises
from semtransforms.noise.engine import engine_of
from semtransforms.noise.methods import SEM_CLASSWISE, SEM_PLUS
from semtransforms.views.eot import EOT

RHO = 8 / 255


def noises(num_classes=3, count=2, size=(8, 12), seed=0):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 12, num_classes))
    return Classwise(network, num_classes=num_classes, count=count, size=size, rho_u=RHO, seed=seed)


@pytest.mark.parametrize(("height", "width"), [(8, 12), (5, 7), (20, 31)])
def test_an_image_of_any_shape_gets_a_periodic_window_of_a_noise_of_its_class(height, width):
    """A panorama would get no noise at its end, or an image that of another class, which teaches the right label."""
    surrogate = noises()
    labels = torch.tensor([0, 1, 2, 1, 0, 2, 2, 1])
    made = surrogate.noise(torch.full((8, 3, height, width), 0.5), labels, index_keys(torch.arange(8), 5)).numpy()
    for noise, label in zip(made, labels.tolist(), strict=True):
        own = surrogate.noises.numpy()[2 * label : 2 * label + 2]
        tiled = np.tile(own, (1, 1, 6, 6))
        windows = (
            (tiled[v, :, top : top + height, left : left + width], mirror)
            for v in range(2)
            for top in range(8)
            for left in range(12)
            for mirror in (1, -1)
        )
        assert any(np.array_equal(noise, window[:, :, ::mirror]) for window, mirror in windows)


def test_images_of_a_class_get_windows_of_their_own():
    """With one window for all, the mean of a class's photographs would show it."""
    surrogate = noises(count=1)
    made = surrogate.noise(torch.full((40, 3, 8, 12), 0.5), torch.zeros(40, dtype=torch.int64), torch.arange(40) * 999)
    assert len({tuple(noise.flatten().tolist()) for noise in made}) > 30  # of 2 * 96 windows


def test_noise_is_cut_where_the_range_of_pixels_ends():
    """Bytes would wrap around, from white to black."""
    made = noises().noise(torch.ones(4, 3, 8, 12), torch.zeros(4, dtype=torch.int64), torch.arange(4))
    assert float(made.max()) <= 0
    assert float(made.min()) < -RHO / 2


def test_a_step_goes_along_the_sign_of_what_all_images_of_a_class_say_together():
    """Summed at the wrong place, the noises would drift at random and the loss would stay where it is."""
    surrogate = noises()
    images = torch.rand(6, 3, 8, 12, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.2
    labels, keys = torch.tensor([0, 1, 1, 1, 0, 1]), index_keys(torch.arange(6), 2)
    before = surrogate.noises.clone()
    # the oracle: autograd through indexing and padding by torch itself
    leaf = before.clone().requires_grad_()
    chosen, places = surrogate.place(labels, keys, 8, 12)
    seen = images + leaf[chosen].flatten(2).gather(2, places[:, None].expand(-1, 3, -1)).view_as(images)
    nn.functional.cross_entropy(surrogate.network(seen), labels, reduction="sum").backward()
    loop = replace(SEM_CLASSWISE, defense_sees=None, steps_u=1, num_samples=1, alpha_u=1 / 255).defense
    learn_noises(surrogate, images, labels, loop, keys=keys, eot=EOT([]), dtype=None)
    expected = (before - leaf.grad.sign() / 255).clamp(-RHO, RHO)
    assert torch.allclose(surrogate.noises, expected, atol=1e-7)
    assert bool((surrogate.noises != before).any())


def test_steps_go_along_what_gradients_of_any_size_have_said_so_far():
    """Step by step alone, the noises walk to and fro and leave half of their room; one large gradient would rule."""
    surrogate = noises(num_classes=2, count=1)
    before, draw = surrogate.noises.numpy().astype(np.float64), np.random.default_rng(0)
    place = torch.arange(96).expand(1, -1)
    momentum = np.zeros_like(before)
    for size, label in ((1, 0), (1000, 0), (1e-6, 1), (1, 0)):
        gradient = draw.normal(size=(1, 3, 8, 12)) * size
        surrogate.descend(torch.tensor(gradient, dtype=torch.float32), torch.tensor([label]), place, 1 / 255, RHO)
        momentum[label] = 0.9 * momentum[label] + gradient[0] / np.abs(gradient).mean()
        before = np.clip(before - np.sign(momentum) / 255, -RHO, RHO)
    np.testing.assert_allclose(surrogate.noises.numpy(), before, atol=1e-6)


def test_whoever_holds_the_noises_takes_them_off_without_a_key():
    """The evaluation would call a published class-wise generator safe, and a trainer who has it learns everything."""
    draw = torch.Generator().manual_seed(0)
    smooth = torch.rand(6, 3, 4, 5, generator=draw)
    images = nn.functional.interpolate(smooth, (32, 40), mode="bicubic").mul(150).add(50).clamp(30, 220).to(torch.uint8)
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    config = replace(
        SEM_CLASSWISE, num_classes=2, image_size=(32, 32), width=4, classwise=2, train_steps=1, batch_size=2, steps_a=1
    )
    generator = fit_generator((images[:, :, :, :32], labels), config, progress=False, device="cpu")
    noise = generator.noise(images, labels, seed=9, noise_size="full")
    protected = (images.int() + noise).to(torch.uint8)
    undone = protected.int() + generator.engine.undo(protected, labels, torch.zeros(6, dtype=torch.int64))
    assert float((undone - images.int()).abs().float().mean()) < 0.5


def test_saved_and_loaded_it_makes_the_same_noise(tmp_path):
    """Noises that are not among the weights would be drawn anew, and what was fitted lost."""
    images = torch.randint(0, 256, (8, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = torch.arange(8) % 2
    config = replace(SEM_CLASSWISE, width=4, train_steps=2, batch_size=4, steps_a=1)
    generator = fit_generator((images, labels), config, progress=False, device="cpu")
    generator.save_pretrained(tmp_path / "generator")
    loaded = NoiseGenerator.from_pretrained(tmp_path / "generator", device="cpu")
    assert torch.equal(loaded.noise(images, labels, seed=1), generator.noise(images, labels, seed=1))
    assert loaded.fingerprint == generator.fingerprint


def test_a_generator_without_classwise_noise_keeps_its_fingerprint():
    """Stores and published generators of earlier versions would be of another generator all at once."""
    assert "classwise" not in SEM_PLUS.to_dict()
    assert SEM_CLASSWISE.to_dict()["classwise"] == SEM_CLASSWISE.classwise > 0
    assert engine_of(SEM_PLUS) is not engine_of(SEM_CLASSWISE)

"""The byte grid, the ball, and randomness keyed by the image."""

import numpy as np
import pytest
import scipy.stats
import torch

from semtransforms.core.grid import add_noise, levels, quantize, to_float
from semtransforms.core.keys import fold_in, image_keys, index_keys, keyed_normal, keyed_uniform
from semtransforms.noise.ball import project


def test_radii_round_down_to_whole_levels():
    """8/255 as a binary fraction must give 8, and 8.9/255 must not give 9: the bound would not hold in bytes."""
    assert [levels(k / 255) for k in range(1, 128)] == list(range(1, 128))
    assert levels(8.9 / 255) == 8
    assert levels(0.99 / 255) == 0


def test_quantize_agrees_with_numpy():
    """Noise that rounds differently from NumPy's half-to-even, or leaves the ball, breaks the published bound."""
    noise = torch.linspace(-0.05, 0.05, 1001)
    expected = np.clip(np.round(noise.numpy() * np.float32(255)), -8, 8).astype(np.int8)
    before = noise.clone()
    assert np.array_equal(quantize(noise, 8 / 255).numpy(), expected)
    assert torch.equal(noise, before)


def test_add_noise_clamps_and_does_not_wrap():
    """uint8 arithmetic that wraps turns a white pixel black."""
    images = torch.tensor([0, 3, 250, 255], dtype=torch.uint8)
    noise = torch.tensor([-8, -2, 8, 127], dtype=torch.int8)
    assert add_noise(images, noise).tolist() == [0, 1, 255, 255]
    assert images.tolist() == [0, 3, 250, 255]


def test_project_is_the_nearest_point_of_ball_and_image_box():
    """Noise outside the ball or the pixel range breaks the bound or is clipped away when stored."""
    rng = np.random.default_rng(0)
    images, delta = rng.random((4, 3, 5, 5), dtype=np.float32), rng.normal(0, 0.1, (4, 3, 5, 5)).astype(np.float32)
    expected = np.clip(images + np.clip(delta, -0.03, 0.03), 0, 1) - images
    got = project(torch.from_numpy(delta), torch.from_numpy(images), 0.03)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-7)


def test_to_float_is_the_exact_fraction():
    """A byte b must be b / 255 in float32, or rounding back loses a level."""
    every = torch.arange(256, dtype=torch.uint8)
    assert np.array_equal(to_float(every).numpy(), np.arange(256, dtype=np.float32) / np.float32(255))
    assert torch.equal((to_float(every) * 255).round().to(torch.uint8), every)


def _lowbias(key: int, element: int) -> float:
    """keyed_uniform by Python integers: an independent reading of the mixer, arithmetic shifts and all."""

    def signed(value: int) -> int:
        value &= 0xFFFFFFFF
        return value - (1 << 32) if value >> 31 else value

    low, high = signed(key), signed(key >> 32)
    bits = signed(element * -1640531527) ^ low
    bits ^= bits >> 16
    bits = signed(bits * 2146121005) ^ high
    bits ^= bits >> 15
    bits = signed(bits * -2073254261)
    bits ^= bits >> 16
    return (bits & 0xFFFFFF) / 2**24


def test_keyed_uniform_agrees_with_integers():
    """If a platform's int32 arithmetic differs, the same seed gives another noise there."""
    keys = torch.tensor([0, 1, -1, 2**62 + 12345, -(2**63)])
    got = keyed_uniform(keys, (3, 2))
    expected = [[_lowbias(key, element) for element in range(6)] for key in keys.tolist()]
    np.testing.assert_array_equal(got.flatten(1).numpy(), np.array(expected, dtype=np.float32))


def test_draws_are_uniform_and_unrelated():
    """A biased or repeated draw makes every image's random perturbation alike, and SEM collapses to EM."""
    keys = index_keys(torch.arange(400), seed=0)
    draws = torch.stack([keyed_uniform(fold_in(keys, d), (16,)) for d in range(10)]).double()
    flat = draws.flatten()
    counts = np.histogram(flat.numpy(), bins=64, range=(0, 1))[0]
    expected = flat.numel() / 64
    assert ((counts - expected) ** 2 / expected).sum() < 110  # chi-square, 63 degrees of freedom: p = 0.0002
    correlation = np.corrcoef(draws.permute(0, 2, 1).reshape(160, 400).numpy()) - np.eye(160)
    assert np.abs(correlation).max() < 5.5 / np.sqrt(400)


def test_a_draw_depends_on_the_key_alone():
    """Draws that depend on batch size or order would change an image's noise with the loader's settings."""
    keys = index_keys(torch.arange(64), seed=3)
    whole = keyed_uniform(keys, (3, 4, 4))
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(keyed_uniform(keys[order], (3, 4, 4)), whole[order])
    assert torch.equal(torch.cat([keyed_uniform(part, (3, 4, 4)) for part in keys.split(7)]), whole)


def test_normal_draws_are_normal_and_of_the_key_alone():
    """Another law is another cluster, process or countermeasure than the published one; a repeated draw is none."""
    keys = index_keys(torch.arange(300), seed=0)
    draws = keyed_normal(keys, (6, 10))
    assert scipy.stats.kstest(draws.flatten().double().numpy(), "norm").pvalue > 0.01
    assert len(draws.unique()) > 0.99 * draws.numel()
    correlation = np.corrcoef(draws.flatten(1).T.double().numpy()) - np.eye(60)
    assert np.abs(correlation).max() < 5.5 / np.sqrt(300)
    assert torch.equal(torch.cat([keyed_normal(part, (6, 10)) for part in keys.flip(0).split(7)]).flip(0), draws)


@pytest.mark.parametrize("change", ["pixel", "label", "seed", "shape"])
def test_image_keys_see_everything_that_decides_the_noise(change):
    """A key that misses the label or the seed gives two different protections the same randomness."""
    images, labels = torch.zeros(2, 3, 4, 6, dtype=torch.uint8), torch.tensor([0, 0])
    before = image_keys(images, labels, seed=1)
    assert before[0] == before[1]
    if change == "pixel":
        images[0, 2, 3, 5] = 1
    if change == "label":
        labels[0] = 1
    after = image_keys(
        images.view(2, 3, 6, 4) if change == "shape" else images, labels, seed=2 if change == "seed" else 1
    )
    assert after[0] != before[0]

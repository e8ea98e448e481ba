"""Textures that tell a class to whoever looks, in colour or grey."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from semtransforms.generators.fitting import fit_generator
from semtransforms.noise.methods import SEM_CLASSWISE
from semtransforms.noise.textures import class_textures, kinds


@pytest.mark.parametrize("count", [2, 3, 10, 24])
def test_no_two_classes_have_one_texture(count: int):
    """Two classes with one texture are told apart by their photographs alone: these stay learnable."""
    found = kinds(count)
    assert len(found) == len(set(found)) == count
    assert all(0 < grain < 0.5 and 0 <= turn <= np.pi / 2 for grain, turn in found)


def test_a_class_leans_as_it_should():
    """A filter with rows and columns mixed up, or with both mirrored sides, leaves classes that look alike."""
    textures = class_textures(10, 1, (128, 128), seed=3)
    assert set(textures.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(textures[:, 0], textures[:, 1])  # red and green are the brightness
    for channel in (0, 2):
        turns = np.sort(leans(textures, channel))  # a texture holds both mirrored sides of its direction
        # five directions, of two grains each, that a texture's own spread draws a little together
        apart = np.diff(turns.reshape(5, 2).mean(1))
        assert (apart > 0.1).all()
        assert turns[0] < 0.35
        assert turns[-1] > np.pi / 2 - 0.35


def leans(textures, channel: int) -> np.ndarray:
    """The direction of each class's texture, by how fast it changes down and across: float (C,), in radians."""
    fields = textures[:, channel].numpy()
    down, across = (np.std(np.gradient(fields, axis=axis), (1, 2)) for axis in (1, 2))
    return np.arctan2(down, across)


def test_blue_has_the_texture_of_another_class():
    """With its own, blue would say what brightness says, and who sees colours gets no second thing to learn."""
    textures = class_textures(10, 1, (128, 128), seed=3)
    assert (np.abs(leans(textures, 0) - leans(textures, 2)) > 0.1).all()


def test_the_seed_deals_the_textures_to_the_classes():
    """Dealt alike for everybody, one trainer's knowledge of a class would serve against all owners."""
    one, other = (leans(class_textures(10, 1, (128, 128), seed), 0) for seed in (3, 4))
    assert (np.abs(one - other) > 0.1).any()


def test_nearly_all_of_the_radius_is_brightness():
    """Noise that lies in the colours is gone when a trainer makes photographs grey: they then learned everything."""
    for texture in class_textures(4, 1, (64, 64), seed=0):
        levels = (128 + 8 * texture).byte().permute(1, 2, 0).numpy()
        grey = np.asarray(Image.fromarray(levels).convert("L"), float)
        assert grey.std() > 0.75 * 8


def test_a_fit_that_has_hardly_begun_leaves_the_textures_as_they_are():
    """Led by a network that knows nothing, noise loses what it starts with, and who makes images grey learns all."""
    images = torch.randint(0, 256, (12, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    config = replace(SEM_CLASSWISE, width=4, batch_size=6, train_steps=3, hold_steps=3)
    data = images, torch.arange(12) % 2
    start = 8 / 255 * class_textures(2, config.classwise, (16, 16), config.seed)
    held = fit_generator(data, config, progress=False, device="cpu").surrogate.noises
    assert torch.allclose(held, start, atol=1e-4)  # rounded to half precision, as all that is fitted
    moved = fit_generator(data, replace(config, hold_steps=2), progress=False, device="cpu").surrogate.noises
    assert not torch.allclose(moved, start, atol=1e-3)

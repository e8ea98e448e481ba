"""T: batched, differentiable, one draw per image."""

import kornia.augmentation as K
import numpy as np
import pytest
import torch

from semtransforms.core.config import Transformation
from semtransforms.core.keys import index_keys
from semtransforms.views.eot import EOT, build_eot
from semtransforms.views.members import Crop, Flip, Kornia

PADDING, SIDE = 4, 12


def images_and_keys(count=9):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, SIDE, SIDE + 4, generator=generator), index_keys(torch.arange(count), seed=0)


def test_crop_agrees_with_numpy():
    """Padding that is not black, or a swapped axis, changes what the noise is robust to."""
    images, keys = images_and_keys()
    crop = Crop(PADDING)
    parameters = crop.draw(keys, images.shape)
    got = crop(images, parameters)
    for image, (row, column), result in zip(images, parameters["offset"].tolist(), got, strict=True):
        padded = np.pad(image.numpy(), ((0, 0), (PADDING, PADDING), (PADDING, PADDING)))
        assert np.array_equal(result.numpy(), padded[:, row : row + SIDE, column : column + SIDE + 4])


def test_crop_agrees_with_kornia_in_values_and_gradients():
    """Our kernel stands in for kornia's RandomCrop; for the same parameters it must be the same function."""
    images, keys = images_and_keys()
    offset = Crop(PADDING).draw(keys, images.shape)["offset"]
    reference = K.RandomCrop((SIDE, SIDE + 4), padding=PADDING, cropping_mode="slice")
    parameters = reference.forward_parameters(torch.Size((len(images), 3, SIDE + 2 * PADDING, SIDE + 4 + 2 * PADDING)))
    corner = offset.flip(1).float()[:, None]  # kornia names points (x, y)
    box = torch.tensor([[0, 0], [SIDE + 3, 0], [SIDE + 3, SIDE - 1], [0, SIDE - 1]]).float()
    parameters["src"] = corner + box
    weights = torch.rand(images.shape, generator=torch.Generator().manual_seed(1))
    results = []
    for transform in (lambda x: Crop(PADDING)(x, {"offset": offset}), lambda x: reference(x, params=parameters)):
        leaf = images.clone().requires_grad_()
        value = transform(leaf)
        results.append((value.detach(), torch.autograd.grad((value * weights).sum(), leaf)[0]))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_crop_draws_every_place_equally():
    """A window that never reaches a corner leaves noise there untrained."""
    offset = Crop(1).draw(index_keys(torch.arange(9000), 0), (9000, 3, 4, 4))["offset"]
    counts = np.bincount((offset[:, 0] * 3 + offset[:, 1]).numpy(), minlength=9)
    assert counts.min() > 850
    assert counts.max() < 1150


def test_flip_flips_half_and_pulls_gradients_back():
    """A flip that keeps the gradient unflipped moves noise to the wrong side of half the images."""
    images, keys = images_and_keys(200)
    flip = build_eot([Transformation("flip")])
    leaf = images.clone().requires_grad_()
    value = flip(leaf, keys)
    flipped = (value.detach() == images.flip(-1)).flatten(1).all(1)
    kept = (value.detach() == images).flatten(1).all(1)
    assert (flipped ^ kept).all()
    assert 75 < int(flipped.sum()) < 125
    weights = torch.rand(images.shape, generator=torch.Generator().manual_seed(1))
    gradient = torch.autograd.grad((value * weights).sum(), leaf)[0]
    expected = torch.where(flipped[:, None, None, None], weights.flip(-1), weights)
    torch.testing.assert_close(gradient, expected)


def test_flip_agrees_with_kornia():
    """Ours stands in kornia's place, and must mirror the same way."""
    images, keys = images_and_keys()
    mirrored = Flip(1.0)(images, Flip(1.0).draw(keys, images.shape))
    assert torch.equal(mirrored, K.RandomHorizontalFlip(p=1.0)(images))
    assert torch.equal(Flip(0.0)(images, Flip(0.0).draw(keys, images.shape)), images)
    with pytest.raises(ValueError, match=r"p must be in 0\.\.1, got 2"):
        Flip(2)


PLUGGED = [
    Transformation("crop", {"padding": 2}),
    Transformation("flip"),
    Transformation("RandomGrayscale", {"p": 0.5}),
    Transformation("ColorJitter", {"brightness": 0.3, "contrast": 0.3, "p": 0.7}),
    Transformation("RandomResizedCrop", {"size": [SIDE, SIDE + 4], "scale": [0.5, 1.0]}),
    Transformation("RandomGaussianBlur", {"kernel_size": [3, 3], "sigma": [0.3, 1.0], "p": 0.5}),
]


@pytest.mark.parametrize("member", PLUGGED, ids=lambda member: member.name)
def test_an_images_draw_does_not_depend_on_its_batch(member):
    """Noise would change with batch size and order: a store could not be continued by another machine."""
    images, keys = images_and_keys(12)
    eot = build_eot([member])
    whole = eot(images, keys)
    assert whole.shape == images.shape
    assert not torch.equal(whole, images)
    parts = torch.cat([eot(some, key) for some, key in zip(images.split(5), keys.split(5), strict=True)])
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=0)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(eot(images[order], keys[order]), whole[order], atol=1e-6, rtol=0)


def test_draws_differ_between_images_members_and_keys():
    """One shared draw per batch is the trap of batch transformations: EOT would average one t only."""
    images, keys = images_and_keys(40)
    same = images[:1].expand(40, -1, -1, -1)
    views = build_eot([Transformation("crop", {"padding": 4})])(same, keys)
    assert len({view.numpy().tobytes() for view in views}) > 25
    twice = EOT([Crop(4), Crop(4)])
    offsets = [member.draw(keys, images.shape)["offset"] for member in twice.members]
    assert torch.equal(*offsets)  # the same key is the same draw; EOT folds a member's number in:
    moved = twice(same, keys)
    doubled = Crop(4)(Crop(4)(same, {"offset": offsets[0]}), {"offset": offsets[0]})
    assert not torch.equal(moved, doubled)


def test_the_global_random_state_is_left_alone():
    """Drawing kornia's table must not move the user's torch.manual_seed stream."""
    images, keys = images_and_keys()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    build_eot([Transformation("ColorJitter", {"brightness": 0.3, "p": 1.0})])(images, keys)
    assert torch.equal(torch.rand(3), expected)


def test_inputs_are_not_written():
    """The loop reuses images between samples."""
    images, keys = images_and_keys()
    before = images.clone()
    build_eot(PLUGGED)(images, keys)
    assert torch.equal(images, before)


def test_unknown_and_unfit_transformations_are_refused():
    """A typo must be an error with the nearest name, at construction, not after an hour."""
    with pytest.raises(ValueError, match="RandomGrayscale"):
        build_eot([Transformation("RandomGreyscale")])
    with pytest.raises(ValueError, match="crop"):
        build_eot([Transformation("crop", {"pad": 4})])
    for probability in (1.0, 0.01):  # kornia looks at the kernel when it blurs, which would be after the data are read
        blur = {"kernel_size": (4, 4), "sigma": (0.1, 2.0), "p": probability}
        with pytest.raises(ValueError, match=r"'RandomGaussianBlur' does not take .*odd"):
            build_eot([Transformation("RandomGaussianBlur", blur)])
    build_eot([Transformation("RandomCrop", {"size": (224, 224)})])  # larger than what it is tried on
    images, keys = images_and_keys()
    with pytest.raises(ValueError, match="image size"):
        Kornia(K.RandomCrop((4, 4)))(images, Kornia(K.RandomCrop((4, 4))).draw(keys, images.shape))


@pytest.mark.parametrize(
    ("name", "arguments", "side"),
    [
        ("RandomJigsaw", {"grid": (5, 5)}, 40),
        ("RandomJigsaw", {"grid": (7, 3)}, 84),
        ("RandomRain", {"drop_height": (100, 200)}, 224),
    ],
)
def test_what_fits_the_images_and_not_the_trial_is_taken(name, arguments, side):
    """A jigsaw of 5 x 5 pieces was refused, since the image that it was tried on has 64 pixels a side."""
    images = torch.rand(2, 3, side, side)
    changed = build_eot([Transformation(name, {**arguments, "p": 1.0})])(images, index_keys(torch.arange(2), seed=0))
    assert changed.shape == images.shape
    assert not torch.equal(changed, images)


@pytest.mark.parametrize("name", ["RandomMixUpV2", "RandomCutMixV2", "PatchMix", "RandomHorizontalFlip3D"])
def test_what_is_for_no_single_image_is_refused_before_the_data_are_read(name):
    """An augmentation that mixes the images of its batch was taken, and stopped a fit at its first update."""
    with pytest.raises(ValueError, match=f"{name} is not an augmentation of single images"):
        build_eot([Transformation(name)])

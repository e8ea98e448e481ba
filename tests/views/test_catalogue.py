"""The catalogue of image changes, and the members of T: the pictures trainers make, the gradients that are stated."""

import io
import json
from dataclasses import replace

import kornia.augmentation as K
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import median_filter, uniform_filter
from torch import nn

from semtransforms import SEM, GeneratorConfig
from semtransforms.core.config import PGDConfig, Transformation
from semtransforms.core.keys import fold_in, index_keys
from semtransforms.noise.pgd import pgd
from semtransforms.views.catalogue import CHANGES, greyscale
from semtransforms.views.eot import WITHOUT_GRADIENT, build_eot
from semtransforms.views.jpeg import _constants, _Round, jpeg

FIXED = sorted(CHANGES.keys() - set(WITHOUT_GRADIENT))  # members of T that draw nothing
ARGUMENTS = {"jpeg": {"quality": [30, 30]}, "bit-depth": {"bits": [3, 3]}}


def photographs(side=40):
    """Real ones, small: what JPEG does to noise says nothing."""
    from sklearn.datasets import load_sample_images

    places = [(0, 0, 400), (100, 200, 128), (200, 100, 64)]
    cut = [image[y : y + size, x : x + size] for image in load_sample_images().images for y, x, size in places]
    resized = [np.asarray(Image.fromarray(image).resize((side, side - 4), Image.LANCZOS)) for image in cut]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2)


def apply(name, images, **arguments):
    eot = build_eot([Transformation(name, arguments or ARGUMENTS.get(name, {}))])
    return eot(images, index_keys(torch.arange(len(images)), 0))


@pytest.mark.parametrize("quality", [10, 50, 75, 90])
def test_jpeg_is_what_pil_writes_and_reads(quality):
    """Noise made against another codec survives that one. PIL rounds colours to whole numbers on the way, ours not."""
    images = photographs()
    files = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
        files.append(torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1))
    theirs, ours = torch.stack(files).float(), 255 * jpeg(images / 255, torch.full((len(images),), quality))
    changed = (images - theirs).abs().mean()
    assert (ours - theirs).abs().mean() < min(1.5, changed / 3)


def test_each_image_has_its_own_quality():
    """One table for the batch would tie an image's noise to its neighbours."""
    images, quality = photographs() / 255, torch.tensor([10, 20, 30, 50, 75, 100])
    together = jpeg(images, quality)
    alone = torch.cat([jpeg(images[i : i + 1], quality[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    drawn = (
        build_eot([Transformation("jpeg", {"quality": [10, 14]})])
        .members[0]
        .draw(index_keys(torch.arange(500), 0), (500, 3, 8, 8))["quality"]
    )
    assert drawn.unique().tolist() == [10, 11, 12, 13, 14]
    assert drawn.bincount()[10:].min() > 60


def test_jpeg_passes_the_gradient_of_soft_rounding(monkeypatch):
    """Shin and Song (2017): the derivative of round x + (x - round x)^3. What is around it, by finite differences."""
    values = torch.linspace(-1.3, 1.3, 27, dtype=torch.float64, requires_grad=True)
    got = torch.autograd.grad(_Round.apply(values).sum(), values)[0]
    np.testing.assert_allclose(got, 3 * (values - values.round()).detach() ** 2, atol=1e-12)
    # with rounding taken out, the rest of the codec is a plain function whose gradient must be its own
    monkeypatch.setattr(_Round, "apply", lambda coefficients: coefficients * 0.5)
    images = photographs(12)[:2].double() / 255 * 0.8 + 0.1
    assert torch.autograd.gradcheck(
        lambda leaf: jpeg(leaf, torch.tensor([20, 60])), images.requires_grad_(), fast_mode=True
    )


@pytest.mark.parametrize("name", FIXED)
def test_gradients_agree_with_finite_differences(name):
    """A wrong gradient makes noise that is strong against nothing."""
    images = torch.rand(2, 3, 8, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda leaf: apply(name, leaf), images.requires_grad_(), eps=1e-7, fast_mode=True)


def test_bit_depth_truncates_and_passes_the_gradient_straight_through():
    """Its true gradient is 0 nearly everywhere: noise would learn nothing from it."""
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(1, 3, 1, 1)
    leaf = (images / 255).requires_grad_()
    value = apply("bit-depth", leaf)
    assert torch.equal((255 * value.detach()).round().to(torch.uint8), images // 32 * 32)
    weights = torch.rand(value.shape)
    assert torch.equal(torch.autograd.grad((value * weights).sum(), leaf)[0], weights)


def test_filters_agree_with_scipy():
    """A filter of another size or weight is another one than the trainer's."""
    images = torch.rand(2, 3, 9, 11)
    inside = (..., slice(1, -1), slice(1, -1))
    for name, theirs in (("mean", uniform_filter), ("median", median_filter)):
        expected = np.stack([[theirs(plane, 3) for plane in image] for image in images.numpy()])
        np.testing.assert_allclose(apply(name, images)[inside], expected[inside], atol=1e-6)
    grey = images.numpy().transpose(0, 2, 3, 1) @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(apply("greyscale", images), np.stack([grey] * 3, 1), atol=1e-3)


def test_greyscale_rounds_to_pils_bytes():
    """Noise that survives another grey than the trainer's is computed for nobody."""
    colours = torch.stack(torch.meshgrid(*[torch.arange(0, 256, 3, dtype=torch.uint8)] * 3, indexing="ij"))
    colours = colours.flatten(1).view(1, 3, 86, -1)
    pil = np.asarray(Image.fromarray(colours[0].permute(1, 2, 0).numpy()).convert("L")).astype(int)
    difference = np.abs((255 * greyscale(colours / 255)).round()[0, 0].numpy() - pil)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3  # one level, where the exact value lies half-way between two


@pytest.mark.parametrize("name", [*FIXED, "jpeg", "bit-depth"])
def test_every_member_keeps_size_range_and_input(name):
    """What leaves [0, 1] would be noise outside of what can be stored."""
    images = photographs()[:, :, :35, :37] / 255
    before = images.clone()
    value = apply(name, images)
    assert value.shape == images.shape
    assert value.min() > -1e-6
    assert value.max() < 1 + 1e-6
    assert not torch.equal(value, images)
    assert torch.equal(images, before)


def test_one_of_changes_each_image_by_one_member_or_none():
    """Two changes of one image, or another share of them, is another T."""
    images = torch.rand(1, 3, 8, 8).repeat(1000, 1, 1, 1)
    members = [{"name": "greyscale"}, {"name": "bit-depth", "arguments": {"bits": [1, 1]}}]
    value = apply("one-of", images, members=members, probabilities=[0.5, 0.2])
    grey, coarse = (apply(each["name"], images[:1], **each.get("arguments", {})) for each in members)
    counts = [int((value == other).flatten(1).all(1).sum()) for other in (grey, coarse, images[:1])]
    assert sum(counts) == 1000
    np.testing.assert_allclose(counts, [500, 200, 300], atol=50)


def test_one_of_gives_the_same_on_a_device_that_cannot_be_asked(monkeypatch):
    """A CPU computes a member for the images that drew it, a device for all: noise would depend on where it is made."""
    members = [{"name": "jpeg", "arguments": {"quality": [10, 60]}}, {"name": "RandomGamma", "arguments": {"p": 0.5}}]
    eot = build_eot([Transformation("one-of", {"members": members, "probabilities": [0.4, 0.3]})])
    images, keys = photographs() / 255, index_keys(torch.arange(len(photographs())), 3)

    def value_and_gradient():
        leaf = images.clone().requires_grad_()
        value = eot(leaf, keys)
        return value.detach(), torch.autograd.grad(value.square().sum(), leaf)[0]

    here = value_and_gradient()
    chosen = eot.members[0].draw(fold_in(keys, 0), images.shape)["chosen"].tolist()
    assert set(chosen) == {0, 1, 2}
    monkeypatch.setattr("semtransforms.views.members._computed", lambda chosen: slice(None))
    for mine, theirs in zip(here, value_and_gradient(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)


def test_a_gradient_goes_the_way_of_its_image():
    """Through members that an image did not take, its gradient would be that of another image."""
    images = torch.rand(40, 3, 8, 8).requires_grad_()
    eot = build_eot([Transformation("one-of", {"members": [{"name": "greyscale"}], "probabilities": [0.5]})])
    keys = index_keys(torch.arange(40), 0)
    value = eot(images, keys)
    gradient = torch.autograd.grad(value[:, 0].sum(), images)[0]
    grey = (value == images).flatten(1).all(1).logical_not()
    assert 10 < int(grey.sum()) < 30
    np.testing.assert_allclose(gradient[grey].mean((0, 2, 3)), [0.299, 0.587, 0.114], atol=1e-3)
    np.testing.assert_allclose(gradient[~grey].mean((0, 2, 3)), [1, 0, 0], atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("member", ["RandomGamma", "jpeg", "RandomSharpness", "ColorJitter", "greyscale", "median"])
def test_a_member_that_was_not_taken_cannot_spoil_a_gradient(member, value):
    """Zero times an infinite derivative is NaN, and black is where crop pads: those pixels would get no noise."""
    arguments = ARGUMENTS.get(member, {"p": 1.0} if member.startswith(("Random", "Color")) else {})
    images = torch.full((20, 3, 16, 16), value).requires_grad_()
    eot = build_eot(
        [Transformation("one-of", {"members": [{"name": member, "arguments": arguments}], "probabilities": [0.0]})]
    )
    gradient = torch.autograd.grad(eot(images, index_keys(torch.arange(20), 0)).sum(), images)[0]
    assert torch.equal(gradient, torch.ones_like(gradient))


class Bright(nn.Module):
    """Class 0 is brightness: noise for it raises every pixel, whatever the image."""

    def forward(self, images):
        light = images.mean((1, 2, 3))
        return torch.stack([light, -light], 1)


def test_where_t_has_no_derivative_the_sample_has_no_say():
    """NaN in one of J samples would drop the others' gradient of that pixel: black would keep its random start."""
    eot = build_eot([Transformation("RandomGamma", {"gamma": [0.5, 0.5], "p": 0.5})])
    images, keys = torch.zeros(8, 3, 4, 4), index_keys(torch.arange(8), 0)
    config = PGDConfig(8 / 255, 16 / 255, 1, num_samples=16)  # all 16 are spoiled once in 65,536
    delta = pgd(Bright(), images, torch.zeros(8, dtype=torch.int64), config, keys=keys, eot=eot)
    torch.testing.assert_close(delta, torch.full_like(delta, 8 / 255))


def test_jpeg_survives_inference_mode_and_autocast():
    """A constant kept from the first, or rounded by the second, would spoil every noise computed after or inside."""
    images, quality = photographs(16) / 255, torch.full((6,), 31)
    _constants.cache_clear()
    with torch.inference_mode():
        jpeg(images, quality)
    leaf = images.clone().requires_grad_()
    plain = jpeg(leaf, quality)
    assert torch.autograd.grad(plain.sum(), leaf)[0].isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        inside = jpeg(images, quality)
    torch.testing.assert_close(inside, plain.detach(), atol=0, rtol=0)


def test_a_config_with_them_survives_json():
    """What cannot be written down cannot be published with its generator."""
    wide = Transformation(
        "one-of",
        {"members": [{"name": "jpeg", "arguments": {"quality": [10, 60]}}, {"name": "greyscale"}],
         "probabilities": [0.35, 0.35]},
    )  # fmt: skip
    config = replace(SEM, eot=(*SEM.eot, wide))
    again = GeneratorConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert repr(build_eot(again.eot)) == repr(build_eot(config.eot))


@pytest.mark.parametrize("name", [name for name in WITHOUT_GRADIENT if name not in CHANGES])
def test_transformations_without_a_gradient_are_refused(name):
    """The noise would stay as random as it started, for an hour, without a word."""
    torch.manual_seed(0)  # kornia's own draws
    images = torch.rand(4, 3, 32, 32).requires_grad_()
    changed = getattr(K, name)(**({"bits": 3} if name == "RandomPosterize" else {}), p=1.0)(images)
    gradient = torch.autograd.grad(changed.sum(), images)[0] if changed.requires_grad else torch.zeros(1)
    assert (gradient == 0).float().mean() > 0.7
    with pytest.raises(ValueError, match="gives no gradient"):
        build_eot([Transformation(name)])


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("jpeg", {"quality": [60, 10]}, r"quality must rise within 1\.\.100, got \[60, 10\]"),
        ("jpeg", {"quality": [0, 10]}, r"quality must rise within 1\.\.100"),
        ("jpeg", {"quality": [10.5, 20]}, "two whole numbers"),
        ("bit-depth", {"bits": [2, 9]}, r"bits must rise within 1\.\.8"),
        ("mean", {"size": 5}, "does not take .*size"),
        ("denoise", {}, "gives no gradient"),
        ("one-of", {"members": [{"name": "mean"}], "probabilities": [0.5, 0.5]}, "one for each member, got 2 for 1"),
        ("one-of", {"members": [{"name": "mean"}], "probabilities": [1.5]}, "sum to at most 1"),
        ("one-of", {"members": [{"name": "mean"}], "probabilities": [float("nan")]}, "probabilities must be finite"),
        ("one-of", {"members": [{"name": "flip", "args": {}}], "probabilities": [1.0]}, "has a name and arguments"),
        ("one-of", {"members": [{"nam": "flip"}], "probabilities": [1.0]}, "has a name and arguments"),
        ("one-of", {"members": [{"name": "meen"}], "probabilities": [1.0]}, "did you mean 'mean'"),
        ("grayscale", {}, "greyscale"),
    ],
)
def test_wrong_arguments_are_refused_at_once(name, arguments, words):
    """Before the data are read, not after."""
    with pytest.raises(ValueError, match=words):
        build_eot([Transformation(name, arguments)])

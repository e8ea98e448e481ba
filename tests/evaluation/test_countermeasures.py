"""What a trainer does about the noise, against SciPy, PIL, scikit-learn and hand computation on real photographs."""

import functools
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import scipy.ndimage
import scipy.stats
import skimage.color
import torch
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from semtransforms.core.config import GeneratorConfig
from semtransforms.core.keys import fold_in, index_keys
from semtransforms.data.loading import Labelled
from semtransforms.evaluation.countermeasures import (
    KNOWN,
    Countermeasure,
    InformedTrainer,
    Purifier,
    apply_at_test,
    apply_stored,
    parse_countermeasure,
)
from semtransforms.evaluation.countermeasures.linear import class_directions
from semtransforms.noise.engine import NetworkEngine
from semtransforms.views.catalogue import denoise
from semtransforms.views.eot import EOT
from semtransforms.views.resize import NoiseScale

FIXED = ["mean", "median", "gaussian", "bilateral", "greyscale", "shrink", "denoise", "jpeg-10", "bit-depth-4",
         "channel-norm", "yuv-norm", "lab-norm", "low-pass", "band-pass", "blind-denoise", "equalise"]  # fmt: skip
PER_IMAGE = ["cutout", "randaugment", "colour-jitter", "gaussian-noise", "ueraser", "random-resized", "warp",
             "channel-shuffle", "augmix"]  # fmt: skip
MIXTURES = ["mixup", "cutmix"]


@functools.cache
def photographs(count=8, side=32):
    """uint8 (count, 3, side, side): crops of two photographs, spread over them."""
    crops = []
    for number in range(count):
        picture = load_sample_images().images[number % 2]
        row, column = (40 + 37 * number) % (picture.shape[0] - side), (60 + 53 * number) % (picture.shape[1] - side)
        crops.append(picture[row : row + side, column : column + side])
    return torch.from_numpy(np.stack(crops).transpose(0, 3, 1, 2).copy())


def one(name):
    (only,) = parse_countermeasure(name)
    return only


def batch(count=12, side=8, classes=4):
    images = photographs(count, side).float() / 255
    targets = F.one_hot(torch.arange(count) % classes, classes).float()
    return images, targets, index_keys(torch.arange(count), seed=0)


class Network(nn.Module):
    """Logits (0, brightness): the loss of class 0 grows with brightness, that of class 1 falls."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images):
        bright = self.norm(images).mean((1, 2, 3))
        return torch.stack([torch.zeros_like(bright), bright], 1)


def same_up_to_ties(got, expected):
    """Within a grey level, and equal but for what falls on the edge between two."""
    difference = np.abs(got.astype(int) - expected.astype(int))
    return difference.max() <= 1 and (difference > 0).mean() < 1e-3


# --- fixed maps of one image -------------------------------------------------------------------------------------


def test_low_pass_filters_agree_with_scipy():
    """Another window or border is another row of the paper's Table 4."""
    images = photographs()
    given = images.double().numpy()
    mean = scipy.ndimage.uniform_filter(given, (1, 1, 3, 3), mode="mirror")
    assert np.array_equal(one("mean").at_test(images).numpy(), np.rint(mean))
    median = scipy.ndimage.median_filter(given, (1, 1, 3, 3), mode="mirror")
    assert np.array_equal(one("median").at_test(images).numpy(), median)
    gaussian = scipy.ndimage.gaussian_filter(given, 0.8, mode="mirror", radius=1, axes=(2, 3))
    assert same_up_to_ties(one("gaussian").at_test(images).numpy(), np.rint(gaussian))


def test_bilateral_agrees_with_numpy():
    """A filter that ignores colour is a blur, one that ignores nothing keeps the noise."""
    images = photographs()
    given = images.double().numpy() / 255
    padded = np.pad(given, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    total, weights = 0, 0
    for row in range(3):
        for column in range(3):
            there = padded[:, :, row : row + 32, column : column + 32]
            colour = np.abs(there - given).sum(1, keepdims=True)
            weight = np.exp(-((colour / 0.2) ** 2) / 2 - ((row - 1) ** 2 + (column - 1) ** 2) / (2 * 1.5**2))
            total, weights = total + weight * there, weights + weight
    assert same_up_to_ties(one("bilateral").at_test(images).numpy(), np.rint(255 * total / weights))


def test_greyscale_agrees_with_pil():
    """Integer arithmetic would turn white into 254 and shift every image by half a level."""
    images = photographs()
    got = one("greyscale").at_test(images)
    assert torch.equal(got[:, :1].expand(-1, 3, -1, -1), got)
    expected = [np.asarray(Image.fromarray(i.permute(1, 2, 0).numpy()).convert("L")) for i in images]
    assert same_up_to_ties(got[:, 0].numpy(), np.stack(expected))
    assert bool((one("greyscale").at_test(torch.full((1, 3, 4, 4), 255, dtype=torch.uint8)) == 255).all())


# Annex K of the standard, table K.1
LUMINANCE = np.array([
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
], dtype=float)  # fmt: skip


@pytest.mark.parametrize("quality", [10, 40, 75])
def test_jpeg_of_grey_images_agrees_with_a_discrete_cosine_transform(quality):
    """A quality that is not the standard's, or a codec that is not run, is not what trainers do."""
    grey = one("greyscale").at_test(photographs())
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    table = np.clip(np.floor((LUMINANCE * scale + 50) / 100), 1, 255)
    blocks = grey[:, 0].double().numpy().reshape(8, 4, 8, 4, 8).transpose(0, 1, 3, 2, 4) - 128
    coefficients = np.rint(scipy.fft.dctn(blocks, axes=(3, 4), norm="ortho") / table) * table
    decoded = np.clip(np.rint(scipy.fft.idctn(coefficients, axes=(3, 4), norm="ortho") + 128), 0, 255)
    expected = decoded.transpose(0, 1, 3, 2, 4).reshape(8, 32, 32)
    got = one(f"jpeg-{quality}").at_test(grey).int().numpy()
    # libjpeg's integer transform rounds a coefficient the other way now and then
    assert np.abs(got[:, 0] - expected).mean() < 0.3
    assert np.abs(grey[:, 0].int().numpy() - expected).mean() > 3 * np.abs(got[:, 0] - expected).mean()


def test_jpeg_halves_the_resolution_of_colour():
    """4:2:0 averages the colour of neighbours away, and with it much of the noise; 4:4:4 would keep it."""
    blue = np.tile(np.array([88, 168], np.uint8), (16, 8))  # columns of alternating colour and equal luminance
    flat = np.full((16, 16), 128, np.uint8)
    striped = Image.merge("YCbCr", [Image.fromarray(plane) for plane in (flat, blue, flat)]).convert("RGB")
    got = one("jpeg-90").at_test(torch.from_numpy(np.asarray(striped).copy()).permute(2, 0, 1)[None])
    after = np.asarray(Image.fromarray(got[0].permute(1, 2, 0).numpy()).convert("YCbCr"))[:, :, 1]
    assert blue.std() == 40
    assert after.std() < 8


@pytest.mark.parametrize("bits", range(1, 8))
def test_bit_depth_agrees_with_pil(bits):
    """Rounding in place of truncating is another countermeasure than the published one."""
    images = photographs()
    got = one(f"bit-depth-{bits}").at_test(images)
    expected = [ImageOps.posterize(Image.fromarray(i.permute(1, 2, 0).numpy()), bits) for i in images]
    assert np.array_equal(got.permute(0, 2, 3, 1).numpy(), np.stack([np.asarray(image) for image in expected]))


def test_denoise_comes_near_the_minimum_of_its_objective():
    """Too few or too long steps return the noise or a flat image; the dual problem tells the exact minimum."""
    weight = 3 / 255
    given = photographs(4, 16)[:, :, :, :15].double().numpy() / 255
    down, right = np.zeros((4, 3, 15, 15)), np.zeros((4, 3, 16, 14))
    for _ in range(1500):  # projected gradients on the dual: one number in [-1, 1] per pair of neighbours
        exact = given.copy()
        exact[:, :, 1:] -= weight * down
        exact[:, :, :-1] += weight * down
        exact[:, :, :, 1:] -= weight * right
        exact[:, :, :, :-1] += weight * right
        down = np.clip(down + np.diff(exact, axis=2) / (8 * weight), -1, 1)
        right = np.clip(right + np.diff(exact, axis=3) / (8 * weight), -1, 1)

    def objective(x):
        variation = np.abs(np.diff(x, axis=2)).sum() + np.abs(np.diff(x, axis=3)).sum()
        return ((x - given) ** 2).sum() / 2 + weight * variation

    got = denoise(torch.from_numpy(given).float()).double().numpy()
    assert objective(exact) <= objective(got) < 1.05 * objective(exact) < 0.95 * objective(given)
    assert np.abs(got - exact).mean() < 0.5 / 255


def test_denoise_takes_noise_off_a_photograph():
    """The shipped example of a purifier has to purify."""
    clean = photographs().int()
    noise = torch.randint(0, 2, clean.shape, generator=torch.Generator().manual_seed(0)) * 16 - 8
    noisy = (clean + noise).clamp(0, 255).to(torch.uint8)
    after = one("denoise").at_test(noisy).int()
    assert (after - clean).square().float().mean() < 0.8 * (noisy - clean).square().float().mean()


@pytest.mark.parametrize("name", FIXED)
def test_fixed_maps_are_of_one_image_and_the_same_at_test(name, monkeypatch):
    """An image that depends on its neighbours in memory would change with the size of the chunks."""
    images = photographs()
    before = images.clone()
    data = Labelled(images, torch.arange(8), clean=images.flip(0))
    whole = apply_stored([one(name)], data, seed=0)
    assert whole.images.dtype == torch.uint8
    assert not torch.equal(whole.images, images)
    assert torch.equal(images, before)
    assert torch.equal(whole.labels, data.labels)
    assert torch.equal(apply_at_test([one(name)], images), whole.images)
    monkeypatch.setattr("semtransforms.evaluation.countermeasures.stored.CHUNK_PIXELS", 3 * 32 * 32)
    order = torch.tensor([3, 1, 0, 2, 7, 6, 5, 4])
    assert torch.equal(one(name).at_test(images[order]), whole.images[order])


def test_a_purifier_is_held_to_the_image_size_and_to_finite_floats():
    """A victim trained on images of another size fails at its test, an hour later."""
    data = Labelled(photographs(), torch.arange(8))
    for function, message in (
        (lambda images: images[..., 1:], r"'mine' changes the image size"),
        (lambda images: images.repeat(2, 1, 1, 1), r"'mine' changes the image size"),
        (lambda images: images * float("nan"), "finite"),
        (lambda images: (images * 255).to(torch.uint8), "finite floats in .*uint8"),
    ):
        with pytest.raises(ValueError, match=message):
            apply_stored([Purifier(function, "mine")], data, seed=0)
    brighter = apply_stored([Purifier(lambda images: images.mul_(3), "mine")], data, seed=0)  # in place, clamped
    assert np.array_equal(brighter.images.numpy(), np.minimum(3 * data.images.int().numpy(), 255))


def test_what_breaks_a_training_set_is_refused_by_name():
    """One label too few shifts every label after it."""

    class Drop(Countermeasure):
        name, acts_on = "drop", "stored"

        def on_stored(self, data, *, seed):
            return Labelled(data.images, data.labels[1:])

        def at_test(self, images):
            return images[:, :1]

    images = photographs()
    with pytest.raises(ValueError, match=r"'drop'.*one label per image"):
        apply_stored([Drop()], Labelled(images, torch.arange(8)), seed=0)
    with pytest.raises(ValueError, match=r"'drop'.*size"):
        apply_at_test([Drop()], images)
    with pytest.raises(ValueError, match=r"data.*uint8"):
        apply_stored([], Labelled(images.float(), torch.arange(8)), seed=0)


def test_channel_norm_agrees_with_numpy():
    """Statistics of a batch, or of all channels together, are another normalisation."""
    images = photographs()
    given = images.double().numpy()
    mean, spread = (statistic(given, axis=(2, 3), keepdims=True) for statistic in (np.mean, np.std))
    expected = np.rint(np.clip(127.5 + 255 / 4 * (given - mean) / spread, 0, 255))
    assert same_up_to_ties(one("channel-norm").at_test(images).numpy(), expected)
    flat = torch.full((1, 3, 8, 8), 200, dtype=torch.uint8)
    assert len(one("channel-norm").at_test(flat).unique()) == 1


@pytest.mark.parametrize(
    ("name", "convert", "unit"), [("yuv-norm", skimage.color.rgb2yuv, 1), ("lab-norm", skimage.color.rgb2lab, 100)]
)
def test_whitened_colours_agree_with_scikit_image(name, convert, unit):
    """Colours of another standard, or channels left as wide as they were, are another trainer."""
    images = photographs()
    given = convert(images.permute(0, 2, 3, 1).numpy()) / unit
    mean, spread = (statistic(given, axis=(1, 2), keepdims=True) for statistic in (np.mean, np.std))
    spread = np.maximum(spread, 1 / 255)  # the sky has hardly a colour of its own
    expected = np.clip(127.5 + 255 / 4 * (given - mean) / spread, 0, 255)
    got = one(name).at_test(images).permute(0, 2, 3, 1).numpy().astype(float)
    assert np.abs(got - expected).max() < 1  # rounding, and factors of three digits and more
    assert np.abs(got - expected).mean() < 0.35  # rounding makes 0.25
    grey = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).expand(1, 3, 8, 8).contiguous()
    assert (one(name).at_test(grey)[:, 1:].int() - 127).abs().max() <= 8  # no colour is made of rounding errors


def test_blind_denoise_agrees_with_cosines_of_scipy():
    """A threshold in other units takes nothing off, or the image."""
    side, images = 8, photographs(4, 24)[:, :, :20]
    colours = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
    planes = np.einsum("dc,nchw->ndhw", colours, images.double().numpy() / 255)
    summed, windows = np.zeros_like(planes), np.zeros(planes.shape[2:])
    for image in np.ndindex(planes.shape[:2]):
        plane = planes[image]
        diagonal = (plane[::2, ::2] - plane[::2, 1::2] - plane[1::2, ::2] + plane[1::2, 1::2]) / 2
        size = np.sort(np.abs(diagonal).ravel())
        threshold = 3 * size[(len(size) - 1) // 2] / 0.6745
        for place in np.ndindex(20 - side + 1, 24 - side + 1):
            window = tuple(slice(start, start + side) for start in place)
            found = scipy.fft.dctn(plane[window], norm="ortho")
            kept = np.where(np.abs(found) >= threshold, found, 0)
            kept[0, 0] = found[0, 0]
            summed[image][window] += scipy.fft.idctn(kept, norm="ortho")
            windows[window] += image == (0, 0)
    expected = np.rint(255 * np.clip(np.einsum("dc,ndhw->nchw", colours, summed / windows), 0, 1))
    assert same_up_to_ties(one("blind-denoise").at_test(images).numpy(), expected)
    tiny = images[:, :, :7]
    assert torch.equal(one("blind-denoise").at_test(tiny), tiny)


@pytest.mark.parametrize("strength", [8, 16])
def test_blind_denoise_finds_out_how_strong_the_noise_is(strength):
    """A denoiser made for one strength leaves the other, or blurs."""
    clean = photographs(8, 64).float()
    noise = strength * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    noisy = (clean + noise).round().clamp(0, 255)
    after = one("blind-denoise").at_test(noisy.to(torch.uint8))
    assert (after - clean).square().mean() < 0.6 * (noisy - clean).square().mean()


@pytest.mark.parametrize(("name", "low"), [("low-pass", 0), ("band-pass", 1 / 8)])
def test_frequency_bands_agree_with_scipy(name, low):
    """A band in other units keeps the noise that it is to take, or takes the image."""
    images = photographs(8, 24)[:, :, :20]
    spectrum = scipy.fft.fft2(images.double().numpy())
    rows, columns = (np.abs(scipy.fft.fftfreq(length)) / 0.5 for length in (20, 24))
    radius = np.sqrt(rows[:, None] ** 2 + columns**2)
    spectrum[:, :, (radius > 0.5) | ((radius < low) & (radius > 0))] = 0
    expected = np.rint(np.clip(scipy.fft.ifft2(spectrum).real, 0, 255))
    assert same_up_to_ties(one(name).at_test(images).numpy(), expected)


def test_equalise_agrees_with_pil():
    """A histogram of the whole image would leave the channels' own offsets."""
    images = photographs()
    expected = [np.asarray(ImageOps.equalize(Image.fromarray(i.permute(1, 2, 0).numpy()))) for i in images]
    assert np.array_equal(one("equalise").at_test(images).permute(0, 2, 3, 1).numpy(), np.stack(expected))


# --- batches -----------------------------------------------------------------------------------------------------


def test_cutout_is_a_square_that_may_hang_over_the_border():
    """A hole that is kept inside the image hides the middle more and the border less than the published one."""
    images = torch.ones(3000, 3, 32, 48)
    keys = index_keys(torch.arange(3000), seed=0)
    got, _ = one("cutout").on_batch(images, torch.ones(3000, 1), keys=keys, network=Network())
    hole = (got == 0).numpy()
    assert (hole[:, :1] == hole).all()
    rows, columns = hole[:, 0].any(2), hole[:, 0].any(1)
    assert (rows[:, :, None] & columns[:, None, :] == hole[:, 0]).all()  # a rectangle
    for covered, length in ((rows, 32), (columns, 48)):
        # 16 pixels from centre - 8 on, for every centre in the image, clipped
        expected = np.array([[centre - 8 <= pixel < centre + 8 for pixel in range(length)] for centre in range(length)])
        assert {row.tobytes() for row in covered} == {row.tobytes() for row in expected}
        assert np.abs(covered.mean(0) - expected.mean(0)).max() < 0.04


@pytest.mark.parametrize("name", MIXTURES)
def test_mixtures_mix_targets_as_they_mix_images(name):
    """Targets by the ratio that was drawn, not by the box that fitted, teach wrong labels at every border."""
    count, side = 16, 10
    values = torch.linspace(0.05, 0.95, count)  # image k is flat and alone in its class
    images = values[:, None, None, None].expand(-1, 3, side, side).clone()
    shares = []
    for step in range(200):
        keys = fold_in(index_keys(torch.arange(count), seed=0), step)
        got, targets = one(name).on_batch(images, torch.eye(count), keys=keys, network=Network())
        torch.testing.assert_close(targets.sum(1), torch.ones(count))
        torch.testing.assert_close(targets.sum(0), torch.ones(count))  # partners are a permutation
        if name == "mixup":
            mixed = (targets @ values)[:, None, None, None].expand_as(got)
            torch.testing.assert_close(got, mixed)
        else:
            from_each = torch.stack([(got[:, 0] - value).abs() < 1e-6 for value in values], 1).float().mean((2, 3))
            torch.testing.assert_close(targets, from_each)
            foreign = (got != images)[:, 0]
            assert torch.equal(foreign.any(2)[:, :, None] & foreign.any(1)[:, None, :], foreign)  # one box
        shifted = targets.diagonal()[targets.diagonal() < 1 - 1e-6]
        if len(shifted):
            assert shifted.max() - shifted.min() < 1e-6  # one draw per batch
            shares.append(float(shifted[0]))
    if name == "mixup":
        assert scipy.stats.kstest(shares, "uniform").pvalue > 0.01  # Beta(1, 1)
    else:
        assert 0.55 < np.mean(shares) < 0.75  # half is drawn; what hangs over the border is not cut


def test_warps_are_smooth_and_of_two_pixels():
    """Jumps would cut objects to pieces; a warp of the whole image is a shift, which a crop is already."""
    row, column = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    picture = photographs(1, 40)[0, 0, :24, :32].float() / 255
    images = torch.stack([row / 32, column / 32, picture])[None].expand(200, -1, -1, -1)
    got, _ = one("warp").on_batch(images, torch.ones(200, 1), keys=index_keys(torch.arange(200), 0), network=Network())
    rows, columns = (32 * got[:, channel].double().numpy() for channel in (0, 1))
    inner = np.s_[:, 3:-3, 3:-3]
    for places, still in ((rows, row), (columns, column)):
        moves = (places - still.numpy())[inner]
        assert 1.5 < np.abs(moves).max() <= 2 + 1e-4
        assert abs(moves.mean()) < 0.05
        assert max(np.abs(np.diff(moves, axis=axis)).max() for axis in (1, 2)) < 4 / 4 + 0.2
        assert moves.reshape(200, -1).std(1).min() > 0.3  # no shift of the whole
    expected = scipy.ndimage.map_coordinates(picture.numpy(), [rows[0], columns[0]], order=1, mode="nearest")
    np.testing.assert_allclose(got[0, 2].numpy()[inner[1:]], expected[inner[1:]], atol=1e-4)


def test_random_resized_windows_are_those_of_torchvision():
    """Another share of the area is another crop than the trainers' own."""
    row, column = torch.meshgrid(torch.arange(40.0), torch.arange(48.0), indexing="ij")
    images = torch.stack([row, column, column])[None].expand(300, -1, -1, -1) / 48
    keys = index_keys(torch.arange(300), 0)
    got, _ = one("random-resized").on_batch(images, torch.ones(300, 1), keys=keys, network=Network())
    tall = (
        48 * (got[:, 0, -2, 20] - got[:, 0, 1, 20]) * 40 / 37
    )  # of 40 rows, those between the second and the last but one
    wide = 48 * (got[:, 1, 20, -2] - got[:, 1, 20, 1]) * 48 / 45
    share, shape = (tall * wide / (40 * 48)).numpy(), (wide / tall).numpy()
    assert 0.33 < share.min() < 0.4
    assert 0.85 < share.max() < 1.02
    assert 0.72 < shape.min() < 0.8
    assert 1.25 < shape.max() < 1.4


def test_shuffled_channels_are_the_channels():
    """All six orders must come, each with every channel once."""
    images, targets, keys = (each.repeat_interleave(10, 0) for each in batch())
    keys = index_keys(torch.arange(120), 0)
    got, _ = one("channel-shuffle").on_batch(images, targets, keys=keys, network=Network())
    torch.testing.assert_close(got.sort(1).values, images.sort(1).values)
    orders = {
        tuple((new == old[:, None]).flatten(2).all(2).int().argmax(0).tolist())
        for new, old in zip(got, images, strict=True)
    }
    assert len(orders) == 6


def test_augmix_agrees_with_torchvision_drawn_for_each_image():
    """A policy drawn once per batch gives most images the wrong one."""
    images, targets, keys = batch(8, 16)
    got, _ = one("augmix").on_batch(images, targets, keys=keys, network=Network())
    for image, key, result in zip(images, keys.tolist(), got, strict=True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key)
            expected = v2.AugMix()((255 * image).round().to(torch.uint8))
        assert torch.equal((255 * result).round().to(torch.uint8), expected)


def test_gaussian_noise_is_normal():
    """Another spread is another countermeasure; a draw that repeats is none."""
    images = torch.full((20, 3, 16, 16), 0.5)
    keys = index_keys(torch.arange(20), seed=0)
    got, _ = one("gaussian-noise").on_batch(images, torch.ones(20, 1), keys=keys, network=Network())
    noise = (got - images).flatten().double().numpy() * 255 / 8
    assert scipy.stats.kstest(noise, "norm").pvalue > 0.01
    assert len(np.unique(noise)) > 0.9 * noise.size
    dark, _ = one("gaussian-noise").on_batch(0 * images, torch.ones(20, 1), keys=keys, network=Network())
    assert dark.min() == 0


def test_colour_jitter_agrees_with_torchvision():
    """kornia's numbers through torchvision's operations, in the order brightness, contrast, saturation, hue."""
    images, targets, keys = batch()
    jitter = one("colour-jitter")
    got, _ = jitter.on_batch(images, targets, keys=keys, network=Network())
    drawn = jitter.function.members[0].draw(fold_in(keys, 0), images.shape)
    for k, image in enumerate(images):
        expected = tv.adjust_brightness(image, float(drawn["brightness_factor"][k]))
        expected = tv.adjust_contrast(expected, float(drawn["contrast_factor"][k]))
        expected = tv.adjust_saturation(expected, float(drawn["saturation_factor"][k]))
        expected = tv.adjust_hue(expected, float(drawn["hue_factor"][k]))
        torch.testing.assert_close(got[k], expected, atol=2e-3, rtol=0)
    factors = jitter.function.members[0].draw(index_keys(torch.arange(2000), 0), (2000, 3, 8, 8))
    for name, low, high in (("brightness_factor", 0.6, 1.4), ("hue_factor", -0.1, 0.1)):
        assert low <= factors[name].min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < factors[name].max() <= high


def test_randaugment_agrees_with_pil():
    """torchvision's policy through PIL's operations: a policy drawn once per batch gives most images the wrong ones."""
    images, targets, keys = batch(40, 16)
    got, _ = one("randaugment").on_batch(images, targets, keys=keys, network=Network())
    close = 0
    for image, key, result in zip(images, keys.tolist(), got, strict=True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key)
            expected = v2.RandAugment()(tv.to_pil_image(image))
        close += np.abs(result.permute(1, 2, 0).numpy() * 255 - np.asarray(expected)).mean() < 3
    assert close >= 36  # rotations and shears round to the nearest pixel each in their way


@pytest.mark.parametrize("name", PER_IMAGE + MIXTURES)
def test_draws_are_the_keys_and_nothing_is_written(name):
    """A resumed training must see the same batches; the caller's images, targets and random state are theirs."""
    images, targets, keys = batch(classes=2)
    given = [tensor.clone() for tensor in (images, targets, keys)]
    countermeasure, network = one(name), Network()
    state = torch.random.get_rng_state()
    got = countermeasure.on_batch(images, targets, keys=keys, network=network)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(*pair) for pair in zip((images, targets, keys), given, strict=True))
    assert got[0].shape == images.shape
    assert got[0].dtype == torch.float32
    assert 0 <= got[0].min() <= got[0].max() <= 1
    again = one(name).on_batch(images, targets, keys=keys, network=network)
    assert all(torch.equal(*pair) for pair in zip(got, again, strict=True))
    other, _ = countermeasure.on_batch(images, targets, keys=fold_in(keys, 0), network=network)
    assert not torch.equal(other, got[0])


@pytest.mark.parametrize("name", PER_IMAGE)
def test_an_images_draw_does_not_depend_on_its_batch(name):
    """One draw for a whole batch is the trap of batch transformations."""
    images, targets, keys = batch(classes=2)
    countermeasure, network = one(name), Network()
    whole, unchanged = countermeasure.on_batch(images, targets, keys=keys, network=network)
    assert torch.equal(unchanged, targets)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    parts = [
        countermeasure.on_batch(images[rows], targets[rows], keys=keys[rows], network=network)[0]
        for rows in order.split(5)
    ]
    torch.testing.assert_close(torch.cat(parts), whole[order], atol=1e-5, rtol=0)
    same = images[:1].expand(60, -1, -1, -1)
    views, _ = countermeasure.on_batch(
        same, targets[:1].expand(60, -1), keys=index_keys(torch.arange(60), 1), network=network
    )
    assert len({view.numpy().tobytes() for view in views}) > (3 if name == "channel-shuffle" else 20)


def test_ueraser_takes_the_draw_the_network_likes_least():
    """The draw with the least loss, or one draw for all, is plain augmentation."""
    images, _, keys = batch()
    countermeasure, network = one("ueraser"), Network()
    network.norm.running_mean += 0.3
    statistics = network.norm.running_mean.clone()
    network.norm.weight.requires_grad_(False)
    network.train()
    draws = np.stack([countermeasure.policy(images, fold_in(keys, draw)).numpy() for draw in range(5)])
    brightness = draws.mean((2, 3, 4))
    for label, worst in ((0, brightness.argmax(0)), (1, brightness.argmin(0))):
        targets = torch.eye(2)[[label] * len(images)]
        got, _ = countermeasure.on_batch(images, targets, keys=keys, network=network)
        np.testing.assert_allclose(got.numpy(), draws[worst, np.arange(len(images))], atol=1e-5)
    assert network.training
    assert network.norm.training
    assert [weight.requires_grad for weight in network.parameters()] == [False, True]
    assert torch.equal(network.norm.running_mean, statistics)


def test_ueraser_draws_as_published():
    """Plasma and shuffle for half of the images each, and every operation of TrivialAugment as often as another."""
    brightness, contrast, shuffle, trivial = one("ueraser").policy.members
    images, _, _ = batch(1, 8)
    images = images.expand(600, -1, -1, -1)
    keys = index_keys(torch.arange(600), seed=0)
    for member in (brightness, contrast):
        changed = (member(images, member.draw(keys, images.shape)) != images).flatten(1).any(1)
        assert 250 < int(changed.sum()) < 350
    shuffled = shuffle(images, shuffle.draw(keys, images.shape))
    orders = {tuple(order) for order in np.ndindex(3, 3, 3) if len(set(order)) == 3}
    found = [
        {order for order in orders if torch.equal(view, image[list(order)])}
        for view, image in zip(shuffled, images, strict=True)
    ]
    assert all(found)
    assert set().union(*found) == orders
    counts = np.bincount(trivial.draw(index_keys(torch.arange(12_000), 0), (12_000, 3, 8, 8))["chosen"].numpy())
    assert len(counts) == 12
    assert counts.min() > 850
    assert counts.max() < 1150


# --- conditions of the data --------------------------------------------------------------------------------------


def holdings(count=40, classes=4):
    generator = torch.Generator().manual_seed(0)
    clean, images = torch.randint(0, 256, (2, count, 3, 4, 4), dtype=torch.uint8, generator=generator)
    return Labelled(images, torch.arange(count) % classes, clean=clean)


def clean_rows(data, result):
    from_clean = (result.images == data.clean).flatten(1).all(1)
    assert torch.equal(result.images[~from_clean], data.images[~from_clean])
    return set(from_clean.nonzero().flatten().tolist())


def test_a_share_of_clean_images():
    """The fair baseline must hold the very images that the mixture holds, each with its own label."""
    data = holdings()
    before = data.images.clone()
    rows = clean_rows(data, apply_stored(parse_countermeasure("clean-share-25"), data, seed=3))
    assert torch.equal(data.images, before)
    assert len(rows) == 10
    assert rows != clean_rows(data, apply_stored(parse_countermeasure("clean-share-25"), data, seed=4))
    assert rows < clean_rows(data, apply_stored(parse_countermeasure("clean-share-50"), data, seed=3))
    alone = apply_stored(parse_countermeasure("clean-only-25"), data, seed=3)
    assert torch.equal(alone.images, data.clean[sorted(rows)])
    assert torch.equal(alone.labels, data.labels[sorted(rows)])
    assert torch.equal(alone.clean, alone.images)
    assert len(clean_rows(data, apply_stored(parse_countermeasure("clean-share-0.1"), data, seed=3))) == 1
    assert len(clean_rows(data, apply_stored(parse_countermeasure("clean-share-100"), data, seed=3))) == 40


def test_protection_of_some_classes():
    """The protected classes swapped for the clean ones would show the protection upside down."""
    data = holdings()
    some = apply_stored(parse_countermeasure("protected-classes-0,3"), data, seed=0)
    assert clean_rows(data, some) == {row for row in range(40) if row % 4 in (1, 2)}
    shares = [apply_stored(parse_countermeasure("protected-class-share-50"), data, seed=seed) for seed in range(8)]
    chosen = [frozenset(row % 4 for row in clean_rows(data, share)) for share in shares]
    assert {len(classes) for classes in chosen} == {2}
    assert all(len(clean_rows(data, share)) == 20 for share in shares)
    assert len(set(chosen)) > 1


@pytest.mark.parametrize("name", ["clean-share-20", "clean-only-20", "protected-classes-1", "protected-class-share-50"])
def test_conditions_need_the_owners_images(name):
    """Without them the trainer would be said to have clean images and train on protected ones."""
    data = holdings()
    with pytest.raises(ValueError, match=f"{name}.*needs the owner's clean images"):
        apply_stored(parse_countermeasure(name), Labelled(data.images, data.labels), seed=0)
    assert apply_at_test(parse_countermeasure(name), data.images) is data.images


# --- trainers who know more --------------------------------------------------------------------------------------


class Linear(nn.Module):
    """Two classes whose logits differ by w x: the gradient's signs are those of w, everywhere."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3 * 8 * 8, generator=torch.Generator().manual_seed(0)) * 0.05)

    def forward(self, images):
        score = images.flatten(1) @ self.weight
        return torch.stack([score, -score], 1)


def generator(**changes):
    config = {
        "method": "em", "defense_sees": None, "surrogate_sees": None, "num_samples": 1, "eot": (), "num_classes": 2,
        "image_size": (8, 8), "precision": "fp32",
    }  # fmt: skip
    settings, network = GeneratorConfig(**(config | changes)), Linear()
    engine = NetworkEngine(network, settings, EOT([]))
    return SimpleNamespace(
        surrogate=network,
        config=settings,
        engine=engine,
        name="em-linear",
        scale=lambda noise_size=None, visibility=1.0: NoiseScale(8, 8, visibility),
    )


def test_the_informed_trainer_washes_the_noise_of_a_linear_surrogate_out():
    """Its noise is 8 levels down the gradient's signs; the loop in reverse must arrive at the clean images exactly."""
    published = generator()
    clean = photographs(8, 8).clamp(16, 239)
    labels = torch.arange(8) % 2
    signs = torch.sign(published.surrogate.weight.detach()).view(3, 8, 8) * (1 - 2 * labels)[:, None, None, None]
    protected = (clean + 8 * signs).to(torch.uint8)  # the logit of the own class raised
    before = protected.clone()
    data = Labelled(protected, labels)
    washed = apply_stored([InformedTrainer(published, seed=0)], data, seed=5)
    assert torch.equal(washed.images, clean)
    assert torch.equal(protected, before)
    assert torch.equal(washed.labels, labels)


def test_informed_trainers_stay_in_the_ball_and_use_their_own_seed_and_steps(monkeypatch):
    """What is compared is their seed and the owner's; the victim's seed must not stand in for it."""
    published = generator()
    data = Labelled(photographs(8, 8), torch.arange(8) % 2)

    def wash(**arguments):
        seed = arguments.pop("victim", 0)
        return apply_stored([InformedTrainer(published, **arguments)], data, seed=seed).images.int()

    one_step = wash(seed=0, steps=1)
    assert 0 < (one_step - data.images.int()).abs().max() <= 8
    assert torch.equal(one_step, wash(seed=0, steps=1, victim=9))
    assert not torch.equal(one_step, wash(seed=1, steps=1))  # a random start, one step of 1.6 levels
    assert torch.equal(wash(seed=0), wash(seed=0, steps=10))
    monkeypatch.setattr("semtransforms.evaluation.countermeasures.informed.CHUNK_PIXELS", 64)
    assert torch.equal(one_step, wash(seed=0, steps=1))
    assert InformedTrainer(published, seed=0, name="informed-other-seed").name == "informed-other-seed"
    with pytest.raises(ValueError, match="steps"):
        InformedTrainer(published, seed=0, steps=0)
    with pytest.raises(ValueError, match=r"'informed'.*labels 0\.\.1, got 2"):
        apply_stored([InformedTrainer(published, seed=0)], Labelled(data.images, torch.arange(8) % 3), seed=0)


def marked(side=6, count=120):
    """Crops with a class-wise noise of 8 levels: uint8 (count, 3, side, side), and labels of four classes."""
    labels = torch.arange(count) % 4
    noise = torch.randint(0, 2, (4, 3, side, side), generator=torch.Generator().manual_seed(0)) * 16 - 8
    rows = torch.randint(0, 300, (count, 2), generator=torch.Generator().manual_seed(1))
    picture = torch.from_numpy(load_sample_images().images[1].copy()).permute(2, 0, 1)
    crops = torch.stack([picture[:, row : row + side, column : column + side] for row, column in rows.tolist()])
    return (crops.int() + noise[labels]).clamp(0, 255).to(torch.uint8), labels


def test_linear_removal_agrees_with_scikit_learn():
    """A fit that stopped early, or a shift common to all classes, projects the wrong directions out."""
    images, labels = marked()
    pixels = images.double().numpy().reshape(len(images), -1) / 255
    mean = pixels.mean(0)
    model = LogisticRegression(C=1 / (0.01 * len(images)), tol=1e-10, max_iter=10_000).fit(pixels - mean, labels)
    expected = scipy.linalg.orth((model.coef_ - model.coef_.mean(0)).T)
    got = class_directions(torch.from_numpy(pixels - mean).float(), labels).numpy()
    assert got.shape == (108, 3)
    np.testing.assert_allclose(got.T @ got, np.eye(3), atol=1e-5)
    assert np.rad2deg(scipy.linalg.subspace_angles(got, expected)).max() < 1
    removed = pixels - (pixels - mean) @ expected @ expected.T
    result = apply_stored(parse_countermeasure("linear-removal"), Labelled(images, labels), seed=0).images
    difference = result.double().numpy().reshape(removed.shape) - np.clip(255 * removed, 0, 255)
    assert np.abs(difference).max() < 1
    assert np.abs(difference).mean() < 0.3  # a quarter by rounding alone


def test_linear_removal_leaves_one_class_as_it_is():
    """With nothing to tell apart there is no direction to take out."""
    images, labels = marked(count=8)
    countermeasure = parse_countermeasure("linear-removal")
    data = Labelled(images, 0 * labels)
    assert torch.equal(apply_stored(countermeasure, data, seed=0).images, images)
    assert apply_at_test(countermeasure, images) is images


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*KNOWN, "jpeg-75+greyscale", "clean-share-2.5+jpeg-75+mixup", "protected-classes-7"])
def test_names_come_back(name):
    """A record's name must build what it names; a killed evaluation finds its runs by it."""
    countermeasures = parse_countermeasure(name)
    assert ("+".join(each.name for each in countermeasures) or "none") == name
    assert all(isinstance(each, Countermeasure) for each in countermeasures)


def test_every_name_is_one_of_these():
    """A countermeasure that the table of names lost would be missed by nobody."""
    assert {"none", *FIXED, *PER_IMAGE, *MIXTURES, "linear-removal", "d-vae", "pairs-500", "clean-share-20"} <= set(
        KNOWN
    )
    stored = {name for name in KNOWN[1:] if one(name).acts_on == "stored"}
    assert stored == set(KNOWN[1:]) - {*PER_IMAGE, *MIXTURES}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grayscale", "did you mean .*'greyscale'"),
        ("jpeg", "did you mean .*'jpeg-10'"),
        ("color-jitter", "did you mean .*'colour-jitter'"),
        ("greyscale+", "unknown countermeasure ''"),
        ("jpeg-0", r"jpeg-0.*1\.\.100.*jpeg-10"),
        ("jpeg-best", "jpeg-best.*jpeg-10"),
        ("bit-depth-8", r"bit-depth-8.*1\.\.7"),
        ("clean-share-0", "clean-share-0.*above 0"),
        ("clean-only-101", "clean-only-101.*at most 100"),
        ("clean-share-nan", "clean-share-nan.*above 0"),
        ("protected-classes-a", "protected-classes-a.*protected-classes-0,1"),
        ("protected-class-share-0", "protected-class-share-0.*above 0"),
        ("pairs-0", "pairs-0.*>= 1.*pairs-500"),
        ("pairs-500-label", "pairs-500-label.*pairs-500"),
        ("informed-same-seed", "needs the published generator.*InformedTrainer"),
    ],
)
def test_names_that_fit_nothing_are_refused(text, message):
    """A typo must be an error before the first training, with what was meant."""
    with pytest.raises(ValueError, match=message):
        parse_countermeasure(text)

"""What the noise is like, against NumPy, SciPy, scikit-learn and closed forms."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from sklearn.linear_model import RidgeClassifier
from torch import nn

from semtransforms.core.config import PGDConfig, Transformation, Uniform
from semtransforms.core.models import build_model
from semtransforms.evaluation import metrics
from semtransforms.evaluation.metrics import describe_noise, linear_accuracy, noise_robustness, surrogate_robustness
from semtransforms.evaluation.victims import VictimConfig, train_victim
from semtransforms.views.eot import EOT, build_eot

SPECTRUM = ("spectrum_low", "spectrum_mid", "spectrum_high")


def photographs(count, height, width, seed=0):
    """Smooth shapes with some grain that reach both ends of the range: uint8 (count, 3, height, width)."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=(count, 3, height, width)), (0, 0, 2, 2)) * 800 + 128
    return np.clip(smooth + rng.normal(size=smooth.shape) * 4, 0, 255).astype(np.uint8)


def noisy(clean, rho=8, seed=1):
    noise = np.random.default_rng(seed).integers(-rho, rho + 1, clean.shape)
    return np.clip(clean.astype(int) + noise, 0, 255).astype(np.uint8)


def describe(clean, protected, labels=None, **arguments):
    labels = torch.arange(len(clean)) % 2 if labels is None else labels
    return describe_noise(torch.from_numpy(clean), torch.from_numpy(protected), labels, **arguments)


@pytest.mark.parametrize("chunk", [1, 2**22])
def test_strength_agrees_with_numpy(chunk, monkeypatch):
    """A figure of the raw noise instead of the stored bytes, or one lost chunk, flatters or libels the method."""
    monkeypatch.setattr(metrics, "CHUNK", chunk)
    clean = photographs(7, 12, 16)
    protected = noisy(clean)
    protected[2] = clean[2]  # its signal-to-noise ratio is infinite
    got = describe(clean, protected)

    change = protected.astype(int) - clean
    squares = np.delete((change**2).mean((1, 2, 3)), 2)
    assert (clean == 0).any()
    assert (clean == 255).any()
    assert got.psnr == pytest.approx((10 * np.log10(255**2 / squares)).mean(), rel=1e-6)
    assert got.l2 == pytest.approx(np.mean([np.linalg.norm(c.ravel() / 255) for c in change]), rel=1e-6)
    assert got.linf == 8
    assert got.share_at_bound == pytest.approx(np.mean(np.abs(change) == 8))
    assert got.share_changed == pytest.approx(np.mean(change != 0))
    assert got.unchanged_images == 1


def test_the_largest_change_there_is():
    """A copy of other images must not pass for one with little noise because a byte ran over."""
    clean = np.zeros((5, 3, 4, 4), np.uint8)
    got = describe(clean, clean + 255)
    assert (got.linf, got.psnr, got.l2) == (255, 0, pytest.approx(48**0.5))


def test_share_at_a_given_bound():
    """Noise far inside its bound must not look as if it used it up."""
    clean = np.full((5, 3, 4, 4), 100, np.uint8)
    protected = clean.copy()
    protected[:, 0] += 3
    protected[:, 1, 0] += 5
    assert describe(clean, protected).share_at_bound == pytest.approx(4 / 48)
    assert describe(clean, protected, rho_u=8 / 255).share_at_bound == 0
    assert describe(clean, protected, rho_u=5 / 255).share_at_bound == pytest.approx(4 / 48)
    assert describe(clean, protected, rho_u=3 / 255).share_at_bound == pytest.approx(20 / 48)  # at it or beyond


def scipy_ssim(a, b):
    """Wang et al. 2004 in float64: Gaussian of sigma 1.5 cut at 5 pixels, only where the window is inside."""

    def mean(x):
        return gaussian_filter(x, (0, 0, 1.5, 1.5), truncate=3.5)[..., 5:-5, 5:-5]

    a, b = a / 255, b / 255
    c1, c2 = 0.01**2, 0.03**2
    variance = [mean(x * y) - mean(x) * mean(y) for x, y in ((a, a), (b, b), (a, b))]
    luminance = (2 * mean(a) * mean(b) + c1) / (mean(a) ** 2 + mean(b) ** 2 + c1)
    return (luminance * (2 * variance[2] + c2) / (variance[0] + variance[1] + c2)).mean()


@pytest.mark.parametrize("greyscale", [False, True])
@pytest.mark.parametrize("rho", [8, 64])
def test_ssim_agrees_with_scipy(rho, greyscale):
    """Another window, border or constant makes the figure incomparable with every published one."""
    clean = photographs(5, 16, 20)
    clean[3] = 255  # flat: rounding is worst where the variance vanishes
    if greyscale:
        clean = np.repeat(clean[:, :1], 3, axis=1)
    protected = noisy(clean, rho)
    assert scipy_ssim(clean, protected) < 0.99
    assert describe(clean, protected).ssim == pytest.approx(scipy_ssim(clean, protected), abs=2e-4)


def test_unchanged_images_are_described_in_json():
    """The clean copy is measured too: an infinity or a NaN breaks every reader of the report."""
    clean = photographs(6, 12, 12)
    got = describe(clean, clean, torch.tensor([1, 1, 1, 1, 1, 0]))
    assert got.psnr is None
    assert got.ssim == pytest.approx(1, abs=1e-6)
    assert (got.linf, got.l2, got.share_at_bound, got.share_changed, got.unchanged_images) == (0, 0, 0, 0, 6)
    assert [getattr(got, name) for name in SPECTRUM] == [0, 0, 0]
    assert json.loads(json.dumps(got.to_dict(), allow_nan=False)) == got.to_dict()
    assert got.guess_rate == pytest.approx(5 / 6)


@pytest.mark.parametrize("side", [1, 3, 4, 10])
def test_images_too_small_for_the_window(side):
    """A dataset of small icons must not lose its whole report to one measure."""
    clean = np.full((6, 3, side, side), 100, np.uint8)
    got = describe(clean, noisy(clean))
    assert got.ssim is None
    assert np.isfinite(got.psnr)
    assert sum(getattr(got, name) for name in SPECTRUM) == pytest.approx(1)


@pytest.mark.parametrize(
    ("cycles", "band"),
    [
        ((0, 0), 0),  # the same change everywhere
        ((0, 2), 0),  # a period of 16 pixels along a row
        ((3, 0), 0),
        ((0, 4), 1),  # 8 pixels: an octave holds its lower end
        ((5, 0), 1),
        ((4, 4), 1),
        ((0, 8), 2),  # 4 pixels
        ((7, 7), 2),  # the radius counts, not the larger side
        ((16, 16), 2),  # a chessboard, beyond the highest frequency of either axis
    ],
)
def test_a_wave_lands_in_its_band(cycles, band):
    """Swapped or shifted bands would call noise robust to blurring that a blur removes."""
    rows, columns = np.meshgrid(np.arange(32), np.arange(32), indexing="ij")
    wave = 40 * np.cos(2 * np.pi * (cycles[0] * rows + cycles[1] * columns) / 32)
    protected = np.broadcast_to(np.round(128 + wave), (5, 3, 32, 32)).astype(np.uint8)
    got = describe(np.full_like(protected, 128), protected)
    shares = [getattr(got, name) for name in SPECTRUM]
    assert shares[band] > 0.99
    assert sum(shares) == pytest.approx(1)


def test_white_noise_is_flat():
    """Bands of different size must not give white noise a colour."""
    clean = np.full((60, 3, 16, 16), 128, np.uint8)
    got = describe(clean, noisy(clean))
    for name in SPECTRUM:
        # by hand: the low band has 9 independent frequencies of 180 samples each, so 1/3 +- 0.01
        assert getattr(got, name) == pytest.approx(1 / 3, abs=0.03)


def test_spectrum_agrees_with_numpy(monkeypatch):
    """Images that are not square have another frequency at the same place of each axis; and every chunk counts."""
    monkeypatch.setattr(metrics, "CHUNK", 1)
    clean = np.full((6, 3, 10, 24), 128, np.uint8)
    change = gaussian_filter(np.random.default_rng(0).normal(size=clean.shape), (0, 0, 1, 0.5)) * 20
    protected = np.round(128 + change).astype(np.uint8)
    power = (np.abs(np.fft.fft2(protected.astype(float) - 128)) ** 2).sum((0, 1))
    found = [[], [], []]
    for i, j in np.ndindex(power.shape):
        radius = np.hypot(min(i, 10 - i) / 10, min(j, 24 - j) / 24)
        found[0 if radius < 0.125 else 1 if radius < 0.25 else 2].append(power[i, j])
    expected = np.array([np.mean(band) for band in found])
    got = describe(clean, protected)
    np.testing.assert_allclose([getattr(got, name) for name in SPECTRUM], expected / expected.sum(), rtol=1e-5)


def class_noise(count=200, classes=4, side=6, strength=1, seed=0):
    """int16 noise with a pattern per class of a given strength inside uniform noise, and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    patterns = rng.choice([-1, 1], (classes, 3, side, side))
    # the sum over an image counts: larger images need larger noise to stay equally hard
    noise = rng.integers(-2 * side, 2 * side + 1, (count, 3, side, side)) + strength * patterns[labels]
    return torch.from_numpy(noise.astype(np.int16)), torch.from_numpy(labels)


def test_class_wise_noise_is_linear_and_random_noise_is_not():
    """The measure exists to tell a shortcut from none; held-out images keep a model from learning by heart."""
    noise, labels = class_noise(strength=100)
    assert linear_accuracy(noise, labels) == 1
    random, labels = class_noise(count=1000, strength=0)
    assert linear_accuracy(random, labels) == pytest.approx(1 / 4, abs=0.08)  # 200 held out: +- 0.03


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("side", [4, 10])  # 48 values: the primal form; 300 values, 192 images: the dual
def test_linear_accuracy_agrees_with_scikit_learn(side, classes):
    """Neither form may differ from ridge regression with an intercept, as others compute it."""
    noise, labels = class_noise(240, classes, side, strength=1)
    for seed in range(4):
        order = torch.randperm(240, generator=torch.Generator().manual_seed(seed)).numpy()
        test, train = order[:48], order[48:]
        rows = noise.flatten(1).double().numpy()
        penalty = ((rows[train] - rows[train].mean(0)) ** 2).sum(1).mean()
        model = RidgeClassifier(alpha=penalty).fit(rows[train], labels[train])
        expected = model.score(rows[test], labels[test])
        assert 1 / classes + 0.05 < expected < 0.95  # neither guessing nor saturated, where much would agree
        assert linear_accuracy(noise, labels, seed=seed) == pytest.approx(expected)


def test_linear_accuracy_without_noise_is_the_guess():
    """A copy in which nothing was changed must not crash the solver, nor seem readable."""
    labels = torch.tensor([2] * 70 + [0, 1] * 15)
    held_out = labels[torch.randperm(100, generator=torch.Generator().manual_seed(0))[:20]]
    for side in (2, 8):
        noise = torch.zeros(100, 3, side, side, dtype=torch.int16)
        assert linear_accuracy(noise, labels) == pytest.approx((held_out == 2).double().mean().item())


def test_linear_accuracy_takes_as_many_images_as_fit(monkeypatch):
    """Large images must neither exhaust the memory nor be left unmeasured."""
    noise, labels = class_noise(count=200, strength=1)
    monkeypatch.setattr(metrics, "LINEAR_VALUES", 50 * noise[0].numel() + 1)
    expected = linear_accuracy(noise, labels)
    unused = torch.randperm(200, generator=torch.Generator().manual_seed(0))[50:]
    noise[unused] = 1000
    assert linear_accuracy(noise, labels) == expected
    assert 50 // 5 * expected == pytest.approx(round(50 // 5 * expected))  # ten images were held out


def test_description_reads_labels_from_the_noise_alone():
    """Images that tell their label by themselves would make any noise look like a shortcut."""
    labels = torch.arange(400) % 4
    clean = np.full((400, 3, 6, 6), 60, np.uint8) + 40 * labels.numpy().astype(np.uint8)[:, None, None, None]
    random = describe(clean, noisy(clean), labels, seed=3)
    assert random.linear_accuracy < 0.45
    assert random.guess_rate == 0.25
    noise, labels = class_noise(400, side=6, strength=1)
    protected = (128 + noise).to(torch.uint8)
    got = describe_noise(torch.full_like(protected, 128), protected, labels, seed=3)
    assert got.linear_accuracy == linear_accuracy(noise, labels, seed=3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"protected": torch.zeros(5, 3, 8, 9, dtype=torch.uint8)}, ValueError, "same order and size"),
        ({"protected": torch.zeros(4, 3, 8, 8, dtype=torch.uint8)}, ValueError, "protected.*4 and 5 labels"),
        ({"protected": torch.zeros(5, 3, 8, 8)}, TypeError, "protected must be one uint8.*float32"),
        ({"clean": [torch.zeros(3, 8, 8, dtype=torch.uint8)] * 5}, TypeError, "clean.*list.*each image size"),
        ({"clean": torch.zeros(5, 8, 8, dtype=torch.uint8)}, ValueError, r"clean must be uint8 \(N, 3, H, W\)"),
        ({"clean": torch.zeros(0, 3, 8, 8, dtype=torch.uint8), "labels": torch.zeros(0)}, ValueError, "non-empty"),
        ({"labels": torch.zeros(4, dtype=torch.int64)}, ValueError, "5 and 4 labels"),
        ({"labels": torch.tensor([0, 1, -1, 0, 1])}, ValueError, "index 2"),
    ],
)
def test_bad_input_is_named(change, error, message):
    """Copies that do not belong together give figures that look right."""
    arguments = {
        "clean": torch.zeros(5, 3, 8, 8, dtype=torch.uint8),
        "protected": torch.ones(5, 3, 8, 8, dtype=torch.uint8),
        "labels": torch.tensor([0, 1, 0, 1, 0]),
    }
    describe_noise(**arguments)
    with pytest.raises(error, match=message):
        describe_noise(**{**arguments, **change})


def test_four_images_are_too_few_to_hold_one_out():
    """An accuracy on no image at all is a NaN."""
    with pytest.raises(ValueError, match="at least five images"):
        linear_accuracy(torch.zeros(4, 3, 2, 2), torch.arange(4))


# --- robustness --------------------------------------------------------------------------------------------------

DEFENSE = PGDConfig(8 / 255, 4 / 255, steps=5)
ATTACK = PGDConfig(4 / 255, 2 / 255, steps=5)


class TwoClasses(nn.Module):
    """Logits (w x, -w x): the loss is log(1 + exp(-2 s w x)) with s = 1 for label 0 and -1 for label 1."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(48, generator=torch.Generator().manual_seed(0)))
        self.seen = []

    def forward(self, images):
        score = images.flatten(1) @ self.weight[:, None]
        self.seen.append((len(images), score.dtype))
        return torch.cat([score, -score], 1)


def grey_images(count=10):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(100, 156, (count, 3, 4, 4), generator=generator, dtype=torch.uint8)
    return images, torch.arange(count) % 2


def closed_form(network, images, labels, gain):
    """The loss where every value was moved by ``gain`` in its own best direction."""
    weight = network.weight.detach().double().numpy()
    side = 1 - 2 * labels.double().numpy()
    margin = side * (images.flatten(1).double().numpy() / 255 @ weight) + gain * np.abs(weight).sum()
    return np.log1p(np.exp(-2 * margin)).mean()


def test_a_surrogate_that_ignores_its_input():
    """By hand: neither side can move the loss, so R is the mean log-probability of the labels."""

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.tensor([1.0, 0.0]))

        def forward(self, images):
            return self.bias + 0 * images.flatten(1)[:, :2]

    images, labels = grey_images(3)  # labels 0, 1, 0
    got = surrogate_robustness(Constant(), images, labels, defense=DEFENSE, attack=ATTACK)
    assert got == pytest.approx(-(2 * np.log(1 + np.exp(-1)) + np.log(1 + np.exp(1))) / 3, rel=1e-6)


@pytest.mark.parametrize("rho_a", [0, 4, 8, 12])
def test_linear_surrogate_has_a_closed_form(rho_a):
    """Eq. 8 where both sides' best moves are known: a wrong sign, a missing side or a stale radius shows here."""
    network, (images, labels) = TwoClasses(), grey_images()
    attack = PGDConfig(rho_a / 255, rho_a / 255, steps=2)
    got = surrogate_robustness(network, images, labels, defense=DEFENSE, attack=attack)
    assert got == pytest.approx(-closed_form(network, images, labels, (8 - rho_a) / 255), rel=1e-4)


def test_the_loss_is_seen_through_t():
    """Where t blackens the image the noise is worthless, and the adversary can only add light."""

    class Black(nn.Module):
        def draw(self, keys, shape):
            return {}

        def forward(self, images, parameters):
            return 0 * images

    network, (images, labels) = TwoClasses(), grey_images()
    got = surrogate_robustness(network, images, labels, defense=DEFENSE, attack=ATTACK, eot=EOT([Black()]))
    weight = network.weight.detach().double().numpy()
    margins = [-4 / 255 * np.clip(-side * weight, 0, None).sum() for side in (1, -1)]
    assert got == pytest.approx(-np.mean([np.log1p(np.exp(-2 * margin)) for margin in margins]), rel=1e-4)


def test_every_transformation_is_drawn_anew():
    """A view that the noise was made for says nothing about the next one."""

    class Recorder(nn.Module):
        seen = []  # noqa: RUF012 - one recorder

        def draw(self, keys, shape):
            self.seen.extend(keys.tolist())
            return {}

        def forward(self, images, parameters):
            return images

    images, labels = grey_images()
    defense = replace(DEFENSE, num_samples=3)
    surrogate_robustness(TwoClasses(), images, labels, defense=defense, attack=ATTACK, eot=EOT([Recorder()]))
    assert len(Recorder.seen) == (5 * 3 + 1) * len(images)
    assert len(set(Recorder.seen)) == len(Recorder.seen)


def test_the_noise_descends_on_what_the_adversary_leaves():
    """Noise that never met the adversary belongs to another definition; what it saw in its fit does not count."""
    images, labels = grey_images()
    found = []
    for inner in (None, Uniform(0.5), ATTACK):
        network = TwoClasses()
        defense = replace(DEFENSE, inner=inner)
        found.append(surrogate_robustness(network, images, labels, defense=defense, attack=ATTACK))
        # K_u times (K_a of the adversary, one of the noise), then the adversary and the loss
        assert len([size for size, _ in network.seen if size == len(images)]) == 5 * (5 + 1) + 5 + 1
    assert found[0] == found[1] == found[2]


def convnet():
    torch.manual_seed(0)
    network = build_model("convnet", num_classes=2, image_size=8, width=8)
    network(torch.rand(16, 3, 8, 8))  # running statistics that differ from the first ones
    head = next(layer for layer in network.modules() if isinstance(layer, nn.Linear))
    nn.init.normal_(head.weight, std=10)  # a fresh one says almost nothing, and nothing could move it
    return network


def test_a_stronger_adversary_never_raises_the_robustness():
    """The maximum over a larger ball is no smaller."""
    images = torch.randint(0, 256, (24, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = torch.arange(24) % 2
    eot = build_eot([Transformation("crop", {"padding": 1}), Transformation("flip")])
    network = convnet()
    found = [
        surrogate_robustness(
            network, images, labels, defense=DEFENSE, attack=PGDConfig(rho / 255, rho / 2 / 255, 5), eot=eot
        )
        for rho in (0, 2, 4, 8, 16)
    ]
    assert found == sorted(found, reverse=True)
    assert found[0] - found[-1] > 0.05


def test_robustness_depends_on_neither_batch_nor_mode():
    """A checkpoint measured in batches, or in training mode, must be the same checkpoint afterwards."""
    images = torch.randint(0, 256, (10, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = torch.arange(10) % 2
    before = images.clone()
    network = convnet().train()
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    eot = build_eot([Transformation("crop", {"padding": 2})])
    found = [
        surrogate_robustness(
            network, images, labels, defense=DEFENSE, attack=ATTACK, eot=eot, batch_size=size, seed=seed
        )
        for size, seed in ((256, 0), (3, 0), (256, 1))
    ]
    assert found[1] == pytest.approx(found[0], abs=1e-3)
    assert found[2] != found[0]
    assert torch.equal(images, before)
    assert network.training
    assert all(weight.requires_grad and weight.grad is None for weight in network.parameters())
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_robustness_under_autocast():
    """The fast type must reach the network, and not change what is measured."""
    network, (images, labels) = TwoClasses(), grey_images()
    got = surrogate_robustness(network, images, labels, defense=DEFENSE, attack=ATTACK, dtype=torch.bfloat16)
    assert {dtype for size, dtype in network.seen if size == len(images)} == {torch.bfloat16}
    assert got == pytest.approx(-closed_form(network, images, labels, 4 / 255), abs=0.02)


def test_surrogate_robustness_names_bad_input():
    """An average over nothing, or a label short, would surface as a NaN or deep inside the loop."""
    images, labels = grey_images()
    for some, named in ((images[:0], labels[:0]), (images, labels[1:])):
        with pytest.raises(ValueError, match="non-empty with one label each"):
            surrogate_robustness(TwoClasses(), some, named, defense=DEFENSE, attack=ATTACK)


def test_noise_robustness_is_minus_the_adversarial_training_loss():
    """Noise that outlives the adversary (a bright corner per class) must score above images that hold nothing."""
    clean = torch.randint(64, 192, (32, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = torch.arange(32) % 2
    marked = clean.clone()
    marked[labels == 1, :, :8] = 255
    marked[labels == 0, :, :8] = 0
    config = VictimConfig(
        network="convnet", width=4, train_steps=20, batch_size=16, rho_a=4 / 255, steps_a=2, augmentation=()
    )
    found = [noise_robustness(images, labels, config, device="cpu") for images in (clean, marked)]
    trained = train_victim(marked, labels, config, test_images=clean, test_labels=labels, device="cpu", progress=False)
    assert found[1] == -trained.train_loss
    assert found[0] + 0.2 < found[1] < 0
    with pytest.raises(ValueError, match="protected must be non-empty"):
        noise_robustness(clean[:0], labels[:0], config)

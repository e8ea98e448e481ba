"""TAP: noise on a network fitted on clean data, towards the next class or away from the own one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from semtransforms.core.keys import fold_in, image_keys, index_keys, keyed_uniform
from semtransforms.data.loading import Labelled
from semtransforms.evaluation.countermeasures import InformedTrainer
from semtransforms.generators import fitting
from semtransforms.generators.fitting import fit_generator, train_step
from semtransforms.generators.generator import NoiseGenerator
from semtransforms.noise.engine import build_surrogate
from semtransforms.noise.methods import SC_LINF, TAP, TAP_UNTARGETED

SMALL = {
    "surrogate": "convnet", "width": 4, "steps_u": 8, "alpha_u": 2 / 255, "train_steps": 60, "batch_size": 32,
    "precision": "fp32", "eot": (),
}  # fmt: skip


def stripes(count=60, side=12):
    """Three classes of faint stripes: a network learns them in seconds, and eight levels can hide them."""
    images = torch.randint(100, 156, (count, 3, side, side), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(count) % 3
    for label in range(3):
        images[labels == label, :, :, label::3] += 12
    return images.to(torch.uint8), labels


def fit(preset=TAP, data=None, **changes):
    return fit_generator(data or stripes(), replace(preset, **(SMALL | changes)), progress=False, device="cpu")


@pytest.fixture(scope="module", params=[TAP, TAP_UNTARGETED], ids=lambda preset: preset.method)
def fitted(request):
    return fit(request.param)


def named(generator, images):
    with torch.no_grad():
        return generator.surrogate(images / 255.0).argmax(1)


def test_the_network_names_the_clean_images_rightly_and_the_others_wrongly(fitted):
    """The noise shall look like another class to a network that knows the classes: the next one, where targeted."""
    images, labels = stripes()
    assert (named(fitted, images) == labels).float().mean() > 0.95
    noise = fitted.noise(images, labels)
    assert noise.abs().max() <= 8
    found = named(fitted, images + noise)
    assert (found == labels).float().mean() < 0.1
    if fitted.config.aim == "shifted":
        assert (found == (labels + 1) % 3).float().mean() > 0.75


@pytest.mark.parametrize("preset", [TAP, TAP_UNTARGETED], ids=lambda preset: preset.method)
def test_one_step_by_hand(preset):
    """On a linear network the gradient is W^T (softmax - one-hot): its sign, and the label it is taken at, decide."""

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            weight = torch.randn(3, 3 * 8 * 8, generator=torch.Generator().manual_seed(0))
            self.weight = nn.Parameter(weight)

        def forward(self, x):
            return F.linear(x.flatten(1), self.weight)

    config = replace(preset, **(SMALL | {"steps_u": 1, "num_classes": 3, "image_size": (8, 8)}))
    network = Linear()
    generator = NoiseGenerator(network, config)
    images = torch.randint(60, 196, (6, 3, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    noise = generator.noise(images, labels, seed=7)

    start = (2 * keyed_uniform(fold_in(image_keys(images, labels, 7), 0), (3, 8, 8)).numpy() - 1) * 8 / 255
    x = (images.numpy() / 255 + start).reshape(6, -1)
    weight = network.weight.detach().numpy()
    odds = np.exp(x @ weight.T)
    shifted = preset is TAP
    wanted = np.eye(3)[(labels.numpy() + shifted) % 3]
    gradient = ((odds / odds.sum(1, keepdims=True) - wanted) @ weight).reshape(start.shape)
    moved = start + (-1 if shifted else 1) * 2 / 255 * np.sign(gradient)
    np.testing.assert_array_equal(noise.numpy(), np.rint(moved.clip(-8 / 255, 8 / 255) * 255))


def test_the_surrogate_learns_from_clean_images():
    """One update must be plain training: with noise in it the network would learn to see through it."""
    config = replace(TAP, **(SMALL | {"num_classes": 3, "image_size": (12, 12)}))
    images, labels = stripes(16)
    ours, theirs = build_surrogate(config), build_surrogate(config)
    sgd = torch.optim.SGD(ours.parameters(), lr=0.1)
    keys = index_keys(torch.arange(16), 0)
    train_step(ours, sgd, images / 255.0, labels, keys=keys, config=config, eot=lambda x, keys: x)
    F.cross_entropy(theirs.train()(images / 255.0), labels).backward()
    with torch.no_grad():
        for weight in theirs.parameters():
            weight -= 0.1 * weight.grad
    for mine, reference in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-6, rtol=1e-5)


def test_a_random_surrogate_is_an_error():
    """Peers make such noise on an untrained network without a word; it protects nothing."""
    config = replace(TAP, **(SMALL | {"num_classes": 3, "image_size": (12, 12)}))
    with pytest.raises(ValueError, match=r"never seen an image.*fit_generator"):
        NoiseGenerator(build_surrogate(config), config)
    images, labels = stripes()
    shuffled = labels[torch.randperm(60, generator=torch.Generator().manual_seed(0))]
    with pytest.raises(ValueError, match=r"learned nothing .*train_steps=1"):
        fit(data=(images, shuffled), train_steps=1)


def test_a_good_surrogate_is_known_on_sorted_data(monkeypatch):
    """Folders come sorted by class: the first 1,000 images are all one class, of which guessing names all rightly."""
    monkeypatch.setattr(fitting, "LEARNED_ON", 18)
    images, labels = stripes()
    order = labels.argsort(stable=True)
    assert fit(data=(images[order], labels[order])).config.num_classes == 3


@pytest.mark.parametrize(
    ("counts", "blind"), [((990, 10), 0), ((10, 990), 1), ((999, 1), 0), ((5000, 1), 0), ((2, 1), 0)]
)
def test_a_rare_class_counts_like_a_common_one(counts, blind):
    """Accuracy asks of a data set with 1 % of a class for more than 99 %, and cannot tell who sees from who guesses."""

    class Named(nn.Module):
        def __init__(self, sees):
            super().__init__()
            self.sees = sees

        def forward(self, x):  # the label is painted into every pixel
            named = x[:, 0, 0, 0].round().long() if self.sees else torch.full((len(x),), blind)
            return F.one_hot(named, 2).float()

    labels = torch.repeat_interleave(torch.arange(2), torch.tensor(counts))
    images = (labels * 255).to(torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8)
    fitting._check_learned(Named(sees=True), images, labels, TAP)
    with pytest.raises(ValueError, match=r"learned nothing .*50%.*guessing gives 50%"):
        fitting._check_learned(Named(sees=False), images, labels, TAP)


def test_aims_need_a_surrogate_of_clean_data():
    """Trained beside such noise, the surrogate learns that class 1 is class 0, and the noise vanishes."""
    with pytest.raises(ValueError, match=r"aim='shifted' needs fitted_on='clean'"):
        replace(TAP, fitted_on="protected")
    for name, value in (("aim", "next"), ("fitted_on", "noise")):
        with pytest.raises(ValueError, match=name):
            replace(TAP, **{name: value})


def test_the_informed_trainer_runs_each_loop_in_reverse(fitted):
    """Run forward instead, they would add noise to noise and be reported as harmless."""
    images, labels = stripes()
    published = images + fitted.noise(images, labels)
    washed = InformedTrainer(fitted, seed=1).on_stored(Labelled(published, labels, clean=images), seed=0).images
    assert (named(fitted, washed) == labels).float().mean() > 0.75


def test_the_informed_trainer_needs_a_network():
    """SC and NTGA have none: a traceback about parameters would send the user through the source."""
    images, labels = stripes()
    generator = fit_generator((images, labels), SC_LINF, progress=False, device="cpu")
    with pytest.raises(ValueError, match=r"'sc-linf' has no surrogate network"):
        InformedTrainer(generator, seed=1).on_stored(Labelled(images, labels, clean=images), seed=0)

"""Noise in one pass: the bound whatever the weights are, what the secret decides, and what a fit learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from semtransforms import SEM_ONE_PASS, SEM_PLUS, NoiseGenerator, fit_generator, fit_one_pass, with_effort
from semtransforms.core.config import GeneratorConfig
from semtransforms.core.grid import add_noise, to_float
from semtransforms.noise import one_pass
from semtransforms.noise.engine import build_surrogate
from semtransforms.noise.methods import SC_LINF, check_surrogate
from semtransforms.noise.one_pass import Painter, in_levels

SMALL = {"surrogate": "convnet", "width": 8, "num_classes": 2, "image_size": (16, 16), "precision": "fp32", "eot": ()}
ONE_PASS = replace(SEM_ONE_PASS, **SMALL)
TEACHER = replace(SEM_PLUS, **SMALL, batch_size=8)


def pictures(count=64, side=16):
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), generator=draw, dtype=torch.uint8), torch.arange(count) % 2


@pytest.mark.parametrize("rho_u", [8 / 255, 2.5 / 255])
def test_no_weights_leave_the_bound(rho_u):
    """A file from anywhere, or a fit that ran away, would change images by more than was promised."""
    config = replace(ONE_PASS, rho_u=rho_u, rho_a=1 / 255)
    painter = build_surrogate(config)
    with torch.no_grad():
        for weight in painter.parameters():
            weight.mul_(50)
    generator = NoiseGenerator(painter, config)
    for height, width in ((16, 16), (1, 1), (5, 3), (37, 18)):
        images = pictures(8, 40)[0][..., :height, :width].contiguous()
        images[0], images[1] = 0, 255
        noise = generator.noise(images, torch.arange(8) % 2, noise_size="full").int()
        assert noise.shape == images.shape
        assert int(noise.abs().max()) == int(255 * rho_u + 1e-6)
        assert 0 <= int((images.int() + noise).min()) <= int((images.int() + noise).max()) <= 255


def test_levels_and_their_gradient_by_hand():
    """A gradient that the rounding stops learns nothing; one that ignores the tanh runs away."""
    raw = torch.tensor([-3.0, -0.2, 0.1, 0.9, 3.0]).view(1, 1, 1, 5).requires_grad_()
    images = torch.tensor([100.0, 0.0, 255.0, 250.0, 1.0]).view(1, 1, 1, 5) / 255
    made = in_levels(raw, images, 8)
    smooth = 8 * np.tanh(np.array([-3.0, -0.2, 0.1, 0.9, 3.0]))
    assert made.flatten().tolist() == [np.round(smooth[0]), 0, 0, 5, np.round(smooth[4])]
    made.sum().backward()
    free = np.array([1, 0, 0, 0, 1])  # where the range of pixels cuts, nothing is to be gained
    np.testing.assert_allclose(raw.grad.flatten(), free * 8 * (1 - (smooth / 8) ** 2), rtol=1e-4, atol=1e-7)


def test_image_label_and_key_decide_and_nothing_else():
    """Noise that a batch or an order changes differs between machines; noise without a secret is anybody's."""
    images, labels = pictures(12)
    generator = NoiseGenerator(build_surrogate(ONE_PASS), ONE_PASS)
    noise = generator.noise(images, labels, seed=3)
    turned = generator.noise(images.flip(0), labels.flip(0), seed=3, batch_size=5).flip(0)
    assert torch.equal(noise, turned)
    for other in (
        generator.noise(images, labels, seed=4),
        generator.noise(images, 1 - labels, seed=3),
        generator.noise(255 - images, labels, seed=3, ids=torch.arange(12)),
    ):
        assert (other != noise).float().mean() > 0.05


def test_a_fit_lowers_the_surrogates_loss_and_leaves_it_as_it_was(tmp_path):
    """What does not mislead the surrogate protects from nothing; a surrogate that moved is another generator."""
    images, labels = pictures(128)
    surrogate = build_surrogate(replace(SEM_PLUS, **SMALL)).eval()
    with torch.no_grad():
        surrogate.network[-1].weight.mul_(30)  # as sure of itself as a fitted one
    slow = NoiseGenerator(surrogate, replace(SEM_PLUS, **SMALL))
    before = slow.fingerprint
    slow._fingerprint = None
    fast = fit_one_pass((images, labels), slow, updates=20, device="cpu", progress=False)
    assert slow.fingerprint == before
    assert (fast.config.method, fast.config.one_pass) == ("sem-one-pass", 20)

    def loss(generator):
        with torch.no_grad():
            return float(F.cross_entropy(surrogate(to_float(generator.protect(images, labels))), labels))

    untrained = NoiseGenerator(build_surrogate(fast.config), fast.config)
    with torch.no_grad():
        clean = float(F.cross_entropy(surrogate(to_float(images)), labels))
    assert loss(fast) < min(clean, loss(untrained)) - 0.005
    # and what was fitted is what is loaded
    loaded = NoiseGenerator.from_pretrained(fast.save_pretrained(tmp_path / "g"), device="cpu")
    assert torch.equal(loaded.noise(images, labels, seed=1), fast.noise(images, labels, seed=1))
    assert sum(weight.numel() for weight in fast.surrogate.parameters()) <= 1_000_000


def test_the_method_fits_both_and_goes_on_after_a_kill(tmp_path):
    """A fit that was killed behind the surrogate's must give the painter of one that was not."""
    images, labels = pictures(32)
    shorter = with_effort(SEM_ONE_PASS, train_steps=3, steps_u=2, steps_a=1)
    assert shorter.one_pass == 3 * SEM_ONE_PASS.one_pass // SEM_ONE_PASS.train_steps
    config = replace(shorter, **SMALL, batch_size=8, one_pass=2)
    whole = fit_generator((images, labels), config, device="cpu", progress=False)
    again = [
        fit_generator(
            (images, labels), config, checkpoint_dir=tmp_path, resume=resume, device="cpu", progress=False
        ).fingerprint
        for resume in (False, True)
    ]
    assert again == [whole.fingerprint] * 2
    assert isinstance(whole.surrogate, Painter)


def test_a_kill_within_the_painters_updates_costs_what_is_behind_its_checkpoint(tmp_path, monkeypatch):
    """Its updates take a quarter of an hour; begun anew without Adam's moments they would make another painter."""
    data, teacher = pictures(32), NoiseGenerator(build_surrogate(TEACHER), TEACHER)
    whole = fit_one_pass(data, teacher, updates=5, device="cpu", progress=False)
    done, real = [], one_pass.paint_step

    def killed_at_the_fourth(*arguments, **named):
        done.append(1)
        if len(done) == 4:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    def fit(resume=False, **named):
        named = {"updates": 5, "checkpoint_dir": tmp_path, "checkpoint_every": 2, "progress": False, **named}
        return fit_one_pass(data, teacher, resume=resume, device="cpu", **named)

    monkeypatch.setattr(one_pass, "paint_step", killed_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        fit()
    with pytest.raises(FileExistsError, match=r"painter\.safetensors"):
        fit()
    with pytest.raises(ValueError, match=r"another fit.*other images"):
        fit_one_pass(pictures(30), teacher, updates=5, checkpoint_dir=tmp_path, resume=True, progress=False)
    done[:] = [1] * 4
    assert fit(resume=True).fingerprint == whole.fingerprint
    assert len(done) == 4 + 3  # two of five were kept
    longer = fit_one_pass(data, teacher, updates=6, device="cpu", progress=False)
    with pytest.warns(UserWarning, match="another length"):  # the rates of a longer fit fall more slowly
        assert fit(resume=True, updates=6).fingerprint == longer.fingerprint


def test_undo_is_what_the_painter_would_add_taken_off():
    """The trainer who holds the generator must be played as strong as they are: with keys of their own, on the mean."""
    images, labels = pictures(6)
    keys = torch.arange(6)
    painter = build_surrogate(ONE_PASS)
    with torch.no_grad():  # the key has no say: one guess is all of it
        painter.field.weight.zero_()
        painter.head.bias.fill_(1.0)
    engine = NoiseGenerator(painter, ONE_PASS).engine
    assert torch.equal(engine.undo(images, labels, keys, steps=3), -engine.noise(images, labels, keys + 9))


def test_what_has_no_surrogate_to_learn_from_is_refused():
    """A closed form has no loss to lower; a config that says both would be fitted as one of them without a word."""
    form = replace(SC_LINF, num_classes=2, image_size=(16, 16))
    with pytest.raises(ValueError, match="'sc-linf' takes no gradient steps"):
        fit_one_pass(pictures(), NoiseGenerator(build_surrogate(form), form), progress=False)
    with pytest.raises(ValueError, match="one_pass=5 needs a network"):
        GeneratorConfig(fitted_on="clean", one_pass=5)
    with pytest.raises(ValueError, match="noise is either"):
        GeneratorConfig(classwise=2, one_pass=5)
    with pytest.raises(ValueError, match="one_pass=5 makes another method of 'sem-plus'"):
        check_surrogate(replace(SEM_PLUS, one_pass=5))


def test_the_bound_holds_in_the_bytes():
    """What counts is what is stored."""
    images, labels = pictures(6)
    generator = NoiseGenerator(build_surrogate(ONE_PASS), ONE_PASS)
    protected = generator.protect(images, labels, seed=5)
    assert torch.equal(protected, add_noise(images, generator.noise(images, labels, seed=5)))
    assert int((protected.int() - images.int()).abs().max()) <= 8

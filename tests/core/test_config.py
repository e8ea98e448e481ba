"""The record that decides the noise."""

import json
from dataclasses import fields, replace

import pytest
import torch

from semtransforms.core.checks import parse_radius
from semtransforms.core.config import GeneratorConfig, PGDConfig, Transformation, Uniform
from semtransforms.core.keys import index_keys
from semtransforms.noise.methods import (
    EM,
    METHODS,
    NTGA,
    REM,
    REM_DELTA_U,
    REM_THETA,
    SC_L2,
    SC_LINF,
    SEM,
    SEM_PLUS,
    TAP,
    TAP_UNTARGETED,
    check_surrogate,
    method,
    unused_options,
)
from semtransforms.views.eot import build_eot


def test_defaults_are_the_papers():
    """A default that drifts from the paper makes every 'paper setting' figure wrong."""
    paper = {
        "rho_u": 8 / 255, "alpha_u": 1.6 / 255, "steps_u": 10, "rho_a": 4 / 255, "alpha_a": 0.8 / 255, "steps_a": 10,
        "num_samples": 5, "train_steps": 5000, "batch_size": 128, "learning_rate": 0.1, "momentum": 0.9,
        "weight_decay": 5e-4, "decay_every": 2000, "decay_factor": 0.1, "surrogate": "resnet18",
    }  # fmt: skip
    assert {name: getattr(SEM, name) for name in paper} == paper
    assert SEM.random_radius == SEM.rho_a


@pytest.mark.parametrize(
    ("preset", "defense_inner", "surrogate_view", "samples"),
    [
        (SEM, Uniform(4 / 255), PGDConfig(4 / 255, 0.8 / 255, 10), 5),
        (SEM_PLUS, Uniform(2 / 255), PGDConfig(2 / 255, 1.34 / 255, 3), 1),
        (REM, PGDConfig(4 / 255, 0.8 / 255, 10), PGDConfig(4 / 255, 0.8 / 255, 10), 5),
        (REM_DELTA_U, PGDConfig(4 / 255, 0.8 / 255, 10), None, 5),
        (REM_THETA, None, PGDConfig(4 / 255, 0.8 / 255, 10), 5),
        (EM, None, None, 1),
    ],
)
def test_the_table_of_methods(preset, defense_inner, surrogate_view, samples):
    """The rows of the paper's Table 1: a swapped row would publish one method's figures under another's name."""
    assert preset.defense.inner == defense_inner
    assert preset.perturbation(preset.surrogate_sees) == surrogate_view
    assert preset.defense.num_samples == samples
    assert METHODS[preset.method] is preset


def test_sem_plus_sees_greyscale_and_jpeg():
    """Other shares of greyscale and JPEG are not those that were searched."""
    assert SEM_PLUS.eot[:2] == SEM.eot
    images = torch.rand(5000, 3, 8, 8, generator=torch.manual_seed(0))
    changed = build_eot(SEM_PLUS.eot[2:])(images, index_keys(torch.arange(5000), 0))
    grey = (changed.amax(1) - changed.amin(1)).amax((1, 2)) < 1e-6
    same = (changed == images).flatten(1).all(1)
    # a fifth is grey and a fifth goes through JPEG, independently: the blocks of grey ones stay grey
    assert float(grey.float().mean()) == pytest.approx(0.2, abs=0.02)
    assert float(same.float().mean()) == pytest.approx(0.8 * 0.8, abs=0.02)


@pytest.mark.parametrize(
    ("preset", "published"),
    [
        # Fowl et al.: 250 steps of 0.064/255; 40 epochs of CIFAR-10 in batches of 128
        (TAP, {"rho_u": 8, "alpha_u": 0.064, "steps_u": 250, "train_steps": 15_600, "batch_size": 128}),
        (TAP_UNTARGETED, {"rho_u": 8, "alpha_u": 0.064, "steps_u": 250, "train_steps": 15_600, "batch_size": 128}),
        # Yuan and Wu's code: every iteration is x_train + eps * sign; block_size 512; its README: "CIFAR CNN 8"
        (NTGA, {"rho_u": 8, "alpha_u": 8, "steps_u": 1, "train_steps": 8, "batch_size": 512}),
        # Yu et al.: an l2 norm of sqrt((6/255)^2 3HW)
        (SC_L2, {"root_mean_square": 6}),
        (SC_LINF, {"rho_u": 8, "root_mean_square": None}),
    ],
    ids=lambda part: getattr(part, "method", ""),
)
def test_the_other_presets_are_as_published(preset, published):
    """A value that drifts makes these rows of our tables somebody else's."""
    levels = ("rho_u", "alpha_u", "root_mean_square")
    wanted = {name: value / 255 if name in levels and value else value for name, value in published.items()}
    assert {name: getattr(preset, name) for name in wanted} == pytest.approx(wanted)
    assert METHODS[preset.method] is preset


@pytest.mark.parametrize(
    ("preset", "surrogate"),
    [
        (NTGA, "convnet"), (NTGA, "shortcut-patches"), (SC_LINF, "convnet"), (SC_LINF, "ntk-fnn"), (SEM, "ntk-fnn"),
        (TAP, "ntk-cnn"), (EM, "shortcut-patches"),
    ],
    ids=lambda part: getattr(part, "method", part),
)  # fmt: skip
def test_a_surrogate_of_another_kind_is_another_method(preset, surrogate):
    """NTGA on a network is untargeted TAP: under its old name its figures would be published as NTGA's."""
    with pytest.raises(ValueError, match=rf"surrogate .*method '{preset.method}', got '{surrogate}'"):
        check_surrogate(replace(preset, surrogate=surrogate))


def test_a_surrogate_of_the_same_kind_is_welcome():
    """Every method runs on every network, NTGA on both kernels, and a method of one's own on anything."""
    for config in METHODS.values():
        check_surrogate(config)
    for preset, surrogate in ((SEM, "convnet"), (TAP, "vgg16_bn"), (NTGA, "ntk-cnn")):
        check_surrogate(replace(preset, surrogate=surrogate))
    check_surrogate(replace(NTGA, surrogate="convnet", method="mine"))


@pytest.mark.parametrize(
    "change",
    [{"aim": "shifted", "fitted_on": "clean"}, {"defense_sees": "uniform"}, {"surrogate_sees": "adversary"}],
    ids=lambda change: next(iter(change)),
)
def test_a_closed_form_is_told_nothing_that_it_does_not_read(change):
    """The config of the noise would say one thing, and the noise be another."""
    for preset in (NTGA, SC_LINF):
        with pytest.raises(ValueError, match=f"{next(iter(change))} is not read by method '{preset.method}'"):
            check_surrogate(replace(preset, **change))


def test_options_a_method_does_not_read():
    """The command line refuses them: ignored without a word, they are figures of a setting that was never run."""
    assert unused_options(SEM) == unused_options(REM_THETA) == set()
    assert unused_options(TAP) == {"rho_a", "alpha_a", "steps_a"}
    of_a_training = {"learning_rate", "momentum", "weight_decay", "decay_every", "decay_factor"}
    assert unused_options(NTGA) == unused_options(TAP) | of_a_training | {"width", "precision", "eot"}
    of_the_noise = {"alpha_u", "steps_u", "num_samples", "train_steps", "batch_size"}
    assert unused_options(SC_LINF) == unused_options(NTGA) | of_the_noise


@pytest.mark.parametrize(
    "changes",
    [{"rho_u": 4 / 255}, {"rho_u": 11.9 / 255}, {"root_mean_square": 0.0}, {"root_mean_square": 17 / 255},
     {"surrogate": "resnet18"}],
    ids=str,
)  # fmt: skip
def test_a_size_that_the_radius_cuts_is_refused(changes):
    """Noise cut at rho_u is neither SC's of that norm nor the l-infinity version; of size 0 it is none at all."""
    with pytest.raises(ValueError, match=r"root_mean_square .*, got .*(Raise rho_u|Leave it out)"):
        replace(SC_L2, **changes)
    assert replace(SC_L2, rho_u=12 / 255).root_mean_square == 6 / 255


@pytest.mark.parametrize(
    "changes", [{"surrogate": "shortcut-patches"}, {"surrogate": "ntk-cnn"}, {"fitted_on": "clean"}]
)
def test_classwise_noise_needs_a_network_and_a_noise_step(changes):
    """It would be left out without a word, or stay as it was drawn."""
    with pytest.raises(ValueError, match="classwise"):
        replace(SEM, classwise=2, **changes)


def test_held_steps_without_classwise_noise_are_refused():
    """They did nothing, and nobody was told."""
    with pytest.raises(ValueError, match=r"hold_steps=300 needs classwise >= 1"):
        replace(SEM, hold_steps=300)


def test_json_round_trip_keeps_every_field():
    """A field lost on the way to config.json changes the noise of a loaded generator."""
    config = replace(
        SEM, eot=(Transformation("crop", {"padding": 2}), Transformation("RandomGrayscale", {"p": 0.3})),
        rho_r=2 / 255, width=16, num_classes=7, image_size=(32, 48), seed=5,
    )  # fmt: skip
    text = json.dumps(config.to_dict())
    assert GeneratorConfig.from_dict(json.loads(text)) == config
    left_out = {"classwise", "hold_steps", "one_pass", "pretrained"}  # where they are not used
    assert {*config.to_dict()} | left_out == {f.name for f in fields(GeneratorConfig)}


def test_unknown_field_names_the_nearest():
    """A config of a newer version must not be read as something else."""
    with pytest.raises(ValueError, match=r"'rho_U'.*'rho_u'"):
        GeneratorConfig.from_dict({"rho_U": 0.1})


@pytest.mark.parametrize(("text", "value"), [("8/255", 8 / 255), ("0.05", 0.05), (0.5, 0.5), ("0", 0.0)])
def test_radii_are_read_as_typed(text, value):
    """8/255 read as 8.0 or 0 would publish clean or ruined images."""
    assert parse_radius(text) == pytest.approx(value, abs=1e-15)


@pytest.mark.parametrize("text", ["8", "x", "1/0", "-1/255", "nan", "inf", "", "8/255/2"])
def test_bad_radii_are_refused(text):
    """A radius that is not one must stop before any work."""
    with pytest.raises(ValueError, match="radius"):
        parse_radius(text)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rho_u", 0.5 / 255), ("rho_u", float("nan")), ("rho_u", "8/255"), ("rho_u", 8), ("alpha_a", -1.0),
        ("steps_u", 0), ("steps_u", 2.0), ("num_samples", 0), ("batch_size", True), ("train_steps", -5),
        ("defense_sees", "noise"), ("precision", "fp16"), ("rho_u", 200 / 255), ("learning_rate", float("nan")),
        ("weight_decay", -1), ("seed", 1.5), ("num_classes", "3"),
    ],
)  # fmt: skip
def test_bad_values_name_the_argument(field, value):
    """An error that does not name the field sends the user through the source."""
    with pytest.raises(ValueError, match=field):
        replace(SEM, **{field: value})


def test_rho_a_above_rho_u_warns():
    """The paper assumes rho_a <= rho_u; beyond it the owner must know that the promise is void."""
    with pytest.warns(UserWarning, match="rho_a"):
        replace(SEM, rho_u=2 / 255)


def test_unknown_method_names_the_nearest():
    """A typo must not fall back to another method."""
    with pytest.raises(ValueError, match="'rem'"):
        method("remm")

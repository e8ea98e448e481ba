"""Changing how much effort a method takes, and the method that is meant where none is named."""

import inspect
from dataclasses import replace

import pytest
import typer

import semtransforms
from semtransforms.cli import app
from semtransforms.noise.methods import (
    DEFAULT,
    EM,
    METHODS,
    NTGA,
    SC_LINF,
    SEM,
    SEM_PLUS,
    TAP,
    check_surrogate,
    unused_options,
    with_effort,
)


@pytest.mark.parametrize(
    ("preset", "effort", "expected"),
    [
        # the case. A step of 0.6 of 8 levels forty times is 24 levels, or 2.4 ten times; 320 of 800 is 2 in 5
        (SEM_PLUS, {"steps_u": 10, "train_steps": 400}, {"alpha_u": 2.4 / 255, "decay_every": 160}),
        (SEM_PLUS, {"steps_u": 80}, {"alpha_u": 0.3 / 255}),
        # 1.34 of 2 levels three times: 4.02, or 0.67 six times
        (SEM_PLUS, {"steps_a": 6}, {"alpha_a": 0.67 / 255}),
        # radii scale the step: 0.6 of 8 is 1.2 of 16; 1.34 of 2 is 2.68 of 4
        (SEM_PLUS, {"rho_u": 16 / 255, "rho_a": 4 / 255}, {"alpha_u": 1.2 / 255, "alpha_a": 2.68 / 255}),
        # both at once: half of the radius, half of the steps
        (SEM, {"rho_u": 4 / 255, "steps_u": 5}, {"alpha_u": 1.6 / 255}),
        # ten steps of a fifth are two radii: one step goes one radius, and no further
        (SEM, {"steps_u": 1, "steps_a": 1}, {"alpha_u": 8 / 255, "alpha_a": 4 / 255}),
        (SEM, {"steps_a": 0}, {}),  # no adversary: no step to scale
        (SEM, {"train_steps": 1}, {"decay_every": 1}),
        (TAP, {"train_steps": 156}, {"decay_every": 60}),
        (NTGA, {"train_steps": 16}, {}),  # a time, and no schedule
        (replace(SEM, train_steps=1000, decay_every=100), {"train_steps": 500}, {"decay_every": 50}),
        (replace(SEM, rho_a=0.0, surrogate_sees=None, rho_r=4 / 255), {"rho_a": 1 / 255}, {}),
        (SEM, {}, {}),
    ],
    ids=lambda part: getattr(part, "method", None),
)
def test_step_size_and_schedule_follow(preset, effort, expected):
    """Steps too short for the radius leave noise that protects less; a rate that never falls, a poor surrogate."""
    changed = with_effort(preset, **effort).to_dict()
    as_before = {name: value for name, value in preset.to_dict().items() if name not in {**effort, **expected}}
    assert {name: changed[name] for name in as_before} == as_before  # bit for bit
    assert {name: changed[name] for name in effort} == effort
    assert {name: changed[name] for name in expected} == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("preset", "effort"),
    [(SC_LINF, {"steps_u": 5}), (SC_LINF, {"train_steps": 5}), (EM, {"rho_a": 2 / 255}), (NTGA, {"steps_a": 5})],
    ids=str,
)
def test_effort_that_a_method_does_not_take_is_refused(preset, effort):
    """Ignored without a word, the figures that follow are of a setting that was never run."""
    with pytest.raises(ValueError, match=rf"{next(iter(effort))} is not used by method '{preset.method}'"):
        with_effort(preset, **effort)


@pytest.mark.parametrize(
    "effort",
    [{"steps_u": 0}, {"steps_u": 2.5}, {"steps_a": -1}, {"train_steps": 0}, {"train_steps": "9"}, {"rho_u": 8},
     {"rho_u": "8/255"}, {"rho_a": float("nan")}, {"rho_a": -0.1}, {"rho_u": 0.0}],
    ids=str,
)  # fmt: skip
def test_bad_effort_names_the_argument(effort):
    """A division by 0 or a comparison of types deep inside would send the user through the source."""
    with pytest.raises(ValueError, match=next(iter(effort))):
        with_effort(SEM, **effort)


def test_one_method_where_none_is_named():
    """Three defaults for one question: a generator fitted in Python protected less than one from the command line."""
    assert DEFAULT is SEM_PLUS is METHODS[DEFAULT.method]
    assert inspect.signature(semtransforms.fit_generator).parameters["config"].default is DEFAULT
    fit = typer.main.get_command(app).commands["fit"]
    assert next(option.default for option in fit.params if option.name == "method") == DEFAULT.method
    wrapper = inspect.signature(semtransforms.ProtectedDataset).parameters
    painted = METHODS["sem-one-pass"]  # the same noise, but for what it is made by
    assert replace(painted, method=DEFAULT.method, one_pass=0) == DEFAULT
    assert wrapper["generator"].default == f"{painted.method}-cifar10"


def test_a_methods_name_keeps_its_class_wise_noise():
    """A generator called SEM whose images share noises would be compared with the paper's."""
    without = replace(METHODS["sem-classwise"], classwise=0, hold_steps=0, fitted_on="protected")
    for config in (replace(SEM, classwise=4), without):
        with pytest.raises(ValueError, match="classwise"):
            check_surrogate(config)
        check_surrogate(replace(config, method="mine"))


def test_steps_of_an_adversary_that_nobody_sees_are_not_read():
    """An option without effect leads a search astray. Its radius is that of the random perturbation, which is seen."""
    config = METHODS["sem-classwise"]
    assert {"steps_a", "alpha_a"} <= unused_options(config)
    assert "rho_a" not in unused_options(config)
    assert config.perturbation(config.defense_sees).radius == config.rho_a

"""The plan: a fit that ends inside the minutes, and stays the same fit."""

import json
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from owner import write_photographs
from work_counter import counted

from semtransforms.core.keys import index_keys
from semtransforms.data.sources import open_source
from semtransforms.generators.fitting import train_step
from semtransforms.noise.engine import build_surrogate
from semtransforms.noise.methods import SEM_CLASSWISE
from semtransforms.photographs import plan
from semtransforms.photographs.look import Found, look
from semtransforms.views.eot import build_eot


@pytest.fixture
def found(tmp_path: Path) -> Found:
    return look(open_source(str(write_photographs(tmp_path / "photos", each=100))), smallest=8)


def small(**changes) -> plan.Effort:
    return plan.Effort(**{"side": 16, "width": 4, "enough": 1, **changes})


def test_passes_are_what_an_update_costs():
    """Counted wrongly, a fit planned for twenty minutes takes an hour."""
    config = plan.config_for(small(), num_classes=2, photographs=6)
    surrogate = build_surrogate(config)
    optimizer = torch.optim.SGD(surrogate.parameters(), lr=0.1)
    images, labels = torch.rand(6, 3, 16, 16), torch.arange(6) % 2
    keys, eot = index_keys(torch.arange(6), 0), build_eot(config.eot)
    train_step(surrogate, optimizer, images, labels, keys=keys, config=config, eot=eot)  # measures the memory
    with counted() as work:
        train_step(surrogate, optimizer, images, labels, keys=keys, config=config, eot=eot)
    assert sum(work.images_in) == plan.passes_of_update(config) == 6 * (2 + 1)


@pytest.mark.parametrize(
    ("minutes", "chosen", "updates"),
    [
        # 200 passes a second; 64 images with 2 and 1 passes an update are 192, and 64 in the 300 updates that hold
        # the noise; at width 16 three times as quick
        (10, 32, 300 + (120_000 - 19_200) // 192),
        (3, 16, 300 + (108_000 - 19_200) // 192),
        (1, 16, 300 + (36_000 - 19_200) // 192),
        (0.25, 16, 9_000 // 64),
        (100_000, 32, 2_000),
    ],
)
def test_the_best_fit_that_the_minutes_allow(found: Found, monkeypatch: pytest.MonkeyPatch, minutes, chosen, updates):
    """A plan for half of the minutes wastes protection, one for more than all of them breaks its word."""
    speeds = {32: 200.0, 16: 600.0}
    monkeypatch.setattr(plan, "measure_passes", lambda config, device: speeds[config.width])
    if updates < 300 + 200:
        with pytest.warns(UserWarning, match=f"{updates} updates.*--minutes"):
            made = plan.make_plan(found, minutes, read=0, seed=1)
    else:
        made = plan.make_plan(found, minutes, read=0, seed=1)
    c = made.config
    assert (c.image_size, c.width, c.train_steps) == ((64, 64), chosen, updates)
    of_fit = 64 * updates + 2 * 64 * max(0, updates - 300)
    assert made.fit_seconds == pytest.approx(of_fit / speeds[chosen])
    assert made.fit_seconds <= 60 * minutes
    assert (made.passes, made.check_passes) == (speeds[chosen], 200)  # copies are checked by a network of width 32
    assert (c.num_classes, c.batch_size, c.seed) == (2, 64, 1)
    # all else is SEM_CLASSWISE
    changed = {"width", "num_classes", "image_size", "batch_size", "seed", "train_steps", "decay_every"}
    others = [each.name for each in fields(c) if each.name not in changed]
    assert [getattr(c, name) for name in others] == [getattr(SEM_CLASSWISE, name) for name in others]


@pytest.mark.parametrize("minutes", [0, -5, 0.001])
def test_too_few_minutes_name_those_that_do(found: Found, monkeypatch: pytest.MonkeyPatch, minutes):
    """'Too short' alone makes the owner guess; the figure must be one with which the same call succeeds."""
    monkeypatch.setattr(plan, "measure_passes", lambda config, device: 1000.0)
    read = 60 / found.pixels  # a minute for all photographs
    with pytest.raises(ValueError, match=rf"--minutes.*got {minutes:g}\.") as error:
        plan.make_plan(found, minutes, read=read, seed=0)
    least = float(str(error.value).split("about ")[1].split(" minutes")[0])
    enough = (300 * 64 + 200 * 192) / 60_000 + 1
    assert enough <= least <= enough + 0.2
    assert plan.make_plan(found, least, read=read, seed=0).config.train_steps >= 300 + 200
    with pytest.raises(ValueError, match="minutes"):
        plan.make_plan(found, float("nan"), read=read, seed=0)


def test_a_kept_plan_is_the_same_plan(found: Found, monkeypatch: pytest.MonkeyPatch):
    """A plan that changes on disk makes another fit, which the checkpoint does not belong to."""
    monkeypatch.setattr(plan, "measure_passes", lambda config, device: 1000.0)
    made = plan.make_plan(found, 10, read=0, seed=2**62 + 1)
    assert plan.Plan.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_measuring_draws_nothing_of_the_callers(found: Found, monkeypatch: pytest.MonkeyPatch):
    """Research code that seeds torch once would get other figures, depending on how quick the machine is."""
    monkeypatch.setattr(plan, "MEASURED_SECONDS", 0.05)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    assert plan.measure_passes(plan.config_for(small(), num_classes=2, photographs=8)) > 0
    assert torch.equal(torch.rand(4), expected)


def test_one_update_that_is_held_up_does_not_decide(monkeypatch: pytest.MonkeyPatch):
    """Beside a busy process one stall once planned six updates, which protect nothing."""
    monkeypatch.setattr(plan, "MEASURED_SECONDS", 0.01)
    waits = iter([0, 0.01, 0.01, 0.6, 0.01, 0.01])

    def update(*_, **__):
        time.sleep(next(waits))
        return torch.zeros(()), torch.zeros(())

    monkeypatch.setattr(plan, "train_step", update)
    config = plan.config_for(small(), num_classes=2, photographs=8)
    assert plan.passes_of_update(config) / 0.05 < plan.measure_passes(config) < plan.passes_of_update(config) / 0.01


def test_measuring_goes_round_a_damaged_photograph(found: Found):
    """One cut file among thousands would end the journey before it began."""
    middle = Path(found.source.place(found.by_size[len(found.rows) // 2]))
    middle.write_bytes(middle.read_bytes()[:500])
    read, write = plan.measure_files(found, 16)
    assert 0 < read < write
    for place, _ in found.source.samples:
        Path(place).write_bytes(Path(place).read_bytes()[:500])
    with pytest.raises(ValueError, match="none of its 200 images"):
        plan.measure_files(found, 16)


def test_few_photographs_have_one_noise_a_class_and_labels_drawn_anew():
    """Learned by heart, with their own labels, they teach the noise nothing: 20 a class were hardly protected so."""
    few, many = (plan.config_for(small(), num_classes=2, photographs=count) for count in (199, 200))
    assert (few.fitted_on, few.classwise) == ("shuffled", 1)
    # 20 a class: from textures trainers in colour learned 39 and 64 % of the lesson, from a random start nothing
    assert (few.hold_steps, many.hold_steps) == (0, 300)
    assert (many.fitted_on, many.classwise) == ("shuffled", SEM_CLASSWISE.classwise)


def test_a_plan_of_an_older_version_is_known():
    """Gone on with, it would mix an old fit's settings with new code: a generator that nobody has measured."""
    for count in (199, 200):
        config = plan.config_for(plan.EFFORTS[1], num_classes=2, photographs=count, train_steps=7, seed=3)
        assert plan.Plan(config, 1, 1, "", 1).is_of_today
        assert not plan.Plan(replace(config, learning_rate=0.1), 1, 1, "", 1).is_of_today

"""Trainers by name and in named sets: what is played, what is not, and that both are said."""

from pathlib import Path

import pytest
import torch
from test_protocol import halves
from test_transfer import SMALL, saved

from semtransforms.evaluation.countermeasures import parse_countermeasure
from semtransforms.evaluation.protocol import evaluate
from semtransforms.evaluation.report.summary import Trainer, summarise
from semtransforms.evaluation.report.verdict import deeds
from semtransforms.evaluation.sets import SETS, TRAINERS, not_played, split_name
from semtransforms.evaluation.trainers import PROTOCOLS, VICTIMS, parse_victim, victims_by_name


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr("semtransforms.evaluation.victims.config.FEWEST_STEPS", 4)


def play(trainers, **options):
    images, labels = halves(24).tensors
    settings = {"test": halves(12, seed=1), "protected": (255 - images, labels), "network": "convnet", "width": 4,
                "seeds": (0,), "device": "cpu", "progress": False}  # fmt: skip
    return evaluate((images, labels), trainers=trainers, **(settings | options))


def played(report):
    """(victim, countermeasure) on the protected copy, in order."""
    return [(r.victim.split(" ")[1], r.countermeasure) for r in report.records if r.copy != "clean"]


def test_every_name_of_the_table_is_a_trainer():
    """A set with a name that nobody reads would end an evaluation of hours with an error."""
    for name, row in TRAINERS.items():
        victim, countermeasure = split_name(name)
        parse_victim(victim)
        if not countermeasure.startswith("informed"):
            parse_countermeasure(countermeasure)
        assert row.source
        assert row.cost
    assert {"quick", "owner", "full"} == set(SETS)
    assert all(set(names) <= set(TRAINERS) for names in SETS.values())
    # what an owner must know, as it was asked for
    assert set(SETS["owner"]) == {
        "standard", "greyscale", "jpeg-75", "shrink", "random-resized", "probe", "fine-tune"
    }  # fmt: skip


def test_no_name_means_two_things():
    """Whoever types a name must get what it says, as victim, countermeasure, set or protocol alike."""
    assert not set(SETS) & {*TRAINERS, *VICTIMS}
    with pytest.raises(ValueError, match=r"'quick' goes with protocol='quick' alone"):
        play("quick", protocol="paper")
    assert set(SETS) & set(PROTOCOLS) == {"quick"}


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("standard", ("standard", "none")),
        ("jpeg-75", ("standard", "jpeg-75")),
        ("jpeg-75+greyscale", ("standard", "jpeg-75+greyscale")),
        ("probe+jpeg-75", ("probe", "jpeg-75")),
        ("adversarial-2/255+cutout+mixup", ("adversarial-2/255", "cutout+mixup")),
        ("early-stopping-30", ("early-stopping-30", "none")),
        ("longer-10+greyscale", ("longer-10", "greyscale")),
        ("sam", ("sam", "none")),
        ("simclr+jpeg-75", ("simclr", "jpeg-75")),
    ],
)
def test_a_name_is_how_they_train_and_what_they_do(name, parts):
    """A countermeasure taken for a victim, or lost, is another trainer."""
    assert split_name(name) == parts


def test_named_trainers_are_played_and_not_crossed():
    """Crossed, the set owner would be a day's work."""
    report = play(("jpeg-75", "early-stopping", "greyscale+jpeg-75"))
    assert sorted(played(report)) == [
        ("early-stopping", "none"), ("standard", "greyscale+jpeg-75"), ("standard", "jpeg-75")
    ]  # fmt: skip
    assert len([r for r in report.records if r.copy == "clean"]) == 2


def test_the_set_owner_without_weights_says_what_was_not_played(capsys):
    """An owner who reads a good verdict must know that no pretrained network was tried."""
    report = play("owner", progress=True)
    assert {countermeasure for _, countermeasure in played(report)} == {
        "none", "greyscale", "jpeg-75", "shrink", "random-resized"
    }  # fmt: skip
    assert "Not played, of the trainers that an owner must know: probe, fine-tune." in report.verdict()[0]
    assert "not played: probe (no pretrained weights: give pretrained (--pretrained))" in capsys.readouterr().out


def test_the_set_owner_with_weights_is_whole(tmp_path: Path):
    """Those from scratch keep their network; those from weights have that of the weights."""
    report = play("owner", pretrained=saved(tmp_path / "theirs.safetensors"), pretrained_network=SMALL)
    assert {(r.victim.split(" ")[1], r.network) for r in report.records} == {
        ("standard", "convnet"), ("probe", SMALL), ("fine-tune", SMALL)
    }  # fmt: skip
    assert "Not played" not in report.verdict()[0]
    crossed = play(
        None, victims=("standard", "probe"), countermeasures=("none", "jpeg-75"), pretrained_network=SMALL,
        pretrained=tmp_path / "theirs.safetensors",
    )  # fmt: skip
    assert {(r.victim.split(" ")[1], r.network) for r in crossed.records} == {
        ("standard", "convnet"), ("probe", SMALL)
    }  # fmt: skip
    assert ("probe", "jpeg-75") in played(crossed)


def test_a_row_that_was_not_measured_counts_as_not_played():
    """Of one trainer, all but one of the set are missing."""
    assert not_played(["standard", "jpeg-10"]) == [name for name in SETS["owner"] if name != "standard"]
    (verdict,) = play(("greyscale",)).verdict()
    assert "Not played, of the trainers that an owner must know: standard, jpeg-75, shrink" in verdict


def test_who_trains_longer_or_otherwise_is_named_and_is_not_the_standard_trainer(monkeypatch):
    """An owner must read who it was that learned most; another's figure in the standard trainer's place misleads."""
    report = play(("longer-3", "sam", "simclr+greyscale"))
    standard = 4  # updates of the protocol here; five times more without labels
    steps = {r.victim.split(" ")[1]: r.train_steps / standard for r in report.records}
    assert steps == {"longer-3": 3, "sam": 1, "simclr": 5}
    (verdict,) = report.verdict()
    assert "Not played, of the trainers that an owner must know: standard, greyscale, jpeg-75" in verdict
    said = {row.trainer.victim.split(" ")[1]: deeds(row) for row in summarise(report.records).rows if deeds(row)}
    assert said["longer-3"] == ["trains 3 times as long"]
    assert said["sam"] == ["trains sharpness-aware"]
    assert said["simclr"][0] == "learns without labels and fits a linear layer on that"


def test_longer_training_decays_as_late():
    """Ten times the updates with the paper's decay at 16,000 would crawl for nine tenths of them."""
    (config,) = victims_by_name(("longer-10",), "paper", "convnet", 4)(100).values()
    assert (config.train_steps, config.decay_every) == (400_000, 160_000)
    with pytest.raises(ValueError, match=r"'longer-1'.*at least twice.*longer-10"):
        parse_victim("longer-1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trainers": "owners"}, "unknown set of trainers 'owners', did you mean 'owner'"),
        ({"trainers": ()}, "at least one"),
        ({"trainers": ("jpeg-75", "jpeg-75")}, "none twice"),
        ({"trainers": ("owner", "pairs-20")}, "'owner' is a set of trainers, and a set goes alone"),
        ({"trainers": ("gpeg-75",)}, "unknown countermeasure 'gpeg-75'"),
        ({"trainers": ("simclr+cutout",)}, "'cutout' acts on each batch"),
        ({"trainers": ("longer-ten",)}, "unknown victim 'longer-ten'"),
        ({"trainers": ("probe",)}, "starts from pretrained weights"),
        ({"trainers": "owner", "victims": ("adversarial-2/255",)}, "leave victims and countermeasures out"),
        ({"trainers": "owner", "countermeasures": ("greyscale",)}, "leave victims and countermeasures out"),
        ({"trainers": "owner", "pretrained_network": SMALL}, "needs the weights"),
    ],
)
def test_what_does_not_go_together_is_refused(options, message, monkeypatch):
    """Before any training, with what to write instead."""
    monkeypatch.setattr("semtransforms.evaluation.trial.train_victim", None)
    with pytest.raises(ValueError, match=message):
        play(**options)


def test_full_leaves_out_what_it_cannot_play():
    """A set that ends in an error at its last row is of no use."""
    from semtransforms.evaluation.plays import Setup, plays_of

    setup = Setup("quick", "convnet", 4, None, None, (), ("resize",), None, 0)
    plays, left_out = plays_of("full", ("standard",), ("none",), halves(400).tensors, setup)
    names = {victim.split(" ")[1] for each in plays for victim in each.victims_for(400)}
    assert names == {"standard", "early-stopping", "longer-10", "sam", "simclr"} | {
        f"adversarial-{radius}/255" for radius in (2, 4, 6, 8)
    }
    assert set(left_out) == {
        "probe", "probe+jpeg-75", "fine-tune", "last-block", "informed-same-seed", "informed-other-seed", "pairs-500",
        "pairs-500-labels",
    }  # fmt: skip
    assert torch.tensor([len(each.countermeasures) for each in plays]).sum() == len(TRAINERS) - len(left_out)


def test_full_leaves_out_pairs_that_are_fewer_than_the_classes():
    """The same: 500 pairs of 501 classes are refused, and would take the other trainers with them."""
    from semtransforms.evaluation.plays import Setup, plays_of

    setup = Setup("quick", "convnet", 4, None, None, (), ("resize",), None, 0)
    images = torch.zeros(1002, 3, 8, 8, dtype=torch.uint8)
    many, enough = (plays_of("full", ("standard",), ("none",), (images, torch.arange(1002) % n), setup)[1]
                    for n in (501, 500))  # fmt: skip
    assert many["pairs-500"] == many["pairs-500-labels"] == "more classes than pairs"
    assert "pairs-500" not in enough


@pytest.mark.parametrize(("name", "times"), [("longer-10", 10), ("longer-3, 64 px", 3), ("no-longer-3 mine", 1)])
def test_only_who_is_named_so_trains_longer(name, times):
    """A trainer of the user's own would be told as one who trains three times as long, and leave the verdict's list."""
    assert Trainer(name, "convnet", 10, 0.0, "linf", False).longer == times

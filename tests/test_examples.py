"""The scripts behind README's figures, at a size that runs in seconds."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from semtransforms import NoiseGenerator
from semtransforms.evaluation import protocol
from semtransforms.loading import Labelled

sys.path.append(str(Path(__file__).parents[1]))  # examples/ is no part of the package

from examples import fit_pretrained, other_data
from examples.publish_pretrained import check


def photographs(count, classes, seed, side=16):
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, side, side), generator=draw, dtype=torch.uint8)
    return Labelled(images, torch.arange(count) % classes, tuple(f"class {k}" for k in range(classes)))


@pytest.fixture
def small(monkeypatch):
    """Tiny data, generators and trainers; returns the list of the trainings that are run."""

    def read(name, root, rows, download):
        classes = 20 if name == "tiny-imagenet-100" else 4
        return photographs(40, classes, 1), photographs(20, classes, 2)

    config = replace(
        fit_pretrained.SMALL, width=4, train_steps=2, batch_size=8, steps_u=1, steps_a=1, num_samples=1
    )
    recipe = fit_pretrained.Recipe(config, fit_pretrained.CIFAR10)
    trainer = replace(fit_pretrained.VICTIMS["standard"], width=4, train_steps=2, batch_size=8)
    victims = {"standard": trainer, "adversarial-2": replace(trainer, rho_a=2 / 255, steps_a=1)}
    for module in (fit_pretrained, other_data):
        monkeypatch.setattr(module, "read_data", read)
        monkeypatch.setattr(module, "VICTIMS", victims)
    monkeypatch.setattr(fit_pretrained, "RECIPES", {"tiny": recipe})
    monkeypatch.setattr(fit_pretrained, "TRICKS", ("greyscale",))
    train, trained = protocol.train_victim, []

    def watched(*arguments, **options):
        trained.append(1)
        return train(*arguments, **options)

    monkeypatch.setattr(protocol, "train_victim", watched)
    return trained


def test_a_card_says_what_was_measured(tmp_path, small):
    """The card is all a stranger has: each figure must be in the records, of this generator, for every trainer."""
    places = [f"--{name}={tmp_path / name}" for name in ("work", "pretrained", "results")]
    words = ["tiny", "--data", str(tmp_path), *places, "--seeds", "0", "1"]
    fit_pretrained.main(words)
    folder = tmp_path / "pretrained" / "tiny"
    card = check(folder).card
    assert [row["trainer"] for row in card["measured"]] == [
        "standard, 2 updates", "adversarial at 2/255, 2 updates", "greyscale", *fit_pretrained.INFORMED,
    ]  # fmt: skip
    rows = json.loads((tmp_path / "results" / "tiny.json").read_text())["trainers"]
    for row, found in zip(card["measured"], rows, strict=True):
        assert len(row["protected"]) == 2
        assert row["protected"] == [round(100 * each["test_accuracy"], 1) for each in found["protected"]]
        # the clean copy has no generator that somebody could hold
        assert len(row["clean"]) == (0 if row["trainer"].startswith("informed") else 2)
    assert "| greyscale |" in (folder / "README.md").read_text(encoding="utf-8")
    assert "class 3" in (folder / "README.md").read_text(encoding="utf-8")

    # an hour of fitting and one of training are not to be spent again for a word in the card
    before, weights = len(small), (folder / "model.safetensors").read_bytes()
    fit_pretrained.main(words)
    assert len(small) == before == 16
    assert (folder / "model.safetensors").read_bytes() == weights


def test_other_data_get_the_label_that_the_figures_say(tmp_path, small):
    """'k mod C' and the surrogate's own label are two ways; one's figure under the other's name misleads."""
    fit_pretrained.main(["tiny", "--data", "x", *(f"--{n}={tmp_path / n}" for n in ("work", "pretrained", "results"))])
    generator = NoiseGenerator.from_pretrained(tmp_path / "pretrained" / "tiny")
    data = other_data.first_classes(photographs(40, 20, 1), 10, 32)
    assert tuple(data.images.shape) == (20, 3, 32, 32)
    assert data.labels.tolist() == [*range(10), *range(10)]
    copies = dict(other_data.protections(generator, data))
    noise = generator.noise(data.images, np.arange(20) % 10 % 4)
    assert np.array_equal(
        copies[other_data.MODULO].numpy(), np.clip(data.images.numpy().astype(int) + noise.numpy(), 0, 255)
    )
    with torch.no_grad():
        named = [int(generator.surrogate.eval()(image[None] / 255.0)[0].argmax()) for image in data.images]
    noise = generator.noise(data.images, named)
    assert np.array_equal(
        copies[other_data.PREDICTED].numpy(), np.clip(data.images.numpy().astype(int) + noise.numpy(), 0, 255)
    )
    other_data.main(
        [str(tmp_path / "pretrained" / "tiny"), "--data", "x", "--sides", "16", f"--work={tmp_path / 'other'}",
         f"--results={tmp_path / 'results'}"]
    )  # fmt: skip
    rows = json.loads((tmp_path / "results" / "other_data.json").read_text())["rows"]
    ways = ("clean", other_data.MODULO, other_data.PREDICTED)
    assert [(row["classes"], row["record"]["victim"], row["labels"]) for row in rows] == [
        (classes, victim, way) for classes in (10, 20) for victim in other_data.TRAINERS for way in ways
    ]
    assert {(row["classes"], row["record"]["classes"]) for row in rows} == {(10, 10), (20, 20)}

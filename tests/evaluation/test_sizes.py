"""Trainers with a size of their own: what they see, what is kept of their runs, and what the report says of it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semtransforms.core.config import Transformation
from semtransforms.core.keys import batch_epochs, batch_rows
from semtransforms.data.loading import Labelled
from semtransforms.evaluation.countermeasures import Countermeasure, InformedTrainer, Purifier
from semtransforms.evaluation.protocol import evaluate
from semtransforms.evaluation.records import Record
from semtransforms.evaluation.report import EvaluationReport
from semtransforms.evaluation.victims import VictimConfig, paper, train_victim, training
from semtransforms.evaluation.victims.seen import training_set

VICTIM = VictimConfig("convnet", width=4, train_steps=6, batch_size=16, evaluations=2)
SHAPES = [(18, 24), (24, 18), (20, 20)]


def photographs(count=24, seed=0):
    """Photographs of several sizes; those of class 1 are brighter."""
    rng = np.random.default_rng(seed)
    return [
        (Image.fromarray(rng.integers(80 * (k % 2), 100 + 80 * (k % 2), (*SHAPES[k % 3], 3), dtype=np.uint8)), k % 2)
        for k in range(count)
    ]


def noisy(data, seed=5):
    rng = np.random.default_rng(seed)
    changed = [(np.array(image).astype(int) + rng.integers(-8, 9, (*image.size[::-1], 3)), k) for image, k in data]
    return [(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), label) for pixels, label in changed]


def run(data=None, **options):
    data = photographs() if data is None else data
    settings = {"protected": noisy(photographs()), "test": photographs(12, seed=1), "victims": {"tiny": VICTIM},
                "seeds": (0,), "device": "cpu", "progress": False, "train_sizes": (8, 12)}  # fmt: skip
    return evaluate(data, **(settings | options))


@pytest.fixture(scope="module")
def record():
    return run(None, train_sizes=(8,)).records[0]


def at(record, final, size, crop, copy="clean", **changes):
    return replace(record, test_accuracy=final, peak_test_accuracy=final, train_size=size, crop=crop, copy=copy,
                   victim=f"tiny {size} {crop}", guess_accuracy=0.1, **changes)  # fmt: skip


def test_each_size_and_crop_is_a_run(tmp_path: Path):
    """A size that is left out, or averaged with another, may be the one at which a trainer learns most."""
    crops = ("resize", "random-resized")
    report = run(crops=crops, train_sizes=(8, 12), out=tmp_path / "report")
    found = sorted((r.copy, r.train_size, r.crop) for r in report.records)
    assert found == sorted((copy, size, crop) for copy in ("clean", "protected") for size in (8, 12) for crop in crops)
    for record in report.records:
        settings = json.loads(record.settings)
        assert (settings["train_size"], settings["crop"]) == (record.train_size, record.crop)
        assert [each["name"] for each in settings["augmentation"]] == ["flip"]
    assert len({record.victim for record in report.records}) == 4
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "report" / "runs").iterdir()}
    more = run(train_sizes=(8, 16), out=tmp_path / "report")  # more is kept of each photograph now
    assert len(more.records) == 10
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert EvaluationReport.load(tmp_path / "report").records == list(more.records)


def test_the_published_change_is_that_of_the_files():
    """A bound that is read off shrunk images says nothing about what was published."""
    clean, published = photographs(), noisy(photographs())
    (noise,) = run(train_sizes=(8,)).noise.values()
    change = np.concatenate(
        [(np.array(a).astype(int) - np.array(b)).ravel() for (a, _), (b, _) in zip(clean, published, strict=True)]
    )
    assert noise["published_linf"] == np.abs(change).max() == 8
    assert noise["published_rms"] == pytest.approx(np.sqrt((change**2).mean()))


@pytest.mark.parametrize("crop", ["resize", "random-resized"])
def test_an_epoch_is_cut_anew_and_the_owners_image_like_its_copy(crop):
    """The same windows in each epoch are no augmentation; a clean window from elsewhere is not the copy's original."""
    images = [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image, _ in photographs(16)]
    labels = torch.arange(16) % 2
    config = replace(VICTIM, train_size=8, crop=crop)
    black = [torch.zeros_like(image) for image in images]
    plain = training_set(images, labels, None, config, [])
    assert plain.at_epoch(0).shape == (16, 3, 8, 8)
    assert not torch.equal(plain.at_epoch(0), plain.at_epoch(1))
    assert torch.equal(plain.at_epoch(1), plain.at_epoch(1))

    class AllClean(Countermeasure):
        name, acts_on = "all-clean", "stored"

        def on_stored(self, data, *, seed):
            return replace(data, images=data.clean)

    shown = training_set(black, labels, images, config, [AllClean()])
    assert torch.equal(shown.at_epoch(1), plain.at_epoch(1))


def test_an_epoch_holds_each_image_once():
    """Windows of another epoch for some rows of a batch: those images would be seen twice alike."""
    for count, size in ((10, 4), (7, 16), (5, 5)):
        rows = torch.cat([batch_rows(step, count, size, seed=1) for step in range(20)]).tolist()
        epochs = [e for step in range(20) for e, s in batch_epochs(step, count, size) for _ in range(s.start, s.stop)]
        assert epochs == [place // count for place in range(20 * size)]
        assert sorted(rows[:count]) == list(range(count))


def test_countermeasures_act_at_the_trainers_size_and_the_informed_before(monkeypatch):
    """JPEG at a photograph's size is another countermeasure than at 64 px; noise is undone where it was added."""
    seen = {"purifier": set(), "informed": set()}

    def purify(images):
        seen["purifier"].add(tuple(images.shape[2:]))
        return images

    class Informed(Countermeasure):
        name, acts_on, before_resize = "informed", "stored", True

        def on_stored(self, data, *, seed):
            seen["informed"].add(tuple(data.images.shape[2:]))
            return data

    look = Purifier(purify, "look")
    run(train_sizes=(8,), crops=("resize", "random-resized"), countermeasures=[(Informed(), look)])
    assert seen == {"purifier": {(8, 8)}, "informed": {(16, 21), (21, 16), (16, 16)}}
    with pytest.raises(ValueError, match="Put 'informed' first"):
        run(countermeasures=[(look, Informed())])


def test_early_stopping_validates_on_the_middle(monkeypatch):
    """Validated on drawn windows, or trained on what was set aside, early stopping stops at the wrong moment."""
    images = [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image, _ in photographs(20)]
    config = replace(VICTIM, train_size=8, patience=3, validation=0.25)
    seen = training_set(images, torch.arange(20) % 2, None, config, [])
    assert len(seen.validation.labels) == 5
    assert len(seen.data.labels) == len(seen.at_epoch(0)) == 15
    whole = training_set(images, torch.arange(20) % 2, None, replace(config, patience=None), [])
    middles = {image.numpy().tobytes() for image in whole.data.images}
    both = [*seen.validation.images, *seen.data.images]
    assert {image.numpy().tobytes() for image in both} == middles


@pytest.mark.parametrize("crop", ["resize", "random-resized"])
def test_a_training_that_was_killed_goes_on_the_same(crop, tmp_path: Path, monkeypatch):
    """Other windows after a kill would be another run under the same name."""
    images = [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image, _ in photographs(24)]
    config = replace(VICTIM, train_size=8, crop=crop, precision="fp32")
    tests = {"test_images": images[:6], "test_labels": torch.arange(6) % 2, "device": "cpu", "progress": False}
    whole = train_victim(images, torch.arange(24) % 2, config, **tests)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1)
    real, done = training.update_weights, []

    def killed(*arguments):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(1)
        return real(*arguments)

    monkeypatch.setattr(training, "update_weights", killed)
    file = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_victim(images, torch.arange(24) % 2, config, checkpoint=file, **tests)
    assert file.exists()
    monkeypatch.setattr(training, "update_weights", real)
    again = train_victim(images, torch.arange(24) % 2, config, checkpoint=file, **tests)
    assert replace(again, seconds=0) == replace(whole, seconds=0)


def test_a_config_without_a_size_is_told_as_before():
    """Kept runs and checkpoints are found by these words: with new ones, hours would be run again."""
    for config in (VictimConfig(), paper(rho_a=4 / 255)):
        told = config.to_dict()
        assert not {"train_size", "crop"} & told.keys()
        assert [each["name"] for each in told["augmentation"]] == ["crop", "flip"]
    own = VictimConfig(train_size=64, augmentation=(Transformation("RandomGrayscale", {"p": 0.1}),))
    assert [each["name"] for each in own.to_dict()["augmentation"]] == ["RandomGrayscale"]


def test_a_record_of_before_is_read(record):
    """A report that cannot be read any more has lost its hours."""
    values = record.to_dict()
    del values["train_size"], values["crop"]
    old = Record.from_dict(values)
    assert (old.train_size, old.crop) == (None, None)
    assert old.to_dict().keys() == values.keys()
    with pytest.raises(ValueError, match="train_size"):
        Record.from_dict(values | {"train_size": 0, "crop": "resize"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train_sizes": 64}, "train_sizes"),
        ({"train_sizes": (8, 8)}, "train_sizes"),
        ({"train_sizes": (4,)}, "'convnet'"),
        ({"train_sizes": (8.5,)}, "8.5"),
        ({"crops": ("squeeze",)}, "'squeeze'"),
        ({"crops": ()}, "crops"),
        ({"train_sizes": (), "crops": ("random-resized",)}, "train_sizes=\\(64,\\)"),
        ({"image_size": (12, 12)}, "image_size"),
        ({"victims": {"own": replace(VICTIM, train_size=8)}}, "'own'"),
        ({"train_sizes": (), "victims": {"own": replace(VICTIM, train_size=8), "other": VICTIM}}, "all"),
        ({"protected": noisy(photographs())[:-1]}, "23 images"),
        ({"protected": [(image, 1 - label) for image, label in noisy(photographs())]}, "another label"),
        ({"protected": [(image.rotate(90, expand=True), k) for image, k in noisy(photographs())]}, "0 is 24 x 18"),
        ({"test": photographs()}, "shares 24 of its 24"),
    ],
)  # fmt: skip
def test_mistakes_are_found_before_any_training(options, words):
    """Each would cost an evaluation, or be left out without a word."""
    with pytest.raises(ValueError, match=words):
        run(**options)


def test_who_needs_the_published_size_is_refused_where_it_is_not_kept():
    """Undoing full-size noise on shrunk photographs would pass for a protection that withstands it."""

    class Generator:
        class config:
            num_classes = None

        def scale(self, noise_size):
            return type("Scale", (), {"side": None})

    with pytest.raises(ValueError, match="full size"):
        run(train_sizes=(8,), countermeasures=[InformedTrainer(Generator(), seed=0)])


def test_the_report_says_where_most_is_learned(record):
    """(39 - 10) / (75 - 10) = 45 % at 64 px, (40 - 10) / (85 - 10) = 40 % at 96: not the highest accuracy decides."""
    records = [
        at(record, 0.75, 64, "random-resized"), at(record, 0.39, 64, "random-resized", "sem"),
        at(record, 0.85, 96, "resize"), at(record, 0.40, 96, "resize", "sem"),
        at(record, 0.20, 96, "resize", "sem", countermeasure="greyscale"),
    ]  # fmt: skip
    report = EvaluationReport(records)
    (verdict,) = report.verdict()
    assert "64 px (random-resized): 45 %" in verdict
    lines = [line for line in report.to_markdown().splitlines() if line.startswith(("| 64 px", "| 96 px"))]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [line[:4] for line in cells] == [
        ["64 px (random-resized)", "75.0", "39.0", "45 %"], ["96 px (resize)", "85.0", "40.0", "40 %"]
    ]  # fmt: skip
    page = report.to_html().replace("\N{NO-BREAK SPACE}", " ")
    assert all(text in page for text in ("64 px (random-resized)", "45 %", "75.0"))


def test_images_of_several_sizes_need_a_size():
    """torch's own words for it name neither the argument nor the remedy."""
    images = [torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(3, 9, 8, dtype=torch.uint8)]
    data = Labelled(images, torch.tensor([0, 1]))
    with pytest.raises(TypeError, match="train_size"):
        train_victim(data.images, data.labels, VICTIM, test_images=images, test_labels=data.labels)

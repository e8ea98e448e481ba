"""The check: a verdict that an owner can trust, in both directions."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from owner import COLOUR, write_photographs
from PIL import Image

from semtransforms.data.sources import open_source
from semtransforms.evaluation.records import CLEAN, NONE
from semtransforms.evaluation.report import EvaluationReport
from semtransforms.evaluation.victims import VictimConfig
from semtransforms.noise.methods import SEM_CLASSWISE
from semtransforms.photographs.check import COPY, LARGER_NAME, Sample, _verdict, check_copy, draw, seconds_of_check
from semtransforms.photographs.look import Found, look

FITTED = replace(SEM_CLASSWISE, image_size=(16, 16), train_steps=1)


@pytest.fixture
def found(tmp_path: Path) -> Found:
    return look(open_source(str(write_photographs(tmp_path / "photos", each=20))), smallest=8)


def publish(found: Found, folder: Path, change) -> dict[int, Path]:
    """Copies of all photographs as PNG files; ``change`` takes pixels (H, W, 3) and the label."""
    folder.mkdir()
    copies = {}
    for row in found.rows:
        with found.source.open(row) as image:
            pixels = change(np.asarray(image), int(found.source.labels[row]))
        copies[row] = folder / f"{row}.png"
        Image.fromarray(pixels).save(copies[row])
    return copies


def test_the_sample_holds_out_a_fifth_of_each_class(found: Found):
    """A test photograph that was trained on makes every protection look useless; a class without one, untested."""
    train, held_out = draw(found, found.rows)
    assert sorted(train + held_out) == list(found.rows)
    labels = found.source.labels
    assert [labels[held_out].tolist().count(label) for label in (0, 1)] == [4, 4]
    assert draw(found, found.rows) == (train, held_out)


def test_a_large_folder_is_sampled_class_by_class(found: Found, monkeypatch: pytest.MonkeyPatch):
    """The check of ten thousand photographs must not take longer than their protection."""
    monkeypatch.setattr("semtransforms.photographs.check.SAMPLE", 10)
    train, held_out = draw(found, found.rows)
    labels = found.source.labels
    assert [labels[train + held_out].tolist().count(label) for label in (0, 1)] == [5, 5]
    assert not set(train) & set(held_out)


def recoloured(pixels: np.ndarray, label: int) -> np.ndarray:
    """The colour of a class taken off, and that of the other one added."""
    change = np.zeros(3, int)
    change[label], change[1 - label] = -COLOUR, COLOUR
    return np.clip(pixels + change, 0, 255).astype(np.uint8)


@pytest.mark.filterwarnings("ignore:protected differs")  # colours are swapped by 60 levels
def test_both_verdicts(found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A check that always says protected, or never, is worth nothing: originals are learned, others' colours not."""
    trainer = VictimConfig(network="convnet", width=4, evaluations=1)  # a look at its start would be luck
    monkeypatch.setattr("semtransforms.photographs.check.TRAINER", trainer)
    monkeypatch.setattr("semtransforms.photographs.check.LARGER", replace(trainer, width=8))
    monkeypatch.setattr("semtransforms.photographs.check.LARGER_FROM", 40)
    monkeypatch.setattr("semtransforms.photographs.check.FEWEST_UPDATES", 40)
    as_they_are = publish(found, tmp_path / "same", lambda pixels, label: pixels)
    # what tells the classes apart says the opposite in the copy
    swapped = publish(found, tmp_path / "swapped", recoloured)
    opened, open_one = [], Sample.__getitem__
    monkeypatch.setattr(Sample, "__getitem__", lambda sample, row: opened.append(row) or open_one(sample, row))
    checked = check_copy(found, as_they_are, FITTED, tmp_path / "report", device="cpu", progress=False)
    decoded = (len(found.rows) + len(opened)) * found.pixels / len(found.rows)  # all are compared before
    assert seconds_of_check(found, FITTED, passes=np.inf, read=1) == pytest.approx(decoded)  # what was announced
    assert checked.learned == pytest.approx(1, abs=0.1)
    # Wilson's bound of 8 right of 8 is 8 / (8 + 1.96²) = 0.676, and (0.676 - 0.5) / 0.5 = 35 %
    assert "(from only 8 photographs: between 35 % and 100 %): partly or not protected" in checked.verdict[1]
    assert "32 of the published" in checked.verdict[0]
    assert "8 other" in checked.verdict[0]
    assert checked.report == tmp_path / "report" / "report.html"
    assert checked.report.is_file()
    runs = EvaluationReport.load(tmp_path / "report").records
    trained = sum(run.passes * (run.train_size / 16) ** 2 * (4 if "ResNet" in run.victim else 1) for run in runs)
    assert seconds_of_check(found, FITTED, passes=trained, read=0) == pytest.approx(1)  # what was announced
    # the strongest trainer may be one who makes them grey, and there are no originals of that kind to compare with
    records = [
        replace(run, test_accuracy=0.5, peak_test_accuracy=0.5)
        if (run.copy, run.countermeasure) == (COPY, NONE)
        else run
        for run in EvaluationReport.load(tmp_path / "report").records
    ]
    (first, _), _, learned = _verdict(EvaluationReport(records), tmp_path)
    assert learned == pytest.approx(1, abs=0.1)
    assert "photographs, made grey, names" in first
    assert f"trained on the originals, {checked.verdict[0].split('on the originals, ')[1]}" in first
    # or the larger network, where the small one is held
    larger = [
        replace(run, test_accuracy=0.5, peak_test_accuracy=0.5)
        if run.copy == COPY and not run.victim.startswith(LARGER_NAME)
        else run
        for run in EvaluationReport.load(tmp_path / "report").records
    ]
    (first, _), _, learned = _verdict(EvaluationReport(larger), tmp_path)
    assert learned == pytest.approx(1, abs=0.1)
    assert first.startswith("A ResNet-18 that trained")
    monkeypatch.setattr("semtransforms.photographs.check.LARGER_FROM", 41)  # without it after a short fit
    checked = check_copy(found, swapped, FITTED, tmp_path / "other", device="cpu", progress=False)
    assert not any(run.victim.startswith(LARGER_NAME) for run in EvaluationReport.load(tmp_path / "other").records)
    assert checked.learned is not None
    assert checked.learned < 0.2
    assert "mostly protected" in checked.verdict[1]
    assert "from only" not in checked.verdict[1]  # none of 8 is fewer than half of them, beyond luck


def test_a_trainer_whom_the_originals_teach_nothing_allows_no_verdict(found: Found, tmp_path: Path, monkeypatch):
    """Its share is not known and may be the largest: an owner would be told "None against this trainer"."""
    monkeypatch.setattr("semtransforms.photographs.check.TRAINER", VictimConfig(network="convnet", width=4))
    monkeypatch.setattr("semtransforms.photographs.check.FEWEST_UPDATES", 1)
    copies = publish(found, tmp_path / "same", lambda pixels, label: pixels)
    check_copy(found, copies, FITTED, tmp_path / "report", device="cpu", progress=False)
    small = EvaluationReport.load(tmp_path / "report").records
    plain = [run for run in small if (run.countermeasure, run.train_size) == (NONE, 16)]
    larger = [replace(run, victim=LARGER_NAME) for run in plain]

    def reaching(runs, on_originals, on_copy):
        share = {COPY: on_copy, CLEAN: on_originals}
        return [replace(run, test_accuracy=share[run.copy], peak_test_accuracy=share[run.copy]) for run in runs]

    records = reaching(small, 1.0, 0.55) + reaching(larger, 0.52, 0.80)
    (_, second), _, learned = _verdict(EvaluationReport(records), tmp_path)
    assert second.startswith("So it learned 10 % of what the originals teach")
    assert second.endswith(", which is no verdict: they taught another trainer next to nothing.")
    assert learned is None
    # where the copy taught it next to nothing either, the small network's word stands
    records = reaching(small, 1.0, 0.55) + reaching(larger, 0.52, 0.53)
    (_, second), _, learned = _verdict(EvaluationReport(records), tmp_path)
    assert "protected against this trainer" in second
    assert learned == pytest.approx(0.1)
    # of two classes and 8 photographs, one more than half is luck; what was told before was 200 % of the lesson
    records = reaching(small, 0.625, 0.75)
    (_, second), _, learned = _verdict(EvaluationReport(records), tmp_path)
    assert second == "The originals taught it next to nothing, so this says nothing about the protection."
    assert learned is None
    records = reaching(small, 0.875, 1.0)
    assert "learned all of what the originals teach" in _verdict(EvaluationReport(records), tmp_path)[0][1]


@pytest.mark.parametrize(("fit", "updates", "larger"), [(599, 299, False), (600, 300, True), (9_000, 500, True)])
def test_resnet18_is_played_after_a_fit_that_is_long_enough(found: Found, tmp_path, monkeypatch, fit, updates, larger):
    """The verdict would rest on the small network alone, which is held where ResNet-18 learns nearly everything."""
    played = {}
    monkeypatch.setattr("semtransforms.photographs.check._verdict", lambda *_: (("", ""), None, None))

    def play(dataset, *, victims, train_sizes, countermeasures, **options):
        ((name, trainer),) = victims.items()
        played[trainer.network] = name, trainer.train_steps, tuple(train_sizes), tuple(countermeasures)

    monkeypatch.setattr("semtransforms.photographs.check.evaluate", play)
    config = replace(FITTED, train_steps=fit)
    copies = publish(found, tmp_path / "same", lambda pixels, label: pixels)
    check_copy(found, copies, config, tmp_path / "report", device="cpu", progress=False)
    expected = {"convnet": ("standard", updates, (8, 16), (NONE, "greyscale"))}
    expected |= {"torchvision/resnet18": ("ResNet-18", updates, (16,), (NONE,))} if larger else {}
    assert played == expected
    # 64 images an update: three trainings at S and at a quarter of its pixels; and two of four times the time
    seconds = seconds_of_check(found, config, passes=64, read=0)
    assert seconds == updates * (3 * 1.25 + (8 if larger else 0))


def test_copies_of_a_photograph_are_no_test(found: Found, tmp_path: Path):
    """Owners keep photographs twice; one in the training and its twin in the test would end the check with an error."""
    twin = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(twin, "PNG")
    for place, _ in found.source.samples:
        Path(place).write_bytes(twin.getvalue())
    copies = publish(found, tmp_path / "same", lambda pixels, label: pixels)
    checked = check_copy(found, copies, FITTED, tmp_path / "report", device="cpu", progress=False)
    assert checked.report is None
    assert checked.learned is None
    assert "Nothing was checked" in checked.verdict[0]

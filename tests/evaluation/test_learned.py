"""Trainers who learn to take the noise off, on made images: how near they come to the originals, counted in NumPy."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from semtransforms.data.loading import Labelled
from semtransforms.evaluation.countermeasures import DVAE, HoldsPairs, parse_countermeasure
from semtransforms.evaluation.countermeasures.learned import in_chunks, let_learn
from semtransforms.evaluation.protocol import evaluate
from semtransforms.evaluation.victims import VictimConfig
from semtransforms.evaluation.victims.seen import training_set

SIDE = 8


def slopes(count, seed=0, side=SIDE):
    """uint8 (count, 3, side, side): each channel of each image a plane of its own slope."""
    draw = np.random.default_rng(seed)
    row, column = np.mgrid[:side, :side]
    planes = [draw.uniform(-5, 5, (count, 3, 1, 1)) * (axis - side / 2) for axis in (row, column)]
    return torch.from_numpy(np.rint(draw.uniform(90, 160, (count, 3, 1, 1)) + sum(planes)).astype(np.uint8))


def striped(images, labels):
    """Class 0 has horizontal stripes of 8 grey levels, class 1 vertical ones."""
    stripes = torch.tensor([8, -8], dtype=torch.int16).repeat(images.shape[2] // 2)
    patterns = torch.stack([stripes[:, None].expand(-1, len(stripes)), stripes[None].expand(len(stripes), -1)])
    return (images.to(torch.int16) + patterns[labels][:, None]).to(torch.uint8)


def shifted(images, labels):
    """Class 0 is brighter by 8 grey levels, class 1 darker: no image tells which."""
    return (images.to(torch.int16) + torch.tensor([8, -8], dtype=torch.int16)[labels][:, None, None, None]).to(
        torch.uint8
    )


def made(noise, count=40):
    clean, labels = slopes(count), torch.arange(count) % 2
    return Labelled(noise(clean, labels), labels, clean=clean)


def error(images, clean):
    """Mean square distance in grey levels."""
    return float(np.mean((images.numpy().astype(float) - clean.numpy()) ** 2))


def cleaned(countermeasure, data):
    before = data.images.clone()
    (fitted,) = let_learn([countermeasure], data, seed=0, device=torch.device("cpu"), progress=False)
    after = fitted.on_stored(data, seed=0).images
    assert torch.equal(data.images, before)
    return after


def test_pairs_take_a_classs_pattern_off_the_other_images():
    """A trainer who learned nothing from their pairs would be reported as a protection."""
    data = made(striped)
    after = cleaned(HoldsPairs(20, steps=100), data)
    held = (after == data.clean).flatten(1).all(1)
    assert held.sum() >= 20  # the pairs keep their originals
    others = ~held
    assert error(data.images[others], data.clean[others]) == 64
    assert error(after[others], data.clean[others]) < 16


def test_without_originals_nothing_is_taken_off():
    """What brings the images nearer must be the pairs, not a blur that comes with the network."""
    data = made(striped)
    blind = Labelled(data.images, data.labels, clean=data.images)  # "pairs" of twice the same image
    after = cleaned(HoldsPairs(20, steps=40), blind)
    assert error(after, data.clean) > 0.95 * 64


def test_the_label_tells_noise_that_no_image_shows():
    """Without the label given to the network, both signs of a shift average out."""
    data = made(shifted)
    told, guessed = (cleaned(HoldsPairs(20, by_label=each, steps=60), data) for each in (True, False))
    others = ~(told == data.clean).flatten(1).all(1) | ~(guessed == data.clean).flatten(1).all(1)
    assert error(told[others], data.clean[others]) < 16
    assert error(guessed[others], data.clean[others]) > 40


@pytest.mark.parametrize("countermeasure", [HoldsPairs(20, steps=2), DVAE(steps=2)])
def test_a_kept_evaluation_plays_who_learns(countermeasure, tmp_path):
    """Its checkpoint names the images by their digest, wherever a network has put the channels in memory."""
    data, tests = made(striped), slopes(20, seed=1)
    report = evaluate(
        (data.clean, data.labels), protected=(data.images, data.labels), test=(tests, torch.arange(20) % 2),
        victims={"tiny": VictimConfig("convnet", width=4, train_steps=2, batch_size=16, augmentation=())},
        countermeasures=(countermeasure,), seeds=(0,), out=tmp_path / "report", device="cpu", progress=False,
    )  # fmt: skip
    assert [each.countermeasure for each in report.records] == ["none", countermeasure.name]
    last = data.images.to(memory_format=torch.channels_last)
    assert replace(data, images=last).sha256() == data.sha256()


def test_a_run_again_gives_the_same_images():
    """A victim that goes on from its checkpoint would go on with other images."""
    data, pairs = made(striped, 20), HoldsPairs(10, steps=3)
    first = cleaned(pairs, data)
    torch.manual_seed(5)
    assert torch.equal(cleaned(pairs, data), first)


def test_only_a_network_that_needs_no_label_cleans_test_images():
    """Nobody knows the labels of test images."""
    data = made(striped, 20)
    for by_label in (False, True):
        (fitted,) = let_learn(
            [HoldsPairs(10, by_label=by_label, steps=3)], data, seed=0, device=torch.device("cpu"), progress=False
        )
        assert (fitted.at_test(data.images) is data.images) == by_label


def test_what_comes_before_is_in_the_pairs():
    """A network trained on images before their compression would not fit those after it."""
    seen = []

    class Watches(HoldsPairs):
        def fitted(self, data, **options):
            seen.append(data.images)
            return super().fitted(data, **options)

    data, (jpeg,) = made(striped, 20), parse_countermeasure("jpeg-10")
    let_learn([jpeg, Watches(10, steps=1)], data, seed=0, device=torch.device("cpu"), progress=False)
    assert torch.equal(seen[0], jpeg.at_test(data.images))


@pytest.mark.parametrize("crop", ["resize", "random-resized"])
def test_photographs_are_cleaned_at_the_trainers_size_by_one_network(crop, monkeypatch):
    """Trained anew each epoch it would cost an hour; at the photographs' sizes it would be another trainer."""
    shapes = []
    fitted = HoldsPairs.fitted

    def counted(self, data, **options):
        shapes.append(tuple(data.images.shape))
        return fitted(self, data, **options)

    monkeypatch.setattr(HoldsPairs, "fitted", counted)
    clean = [slopes(1, seed, side)[0] for seed, side in enumerate((10, 12, 14, 18) * 3)]
    labels = torch.arange(12) % 2
    protected = [striped(image[None], label[None])[0] for image, label in zip(clean, labels, strict=True)]
    config = VictimConfig("convnet", width=4, train_size=SIDE, crop=crop)
    seen = training_set(protected, labels, clean, config, [HoldsPairs(6, steps=2)])
    plain = training_set(protected, labels, clean, config, [])
    owners = training_set(clean, labels, None, config, [])
    for epoch in (0, 1):
        got = seen.at_epoch(epoch)
        original = (got == owners.at_epoch(epoch)).flatten(1).all(1)
        assert original.sum() == 6  # of the pairs the same window of the original
        assert not (got == plain.at_epoch(epoch))[~original].all()
    assert shapes == [(12, 3, SIDE, SIDE)]


@pytest.mark.parametrize(
    ("count", "message"), [(1, r"pairs-1'.*fewer than the 2 classes.*pairs-20"), (20, r"all of them.*fewer than 20")]
)
def test_too_few_and_too_many_pairs_are_refused(count, message):
    """One pair teaches one class; with all originals nobody needs the copies."""
    with pytest.raises(ValueError, match=message):
        HoldsPairs(count).check(made(striped, 20).labels)


def test_names_of_pairs_come_back():
    """A report that names another number of pairs than was held is wrong."""
    (plain,), (labels,) = parse_countermeasure("pairs-500"), parse_countermeasure("pairs-100-labels")
    assert (plain.name, plain.count, plain.by_label) == ("pairs-500", 500, False)
    assert (labels.name, labels.count, labels.by_label) == ("pairs-100-labels", 100, True)
    with pytest.raises(ValueError, match=r"'pairs-many'.*Write, say, pairs-500"):
        parse_countermeasure("pairs-many")


def signs(images, labels):
    """A fixed pattern of random signs, 8 grey levels, for each class."""
    patterns = np.random.default_rng(7).choice([-8, 8], (2, 3, SIDE, SIDE)).astype(np.int16)
    return (images.to(torch.int16) + torch.from_numpy(patterns)[labels]).to(torch.uint8)


def purified(data):
    """The images without what the class says of their noise, and the images rebuilt."""
    (fitted,) = let_learn([DVAE(steps=50)], data, seed=0, device=torch.device("cpu"), progress=False)
    return in_chunks(fitted.first.without_noise, data, fitted.device), fitted.on_stored(data, seed=0).images


def test_a_purifier_learns_a_classs_pattern_from_the_protected_images_alone():
    """An autoencoder that is told nothing by the class takes the image away with the noise."""
    data = made(signs, 32)
    left, rebuilt = purified(data)
    assert error(data.images, data.clean) == 64
    assert error(left, data.clean) < 0.7 * 64
    noise, after = (each.double() - data.clean for each in (data.images, rebuilt))
    assert float((after * noise).sum() / noise.square().sum()) < 0.5  # of the pattern in the images rebuilt


def test_labels_that_say_nothing_of_the_noise_give_no_pattern():
    """What is taken off must be what the class tells, not a blur."""
    data = made(signs, 32)
    mixed = replace(data, labels=data.labels[torch.randperm(32, generator=torch.Generator().manual_seed(1))])
    assert error(purified(mixed)[0], data.clean) > 0.85 * 64


def test_a_purifier_takes_images_of_any_size_and_test_images_without_labels():
    """Sides that no cell divides must come back as they were."""
    clean = slopes(8, side=10)[:, :, :, :7]
    data = Labelled(clean, torch.arange(8) % 2)
    (fitted,) = let_learn([DVAE(steps=1)], data, seed=0, device=torch.device("cpu"), progress=False)
    assert fitted.on_stored(data, seed=0).images.shape == clean.shape
    assert torch.equal(fitted.at_test(clean[:3]), fitted.at_test(clean)[:3])


def judged(*countermeasures):
    data, tests = made(striped), slopes(20, seed=1)
    return evaluate(
        (data.clean, data.labels),
        protected=(data.images, data.labels),
        test=(tests, torch.arange(20) % 2),
        victims={"tiny": VictimConfig("convnet", width=4, train_steps=4, batch_size=16, augmentation=())},
        countermeasures=countermeasures,
        seeds=(0,),
        device="cpu",
        progress=False,
    )


def test_an_evaluation_names_who_holds_pairs_apart():
    """Whoever has originals is outside the threat model: counted in, they would turn every verdict."""
    report = judged("none", HoldsPairs(20, steps=2))
    (row,) = [each for each in report.records if each.countermeasure == "pairs-20"]
    assert row.test_accuracy_processed is not None
    (verdict,) = report.verdict()
    assert f"{100 * row.peak_test_accuracy:.0f} % (pairs-20)" in verdict
    assert verdict.index("Not counted") < verdict.index("pairs-20")


def test_an_evaluation_refuses_too_few_pairs_before_any_training():
    """An error of the last row, after an hour, wastes the hour."""
    with pytest.raises(ValueError, match="fewer than the 2 classes"):
        judged("none", "pairs-1")

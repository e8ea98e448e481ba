"""The scripts behind README's figures, at a size that runs in seconds."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semtransforms import NoiseGenerator, fit_one_pass
from semtransforms.data.loading import Labelled
from semtransforms.evaluation import trial

sys.path.append(str(Path(__file__).parents[2]))  # examples/ is no part of the package

from examples.reproduce import fit_pretrained, other_data, picture, publish_pretrained, search_plus, worst_case
from examples.reproduce.publish_pretrained import check


def photographs(count, classes, seed, side=16):
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, side, side), generator=draw, dtype=torch.uint8)
    return Labelled(images, torch.arange(count) % classes, tuple(f"class {k}" for k in range(classes)))


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Tiny data, generators and trainers; returns the list of the fits and trainings that are run."""

    def read(name, root, rows, download):
        classes = 20 if name == "tiny-imagenet-100" else 4
        data, tests = photographs(40, classes, 1), photographs(20, classes, 2)
        if name != "tiny-imagenet-100":  # as in ImageNet, one image is in both parts
            tests.images[3] = data.images[7]
        return data, tests

    config = replace(fit_pretrained.SMALL, width=4, train_steps=2, batch_size=8, steps_u=1, steps_a=1, num_samples=1)
    trainer = replace(fit_pretrained.VICTIMS["standard"], width=4, train_steps=2, batch_size=8)
    victims = {"standard": trainer, "adversarial-2": replace(trainer, rho_a=2 / 255, steps_a=1)}
    recipe = fit_pretrained.Recipe(config, fit_pretrained.CIFAR10, victims, rows=40)
    for module in (fit_pretrained, other_data):
        monkeypatch.setattr(module, "read_data", read)
    monkeypatch.setattr(other_data, "VICTIMS", victims)
    monkeypatch.setattr(fit_pretrained, "RECIPES", {"tiny": recipe})
    monkeypatch.setattr(fit_pretrained, "COUNTERMEASURES", ("greyscale",))
    for module in (fit_pretrained, publish_pretrained):  # where the file of a card's figures must lie
        monkeypatch.setattr(module, "ROOT", tmp_path)
    fit = fit_pretrained.fit_generator

    def counted(*arguments, **options):
        trained.append("fit")
        return fit(*arguments, **options)

    monkeypatch.setattr(fit_pretrained, "fit_generator", counted)
    train, trained = trial.train_victim, []

    def watched(*arguments, **options):
        trained.append("victim")
        return train(*arguments, **options)

    monkeypatch.setattr(trial, "train_victim", watched)
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
    # what a victim was trained on tells nothing of what they learned
    assert "tested on 19 other images (1 that is in both is left out)" in card["notes"]
    assert "convnet of width 4, trained on the first 40 rows" in card["notes"]

    # an hour of fitting and one of training are not to be spent again for a word in the card
    assert (small.count("fit"), small.count("victim")) == (1, 16)
    fit_pretrained.main(words)
    assert len(small) == 17


def test_a_painter_is_fitted_against_the_generator_that_its_recipe_names(tmp_path, small, monkeypatch):
    """The card names a command, and another surrogate than the command's would have made other noise."""
    places = [f"--{name}={tmp_path / name}" for name in ("work", "pretrained", "results")]
    teacher = fit_pretrained.RECIPES["tiny"]
    config = replace(teacher.config, method="sem-one-pass", one_pass=3)
    recipes = {"tiny": teacher, "painted": replace(teacher, config=config, teacher="tiny")}
    monkeypatch.setattr(fit_pretrained, "RECIPES", recipes)
    for name in recipes:
        fit_pretrained.main([name, "--data", "x", *places])
    data, _ = fit_pretrained.read_data("cifar10", tmp_path, 40, download=False)
    by_hand = fit_one_pass(data, check(tmp_path / "pretrained" / "tiny"), updates=3, progress=False)
    assert check(tmp_path / "pretrained" / "painted").fingerprint == by_hand.fingerprint


def test_a_card_does_not_lose_figures_or_change_its_generator(tmp_path, small, monkeypatch, capsys):
    """With fewer seeds, another recipe or results elsewhere the card would say less, or another thing, than it did."""
    places = [f"--{name}={tmp_path / name}" for name in ("work", "pretrained", "results")]
    fit_pretrained.main(["tiny", "--data", "x", *places, "--seeds", "0", "1"])
    before = (tmp_path / "pretrained" / "tiny" / "config.json").read_bytes()

    def refused(*words):
        with pytest.raises(SystemExit):
            fit_pretrained.main(["tiny", "--data", "x", *places, *words])
        return capsys.readouterr().err

    assert "has figures of [1] too" in refused("--seeds", "0")
    assert "--results must lie in" in refused("--seeds", "0", "1", "--results=/elsewhere")
    recipe = fit_pretrained.RECIPES["tiny"]
    other = replace(recipe, config=replace(recipe.config, rho_a=1 / 255))
    monkeypatch.setattr(fit_pretrained, "RECIPES", {"tiny": other})
    assert "was fitted with another recipe" in refused("--seeds", "0", "1")
    assert (tmp_path / "pretrained" / "tiny" / "config.json").read_bytes() == before
    assert str(tmp_path) not in before.decode()


def test_other_data_get_the_label_that_the_figures_say(tmp_path, small):
    """'k mod C' and the surrogate's own label are two ways; one's figure under the other's name misleads."""
    fit_pretrained.main(["tiny", "--data", "x", *(f"--{n}={tmp_path / n}" for n in ("work", "pretrained", "results"))])
    generator = NoiseGenerator.from_pretrained(tmp_path / "pretrained" / "tiny")
    data = other_data.first_classes(photographs(40, 20, 1), 10, 32)
    assert tuple(data.images.shape) == (20, 3, 32, 32)
    assert data.labels.tolist() == [*range(10), *range(10)]
    copies = dict(other_data.protections(generator, data))
    noise = generator.noise(data.images, np.arange(20) % 10 % 4, noise_size="full")
    assert np.array_equal(
        copies[other_data.MODULO].numpy(), np.clip(data.images.numpy().astype(int) + noise.numpy(), 0, 255)
    )
    with torch.no_grad():
        named = [int(generator.surrogate.eval()(image[None] / 255.0)[0].argmax()) for image in data.images]
    noise = generator.noise(data.images, named, noise_size="full")
    assert np.array_equal(
        copies[other_data.PREDICTED].numpy(), np.clip(data.images.numpy().astype(int) + noise.numpy(), 0, 255)
    )
    words = [str(tmp_path / "pretrained" / "tiny"), "--data", "x", "--sides", "16"]
    for trainers in (["standard"], ["adversarial-2"], ["standard"]):  # a part of it leaves the other part as it was
        places = [f"--work={tmp_path / 'other'}", f"--results={tmp_path / 'results'}"]
        other_data.main([*words, *places, "--trainers", *trainers])
    records = json.loads((tmp_path / "results" / "other_data-tiny.json").read_text())["records"]
    ways = ("clean", other_data.MODULO, other_data.PREDICTED)
    assert {(each["classes"], each["victim"], each["copy"]) for each in records} == {
        (classes, victim, way) for classes in (10, 20) for victim in other_data.TRAINERS for way in ways
    }
    assert len(records) == 12


def test_trials_are_ranked_by_what_all_were_judged_by():
    """A trial that was judged by fewer countermeasures would look the better for it."""
    few, all_ = {"none": 30.0, "adversarial-2": 31.0}, {"none": 20.0, "adversarial-2": 25.0, "greyscale": 60.0}
    trials = {"few": {"passes": 0, "accuracy": few}, "all": {"passes": 2_500_000, "accuracy": all_}}
    head, _, *rows = (line.strip("| ").split(" | ") for line in search_plus.compare(trials).splitlines())
    assert head[-1] == "largest of none, adversarial-2"
    first, second = (dict(zip(head, row, strict=True)) for row in rows)
    assert (first["trial"], first["passes of the fit, millions"], first["greyscale"]) == ("all", "2.50", "60.0")
    assert (second["trial"], second["greyscale"], second[head[-1]]) == ("few", "–", "31.0")


def test_the_search_judges_on_images_kept_from_it(tmp_path, small, monkeypatch):
    """Chosen by README's test images, the preset's figures on them would be the best of many draws."""
    monkeypatch.setattr(search_plus, "ROWS", 30)
    monkeypatch.setattr(search_plus, "COUNTERMEASURES", ("greyscale", "mean"))
    for kind, victim in (("STANDARD", "standard"), ("ADVERSARIAL", "adversarial-2")):
        monkeypatch.setattr(search_plus, kind, {victim: fit_pretrained.RECIPES["tiny"].victims[victim]})
    tiny = replace(fit_pretrained.RECIPES["tiny"].config, num_classes=None)
    monkeypatch.setattr(search_plus, "TRIALS", {"clean": None, "sem": tiny})
    judge, tests = search_plus.evaluate, []

    def watched(train, generator, *, test, **options):
        tests.append((train, test))
        return judge(train, generator, test=test, **options)

    monkeypatch.setattr(search_plus, "evaluate", watched)
    everything = []

    def read(name, root, rows, download):
        everything.append(photographs(rows, 4, 1))
        return everything[-1], None  # nobody asks for the test images

    monkeypatch.setattr(search_plus, "read_data", read)
    words = ["--data", "x", f"--work={tmp_path / 'work'}", f"--results={tmp_path}"]
    search_plus.main(["clean", *words])
    search_plus.main(["sem", *words, "--countermeasures", "greyscale"])
    for train, test in tests:
        assert torch.equal(torch.cat([train[0], test[0]]), everything[0].images)
        assert len(test[0]) == 15
    found = json.loads((tmp_path / "search_plus.json").read_text())
    assert sorted(found) == ["clean", "sem"]
    assert sorted(found["clean"]["accuracy"]) == ["adversarial-2", "greyscale", "mean", "none"]
    assert sorted(found["sem"]["accuracy"]) == ["adversarial-2", "greyscale", "none"]
    assert (found["clean"]["passes"], found["sem"]["passes"]) == (0, 2 * 8 * (1 * 1 + 1 + 1))
    assert small.count("victim") == 7
    search_plus.main(["sem", *words, "--countermeasures", "greyscale"])  # all of it was kept
    assert small.count("victim") == 7
    monkeypatch.setattr(search_plus, "TRIALS", {"sem": replace(tiny, steps_u=2)})
    with pytest.raises(ValueError, match="was fitted when the trial was another"):
        search_plus.main(["sem", *words])


def test_the_table_of_the_search_begins_with_the_best(monkeypatch):
    """The first line is the one that is taken; it must be the one with the lowest worst case."""
    monkeypatch.setattr(search_plus, "COUNTERMEASURES", ("ueraser",))
    columns = ("none", "adversarial-2", "ueraser")
    trials = {
        "good at most": {"passes": 2_000_000, "accuracy": dict.fromkeys(columns, 20.0) | {"ueraser": 60.0}},
        "even": {"passes": 1_500_000, "accuracy": dict.fromkeys(columns, 40.0)},
    }
    lines = search_plus.compare(trials).splitlines()
    assert lines[2] == "| even | 1.50 | 40.0 | 40.0 | 40.0 | 40.0 |"
    assert lines[3] == "| good at most | 2.00 | 20.0 | 20.0 | 60.0 | 60.0 |"


def test_the_worst_case_is_over_trainers_not_seeds(tmp_path, small, monkeypatch):
    """A figure of another generator, seed or trainer would stand in the table that decides which to recommend."""
    images = photographs(40, 4, 1)
    monkeypatch.setattr(worst_case, "read_data", lambda *arguments, **options: (images, photographs(20, 4, 2)))
    victims = fit_pretrained.RECIPES["tiny"].victims
    monkeypatch.setattr(worst_case, "VICTIMS", victims)
    for name, countermeasures in (("IN_T", ("greyscale",)), ("NOT_IN_T", ("cutout",))):
        monkeypatch.setattr(worst_case, name, countermeasures)
    monkeypatch.setattr(worst_case, "TRAINERS", ("none", "adversarial-2", "greyscale", "cutout"))
    config = fit_pretrained.RECIPES["tiny"].config
    for number, name in enumerate(("one", "two")):
        fitted = fit_pretrained.fit_generator((images.images, images.labels), replace(config, seed=number))
        fitted.save_pretrained(tmp_path / name)
        places = [f"--{kind}={tmp_path}/{kind}" for kind in ("data", "work", "results")]
        worst_case.main([str(tmp_path / name), *places, "--seeds", "0", "1"])
    kept = [json.loads((tmp_path / "results" / f"worst_case-{name}.json").read_text()) for name in ("one", "two")]
    records = [json.loads(path.read_text()) for path in (tmp_path / "work" / "report" / "runs").glob("*.json")]
    for found in kept:
        assert list(found["accuracy"]) == ["none", "adversarial-2", "greyscale", "cutout"]
        for trainer, accuracies in found["accuracy"].items():
            victim, name = (trainer, "none") if trainer in victims else ("standard", trainer)
            wanted = {
                each["seed"]: round(100 * each["test_accuracy"], 1) for each in records
                if (each["copy"], each["victim"], each["countermeasure"]) == (found["generator"], victim, name)
            }  # fmt: skip
            assert accuracies == [wanted[0], wanted[1]]
    trained = len(small)
    worst_case.main([str(tmp_path / "one"), *places, "--seeds", "0", "1"])  # all of it was kept
    assert len(small) == trained

    kept[0]["accuracy"] = {"none": [10, 20], "adversarial-2": [30, 30], "greyscale": [60, 20], "cutout": [35, 37]}
    text = worst_case.compare(kept[:1])
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    rows = dict(line[:2] for line in lines)
    assert rows["none"] == "15.0 ± 7.1 (n=2)"
    assert rows["**largest of all**"] == "**40.0**"  # not 60, which is one seed's
    assert rows["mean of all"] == "30.2"  # 15, 30, 40, 36
    assert rows["**largest of those in no T**"] == "**36.0**"


def test_the_picture_has_a_row_for_each_photograph_and_generator(tmp_path, small, monkeypatch):
    """Rows under another generator's name would show the wrong noise."""
    images = photographs(40, 4, 1)
    config = fit_pretrained.RECIPES["tiny"].config
    for number, name in enumerate(("one", "two")):
        fitted = fit_pretrained.fit_generator((images.images, images.labels), replace(config, seed=number))
        fitted.save_pretrained(tmp_path / name)
    drawn, shown = [], Image.new("RGB", (1, 1))
    names = [str(tmp_path / name) for name in ("one", "two")]
    monkeypatch.setattr(picture, "SIDE", 16)
    monkeypatch.setattr(picture, "side_by_side", lambda *rows: drawn.extend(zip(*rows, strict=True)) or shown)
    monkeypatch.setattr("sys.argv", ["picture.py", *names, str(tmp_path / "p.png")])
    picture.main()
    both = [next(pixels for pixels, _, words in drawn if words.startswith(file)) for file in ("china", "flower")]
    china, flower = both
    expected = [
        (pixels, f"{file}.jpg, {name}", NoiseGenerator.from_pretrained(tmp_path / name).noise(both, [0, 1])[k])
        for k, (file, pixels) in enumerate((("china", china), ("flower", flower))) for name in ("one", "two")
    ]  # fmt: skip
    assert not torch.equal(china, flower)
    for (pixels, noise, words), (clean, caption, levels) in zip(drawn, expected, strict=True):
        assert words == caption
        assert torch.equal(pixels, clean)
        assert torch.equal(noise, levels)


def test_who_aligns_photographs_finds_the_noise_that_they_share():
    """An attack that finds nothing in anything would call every noise safe."""
    from examples.reproduce.align import align

    draw = torch.Generator().manual_seed(0)
    ground = torch.nn.functional.interpolate(torch.rand(24, 3, 3, 3, generator=draw) * 200, (16, 16), mode="bicubic")
    noises = (torch.rand(2, 3, 16, 16, generator=draw) - 0.5) * 16
    places = torch.randint(0, 16, (24, 2), generator=draw).tolist()
    moved = [noises[0].roll(place, (1, 2)) for place in places]
    mirrored = torch.stack([each.flip(2) if row % 2 else each for row, each in enumerate(moved)])
    assert align(ground + mirrored, noises[:1]) > 0.8
    assert align(ground + mirrored, noises[1:]) < 0.4

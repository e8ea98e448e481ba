"""The script that plays today's trainers, in small."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2]))  # examples/ is no part of the package

from examples.reproduce import tables, today
from semtransforms.data.loading import Labelled
from semtransforms.evaluation import trial

GENERATOR = str(Path(tables.ROOT, "pretrained", "sem-plus-cifar10-small"))


def images(count: int, seed: int) -> Labelled:
    drawn = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=drawn)
    return Labelled(pixels, torch.arange(count) % 10, tuple(f"class {k}" for k in range(10)))


def test_rows_are_of_the_trainers_that_were_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure of another trainer, copy or seed would stand in the table that says who learns most."""
    monkeypatch.setattr(today, "read_data", lambda *arguments, **options: (images(40, 1), images(20, 2)))
    train, trained = trial.train_victim, []

    def quick(data: Labelled, exams: object, config: object, *rest: object, **options: object) -> object:
        trained.append(config.seed)
        return train(data, exams, replace(config, train_steps=2, batch_size=8), *rest, **options)

    monkeypatch.setattr(trial, "train_victim", quick)
    places = [f"--data={tmp_path}", f"--work={tmp_path}/work", f"--results={tmp_path}/examples/reproduce/results"]
    words = [GENERATOR, *places, "--seeds", "0", "1"]
    today.main([*words, "--trainers", "standard", "low-pass"])
    file = tmp_path / "examples" / "reproduce" / "results" / "today-sem-plus-cifar10-small.json"
    rows = json.loads(file.read_text())["rows"]
    assert [(row["countermeasure"], row["copy"], row["seed"]) for row in rows] == [
        ("low-pass", "clean", 0), ("low-pass", "clean", 1), ("low-pass", "protected", 0), ("low-pass", "protected", 1),
        ("none", "clean", 0), ("none", "clean", 1), ("none", "protected", 0), ("none", "protected", 1),
    ]  # fmt: skip
    played = len(trained)
    today.main([*words, "--trainers", "standard"])  # nothing is trained again, and the other trainer's rows stay
    assert (len(trained), json.loads(file.read_text())["rows"]) == (played, rows)

    for row in rows:
        row["accuracy"], row["peak"] = {"clean": (0.7, 0.72), "protected": (0.2, 0.3)}[row["copy"]]
    rows[2]["accuracy"] = 0.4  # low-pass, seed 0; with seed 1 it is 30 on average
    rows[0]["accuracy"] = 0.5  # on the clean copy, where it is 60 on average
    file.write_text(json.dumps({"rows": rows}))
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables.today(tmp_path).splitlines()[2:]]
    assert [line[:3] for line in lines] == [["`standard`", "`convnet`", "40"], ["`low-pass`", "`convnet`", "40"]]
    assert [line[-2] for line in lines] == ["17 %", "33 %"]  # (20 - 10) / (70 - 10), (30 - 10) / (70 - 10)
    assert [line[5].split(" ")[0] for line in lines] == ["70.0", "60.0"]  # clean, doing the same

    # of another generator, beside which the same trainer on clean images was not measured: those of the first one serve
    other = {"rows": [{**row, "accuracy": 0.3} for row in rows if row["copy"] == "protected"]}
    file.with_name("today-sem-one-pass-cifar10.json").write_text(json.dumps(other))
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables.today(tmp_path).splitlines()[2:]]
    assert [line[3] for line in lines] == 2 * ["`sem-one-pass-cifar10`", "`sem-plus-cifar10-small`"]
    assert [line[-2] for line in lines] == ["33 %", "17 %", "33 %", "33 %"]  # (30 - 10) / (70 - 10) of the new ones


def test_who_holds_pairs_is_not_played_on_clean_images_and_rates_are_rows_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pairs of twice the same image would be a row; a transformer at another rate would take the first one's place."""
    monkeypatch.setattr(today, "read_data", lambda *arguments, **options: (images(40, 1), images(20, 2)))
    played: list[tuple[object, dict[str, object]]] = []

    def evaluated(data: object, maker: object, **options: object) -> SimpleNamespace:
        played.append((maker, options))
        return SimpleNamespace(records=[])

    monkeypatch.setattr(today, "evaluate", evaluated)
    words = [GENERATOR, f"--data={tmp_path}", f"--work={tmp_path}", f"--results={tmp_path}", "--rows=40"]
    today.main([*words, "--trainers", "pairs-20", "equalise"])
    assert [(maker is None, options["trainers"]) for maker, options in played] == [
        (False, ("pairs-20",)), (False, ("equalise",)), (True, ("equalise",))
    ]  # fmt: skip
    played.clear()
    today.main([*words, "--trainers", "equalise", "--network", "mixer", "--learning-rate", "0.02"])
    victims, (name,) = played[0][1]["victims"], played[0][1]["countermeasures"]
    assert isinstance(victims, dict)
    ((victim, config),) = victims.items()
    assert (victim.split()[1], config.network, config.learning_rate, name) == ("standard", "mixer", 0.02, "equalise")
    with pytest.raises(SystemExit):
        today.main([*words, "--trainers", "sam", "--learning-rate", "0.02"])
    slower = {"network": "mixer", "rows": 40, "victim": "standard", "countermeasure": "none", "copy": "clean",
              "seed": 0, "trained_at": None, "learning_rate": 0.02}  # fmt: skip
    usual = {name: value for name, value in slower.items() if name != "learning_rate"}
    for row in (slower, usual, slower):
        today.keep(tmp_path / "today-y.json", SimpleNamespace(fingerprint="same"), [row])  # type: ignore[arg-type]
    assert json.loads((tmp_path / "today-y.json").read_text())["rows"] == [slower, usual]


def test_rows_of_another_generator_are_not_mixed_in(tmp_path: Path) -> None:
    """Refitted under the same name, half of the table would be the old one's."""
    file = tmp_path / "today-x.json"
    file.write_text(json.dumps({"fingerprint": "old", "rows": []}))
    with pytest.raises(ValueError, match="another generator"):
        today.keep(file, SimpleNamespace(fingerprint="new"), [])

"""The script of the photographs' table, in small."""

import json
import sys
from pathlib import Path

import pytest
import torch
from few import Part

sys.path.append(str(Path(__file__).parents[2]))  # examples/ is no part of the package

from examples.reproduce import photograph_tables, photographs, tables
from semtransforms import NoiseGenerator

GENERATOR = Path(tables.ROOT, "pretrained", "sem-plus-cifar10-small")


def test_the_published_copy_can_be_measured_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The clean training takes as long again; without noise on the copy the row would say that nothing protects."""
    train, trained = Part(20, 0, (32, 32)), []
    monkeypatch.setattr(photographs, "read", lambda name, data, each: (train, Part(10, 1, (32, 32))))
    evaluate = photographs.evaluate

    def watched(dataset, *generator, **options):
        trained.append((dataset, generator))
        return evaluate(dataset, *generator, **options)

    monkeypatch.setattr(photographs, "evaluate", watched)
    results = tmp_path / "examples" / "reproduce" / "results"
    words = ["clothing10", "--data", "none", "--sizes", "32", "--crops", "random-resized"]
    words += ["--generator", str(GENERATOR), "--work", str(tmp_path / "work"), "--results", str(results)]
    photographs.main([*words, "--train-steps", "2", "--copies", "protected"])
    ((published, generator),) = trained
    assert not generator
    labels = torch.tensor(train.table["label"])
    expected = NoiseGenerator.from_pretrained(GENERATOR).protect(train.images, labels, seed=photographs.SEED)
    assert torch.equal(torch.stack([published[index][0] for index in range(20)]), expected)
    name = f"clothing10-by-{GENERATOR.name}"
    file = results / f"photographs-{name}.json"
    (row,) = json.loads(file.read_text())["rows"]
    assert (row["copy"], row["steps"], row["trained_at"]) == ("protected", 2, 32)

    # beside trainings of other lengths the figure stays, and its share is of clean images trained on for as long
    photographs.main([*words, "--train-steps", "2", "--copies", "clean"])
    photographs.main([*words, "--train-steps", "3", "--copies", "clean"])
    record = json.loads(file.read_text())
    assert [(each["copy"], each["steps"]) for each in record["rows"]] == [("clean", 2), ("clean", 3), ("protected", 2)]
    for each, accuracy in zip(record["rows"], (0.9, 0.5, 0.3), strict=True):
        each["accuracy"] = each["peak"] = accuracy
    file.write_text(json.dumps({**record, "guess": 0.1}))
    monkeypatch.setattr(photograph_tables, "PHOTOGRAPHS", {name: "a few"})
    lines = photograph_tables.photographs(tmp_path).splitlines()[2:]
    learned = "30.0 (25 %)"  # (30 - 10) / (90 - 10)
    assert f"| convnet for 2 updates | 32 px | random resized | 90.0 | {learned} |" in lines[0]
    assert "| convnet for 3 updates | 32 px | random resized | 50.0 | – |" in lines[1]

"""The script that measures noise of both sizes, in small."""

import json
import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[2]))  # examples/ is no part of the package

from examples.reproduce import noise_size
from semtransforms import VictimConfig
from semtransforms.data.loading import Labelled


def test_each_trainer_sees_what_was_published_at_their_size(tmp_path, monkeypatch):
    """Trained on the published size instead, the noise that a resize takes would be counted as protection."""
    draw = torch.Generator().manual_seed(0)
    data, tests = (
        Labelled(torch.randint(0, 256, (20, 3, 64, 64), generator=draw).to(torch.uint8), torch.arange(20) % 10)
        for _ in range(2)
    )
    monkeypatch.setattr(noise_size, "read_data", lambda *_, **__: (data, tests))
    monkeypatch.setattr(noise_size, "NOISE_SIZES", (None,))
    victim = VictimConfig("convnet", width=2, train_steps=2, batch_size=4, evaluations=1)
    monkeypatch.setattr(noise_size, "VICTIMS", {"standard": victim})
    seen, evaluate = [], noise_size.evaluate
    monkeypatch.setattr(
        noise_size,
        "evaluate",
        lambda clean, **named: seen.append((clean[0], named["protected"][0])) or evaluate(clean, **named),
    )
    noise_size.main(
        ["sem-plus-cifar10-small", "--data", "none", "--work", str(tmp_path / "w"), "--results", str(tmp_path)]
    )
    assert [clean.shape[-1] for clean, _ in seen] == [32, 64]
    large = (seen[1][1].int() - data.images).abs()
    assert 0 < int(large.max()) <= 8
    left = (seen[0][1].int() - seen[0][0].int()).float().square().mean().sqrt()
    assert left > 3  # grey levels, after the trainer's resize
    rows = json.loads((tmp_path / "noise_size-sem-plus-cifar10-small.json").read_text())["rows"]
    assert [(row["trained_at"], row["copy"]) for row in rows] == [
        (32, "clean"), (32, "noise at 32"), (64, "clean"), (64, "noise at 32")
    ]  # fmt: skip

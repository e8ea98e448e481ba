"""The script that measures what is seen, in small."""

import json
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

sys.path.append(str(Path(__file__).parents[2]))  # examples/ is no part of the package

from examples.reproduce import seen
from semtransforms import NoiseGenerator, VictimConfig
from semtransforms.core.config import GeneratorConfig
from semtransforms.core.models import build_model


@pytest.fixture
def generator(tmp_path):
    """A network that was never fitted: its noise is real noise all the same."""
    torch.manual_seed(0)
    config = GeneratorConfig(surrogate="convnet", width=4, steps_u=6, num_samples=1, num_classes=10, image_size=(8, 8))
    made = NoiseGenerator(build_model("convnet", num_classes=10, image_size=8, width=4), config)
    return str(made.save_pretrained(tmp_path / "tiny"))


def photographs(seed):
    """Twelve of two sizes, left flat and right gravel."""
    draw = np.random.default_rng(seed)
    images = []
    for row in range(12):
        pixels = np.full((64, 96, 3) if row % 2 else (96, 64, 3), 120)
        pixels[:, 32:] += draw.integers(-100, 101, pixels[:, 32:].shape)
        images.append(Image.fromarray(pixels.astype(np.uint8)))
    return images


@pytest.fixture
def data(tmp_path):
    """Photographs in the form of clothing10."""
    names = datasets.ClassLabel(names=[str(k) for k in range(10)])
    features = datasets.Features({"image": datasets.Image(), "label": names})
    (tmp_path / "clothing10").mkdir()
    for seed, part in enumerate(("train", "test")):
        columns = {"image": photographs(seed), "label": [row % 10 for row in range(12)]}
        datasets.Dataset.from_dict(columns, features=features).to_parquet(
            str(tmp_path / "clothing10" / f"{part}.parquet")
        )
    return tmp_path


def test_each_way_is_measured_as_it_is_published(data, generator, tmp_path, monkeypatch):
    """A curve of other copies than those that were trained on would set a mask against the wrong thing."""
    monkeypatch.setattr(seen, "WAYS", (("visibility", 1.0), ("visibility", 0.0), ("rho_u", 0.5)))
    monkeypatch.setattr(seen, "BATCH", 5)
    monkeypatch.setattr(seen, "MEASURED", 3)
    victim = VictimConfig("convnet", width=2, train_steps=2, batch_size=4, evaluations=1)
    monkeypatch.setattr(seen, "VICTIM", victim)
    pairs = []

    def largest(clean, protected):
        pairs.append((clean, protected))
        return float((protected.int() - clean).abs().max())

    monkeypatch.setattr(seen, "metrics", lambda with_vdp: {"largest": largest})
    trained, evaluate = [], seen.evaluate
    monkeypatch.setattr(
        seen, "evaluate", lambda clean, **named: trained.append(named["protected"][0]) or evaluate(clean, **named)
    )
    seen.main([generator, "--data", str(data), "--train", "--work", str(tmp_path / "w"), "--results", str(tmp_path)])
    record = json.loads((tmp_path / "seen-tiny.json").read_text())
    rows = record["rows"]
    assert [(row["turned_down"], row["to"]) for row in rows] == list(seen.WAYS)
    assert rows[0]["largest"] == 8
    assert 4 < rows[1]["largest"] <= 8  # gravel
    assert rows[2]["largest"] == 4
    assert all(0 <= row["accuracy"][0] <= 1 for row in rows)
    assert all(torch.equal(pairs[k][0], pairs[k + 3][0]) for k in range(6))  # three photographs, three ways
    assert len(pairs) == 9
    assert trained[0].shape == (12, 3, 32, 32)
    flat = np.s_[:, :, :, :4]  # of both sizes, once they are shrunk and cropped
    change = [float((images[flat].int() - 120).abs().float().mean()) for images in trained]
    assert 0 < change[1] < change[2] < change[0] <= 8


def test_the_picture_shows_crops_of_the_photographs(data, generator, tmp_path, monkeypatch):
    """Shrunk or enlarged, noise looks better or worse than it is."""
    monkeypatch.setattr(seen, "PICTURED", {3: (2, 4), 0: (0, 0)})
    monkeypatch.setattr(seen, "CROP", 40)
    seen.main([generator, "--data", str(data), "--picture", str(tmp_path / "seen.png")])
    sheet = np.asarray(Image.open(tmp_path / "seen.png")).astype(int)
    step = 40 + seen.GAP
    assert sheet.shape == (4 * step - seen.GAP, 3 * step - seen.GAP, 3)
    assert sheet[:40, :40].mean() > sheet[step : step + 40, :40].mean() + 50  # sky is brighter than trees
    sheet = sheet[2 * step :]
    clean = np.asarray(photographs(0)[3]).astype(int)[2:42, 4:44]
    assert np.array_equal(sheet[:40, :40], clean)
    assert 4 < np.abs(sheet[:40, step : step + 40] - clean).max() <= 8
    masked = np.abs(sheet[:40, 2 * step : 2 * step + 40] - clean)
    assert masked[:, :16].max() == 1  # flat; the windows reach over from column 32 - 4 on


def test_flip_sees_what_was_changed():
    """Means of the wrong order or range would rank the ways wrongly."""
    pytest.importorskip("flip_evaluator", reason="measures visibility: pip install flip-evaluator")
    clean = torch.full((3, 64, 64), 128, dtype=torch.uint8)
    seeing = seen.metrics(with_vdp=False)
    stripes = (torch.arange(64) // 8 % 2 * 2 - 1).expand(3, 64, 64)
    found = [seeing["flip"](clean, (clean + each * stripes).to(torch.uint8)) for each in (0, 2, 8)]
    assert found[0] == 0
    assert found[0] < found[1] < found[2] < 1
    assert seeing["psnr"](clean, (clean + 8 * stripes).to(torch.uint8)) == pytest.approx(20 * np.log10(255 / 8))

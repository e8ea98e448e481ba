"""The short scripts of examples/: each runs as its first lines say, on data that need no download."""

import os
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from torchvision.datasets import ImageFolder

from semtransforms import SEM_PLUS, NoiseGenerator, fit_generator

EXAMPLES = Path(__file__).parents[2] / "examples"
RADIUS = 8  # grey levels: SEM_PLUS's rho_u
SIDES = ((40, 56), (48, 40), (40, 40))  # height and width: photographs have several sizes


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """An image folder of two classes: cuts of scikit-learn's two photographs, one of them with a date in its EXIF."""
    folder = tmp_path_factory.mktemp("photos")
    exif = Image.Exif()
    exif[0x0132] = "2026:01:01 00:00:00"
    for name, image in zip(("china", "flower"), load_sample_images().images, strict=True):
        (folder / name).mkdir()
        for k, (height, width) in enumerate(SIDES):
            cut = Image.fromarray(image[100 * k :][:height, 150:][:, :width])
            cut.save(folder / name / f"{k}.png", exif=exif if k == 0 else None)
    return folder


@pytest.fixture(scope="module")
def generator(photos, tmp_path_factory):
    """The folder of a generator for the two classes."""
    config = replace(
        SEM_PLUS, surrogate="convnet", width=4, image_size=(32, 32), batch_size=8, steps_u=2, train_steps=1
    )
    folder = tmp_path_factory.mktemp("generator")
    fit_generator(ImageFolder(photos), config, progress=False).save_pretrained(folder)
    return folder


def run(monkeypatch, script, *arguments):
    """Run a script in this process as `python examples/SCRIPT ARGUMENTS` would; returns its variables."""
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    return runpy.run_path(str(EXAMPLES / script), run_name="__main__")


def pixels(image):
    return np.asarray(image.convert("RGB")).astype(int)


def differs_within_the_radius(clean, protected):
    """Whether the noise is there, and nowhere larger than the radius."""
    return 0 < np.abs(pixels(protected) - pixels(clean)).max() <= RADIUS


@pytest.mark.parametrize("script", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_a_script_is_read_at_a_glance(script):
    """A newcomer copies one of these; a long one is a program to be understood first."""
    assert len((EXAMPLES / script).read_text(encoding="utf-8").splitlines()) <= 30


def test_protect_folder(monkeypatch, tmp_path, photos, generator):
    """What is published would be the clean images, JPEGs, fewer of them, or would carry the camera's metadata."""
    run(monkeypatch, "protect_folder.py", photos, tmp_path / "published", tmp_path / "private", generator)
    written = sorted(path for path in (tmp_path / "published").rglob("*") if path.is_file())
    originals = sorted(path for path in photos.rglob("*") if path.is_file())
    assert [path.relative_to(tmp_path / "published").with_suffix("") for path in written] == [
        path.relative_to(photos) for path in originals
    ]
    for original, path in zip(originals, written, strict=True):
        with Image.open(original) as clean, Image.open(path) as protected:
            assert protected.format == "PNG"
            assert not protected.getexif()
            assert differs_within_the_radius(clean, protected)
    assert ImageFolder(tmp_path / "published").targets == ImageFolder(photos).targets


def test_two_protections_have_two_seeds(monkeypatch, tmp_path, photos, generator):
    """A seed that stands in the script is known to every trainer who reads it."""
    for turn in ("a", "b"):
        run(monkeypatch, "protect_folder.py", photos, tmp_path / turn, tmp_path / f"private-{turn}", generator)
    one, other = ((tmp_path / turn / "china" / "0.png.png").read_bytes() for turn in ("a", "b"))
    assert one != other


def test_wrap_dataset(monkeypatch, tmp_path):
    """A DataLoader would get the clean digits, or other labels than theirs."""
    found = run(monkeypatch, "wrap_dataset.py", tmp_path)
    digits, protected = load_digits(), found["protected"]
    assert found["seen"] == len(protected) == len(digits.target)
    for index in range(0, len(protected), 100):
        image, label = protected[index]
        scan = Image.fromarray((digits.images[index] * 255 / 16).astype("uint8"))
        clean = np.asarray(scan.resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
        assert label == digits.target[index]
        change = np.abs(image.numpy().astype(int) - clean)
        assert 0 < change.max() <= 16 + 1  # PIL and torchvision round a resized pixel differently by a level
        assert change.mean() > 4


def test_own_generator(monkeypatch, tmp_path, photos):
    """The saved generator would be another than the one that protected, or one of the preset's classes or size."""
    found = run(monkeypatch, "own_generator.py", photos, tmp_path, 1)
    saved = NoiseGenerator.from_pretrained(tmp_path / "generator")
    assert (saved.config.method, saved.num_classes, saved.config.train_steps) == ("sem-plus", 2, 1)
    clean = ImageFolder(photos)
    assert len(found["protected"]) == len(clean) == 2 * len(SIDES)
    for (before, label), (after, kept) in zip(clean, found["protected"], strict=True):
        assert before.size == after.size
        assert label == kept
        assert differs_within_the_radius(before, after)


@pytest.mark.processes
def test_huggingface_map(tmp_path, photos, generator):
    """`datasets` would keep the path of the clean file, encode the image as JPEG, or hang in a forked process."""
    import datasets

    environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(EXAMPLES / "huggingface_map.py"), str(photos), str(tmp_path / "out"), str(generator)]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True)
    rows, clean = datasets.load_from_disk(str(tmp_path / "out")), ImageFolder(photos)
    assert rows["label"] == clean.targets
    for row, (before, _) in zip(rows, clean, strict=True):
        assert row["image"].format == "PNG"
        assert differs_within_the_radius(before, row["image"])

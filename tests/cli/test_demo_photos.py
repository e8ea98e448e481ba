"""``semtransforms demo --photos``: the photographs that come along, and the journey with them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from owner import quicken
from PIL import Image
from typer.testing import CliRunner

from semtransforms.cli import app, clothing
from semtransforms.protect.figures import GAP, PANEL, TEXT

MOST_BYTES = 2 << 20


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five of the photographs of each class, a fit of a second, and a folder for what comes of them."""
    quicken(monkeypatch.setattr)
    for folder in clothing.PHOTOGRAPHS.iterdir():
        (tmp_path / "photos" / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:5]:
            shutil.copy(file, tmp_path / "photos" / folder.name)
    monkeypatch.setattr(clothing, "PHOTOGRAPHS", tmp_path / "photos")
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def demo(out: Path, *options: str):
    result = CliRunner().invoke(app, ["demo", "--photos", "--device", "cpu", "--out", str(out), *options])
    assert result.exit_code == 0, result.output
    return result


def test_the_photographs_come_with_their_source_and_licence():
    """Photographs that do not decode end the demo; without their licence nobody may pass the package on."""
    files = [file for file in clothing.PHOTOGRAPHS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= MOST_BYTES
    counts = {folder.name: len(list(folder.iterdir())) for folder in clothing.PHOTOGRAPHS.iterdir()}
    assert set(counts.values()) == {50}
    assert sum(counts.values()) == len(files)
    for file in files:
        with Image.open(file) as image:
            image.load()
            assert (image.format, image.mode, min(image.size)) == ("JPEG", "RGB", 120)
            assert "exif" not in image.info  # where and by whom a photograph was taken
    text = (clothing.PHOTOGRAPHS.parent / "README.md").read_text(encoding="utf-8")
    assert "https://github.com/alexeygrigorev/clothing-dataset-small" in text
    assert "https://creativecommons.org/publicdomain/zero/1.0/" in text
    assert text.startswith(f"# {len(files)} photographs")


def test_the_demo_is_an_owners_journey(few: Path, monkeypatch: pytest.MonkeyPatch):
    """The command that shows a newcomer what happens to photographs: files to publish, a verdict, a picture."""
    report = json.loads(demo(few, "--json").stdout)
    published = few / "semtransforms-demo-photos" / "published"
    originals = sorted(clothing.PHOTOGRAPHS.rglob("*.jpg"))
    assert report["photographs"] == len(originals) == 20
    assert report["classes"] == sorted({file.parent.name for file in originals})
    largest = 0
    for file in originals:
        copy = published / file.parent.name / f"{file.stem}.png"
        difference = np.asarray(Image.open(copy), np.int16) - np.asarray(Image.open(file), np.int16)
        largest = max(largest, int(np.abs(difference).max()))
    assert report["largest_difference"] == largest <= 8
    assert len(report["verdict"]) == 2
    assert Path(report["report"]).is_file()

    said = demo(few).stdout  # again: it goes on, and here that is to the end
    for line in report["verdict"]:
        assert line in said
    assert str(few / "semtransforms-demo-photos" / "picture.png") in said
    assert "private" in said


def test_the_picture_shows_what_was_published(few: Path):
    """A picture of other noise than the files hold, or of photographs that have none, shows nothing."""
    done, picture = clothing.run_photographs_demo(few, device="cpu", progress=False)
    first = sorted((clothing.PHOTOGRAPHS / done.found.classes[0]).iterdir())[0]
    clean = np.asarray(Image.open(first), np.int16)
    copy = np.asarray(Image.open(few / "published" / done.found.classes[0] / f"{first.stem}.png"), np.int16)
    assert max(clean.shape) == PANEL  # so that it is drawn pixel by pixel
    drawn = np.asarray(Image.open(picture), np.int16)
    (height, width), top, pitch = clean.shape[:2], TEXT + 2 * GAP, PANEL + GAP
    for column, expected in enumerate((clean, np.clip(128 + 16 * (copy - clean), 0, 255), copy)):
        left = drawn.shape[1] - (3 - column) * pitch + (PANEL - width) // 2
        assert np.array_equal(drawn[top : top + height, left : left + width], expected)

"""Looking at a folder: what is found, what is left out, what is too little."""

from pathlib import Path

import pytest
from owner import write_photographs
from PIL import Image

from semtransforms.data.sources import open_source
from semtransforms.photographs.look import check_enough, look


def test_everything_in_the_folder_is_accounted_for(tmp_path: Path):
    """A photograph left out without a word is published nowhere, or worse: the owner thinks it is protected."""
    root = write_photographs(tmp_path / ".mine" / "photos", each=3, sizes=((40, 30), (30, 50), (60, 20)))
    Image.new("RGB", (9, 7)).save(root / "cat" / "small.png")
    (root / "cat" / "empty.jpg").touch()
    (root / "cat" / "text.jpg").write_text("no photograph")
    (root / "dog" / "notes.txt").write_text("mine")
    (root / ".hidden").write_text("of the system")
    Image.new("RGB", (40, 40)).save(root / "stray.png")
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(root / "dog" / "film.gif", save_all=True, append_images=frames[1:])

    found = look(open_source(str(root)), smallest=8)
    assert found.counts == [3, 3]
    assert found.formats == {"JPEG": 6}
    assert found.pixels == 2 * (40 * 30 + 30 * 50 + 60 * 20)
    assert [Path(line.split(" (")[0]).name for line in found.skipped] == [
        "empty.jpg", "small.png", "text.jpg", "film.gif",
    ]  # fmt: skip
    text = "\n".join(found.describe())
    for word in ("6 photographs", "2 classes", "3 a class", "40x30 to 30x50", "stray.png", "film.gif", ".txt 1", "9x7"):
        assert word in text
    assert "hidden files, 1 in all" in text
    assert ".hidden" in text
    before = found.digest
    assert look(found.source, smallest=8).digest == before

    (root / "cat" / "0.jpg").write_bytes((root / "cat" / "1.jpg").read_bytes())
    assert look(found.source, smallest=8).digest != before


def test_nothing_to_protect_says_why(tmp_path: Path):
    """A folder of videos named .jpg must not become an empty copy."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_text("no photograph")
    with pytest.raises(ValueError, match=r"no photograph to learn from.*cat.*no image of a known format"):
        look(open_source(str(tmp_path)), smallest=8)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("cat/1", "cat/2"), "one class, 'cat'"),
        (("cat/1", "cat/2", "dog/1"), r"1 of the 2 classes.*\(dog\)"),
    ],
)
def test_too_little_is_refused(tmp_path: Path, files, words):
    """Twenty minutes of fitting cannot make two classes out of one, nor test what a single photograph teaches."""
    for file in files:
        path = tmp_path / f"{file}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 20)).save(path)
    with pytest.raises(ValueError, match=words):
        check_enough(look(open_source(str(tmp_path)), smallest=8))


def test_few_photographs_are_warned_of(tmp_path: Path):
    """Whoever has two of a kind must not take the figures for sixty of a kind for theirs."""
    with pytest.warns(UserWarning, match=r"2 photographs.*not measured"):
        check_enough(look(open_source(str(write_photographs(tmp_path, each=2))), smallest=8))

"""Folders without class folders: labels in metadata.csv, or one label for all."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semtransforms.data.metadata import read_metadata, sorted_names
from semtransforms.data.sources import open_source, open_with_one_label


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five images, two of them in a sub-folder, with a table that lists them in no order."""
    root = tmp_path / "photos"
    (root / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png", "c.jpg", "more/a.png", "more/d.png"):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(root / name)
    rows = ["c.jpg,tabby cat,3", '"more/a.png",dog,1', "a.png,dog,2", "b.png,tabby cat,5", "more/d.png,dog,4"]
    (root / "metadata.csv").write_text("\n".join(["\ufefffile_name,label,day", *rows]) + "\n", encoding="utf-8")
    return root


def test_labels_are_those_that_datasets_reads(photos: Path, tmp_path: Path):
    """The form is that of `datasets`; read otherwise, photographs would get noise for another class than they have."""
    import datasets

    (photos / "metadata.csv").write_text((photos / "metadata.csv").read_text(encoding="utf-8-sig"), encoding="utf-8")
    table = datasets.load_dataset("imagefolder", data_dir=str(photos), cache_dir=str(tmp_path / "cache"), split="train")
    expected = {np.asarray(row["image"].convert("RGB")).tobytes(): row["label"] for row in table}
    source = open_source(str(photos))
    assert source.classes == ("dog", "tabby cat")
    assert len(source) == len(expected) == 5
    for pixels, label in source:
        assert source.classes[label] == expected[pixels.permute(1, 2, 0).numpy().tobytes()]


def test_copies_go_to_class_folders(photos: Path):
    """Published in one folder without the table, the copies would have lost their labels."""
    source = open_source(str(photos))
    assert source.folders == ("dog", "tabby cat")
    names = dict(
        zip([Path(place).relative_to(photos).as_posix() for place, _ in source.samples], source.names, strict=True)
    )
    assert names == {
        "a.png": "dog/a", "b.png": "tabby cat/b", "c.jpg": "tabby cat/c", "more/a.png": "dog/more/a",
        "more/d.png": "dog/more/d",
    }  # fmt: skip


def test_numbers_are_in_order():
    """Sorted as text, class 10 comes before class 2, and a generator fitted for numbers makes noise for another one."""
    assert sorted_names(["10", "2", "1", "2"]) == ("1", "2", "10")
    assert sorted_names(["b", "10", "2"]) == ("10", "2", "b")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,label\na.png,dog\n", "'file_name'"),
        ("file_name,kind,day\na.png,dog,1\n", "--label-column, one of: kind, day"),
        ("file_name,label\na.png,dog\n,dog\n", "line 3: file_name is empty"),
        ("file_name,label\na.png\n", "line 2: label is empty"),
        ("file_name,label\nz.png,dog\n", "line 2.*'z.png'"),
        ("file_name,label\n../photos/a.png,dog\n", "line 2.*no file"),
        ("file_name,label\na.png,dog\na.png,cat\n", "line 3.*twice"),
        ("file_name,label\na.png,dog\n", "no row for 4 images"),
        ("", "'file_name'"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(photos: Path, text: str, words: str):
    """A photograph without a label is published unprotected, one with two gets the wrong noise half of the time."""
    (photos / "metadata.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        open_source(str(photos))


def test_tables_from_a_spreadsheet(photos: Path):
    """What a spreadsheet saves: another encoding is refused with a word of it, another name of the column found."""
    path = photos / "metadata.csv"
    path.write_bytes("file_name,label\na.png,Bär\n".encode("latin-1"))
    with pytest.raises(ValueError, match="UTF-8"):
        read_metadata(photos)
    path.write_text("file_name,kind\r\na.png, dog \r\n", encoding="utf-8")
    assert read_metadata(photos) == {"a.png": "dog"}
    path.write_text("file_name,label,kind\na.png,1,dog\n", encoding="utf-8")
    assert read_metadata(photos, "kind") == {"a.png": "dog"}


def test_a_folder_without_labels_says_how_to_give_them(photos: Path):
    """Most owners' folders are flat; 'no class sub-folders' alone leaves them there."""
    (photos / "metadata.csv").unlink()
    for path in sorted((photos / "more").iterdir()):
        path.unlink()
    (photos / "more").rmdir()
    with pytest.raises(ValueError, match=r"sub-folder per class.*metadata.csv.*--label CLASS"):
        open_source(str(photos))


def test_one_label_for_all(photos: Path, tmp_path: Path):
    """All of them get the noise of that class, and their copies keep their places."""
    (photos / "metadata.csv").unlink()
    source = open_with_one_label(photos, 1, ("cat", "dog"))
    assert source.labels.tolist() == [1] * 5
    assert source.names == ["a", "b", "c", "more/a", "more/d"]
    for place in (tmp_path / "nowhere", tmp_path):
        if place == tmp_path:
            place = tmp_path / "empty"
            place.mkdir()
        with pytest.raises(ValueError, match="must be a folder of images"):
            open_with_one_label(place, 0, None)


def test_parts_that_hold_their_own_labels_are_no_classes(tmp_path: Path):
    """The layout that datasets documents: train and test would be the two classes, and cats and dogs one."""
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        for k in range(2):
            Image.new("RGB", (8, 8), (60 * k, 0, 0)).save(tmp_path / part / f"{k}.png")
        (tmp_path / part / "metadata.csv").write_text("file_name,label\n0.png,cat\n1.png,dog\n")
    with pytest.raises(ValueError, match=r"holds parts \(test, train\).*train'"):
        open_source(str(tmp_path))
    assert open_source(str(tmp_path / "train")).classes == ("cat", "dog")

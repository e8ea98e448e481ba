"""Photographs that are kept shrunk, and published files matched with their originals."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semtransforms.data.matching import in_order_of, pairs_without_damaged, without_damaged
from semtransforms.data.photographs import LONGEST, load_photographs, shrunk
from semtransforms.data.sources import open_source


def pixels(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def as_tensor(array):
    return torch.from_numpy(array).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("shape", "kept"),
    [
        ((90, 120), (24, 32)),
        ((120, 90), (32, 24)),
        ((10, 20), (10, 20)),
        ((24, 500), (24, 24 * LONGEST)),
        ((1, 9), (1, LONGEST)),
    ],
)
def test_a_photograph_is_kept_with_its_shape(shape, kept):
    """A square would leave out what a trainer crops; the original would fill the memory."""
    image = as_tensor(pixels(*shape))
    small = shrunk(image, 24)
    assert tuple(small.shape) == (3, *kept)
    assert small.untyped_storage().nbytes() == 3 * kept[0] * kept[1]
    if shape == (90, 120):
        expected = np.asarray(Image.fromarray(pixels(*shape)).resize((32, 24), Image.Resampling.BILINEAR))
        assert np.abs(small.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1


def test_the_same_photographs_are_known_however_much_is_kept():
    """Another size of a trainer would be a report on other data, and hours of runs would not be found again."""
    data = [(Image.fromarray(pixels(30 + k, 40, k)), k % 2) for k in range(4)]
    one, other = load_photographs(data, 8), load_photographs(data, 100)
    assert one.sha256() == other.sha256()
    assert one.are_shrunk
    assert not other.are_shrunk
    changed = [(Image.fromarray(pixels(30, 40, 9)), 0), *data[1:]]
    swapped = [data[0], data[1], data[3], data[2]]
    assert len({load_photographs(each, 8).sha256() for each in (data, changed, swapped)}) == 3
    assert one.sizes.tolist() == [[30, 40], [31, 40], [32, 40], [33, 40]]


def write(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(4, 4, number)).save(root / name)
    return root


def test_published_files_are_found_by_their_names(tmp_path: Path):
    """``a.jpg`` beside ``a-1.jpg``, ``b`` twice: by order alone a copy may be compared with another original."""
    source = open_source(str(write(tmp_path / "photos", "x/a.png", "x/a-1.png", "y/b.png", "y/b.jpg")))
    # what publishing as JPEG calls them: the second b has its suffix in its name
    copy = open_source(str(write(tmp_path / "published", "x/a-1.jpg", "x/a.jpg", "y/b.jpg", "y/b.png.jpg")))
    found = in_order_of(source, copy)
    names = [Path(place).relative_to(tmp_path / "published").as_posix() for place, _ in found.samples]
    assert names == [f"{name}.jpg" for name in source.names]
    for index, name in enumerate(names):
        with Image.open(tmp_path / "published" / name) as file:
            assert torch.equal(found[index][0], as_tensor(np.array(file.convert("RGB"))))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("x/a.jpg", "x/a.png", "y/b.jpg"), ("a.jpg", "a.png", "'x/a'")),
        (("x/a.jpg", "y/c.jpg"), ("no copy", "'y/b'")),
        (("x/a.jpg", "y/b.jpg", "y/c.jpg"), ("does not hold", "'y/c'")),
    ],
)
def test_a_published_folder_that_does_not_fit_is_refused(files, words, tmp_path: Path):
    """Guessing which of two files was published would judge the wrong one."""
    source = open_source(str(write(tmp_path / "photos", "x/a.png", "y/b.png")))
    with pytest.raises(ValueError, match="--protected") as caught:
        in_order_of(source, open_source(str(write(tmp_path / "published", *files))))
    assert all(word in str(caught.value) for word in words)


def test_files_with_other_names_keep_their_order(tmp_path: Path):
    """Another tool numbers its copies: they were judged by their order, and still are."""
    source = open_source(str(write(tmp_path / "photos", "x/a.png", "y/b.png")))
    copy = open_source(str(write(tmp_path / "published", "x/1.png", "y/2.png")))
    assert in_order_of(source, copy) is copy


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_damaged_originals_and_copies_leave_in_pairs(tmp_path: Path):
    """One cut file of a thousand ended the evaluation; left out on one side only, all others would be mismatched."""
    names = ("x/a.png", "x/b.png", "x/c.png", "x/d.png", "y/e.png", "y/f.png", "y/g.png")
    source = open_source(str(write(tmp_path / "photos", *names)))
    # of x/a, cut before it was protected, there is no copy; x/c was cut later
    published = open_source(str(write(tmp_path / "published", *(n.replace("png", "bmp") for n in names[1:]))))
    halve(tmp_path / "photos" / "x" / "a.png")
    halve(tmp_path / "photos" / "x" / "c.png")
    (tmp_path / "published" / "y" / "e.bmp").write_bytes(b"")
    originals, copies = pairs_without_damaged(source, published)
    kept = ["x/b", "x/d", "y/f", "y/g"]
    for found, root in ((originals, tmp_path / "photos"), (copies, tmp_path / "published")):
        places = [Path(place).relative_to(root).with_suffix("").as_posix() for place, _ in found.samples]
        assert places == kept
        assert found.labels.tolist() == [0, 0, 1, 1]
        for index, (place, _) in enumerate(found.samples):
            with Image.open(place) as file:
                assert torch.equal(found[index][0], as_tensor(np.array(file.convert("RGB"))))
    said = ("photos/x/a.png", "photos/x/c.png", "y/e.bmp (the file is empty")
    assert all(words in line for words, line in zip(said, originals.left_out, strict=True))
    halve(tmp_path / "photos" / "y" / "f.png")
    with pytest.raises(ValueError, match="4 of 7 images do not decode, more than half"):
        pairs_without_damaged(source, published)


@pytest.mark.parametrize("protected_before", [True, False])
def test_pairs_by_order_leave_together(protected_before, tmp_path: Path):
    """Copies under other names are matched by their order, which an image that is gone on one side shifts."""
    source = open_source(str(write(tmp_path / "photos", "x/a.png", "x/b.png", "y/c.png")))
    numbers = ("x/1.png", "x/2.png", "y/3.png") if protected_before else ("x/2.png", "y/3.png")
    published = open_source(str(write(tmp_path / "published", *numbers)))
    halve(tmp_path / "photos" / "x" / "a.png")
    originals, copies = pairs_without_damaged(source, published)
    assert [Path(place).name for place, _ in originals.samples] == ["b.png", "c.png"]
    assert [Path(place).name for place, _ in copies.samples] == ["2.png", "3.png"]


def test_whole_files_stay_as_they_are(tmp_path: Path):
    """A check that loses sound photographs would judge a copy by what it happens to know."""
    source = open_source(str(write(tmp_path / "photos", "x/a.jpg", "x/b.png", "y/c.webp", "y/d.tif", "y/e.gif")))
    assert without_damaged("SOURCE", source) is source

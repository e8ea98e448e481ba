"""Which files of a folder are read, and in which order copies come."""

import os
import random
from pathlib import Path

import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from semtransforms.data import listing
from semtransforms.data.listing import files_below
from semtransforms.data.naming import COPY_SUFFIXES, unique_names
from semtransforms.data.sources import open_source
from semtransforms.protect.formats import FORMATS


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)
    return path


@pytest.mark.parametrize(
    "names",
    [
        ["photo.jpg", "photo.large.jpg"],
        ["photo.jpg", "photo.zebra.jpg"],
        ["photo.jpg", "photo.png", "photo.large.png"],
        ["a.jpg", "a.jpg-2.jpg", "a.jpg.jpg", "a.b.jpg"],
        ["a b.png", "a.png", "a-b.png", "a_b.png", "a0.png"],
        ["1.jpg", "10.jpg", "1-1.jpg", "1.1.jpg"],
        ["x" * 251 + ".jpg", "x" * 250 + ".jpg"],
        ["é" * 125 + ".png", "é" * 124 + ".png"],
        ["x" * 247 + ".z.jpg", "x" * 247 + ".jpg", "x" * 246 + ".p.jpg"],
    ],
)
@pytest.mark.parametrize("suffix", COPY_SUFFIXES)
def test_copies_sort_as_their_files(names, suffix, tmp_path: Path):
    """Who pairs both row by row, as a trainer's ``evaluate`` does, compares a photograph with another one."""
    for name in names:
        picture(tmp_path / "source" / "cat" / name)
    source = [Path(path).name for path, _ in ImageFolder(tmp_path / "source").samples]
    copies = dict(zip(names, unique_names(f"cat/{name}" for name in names), strict=True))
    for copy in copies.values():
        picture(tmp_path / "copy" / f"{copy}{suffix}")
    by_copy = {Path(copy).name + suffix: name for name, copy in copies.items()}
    assert [by_copy[Path(path).name] for path, _ in ImageFolder(tmp_path / "copy").samples] == source


def test_random_names_keep_their_order():
    """Of the kinds of names that people give, one was not thought of."""
    draw = random.Random(0)
    for _ in range(300):
        stems = {"".join(draw.choices("aAb.-_ 0~", k=draw.randint(1, 4))) for _ in range(8)}
        names = sorted(stem + draw.choice([".jpg", ".PNG", ".tif"]) for stem in stems if not stem.startswith("."))
        for suffix in COPY_SUFFIXES:
            copies = [f"{name}{suffix}" for name in unique_names(f"c/{name}" for name in names)]
            assert copies == sorted(copies)
            assert len({copy.lower() for copy in copies}) == len(names)


def test_every_format_keeps_the_order():
    """A new format's suffix sorts elsewhere, and copies come in another order than their originals."""
    assert {kind.suffix for kind in FORMATS.values() if kind.published} == set(COPY_SUFFIXES)


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """Class folders of which one is a link, and one holds a linked folder, a linked file and a hidden folder."""
    picture(tmp_path / "elsewhere" / "dog" / "1.png")
    picture(tmp_path / "elsewhere" / "more" / "3.png")
    root = tmp_path / "photos"
    for name in ("cat/2.png", "cat/b/1.png", "cat/b.png", "cat/.Trash-1000/9.png", "cat/.4.png", "eel/0.png"):
        picture(root / name)
    (root / "dog").symlink_to(tmp_path / "elsewhere" / "dog")
    (root / "cat" / "a").symlink_to(tmp_path / "elsewhere" / "more")
    (root / "cat" / "5.png").symlink_to(tmp_path / "elsewhere" / "more" / "3.png")
    return root


def test_linked_folders_are_followed_as_by_imagefolder(linked: Path):
    """Photographs behind a link are left out, and the run says that all went well."""
    source = open_source(str(linked))
    expected = [path for path, _ in ImageFolder(linked).samples if "/." not in path]
    assert [str(source.folder / file) for file in source.files] == expected
    assert len(expected) == 7


def test_a_link_that_leads_nowhere_is_named(linked: Path):
    """A photograph on a disk that is not mounted is left out without a word."""
    (linked / "eel" / "1.jpg").symlink_to(linked / "gone.jpg")
    (linked / "eel" / "2.jpg").symlink_to("2.jpg")  # nor one that leads to itself, which no stat follows
    (linked / "eel" / "self").symlink_to("self")
    source = open_source(str(linked))
    assert {"eel/1.jpg", "eel/2.jpg"} <= set(source.files)
    assert source.other_files == (str(linked / "eel" / "self"),)


def test_a_link_in_a_circle_is_refused(linked: Path):
    """The run goes round until names are too long, with each photograph forty times."""
    (linked / "cat" / "b" / "up").symlink_to(linked / "cat")
    with pytest.raises(ValueError, match=r"cat/b/up.*link to a folder that holds it"):
        open_source(str(linked))


def test_a_folder_that_cannot_be_read_is_refused(linked: Path, monkeypatch: pytest.MonkeyPatch):
    """Its photographs are left out with exit 0. (The tests may run as root, whom no permission stops.)"""
    scan = os.scandir

    def denied(path):
        if os.fspath(path).endswith("cat/b"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(OSError, match=r"cat/b.*cannot be read .Permission denied"):
        files_below(linked / "cat", linked)
    assert listing.files_below(linked / "eel", linked)[0] == ["eel/0.png"]


def test_what_is_no_file_is_not_waited_for(tmp_path: Path):
    """A named pipe called .jpg: reading it would wait for ever."""
    picture(tmp_path / "cat" / "1.png")
    os.mkfifo(tmp_path / "cat" / "2.png")
    images, others, _ = files_below(tmp_path, tmp_path)
    assert images == ["cat/1.png"]
    assert others == ["cat/2.png"]

"""WebDataset's tars as a source and as what is published; the library itself writes and reads beside us."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from killing import run_killed
from PIL import Image
from test_publish import read, run, tree, write_pictures

from semtransforms.data.sources import open_source
from semtransforms.protect import packing
from semtransforms.protect.verify import verify


def write_tars(root: Path, photos: Path, **more: bytes) -> Path:
    """The pictures of an image folder in tars of four, as WebDataset's own writer makes them."""
    root.mkdir()
    files = sorted(file for file in photos.rglob("*") if file.is_file())
    for number in range(0, len(files), 4):
        with webdataset.TarWriter(str(root / f"part-{number // 4}.tar")) as writer:
            for file in files[number : number + 4]:
                label = 0 if file.parent.name == "cat" else 1
                writer.write({"__key__": f"{file.parent.name}.v1/{file.stem}",
                              file.suffix[1:]: file.read_bytes(), "cls": label, **more})  # fmt: skip
    return root


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def write_tar(path: Path, **files: bytes) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            add(tar, name, data)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten PNG files of three sizes in two classes."""
    return write_pictures(tmp_path / "photos", 10, 6, (8, 12, 9))


@pytest.fixture
def picture() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_tars_of_webdataset_are_read_as_the_images_in_them(photos: Path, tmp_path: Path):
    """An image under another's label is noise of the wrong class; one that is left out goes out as it is."""
    tars = write_tars(tmp_path / "tars", photos, json=b"{}")
    folder = open_source(str(photos))
    for spec in (tars, tars / "part-*.tar"):
        source = open_source(str(spec))
        assert source.labels.tolist() == folder.labels.tolist()
        assert source.other_columns == ("json",)
        assert all(torch.equal(source[row][0], folder[row][0]) for row in range(10))
        assert source.place(5) == f"cat.v1/5 in {tars / 'part-1.tar'}"
    assert open_source(str(tars / "part-2.tar")).labels.tolist() == [1, 1]
    (tars / "more").mkdir()  # an image folder, in which somebody left a tar
    with pytest.raises(ValueError, match="holds no images"):
        open_source(str(tars))


def test_tars_that_are_written_are_read_by_webdataset(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Trainers would pair images with others' labels; a header's owner or time would tell who made them, and when."""
    monkeypatch.setattr(packing, "IN_A_TAR", 4)
    (photos / "dog" / "9.png").write_bytes(b"<html>")
    run(photos, tmp_path / "files", seed=5)
    outcome = run(photos, tmp_path / "out", seed=5, format="tars")
    assert (outcome.written, len(outcome.failed)) == (9, 1)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["000000.tar", "000001.tar", "000002.tar", "protection.json"]
    urls = [str(tmp_path / "out" / name) for name in names[:3]]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    wanted = sorted((tmp_path / "files").rglob("*.png"))
    assert len(samples) == len(wanted) == 9
    for sample, file in zip(samples, wanted, strict=True):
        np.testing.assert_array_equal(sample["png"], read(file))
        assert sample["cls"] == ("cat", "dog").index(file.parent.name)
        assert int(sample["__key__"]) == int(file.stem)
    for url in urls:
        with tarfile.open(url) as tar:
            assert {(each.mtime, each.uid, each.uname, each.mode) for each in tar} == {(0, 0, "", 0o644)}
    record = json.loads((tmp_path / "out" / "protection.json").read_text())
    sums = {name: hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() for name in names[:3]}
    assert record["files"] == sums
    assert all(finding.holds for finding in verify(tmp_path / "out", open_source(str(photos))))
    with pytest.raises(ValueError, match="protected already"):
        run(tmp_path / "out", tmp_path / "again")
    with pytest.raises(ValueError, match="protected already"):
        run(urls[0], tmp_path / "again")


def test_a_kill_while_tars_are_packed_costs_nothing(photos: Path, tmp_path: Path):
    """Half a tar would be published, or OUT refused for ever."""
    code = f"""
from pathlib import Path
import os, signal
from semtransforms.protect import packing
import test_publish
packing.IN_A_TAR, add, added = 4, packing._add, []

def adding(*arguments):
    added.append(add(*arguments))
    if len(added) == 11:
        os.kill(os.getpid(), signal.SIGKILL)

packing._add = adding
test_publish.run(Path({str(photos)!r}), Path({str(tmp_path / "out")!r}), seed=5, format="tars")
"""
    run_killed(code, __file__)
    assert not (tmp_path / "out").exists()
    outcome = run(photos, tmp_path / "out", seed=5, format="tars")
    assert (outcome.written, outcome.found) == (0, 10)
    run(photos, tmp_path / "whole", seed=5, format="tars")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert not list(tmp_path.glob("*.unfinished"))


def test_a_damaged_image_in_a_tar_is_listed_and_the_others_are_made(tmp_path: Path, picture: bytes):
    """One in four million would end a week's work, or be missing without a word."""
    files = {"a.png": picture, "a.cls": b"0", "b.png": picture[:99], "b.cls": b"1", "c.cls": b"1\n", "c.jpg": picture}
    source = write_tar(tmp_path / "some.tar", **files)
    outcome = run(source, tmp_path / "out")
    assert outcome.written == 2
    assert len(outcome.failed) == 1
    assert outcome.failed[0].startswith(f"b in {source} (")


def test_tars_that_cannot_be_relied_on_are_refused(tmp_path: Path, picture: bytes):
    """Python's tarfile ends at the first header that is none, without a word: what is behind it would be missing."""
    tar = write_tar(tmp_path / "some.tar", **{"a.png": picture, "a.cls": b"0", "b.png": picture, "b.cls": b"1"})
    whole = tar.read_bytes()
    assert len(open_source(str(tar))) == 2
    with tarfile.open(tar) as opened:
        start = opened.getmember("b.png").offset
    second = write_tar(tmp_path / "second.tar", **{"c.png": picture, "c.cls": b"0"}).read_bytes()
    for damaged in (
        whole[:start] + b"x" * 512 + whole[start + 512 :],
        whole[: start + 600],
        whole[: start + 100],
        whole[:start],  # between two files
        whole + second,  # as `cat` joins them, of which readers give the first alone
    ):
        tar.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"some\.tar is damaged"):
            open_source(str(tar))
    with tarfile.open(tar, "w:gz") as packed:
        add(packed, "a.png", picture)
    with pytest.raises(ValueError, match=r"Unpack it if it is compressed"):
        open_source(str(tar))
    for files, words in (
        ({"a.png": picture}, ("a in", "no number", "*.cls", "--label-column")),
        ({"a.png": picture, "a.cls": b"cat"}, ("a in", "no number", "*.cls")),
        ({"a.cls": b"0"}, ("a in", "a label and no image", "--image-column")),
        ({"a.in.png": picture, "a.out.png": picture, "a.cls": b"0"}, ("several images (in.png, out.png)",)),
        ({"notes.txt": b"0"}, ("holds no images",)),
        ({"a.png": picture, "a.cls": b"99999999"}, ("99,999,999",)),
    ):
        write_tar(tar, **files)
        with pytest.raises(ValueError, match=r"SOURCE|label") as caught:
            open_source(str(tar))
        assert all(word in str(caught.value) for word in words), caught.value
    write_tar(tar, **{"a.in.png": picture, "a.out.png": picture, "a.cls": b"0", "a.kind": b"3"})
    source = open_source(str(tar), image_column="out.png", label_column="kind")
    assert (source.labels.tolist(), source.other_columns) == ([3], ("cls", "in.png"))
    with pytest.raises(ValueError, match=r"--split 'test' was given.*is made of tars"):
        open_source(str(tar), split="test")
    tar.write_bytes(b"")
    with pytest.raises(OSError, match="shorter than it was"):
        source.read(0)

"""What visitors bring: abuse by name, by size and by archive, and where photographs end up."""

import io
import stat
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from semtransforms.app import bringing, texts
from semtransforms.app.bringing import class_name, safe_place, sort_in, take_in

ROOM = 10_000_000


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, "PNG")
    return buffer.getvalue()


def arrive(tmp_path: Path, name: str, data: bytes, room: int = ROOM) -> list[str]:
    file = tmp_path / "arriving-1"
    file.write_bytes(data)
    try:
        return take_in(file, name, tmp_path / "inside" / "batch", room)
    finally:
        assert not file.exists()


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def packed(members: dict[str, bytes], **changes: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            for field, value in changes.items():
                setattr(entry, field, value)
            archive.writestr(entry, data)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "a/../../b.png", "C:\\a.png", "..\\a.png", "", "a\0.png",
                                  "a\n.png", "x" * 300 + ".png", "a/./b.png"])  # fmt: skip
def test_names_that_lead_elsewhere_are_refused(tmp_path, name):
    """One of them would write over a file of the machine's owner."""
    with pytest.raises(ValueError, match="Left out"):
        arrive(tmp_path, name, png())
    assert tree(tmp_path) == set()


@pytest.mark.parametrize("name", ['it\'s "my" 🐈.png', "cat/ä&<b>.PNG", "photos/cat/1.png"])
def test_odd_names_are_kept(tmp_path, name):
    """Quotes and emoji are what people name photographs with."""
    assert arrive(tmp_path, name, png()) == []
    assert tree(tmp_path / "inside" / "batch") == {name}
    assert str(safe_place(name)) == name


def test_an_archive_stays_where_it_is_unpacked(tmp_path):
    """Zip slip: names with ../, absolute ones and links lead out of the folder; the rest of the archive is taken."""
    data = packed({"../out.png": png(), "/abs.png": png(), "a\\..\\..\\b.png": png(), "cat/1.png": png(),
                   "cat/page.html": b"<html>", "__MACOSX/cat/._1.png": b"x", ".hidden/1.png": png()})  # fmt: skip
    told = arrive(tmp_path, "photos.zip", data)
    assert tree(tmp_path) == {"inside/batch/cat/1.png"}
    assert len(told) == 6
    link = packed({"cat/link.png": b"/etc/passwd"}, external_attr=(stat.S_IFLNK | 0o777) << 16)
    assert arrive(tmp_path, "links.zip", link) == [texts.ZIP_LINK.format(name="cat/link.png")]
    assert tree(tmp_path) == {"inside/batch/cat/1.png"}


def test_a_bomb_is_refused_by_what_it_declares(tmp_path):
    """A few kilobytes that unpack to gigabytes fill the disk of the page."""
    bomb = packed({f"cat/{k}.png": bytes(4_000_000) for k in range(3)})
    assert len(bomb) < 20_000
    with pytest.raises(ValueError, match=r"12\.0 MB, and 10\.0 MB are left"):
        arrive(tmp_path, "bomb.zip", bomb)
    assert tree(tmp_path) == set()


def test_a_bomb_that_lies_gives_no_more_than_it_declares(tmp_path):
    """An archive may declare a byte and hold gigabytes."""
    bomb = bytearray(packed({"cat/1.png": bytes(50_000_000)}))
    for signature, place in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):  # sizes in both of its headers
        start = bomb.index(signature) + place
        bomb[start : start + 4] = struct.pack("<I", 10)
    (told,) = arrive(tmp_path, "bomb.zip", bytes(bomb))
    assert "damaged in the archive" in told
    assert tree(tmp_path) == set()


@pytest.mark.parametrize("data", [b"", b"<html>", packed({"cat/1.png": png()})[:60]])
def test_what_is_no_archive_is_said(tmp_path, data):
    """A traceback tells nobody to pack again."""
    with pytest.raises(ValueError, match="Pack it again"):
        arrive(tmp_path, "photos.zip", data)


def test_a_password_and_too_many_files(tmp_path, monkeypatch):
    """Both would end in the middle of the archive."""
    locked = bytearray(packed({"cat/1.png": png()}))
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    assert arrive(tmp_path, "locked.zip", bytes(locked)) == [texts.ZIP_LOCKED.format(name="cat/1.png")]
    monkeypatch.setattr(bringing, "MOST_FILES", 2)
    with pytest.raises(ValueError, match="3 files, more than 2"):
        arrive(tmp_path, "many.zip", packed({f"{k}.png": png() for k in range(3)}))


def test_a_list_of_files_is_bounded_before_it_is_read(tmp_path):
    """A gigabyte of names, packed without a file behind them, took ten of memory before their number was looked at."""
    archive = tmp_path / "names.zip"
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("cat/1.png", png())
    data = archive.read_bytes()
    listing, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    many = 3_000_000 // len("cat/1.png")  # 18 MB, of a number that its end lies about
    closing = data[end : end + 12] + struct.pack("<II", many * (end - listing), listing) + b"\0\0"
    archive.write_bytes(data[:listing] + many * data[listing:end] + closing)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"more than 6\.0 MB; 20,000 files need less"):
        take_in(archive, "names.zip", tmp_path / "inside", ROOM)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2_000_000
    assert tree(tmp_path) == set()


def test_a_full_disk_is_said_before_it_is_full(tmp_path, monkeypatch):
    """Half an archive on a full disk is neither there nor gone."""
    monkeypatch.setattr(bringing.shutil, "disk_usage", lambda _: bringing.shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(ValueError, match="Free space there"):
        arrive(tmp_path, "photos.zip", packed({"cat/1.png": png()}))


@pytest.mark.parametrize(
    ("brought", "wanted"),
    [
        (["1.png", "2.png"], ({}, {"1.png", "2.png"})),
        (["cat/1.png", "dog/1.png"], ({"cat/1.png", "dog/1.png"}, {})),
        (["photos/cat/1.png", "photos/dog/1.png", "photos/3.png"], ({"cat/1.png", "dog/1.png"}, {"3.png"})),
        (["photos/cat/1.png", "photos/dog/1.png", "3.png"], ({"cat/1.png", "dog/1.png"}, {"3.png"})),
        (["cat/1.png", "3.png"], ({"cat/1.png"}, {"3.png"})),
        (["cat/1.png"], ({"cat/1.png"}, {})),
        (["a/cat/1.png", "b/cat/1.png"], ({"a/cat/1.png", "b/cat/1.png"}, {})),
    ],
)
def test_folders_are_classes(tmp_path, brought, wanted):
    """The folder that holds all is dropped with them, and is no class."""
    for name in brought:
        arrive(tmp_path, name, png() + name.encode())
    sort_in(tmp_path / "inside" / "batch", tmp_path / "photographs", tmp_path / "unlabelled")
    assert tree(tmp_path / "photographs") == set(wanted[0])
    assert tree(tmp_path / "unlabelled") == set(wanted[1])
    assert not (tmp_path / "inside" / "batch").exists()


def test_two_photographs_of_one_name_are_both_kept(tmp_path):
    """Two cameras number alike; the second would take the first one's place without a word."""
    for data in (b"one", b"two", b"one"):
        arrive(tmp_path, "cat/1.png", data)
        sort_in(tmp_path / "inside" / "batch", tmp_path / "photographs", tmp_path / "unlabelled")
    found = {path.name: path.read_bytes() for path in (tmp_path / "photographs" / "cat").iterdir()}
    assert found == {"1.png": b"one", "1-2.png": b"two"}


@pytest.mark.parametrize("typed", ["", "  ", ".cat", "../cat", "a/b", "a\\b", "x" * 250])
def test_no_class_is_a_way_out(typed):
    """What is typed becomes the name of a folder."""
    with pytest.raises(ValueError, match=r"no name for a class|Left out"):
        class_name(typed)
    assert class_name("  my   cat 🐈 ") == "my cat 🐈"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_one_damaged_member_costs_no_other(tmp_path: Path, method: int):
    """Half of a photograph stood among the whole ones, or the rest of the archive was dropped for want of room."""
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w", method) as written:
        written.writestr("c/a.jpg", bytes(range(256)) * 40)
        written.writestr("c/b.jpg", b"whole")
    with zipfile.ZipFile(archive) as read:
        member = read.getinfo("c/a.jpg")
    data = bytearray(archive.read_bytes())
    middle = member.header_offset + 30 + len("c/a.jpg") + member.compress_size // 2
    data[middle : middle + 8] = b"\xff" * 8
    archive.write_bytes(data)
    notes = take_in(archive, "photos.zip", tmp_path / "in", 10**9)
    assert [name for name in notes if "a.jpg" in name] == notes
    assert len(notes) == 1
    assert [path.name for path in (tmp_path / "in").rglob("*.jpg")] == ["b.jpg"]


def test_a_file_where_a_folder_should_be_is_told(tmp_path: Path):
    """It stopped everything that was brought after it, until all was removed."""
    inside = tmp_path / "in"
    (inside / "c" / "a.jpg").mkdir(parents=True)
    (inside / "c" / "a.jpg" / "b.jpg").write_bytes(b"b")
    (inside / "d").mkdir()
    (inside / "d" / "e.jpg").write_bytes(b"e")
    (tmp_path / "photographs" / "c").mkdir(parents=True)
    (tmp_path / "photographs" / "c" / "a.jpg").write_bytes(b"a")
    notes = sort_in(inside, tmp_path / "photographs", tmp_path / "unlabelled")
    assert notes == [texts.CLASHES.format(name="c/a.jpg/b.jpg")]
    assert (tmp_path / "photographs" / "c" / "a.jpg").read_bytes() == b"a"  # what was there stays
    assert not inside.exists()
    assert (tmp_path / "photographs" / "d" / "e.jpg").read_bytes() == b"e"

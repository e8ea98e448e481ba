"""Folders that their owner alone may read, also when they were not so, or are somebody else's."""

import os
import stat
from pathlib import Path

import pytest

from semtransforms.core import private
from semtransforms.core.private import keep_private, make_private, making_private, refuse_link, tighten

if os.name != "posix":
    pytest.skip("permissions of POSIX", allow_module_level=True)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything here belongs to somebody else than this process believes to be."""
    monkeypatch.setattr(private.os, "geteuid", lambda: 54_321)


def make_and_leave(folder: Path, argument: str) -> None:
    with making_private(folder, argument):
        pass


@pytest.mark.parametrize("make", [make_private, make_and_leave])
def test_what_is_made_is_its_owners_alone(make, tmp_path: Path):
    """The seed would lie where everybody on a shared machine reads it, whatever the umask is."""
    umask = os.umask(0)
    try:
        make(tmp_path / "a" / "b", "--cache-dir")
    finally:
        os.umask(umask)
    assert [mode(tmp_path / "a"), mode(tmp_path / "a" / "b")] == [0o700, 0o700]


def test_an_open_folder_is_closed_again_with_all_in_it(tmp_path: Path):
    """A private folder that was copied, or unpacked from a backup, has lost its permissions."""
    folder, outside = tmp_path / "private", tmp_path / "outside.txt"
    (folder / "inner").mkdir(parents=True)
    outside.write_text("not ours")
    for file in (folder / "secret.json", folder / "inner" / "noise"):
        file.write_text("1")
        file.chmod(0o644)
    (folder / "link").symlink_to(outside)
    outside.chmod(0o644)
    for place in (folder, folder / "inner"):
        place.chmod(0o777)
    tighten(folder, "--cache-dir")
    assert {mode(folder), mode(folder / "inner")} == {0o700}
    assert {mode(folder / "secret.json"), mode(folder / "inner" / "noise")} == {0o600}
    assert mode(outside) == 0o644  # a link is not followed


def test_somebody_elses_folder_is_refused(another_user: None, tmp_path: Path):
    """Who owns a folder reads what others put into it, whatever its permissions are."""
    (tmp_path / "a").mkdir(mode=0o700)
    with pytest.raises(PermissionError, match="belongs to another user"):
        tighten(tmp_path / "a", "--cache-dir")
    with (
        pytest.raises(OSError, match=r"--cache-dir .* belongs to another user"),
        making_private(tmp_path / "b", "--cache-dir"),
    ):
        pytest.fail("it was used")
    assert not (tmp_path / "b").exists()


def test_somebody_elses_link_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put where a private folder will be made, it leads the seed to a place that they chose."""
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    found = Path.lstat
    theirs = os.stat_result((*found(tmp_path / "link")[:4], 54_321, *found(tmp_path / "link")[5:]))
    monkeypatch.setattr(Path, "lstat", lambda self: theirs if self.name == "link" else found(self))
    monkeypatch.setattr(private.os, "geteuid", lambda: (tmp_path / "target").stat().st_uid or 1)
    with pytest.raises(PermissionError, match="another user"):
        tighten(tmp_path / "link", "--cache-dir")


def test_a_disk_without_permissions_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On a USB stick the seed would be open to all, and nobody would know."""
    folder = tmp_path / "stick"
    folder.mkdir()
    folder.chmod(0o755)
    monkeypatch.setattr(Path, "chmod", lambda *_: None)
    with pytest.warns(UserWarning, match="keeps no permissions"):
        tighten(folder, "--cache-dir")

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(PermissionError, match="can be read by others, and that cannot be changed"):
        tighten(folder, "--cache-dir")


def test_what_is_only_read_is_told_of(another_user: None, tmp_path: Path):
    """A store that a colleague shares goes on being read; that others read it too must be known."""
    with pytest.warns(UserWarning, match="subtracts it"):
        keep_private(tmp_path, "cache_dir")


def test_a_link_where_a_folder_of_ours_should_be(tmp_path: Path):
    """What it leads to would be written, and its permissions changed."""
    (tmp_path / "target").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for place in (tmp_path / "link", tmp_path / "dangling"):
        if place.name == "dangling":
            place.symlink_to(tmp_path / "nowhere")
        with pytest.raises(ValueError, match=r"cache_dir: .* is a link"):
            make_private(place, "cache_dir")
    assert not (tmp_path / "nowhere").exists()
    refuse_link(tmp_path / "target", "cache_dir")
    refuse_link(tmp_path / "missing", "cache_dir")

"""Files that are whole or absent, and locks that a kill does not leave behind."""

import errno
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from killing import run_killed

from semtransforms.core import files
from semtransforms.core.files import (
    alone_in,
    explained,
    locked,
    making_folder,
    read_json,
    sweep,
    swept,
    to_json,
    write_atomically,
    writing,
)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path):
    """A config cut in the middle of its bytes would take the place of the one that was whole."""
    path = tmp_path / "a.json"
    write_atomically(path, b"old")
    with pytest.raises(TypeError), writing(path) as temporary:
        temporary.write_bytes(["new, cut"])
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_files_that_belong_together(tmp_path: Path):
    """The config of one generator beside the weights of another, because the disk was full between them."""

    def write(one: bytes, two: bytes | None) -> dict[str, bytes]:
        with suppress(TypeError), writing(tmp_path / "a") as first, writing(tmp_path / "b") as second:
            first.write_bytes(one)
            second.write_bytes(two)  # type: ignore[arg-type]
        return {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    assert write(b"1", b"2") == {"a": b"1", "b": b"2"}
    assert write(b"3", None) == {"a": b"1", "b": b"2"}


KILLED = """
from pathlib import Path
from killing import kill_at_rename
from semtransforms.core.files import write_atomically
kill_at_rename(1)
write_atomically(Path({place!r}) / "a.json", b"half")
"""


@pytest.mark.processes
def test_what_a_kill_leaves_is_swept_and_nothing_else(tmp_path: Path):
    """Half a photograph is published with the others, or a file of the user is gone."""
    run_killed(KILLED.format(place=str(tmp_path)), __file__)
    assert len(os.listdir(tmp_path)) == 1
    (tmp_path / ".unfinished-letter").write_bytes(b"of the user")
    (tmp_path / ".unfinished-1-2").mkdir()
    (tmp_path / "whole").write_bytes(b"whole")
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".unfinished-1-2", ".unfinished-letter", "whole"]


@pytest.mark.skipif(sys.platform == "win32", reason="a folder cannot be locked there")
def test_who_comes_alone_sweeps_and_who_comes_second_does_not(tmp_path: Path):
    """What a kill has left stays for ever, or what another process is writing is taken away from it."""
    left = tmp_path / f"{files.UNFINISHED}1-2-3"
    (tmp_path / "inside").mkdir()
    for place in (left, tmp_path / "inside" / left.name):
        place.write_bytes(b"half")
    with swept(tmp_path, "inside", "not there"):
        assert not list(tmp_path.rglob(left.name))
        left.write_bytes(b"being written")
        with swept(tmp_path):
            assert left.exists()
    with alone_in(tmp_path, "OUT"), swept(tmp_path):  # held by this process, as in a journey that fits
        assert left.exists()


def test_of_several_that_write_a_file_first_the_first_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two protections without locks would each keep a seed of their own for one and the same folder."""
    for link in (os.link, _no_links):
        monkeypatch.setattr(os, "link", link)
        path = tmp_path / link.__name__
        write_atomically(path, b"first", first=True)
        write_atomically(path, b"second", first=True)
        assert path.read_bytes() == b"first"
    assert len(os.listdir(tmp_path)) == 2


def _no_links(source: Path, target: Path) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_a_refusal_names_the_argument_and_the_remedy(tmp_path: Path):
    """'[Errno 20] Not a directory' says neither which option was wrong nor what to do."""
    (tmp_path / "file").write_bytes(b"")
    message = r"OUT '.*b' cannot be written \(Not a directory\)\. Go away\."
    with pytest.raises(OSError, match=message), explained("OUT", tmp_path / "b", "Go away."):
        (tmp_path / "file" / "b").mkdir()


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_a_file_is_never_readable_by_more_than_its_mode_says(tmp_path: Path, mode: int):
    """A secret seed that is world-readable for a moment has been read."""
    with writing(tmp_path / "secret", mode=mode) as temporary:
        assert temporary.stat().st_mode & 0o777 == mode
        temporary.write_bytes(b"7")
    assert (tmp_path / "secret").stat().st_mode & 0o777 == mode


def test_the_longest_name_that_the_disk_takes(tmp_path: Path):
    """A temporary file that adds letters to the name would fail for a photograph whose own name is just allowed."""
    longest = "n" * os.pathconf(tmp_path, "PC_NAME_MAX")
    write_atomically(tmp_path / longest, b"x")
    assert os.listdir(tmp_path) == [longest]


def test_json_comes_back_and_a_cut_one_is_named(tmp_path: Path):
    """Half a record would be read as a result, or as an error that does not say which file it is."""
    path = tmp_path / "a.json"
    write_atomically(path, to_json({"a": [1, None]}))
    assert read_json(path) == {"a": [1, None]}
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"a\.json"):
        read_json(path)


HOLDS = """
import sys, time
from pathlib import Path
from semtransforms.core.files import alone_in, locked
with {lock}:
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.processes
@pytest.mark.parametrize("lock", ["locked(Path({place!r}) / '.lock', wait=False)", "alone_in(Path({place!r}), 'OUT')"])
def test_a_lock_excludes_another_process_and_goes_with_it(tmp_path: Path, lock: str):
    """Two writers of one folder mix their files; a lock that outlives kill -9 locks the owner out for ever."""
    script = HOLDS.format(lock=lock.format(place=str(tmp_path)))
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert not _free(tmp_path, lock)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    assert _free(tmp_path, lock)


def _free(place: Path, lock: str) -> bool:
    if "alone_in" not in lock:
        with locked(place / ".lock", wait=False) as held:
            return held
    try:
        with alone_in(place, "OUT") as alone:
            return alone
    except ValueError:
        return False


@pytest.mark.parametrize("wait", [False, True])
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOLCK, "No locks available"), NotImplementedError("does not appear to support flock")]
)
def test_a_disk_without_locks_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error, wait: bool):
    """filelock has two errors for it; on such a network disk every protection would end in a stack of calls."""

    def refuse(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(files.FileLock, "acquire", refuse)
    with locked(tmp_path / ".lock", wait=wait) as held:
        assert held is False


def test_a_folder_that_was_made_in_vain_is_gone(tmp_path: Path):
    """An empty folder left behind is in the way of the same command given again."""
    with pytest.raises(RuntimeError), making_folder(tmp_path / "a" / "b", "OUT"):
        raise RuntimeError("broke off")
    assert os.listdir(tmp_path) == []

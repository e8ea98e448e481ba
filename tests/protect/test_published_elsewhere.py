"""Copies that are written to a bucket: the bytes of a folder, whatever is killed, refused or done by others there."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import storage
from fsspec.registry import _registry
from killing import run_killed
from storage import Storage
from test_elsewhere import SEED, command
from test_publish import run, tree, write_pictures

from semtransforms.core.files import UNFINISHED
from semtransforms.data.refusals import StorageError
from semtransforms.data.remote import RemotePath, place_of
from semtransforms.data.sources import open_source
from semtransforms.protect import checksums, publish
from semtransforms.protect.formats import Difference
from semtransforms.protect.journal import Journal
from semtransforms.protect.publish import Outcome
from semtransforms.protect.shelves import Bucket
from semtransforms.protect.verify import verify


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twenty PNG files of three sizes in two classes, one of them broken; protected in groups of three."""
    monkeypatch.setattr(publish, "BATCH_IMAGES", 3)
    root = write_pictures(tmp_path / "photos", 20, 8, (8, 12, 9))
    (root / "dog" / "15.png").write_text("<html>404</html>")
    return root


def protect(photos: Path | str, stored: Storage, tmp_path: Path, **options: object) -> Outcome:
    """Protect to an address."""
    return run(photos, place_of(f"{stored.address}/copies/out"), private=tmp_path / "private", seed=SEED, **options)


def here(photos: Path, tmp_path: Path, name: str = "here", **options: object) -> dict[str, bytes]:
    """What a folder of this machine would have."""
    run(photos, tmp_path / name, private=tmp_path / "private", seed=SEED, **options)
    return tree(tmp_path / name)


def recorded(monkeypatch: pytest.MonkeyPatch, before: Callable[[RemotePath], None] = lambda place: None) -> list[str]:
    """The names of the files that are written to addresses from now on, with something to be done before each."""
    written: list[str] = []
    write = RemotePath.write_bytes

    def writing(place: RemotePath, data: bytes) -> None:
        before(place)
        write(place, data)
        written.append(place.name)

    monkeypatch.setattr(RemotePath, "write_bytes", writing)
    return written


@pytest.mark.parametrize("format", ["png", "jpeg"])
def test_copies_at_an_address_are_those_of_a_folder(
    format: str, anywhere: Storage, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Other bytes, or a copy too few; a record that comes first calls a half-made copy whole; a disk that fills up."""
    wanted = here(photos, tmp_path, format=format)
    monkeypatch.setattr(checksums, "MOST", 8)
    tables = here(photos, tmp_path, "tables", format=format)
    on_disk = set(tmp_path.rglob("*.*g"))
    written = recorded(monkeypatch)
    outcome = protect(photos, anywhere, tmp_path, format=format)
    assert (outcome.written, outcome.found, len(outcome.failed)) == (19, 0, 1)
    assert anywhere.tree("copies/out") == tables
    assert len(tables) == 23
    assert written[-4:] == [*(f"protection-000{number}.jsonl" for number in range(3)), "protection.json"]
    assert set(written[1:]) == {name.rpartition("/")[2] for name in tables}
    assert len(written) == 1 + len(tables)  # the trial, and each file once
    assert written[0].startswith(UNFINISHED)
    if anywhere.address.startswith("disk"):
        on_disk |= set((tmp_path / "server").rglob("*.*g"))
    assert set(tmp_path.rglob("*.*g")) == on_disk
    monkeypatch.undo()
    outcome = protect(photos, anywhere, tmp_path, format=format)  # all are there; the tables are not wanted now
    assert (outcome.written, outcome.found) == (0, 19)
    assert anywhere.tree("copies/out") == wanted


def test_from_one_bucket_to_another(stored: Storage, photos: Path, tmp_path: Path):
    """The museum's case: nothing but the journal touches this disk."""
    outcome = protect(stored.put(photos, "photos"), stored, tmp_path)
    assert outcome.written == 19
    assert {name: data for name, data in stored.tree("copies/out").items() if name.endswith(".png")} == {
        name: data for name, data in here(photos, tmp_path).items() if name.endswith(".png")
    }


KILLED = """
import os, signal
from pathlib import Path
import storage
from semtransforms.data.remote import RemotePath, place_of
from semtransforms.protect import publish
from test_publish import run
publish.BATCH_IMAGES = 3
write, left = RemotePath.write_bytes, [{number}]
def killing(place, data):
    left[0] -= 1
    if left[0] == 0:
        {half}
        os.kill(os.getpid(), signal.SIGKILL)
    write(place, data)
RemotePath.write_bytes = killing
run({photos!r}, place_of({out!r}), private=Path({private!r}))
"""


@pytest.mark.processes
@pytest.mark.parametrize("number", [14, 21])  # among the copies; where the record would come
def test_a_killed_run_goes_on_with_what_is_there(
    number: int, lasting: Storage, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """kill -9 in mid-run: what is there stays and is counted, what was cut is made anew, with the seed of the dead."""
    out = f"{lasting.address}/copies/out"
    half = "write(place, data[:100])" if lasting.address.startswith("disk") else "pass"  # no object store has a half
    killed = {"photos": str(photos), "out": out, "private": str(tmp_path / "private"), "number": number, "half": half}
    run_killed(KILLED.format(**killed), __file__)
    left = lasting.tree("copies/out")
    assert ("protection.json" in left) == (number == 21 and half != "pass")
    written = recorded(monkeypatch)
    outcome = run(photos, place_of(out), private=tmp_path / "private")
    whole = [name for name, data in left.items() if lasting.tree("copies/out")[name] == data and name.endswith(".png")]
    assert (outcome.found, outcome.written) == (len(whole), 19 - len(whole))
    assert len(whole) >= 3
    assert not {name.rpartition("/")[2] for name in whole} & set(written)
    seed = json.loads((outcome.private / "secret.json").read_text())["seed"]
    run(photos, tmp_path / "here", private=tmp_path / "private", seed=seed)
    assert lasting.tree("copies/out") == tree(tmp_path / "here")
    assert all(finding.holds for finding in verify(place_of(out), open_source(str(photos))))


@pytest.mark.parametrize("error", [TimeoutError("no answer in 60 s"), PermissionError("ExpiredToken")])
def test_an_upload_that_fails_ends_the_work_and_loses_nothing(
    error: Exception, memory: Storage, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """An hour without network, or a login that ends at night: what is there counts, and no record calls it whole."""
    put = type(memory.system).pipe_file

    def failing(system, path: str, data: bytes, **options: object) -> None:
        if path.endswith("cat/07.png"):
            raise error
        put(system, path, data, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(memory.system), "pipe_file", failing)
        with pytest.raises((StorageError, OSError), match=rf"^OUT.*{error}") as caught:
            protect(photos, memory, tmp_path)
    assert isinstance(caught.value, OSError) or "the same command goes on from here" in str(caught.value)
    left = memory.tree("copies/out")
    assert len(left) >= 7
    assert "protection.json" not in left
    outcome = protect(photos, memory, tmp_path)
    assert (outcome.found, outcome.written) == (len(left), 19 - len(left))
    assert memory.tree("copies/out") == here(photos, tmp_path)


def test_a_source_that_changed_is_followed_and_what_is_not_ours_stays(memory: Storage, photos: Path, tmp_path: Path):
    """A copy of an image that was taken down stays public; or a file that somebody put there is gone."""
    protect(photos, memory, tmp_path)
    memory.put(photos / "cat" / "00.png", "copies/out/poster.png")
    (photos / "cat" / "01.png").unlink()
    (photos / "cat" / "02.png").write_bytes((photos / "dog" / "10.png").read_bytes())
    (photos / "dog" / "15.png").write_bytes((photos / "cat" / "00.png").read_bytes())
    outcome = protect(photos, memory, tmp_path)
    assert (outcome.written, outcome.found, outcome.removed) == (2, 17, 1)
    found = memory.tree("copies/out")
    assert found.pop("poster.png") == (photos / "cat" / "00.png").read_bytes()
    assert found == here(photos, tmp_path)


def test_labels_of_classes_without_images_go_there_too(memory: Storage, photos: Path, tmp_path: Path):
    """Readers would number the classes anew: every image with another one's label."""
    images = {path: path.read_bytes() for path in (photos / "dog").iterdir()}
    for path in images:
        path.write_text("<html>404</html>")
    protect(photos, memory, tmp_path)
    wanted = here(photos, tmp_path)
    assert "metadata.csv" in wanted
    assert memory.tree("copies/out") == wanted
    for path, data in images.items():
        path.write_bytes(data)
    protect(photos, memory, tmp_path)
    assert memory.tree("copies/out") == here(photos, tmp_path)
    assert "metadata.csv" not in memory.tree("copies/out")


def test_files_of_another_size_or_gone_are_made_anew(memory: Storage, photos: Path, tmp_path: Path, monkeypatch):
    """An upload that was cut, or a file that somebody removed, would stay so; meanwhile, it would be recorded."""
    protect(photos, memory, tmp_path)
    wanted = memory.tree("copies/out")
    memory.system.pipe_file("/bucket/copies/out/cat/01.png", wanted["cat/01.png"][:-1])
    memory.system.rm_file("/bucket/copies/out/cat/02.png")
    outcome = protect(photos, memory, tmp_path)
    assert (outcome.written, outcome.found) == (2, 17)
    assert memory.tree("copies/out") == wanted

    def remove(place: RemotePath) -> None:
        if place.name == "19.png":
            memory.system.pipe_file("/bucket/copies/out/cat/01.png", b"cut")

    memory.system.rm_file("/bucket/copies/out/dog/19.png")
    recorded(monkeypatch, remove)
    with pytest.raises(OSError, match=r"'cat/01.png' was written and is gone, so someone removed it"):
        protect(photos, memory, tmp_path)


def test_an_older_file_of_the_same_size_is_not_taken_for_the_new_one(memory: Storage, tmp_path: Path):
    """Killed between the note and the upload: sizes alone would call the copy of another image finished, for good."""
    bucket = Bucket(place_of(f"{memory.address}/out"))
    (tmp_path / "secret.json").write_text('{"seed": 7}')
    journal = Journal(tmp_path, bucket)
    journal.remember("cat/1.png", "old", b"1234", Difference())
    bucket.write("cat/1.png", b"1234")
    journal = Journal(tmp_path, bucket)
    assert journal.stamp("cat/1.png") == "old"
    journal.remember("cat/1.png", "new", b"5678", Difference())
    assert Journal(tmp_path, bucket).stamp("cat/1.png") is None
    assert memory.tree("out") == {}


def test_what_a_kill_left_of_the_trial_is_removed(memory: Storage, photos: Path, tmp_path: Path):
    """It would be published, and keep OUT from being empty."""
    memory.put(photos / "cat" / "00.png", f"copies/out/{UNFINISHED}1-2-3")
    protect(photos, memory, tmp_path)
    assert memory.tree("copies/out") == here(photos, tmp_path)


def test_two_runs_keep_out_of_each_others_way(memory: Storage, photos: Path, tmp_path: Path, monkeypatch):
    """Two seeds in one copy, and each run makes anew what the other one wrote."""
    refused: list[str] = []

    def again(place: RemotePath) -> None:
        if place.name == "00.png":
            with pytest.raises(ValueError, match="is being written by another process") as caught:
                protect(photos, memory, tmp_path)
            refused.append(str(caught.value))
            with pytest.raises(ValueError, match="is not empty"):
                run(photos, place_of(f"{memory.address}/copies/out"), private=tmp_path / "other")

    memory.put(photos / "cat" / "00.png", "copies/out/cat/1.png")  # so that the other one finds something
    with pytest.raises(ValueError, match=r"is not empty \(it holds 'cat/1.png'\)"):
        protect(photos, memory, tmp_path)
    memory.system.rm_file("/bucket/copies/out/cat/1.png")
    write = RemotePath.write_bytes

    def behind(place: RemotePath, data: bytes) -> None:
        write(place, data)
        if not refused:
            again(place)

    monkeypatch.setattr(RemotePath, "write_bytes", behind)
    protect(photos, memory, tmp_path)
    assert len(refused) == 1
    assert memory.address in refused[0]
    assert memory.tree("copies/out") == here(photos, tmp_path)


def refused(photos: Path | str, out: str, tmp_path: Path, *words: str, options: tuple[object, ...] = ()) -> None:
    """The command ends in one line with these words, before any noise is made, and leaves nothing."""
    result = command(photos, out, tmp_path, *options)
    assert result.exit_code == 2, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert all(word in lines[0] for word in words), lines[0]
    assert "Traceback" not in result.output
    assert not list(tmp_path.glob("cache/protections/*"))


def test_addresses_that_cannot_be_written_are_refused_in_a_line(
    memory: Storage, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Found behind twenty minutes of a fit, or a night's noise; or it lands where nobody looks for it."""
    monkeypatch.chdir(tmp_path)
    refused(photos, "s3://", tmp_path, "'s3://' names no bucket")
    refused(photos, "s4://bucket/out", tmp_path, "'s4://bucket/out'", "nothing opens s4://")
    refused(photos, "http://museum.example/out", tmp_path, "OUT 'http://museum.example/out'", "web server")
    refused(photos, "hf://datasets/me/out", tmp_path, "OUT 'hf://datasets/me/out'", "a commit of its own")
    refused(photos, f"zip://out::file://{tmp_path}/a.zip", tmp_path, "lies in an archive")
    refused(photos, "memory://bucket/../out", tmp_path, "no folder on a disk can have")
    for format in ("parquet", "tars", "datasets", "noise"):
        refused(photos, "memory://bucket/out", tmp_path, "--format", format, options=("--format", format))
    for package, out, remedy in (("s3fs", "s3://bucket/out", "pip install 'semtransforms[s3]'"),
                                 ("gcsfs", "gs://bucket/out", "pip install gcsfs")):  # fmt: skip
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.delitem(_registry, out[:2], raising=False)  # of those that were opened before
        refused(photos, out, tmp_path, f"OUT '{out}'", remedy)
    source = memory.put(photos, "photos")
    refused(source, f"{source}/out", tmp_path, "lies inside SOURCE")
    refused(source, source, tmp_path, "lies inside SOURCE")
    refused(source, memory.address, tmp_path, "is not empty (it holds 'photos/")

    def only_read(*_: object, **__: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(type(memory.system), "pipe_file", only_read)
    refused(photos, "memory://bucket/out", tmp_path, "OUT 'memory://bucket/out'", "nothing can write")
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "generator", "cache"} - (
        set() if (tmp_path / "cache").exists() else {"cache"}
    )


def test_names_that_are_no_text_are_refused(memory: Storage, photos: Path, tmp_path: Path):
    """The client refuses them when their turn comes, each time that the command goes on."""
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    try:
        (photos / "cat" / name).write_bytes((photos / "cat" / "00.png").read_bytes())
    except OSError:
        pytest.skip("a disk that takes no such names")
    with pytest.raises(ValueError, match="which is no text in UTF-8"):
        protect(photos, memory, tmp_path)


def test_what_s3_refuses_is_told_in_a_line(s3_server: str, bucket: Storage, photos: Path, tmp_path: Path):
    """A bucket of a mistyped name would be made, of whoever; without permission a night's noise has no place to go."""
    refused(
        photos, "s3://other-bucket/out", tmp_path, "OUT 's3://other-bucket/out'", "it is not there (no such bucket)"
    )
    assert [name for name in bucket.system.ls("") if "other" in name] == []
    storage.post(s3_server, "reset-auth", b"0")
    try:
        refused(photos, f"{bucket.address}/out", tmp_path, "OUT 's3://bucket/out'", "no permission to write", "Log in")
    finally:
        storage.post(s3_server, "reset-auth", b"inf")
    assert bucket.tree("") == {}


def test_check_reads_what_lies_at_an_address(anywhere: Storage, photos: Path, tmp_path: Path):
    """The owner believes that the copy is whole, and a file of it is another's."""
    from typer.testing import CliRunner

    from semtransforms.cli import app

    def check() -> tuple[int, str]:
        result = CliRunner().invoke(app, ["check", f"{anywhere.address}/copies/out", "--original", str(photos)])
        return result.exit_code, result.output

    assert check()[0] == 2
    assert "nothing that `semtransforms protect` wrote" in check()[1]
    protect(photos, anywhere, tmp_path)
    code, said = check()
    assert code == 0, said
    assert "all 19 are as they were written" in said
    assert "each of 19 originals has its copy (1 do not decode and have none)" in said
    assert "labels: as in the originals" in said
    assert "at most 8 grey levels" in said
    anywhere.put(photos / "cat" / "00.png", "copies/out/cat/03.png")
    anywhere.put(photos / "cat" / "00.png", "copies/out/cat/seed.png")
    anywhere.system.rm_file(f"{anywhere.place}/copies/out/cat/04.png")
    code, said = check()
    assert code == 1, said
    assert "missing: cat/04.png; changed since: cat/03.png" in said
    assert "look before you publish: cat/seed.png" in said

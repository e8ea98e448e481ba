"""Images that lie in a bucket: read as those of a folder, and what a bucket does that no folder does."""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import storage
import torch
from fsspec.registry import _registry
from killing import run_killed
from PIL import Image
from storage import Storage
from test_publish import run, small_generator, tree, write_pictures
from test_tars import write_tars
from typer.testing import CliRunner, Result

from semtransforms.cli import app
from semtransforms.data import remote
from semtransforms.data.images import UNDECODABLE
from semtransforms.data.refusals import StorageError
from semtransforms.data.remote import RemotePath, is_address, place_of
from semtransforms.data.sources import open_source
from semtransforms.protect import publish
from semtransforms.protect.publish import Outcome

SEED = 8_314_159_265


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten PNG files of three sizes in two classes, one of them broken, and a file that is no image."""
    root = write_pictures(tmp_path / "photos", 10, 6, (8, 12, 9))
    (root / "dog" / "broken.jpg").write_text("<html>404</html>")
    (root / "dog" / "notes.txt").write_text("the brown one")
    return root


def command(source: Path | str, out: Path | str, home: Path, *options: object) -> Result:
    generator = home / "generator"
    if not generator.exists():
        small_generator().save_pretrained(generator)
    arguments = ("protect", source, out, "--generator", generator, "--cache-dir", home / "cache", *options)
    return CliRunner().invoke(app, [str(each) for each in arguments])


def same(local: Path, address: str, tmp_path: Path, **options: object) -> Outcome:
    """Protect a folder and what lies at an address; the files must be the same. Returns what the second did."""
    run(local, tmp_path / "here", seed=SEED, private=tmp_path / "private")
    outcome = run(address, tmp_path / "out", seed=SEED, private=tmp_path / "private", **options)
    assert tree(tmp_path / "out") == tree(tmp_path / "here")
    assert len(tree(tmp_path / "out")) > 10
    return outcome


def as_folder(photos: Path) -> Path:
    return photos


def as_labelled(photos: Path) -> Path:
    rows = [f"{file.relative_to(photos).as_posix()},{file.parent.name}" for file in photos.glob("*/*.*g")]
    (photos / "metadata.csv").write_text("\n".join(["file_name,label", *reversed(rows)]))
    return photos


def as_tars(photos: Path) -> Path:
    (photos / "dog" / "notes.txt").unlink()
    (photos / "dog" / "broken.jpg").unlink()
    return write_tars(photos.parent / "tars", photos)


def as_table(photos: Path) -> Path:
    run(photos, photos.parent / "table" / "train.parquet", format="parquet")
    (photos.parent / "table" / "train.protection.json").unlink()
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_parquet(str(photos.parent / "table" / "train.parquet"))
    rows = [{"bytes": table.data["image"][row]["bytes"].as_py(), "path": None} for row in range(len(table))]
    table.remove_columns("image").add_column("image", rows).cast_column("image", datasets.Image()).to_parquet(
        str(photos.parent / "table" / "train.parquet")
    )
    return photos.parent / "table"


@pytest.mark.parametrize("kind", [as_folder, as_labelled, as_tars, as_table])
def test_what_lies_at_an_address_is_protected_as_on_this_machine(
    kind, stored: Storage, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Other names, labels or order would be other noise: a trainer pairs the copies with the wrong originals."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(publish, "BATCH_IMAGES", 4)
    local = kind(photos)
    address = stored.put(local, "some/where")
    outcome = same(local, address, tmp_path)
    wanted = open_source(str(local))
    found = open_source(address)
    assert all(torch.equal(found[row][0], wanted[row][0]) for row in (0, 9))
    assert [Path(place).name for place in found.other_files] == [Path(place).name for place in wanted.other_files]
    assert [place.replace(address, str(local)) for place in outcome.failed] == [
        place.replace(address, str(local)) for place in run(local, tmp_path / "again", seed=SEED).failed
    ]


@pytest.mark.processes
def test_processes_read_by_themselves(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is opened for one process is of no use in another one: they would hang, or read each other's bytes."""
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for name, data in tree(photos).items():
            archive.writestr(f"mine/{name}", data)
    monkeypatch.setattr(publish, "BATCH_IMAGES", 2)
    same(photos, f"zip://mine::file://{tmp_path / 'photos.zip'}", tmp_path, workers=2)


@pytest.mark.processes
def test_processes_read_from_s3_by_themselves(bucket: Storage, photos: Path, tmp_path: Path, monkeypatch):
    """As above, for the client of S3, which has a thread and connections of its own."""
    monkeypatch.setattr(publish, "BATCH_IMAGES", 2)
    same(photos, bucket.put(photos, "photos"), tmp_path, workers=2)


KILLED = """
from pathlib import Path
from killing import kill_at_rename
from semtransforms.protect import publish
from test_publish import run
publish.BATCH_IMAGES = 2
kill_at_rename(8)
run({address!r}, Path({out!r}), seed={seed}, private=Path({private!r}))
"""


@pytest.mark.processes
def test_a_killed_run_goes_on_and_fetches_nothing_twice(
    bucket: Storage, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """kill -9 in mid-run, and what the listing says of finished images must be what it said to the dead process."""
    address = bucket.put(photos, "photos")
    killed = {"address": address, "out": str(tmp_path / "out"), "seed": SEED, "private": str(tmp_path / "private")}
    run_killed(KILLED.format(**killed), __file__)
    finished = [path.name for path in (tmp_path / "out").rglob("[0-9].png")]
    assert 3 <= len(finished) <= 6
    fetched: list[str] = []
    whole = RemotePath.read_bytes
    monkeypatch.setattr(RemotePath, "read_bytes", lambda self, *part: fetched.append(self.name) or whole(self, *part))
    same(photos, address, tmp_path)
    assert not set(fetched) & set(finished)


def test_a_file_address_is_the_path(photos: Path, tmp_path: Path):
    """Read as a bucket it would be the one folder that OUT may lie in."""
    assert place_of(f"file://{photos}") == photos
    same(photos, f"file://{photos}", tmp_path)
    with pytest.raises(ValueError, match="lies inside SOURCE"):
        run(f"file://{photos}", photos / "out")


def test_names_are_those_of_a_folder(memory: Storage, tmp_path: Path):
    """A hidden or a system's file that is published, or another order of files, where nobody compares with a disk."""
    root = tmp_path / "photos"
    names = ["b/a-b/1.png", "b/a/1.png", "b/a/B.PNG", "b/a/#1 %20?.jpg", "a/.trash/1.png", "a/x.png", "a/x.txt",
             "a/__MACOSX/1.png", "é/1.png", ".hidden/1.png", "a/[1]*.png"]  # fmt: skip
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    address = memory.put(root, "photos")
    found, wanted = open_source(address), open_source(str(root))
    assert list(found.files) == list(wanted.files)
    assert list(found.names) == list(wanted.names)
    assert found.labels.tolist() == wanted.labels.tolist()
    assert [found.read(row).read_bytes() for row in range(len(found))] == [b"x"] * 7


@pytest.mark.parametrize("name", ["cat/../../1.png", "cat/" + "x" * 256 + ".png"])
def test_names_that_no_folder_can_have_are_refused(name: str, memory: Storage, photos: Path, tmp_path: Path):
    """A bucket takes any name: of this one the copy would lie outside of OUT, or end the work in its middle."""
    address = memory.put(photos, "photos")
    memory.system.store[f"/bucket/photos/{name}"] = memory.system.store["/bucket/photos/cat/0.png"]
    with pytest.raises(ValueError, match="no folder on a disk can have"):
        run(address, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_double_slashes_in_a_bucket_are_refused_and_marks_of_folders_are_not(bucket: Storage, photos: Path):
    """What lies behind an empty name would be left out without a word; the mark is in every folder a console made."""
    address = bucket.put(photos, "photos")
    bucket.system.pipe_file("bucket/photos/cat/", b"")
    assert len(open_source(address)) == 11
    bucket.system.pipe_file("bucket/photos/cat//1.png", b"x")
    with pytest.raises(ValueError, match="no folder on a disk can have"):
        open_source(address)


def test_going_on_reads_only_what_is_new(stored: Storage, photos: Path, tmp_path: Path, monkeypatch):
    """Of four million files each would be fetched again to see that nothing has changed: days."""
    monkeypatch.setattr(remote, "_TELLING", ("ETag", "created"))  # the latter by memory://, to the microsecond
    address = stored.put(photos, "photos")
    outcome = run(address, tmp_path / "out", seed=SEED)
    assert (outcome.written, len(outcome.failed)) == (10, 1)
    fetched: list[str] = []
    whole = RemotePath.read_bytes
    monkeypatch.setattr(RemotePath, "read_bytes", lambda self, *part: fetched.append(self.name) or whole(self, *part))
    (photos / "cat" / "new.png").write_bytes((photos / "cat" / "1.png").read_bytes())
    (photos / "dog" / "7.png").write_bytes((photos / "dog" / "8.png").read_bytes())
    stored.put(photos / "cat" / "new.png", "photos/cat/new.png")
    stored.put(photos / "dog" / "7.png", "photos/dog/7.png")
    outcome = run(address, tmp_path / "out", seed=SEED)
    assert (outcome.written, outcome.found) == (2, 9)
    assert sorted(fetched) == ["7.png", "broken.jpg", "new.png"]
    run(photos, tmp_path / "here", seed=SEED)
    assert tree(tmp_path / "out") == tree(tmp_path / "here")


@pytest.mark.parametrize("where", ["here", "memory"])
def test_a_source_that_grows_and_shrinks_meanwhile(
    where: str, memory: Storage, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """New images without a word look protected; one that is gone must not end the work for all others."""
    (photos / "dog" / "broken.jpg").unlink()
    monkeypatch.setattr(publish, "BATCH_IMAGES", 2)
    source = str(photos) if where == "here" else memory.put(photos, "photos")
    write = publish._write

    def meanwhile(made, *rest):
        if not (photos / "fox").exists():
            data = (photos / "cat" / "1.png").read_bytes()
            for name in ("cat/00.png", "fox/1.png", "no-class.png", "dog/more.txt"):
                (photos / name).parent.mkdir(exist_ok=True)
                (photos / name).write_bytes(data)
            (photos / "dog" / "9.png").unlink()
            if where == "memory":
                memory.put(photos, "photos")
                memory.system.rm("/bucket/photos/dog/9.png")
        return write(made, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(publish, "_write", meanwhile)
        result = command(source, tmp_path / "out", tmp_path)
    assert result.exit_code == 1, result.output
    assert f"not protected: {source}/dog/9.png" in result.output
    assert "2 images have come into SOURCE since it was listed" in result.output
    assert f"{source}/cat/00.png first" in result.output
    assert len(list((tmp_path / "out").rglob("*.png"))) == 9
    (photos / "fox" / "1.png").unlink()  # a third class, which this generator has not
    (photos / "fox").rmdir()
    if where == "memory":
        memory.system.rm("/bucket/photos/fox", recursive=True)
    result = command(source, tmp_path / "out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "since it was listed" not in result.output
    assert sorted(name for name in tree(tmp_path / "out")) == sorted(
        ["protection.json", *(name for name in tree(photos) if "/" in name and name.endswith(".png"))]
    )


def test_new_tars_are_told(memory: Storage, photos: Path, tmp_path: Path):
    """A recorder that adds a tar an hour: its images look protected when the command ends."""
    address = memory.put(as_tars(photos), "tars")
    source = open_source(address)
    assert source.since() == []
    memory.put(tmp_path / "tars" / "part-0.tar", "tars/part-9.tar")
    assert source.since() == [f"{address}/part-9.tar"]


def test_a_storage_that_falls_silent_ends_the_work_and_damages_nothing(
    memory: Storage, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Taken for damaged files, an hour without network would publish a copy with holes and call it complete."""
    monkeypatch.setattr(publish, "BATCH_IMAGES", 2)
    address = memory.put(photos, "photos")
    fetch = memory.system.cat_file

    def silent(path, **options):
        if path.endswith("5.png"):
            raise TimeoutError("no answer in 60 s")
        return fetch(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(memory.system), "cat_file", lambda self, path, **options: silent(path, **options))
        with pytest.raises(StorageError, match=r"no answer in 60 s.*the same command goes on from here"):
            run(address, tmp_path / "out", seed=SEED)
    assert not (tmp_path / "out" / "protection.json").exists()
    outcome = run(address, tmp_path / "out", seed=SEED)
    assert (outcome.written + outcome.found, len(outcome.failed)) == (10, 1)
    assert outcome.found >= 4
    run(photos, tmp_path / "here", seed=SEED)
    assert tree(tmp_path / "out") == tree(tmp_path / "here")


def refused(source: str, tmp_path: Path, *words: str) -> None:
    """The command ends in one line with these words, and leaves nothing."""
    result = command(source, tmp_path / "out", tmp_path)
    assert result.exit_code == 2, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert all(word in lines[0] for word in words), lines[0]
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob("cache/protections/*"))


def test_addresses_that_cannot_be_read_are_refused_in_a_line(memory: Storage, tmp_path: Path, monkeypatch):
    """A typing error, or a package that is missing, must not look like a source without images."""
    refused("s3://", tmp_path, "'s3://' names no bucket", "s3://BUCKET/FOLDER")
    refused("s4://bucket/photos", tmp_path, "nothing opens s4://")
    refused("memory://bucket/photos", tmp_path, "SOURCE 'memory://bucket/photos'", "Correct the name")
    for package, address, remedy in (("s3fs", "s3://bucket/photos", "pip install 'semtransforms[s3]'"),
                                     ("gcsfs", "gs://bucket/photos", "pip install gcsfs")):  # fmt: skip
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.delitem(_registry, address[:2], raising=False)  # of those that were opened before
        refused(address, tmp_path, f"SOURCE '{address}'", remedy)


def test_what_s3_refuses_is_told_in_a_line(s3_server: str, bucket: Storage, photos: Path, tmp_path: Path):
    """Who may not list a bucket, or mistypes it, would wait for nothing, or read of a class that has no images."""
    address = bucket.put(photos, "photos")
    refused("s3://other-bucket/photos", tmp_path, "there is no s3://other-bucket/", "Correct the name")
    refused("s3://bucket/fotos", tmp_path, "nothing of that name is in s3://bucket/")
    storage.post(s3_server, "reset-auth", b"0")
    try:
        refused(address, tmp_path, f"SOURCE '{address}'", "no permission", "Log in")
    finally:
        storage.post(s3_server, "reset-auth", b"inf")


def test_no_login_is_told(bucket: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The client's own words are about a metadata service of a cloud machine."""
    import s3fs

    for name in storage.LOGIN:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    s3fs.S3FileSystem.clear_instance_cache()
    refused("s3://bucket/photos", tmp_path, "Unable to locate credentials")


def test_a_protected_copy_in_a_bucket_is_not_protected_again(memory: Storage, photos: Path, tmp_path: Path):
    """Noise on noise leaves the radius."""
    run(photos, tmp_path / "out")
    address = memory.put(tmp_path / "out", "copies/out")
    with pytest.raises(ValueError, match="protected already"):
        run(address, tmp_path / "twice")
    assert not (tmp_path / "twice").exists()


def test_what_is_private_lies_on_this_machine(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As a path, gs://bucket is a folder "gs:" where the command runs, and no place that only its owner reads."""
    monkeypatch.chdir(tmp_path)
    result = command(photos, "out", tmp_path, "--cache-dir", "gs://bucket/private")
    assert result.exit_code == 2, result.output
    assert "must be a folder of this machine" in result.output
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "generator"}


def test_a_time_alone_tells_no_two_files_apart(photos: Path, tmp_path: Path):
    """In a tar that was made to be the same each time all files are of 1970: the copy of another image would stay."""
    paths = sorted(path for path in photos.rglob("*.png"))

    def write() -> None:
        with tarfile.open(tmp_path / "photos.tar", "w") as tar:
            for path in paths:
                data = path.with_suffix(".bmp").name, io.BytesIO()
                Image.open(path).save(data[1], "BMP")  # of one size whatever it shows
                member = tarfile.TarInfo(f"photos/{path.parent.name}/{data[0]}")
                member.size = data[1].tell()
                data[1].seek(0)
                tar.addfile(member, data[1])

    write()
    address = f"tar://photos::file://{tmp_path}/photos.tar"
    assert run(address, tmp_path / "out", seed=SEED).written == 10
    Image.new("RGB", Image.open(paths[0]).size, (200, 0, 0)).save(paths[0])
    write()
    assert (again := run(address, tmp_path / "out", seed=SEED)).written == 1
    assert again.found == 9


def test_a_damaged_image_of_an_archive_is_listed_and_the_others_are_finished(photos: Path, tmp_path: Path):
    """It would else stop every further call at the same place, with the storage to blame."""
    (photos / "dog" / "broken.jpg").unlink()
    with zipfile.ZipFile(tmp_path / "photos.zip", "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(photos.rglob("*.png")):
            archive.write(path, path.relative_to(photos.parent).as_posix())
    packed, image = (tmp_path / "photos.zip").read_bytes(), (photos / "cat" / "1.png").read_bytes()
    (tmp_path / "photos.zip").write_bytes(packed.replace(image, image[:-1] + bytes([image[-1] ^ 1])))
    outcome = run(f"zip://photos::file://{tmp_path}/photos.zip", tmp_path / "out", seed=SEED)
    assert (outcome.written, len(outcome.failed)) == (9, 1)
    assert "cat/1.png" in outcome.failed[0]


def test_a_silent_storage_is_no_damaged_image(memory: Storage, photos: Path, monkeypatch: pytest.MonkeyPatch):
    """What is left out as damaged is measured around, and the figure is of half the images."""
    address = memory.put(photos, "photos")

    class Slow(Exception):
        """As botocore's, of no kind that Python knows."""

    class Refusing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise Slow("503 SlowDown")

    monkeypatch.setattr(type(memory.system), "_open", lambda *_, **__: Refusing())
    source = open_source(address)
    with pytest.raises(StorageError, match="503 SlowDown"), source.open(0):
        pass
    assert not issubclass(StorageError, UNDECODABLE)


def test_a_name_of_windows_leads_nowhere_else(memory: Storage, photos: Path, tmp_path: Path, monkeypatch):
    """``D:/out`` and the name ``C:`` are ``C:``, and a backslash goes up from there."""
    monkeypatch.setattr(remote, "_NOT_ON_DISKS", remote._NOT_ON_WINDOWS)
    for number, name in enumerate(("cat/C:x.png", "C:/1.png", "cat/..\\..\\x.png", "cat/con.png", "cat./1.png")):
        memory.put(photos, f"{number}")
        memory.put(photos / "cat" / "1.png", f"{number}/{name}")
        with pytest.raises(ValueError, match="no folder on a disk can have"):
            run(f"{memory.address}/{number}", tmp_path / "out")


def test_places_of_this_machine_are_no_addresses():
    """A disk of Windows has one letter; ``file://`` is a path."""
    assert place_of("C://photos") == Path("C://photos")
    assert place_of("file:///tmp/photos") == Path("/tmp/photos")
    assert place_of("photos") == Path("photos")
    with pytest.raises(ValueError, match="address alone"):
        place_of("simplecache::s3://bucket/photos")
    assert [is_address(Path(each)) for each in ("s3://b/x", "C:/x", "photos")] == [True, False, False]


@pytest.mark.parametrize("address", ["ftp://me:hidden@here/photos", "zip://a::ftp://me:hidden@here/b"])
def test_a_password_in_an_address_is_shown_to_nobody(address: str) -> None:
    """It would stand in messages, in the private journal and in the list of processes."""
    with pytest.raises(ValueError, match="must hold no password") as refused_as:
        place_of(address)
    assert "hid" not in str(refused_as.value)
    assert "FSSPEC_FTP_PASSWORD" in str(refused_as.value)
    assert str(place_of("s3://bucket/a:b@c/photos")) == "s3://bucket/a:b@c/photos"  # a name, behind the bucket


def test_what_is_told_to_do_about_a_password_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """fsspec takes it from the environment, by these names."""
    from fsspec.config import set_conf_env

    taken: dict[str, object] = {}
    monkeypatch.setenv("FSSPEC_FTP_PASSWORD", "hidden")
    monkeypatch.setenv("FSSPEC_FTP_USERNAME", "me")
    set_conf_env(taken)
    assert taken["ftp"] == {"password": "hidden", "username": "me"}

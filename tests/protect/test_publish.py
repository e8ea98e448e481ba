"""Reading sources and writing protected copies: what is published, what is not, and what a kill costs."""

import errno
import hashlib
import json
import os
import shutil
import struct
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from killing import run_killed
from PIL import Image, PngImagePlugin
from safetensors.numpy import load_file
from torch.utils.data import Subset
from torchvision.datasets import ImageFolder

from semtransforms.core.config import GeneratorConfig
from semtransforms.core.files import UNFINISHED
from semtransforms.core.models import build_model
from semtransforms.data.naming import class_folders, unique_names
from semtransforms.data.sources import open_source, open_with_one_label
from semtransforms.generators.generator import NoiseGenerator
from semtransforms.protect import packing
from semtransforms.protect.publish import Outcome, protect_source
from semtransforms.protect.verify import verify
from semtransforms.protect.wrapper import ProtectedDataset

RHO = 8  # levels


def small_generator(classes: int = 2) -> NoiseGenerator:
    """A network that was never fitted: its noise is real noise all the same."""
    torch.manual_seed(0)
    config = GeneratorConfig(
        surrogate="convnet", width=4, steps_u=2, num_samples=1, num_classes=classes, image_size=(8, 8), precision="fp32"
    )
    return NoiseGenerator(build_model("convnet", num_classes=classes, image_size=8, width=4), config, name="small")


def write_pictures(root: Path, count: int, cats: int, sides: tuple[int, ...]) -> Path:
    """PNG files of noise, 8 px wide: the first ``cats`` are of one class, the others of another."""
    rng = np.random.default_rng(0)
    for i in range(count):
        folder = root / ("cat" if i < cats else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (sides[i % len(sides)], 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:0{len(str(count - 1))}d}.png")
    return root


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten PNG files of three sizes in two classes."""
    return write_pictures(tmp_path / "photos", 10, 6, (8, 12, 9))


def run(source: Path | str, out: Path, **options: object) -> Outcome:
    options.setdefault("private", out.parent / "private")
    images = open_source(str(source))
    return protect_source(images, out, small_generator(), **options)  # type: ignore[arg-type]


def tree(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_image_folder_keeps_names_and_the_bound(photos: Path, tmp_path: Path):
    """The promise of the package, on the files a user publishes: same places, labels, sizes, at most 8 levels away."""
    outcome = run(photos, tmp_path / "out")
    assert (outcome.written, outcome.found, outcome.failed) == (10, 0, [])
    files = sorted(p.relative_to(photos) for p in photos.rglob("*.png"))
    assert files == sorted(p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*.png"))
    for file in files:
        clean, protected = read(photos / file), read(tmp_path / "out" / file)
        assert protected.shape == clean.shape
        assert 0 < np.abs(protected - clean).max() <= RHO


def test_published_record_holds_no_secret(photos: Path, tmp_path: Path):
    """Whoever knows the seed, or can test a guess of the clean image by its hash, undoes the protection."""
    outcome = run(photos, tmp_path / "out", seed=8_314_159_265)
    record = (tmp_path / "out" / "protection.json").read_text()
    content = json.loads(record)
    assert content["files"] == {
        name: hashlib.sha256(data).hexdigest()
        for name, data in tree(tmp_path / "out").items()
        if name != "protection.json"
    }
    assert (content["rho_u"], content["bound_holds"], content["images"]) == ("8/255", True, 10)
    assert content["generator"] == {"name": "small", "method": "sem", "fingerprint": small_generator().fingerprint}
    assert content["made_with"] == {
        "precision": "fp32", "device": "cpu", "torch": torch.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }  # fmt: skip
    assert "8314159265" not in record
    assert str(tmp_path) not in record
    for data in tree(photos).values():
        assert hashlib.sha256(data).hexdigest() not in record
    assert set(tree(tmp_path / "out")) == {*tree(photos), "protection.json"}
    assert "8314159265" in (outcome.private / "secret.json").read_text()


def test_private_folder_is_private(photos: Path, tmp_path: Path):
    """On a machine with other users the seed must not be readable by them."""
    private = run(photos, tmp_path / "out").private
    assert [oct(p.stat().st_mode & 0o777) for p in (private.parent, private)] == ["0o700", "0o700"]
    assert {oct(p.stat().st_mode & 0o777) for p in private.iterdir()} == {"0o600"}


def test_every_protection_draws_its_own_seed(photos: Path, tmp_path: Path):
    """With one seed for all, a leak of one leaks every data set ever protected."""
    outcomes = [run(photos, tmp_path / name) for name in ("a", "b")]
    seeds = [json.loads((o.private / "secret.json").read_text())["seed"] for o in outcomes]
    assert seeds[0] != seeds[1]
    assert min(seeds) > 2**40  # too many to try
    assert tree(tmp_path / "a")["cat/0.png"] != tree(tmp_path / "b")["cat/0.png"]


def test_given_seed_reproduces(photos: Path, tmp_path: Path):
    """Research passes its seed to get the same files again."""
    for name in ("a", "b"):
        run(photos, tmp_path / name, seed=3)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


KILLED = """
from pathlib import Path
import semtransforms.protect.publish as publish
import test_publish
from killing import kill_at_rename
publish.BATCH_IMAGES = 2
kill_at_rename(8, done={done})
test_publish.run(Path({photos!r}), Path({out!r}), format={format!r})
"""


@pytest.mark.processes
@pytest.mark.parametrize(("done", "format"), [(False, "png"), (True, "parquet")])
def test_killed_run_goes_on(photos: Path, tmp_path: Path, done: bool, format: str):
    """kill -9 in mid-run: finished files are not redone, nothing is torn, the seed is the same one."""
    out = tmp_path / ("out.parquet" if format == "parquet" else "out")
    run_killed(KILLED.format(photos=str(photos), out=str(out), format=format, done=done), __file__)
    files = tmp_path / "out.parquet.unfinished" if format == "parquet" else out
    assert not (files / "protection.json").exists()
    finished = {p: p.stat().st_mtime_ns for p in files.rglob("[0-9].png")}
    assert 4 <= len(finished) <= 6  # the first two renames are the journal's
    seed = json.loads(next((tmp_path / "private").glob("*/secret.json")).read_text())["seed"]

    if format == "parquet":
        outcome = run(photos, out, format=format)
        assert not files.exists()
    else:
        outcome = run(photos, out, format=format)
        assert sum(p.stat().st_mtime_ns == before for p, before in finished.items()) == outcome.found
        assert not list(out.rglob(".*"))
    assert outcome.found == len(finished)  # the journal knows every file that lies there
    assert outcome.written == 10 - outcome.found
    again = tmp_path / ("again.parquet" if format == "parquet" else "again")
    run(photos, again, format=format, seed=seed)
    if format == "parquet":
        assert out.read_bytes() == again.read_bytes()
    else:
        assert tree(out) == tree(again)


@pytest.mark.skipif(os.name != "posix", reason="os.sync")
def test_copies_are_on_the_disk_before_the_record_says_so(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A power failure after the end would leave empty files beside a record that calls them whole; before, it costs
    what it took."""
    out, found = tmp_path / "out", []
    monkeypatch.setattr(os, "sync", lambda: found.append(set(tree(out))))
    run(photos, out)
    assert found == [set(tree(photos))]
    whole = tree(out)
    for name in sorted(tree(photos))[:2]:
        (out / name).write_bytes(b"")  # what such a failure leaves of a file whose name is on the disk and no more
    assert (run(photos, out).written, tree(out)) == (2, whole)


KILLED_BEHIND = """
from pathlib import Path
import test_publish
from killing import kill_at_rename
kill_at_rename(1, "out.parquet", done=True)
test_publish.run(Path({photos!r}), Path({out!r}), format="parquet")
"""


@pytest.mark.processes
def test_a_seed_that_no_copy_has_is_taken_up(photos: Path, tmp_path: Path):
    """A kill before the first file left a seed of nothing beside the one in use: which of them is to be kept?"""
    code = KILLED_BEHIND.replace("out.parquet", "secret.json").replace(', format="parquet"', "")
    run_killed(code.format(photos=str(photos), out=str(tmp_path / "out")), __file__)
    (secret,) = (tmp_path / "private").rglob("secret.json")
    before = secret.read_bytes()
    run(photos, tmp_path / "out")
    assert [path.read_bytes() for path in (tmp_path / "private").rglob("secret.json")] == [before]
    shutil.rmtree(tmp_path / "out")  # its copies may live elsewhere: another copy gets another seed
    run(photos, tmp_path / "out")
    assert len({path.read_bytes() for path in (tmp_path / "private").rglob("secret.json")}) == 2


@pytest.mark.processes
def test_a_kill_behind_a_finished_table_leaves_no_second_copy(photos: Path, tmp_path: Path):
    """The single files stayed beside the table for ever; but a folder of that name that is not ours is kept."""
    out, files = tmp_path / "out.parquet", tmp_path / "out.parquet.unfinished"
    run_killed(KILLED_BEHIND.format(photos=str(photos), out=str(out)), __file__)
    assert files.is_dir()
    table = out.read_bytes()
    with pytest.raises(ValueError, match=r"out\.parquet' exists already"):
        run(photos, out, format="parquet")
    assert not files.exists()
    assert out.read_bytes() == table
    (files / "mine").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"out\.parquet' exists already"):
        run(photos, out, format="parquet", private=tmp_path / "another")
    assert (files / "mine").is_dir()


@pytest.mark.processes
@pytest.mark.parametrize("done", [False, True])
def test_what_the_user_put_beside_the_single_files_of_a_table_stays(photos: Path, tmp_path: Path, done: bool):
    """The folder of the single files was removed with all that somebody had put into it in the meantime."""
    out, files = tmp_path / "out.parquet", tmp_path / "out.parquet.unfinished"
    run_killed(KILLED_BEHIND.replace("done=True", f"done={done}").format(photos=str(photos), out=str(out)), __file__)
    (files / "cat" / "mine.txt").write_text("of the user")
    (files / ".unfinished-1-2").mkdir()
    if done:
        with pytest.raises(ValueError, match=r"out\.parquet' exists already"):
            run(photos, out, format="parquet")
    else:
        run(photos, out, format="parquet")
    assert out.is_file()
    assert {path.relative_to(files).as_posix() for path in files.rglob("*")} == {
        ".unfinished-1-2", "cat", "cat/mine.txt"
    }  # fmt: skip


def test_a_disk_that_is_full_when_a_table_is_packed_is_said(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """`datasets` has an error of its own for it, which was no OSError: the command ended in a stack of calls."""
    import datasets

    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(datasets.arrow_writer.ArrowWriter, "write", lambda *_: (_ for _ in ()).throw(full))
    with pytest.raises(OSError, match=r"OUT .*out\.parquet' cannot be written \(No space left on device\)"):
        run(photos, tmp_path / "out.parquet", format="parquet")
    monkeypatch.undo()
    run(photos, tmp_path / "out.parquet", format="parquet")
    assert len(datasets.Dataset.from_parquet(str(tmp_path / "out.parquet"))) == len(open_source(str(photos)))


def test_what_a_kill_left_is_swept_where_it_is_ours(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Half a photograph would be published; but a file of the user, or of a process that still writes, is not ours."""
    from semtransforms.protect import shelves

    out = tmp_path / "out"
    private = run(photos, out).private
    (out / "mine").mkdir()
    left = [folder / f"{UNFINISHED}1-1" for folder in (out, out / "cat", private)]
    for path in (*left, out / "mine" / left[0].name):
        path.write_bytes(b"half")
    with monkeypatch.context() as patch:
        patch.setattr(shelves, "alone_in", lambda folder, argument: nullcontext(False))  # a disk without locks
        run(photos, out)
    assert all(path.exists() for path in left)
    run(photos, out)
    assert not any(path.exists() for path in left)
    assert (out / "mine" / left[0].name).exists()


def test_changed_and_torn_files_are_redone(photos: Path, tmp_path: Path):
    """A resume that trusts names would publish noise of another image, or a torn file."""
    run(photos, tmp_path / "out", seed=1)
    (tmp_path / "out" / "cat" / "0.png").write_bytes(b"torn")
    Image.new("RGB", (8, 8), "red").save(photos / "dog" / "7.png")
    outcome = run(photos, tmp_path / "out")
    assert (outcome.written, outcome.found) == (2, 8)
    assert np.abs(read(tmp_path / "out" / "dog" / "7.png") - [255, 0, 0]).max() <= RHO
    run(photos, tmp_path / "fresh", seed=1)
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_renamed_class_gets_noise_for_its_new_label(photos: Path, tmp_path: Path):
    """cat -> eel makes dog class 0: noise for class 1 would not protect it, and cat's copies must not stay."""
    run(photos, tmp_path / "out", seed=1)
    (photos / "cat").rename(photos / "eel")
    outcome = run(photos, tmp_path / "out")
    assert (outcome.written, outcome.found) == (10, 0)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["dog", "eel", "protection.json"]
    run(photos, tmp_path / "fresh", seed=1)
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_what_is_gone_from_source_goes_from_out(photos: Path, tmp_path: Path):
    """Whoever takes a picture out does not want it published; what others put into OUT is not ours to remove."""
    (photos / "cat" / "more").mkdir()
    (photos / "cat" / "0.png").rename(photos / "cat" / "more" / "0.png")
    run(photos, tmp_path / "out")
    (tmp_path / "out" / "cat" / "mine.png").write_bytes(b"mine")
    (tmp_path / "out" / "mine").mkdir()
    (tmp_path / "out" / "dog" / "8.png").write_bytes(b"mine, too")
    for name in ("cat/more/0.png", "dog/8.png"):
        (photos / name).unlink()
    (photos / "cat" / "1.png").write_bytes(b"no image any more")
    outcome = run(photos, tmp_path / "out")
    assert (outcome.written, outcome.found, outcome.removed, len(outcome.failed)) == (0, 7, 2, 1)
    assert set(tree(tmp_path / "out")) == {
        *(f"cat/{i}.png" for i in (2, 3, 4, 5)), "cat/mine.png", "dog/6.png", "dog/7.png", "dog/8.png", "dog/9.png",
        "protection.json",
    }  # fmt: skip
    assert not (tmp_path / "out" / "cat" / "more").exists()
    assert (tmp_path / "out" / "mine").exists()
    assert len(json.loads((tmp_path / "out" / "protection.json").read_text())["files"]) == 7


def test_changed_torchvision_image_is_redone(tmp_path: Path):
    """It has no file of its own whose time could tell."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    digits = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)

    def write() -> None:  # the published format: big-endian header, then bytes
        for part in ("train", "t10k"):
            (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">iiii", 2051, 3, 28, 28) + digits.tobytes())
            (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 2049, 3) + bytes([7, 2, 1]))

    write()
    spec, private = f"torchvision:MNIST:{tmp_path}", tmp_path / "private"
    protect_source(open_source(spec), tmp_path / "out", small_generator(10), private=private)
    digits[1] = 128
    write()
    outcome = protect_source(open_source(spec), tmp_path / "out", small_generator(10), private=private)
    assert (outcome.written, outcome.found) == (1, 2)
    assert np.abs(read(next((tmp_path / "out").rglob("1.png"))) - 128).max() <= RHO
    with pytest.raises(ValueError, match=r"no split 'val'.*train, test"):
        open_source(spec, split="val")


def test_two_runs_at_once_are_refused(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each would draw a seed of its own, and OUT would hold noise of both."""
    make = NoiseGenerator.make_noise

    def noise(*arguments: object, **options: object) -> object:
        with pytest.raises(ValueError, match=r"OUT .* another process"):
            run(photos, tmp_path / "out")
        with pytest.raises(ValueError, match=r"OUT .* another process"):
            run(photos, tmp_path / "out", private=tmp_path / "elsewhere")
        return make(*arguments, **options)

    monkeypatch.setattr(NoiseGenerator, "make_noise", noise)
    run(photos, tmp_path / "out")
    assert len(list((tmp_path / "private").rglob("secret.json"))) == 1
    assert not (tmp_path / "elsewhere").exists()


def test_a_run_that_cannot_work_leaves_nothing_behind(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A seed for files that never were, or empty folders that look like a protection."""
    (tmp_path / "file").write_text("a file")
    broken = tmp_path / "broken"
    for name in ("a", "b"):
        (broken / name).mkdir(parents=True)
        (broken / name / "1.png").write_bytes(b"no image")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OSError, match=r"OUT '.*file/out' cannot be written .*Choose a place"):
        run(photos, tmp_path / "file" / "out", private=tmp_path / "private")
    with pytest.raises(OSError, match=r"--cache-dir '.*file/private' cannot be written .*Choose a place"):
        run(photos, tmp_path / "new" / "out", private=tmp_path / "file" / "private")
    for format in ("png", "datasets"):
        with pytest.raises(ValueError, match=r"no image that can be protected.*a/1\.png \(it is no image"):
            run(broken, tmp_path / "new" / "out", format=format)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 500}))
        with pytest.raises(OSError, match=r"OUT '.*out' needs about [\d,]+ bytes .* 500 free"):
            run(photos, tmp_path / "out", private=tmp_path / "private")
    assert sorted(tmp_path.rglob("*")) == before


def test_disk_that_fills_up_is_said_in_our_words(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """'[Errno 28]' names neither the argument nor what to do; what is finished stays finished."""
    from semtransforms.protect import shelves

    write = shelves.write_atomically

    def full(path: Path, data: bytes, **options: int) -> None:
        if path.name == "3.png":
            raise OSError(28, "No space left on device", str(path))
        write(path, data, **options)

    with monkeypatch.context() as patch:
        patch.setattr(shelves, "write_atomically", full)
        with pytest.raises(OSError, match=r"^OUT '.*out' cannot be written \(No space left on device\)\. Choose"):
            run(photos, tmp_path / "out")
    assert run(photos, tmp_path / "out").found > 0


def test_files_that_vanish_while_it_runs_are_missed(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Exit code 0, and protection.json names files that are not there."""
    import semtransforms.protect.publish as publish

    def vanishing(*arguments: object):
        for group in publish.make(*arguments):
            yield group
            shutil.rmtree(tmp_path / "out" / "cat", ignore_errors=True)

    monkeypatch.setattr(publish, "BATCH_IMAGES", 6)  # the cats, then the dogs
    with pytest.raises(OSError, match=r"OUT '.*out': 'cat/0\.png' was written and is gone.*same command"):
        run(photos, tmp_path / "out", engine=vanishing)
    assert not (tmp_path / "out" / "protection.json").exists()
    assert run(photos, tmp_path / "out").written == 6
    assert len(list((tmp_path / "out").rglob("*.png"))) == 10


def test_metadata_stays_behind(tmp_path: Path):
    """EXIF with GPS, an ICC profile or a PNG text tell who took a photograph, where, and help to find the original."""
    folder = tmp_path / "photos" / "a"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x010E] = "secret place"
    exif[0x0112] = 6  # orientation: lies on its side
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 12.0)
    image.save(folder / "x.jpg", exif=exif, icc_profile=b"secret profile", comment=b"secret comment")
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "secret author")
    image.save(folder / "y.png", pnginfo=text)
    other = tmp_path / "photos" / "b"
    other.mkdir()
    image.save(other / "z.png")
    outcome = run(tmp_path / "photos", tmp_path / "out")
    assert outcome.with_metadata == 2
    for name, data in tree(tmp_path / "out").items():
        assert b"secret" not in data
        if name.endswith(".png"):
            kinds, at = [], 8
            while at < len(data):  # PNG by hand: length, type, data, CRC
                (length,) = struct.unpack(">I", data[at : at + 4])
                kinds.append(data[at + 4 : at + 8])
                at += 12 + length
            assert set(kinds) == {b"IHDR", b"IDAT", b"IEND"}
    upright = np.rot90(read(folder / "x.jpg"), -1)  # orientation 6: turn clockwise
    assert np.abs(read(tmp_path / "out" / "a" / "x.png") - upright).max() <= RHO


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_colour_modes_become_rgb(mode: str, tmp_path: Path):
    """A mode read wrongly is either an error in the middle of the run or a protected copy of another picture."""
    folder = tmp_path / "photos" / "a"
    folder.mkdir(parents=True)
    (tmp_path / "photos" / "b").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "b" / "plain.png")
    rng = np.random.default_rng(0)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, (8, 8), dtype=np.uint16))
        expected = np.repeat(np.round(np.asarray(image)[..., None] / 257), 3, axis=2)
    else:
        image = Image.fromarray(rng.integers(0, 256, (8, 8, 4), dtype=np.uint8), "RGBA")
        image = image.convert("RGB").convert(mode) if mode in ("P", "CMYK", "1") else image.convert(mode)
        expected = np.asarray(image.convert("RGB"))
    image.save(folder / ("x.tif" if mode == "CMYK" else "x.png"))
    run(tmp_path / "photos", tmp_path / "out")
    protected = read(tmp_path / "out" / "a" / "x.png")
    assert np.abs(protected[..., :3] - expected).max() <= RHO
    if "A" in mode:
        np.testing.assert_array_equal(protected[..., 3], np.asarray(image.convert("RGBA"))[..., 3])
    else:
        assert protected.shape == (8, 8, 3)


def test_same_stems_do_not_overwrite_each_other(photos: Path, tmp_path: Path):
    """a.jpg and a.png both become a.png unless someone takes care; one image would vanish without a word."""
    names = ["cat/a.jpg", "cat/a.png", "cat/A.bmp", "cat/a.png.png", "dog/a.png"]
    unique = unique_names(names)
    assert unique[0] == "cat/a"
    assert unique[4] == "dog/a"
    assert len({name.lower() for name in unique}) == 5
    Image.new("RGB", (8, 8)).save(photos / "cat" / "0.bmp")
    run(photos, tmp_path / "out")
    assert len(list((tmp_path / "out" / "cat").iterdir())) == 7


def test_undecodable_images_are_named_and_the_others_finished(photos: Path, tmp_path: Path):
    """One broken file among thousands must neither stop the run nor pass unseen; mended, it is added."""
    whole = (photos / "cat" / "1.png").read_bytes()
    (photos / "cat" / "1.png").write_bytes(whole[:60])
    Image.new("RGB", (40, 3)).save(photos / "dog" / "8.png")  # decodes, and is too small for any network
    outcome = run(photos, tmp_path / "out")
    assert outcome.written == 8
    assert [failed.split(" (")[0] for failed in outcome.failed] == [
        str(photos / "cat" / "1.png"), str(photos / "dog" / "8.png")
    ]  # fmt: skip
    assert json.loads((tmp_path / "out" / "protection.json").read_text())["images"] == 8
    (photos / "cat" / "1.png").write_bytes(whole)
    outcome = run(photos, tmp_path / "out")
    assert (outcome.written, outcome.found, len(outcome.failed)) == (1, 8, 1)


def test_parquet_in_shards(photos: Path, tmp_path: Path, hf_cache: None, monkeypatch: pytest.MonkeyPatch):
    """Millions of images in one file cannot be shared out, and the Hub wants them in shards of its own names."""
    import datasets

    run(photos, tmp_path / "files", seed=5)
    expected = sorted((tmp_path / "files").rglob("*.png"))
    largest = max(file.stat().st_size for file in expected)
    monkeypatch.setattr(packing, "IN_A_SHARD", 3 * largest)
    out = tmp_path / "out"
    run(photos, out, seed=5, format="parquet")
    shards = sorted(out.glob("*.parquet"))
    assert [file.name for file in shards] == [
        f"train-{number:05d}-of-{len(shards):05d}.parquet" for number in range(len(shards))
    ]
    counts = [pq.read_metadata(file).num_rows for file in shards]
    assert sum(counts) == len(expected)
    assert all(count >= 3 for count in counts[:-1]), counts
    assert len(counts) > 2
    table = datasets.load_dataset(str(out), split="train")  # as a folder that was downloaded from the Hub
    for row, file in zip(table, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(row["image"]), read(file))
        assert table.features["label"].names[row["label"]] == file.parent.name
    assert set(json.loads((out / "protection.json").read_text())["files"]) == {file.name for file in shards}
    assert all(found.holds for found in verify(out, open_source(str(photos))))
    assert not (tmp_path / "out.unfinished").exists()
    # an image larger than a shard has one of its own
    monkeypatch.setattr(packing, "IN_A_SHARD", 1)
    run(photos, tmp_path / "single", seed=5, format="parquet")
    assert len(list((tmp_path / "single").glob("*.parquet"))) == len(expected)


@pytest.mark.parametrize("format", ["parquet", "datasets"])
def test_packed_formats_read_back_bit_for_bit(photos: Path, tmp_path: Path, format: str, hf_cache: None):
    """`datasets` stores paths, or re-encodes as JPEG, unless it is given PNG bytes; either loses the noise."""
    import datasets

    out = tmp_path / ("out.parquet" if format == "parquet" else "out")
    run(photos, tmp_path / "files", seed=5)
    run(photos, out, seed=5, format=format)
    if format == "parquet":
        table = datasets.load_dataset("parquet", data_files=str(out), split="train")
        record = json.loads((tmp_path / "out.protection.json").read_text())
        published = {out.name: out.read_bytes()}
    else:
        table = datasets.load_from_disk(str(out))
        record = json.loads((out / "protection.json").read_text())
        published = tree(out)
    expected = sorted((tmp_path / "files").rglob("*.png"))
    assert len(table) == len(expected)
    for row, file in zip(table, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(row["image"]), read(file))
        assert table.features["label"].names[row["label"]] == file.parent.name
    for name, sha in record["files"].items():
        assert hashlib.sha256(published[name]).hexdigest() == sha
    for data in published.values():
        assert str(tmp_path).encode() not in data
    assert not list(tmp_path.glob("*.unfinished"))


@pytest.fixture
def hf_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` copies what it reads into its cache; not into the user's, here."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


def test_tables_and_torchvision_as_sources(photos: Path, tmp_path: Path, hf_cache: None):
    """Each form of SOURCE gives the same images under the same labels."""
    import datasets

    clean = datasets.load_dataset("imagefolder", data_dir=str(photos), split="train")
    clean = clean.add_column("taken_at", ["home"] * 10).rename_column("image", "img")
    clean.save_to_disk(str(tmp_path / "table"))
    datasets.DatasetDict(test=clean).save_to_disk(str(tmp_path / "parts"))
    clean.to_parquet(str(tmp_path / "clean.parquet"))
    folder = open_source(str(photos))
    for spec, split in (("table", "train"), ("parts", "test"), ("clean.parquet", "train"), ("clean.p*", "train")):
        source = open_source(str(tmp_path / spec), split=split)
        assert source.classes == folder.classes == ("cat", "dog")
        assert source.other_columns == ("taken_at",)
        for (image, label), (same, also) in zip(every(source), every(folder), strict=True):
            assert torch.equal(image, same)
            assert label == also
    run(tmp_path / "clean.parquet", tmp_path / "out")
    assert [p.name for p in sorted((tmp_path / "out" / "dog").iterdir())] == ["6.png", "7.png", "8.png", "9.png"]
    os.utime(tmp_path / "clean.parquet")  # fetched or copied anew: the same images, and the same protection goes on
    shutil.rmtree(tmp_path / "hf")
    assert run(tmp_path / "clean.parquet", tmp_path / "out").found == 10
    run(tmp_path / "clean.parquet", tmp_path / "out.parquet", format="parquet")
    assert datasets.Dataset.from_parquet(str(tmp_path / "out.parquet")).column_names == ["img", "label"]

    raw = tmp_path / "MNIST" / "raw"  # the published format: big-endian header, then bytes
    raw.mkdir(parents=True)
    digits = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">iiii", 2051, 3, 28, 28) + digits.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 2049, 3) + bytes([7, 2, 1]))
    source = open_source(f"torchvision:MNIST:{tmp_path}", split="test")
    assert [label for _, label in every(source)] == [7, 2, 1]
    np.testing.assert_array_equal(source[1][0], np.repeat(digits[1][None], 3, axis=0))
    assert source.classes is not None
    assert source.classes[7] == "7 - seven"


def test_parts_are_never_merged(photos: Path, tmp_path: Path, hf_cache: None):
    """Test images protected with the training images, or parts read as classes, ruin both without a word."""
    import datasets

    clean = datasets.load_dataset("imagefolder", data_dir=str(photos), split="train")
    for clone in (tmp_path / "flat", tmp_path / "clone" / "data"):  # as written by hand, and as the Hub clones
        clone.mkdir(parents=True)
        clean.select(range(6)).to_parquet(str(clone / "train-00000-of-00001.parquet"))
        clean.select(range(6, 10)).to_parquet(str(clone / "test-00000-of-00001.parquet"))
    (tmp_path / "clone" / "README.md").write_text("---\nlicense: mit\n---\n")
    for folder in (tmp_path / "flat", tmp_path / "clone"):
        assert (len(open_source(str(folder))), len(open_source(str(folder), split="test"))) == (6, 4)
        with pytest.raises(ValueError, match=r"no split 'val'.*--split, one of: train, test"):
            open_source(str(folder), split="val")
    with pytest.raises(ValueError, match=r"--split 'test' .* image folder"):
        open_source(str(photos), split="test")
    for part in ("train", "val"):
        shutil.copytree(photos / "cat", tmp_path / "both" / part / "cat")
    with pytest.raises(ValueError, match=r"holds parts \(train, val\).*Give one part: '.*both/train'"):
        open_source(str(tmp_path / "both"))
    # sub-folders of classes are no parts
    (tmp_path / "both").rename(tmp_path / "nested")
    for part, name in (("train", "cat"), ("val", "dog")):
        (tmp_path / "nested" / part).rename(tmp_path / "nested" / name)
    assert open_source(str(tmp_path / "nested")).classes == ("cat", "dog")


def every(source):
    return (source[i] for i in range(len(source)))


def test_folder_names_sort_like_labels():
    """ImageFolder numbers labels by sorted folder names: in another order every label would be another one."""
    assert class_folders(("cat", "dog"), 2) == ("cat", "dog")
    assert class_folders(None, 11)[:2] == ("00", "01")
    for classes in (("dog", "cat"), ("a/b", "a?b"), tuple(f"class {i}" for i in range(12)), ("..", ".")):
        folders = class_folders(classes, len(classes))
        assert list(folders) == sorted(folders)
        assert len({folder.lower() for folder in folders}) == len(classes)
        assert not any("/" in folder or folder.startswith(".") for folder in folders)


def test_noise_format_is_the_difference_and_private(photos: Path, tmp_path: Path):
    """The noise alone is for keeping: exact, and closed to other users."""
    run(photos, tmp_path / "out", seed=2)
    run(photos, tmp_path / "noise", seed=2, format="noise")
    files = list((tmp_path / "noise").rglob("*.safetensors"))
    assert len(files) == 10
    for file in files:
        name = file.relative_to(tmp_path / "noise").with_suffix(".png")
        noise = load_file(file)["noise"]
        assert noise.dtype == np.int8
        np.testing.assert_array_equal(read(tmp_path / "out" / name) - read(photos / name), noise.transpose(1, 2, 0))
        assert file.stat().st_mode & 0o077 == 0
    assert (tmp_path / "noise").stat().st_mode & 0o077 == 0
    assert not (tmp_path / "noise" / "protection.json").exists()


def test_jpeg_says_that_the_bound_is_gone(photos: Path, tmp_path: Path):
    """JPEG changes pixels by more than rho_u: a record that claims the bound would be a lie."""
    run(photos, tmp_path / "out", format="jpeg")
    assert json.loads((tmp_path / "out" / "protection.json").read_text())["bound_holds"] is False
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 10


def test_labels_must_fit_the_generator(photos: Path, tmp_path: Path):
    """Noise for another number of classes protects nothing; found out before anything is written."""
    with pytest.raises(ValueError, match=r"SOURCE has 2 classes, (the )?generator .*3.*semtransforms fit"):
        protect_source(open_source(str(photos)), tmp_path / "out", small_generator(3), private=tmp_path / "private")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "private").exists()


def test_places_that_would_do_harm_are_refused(photos: Path, tmp_path: Path):
    """Writing into SOURCE would protect the protected; writing over someone's files would destroy them."""
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    before = tree(tmp_path)
    for out, message in (
        (photos / "out", "inside SOURCE"),
        (photos, "inside SOURCE"),
        (tmp_path, "inside OUT"),
        (full, "not empty"),
        (full / "mine.txt", "is a file"),
    ):
        with pytest.raises(ValueError, match=message):
            run(photos, out, private=tmp_path.parent / "private")
    with pytest.raises(ValueError, match="would be published"):
        run(photos, tmp_path / "out", private=tmp_path / "out" / "private")
    run(photos, tmp_path / "ours", seed=1)
    with pytest.raises(ValueError, match="another seed"):
        run(photos, tmp_path / "ours", seed=2)
    (tmp_path / "ours" / "protection.json").unlink()
    after = tree(tmp_path)
    assert all(after[name] == data for name, data in before.items())


def test_sources_that_are_none_say_what_would_be(tmp_path: Path):
    """A mistyped path must end in a list of what SOURCE may be, not in a stack of calls."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "hollow" / "cat").mkdir(parents=True)
    (tmp_path / "text.txt").write_text("text")
    for spec, message in (
        (str(tmp_path / "empty"), "no class sub-folders.*torchvision:NAME:ROOT"),
        (str(tmp_path / "hollow"), "holds no images"),
        (str(tmp_path / "text.txt"), "not Parquet"),
        (str(tmp_path / "nowhere"), "does not exist.*image folder"),
        ("torchvision:CIFAR10", "must be torchvision:NAME:ROOT"),
        ("torchvision:CIFAR11:.", "did you mean .*'CIFAR10'"),
        (f"torchvision:CIFAR10:{tmp_path}", "cannot be read"),
    ):
        with pytest.raises(ValueError, match=message):
            open_source(spec)


@pytest.mark.parametrize("names", [None, ["cat", "dog", "eel"], ["eel", "cat", "dog"]])
@pytest.mark.parametrize("format", ["png", "jpeg"])
def test_classes_without_images_keep_their_numbers(names, format: str, tmp_path: Path, hf_cache: None):
    """The copy of labels 0 and 2 has an empty folder, which ImageFolder and our own commands refuse, or labels 0, 1."""
    import datasets

    labels = [0, 2, 2, 0]
    kind = datasets.Value("int64") if names is None else datasets.ClassLabel(names=names)
    features = datasets.Features({"image": datasets.Image(), "label": kind})
    images = [Image.new("RGB", (8, 8), (60 * row,) * 3) for row in range(4)]
    table = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
    table.to_parquet(tmp_path / "rows.parquet")
    out = tmp_path / "out"

    def protect() -> Outcome:
        source = open_source(str(tmp_path / "rows.parquet"))
        return protect_source(source, out, small_generator(3), format=format, seed=1, private=tmp_path / "private")

    assert len(protect().empty) == 1
    assert len(ImageFolder(out)) == 4
    copy = datasets.load_dataset("imagefolder", data_dir=str(out), cache_dir=tmp_path / "read")["train"]
    ours = open_source(str(out))
    assert ours.classes == (None if names is None else tuple(names))
    for row, label in enumerate(ours.labels.tolist()):
        shade = ours[row][0].float().mean() / 60  # which image it is
        assert labels[round(float(shade))] == label
    assert sorted(copy["label"][:]) == sorted(labels)
    assert len(protect().empty) == 1  # begun again, it stays so


def test_the_table_of_labels_goes_when_no_class_is_empty(photos: Path, tmp_path: Path):
    """Images that come later are not in the table of an earlier run, and every reader refuses the copy."""
    kept = {path.name: path.read_bytes() for path in (photos / "dog").iterdir()}
    for name in kept:
        (photos / "dog" / name).write_bytes(b"no image")
    out = tmp_path / "out"
    assert run(photos, out).empty == ("dog",)
    assert open_source(str(out)).labels.unique().tolist() == [0]
    for name, data in kept.items():
        (photos / "dog" / name).write_bytes(data)
    assert run(photos, out).empty == ()
    assert set(tree(out)) == {*tree(photos), "protection.json"}
    assert len(open_source(str(out))) == 10


def test_a_published_copy_is_not_protected_again(photos: Path, tmp_path: Path, hf_cache: None):
    """A folder, a class of it, its Parquet or its rows once more: 16 levels at a radius of 8."""
    import datasets

    private = tmp_path / "private"
    run(photos, tmp_path / "out")
    for format, name in (("parquet", "out.parquet"), ("datasets", "rows")):
        run(photos, tmp_path / name, format=format)
        with pytest.raises(ValueError, match="protected already"):
            run(tmp_path / name, tmp_path / "again")
        assert len(open_source(str(tmp_path / name))) == 10  # `evaluate --protected` reads it
    one = open_with_one_label(tmp_path / "out" / "cat", 0, ("cat", "dog"))
    for source in (open_source(str(tmp_path / "out")), one):
        with pytest.raises(ValueError, match=r"protection.json: it is protected already"):
            protect_source(source, tmp_path / "again", small_generator(), private=private)
    rows = datasets.load_from_disk(tmp_path / "rows")
    for dataset in (ImageFolder(tmp_path / "out"), Subset(ImageFolder(tmp_path / "out"), [1]), rows):
        with pytest.raises(TypeError, match="protected already"):
            ProtectedDataset(dataset, small_generator(), cache_dir=tmp_path / "cache", progress=False)


def test_parquet_of_the_same_size_and_time_is_read_anew(tmp_path: Path, hf_cache: None):
    """`datasets` takes a new file of the old one's size and time for it: the new photographs are never published."""
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    file, sizes = tmp_path / "table" / "rows.parquet", []
    file.parent.mkdir()
    for shade in (10, 20):
        images = [Image.new("RGB", (8, 8), (shade + row,) * 3) for row in range(2)]
        datasets.Dataset.from_dict({"image": images, "label": [0, 1]}, features=features).to_parquet(file)
        os.utime(file, (1_700_000_000, 1_700_000_000))
        sizes.append(file.stat().st_size)
        for spec in (file, file.parent):
            assert [int(open_source(str(spec))[row][0][0, 0, 0]) for row in range(2)] == [shade, shade + 1]
    assert sizes[0] == sizes[1]


def test_folders_of_systems_are_not_published(photos: Path, tmp_path: Path):
    """Thumbnails of a NAS and a bin's pictures become classes of their own, or images of another class."""
    for folder in (
        "@eaDir/1.jpg",
        "cat/@eaDir",
        "$RECYCLE.BIN",
        "__MACOSX/cat",
        "dog/#recycle",
        "lost+found",
        ".Trash-1000",
    ):
        (photos / folder).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(photos / folder / "thumbnail.png")
    expected = [f"{'cat' if i < 6 else 'dog'}/{i}.png" for i in range(10)]
    run(photos, tmp_path / "out")
    assert set(tree(tmp_path / "out")) == {*expected, "protection.json"}


def test_what_is_in_the_way_is_named(photos: Path, tmp_path: Path):
    """'Not empty' of a folder that looks empty, since Finder left a hidden file there."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".DS_Store").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds '.DS_Store'"):
        run(photos, tmp_path / "out")

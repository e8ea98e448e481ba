"""Photographs: JPEG files to publish, several processes, and files that are not what they seem."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import icc
import numpy as np
import psutil
import pytest
from killing import run_killed
from PIL import Image
from test_publish import RHO, hf_cache, read, run, small_generator, tree  # noqa: F401
from torchvision.datasets import ImageFolder
from typer.testing import CliRunner, Result

from semtransforms.cli import app
from semtransforms.protect import shelves

SIDES = ((24, 32), (17, 17), (40, 21))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Nine smooth JPEG photographs of three sizes in two classes, larger than the generator's 8 pixels."""
    rng = np.random.default_rng(0)
    for k in range(9):
        folder = tmp_path / "photos" / ("cat" if k < 5 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        exif = Image.Exif()
        exif[0x010F] = "a maker"
        small.resize(SIDES[k % 3], Image.Resampling.BICUBIC).save(folder / f"{k}.jpg", quality=95, exif=exif)
    return tmp_path / "photos"


def command(photos: Path, out: Path, *options: object) -> Result:
    generator = out.parent / "generator"
    if not generator.exists():
        small_generator().save_pretrained(generator)
    arguments = ("protect", photos, out, "--generator", generator, "--cache-dir", out.parent / "cache", *options)
    return CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.mark.parametrize("quality", [None, 75, 100])
def test_jpeg_says_what_is_measured_in_the_files(photos: Path, tmp_path: Path, quality: int | None):
    """A bound that the files do not keep, or a figure of other files, would be published beside them."""
    result = command(photos, tmp_path / "out", "--format", "jpeg", *(["--quality", quality] if quality else []))
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out" / "protection.json").read_text())
    files = sorted(p.relative_to(photos) for p in photos.rglob("*.jpg"))
    assert sorted(record["files"]) == [file.as_posix() for file in files]
    apart = np.concatenate([(read(tmp_path / "out" / file) - read(photos / file)).ravel() for file in files])
    assert record["largest_difference"] == f"{np.abs(apart).max()}/255"
    assert record["rms_difference"] == f"{np.sqrt((apart**2).mean()):.2f}/255"
    assert (record["format"], record["quality"], record["bound_holds"]) == ("jpeg", quality or 90, False)
    last = result.stdout.splitlines()[-1]
    assert f"up to {np.abs(apart).max()} grey levels" in last
    assert f"{np.sqrt((apart**2).mean()):.1f} root mean square" in last
    tables = {}
    for name, wanted in (("ours", Image.open(tmp_path / "out" / files[0])), ("theirs", encoded(quality or 90))):
        assert [layer[1:3] for layer in wanted.layer] == [(1, 1)] * 3  # 4:4:4
        tables[name] = wanted.quantization
    assert tables["ours"] == tables["theirs"]


def encoded(quality: int) -> Image.Image:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", quality=quality, subsampling=0)
    return Image.open(io.BytesIO(buffer.getvalue()))


def test_png_is_measured_too_and_keeps_its_bound(photos: Path, tmp_path: Path):
    """The two formats could not be compared; and what earlier calls have finished would be missing in the figure."""
    first = run(photos, tmp_path / "out", seed=1)
    (tmp_path / "out" / "cat" / "0.png").unlink()
    again = run(photos, tmp_path / "out")
    assert (again.written, again.found, again.difference) == (1, 8, first.difference)
    files = sorted(p.relative_to(photos).with_suffix("") for p in photos.rglob("*.jpg"))
    apart = [
        read((tmp_path / "out" / file).with_suffix(".png")) - read((photos / file).with_suffix(".jpg"))
        for file in files
    ]
    joined = np.concatenate([each.ravel() for each in apart])
    assert again.difference == (np.abs(joined).max(), (joined**2).sum(), joined.size)
    assert again.difference.largest <= RHO


def test_a_jpeg_says_nothing_but_its_pixels(photos: Path, tmp_path: Path):
    """EXIF, a profile or a comment of the owner would be published."""
    Image.open(photos / "cat" / "0.jpg").save(photos / "cat" / "p.jpg", icc_profile=icc.rgb_profile(), comment=b"mine")
    run(photos, tmp_path / "out", format="jpeg")
    for data in tree(tmp_path / "out").values():
        if not data.startswith(b"\xff\xd8"):
            continue
        at, markers = 2, []
        while data[at + 1] != 0xDA:  # JPEG by hand: marker, length, data; up to the scan
            markers.append(data[at + 1])
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        assert set(markers) <= {0xE0, 0xDB, 0xC0, 0xC4}  # JFIF, tables, frame, codes
        assert data[20:22] == b"\xff\xdb"  # JFIF without a thumbnail


def test_jpeg_can_be_read_back_everywhere(photos: Path, tmp_path: Path, hf_cache: None):  # noqa: F811
    """What is published would be another data set: other labels, other images, or none."""
    import datasets

    Image.open(photos / "cat" / "0.jpg").save(photos / "cat" / "0.png")
    run(photos, tmp_path / "out", format="jpeg")
    assert sorted(p.name for p in (tmp_path / "out" / "cat").iterdir()) == [
        "0.jpg", "0.png.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"
    ]  # fmt: skip
    folder = ImageFolder(str(tmp_path / "out"))
    assert (folder.classes, folder.targets) == (["cat", "dog"], [0] * 6 + [1] * 4)
    table = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "out"), split="train")
    assert table["label"][:] == folder.targets
    for row, (path, _) in zip(table, folder.samples, strict=True):
        np.testing.assert_array_equal(np.asarray(row["image"]), np.asarray(Image.open(path)))
    assert "noise on noise" in command(tmp_path / "out", tmp_path / "again").stderr


def test_what_was_begun_goes_on_with_the_same_format_only(photos: Path, tmp_path: Path):
    """OUT would hold files of two kinds, and a record of one."""
    out = tmp_path / "out"
    assert command(photos, out, "--format", "jpeg").exit_code == 0
    for options in ((), ("--format", "jpeg", "--quality", 91)):
        result = command(photos, out, *options)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "not an unfinished protection" in result.stderr
    assert "9 were finished before" in command(photos, out, "--format", "jpeg", "--quality", 90).stdout
    for options, words in (
        (("--quality", 90), ("quality=90", "'png'")),
        (("--format", "jpeg", "--quality", 74), ("quality", "75..100", "74")),
        (("--format", "jpeg", "--quality", 101), ("quality", "75..100", "101")),
        (("--workers", -1), ("workers", "-1")),
        (("--max-megapixels", 0), ("max_megapixels", "0")),
    ):
        result = command(photos, tmp_path / "new", *options)
        assert (result.exit_code, result.stdout) == (2, "")
        assert all(word in result.stderr for word in words), result.stderr
        assert not (tmp_path / "new").exists()


def test_another_picture_of_the_same_size_and_time_is_noticed(photos: Path, tmp_path: Path):
    """Unpacked archives and cp -p keep times: the copy of a picture that is gone would stay published."""
    file = photos / "cat" / "one.bmp"
    Image.new("RGB", (16, 16), "red").save(file)
    before = file.stat()
    run(photos, tmp_path / "out")
    Image.new("RGB", (16, 16), "blue").save(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert run(photos, tmp_path / "out").written == 1
    assert np.abs(read(tmp_path / "out" / "cat" / "one.png") - [0, 0, 255]).max() <= RHO


def test_files_that_are_not_what_they_seem(photos: Path, tmp_path: Path):
    """Each is named with what to do, the others are finished, and the exit code tells."""
    cat = photos / "cat"
    frames = [Image.fromarray(np.full((9, 9, 3), level, np.uint8)) for level in (0, 255)]
    for name in ("moving.gif", "moving.webp", "moving.png"):
        frames[0].save(cat / name, save_all=True, append_images=frames[1:])
    (cat / "text.jpg").write_text("<html>404</html>")
    (cat / "zero.jpg").touch()
    (cat / "cut.jpg").write_bytes((cat / "0.jpg").read_bytes()[:-60])
    Image.new("RGB", (4000, 1)).save(cat / "panorama.png")
    Image.new("1", (900, 900)).save(cat / "huge.png")
    Image.new("RGB", (20, 20), "red").save(cat / "really.png", "PNG")
    (cat / "really.png").rename(cat / "really.jpg")  # read by its content
    Image.new("RGB", (9, 6), "red").save(cat / "small.png")  # smaller than the generator's 8, enough for its network
    smallest = small_generator().smallest
    result = command(photos, tmp_path / "out", "--max-megapixels", 0.8)
    assert result.exit_code == 1
    lines = {line.split("/cat/")[1].split(" (")[0]: line for line in result.stderr.splitlines() if "/cat/" in line}
    wanted = {
        "moving.gif": "moving, 2 pictures", "moving.webp": "moving, 2 pictures", "moving.png": "moving, 2 pictures",
        "text.jpg": "no image of a known format", "zero.jpg": "empty, 0 bytes", "cut.jpg": "truncated",
        "panorama.png": f"4000x1 pixels; the generator takes {smallest} and more",
        "huge.png": "0.8 megapixels, more than the limit of 0.8. Shrink it, or lift the limit",
    }  # fmt: skip
    if smallest > 6:
        wanted["small.png"] = "9x6 pixels"
    assert lines.keys() == wanted.keys()
    assert all(words in lines[name] for name, words in wanted.items()), lines
    assert np.abs(read(tmp_path / "out" / "cat" / "really.png") - [255, 0, 0]).max() <= RHO
    assert f"{9 + 2 - (smallest > 6)} images protected" in result.stdout


def test_profiles_are_counted_and_applied(photos: Path, tmp_path: Path):
    """The owner must learn that colours were converted, and which profile was not understood."""
    rgb = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(photos / "cat" / "x.png", icc_profile=icc.rgb_profile())
    Image.fromarray(rgb).save(photos / "dog" / "y.png", icc_profile=b"broken")
    result = command(photos, tmp_path / "out")
    assert "1 images had another colour profile and were converted to sRGB." in result.stdout
    assert "1 images have a colour profile that cannot be used" in result.stdout
    assert np.abs(read(tmp_path / "out" / "cat" / "x.png") - icc.from_adobe(rgb)).max() <= RHO + 1.5
    assert np.abs(read(tmp_path / "out" / "dog" / "y.png") - rgb).max() <= RHO


def test_room_is_estimated_for_the_format(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A disk fills up after an hour's work; or one that is large enough for JPEG is refused."""
    large = Image.new("RGB", (1000, 1000))
    for k in range(4):
        large.save(photos / "cat" / f"l{k}.png")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 2_000_000}))
    result = command(photos, tmp_path / "out")
    assert result.exit_code == 2
    needed = int(result.stderr.split("needs about ")[1].split(" bytes")[0].replace(",", ""))
    assert 4_000_000 < needed < 8_000_000  # four times 0.8 to 2.4 bytes a pixel, which PNG files with noise have
    assert "its disk has 2,000,000 free" in result.stderr
    assert not (tmp_path / "out").exists()
    assert command(photos, tmp_path / "out", "--format", "jpeg").exit_code == 0


def test_a_row_without_an_image_says_so(tmp_path: Path, hf_cache: None):  # noqa: F811
    """It would be called damaged, or stop the run, and nobody would find the row."""
    import datasets

    picture = encoded(90)
    rows = {"image": [picture, None, picture], "label": [0, 1, 1]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "rows.parquet"))
    outcome = run(tmp_path / "rows.parquet", tmp_path / "out")
    assert outcome.written == 2
    (failed,) = outcome.failed
    assert failed.startswith("image 1 of ")
    assert "no image in this row" in failed


def processes(mark: str) -> list[psutil.Process]:
    """Processes that were started under an environment variable of a test."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("PHOTOGRAPHS_TEST") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def nobody_left(mark: str) -> bool:
    end = time.monotonic() + 20
    while (left := processes(mark)) and time.monotonic() < end:
        time.sleep(0.1)
    return not left


KILLED = """
from pathlib import Path
import semtransforms.protect.publish as publish
import test_publish
from killing import kill_at_rename
publish.BATCH_IMAGES = 2
kill_at_rename(5)
test_publish.run(Path({photos!r}), Path({out!r}), seed=1, format="jpeg", workers=2)
"""


@pytest.mark.processes
def test_workers_make_the_same_files_and_die_with_their_parent(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Another number of processes would publish other noise; and kill -9 would leave some behind, waiting for ever."""
    (photos / "dog" / "cut.jpg").write_bytes((photos / "dog" / "5.jpg").read_bytes()[:-60])
    with monkeypatch.context() as patch:
        patch.setenv("PHOTOGRAPHS_TEST", str(tmp_path))
        run_killed(KILLED.format(photos=str(photos), out=str(tmp_path / "out")), __file__)
    assert nobody_left(str(tmp_path))
    finished = len(list((tmp_path / "out").rglob("[0-9].jpg")))
    assert 1 <= finished <= 4
    outcome = run(photos, tmp_path / "out", seed=1, format="jpeg", workers=1)
    assert (outcome.found, outcome.written, len(outcome.failed)) == (finished, 9 - finished, 1)
    run(photos, tmp_path / "alone", seed=1, format="jpeg")
    assert tree(tmp_path / "out") == tree(tmp_path / "alone")


def test_ctrl_c_just_behind_the_first_file_goes_on(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The file was there and its journal removed: the same command then refused OUT as another's."""
    write = shelves.write_atomically

    def interrupted(path: Path, *arguments, **options):
        write(path, *arguments, **options)
        if path.suffix == ".png":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shelves, "write_atomically", interrupted)
        assert command(photos, tmp_path / "out").exit_code == 130
    result = command(photos, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "1 were finished before" in result.stdout


@pytest.mark.processes
@pytest.mark.skipif(os.name != "posix", reason="signals to a group of processes")
def test_ctrl_c_leaves_no_process_and_goes_on(photos: Path, tmp_path: Path):
    """Workers that live on would write on, or hold the memory until the machine is restarted."""
    for k in range(200):  # so many that the run is not over before the signal
        (photos / "cat" / f"copy-{k}.jpg").write_bytes((photos / "cat" / "0.jpg").read_bytes())
    small_generator().save_pretrained(tmp_path / "generator")
    arguments = [
        # a shell's background job, such as a CI run may be, would ignore the signal
        sys.executable, "-c", "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "import semtransforms.protect.publish as p; p.BATCH_IMAGES = 2; "
        "from semtransforms.cli import app; app()", "protect", photos, tmp_path / "out", "--workers", 2,
        "--generator", tmp_path / "generator", "--cache-dir", tmp_path / "cache",
    ]  # fmt: skip
    with subprocess.Popen(
        list(map(str, arguments)), env={**os.environ, "PHOTOGRAPHS_TEST": str(tmp_path)}, start_new_session=True
    ) as running:
        while not list((tmp_path / "out").rglob("*.png")):
            assert running.poll() is None
            time.sleep(0.05)
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait(60) == 130
    assert nobody_left(str(tmp_path))
    result = command(photos, tmp_path / "out")
    assert result.exit_code == 0
    assert "were finished before" in result.stdout
    assert len(list((tmp_path / "out").rglob("*.png"))) == 209

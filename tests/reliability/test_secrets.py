"""What a trainer must not have, looked for in all that is published, said, logged and left on the disk.

One owner does everything once, with a seed, a home and a user's name that can be told from all other bytes. The threat
list in ``examples/security.md`` names these tests line by line.
"""

import base64
import io
import json
import logging
import os
import pickle
import stat
import tarfile
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pytest
import torch
from hub_server import HubServer
from huggingface_hub import constants
from owner import quicken, tree, write_photographs
from PIL import Image
from safetensors.numpy import load_file
from typer.testing import CliRunner

from semtransforms import NoiseGenerator, ProtectedDataset, SEMProtect
from semtransforms.cli import app
from semtransforms.data.sources import open_source
from semtransforms.evaluation.countermeasures import InformedTrainer
from semtransforms.photographs.journey import seed_of_fit
from semtransforms.protect.making import Maker

SEED = 7_426_301_985_513_947_771
USER = "aliceq7zx"

PUBLISHED = ("published", "packed.parquet", "saved", "compressed")
REPORT = "report"


class Told(NamedTuple):
    """What one owner's work left: the home, what commands said, what was logged, what the Hub was sent."""

    home: Path
    said: dict[str, str]
    log: str
    pushed: dict[str, bytes]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def run(*arguments: object):
    return CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    home = tmp_path_factory.mktemp("home") / USER
    home.mkdir()
    log = io.StringIO()
    handler, root = logging.StreamHandler(log), logging.getLogger()
    umask, level = os.umask(0o022), root.level
    with pytest.MonkeyPatch.context() as patch, HubServer() as server:
        for name in ("HOME", "USERPROFILE"):
            patch.setenv(name, str(home))
        for name in ("USER", "LOGNAME"):
            patch.setenv(name, USER)
        patch.setenv("HF_TOKEN", server.token)
        patch.setattr(constants, "ENDPOINT", server.endpoint)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.chdir(home)
        quicken(patch.setattr)
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        try:
            said = dict(_work(home))
        finally:
            root.removeHandler(handler)
            root.setLevel(level)
            os.umask(umask)
        commits = [commit for each in server.repositories.values() for commit in each.commits.values()]
        yield Told(home, said, log.getvalue(), {name: data for commit in commits for name, data in commit.items()})


def _work(home: Path) -> Iterator[tuple[str, str]]:
    """An owner's work: each command's name and all that it said."""
    photos = write_photographs(home / "photos")
    test = write_photographs(home / "photos-test", each=3, sizes=((31, 29),))
    for old in photos.rglob("*.jpg"):
        os.utime(old, (978_307_200, 978_307_200))  # photographed in 2001
    secret = home / "seed.txt"
    secret.write_text(str(SEED))
    secret.chmod(0o600)
    private = ("--cache-dir", home / "private")
    protect, seeded = ("protect", photos), ("--seed-file", secret, *private)
    fitted = ("--generator", home / "fitted")
    small = ("--network", "convnet", "--width", 4, "--train-size", 16, "--seeds", 0)
    short = ("--surrogate", "convnet", "--width", 4, "--steps-u", 1, "--steps-a", 1, "--num-samples", 1, "--size", 16)
    judged = ("--countermeasures", f"none,informed-same-seed,informed-by={home / 'fitted'}", "--protection-seed", SEED)
    commands = {
        "journey": (*protect, home / "published", *seeded, "--device", "cpu"),
        "fit": ("fit", photos, home / "fitted", *short, "--train-steps", 2, "--checkpoint-dir", home / "work"),
        "parquet": (*protect, home / "packed.parquet", *fitted, *seeded, "--format", "parquet"),
        "datasets": (*protect, home / "saved", *fitted, *seeded, "--format", "datasets"),
        "jpeg": (*protect, home / "compressed", *fitted, *seeded, "--format", "jpeg"),
        "noise": (*protect, home / "noise", *fitted, *seeded, "--format", "noise"),
        "evaluate": ("evaluate", photos, home / REPORT, "--test", test, *fitted, *small, *judged, *private),
        "show": ("show", photos, *fitted, "--out", home / "look.png", "--seed-file", secret),
        "check": ("check", home / "published", "--original", photos),
        "push": ("push", home / "fitted", "org/public"),
    }
    for name, command in commands.items():
        result = run(*command)
        assert result.exit_code == 0, (name, result.output)
        yield name, result.output


def holds_seed(data: bytes) -> bool:
    raw = [SEED.to_bytes(8, order) for order in ("little", "big")]
    words = [str(SEED), f"{SEED:x}", f"{SEED:,}", *(base64.b64encode(each).decode() for each in raw)]
    return any(word in data for word in (*raw, *map(str.encode, words), base64.b64encode(str(SEED).encode())[:-3]))


def holds_home(data: bytes, home: Path) -> bool:
    return any(word.encode() in data for word in (USER, str(home.parent)))


def published(told: Told) -> dict[str, bytes]:
    found = {}
    for name in PUBLISHED:
        place = told.home / name
        files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
        found |= {str(path.relative_to(told.home)): path.read_bytes() for path in files}
    record = told.home / "packed.protection.json"
    return {**found, record.name: record.read_bytes()}


def test_the_search_finds_what_is_there(told: Told):
    """The tests below find nothing where they look for nothing."""
    for data in (str(SEED).encode(), json.dumps({"a": SEED}).encode(), pickle.dumps([SEED]), np.int64(SEED).tobytes()):
        assert holds_seed(b"x" + data)
    assert holds_home(str(told.home / "photos").encode(), told.home)
    secrets = [path for path in (told.home / "private").rglob("*.json") if holds_seed(path.read_bytes())]
    assert {path.name for path in secrets} == {"secret.json", "manifest.json"}
    assert len(published(told)) > 30


def test_what_is_published_tells_neither_seed_nor_owner(told: Told):
    """Whoever downloads the copies would take the noise off, or know who published them."""
    for name, data in published(told).items():
        assert not holds_seed(data), name
        assert not holds_home(data, told.home), name


def test_the_noise_is_not_published(told: Told):
    """It is subtracted with one line of code."""
    made = {path.relative_to(told.home / "noise"): path for path in (told.home / "noise").rglob("*.safetensors")}
    levels = {load_file(path)["noise"].transpose(1, 2, 0).tobytes()[:64] for path in made.values()}
    assert len(levels) == 16
    for name, data in published(told).items():
        assert not any(each in data for each in levels), name
        assert "safetensors" not in name, name


def test_the_generator_is_not_published(told: Told):
    """Whoever has it runs it in reverse, and needs no seed. Its fingerprint tells it from others, and nothing else."""
    place = next((told.home / "private" / "generators").glob("*/generator"))
    for folder in (place, told.home / "fitted"):
        weights = (folder / "model.safetensors").read_bytes()[-256:]
        assert not any(weights in data for data in published(told).values())
    record = json.loads((told.home / "published" / "protection.json").read_bytes())
    assert set(record["generator"]) == {"name", "method", "fingerprint"}
    assert record["generator"]["name"] == "generator"  # the last part of its folder


def test_copies_carry_no_metadata(told: Told):
    """EXIF has places and times, a colour profile the camera; a text chunk would have whatever a program puts there."""
    pictures = [path for name in PUBLISHED for path in (told.home / name).rglob("*") if path.suffix in (".png", ".jpg")]
    assert len(pictures) == 32
    for path in pictures:
        with Image.open(path) as image:
            assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
            assert not image.getexif()
            assert not getattr(image, "text", None)
        if path.suffix == ".png":
            assert set(_chunks(path.read_bytes())) == {b"IHDR", b"IDAT", b"IEND"}


def _chunks(data: bytes) -> Iterator[bytes]:
    place = 8
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        yield data[place + 4 : place + 8]
        place += 12 + length


def test_file_times_tell_when_copies_were_made_and_not_when_photographs_were(told: Told):
    """A copy that kept its photograph's time would tell when it was taken; a constant one would be missed by rsync."""
    for path in (told.home / "published").rglob("*.png"):
        original = told.home / "photos" / path.parent.name / f"{path.stem}.jpg"
        assert abs(path.stat().st_mtime - original.stat().st_mtime) > 10**8
        assert abs(path.stat().st_mtime - time.time()) < 3_600


def test_nothing_said_or_logged_has_the_seed(told: Told):
    """Terminals are recorded, logs are sent to services, and progress goes to both."""
    assert len(told.log) > 1_000
    assert not holds_seed(told.log.encode())
    for name, text in told.said.items():
        assert not holds_seed(text.encode()), name


def test_our_own_modules_log_nothing(told: Told):
    """At DEBUG, libraries log the names of files that they open. We add nothing to that."""
    assert not any(name.startswith("semtransforms") for name in logging.Logger.manager.loggerDict)


def test_private_places_are_said_once_to_their_owner(told: Told):
    """The owner has to know where the seed is; paths stand in what a command says, and in no file but private ones."""
    assert str(told.home / "private" / "protections") in told.said["journey"]
    assert "private: it shows originals and noise" in told.said["journey"]
    assert "private: it shows originals and noise" in told.said["evaluate"]


def test_reports_tell_neither_seed_nor_place(told: Told):
    """A report is sent to colleagues. It shows up to six originals with their noise, and so it is private."""
    reports = [told.home / REPORT, *(told.home / "private" / "generators").glob("*/report-*")]
    assert len(reports) == 2
    for folder in reports:
        files = tree(folder)
        assert {"report.html", "report.json", "report.md"} <= set(files)
        for name, data in files.items():
            assert not holds_seed(data + name.encode()), name
            assert not holds_home(data + name.encode(), told.home), name


def test_a_pushed_generator_tells_neither_seed_nor_owner(told: Told):
    """Card, config and weights are for everybody."""
    assert set(told.pushed) >= {"README.md", "config.json", "model.safetensors"}
    for name, data in told.pushed.items():
        assert not holds_seed(data), name
        assert not holds_home(data, told.home), name


def test_the_private_generator_does_not_hold_the_seed_of_the_noise(told: Told):
    """A config tells the seed of its fit: one seed for both would go out with a generator that is given away."""
    place = next((told.home / "private" / "generators").glob("*/generator"))
    config = NoiseGenerator.from_pretrained(place, device="cpu").config
    assert config.seed == seed_of_fit(SEED) != SEED
    assert seed_of_fit(SEED) != seed_of_fit(SEED + 1)
    assert 0 <= seed_of_fit(10**40) < 2**63


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_private_files_are_their_owners_alone(told: Told):
    """On a machine of several users, with the usual umask, all of them could read seed, noise and generator."""
    for folder in ("private", "noise", "fitted", "work", REPORT):
        assert mode(told.home / folder) == 0o700, folder
    for path in (told.home / "private").rglob("*"):
        assert not path.is_symlink()
        assert mode(path) == (0o700 if path.is_dir() else 0o600), path
    for folder in ("noise", "fitted", "work"):
        assert {mode(path) for path in (told.home / folder).rglob("*") if path.is_file()} == {0o600}, folder
    assert mode(told.home / "published" / "cat" / "0.png") == 0o644  # to be published


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_private_files_that_were_opened_are_closed_again(told: Told, tmp_path: Path):
    """A backup that was unpacked, or a chmod -R, opens all; nobody looks again."""
    photos, out, private = told.home / "photos", tmp_path / "out", tmp_path / "private"
    arguments = ("protect", photos, out, "--generator", told.home / "fitted", "--cache-dir", private)
    assert run(*arguments).exit_code == 0
    for path in (private, *private.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert run(*arguments).exit_code == 0
    below = list(private.rglob("*"))
    assert len(below) >= 3
    assert all(not mode(path) & 0o077 for path in below)

    data = open_source(str(photos))
    generator = NoiseGenerator.from_pretrained(told.home / "fitted", device="cpu")
    store = ProtectedDataset(data, generator, cache_dir=tmp_path / "cache", progress=False).store.folder
    store.chmod(0o755)
    (store / "manifest.json").chmod(0o644)
    ProtectedDataset(data, generator, cache_dir=tmp_path / "cache", progress=False)
    assert (mode(store), mode(store / "manifest.json")) == (0o700, 0o600)


def test_nothing_is_left_in_the_folder_for_temporary_files(told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """TMPDIR is shared by all users of a machine."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    out = tmp_path / "out.parquet"
    arguments = ("protect", told.home / "photos", out, "--generator", told.home / "fitted", "--format", "parquet")
    assert run(*arguments, "--cache-dir", tmp_path / "private").exit_code == 0
    assert tree(tmp_path / "tmp") == {}


@pytest.mark.parametrize("wrong", [f"{SEED}x", f"{SEED} # mine", [SEED], {"seed": SEED}, float("nan"), None], ids=str)
def test_messages_and_tracebacks_do_not_repeat_a_seed(wrong: object, told: Told, tmp_path: Path):
    """A slip of the finger would put it into a log, and a bug report."""
    photos = open_source(str(told.home / "photos"))
    generator = NoiseGenerator.from_pretrained(told.home / "fitted", device="cpu")
    images = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    attempts = [
        lambda: ProtectedDataset(photos, generator, seed=wrong, cache_dir=tmp_path),
        lambda: SEMProtect(generator, seed=wrong),
        lambda: generator.noise(images, [0], seed=wrong),
        lambda: generator.protect(images, [0], seed=wrong),
    ]
    for attempt in attempts:
        with pytest.raises(ValueError, match="seed must be a whole number") as caught:
            attempt()
        said = "".join(traceback.format_exception(caught.value))
        assert not holds_seed(said.encode())
        assert caught.value.__context__ is None  # which a logger of exceptions would print too


def test_what_fails_with_a_good_seed_does_not_show_it(told: Told, tmp_path: Path):
    """Another error on the way is as good as any for a log."""
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "a.jpg").write_bytes(b"no image")
    (tmp_path / "photos" / "dog").mkdir()
    (tmp_path / "photos" / "dog" / "a.jpg").write_bytes(b"no image")
    result = run("protect", tmp_path / "photos", tmp_path / "out", "--generator", told.home / "fitted", "--seed", SEED,
                 "--cache-dir", tmp_path / "private")  # fmt: skip
    assert result.exit_code == 2
    assert not holds_seed(result.output.encode())
    assert result.exception is not None
    assert not holds_seed("".join(traceback.format_exception(result.exception)).encode())
    begun = (
        "protect",
        told.home / "photos",
        told.home / "published",
        "--seed",
        1,
        "--cache-dir",
        told.home / "private",
    )
    result = run(*begun, "--device", "cpu")
    assert result.exit_code == 2
    assert "another seed" in result.stderr
    assert not holds_seed(result.output.encode())


def test_what_is_printed_of_our_objects_does_not_show_a_seed(told: Told, tmp_path: Path):
    """A debugger, a notebook and a log call repr."""
    photos = open_source(str(told.home / "photos"))
    generator = NoiseGenerator.from_pretrained(told.home / "fitted", device="cpu")
    wrapped = ProtectedDataset(photos, generator, seed=SEED, cache_dir=tmp_path, progress=False)
    assert wrapped._filling is not None
    transform = SEMProtect(generator, seed=SEED)
    shown = [wrapped, wrapped._filling, wrapped.store, transform, transform.map_fn(), Maker(generator, seed=SEED),
             replace(Maker(generator), seed=SEED), InformedTrainer(generator, seed=SEED)]  # fmt: skip
    for each in shown:
        assert not holds_seed(repr(each).encode() + str(each).encode()), type(each)


@pytest.mark.processes
def test_no_process_shows_the_seed(told: Told, tmp_path: Path):
    """Every user of a machine reads the words that its processes were started with."""
    secret = tmp_path / "seed.txt"
    secret.write_text(str(SEED))
    secret.chmod(0o600)
    seen: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            for child in psutil.Process().children(recursive=True):
                try:
                    seen.add("\0".join(child.cmdline()))
                except psutil.Error:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = run("protect", told.home / "photos", tmp_path / "out", "--generator", told.home / "fitted",
                     "--seed-file", secret, "--workers", 1, "--cache-dir", tmp_path / "private")  # fmt: skip
    finally:
        over.set()
        watcher.join()
    assert result.exit_code == 0, result.output
    assert any("spawn" in words for words in seen)
    assert not any(holds_seed(words.encode()) for words in seen)


def test_names_in_a_shard_lead_nowhere(told: Told, tmp_path: Path):
    """A tar of strangers has members called ../../evil, links and absolute paths; nothing of ours unpacks one."""
    webdataset = pytest.importorskip("webdataset")
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (90, 80, 70)).save(buffer, "PNG")
    with tarfile.open(tmp_path / "rows.tar", "w") as shard:
        for key in ("../../evil", f"{tmp_path}/evil", "plain"):
            for suffix, data in (("png", buffer.getvalue()), ("cls", b"1")):
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(data)
                shard.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        shard.addfile(link)
    before = set(tmp_path.parent.parent.rglob("*evil*"))
    generator = NoiseGenerator.from_pretrained(told.home / "fitted", device="cpu")
    stream = webdataset.WebDataset(str(tmp_path / "rows.tar"), shardshuffle=False).decode("pil").to_tuple("png", "cls")
    seen = list(stream.map(SEMProtect(generator, seed=1)))
    assert len(seen) == 3
    assert all(0 < np.abs(np.asarray(image, int) - (90, 80, 70)).max() <= 8 for image, _ in seen)
    assert set(tmp_path.parent.parent.rglob("*evil*")) == before

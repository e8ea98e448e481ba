"""Links that somebody put where files of ours go, on a machine that several people use: nothing outside is written."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from owner import quicken, tree, write_photographs
from torch.utils.data import TensorDataset

from semtransforms import (
    SEM,
    NoiseGenerator,
    ProtectedDataset,
    VictimConfig,
    evaluate,
    fit_generator,
    protect_photographs,
)
from semtransforms.core.config import GeneratorConfig
from semtransforms.core.files import write_atomically, writing
from semtransforms.core.models import build_model
from semtransforms.data.sources import open_source
from semtransforms.data.store import NoiseStore
from semtransforms.protect.figures import save_picture, side_by_side
from semtransforms.protect.publish import protect_source

VICTIM = b"somebody needs this file"


def generator() -> NoiseGenerator:
    torch.manual_seed(0)
    config = GeneratorConfig(
        surrogate="convnet", width=4, steps_u=1, num_samples=1, num_classes=2, image_size=(8, 8), precision="fp32"
    )
    return NoiseGenerator(build_model("convnet", num_classes=2, image_size=8, width=4), config, name="small")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of somebody's, with files of the names that ours have."""
    folder = tmp_path / "outside"
    folder.mkdir(mode=0o755)
    # fmt: off
    names = ("0.png", "1.png", "protection.json", "manifest.json", "shard-00000.safetensors", "checkpoint.safetensors",
             "config.json", "README.md", "model.safetensors", "secret.json", "evaluation.json", "report.html")
    # fmt: on
    for name in names:
        (folder / name).write_bytes(VICTIM)
    return folder


def untouched(outside: Path) -> None:
    assert {path.read_bytes() for path in outside.rglob("*") if path.is_file()} == {VICTIM}
    assert len(list(outside.iterdir())) == 12
    assert stat.S_IMODE(outside.stat().st_mode) == 0o755


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photographs(tmp_path / "photos", each=2)


def protect(photos: Path, out: Path, **options: object):
    return protect_source(open_source(str(photos)), out, generator(), private=out.parent / "private", seed=1, **options)


def replace_by_link(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


@pytest.mark.parametrize("name", ["cat/0.png", "protection.json"])
def test_a_link_in_the_place_of_a_copy(name: str, photos: Path, outside: Path, tmp_path: Path):
    """Going on, the file that it leads to would be overwritten with a picture; or the link published."""
    protect(photos, tmp_path / "out")
    whole = tree(tmp_path / "out")
    replace_by_link(tmp_path / "out" / name, outside / Path(name).name)
    protect(photos, tmp_path / "out")
    untouched(outside)
    assert tree(tmp_path / "out") == whole
    assert not (tmp_path / "out" / name).is_symlink()
    same = tmp_path / "same"
    same.write_bytes(whole[name])
    replace_by_link(tmp_path / "out" / name, same)  # with the right bytes: a link is published all the same
    protect(photos, tmp_path / "out")
    assert not (tmp_path / "out" / name).is_symlink()


def test_a_link_in_the_place_of_a_class_folder(photos: Path, outside: Path, tmp_path: Path):
    """All copies of the class would go to another folder, over files of the same names."""
    protect(photos, tmp_path / "out")
    (tmp_path / "out" / "cat").rename(tmp_path / "moved")
    (tmp_path / "out" / "cat").symlink_to(outside)
    with pytest.raises(ValueError, match=r"OUT: .*cat' is a link"):
        protect(photos, tmp_path / "out")
    untouched(outside)


def test_a_folder_of_the_owners_own_choice_may_be_a_link(photos: Path, tmp_path: Path):
    """Who keeps copies on another disk names a link to it as OUT."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    assert protect(photos, tmp_path / "out").written == 4
    assert protect(photos, tmp_path / "out").found == 4
    assert len(list((tmp_path / "disk").rglob("*.png"))) == 4


@pytest.mark.parametrize("format", ["parquet", "datasets"])
def test_a_link_beside_a_packed_copy(format: str, photos: Path, outside: Path, tmp_path: Path):
    """The folder where the copies lie before they are packed is removed in the end."""
    out = tmp_path / ("out.parquet" if format == "parquet" else "out")
    out.with_name(f"{out.name}.unfinished").symlink_to(outside)
    with pytest.raises(ValueError, match="is a link"):
        protect(photos, out, format=format)
    untouched(outside)


def images() -> TensorDataset:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8), dtype=np.uint8)
    return TensorDataset(torch.from_numpy(pixels), torch.tensor([0, 1, 0, 1]))


def wrap(cache: Path) -> ProtectedDataset:
    return ProtectedDataset(images(), generator(), cache_dir=cache, seed=1, progress=False)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["manifest.json", "shard-00000.safetensors"])
def test_links_in_a_store(name: str, outside: Path, tmp_path: Path):
    """Noise would be written over a file of the owner's, or read from a place that anybody writes."""
    clean = wrap(tmp_path / "cache")
    noise, folder = [clean.noise(i) for i in range(4)], clean.store.folder
    replace_by_link(folder / name, outside / name)
    again = wrap(tmp_path / "cache")
    untouched(outside)
    assert all(torch.equal(again.noise(i), noise[i]) for i in range(4))
    assert not (folder / name).is_symlink()


@pytest.mark.parametrize("planted", ["", ".lock"])
def test_links_in_the_place_of_a_store(planted: str, outside: Path, tmp_path: Path):
    """All of it would be written elsewhere; a lock that is opened for writing empties what its link leads to."""
    folder = wrap(tmp_path / "cache").store.folder
    for file in sorted(folder.iterdir()):
        file.unlink()
    if planted:
        (folder / planted).symlink_to(outside / "0.png")
    else:
        folder.rmdir()
        folder.symlink_to(outside)
    (outside / "manifest.json").rename(tmp_path / "kept")  # else it would be read first, and found damaged
    with pytest.raises(ValueError, match=r"cache_dir: .* is a link"):
        wrap(tmp_path / "cache")
    (tmp_path / "kept").rename(outside / "manifest.json")
    untouched(outside)


@pytest.mark.parametrize("name", ["../../outside/0.png", "/etc/passwd", "manifest.json/../../x"])
def test_a_store_names_no_file_elsewhere(name: str, outside: Path, tmp_path: Path):
    """A store from a colleague would have a file renamed, since it is no shard: what is damaged is set aside."""
    store = NoiseStore.from_array(np.ones((2, 8, 8, 3), np.int8), tmp_path / "cache")
    manifest = store.folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace("shard-00000.safetensors", name))
    with pytest.raises(RuntimeError, match=r"manifest\.json is damaged"):
        NoiseStore(store.folder)
    untouched(outside)


def test_a_link_in_the_place_of_a_checkpoint(outside: Path, tmp_path: Path):
    """The first checkpoint would be written over what the link leads to."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "checkpoint.safetensors").symlink_to(outside / "checkpoint.safetensors")
    config = GeneratorConfig(
        surrogate="convnet", width=4, steps_u=1, steps_a=1, num_samples=1, train_steps=1, batch_size=4, precision="fp32"
    )
    with pytest.raises(FileExistsError):
        fit_generator(images(), config, checkpoint_dir=tmp_path / "work", progress=False)
    with pytest.raises(ValueError, match="damaged"):
        fit_generator(images(), config, checkpoint_dir=tmp_path / "work", resume=True, progress=False)
    (tmp_path / "work" / "checkpoint.safetensors").unlink()
    (tmp_path / "work" / "checkpoint.safetensors").symlink_to(tmp_path / "nowhere")
    fit_generator(images(), config, checkpoint_dir=tmp_path / "work", progress=False)
    assert not (tmp_path / "nowhere").exists()
    untouched(outside)


def test_links_in_the_place_of_a_generators_files(outside: Path, tmp_path: Path):
    """Weights would be written over what they lead to."""
    (tmp_path / "generator").mkdir()
    for name in ("config.json", "README.md", "model.safetensors"):
        (tmp_path / "generator" / name).symlink_to(outside / name)
    generator().save_pretrained(tmp_path / "generator")
    untouched(outside)
    assert NoiseGenerator.from_pretrained(tmp_path / "generator", device="cpu").fingerprint == generator().fingerprint


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("planted", ["folder", "protection", "generator"])
def test_links_in_the_private_folder(planted: str, outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The plan, the generator and the reports would go to a place that somebody else chose."""
    quicken(monkeypatch.setattr)
    photos = write_photographs(tmp_path / "photos")
    where = {"private": tmp_path / "private", "device": "cpu", "progress": False}
    done = protect_photographs(photos, tmp_path / "out", **where)
    if planted == "generator":
        done.generator.rename(tmp_path / "kept")
        (done.generator.parent / "generator.unfinished").symlink_to(outside)
        protect_photographs(photos, tmp_path / "other", **where)
        assert NoiseGenerator.from_pretrained(done.generator, device="cpu").classes == ("cat", "dog")
    else:
        folder = done.generator.parent if planted == "folder" else done.outcome.private
        folder.rename(tmp_path / "kept")
        folder.symlink_to(outside)
        with pytest.raises(ValueError, match=r"is a link|not an unfinished protection"):
            protect_photographs(photos, tmp_path / "out", **where)
    untouched(outside)


@pytest.mark.parametrize("part", ["runs", "pictures"])
def test_links_in_a_report(part: str, outside: Path, tmp_path: Path):
    """Pictures and records would be written over files of the same names."""
    victim = VictimConfig(network="convnet", width=4, train_steps=1, batch_size=2)
    tests = TensorDataset(255 - images().tensors[0], images().tensors[1])
    facts = {"test": tests, "victims": {"a": victim}, "seeds": (0,), "out": tmp_path / "report", "progress": False}
    evaluate(images(), generator(), cache_dir=tmp_path / "cache", **facts)
    (tmp_path / "report" / part).rename(tmp_path / "moved")
    (tmp_path / "report" / part).symlink_to(outside)
    with pytest.raises(ValueError, match="is a link"):
        evaluate(images(), generator(), cache_dir=tmp_path / "cache", **facts)
    untouched(outside)


def test_a_link_in_the_place_of_a_picture(outside: Path, tmp_path: Path):
    """`semtransforms show` writes semtransforms.png where it is called, in /tmp as anywhere."""
    (tmp_path / "look.png").symlink_to(outside / "0.png")
    clean, noise = torch.zeros(3, 8, 8, dtype=torch.uint8), torch.ones(3, 8, 8, dtype=torch.int8)
    save_picture(side_by_side([clean], [noise], ["a"]), tmp_path / "look.png")
    untouched(outside)
    assert (tmp_path / "look.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="this system cannot refuse links as it opens a file")
def test_a_link_that_comes_while_a_file_is_written(outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where others may write too, the unfinished file can be exchanged before it is filled."""
    begin = os.open

    def exchanging(path, flags, *mode, **options):
        if Path(path).name.startswith(".unfinished-") and not flags & os.O_CREAT:
            Path(path).unlink()
            Path(path).symlink_to(outside / "0.png")
        return begin(path, flags, *mode, **options)

    monkeypatch.setattr(os, "open", exchanging)
    with pytest.raises(OSError, match=r"symbolic links|loop"):
        write_atomically(tmp_path / "a", b"ours")
    untouched(outside)


def test_a_link_of_an_unfinished_files_name_is_not_followed(outside: Path, tmp_path: Path):
    """Its name can be guessed: it holds the number of the process."""
    with writing(tmp_path / "a") as temporary:
        name = temporary.name
    number = int(name.rpartition("-")[2])
    for ahead in range(1, 50):
        (tmp_path / f"{name.rpartition('-')[0]}-{number + ahead}").symlink_to(outside / "0.png")
    write_atomically(tmp_path / "a", b"ours")
    untouched(outside)
    assert (tmp_path / "a").read_bytes() == b"ours"


def test_what_is_fitted_is_the_methods(tmp_path: Path):
    """The tests above would pass for a fit that writes nothing."""
    config = GeneratorConfig(
        surrogate="convnet", width=4, steps_u=1, steps_a=1, num_samples=1, train_steps=1, batch_size=4, precision="fp32"
    )
    fitted = fit_generator(images(), config, checkpoint_dir=tmp_path / "work", progress=False)
    assert fitted.config.method == SEM.method
    assert stat.S_IMODE((tmp_path / "work").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "work" / "checkpoint.safetensors").stat().st_mode) == 0o600

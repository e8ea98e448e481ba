"""One call for an owner: what it leaves behind, what it does the second time, what a kill costs."""

import json
import shutil
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import storage
import torch
import torchvision
from killing import run_killed
from owner import quicken, tree, write_photographs
from PIL import Image
from safetensors.torch import save_file
from storage import Storage

from semtransforms import NoiseGenerator, protect_photographs
from semtransforms.core.config import PretrainedSurrogate
from semtransforms.photographs import journey
from semtransforms.photographs.journey import plan_photographs

SEED = 8_314_159_265


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    quicken(monkeypatch.setattr)
    return write_photographs(tmp_path / "photos")


@pytest.fixture
def memory() -> Iterator[Storage]:
    yield from storage.memory()


def protect(photos: Path, where: Path, **options):
    return protect_photographs(
        photos, where / "out", private=where / "private", device="cpu", **{"progress": False, **options}
    )


def test_from_a_folder_to_a_verdict(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The whole promise: all photographs published within the bound, secrets where only the owner reads them."""
    done = protect(photos, tmp_path, progress=True)
    assert sorted(tree(tmp_path / "out")) == sorted(
        [f"{name}/{number}.png" for name in ("cat", "dog") for number in range(8)] + ["protection.json"]
    )
    for file in (photos / "cat").iterdir():
        clean, copy = Image.open(file), Image.open(tmp_path / "out" / "cat" / f"{file.stem}.png")
        assert clean.size == copy.size
        differences = [abs(a - b) for a, b in zip(clean.tobytes(), copy.tobytes(), strict=True)]
        assert 0 < max(differences) <= 8
    assert done.outcome.written == 16
    assert done.generator.parent.parent == tmp_path / "private" / "generators"
    for path in (done.generator.parent.parent, done.generator.parent, done.outcome.private):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in (*done.generator.iterdir(), done.generator.parent / "plan.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not (done.generator.parent / "checkpoint.safetensors").exists()
    assert done.checked.report is not None
    assert done.checked.report.is_relative_to(done.generator.parent)  # it shows originals
    said = capsys.readouterr().out
    for word in ("16 photographs", "2 classes", "JPEG 16", "6 updates of 16", "16 px", "fit ", "protect ", "check "):
        assert word in said
    # fitted with a seed that nobody knows, and on squares of the planned size
    config = NoiseGenerator.from_pretrained(done.generator).config
    assert config.seed > 2**32
    assert config.image_size == (16, 16)


def test_more_photographs_get_noise_of_the_same_generator(photos: Path, tmp_path: Path, capsys, monkeypatch):
    """A new fit for each new photograph costs twenty minutes, and another generator's noise does not add up with it."""
    first = protect(photos, tmp_path)
    before, copies = tree(first.generator), tree(tmp_path / "out")
    (photos / "cat" / "new.jpg").write_bytes((photos / "cat" / "0.jpg").read_bytes()[:-2] + b"\xff\xd9")
    Image.new("RGB", (50, 15), "green").save(photos / "dog" / "new.png")
    monkeypatch.chdir(tmp_path)
    second = protect(Path("photos"), tmp_path, progress=True, minutes=1)  # the same folder, spelled otherwise
    assert second.generator == first.generator
    assert tree(second.generator) == before
    assert (second.outcome.written, second.outcome.found) == (2, 16)
    after = tree(tmp_path / "out")
    assert {name: after[name] for name in copies if name != "protection.json"} == {
        name: data for name, data in copies.items() if name != "protection.json"
    }
    said = capsys.readouterr().out
    assert "used again" in said
    assert "Smaller than 16 px, with noise that is made at their own size: 1." in said

    (photos / "eel").mkdir()
    for number in range(2):
        Image.new("RGB", (30 + number, 30)).save(photos / "eel" / f"{number}.png")
    with pytest.raises(ValueError, match=r"new: eel.*new generator"):
        protect(photos, tmp_path)
    assert tree(tmp_path / "out") == after


def test_copies_in_a_bucket_get_the_same_verdict(photos: Path, tmp_path: Path, memory: Storage):
    """A fit of twenty minutes whose copies cannot be written, or are not found again by the check."""
    here = protect(photos, tmp_path, seed=SEED)
    options = {"private": tmp_path / "private", "seed": SEED, "device": "cpu", "progress": False}
    there = protect_photographs(photos, "memory://bucket/out", **options)
    assert memory.tree("out") == tree(tmp_path / "out")
    assert there.checked.verdict == here.checked.verdict
    assert there.checked.report != here.checked.report
    with pytest.raises(ValueError, match="is not empty"):
        protect_photographs(photos, "memory://bucket/out", **{**options, "private": tmp_path / "other"})


def test_a_copy_that_is_made_anew_gets_a_verdict_of_its_own(photos: Path, tmp_path: Path):
    """Who deletes the copy and gives the command again would get an error behind it all, or an old verdict."""
    first = protect(photos, tmp_path)
    shutil.rmtree(tmp_path / "out")
    second = protect(photos, tmp_path)  # with a fresh seed
    assert second.generator == first.generator
    assert second.checked.report is not None
    assert second.checked.report != first.checked.report
    assert second.checked.report.is_file()


def test_noise_against_pretrained_networks(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """An owner who fears trainers with pretrained weights would get noise that they do not notice, or a second fit."""
    file = tmp_path / "my-weights" / "squeezenet.safetensors"
    file.parent.mkdir()
    torch.manual_seed(0)
    save_file(torchvision.models.squeezenet1_1().state_dict(), file)
    surrogate = PretrainedSurrogate("torchvision/squeezenet1_1", str(file), (32,))
    with pytest.raises(ValueError, match="squeezenet1_1"):
        protect(photos, tmp_path, pretrained=[replace(surrogate, network="torchvision/squeezenet1_7")])
    done = protect(photos, tmp_path, pretrained=[surrogate], progress=True)
    said = capsys.readouterr().out
    assert "driven against torchvision/squeezenet1_1 at 32 px" in said
    generator = NoiseGenerator.from_pretrained(done.generator)
    assert generator.scale().side == 32  # the size that the network sees, though the fit was for 16 px
    assert "my-weights" not in (done.generator / "config.json").read_text()
    before = tree(done.generator)
    for name in ("cat", "dog"):
        for clean in (photos / name).iterdir():
            copy = Image.open(tmp_path / "out" / name / f"{clean.stem}.png")
            pairs = zip(Image.open(clean).tobytes(), copy.tobytes(), strict=True)
            assert max(abs(a - b) for a, b in pairs) <= 8
    file.unlink()  # the generator holds what it needs
    Image.new("RGB", (50, 40), "green").save(photos / "dog" / "new.png")
    again = protect(photos, tmp_path)
    assert (again.outcome.written, tree(again.generator)) == (1, before)
    with pytest.raises(ValueError, match="no such file"):
        protect(photos, tmp_path, pretrained=[surrogate])


def test_a_plan_keeps_nothing_and_is_what_is_done(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Who looks at a plan of other minutes first would be held to it, or would be told other minutes than it takes."""
    where = {"private": tmp_path / "private", "device": "cpu"}
    planned = plan_photographs(photos, tmp_path / "out", minutes=7, **where)
    assert not list((tmp_path / "private").rglob("plan.json"))
    protect(photos, tmp_path, progress=True, minutes=20)
    said = capsys.readouterr().out
    assert [line for line in planned if line not in said] == []
    assert ["Plan:" in planned[0], "Expected: fit" in planned[1], len(planned)] == [True, True, 2]
    again = plan_photographs(photos, tmp_path / "out", **where)
    assert "used again" in again[0]
    assert "fit" not in again[1]
    shutil.rmtree(photos / "dog")
    with pytest.raises(ValueError, match="one class"):
        plan_photographs(photos, tmp_path / "new", **where)


def test_another_radius_is_fitted_and_kept_apart(photos: Path, tmp_path: Path):
    """Noise of a generator for 8/255 under the name of 4/255 would be twice what was asked for."""
    done = protect(photos, tmp_path, rho_u=4 / 255)
    assert NoiseGenerator.from_pretrained(done.generator).config.rho_u == 4 / 255
    for file in (photos / "cat").iterdir():
        pairs = zip(
            Image.open(file).tobytes(), Image.open(tmp_path / "out" / "cat" / f"{file.stem}.png").tobytes(), strict=True
        )
        assert 0 < max(abs(a - b) for a, b in pairs) <= 4
    assert protect(photos, tmp_path, rho_u=4 / 255).outcome.found == 16
    assert protect(photos, tmp_path).outcome.found == 16  # no radius given: the generator's
    with pytest.raises(ValueError, match=r"must be 4/255.*got 8/255"):
        protect(photos, tmp_path, rho_u=8 / 255)


KILLED = """
from pathlib import Path
from killing import kill_at_rename
from owner import quicken
import semtransforms.protect.publish as publish
from test_journey import SEED, protect
quicken(setattr)
publish.BATCH_IMAGES = 4
kill_at_rename({number}, {pattern!r}, done={done})
protect(Path({photos!r}), Path({where!r}), seed=SEED)
"""


@pytest.mark.processes
def test_killed_anywhere_the_same_bytes_come_out(photos: Path, tmp_path: Path):
    """kill -9 in the fit, behind it and in protecting: an owner who loses power must lose minutes and no photograph."""
    undisturbed = protect(photos, tmp_path / "undisturbed", seed=SEED)
    where = tmp_path / "killed"
    folder = where / "private" / "generators" / undisturbed.generator.parent.name
    places = [(3, "checkpoint.safetensors", False), (1, "generator", False), (6, "*.png", True)]
    for number, pattern, done in places:
        run_killed(
            KILLED.format(number=number, pattern=pattern, done=done, photos=str(photos), where=str(where)), __file__
        )
        if pattern == "generator":  # the checkpoint has been gone on with, and is needed still
            assert (folder / "checkpoint.safetensors").exists()
            assert not (folder / "generator").exists()
    assert len(list((where / "out").rglob("*.png"))) == 6
    finished = protect(photos, where, seed=SEED)
    assert finished.outcome.found == 6
    assert tree(where / "out") == tree(tmp_path / "undisturbed" / "out")
    assert tree(finished.generator) == tree(undisturbed.generator)
    assert finished.checked.verdict == undisturbed.checked.verdict
    assert not [path for path in where.rglob("*") if "unfinished" in path.name]


def stop_in_the_fit(monkeypatch: pytest.MonkeyPatch, photos: Path, where: Path, **options):
    """Ctrl-C behind the third checkpoint."""
    import semtransforms.generators.running as running

    save, left = running.save_checkpoint, [3]

    def interrupted(*arguments):
        save(*arguments)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(running, "save_checkpoint", interrupted)
        with pytest.raises(KeyboardInterrupt):
            protect(photos, where, **options)


def test_a_fit_that_goes_on_is_the_fit_that_was_planned(photos: Path, tmp_path: Path, monkeypatch, capsys):
    """On a busier machine a new plan would be another one, and throw the first half of the fit away."""
    stop_in_the_fit(monkeypatch, photos, tmp_path)
    plan = next((tmp_path / "private").rglob("plan.json"))
    before = plan.read_bytes()
    monkeypatch.setattr("semtransforms.photographs.plan.measure_passes", lambda *_: 10.0)
    done = protect(photos, tmp_path, progress=True, minutes=5)
    assert plan.read_bytes() == before
    assert "goes on" in capsys.readouterr().out
    assert (
        NoiseGenerator.from_pretrained(done.generator).config.train_steps == json.loads(before)["config"]["train_steps"]
    )


def test_photographs_that_changed_begin_the_fit_anew(photos: Path, tmp_path: Path, monkeypatch, capsys):
    """The checkpoint of other photographs is refused by the fit: the owner would be stuck with an error."""
    stop_in_the_fit(monkeypatch, photos, tmp_path)
    Image.new("RGB", (50, 50), "green").save(photos / "dog" / "new.png")
    done = protect(photos, tmp_path, progress=True)
    assert "begins anew" in capsys.readouterr().out
    assert done.outcome.written == 17


def test_a_damaged_photograph_is_named_and_the_others_finished(photos: Path, tmp_path: Path, capsys):
    """One cut download among a thousand photographs must not stop the fit, nor go by unseen."""
    damaged = photos / "dog" / "3.jpg"
    damaged.write_bytes(damaged.read_bytes()[:600])
    done = protect(photos, tmp_path, progress=True)
    assert done.outcome.written == 15
    assert [str(damaged) in line for line in done.outcome.failed] == [True]
    assert f"Skipped: {damaged}" in capsys.readouterr().out


def test_copies_that_vanish_while_they_are_checked_are_missed(photos: Path, tmp_path: Path, monkeypatch):
    """The folder removed during the check, the command ended with a verdict on it and exit code 0."""
    real = journey.check_copy

    def removing(*arguments, **options):
        checked = real(*arguments, **options)
        (tmp_path / "out" / "cat" / "0.png").unlink()
        return checked

    monkeypatch.setattr(journey, "check_copy", removing)
    with pytest.raises(OSError, match=r"'cat/0\.png' was written and is gone.*same command makes again"):
        protect(photos, tmp_path)


def test_the_limit_of_megapixels_holds_from_the_look_to_the_check(photos: Path, tmp_path: Path, monkeypatch):
    """A panorama for which the owner lifted the limit was published, but not learned from; a lower one, not heeded."""
    Image.effect_noise((120, 90), 50).convert("RGB").save(photos / "cat" / "large.png")
    done = protect(photos, tmp_path / "low", max_megapixels=0.01)
    assert len(done.found.rows) == done.outcome.written == 16
    assert "large.png" in done.found.skipped[0]
    monkeypatch.setattr("semtransforms.data.opening.open_image.__defaults__", (10_000,))
    done = protect(photos, tmp_path / "lifted", max_megapixels=0.02)
    assert len(done.found.rows) == done.outcome.written == 17


def test_a_folder_with_the_longest_name_is_protected(photos: Path, tmp_path: Path):
    """A Japanese sentence as a name: with a hash behind it, it is longer than disks take."""
    done = protect(photos.rename(tmp_path / ("写" * 85)), tmp_path)
    assert done.outcome.written == 16
    assert done.generator.parent.name.startswith("写" * 50 + "-")


def test_a_photograph_too_small_to_learn_from_is_protected_and_said_to_be(photos: Path, tmp_path: Path, capsys):
    """Owners were told that it got no noise, and found it published."""
    Image.new("RGB", (40, 1), "green").save(photos / "cat" / "line.png")
    done = protect(photos, tmp_path, progress=True)
    assert done.outcome.written == 17
    assert (tmp_path / "out" / "cat" / "line.png").is_file()
    assert "40x1 px, too small to learn from, not to protect" in capsys.readouterr().out


def test_mistakes_are_found_before_the_fit(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Twenty minutes later the error comes too late, and a generator made for nothing lies about."""
    monkeypatch.setattr("semtransforms.photographs.journey.fit_generator", None)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    private = tmp_path / "private"
    with pytest.raises(ValueError, match="not empty"):
        protect_photographs(photos, tmp_path / "full", private=private, progress=False)
    with pytest.raises(ValueError, match="minutes"):
        protect(photos, tmp_path, minutes=0)
    with pytest.raises(ValueError, match="parquet"):
        protect(photos, tmp_path, format="parquet")
    with pytest.raises(ValueError, match="would be published"):
        protect_photographs(photos, tmp_path / "out", private=tmp_path / "out" / "private", progress=False)
    with pytest.raises(ValueError, match="inside SOURCE"):
        protect_photographs(photos, photos / "out", private=private, progress=False)
    for wrong in ({"workers": -1}, {"visibility": 2}, {"max_megapixels": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            protect(photos, tmp_path, **wrong)
    with pytest.raises(OSError, match=r"OUT .* cannot be written"):
        protect_photographs(photos, tmp_path / "full" / "file" / "out", private=private, progress=False)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(OSError, match="1,000 free"):
        protect(photos, tmp_path)
    assert sorted(tmp_path.rglob("*")) == before

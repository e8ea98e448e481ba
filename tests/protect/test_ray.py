"""Protecting with a Ray cluster: the files of one process, whoever dies on the way."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import socket
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import storage
import torch
from killing import run_killed
from test_publish import small_generator, tree, write_pictures
from test_tars import write_tars
from typer.testing import CliRunner, Result

from semtransforms import protect_with_ray
from semtransforms.cli import app
from semtransforms.core.files import UNFINISHED, alone_in
from semtransforms.data.sources import open_source
from semtransforms.protect import packing, publish
from semtransforms.protect import ray as adapter
from semtransforms.protect.making import Maker
from semtransforms.protect.publish import protect_source

SEED = 8_314_159_265


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """A cluster of this machine that believes in four CPUs, or that of RAY_ADDRESS; gives the folder of its session."""
    ray = pytest.importorskip("ray", reason="pip install 'semtransforms[ray]'")
    pytest.importorskip("ray.data", reason="pip install 'semtransforms[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        own = {"num_cpus": 4, "include_dashboard": False, "object_store_memory": 100 << 20}
        options = {"address": "local", **own} if "RAY_ADDRESS" not in os.environ else {}
        with ray.init(log_to_driver=False, logging_level="ERROR", **options):
            yield Path(ray._private.worker._global_node.get_session_dir_path())


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "BATCH_IMAGES", 2)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twenty photographs of two sizes in two classes, and a file that is none."""
    root = write_pictures(tmp_path / "photos", 20, 12, (8, 12))
    (root / "dog" / "broken.jpg").write_text("<html>404</html>")
    return root


@pytest.fixture
def wanted(photos: Path, tmp_path: Path) -> dict[str, bytes]:
    """What one process makes."""
    out = tmp_path / "alone" / "out"
    protect_source(open_source(str(photos)), out, small_generator(), seed=SEED, private=tmp_path / "alone" / "private")
    return tree(out)


def command(photos: Path | str, out: Path, *options: object) -> Result:
    generator = out.parent / "generator"
    if not generator.exists():
        small_generator().save_pretrained(generator)
    arguments = ("protect", photos, out, "--generator", generator, "--cache-dir", out.parent / "cache", *options)
    return CliRunner().invoke(app, [str(each) for each in arguments])


def without_names(files: dict[str, bytes]) -> dict[str, bytes]:
    """Files, but for the name that a generator has by the folder it was read from."""
    record = json.loads(files["protection.json"])
    record["generator"].pop("name")
    return files | {"protection.json": json.dumps(record).encode()}


@pytest.mark.processes
def test_any_number_of_workers_makes_the_files_of_one_process(
    cluster: Path, photos: Path, tmp_path: Path, wanted: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
):
    """A cluster would publish other noise than the machine that was tried; a damaged file would end or vanish in it."""
    for workers in (1, 4):
        out = tmp_path / f"{workers}"
        outcome = protect_with_ray(
            open_source(str(photos)), out, small_generator(), workers=workers, seed=SEED, private=tmp_path / "private"
        )
        assert (outcome.written, len(outcome.failed)) == (20, 1)
        assert tree(out) == wanted
    monkeypatch.chdir(tmp_path)  # a relative path must lead there from the workers' own working folders
    result = command("photos", Path("out"), "--cluster", "auto", "--workers", 2, "--seed", SEED)
    assert result.exit_code == 1, result.output
    assert (
        result.stderr.splitlines()[-1]
        == "error: not protected: photos/dog/broken.jpg (it is no image of a known format)"
    )
    assert without_names(tree(Path("out"))) == without_names(wanted)


@pytest.mark.processes
def test_what_lies_at_an_address_is_read_by_the_workers(
    cluster: Path, photos: Path, wanted: dict[str, bytes], tmp_path: Path
):
    """What this process has open of a storage does not travel; or all bytes would go through one machine."""
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for name, data in tree(photos).items():
            archive.writestr(f"mine/{name}", data)
    address = f"zip://mine::file://{tmp_path / 'photos.zip'}"
    outcome = protect_with_ray(
        address, tmp_path / "out", small_generator(), seed=SEED, workers=2, private=tmp_path / "private"
    )
    assert tree(tmp_path / "out") == wanted
    assert len(outcome.failed) == 1


@pytest.mark.processes
def test_a_table_need_not_be_seen_by_the_workers(
    cluster: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Rows of a table in the driver's cache would be looked for on other machines, or come with other labels."""
    datasets = pytest.importorskip("datasets")
    (photos / "dog" / "broken.jpg").unlink()
    monkeypatch.chdir(tmp_path)
    datasets.load_dataset("imagefolder", data_dir="photos", split="train", cache_dir="hf").save_to_disk("table")
    source = open_source("table")
    protect_source(source, Path("wanted"), small_generator(), seed=SEED, private=Path("private"))
    protect_with_ray(source, Path("out"), small_generator(), seed=SEED, private=Path("private"), workers=1)
    assert tree(Path("out")) == tree(Path("wanted"))


@pytest.mark.processes
@pytest.mark.parametrize("form", ["parquet", "tars"])
def test_tables_and_tars_go_in_and_come_out_as_from_one_process(
    cluster: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
):
    """Data sets of millions lie in neither files nor folders: a row that is left out, or comes twice, is not missed."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    if form == "tars":
        write_tars(tmp_path / "source", photos)
    else:
        (tmp_path / "source").mkdir()
        files = sorted(file for file in photos.rglob("*") if file.is_file())
        rows = [{"image": {"bytes": f.read_bytes(), "path": None}, "label": int(f.parent.name == "dog")} for f in files]
        features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog"]))
        for number, start in enumerate(range(0, 21, 7)):
            part = datasets.Dataset.from_list(rows[start : start + 7], features=features)
            part.to_parquet(str(tmp_path / "source" / f"train-{number}-of-3.parquet"))
    source = open_source(str(tmp_path / "source"))
    monkeypatch.setattr(packing, "IN_A_TAR", 8)

    def published(place: Path) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in (*place.glob("out.*"), *place.glob("out/*"))}

    made = []
    for place, make, options in (
        ("alone", protect_source, {}),
        ("one", protect_with_ray, {"workers": 1}),
        ("two", protect_with_ray, {"workers": 2}),
    ):
        monkeypatch.setattr(publish, "BATCH_IMAGES", 5 if place == "two" else 2)
        out = tmp_path / place / ("out.parquet" if form == "parquet" else "out")
        options |= {"seed": SEED, "private": tmp_path / place / "private", "format": form}
        outcome = make(source, out, small_generator(), **options)
        assert (outcome.written, len(outcome.failed)) == (20, 1)
        assert not list((tmp_path / place).glob("*.unfinished"))
        made.append(published(tmp_path / place))
    assert made[0] == made[1] == made[2]
    assert len(made[0]) == (2 if form == "parquet" else 4)  # tars of 8, 8 and 4, and the record


def kill_all(how: str) -> int:
    """Kill all actors of this process's job that are alive; how many."""
    import ray

    if how == "ray.kill":
        handles = [each for each in gc.get_objects() if type(each) is ray.actor.ActorHandle]
        workers = [each for each in handles if "MapWorker" in repr(each)]
        for handle in workers:
            ray.kill(handle)
        return len(workers)
    job = ray.get_runtime_context().get_job_id()
    actors = [each for each in ray._private.state.actors().values() if each["JobID"] == job]
    workers = [each["Pid"] for each in actors if each["State"] == "ALIVE" and "MapWorker" in each["ActorClassName"]]
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    return len(workers)


@pytest.mark.processes
def test_killed_workers_cost_nothing_but_time(
    cluster: Path, photos: Path, tmp_path: Path, wanted: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
):
    """A machine that goes down in a night's work would cost the night, or images that nobody misses at once."""
    killed, written, write = [], [], publish._write

    def writing(made, *rest):
        written.append(made)
        if len(written) in (1, 9):
            killed.append(kill_all("ray.kill" if killed else "SIGKILL"))
        return write(made, *rest)

    monkeypatch.setattr(publish, "_write", writing)
    outcome = protect_with_ray(
        open_source(str(photos)),
        tmp_path / "out",
        small_generator(),
        workers=2,
        seed=SEED,
        private=tmp_path / "private",
    )
    assert len(killed) == 2
    assert all(killed), killed
    assert (outcome.written, outcome.found) == (20, 0)
    assert tree(tmp_path / "out") == wanted


@pytest.mark.processes
def test_copies_go_to_an_address(cluster: Path, photos: Path, tmp_path: Path, wanted: dict[str, bytes]):
    """Actors that write would need a login, and a storage that all of them see."""
    for memory in storage.memory():
        outcome = protect_with_ray(
            str(photos), "memory://bucket/out", small_generator(), seed=SEED, private=tmp_path / "private", workers=2
        )
        assert (outcome.written, len(outcome.failed)) == (20, 1)
        assert memory.tree("out") == wanted


@pytest.mark.processes
def test_a_killed_driver_goes_on_by_the_same_call(
    cluster: Path, photos: Path, tmp_path: Path, wanted: dict[str, bytes]
):
    """What was finished would be made anew with another seed, or published beside half a file."""
    code = f"""
import semtransforms.protect.publish as publish
from killing import kill_at_rename
from pathlib import Path
from semtransforms import protect_with_ray
from test_publish import small_generator
publish.BATCH_IMAGES = 2
kill_at_rename(5, "*.png")
root = Path({str(tmp_path)!r})
protect_with_ray(str(root / "photos"), root / "out", small_generator(), private=root / "private", workers=1)
"""
    run_killed(code, __file__)
    assert len(list((tmp_path / "out").rglob("*.png"))) == 4
    source, private = open_source(str(photos)), tmp_path / "private"
    outcome = protect_with_ray(source, tmp_path / "out", small_generator(), private=private, workers=1)
    assert (outcome.written, outcome.found, len(outcome.failed)) == (16, 4, 1)
    assert not list(tmp_path.rglob(f"{UNFINISHED}*"))
    seed = json.loads((outcome.private / "secret.json").read_text())["seed"]
    protect_source(source, tmp_path / "again", small_generator(), seed=seed, private=private)
    assert tree(tmp_path / "out") == tree(tmp_path / "again") != wanted  # its seed was a fresh one


@pytest.mark.processes
def test_the_seed_stands_in_nothing_that_ray_writes_or_shows(
    cluster: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Whoever reads a cluster's logs or its dashboard would compute the noise and subtract it."""
    import ray
    from ray.data._internal.stats import _StatsManager

    told, register = [], _StatsManager.register_dataset_to_stats_actor

    def telling(*arguments):
        told.append(str(arguments))  # what the dashboard gets to know of the actors' arguments
        register(*arguments)

    monkeypatch.setattr(_StatsManager, "register_dataset_to_stats_actor", staticmethod(telling))
    source, private = open_source(str(photos)), tmp_path / "private"
    protect_with_ray(source, tmp_path / "out", small_generator(), workers=1, seed=SEED, private=private)
    shown = f"{told} {ray._private.state.actors()} {ray.timeline()}"
    assert "fn_constructor_args" in shown  # it does tell of them
    written = [path.read_bytes() for path in (cluster / "logs").rglob("*") if path.is_file()]
    assert any(b"Protect" in data for data in written)
    for seed in (str(SEED).encode(), f"{SEED:_}".encode(), f"{SEED:x}".encode()):
        assert all(seed not in data for data in (shown.encode(), *written))
    assert str(SEED) in next(private.glob("*/secret.json")).read_text()  # what would be found if it were there


@pytest.mark.processes
def test_what_fails_while_images_are_listed_is_not_the_clusters(cluster: Path, photos: Path, tmp_path: Path):
    """It would be tried five times, and told as a cluster that fails."""

    class Broken:
        def __iter__(self):
            raise LookupError("row 7 is gone")

    maker = Maker(small_generator(), "png", None, 0, None, 1.0, None, 1_000_000)
    with pytest.raises(LookupError, match="row 7 is gone"):
        list(adapter.make_with_ray(maker, Broken(), 1, cluster="auto", folder=None))


@pytest.mark.processes
def test_a_cluster_that_fails_again_and_again_is_told(
    cluster: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It would be tried for ever; or given up at the fifth of a hundred machines that went down in a week."""
    import ray

    source, calls = open_source(str(photos)), []

    def failing(maker, groups, folder, count, kind, done):
        calls.append(done)
        yield from ((number, []) for number in range(min(9, len(calls) - 2)) if number not in done)
        raise ray.exceptions.WorkerCrashedError

    monkeypatch.setattr(adapter, "_handed_back", failing)
    made = adapter.make_with_ray(publish.Maker(small_generator()), [], 1, cluster="auto", folder=source.folder)
    with pytest.raises(OSError, match=r"failed 5 times in a row .* goes on from here"):
        list(made)
    # two without a group, nine with one more each, and then five without
    assert [len(done) for done in calls] == [0, 0, *range(9), *[9] * 5]


def test_what_a_worker_raises_is_told_and_not_tried_again(photos: Path):
    """A mistake in the package, or a full GPU, would be taken for a machine that went down, and made five times."""
    stage = adapter.Protect(adapter._Sealed(publish.Maker(small_generator())), adapter._versions(), photos)
    (part,) = stage({"group": [adapter._Sealed((3, [None]))]})["group"]
    assert part.content[0] == 3
    assert isinstance(part.content[1], Exception)


def test_machines_that_differ_are_refused(tmp_path: Path):
    """Other versions make other noise, files of two kinds that no seed makes again; or every image would be missing."""
    adapter.check_machine(adapter._versions(), tmp_path)
    for versions, words in (
        ((("semtransforms", "0.0.1"), ("torch", torch.__version__)), ("semtransforms", "0.0.1", socket.gethostname())),
        ((adapter._versions()[0], ("torch", "1.0")), ("torch", "1.0", torch.__version__, "same version everywhere")),
    ):
        with pytest.raises(ValueError, match="--cluster") as caught:
            adapter.check_machine(versions, None)
        assert all(word in str(caught.value) for word in words)
    with pytest.raises(ValueError, match="'/nowhere' is not there on"):
        adapter.check_machine(adapter._versions(), Path("/nowhere"))


def refused(result: Result, *words: str) -> None:
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert len(result.stderr.splitlines()) == 1
    assert all(word in result.stderr for word in words), result.stderr


def test_without_ray_the_command_that_installs_it_is_told(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A traceback, after the folder was made."""
    monkeypatch.setitem(sys.modules, "ray", None)
    refused(command(photos, tmp_path / "out", "--cluster", "auto"), "pip install 'semtransforms[ray]'")
    assert not (tmp_path / "out").exists()


def test_a_cluster_that_cannot_be_worked_with(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Minutes of waiting, a traceback of Ray's, or half a copy and a seed that is lost."""
    ray = pytest.importorskip("ray", reason="pip install 'semtransforms[ray]'")
    pytest.importorskip("ray.data", reason="pip install 'semtransforms[ray]'")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    out = tmp_path / "out"
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    refused(command(photos, out, "--cluster", address), address, "no cluster answers", "ray start --head")
    # a cluster that was killed leaves its address behind, and Ray waits there for minutes
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(address)
    refused(command(photos, out, "--cluster", "auto"), address, "no cluster answers", "ray stop")
    shutil.rmtree(tmp_path / "ray")
    for wrong in ("ray://127.0.0.1:1", "nowhere", ":1", ""):
        refused(command(photos, out, "--cluster", wrong), "auto or HOST:PORT", repr(wrong), "ray job submit")
    refused(command(photos, out, "--cluster", "auto", "--workers", -1), "workers", "-1")

    def other_version(*arguments, **options):
        raise RuntimeError("Version mismatch: The cluster was started with:\n Ray: 2.1\nThis process:\n Ray: 2.60")

    monkeypatch.setattr(ray, "init", other_version)
    refused(command(photos, out, "--cluster", "auto"), "Version mismatch", "Ray: 2.1", "Ray: 2.60")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(ValueError, match=r"fresh seed may be lost\. Give --cache-dir .*, or --seed-file"):
        protect_with_ray(str(photos), out, small_generator())
    out.mkdir()
    with alone_in(out, "OUT"):
        refused(command(photos, out, "--cluster", "auto"), "is being written by another process")
    shutil.rmtree(out)
    result = CliRunner().invoke(app, ["protect", str(photos), str(out), "--cluster", "auto"])
    refused(result, "--cluster 'auto' needs a generator", "--generator")
    assert not out.exists()
    assert not list(tmp_path.glob("cache/protections/*"))

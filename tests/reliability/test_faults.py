"""Jobs that are killed, on disks that fail, in many processes, over broken files: in short; the scripts measure more.

What a test names comes out of the scripts of this folder: ``pytest -m long`` runs as much as their tables tell of.
"""

import json
import resource
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

if not sys.platform.startswith("linux"):
    pytest.skip("forks, limits and disks of Linux", allow_module_level=True)

# scripts of this folder, which no package holds
sys.path.append(str(Path(__file__).parents[2]))

from reliability import broken, disk, fuzz, kills, load, pictures
from reliability.jobs import JOBS, SEED, Given, Running, hub

from semtransforms import fit_generator
from semtransforms.core.hardware import describe_arithmetic
from semtransforms.data import images
from semtransforms.data.opening import open_image
from semtransforms.data.raw import read_sample
from semtransforms.noise.methods import SC_LINF
from semtransforms.protect import wrapper
from semtransforms.protect.journal import FINISHED, Journal
from semtransforms.protect.shelves import Folder

LONG = [pytest.mark.long, pytest.mark.timeout(7200)]
ON_DISK = [name for name, job in JOBS.items() if job.folder is not None]


SHORT = ("fit", "protect", "ProtectedDataset", "push")  # those that end within seconds


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    return Given.make(tmp_path_factory.mktemp("given"))


@pytest.mark.processes
@pytest.mark.parametrize(
    ("job", "count"), [*((job, 2) for job in SHORT), *(pytest.param(job, 40, marks=LONG) for job in JOBS)]
)
def test_killed_at_any_moment_a_job_goes_on_to_the_same_bytes(job: str, count: int, given: Given, tmp_path: Path):
    """An owner who loses power would publish half a photograph, noise of two seeds, or a generator twice."""
    with hub() if JOBS[job].hub else nullcontext() as server:
        trials = kills.kill_job(JOBS[job], given, tmp_path, count, SEED, server)
    assert trials.wrong == []
    assert (trials.equal, len(trials.kills)) == (trials.runs, count)


@pytest.mark.processes
@pytest.mark.parametrize("fault", ["read-only", "deleted", "four at once", "four, no locks", "clock"])
@pytest.mark.parametrize(
    ("job", "times"),
    [*((job, 1) for job in ("protect", "ProtectedDataset")), *(pytest.param(job, 12, marks=LONG) for job in ON_DISK)],
)
def test_a_disk_that_fails_costs_no_more_than_a_line(job: str, times: int, fault: str, given: Given, tmp_path: Path):
    """A stack of calls, a lost seed, or a result that is not right and says nothing of it."""
    tried = disk.FAULTS[fault](disk.Bench(JOBS[job], given, tmp_path), times)
    assert tried.wrong == []
    assert tried.refused + tried.right == tried.times


@pytest.mark.processes
@pytest.mark.parametrize("pages", [1, 5])
@pytest.mark.parametrize("job", ["fit", "protect", "ProtectedDataset"])
def test_a_full_disk_is_said_in_a_line_and_emptied_it_goes_on(job: str, pages: int, given: Given, tmp_path: Path):
    """safetensors has an error of its own for it, which was no OSError: a fit ended in a stack of calls."""
    bench, tried = disk.Bench(JOBS[job], given, tmp_path), disk.Tried()
    where = tmp_path / "full"
    where.mkdir()
    small = disk.SmallDisk(where, mounted=False)  # whoever runs the suite may not mount
    ended = bench.start(where, lambda: small.limit_process(pages)).wait()
    assert ended.is_refusal, ended
    assert "cannot be written" in ended.errors[0]
    bench.go_on(where, tried, "a full disk")
    assert tried.wrong == []


@pytest.mark.processes
@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("job", ON_DISK)
def test_a_disk_that_is_full_at_any_write(job: str, given: Given, tmp_path: Path):
    """Only some of the writes of a job would be guarded."""
    assert disk.FAULTS["full"](disk.Bench(JOBS[job], given, tmp_path), 12).wrong == []


@pytest.mark.processes
@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_cluster_whose_workers_and_driver_are_killed_makes_the_same_files():
    """A night's work on many machines would be lost, or published with holes, since some of them went down."""
    pytest.importorskip("ray.data", reason="pip install 'semtransforms[ray]'")
    command = [sys.executable, "-m", "tests.reliability.cluster", "--kills", "20"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def targets(given: Given, tmp_path_factory: pytest.TempPathFactory) -> dict[str, broken.Target]:
    return broken.make_targets(given, tmp_path_factory.mktemp("broken"))


NAMES = [*(f"picture {kind}" for kind in pictures.KINDS), "config.json", "config.json without checksum",
         "model.safetensors", "checkpoint.safetensors", "manifest.json", "shard.safetensors", "protection.json",
         "metadata.csv", "secret.json", "finished.jsonl", "plan.json", "report.json", "a record of a run",
         "evaluation.json", "Parquet", "command lines"]  # fmt: skip


@pytest.mark.processes
@pytest.mark.parametrize("inputs", [40, pytest.param(10_000, marks=LONG)])
@pytest.mark.parametrize("name", NAMES)
def test_broken_files_and_command_lines_are_refused_with_a_word(
    name: str, inputs: int, targets: dict[str, broken.Target], tmp_path: Path
):
    """One odd byte of one photograph ended the run with a stack of calls, and nothing was written."""
    assert targets.keys() == set(NAMES)
    count = max(2, inputs // fuzz.SLOWER.get(name, 1))
    read = fuzz.in_own_process(targets[name], count, SEED, tmp_path)
    assert read.faults == []
    assert read.inputs >= min(count, 2)
    assert read.grown <= fuzz.MOST_MEMORY


@pytest.mark.processes
@pytest.mark.parametrize("kind", pictures.KINDS)
def test_a_bomb_is_refused_by_the_size_it_declares(kind: str):
    """A file of a kilobyte would take gigabytes before anybody asked how large its picture is."""
    if not pictures.files(kind):
        pytest.skip(f"this Pillow has no {kind}")
    data = pictures.declared(kind, 16_000, 15_000)
    assert open_image(data, 16_000 * 15_000).size == (16_000, 15_000)  # believed, were it allowed
    limit = 48 << 20

    def work() -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(Image.DecompressionBombError, match=r"16000x15000 are 240\.0 megapixels"):
            open_image(data)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
        assert grown < limit, f"{grown:,} bytes"

    ended = Running.start(work).wait()
    assert ended.status == 0, ended.stderr


def test_what_a_decoder_says_and_what_a_dataset_says_are_told_apart(tmp_path: Path):
    """AVIF's decoder raises torch's error: a damaged photograph ended the run, or a user's mistake is called one."""
    data = bytearray(pictures.files("AVIF")[0]) if pictures.files("AVIF") else pytest.skip("this Pillow has no AVIF")
    place = data.index(b"mdat")
    data[place + 40 :] = bytes(len(data) - place - 40)
    with pytest.raises(images.UNDECODABLE):
        images.to_rgb(open_image(bytes(data)))

    class Mistaken:
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> object:
            raise RuntimeError("The size of tensor a (3) must match the size of tensor b (4)")

    with pytest.raises(RuntimeError, match="The size of tensor"):
        read_sample(Mistaken(), 0)


def test_a_damaged_line_of_a_journal_costs_its_file_and_nothing_else(tmp_path: Path):
    """A JSON error that names no file would stop the protection for good; a path in it could name any file."""
    (tmp_path / "secret.json").write_text('{"seed": 7}')
    (tmp_path / "out").mkdir()
    lines = ["null", '["cut', '["../secret.json", "a", "b", 1, 2, 3]', '["/etc/passwd", "", "", 0, 0, 0]', "\0"]
    (tmp_path / FINISHED).write_text("\n".join(lines) + "\n")
    journal = Journal(tmp_path, Folder(tmp_path / "out"))
    assert journal.seed == 7
    assert (tmp_path / FINISHED).read_text() == ""
    (tmp_path / "secret.json").write_text("{}")
    with pytest.raises(ValueError, match=r"secret\.json is damaged: it holds no seed"):
        Journal(tmp_path, Folder(tmp_path / "out"))


@pytest.mark.processes
@pytest.mark.parametrize(
    ("count", "draws", "workers", "epochs"), [(3000, 1000, 2, 2), pytest.param(1_000_000, 1_000_000, 8, 4, marks=LONG)]
)
def test_loaders_over_a_large_store_keep_their_memory(
    count: int, draws: int, workers: int, epochs: int, tmp_path: Path
):
    """A day into a training the machine would be out of memory; or a worker hands out images without noise."""
    found = load.load_store(count, draws, workers, epochs, tmp_path)
    assert [(each.right, each.images) for each in found] == [(True, draws)] * epochs
    assert not load.grows(found)


@pytest.mark.processes
@pytest.mark.parametrize(("count", "workers"), [(64, 2), pytest.param(2000, 16, marks=LONG)])
def test_the_transform_in_many_workers_is_the_transform_in_one(count: int, workers: int):
    """Each worker would make noise of its own."""
    found = load.transform_in_workers(count, workers, 1)
    assert [(each.right, each.images) for each in found] == [(True, count)]


def test_noise_of_another_arithmetic_has_a_key_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A store in bf16 of one machine was read as the fp32 one of another, and nothing said what had made it."""
    data = TensorDataset(torch.arange(4 * 3 * 8 * 8).reshape(4, 3, 8, 8).to(torch.uint8), torch.arange(4) % 2)
    generator = fit_generator(data, SC_LINF, device="cpu", progress=False)
    stores = []
    for native in (False, True):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        protected = wrapper.ProtectedDataset(data, generator, cache_dir=tmp_path, device="cpu", progress=False)
        stores.append(protected.store)
    assert stores[0].folder != stores[1].folder
    said = [json.loads((store.folder / "manifest.json").read_bytes())["description"]["made_with"] for store in stores]
    assert [each["precision"] for each in said] == ["fp32", "bf16"]
    assert said[0] | {"precision": "bf16"} == said[1] == describe_arithmetic("bf16", torch.device("cpu"))
    assert {"torch", "device", "instructions"} <= said[0].keys()

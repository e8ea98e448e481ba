"""NoiseStore: kills, damage, two writers, pickling, bytes."""

import contextlib
import mmap
import multiprocessing
import os
import pickle
import signal
import stat
import time

import numpy as np
import pytest
import safetensors.numpy
import torch
from killing import kill_at_rename

from semtransforms.core.files import UNFINISHED
from semtransforms.data import store as store_module
from semtransforms.data.shards import DamagedStoreError
from semtransforms.data.store import NoiseStore, cut, default_cache_dir, store_key

SHAPES = np.array([[4, 5], [8, 8], [3, 3], [8, 8], [6, 2], [4, 5], [8, 8]] * 4)


def noise_of(index):
    height, width = SHAPES[index]
    return torch.from_numpy(np.random.default_rng(index).integers(-8, 9, (3, height, width), dtype=np.int8))


def compute(start, stop):
    for begin in range(start, stop, 3):
        yield [noise_of(index) for index in range(begin, min(begin + 3, stop))]


class Counting:
    def __init__(self):
        self.ranges = []

    def __call__(self, start, stop):
        self.ranges.append((start, stop))
        return compute(start, stop)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(store_module, "SHARD_BYTES", 600)


def build(folder, work=compute):
    return NoiseStore.build(folder, SHAPES, work, progress=False)


def assert_complete(store):
    assert len(store) == len(SHAPES)
    for index in range(len(SHAPES)):
        assert torch.equal(store[index], noise_of(index))


def test_what_is_read_is_what_was_computed(tmp_path):
    """Mixed sizes come back shifted, transposed or from the wrong shard."""
    store = build(tmp_path / "s")
    assert len(store.files) > 3
    assert_complete(store)
    assert_complete(NoiseStore(tmp_path / "s"))
    with pytest.raises(IndexError):
        store.read(len(SHAPES))
    with pytest.raises(ValueError, match="read-only"):
        store.read(0)[0] = 1


def test_shards_are_plain_safetensors(tmp_path):
    """Another program cannot read the shards, so the format is not safetensors."""
    store = build(tmp_path / "s")
    tensors = safetensors.numpy.load_file(tmp_path / "s" / store.files[0])
    height, width = tensors["shapes"][0]
    first = tensors["noise"][: 3 * height * width].reshape(height, width, 3)
    assert np.array_equal(first.transpose(2, 0, 1), noise_of(0).numpy())


def test_fixed_size_batches(tmp_path):
    """A tensor (n, 3, H, W) is stored in another order than a list of images."""
    batch = torch.randint(-8, 9, (5, 3, 4, 4), dtype=torch.int8)
    store = NoiseStore.build(tmp_path / "s", np.full((5, 2), 4), lambda a, b: [batch[a:b]], progress=False)
    assert torch.equal(torch.stack([store[i] for i in range(5)]), batch)


def test_a_complete_store_is_not_computed_again(tmp_path):
    """Every start pays for the noise again."""
    build(tmp_path / "s")
    work = Counting()
    assert_complete(build(tmp_path / "s", work))
    assert work.ranges == []


def build_until_killed(folder):
    kill_at_rename(4, "shard-*.safetensors")
    build(folder)


@pytest.mark.processes
def test_kill_continues_at_the_first_missing_shard(tmp_path):
    """A kill -9 loses finished work, leaves a half-written shard, or leaves a lock nobody holds."""
    folder = tmp_path / "s"
    process = multiprocessing.get_context("fork").Process(target=build_until_killed, args=(folder,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(list(folder.glob(f"{UNFINISHED}*"))) == 1
    done = len(list(folder.glob("shard-*.safetensors")))
    with pytest.raises(FileNotFoundError):
        NoiseStore(folder)
    work = Counting()
    store = build(folder, work)
    assert_complete(store)
    assert done == 3 < len(store.files)
    assert len(work.ranges) == len(store.files) - done
    assert not list(folder.glob(f"{UNFINISHED}*"))


def test_nothing_is_swept_without_the_lock(tmp_path, monkeypatch):
    """On a disk without locks another process may be writing the very file that looks left over."""
    half = tmp_path / "s" / f"{UNFINISHED}{os.getpid() + 1}-1"
    half.parent.mkdir()
    half.write_bytes(b"half")
    monkeypatch.setattr(store_module, "locked", lambda file, wait: contextlib.nullcontext(False))
    assert_complete(build(tmp_path / "s"))
    assert half.exists()


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("complete", [True, False])
def test_one_flipped_bit_costs_one_shard(tmp_path, complete):
    """A damaged byte is trained on in silence, or the whole store is thrown away for it."""
    store = build(tmp_path / "s")
    shard = tmp_path / "s" / store.files[2]
    flip(shard, -1 - 5)  # the tensors lie at the end
    if not complete:
        (tmp_path / "s" / "manifest.json").unlink()
        with pytest.warns(UserWarning, match="shard-00002.*damaged"):
            build(tmp_path / "s", work := Counting())
    else:
        again = NoiseStore(tmp_path / "s")
        found = [i for i in range(len(SHAPES)) if reading_fails(again, i)]
        assert found
        with pytest.raises(DamagedStoreError, match="shard-00002"):
            NoiseStore(tmp_path / "s")
        build(tmp_path / "s", work := Counting())
    assert len(work.ranges) == 1
    assert_complete(NoiseStore(tmp_path / "s"))


def reading_fails(store, index):
    try:
        return not torch.equal(store[index], noise_of(index))
    except DamagedStoreError as error:
        return "shard-00002" in str(error)


def test_every_byte_of_a_shard_is_guarded(tmp_path):
    """Some byte, of a shape or a checksum, can change without anybody noticing."""
    store = build(tmp_path / "s")
    shard = tmp_path / "s" / store.files[0]
    images = cut(3 * SHAPES.prod(axis=1), 600)[0][1]
    clean = shard.read_bytes()
    for offset in range(0, len(clean), 7):
        shard.write_bytes(clean)
        flip(shard, offset)
        opened = NoiseStore(tmp_path / "s")
        read = []
        for index in range(images):
            try:
                read.append(torch.equal(opened[index], noise_of(index)))
            except DamagedStoreError:
                break
        assert all(read), f"byte {offset} changed the noise unnoticed"


@pytest.mark.parametrize("name", ["shard-00001.safetensors", "manifest.json"])
def test_truncated_files_are_found_on_opening(tmp_path, name):
    """A full disk or a broken copy leaves a short file that is read as noise."""
    build(tmp_path / "s")
    path = tmp_path / "s" / name
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DamagedStoreError, match=name):
        NoiseStore(tmp_path / "s")
    with pytest.warns(UserWarning, match="damaged") if "shard" in name else contextlib.nullcontext():
        assert_complete(build(tmp_path / "s"))


def build_and_report(folder, queue):
    store_module.SHARD_BYTES = 600
    work = Counting()

    def slow(start, stop):
        time.sleep(0.02)
        return work(start, stop)

    build(folder, slow)
    queue.put(len(work.ranges))


@pytest.mark.processes
def test_two_processes_compute_one_store(tmp_path):
    """Two ranks that start together corrupt the store or compute it twice."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=build_and_report, args=(tmp_path / "s", queue)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    counts = sorted(queue.get() for _ in processes)
    store = NoiseStore(tmp_path / "s")
    assert counts == [0, len(store.files)]
    assert_complete(store)


def test_pickle_holds_no_noise_and_reopens(tmp_path):
    """Each worker gets a copy of the noise through a pipe, or a dead memory map."""
    store = build(tmp_path / "s")
    store.read(0)
    data = pickle.dumps(store)
    assert len(data) < 5000
    assert_complete(pickle.loads(data))


def test_the_folder_is_private(tmp_path):
    """Another user of the machine reads the noise and subtracts it."""
    store = build(tmp_path / "cache" / "s")
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    files = [path for path in store.folder.iterdir() if path.name != ".lock"]  # which is empty
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_no_room_is_said_before_the_work(tmp_path, monkeypatch):
    """The disk is full after an hour of work."""
    usage = store_module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    work = Counting()
    with pytest.raises(OSError, match=r"cache_dir: .* 1,000 free.*larger disk"):
        build(tmp_path / "s", work)
    assert work.ranges == []


def test_a_folder_that_cannot_be_written_is_said_before_the_work(tmp_path):
    """A cache on a read-only disk fails after an hour of work, without saying what to do."""
    (tmp_path / "file").write_text("not a folder")
    work = Counting()
    with pytest.raises(OSError, match=r"cache_dir '.*file/s' cannot be written .*XDG_CACHE_HOME"):
        build(tmp_path / "file" / "s", work)
    assert work.ranges == []


@pytest.mark.parametrize(
    "bad",
    [
        lambda a, b: [],
        lambda a, b: [[noise_of(i).float() for i in range(a, b)]],
        lambda a, b: [[noise_of(i).transpose(1, 2) for i in range(a, b)]],
        lambda a, b: [[noise_of(i) for i in range(a, b + 1)]],
    ],
)
def test_wrong_noise_is_refused(tmp_path, bad):
    """A generator that gives other shapes or types fills the store with nonsense."""
    with pytest.raises(ValueError, match="compute gave noise"):
        build(tmp_path / "s", bad)


def test_the_key_covers_everything():
    """A changed seed or config reads the noise of the old one."""
    base = {"data": "a", "seed": 0, "config": {"rho_u": 8 / 255}}
    others = [{**base, "data": "b"}, {**base, "seed": 1}, {**base, "config": {"rho_u": 0.1}}]
    keys = {store_key(description) for description in (base, *others)}
    assert len(keys) == 4
    assert store_key(dict(reversed(base.items()))) == store_key(base)


def test_the_cache_lies_where_the_user_keeps_caches(monkeypatch, tmp_path):
    """A cluster user's small home directory fills up although XDG_CACHE_HOME points elsewhere."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "semtransforms"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_cache_dir() == tmp_path / "home" / ".cache" / "semtransforms"


def test_resident_memory_does_not_hold_the_noise(tmp_path):
    """Reading one image loads the store: a data set larger than memory cannot be read."""
    shapes = np.full((64, 2), 256)
    store = NoiseStore.build(
        tmp_path / "s",
        shapes,
        lambda a, b: (torch.zeros(1, 3, 256, 256, dtype=torch.int8) for _ in range(a, b)),
        progress=False,
    )
    data = store.read(40)
    owner = data
    while isinstance(owner, np.ndarray):
        owner = owner.base
    assert isinstance(owner.obj, mmap.mmap)

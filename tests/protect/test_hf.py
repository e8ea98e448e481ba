"""datasets.map: the noise reaches the disk bit for bit, under the right cache entry, on the right device."""

import io
import json
import pickle
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import multiprocess
import numpy as np
import pytest
import torch
from datasets.fingerprint import Hasher
from PIL import Image

import semtransforms.protect.transform
from semtransforms.core.config import GeneratorConfig
from semtransforms.data.tables import PROTECTED
from semtransforms.generators.generator import NoiseGenerator
from semtransforms.noise.engine import build_surrogate
from semtransforms.protect.hf import MapFunction
from semtransforms.protect.transform import SEMProtect
from semtransforms.protect.wrapper import ProtectedDataset

CONFIG = GeneratorConfig(surrogate="convnet", width=4, num_classes=3, image_size=(16, 16), steps_u=2, num_samples=1)
LABELS = [2, 0, 1, 2]
FEATURES = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b", "c"]))


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture(scope="module")
def generator() -> NoiseGenerator:
    return NoiseGenerator(build_surrogate(CONFIG), CONFIG)


def arrays() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)


def oracle(generator: NoiseGenerator, images: np.ndarray, labels: list[int] = LABELS) -> np.ndarray:
    """Clean bytes plus the generator's noise, in NumPy: (N, H, W, 3)."""
    noise = generator.noise(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), labels).numpy()
    return (images.astype(int) + noise.transpose(0, 2, 3, 1)).astype(np.uint8)


def files(folder: Path, suffix: str) -> list[str]:
    paths = [str(folder / f"{i}.{suffix}") for i in range(4)]
    for path, image in zip(paths, arrays(), strict=True):
        Image.fromarray(image).save(path)
    return paths


def table(images: list[Any], features: datasets.Features = FEATURES) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"image": images, "label": LABELS}, features=features)


def decoded(images: list[Any]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(i) if isinstance(i, str) else i) for i in images])


def stored(dataset: datasets.Dataset) -> list[dict[str, Any]]:
    return list(dataset.cast_column("image", datasets.Image(decode=False))["image"])


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_images_read_from_files_reach_the_disk_bit_for_bit(generator, tmp_path, suffix):
    """datasets stores the path of the clean file for an image that has one, and JPEG for one that was JPEG."""
    paths = files(tmp_path, suffix)
    expected = oracle(generator, decoded(paths))
    result = table(paths).map(SEMProtect(generator).map_fn(), batched=True, batch_size=3)

    result.save_to_disk(tmp_path / "arrow")
    result.to_parquet(tmp_path / "data.parquet")
    for path in paths:
        Path(path).unlink()  # nothing may point to the clean files
    for read in (
        result,
        datasets.load_from_disk(tmp_path / "arrow"),
        datasets.Dataset.from_parquet(str(tmp_path / "data.parquet"), cache_dir=str(tmp_path / "cache")),
    ):
        assert (decoded(read["image"]) == expected).all()
        assert read["label"] == LABELS
        assert read.features == FEATURES
        assert [(image["path"], image["bytes"][:4]) for image in stored(read)] == [(PROTECTED, b"\x89PNG")] * 4


def test_embedded_jpeg_bytes_and_undecoded_columns(generator):
    """Parquet from the Hub holds bytes; Image(decode=False) and plain bytes dicts hand them over undecoded."""
    encoded = []
    for image in arrays():
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="JPEG")
        encoded.append({"bytes": buffer.getvalue(), "path": "photo.jpg"})
    expected = oracle(generator, decoded([Image.open(io.BytesIO(image["bytes"])) for image in encoded]))
    plain = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    for feature in (datasets.Image(), datasets.Image(decode=False), plain):
        features = datasets.Features({**FEATURES, "image": feature})
        result = table(encoded, features).map(SEMProtect(generator).map_fn(), batched=True)
        assert result.features == features
        assert (decoded(result.cast_column("image", datasets.Image())["image"]) == expected).all()
        assert [image["path"] for image in stored(result.cast_column("image", datasets.Image()))] == [PROTECTED] * 4


def test_alpha_mixed_sizes_other_columns_and_names(generator):
    """Rows of a real data set differ in size and mode; columns not named stay as they are."""
    grey = arrays()[0, :, :, 0]
    rgba = np.concatenate([arrays()[1], grey[..., None]], axis=2)[:, :12]
    dataset = datasets.Dataset.from_dict(
        {
            "img": [Image.fromarray(grey), Image.fromarray(rgba)],
            "fine_label": [1, 0],
            "label": [7, 8],
            "note": ["x", "y"],
        }
    )
    result = dataset.map(SEMProtect(generator).map_fn("img", "fine_label"), batched=True)
    first, second = (np.asarray(image) for image in result["img"])
    assert (first == oracle(generator, np.repeat(grey[None, ..., None], 3, axis=3), [1])[0]).all()
    assert (second[..., :3] == oracle(generator, rgba[None, ..., :3], [0])[0]).all()
    assert (second[..., 3] == rgba[..., 3]).all()
    assert result.remove_columns("img").to_dict() == dataset.remove_columns("img").to_dict()


def test_iterable_dataset(generator):
    """Streaming gives plain dicts instead of datasets' lazy batches, and does not decode what map returns."""
    stream = table([Image.fromarray(image) for image in arrays()]).to_iterable_dataset()
    stream = stream.map(SEMProtect(generator).map_fn(), batched=True).cast(FEATURES)
    assert (decoded([row["image"] for row in stream]) == oracle(generator, arrays())).all()


def test_hash_follows_what_decides_the_result(generator, monkeypatch, tmp_path):
    """A hash that missed one of these would hand out a cached result with other noise."""

    def digest(generator: NoiseGenerator = generator, *columns: str, **options: Any) -> str:
        return Hasher.hash(SEMProtect(generator, **options).map_fn(*columns))

    other_weights = NoiseGenerator(build_surrogate(replace(CONFIG, seed=1)), CONFIG)
    hashes = [
        digest(),
        digest(seed=1),
        digest(generator, "img"),
        digest(generator, "image", "fine_label"),
        digest(label_map={0: 1}),
        digest(label_map={0: 2}),
        digest(other_weights),
        digest(NoiseGenerator(generator.surrogate, replace(CONFIG, rho_u=4 / 255))),
    ]
    with monkeypatch.context() as patched:
        patched.setattr(semtransforms.protect.transform, "__version__", "99")
        hashes.append(digest())
    assert len(set(hashes)) == len(hashes)

    protect = SEMProtect(generator)
    function = protect.map_fn()
    protect.seed = 1
    assert Hasher.hash(function) == hashes[1]

    generator.save_pretrained(tmp_path)
    by_name = NoiseGenerator.from_pretrained(tmp_path, device="cpu")
    assert digest() == digest(device="cpu") == digest(by_name) == digest(generator, "image", "label")


def test_hash_does_not_touch_the_weights(generator, monkeypatch):
    """Hashing a ResNet's 44 MB at each call of map would cost more than it saves; the workers still get them."""
    function = SEMProtect(generator).map_fn()
    generator.fingerprint  # noqa: B018  # computed once per generator

    def refuse(*_: Any) -> None:
        raise AssertionError("weights were read")

    with monkeypatch.context() as patched:
        patched.setattr(NoiseGenerator, "__getstate__", refuse, raising=False)
        Hasher.hash(function)
        Hasher.hash(lambda batch: function(batch))  # wrapped by a user
    images = {"image": [Image.fromarray(image) for image in arrays()], "label": LABELS}
    assert pickle.loads(pickle.dumps(function))(images) == function(images)


class Report:
    """Adds to each row what its process is like; in the module, so that it pickles by name."""

    def __init__(self, function: MapFunction) -> None:
        self.function = function

    def __call__(self, batch: Any, rank: int | None) -> dict[str, list[Any]]:
        state = {"rank": rank, "start": multiprocess.get_start_method(), "hash": Hasher.hash(self.function)}
        out = self.function(batch, rank)
        return {**out, "process": [json.dumps({**state, "threads": torch.get_num_threads()})] * len(out["image"])}


@pytest.fixture(params=["spawn", "fork"])
def start_method(request) -> Iterator[str]:
    if request.param not in multiprocess.get_all_start_methods():
        pytest.skip(f"{request.param} does not exist on this platform")
    before, threads = multiprocess.get_start_method(allow_none=True), torch.get_num_threads()
    multiprocess.set_start_method(request.param, force=True)
    torch.set_num_threads(2)
    yield request.param
    torch.set_num_threads(threads)
    multiprocess.set_start_method(before, force=True)


@pytest.mark.processes
def test_several_processes(generator, start_method, tmp_path):
    """Spawned: function and hash survive the journey. Forked: torch waits forever for the parent's second thread."""
    if start_method == "spawn":  # weights in memory with fork, read again with spawn
        generator = NoiseGenerator.from_pretrained(generator.save_pretrained(tmp_path), device="cpu")
    function = SEMProtect(generator, device="cpu").map_fn()
    dataset = table([Image.fromarray(image) for image in arrays()])
    result = dataset.map(Report(function), batched=True, with_rank=True, num_proc=2)
    assert (decoded(result["image"]) == oracle(generator, arrays())).all()
    states = [json.loads(text) for text in result["process"]]
    assert [state["rank"] for state in states] == [0, 0, 1, 1]
    assert {state["hash"] for state in states} == {Hasher.hash(function)}
    assert {state["start"] for state in states} == {start_method}
    if start_method == "fork":
        assert {state["threads"] for state in states} == {1}


@pytest.mark.parametrize(
    ("device", "extra", "expected"),
    [
        (None, (0,), "cuda:0"),
        (None, (5,), "cuda:1"),
        ("cuda", (3,), "cuda:1"),
        (None, ([40, 41], 1), "cuda:1"),
        (None, (), None),
        (None, ([40, 41],), None),
        ("cpu", (1,), "cpu"),
        ("cuda:0", (1,), "cuda:0"),
    ],
)
def test_one_accelerator_per_rank(monkeypatch, device, extra, expected):
    """All ranks on the first accelerator would run out of its memory while the others idle."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    seen = []

    def protect(images: list[torch.Tensor], labels: Any, device: Any) -> list[torch.Tensor]:
        seen.append(None if device is None else str(device))
        return images

    images = [Image.fromarray(image) for image in arrays()[:2]]
    MapFunction(protect, tuple, "image", "label", device, None)({"image": images, "label": [0, 1]}, *extra)
    assert seen == [expected]


def test_labels_missing_or_out_of_range_name_the_row(generator):
    """One bad row in a million must be found without a search."""
    images = [Image.fromarray(image) for image in arrays()]
    function = SEMProtect(generator).map_fn()
    for bad, message in [(None, "missing"), (-1, "missing"), (3, r"0\.\.2, got 3")]:
        dataset = datasets.Dataset.from_dict({"image": images, "label": [0, 1, 2, bad]})
        with pytest.raises(ValueError, match=rf"column 'label': .*{message}"):
            dataset.map(function, batched=True)
        with pytest.raises(ValueError, match=r"at index 1.* Index 0 is row 2 of the dataset"):
            dataset.map(function, batched=True, batch_size=2, with_indices=True)
    with pytest.raises(TypeError, match=r"column 'label': .*whole numbers, got 0\.5"):
        datasets.Dataset.from_dict({"image": images, "label": [0.5] * 4}).map(function, batched=True)


def test_wrong_columns_and_calls_are_explained(generator):
    """The names differ between data sets: img, image, label, fine_label."""
    dataset = table([Image.fromarray(image) for image in arrays()])
    protect = SEMProtect(generator)
    with pytest.raises(ValueError, match=r"column 'img' does not exist, the dataset has \['image', 'label'\]"):
        dataset.map(protect.map_fn("img"), batched=True)
    with pytest.raises(ValueError, match=r"column 'fine_label' does not exist"):
        dataset.map(protect.map_fn("image", "fine_label"), batched=True)
    with pytest.raises(TypeError, match=r"batched=True"):
        dataset.map(protect.map_fn())
    with pytest.raises(TypeError, match=r"with_format\(None\)"):
        dataset.with_format("numpy").map(protect.map_fn(), batched=True)
    with pytest.raises(ValueError, match=r"Image\(mode='L'\): every read would convert the noise away"):
        dataset.cast_column("image", datasets.Image(mode="L")).map(protect.map_fn(), batched=True)


def test_image_that_does_not_decode_names_the_row(generator, tmp_path):
    """datasets decodes a whole column and says only that some image in it is broken."""
    paths = files(tmp_path, "png")
    Path(paths[2]).write_bytes(Path(paths[2]).read_bytes()[:60])
    with pytest.raises(ValueError, match=r"column 'image': the image at index 2 \(.*2\.png\) does not decode"):
        table(paths).map(SEMProtect(generator).map_fn(), batched=True)


@pytest.mark.parametrize("error", [EOFError, struct.error, zlib.error, TypeError, SyntaxError])
def test_whatever_a_decoder_raises_names_the_row(generator, monkeypatch, error):
    """A damaged chunk ends a run over a million rows without saying which one it was in."""

    def fail(*_: Any, **__: Any) -> None:
        raise error("by its decoder")

    monkeypatch.setattr(Image, "open", fail)
    batch = {"image": [{"bytes": b"?", "path": "7.png"}], "label": [0]}
    with pytest.raises(ValueError, match=r"index 0 \(7\.png\) does not decode \(by its decoder\)\. .* row 7 of"):
        SEMProtect(generator).map_fn()(batch, [7])


def test_class_count_other_than_the_generators(generator):
    """Two classes protected as the first two of three: the noise says nothing about these labels, without a word."""
    features = datasets.Features({**FEATURES, "label": datasets.ClassLabel(names=["a", "b"])})
    dataset = datasets.Dataset.from_dict({"image": [Image.fromarray(arrays()[0])], "label": [1]}, features=features)
    with pytest.raises(ValueError, match=r"column 'label' has 2 classes, the generator 3.*fit_generator.*label_map"):
        dataset.map(SEMProtect(generator).map_fn(), batched=True)
    result = dataset.map(SEMProtect(generator, label_map={0: 2, 1: 0}).map_fn(), batched=True)
    assert (decoded(result["image"]) == oracle(generator, arrays()[:1], [0])).all()


def test_what_is_protected_is_not_protected_again(generator, tmp_path):
    """Noise on noise reaches 16 levels at a radius of 8: in memory, saved, as Parquet, streamed, or wrapped."""
    protect = SEMProtect(generator)
    clean = table([Image.fromarray(image) for image in arrays()])
    once = clean.map(protect.map_fn(), batched=True)
    once.save_to_disk(tmp_path / "saved")
    once.to_parquet(tmp_path / "rows.parquet")
    kinds = {
        "memory": once,
        "select": once.select([3, 1]),
        "saved": datasets.load_from_disk(tmp_path / "saved"),
        "parquet": datasets.Dataset.from_parquet(str(tmp_path / "rows.parquet"), cache_dir=tmp_path / "read"),
        "joined": datasets.concatenate_datasets([clean, once]),
        "undecoded": once.cast_column("image", datasets.Image(decode=False)),
    }
    for kind, rows in kinds.items():
        if kind == "joined":
            with pytest.raises(ValueError, match="protected already"):
                rows.map(protect.map_fn(), batched=True)
        else:
            with pytest.warns(UserWarning, match="left as they are"):
                again = rows.map(protect.map_fn(), batched=True)
            assert [row["bytes"] for row in stored(again)] == [row["bytes"] for row in stored(rows)]
        with pytest.raises(TypeError, match="protected already"):
            ProtectedDataset(rows, generator, cache_dir=tmp_path / "cache", progress=False)
        assert isinstance(rows[0]["image"], dict if kind == "undecoded" else Image.Image)  # others read it as ever
    with pytest.raises(ValueError, match="protected already"):
        list(clean.to_iterable_dataset().map(protect.map_fn(), batched=True).map(protect.map_fn(), batched=True))


def test_input_columns_are_named(generator):
    """'<' not supported between PngImageFile objects says nothing about input_columns."""
    with pytest.raises(TypeError, match="input_columns"):
        table([Image.fromarray(image) for image in arrays()]).map(
            SEMProtect(generator).map_fn(), batched=True, input_columns=["image", "label"]
        )


@pytest.mark.parametrize(
    ("names", "warned"),
    [(["a", "c", "b"], "'c' is where it has 'b'"), (["a", "b", "c"], None), (["x", "y", "z"], None)],
)
def test_class_names_in_another_order_are_warned_of(names, warned):
    """Noise goes by the label's number: with b and c swapped, two classes of three get each other's noise."""
    generator = NoiseGenerator(build_surrogate(CONFIG), CONFIG, classes=["a", "b", "c"])
    features = datasets.Features({**FEATURES, "label": datasets.ClassLabel(names=names)})
    data = table([Image.fromarray(image) for image in arrays()], features)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data.map(SEMProtect(generator).map_fn(), batched=True)
        told = [str(each.message) for each in caught if "class names" in str(each.message)]
        assert len(told) == (warned is not None)
        assert all(warned in each and "column 'label'" in each for each in told)
        caught.clear()
        data.map(SEMProtect(generator, label_map={0: 0, 1: 1, 2: 2}).map_fn(), batched=True)  # they have compared them
        assert not [each for each in caught if "class names" in str(each.message)]

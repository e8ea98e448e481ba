"""Noise that others have published: read as it was meant, laid on the right images, judged like our own."""

import numpy as np
import pytest
import torch
from torch.utils.data import Subset, TensorDataset

from semtransforms.data.store import NoiseStore
from semtransforms.evaluation.protocol import evaluate
from semtransforms.evaluation.victims import VictimConfig
from semtransforms.generators.fitting import fit_generator
from semtransforms.noise.methods import SC_LINF
from semtransforms.protect.wrapper import ProtectedDataset

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 3, 12, 12), dtype=np.uint8)
LABELS = torch.arange(20) % 2
LEVELS = RNG.integers(-8, 9, (20, 3, 12, 12)).astype(np.int8)


def data():
    return TensorDataset(torch.from_numpy(IMAGES), LABELS)


@pytest.mark.parametrize(
    "published",
    [
        LEVELS,
        LEVELS.transpose(0, 2, 3, 1),
        LEVELS.astype(np.int64),
        LEVELS.astype(np.float32),
        (LEVELS / np.float32(255)).transpose(0, 2, 3, 1),
        torch.from_numpy(LEVELS / 255),
        torch.from_numpy(LEVELS).bfloat16(),
        LEVELS + 0.3,  # between two levels: rounded, as a stored byte must be
    ],
    ids=["int8", "channels last", "int64", "float levels", "pixel range", "torch", "bfloat16", "fractions"],
)
def test_every_form_of_the_same_noise_is_the_same_noise(published, tmp_path):
    """A peer's loader clamps negative noise to zero, another reads the wrong axis: both judge noise nobody made."""
    store = NoiseStore.from_array(published, tmp_path)
    np.testing.assert_array_equal(np.stack([store[i].numpy() for i in range(20)]), LEVELS)
    assert store.description["rho_u"] == 8 / 255
    assert store.description["noise"] == NoiseStore.from_array(LEVELS, tmp_path).description["noise"]
    protected = ProtectedDataset(data(), store)
    expected = np.clip(IMAGES.astype(int) + LEVELS, 0, 255)  # some pixels saturate: none may wrap around
    np.testing.assert_array_equal(np.stack([protected[i][0].numpy() for i in range(20)]), expected)


def test_each_image_has_its_own_noise_not_its_class_s(tmp_path):
    """A peer looks sample-wise noise up by the label: every image of a class gets the noise of one."""
    protected = ProtectedDataset(data(), NoiseStore.from_array(LEVELS, tmp_path))
    for index in range(20):
        np.testing.assert_array_equal(protected.noise(index).numpy(), LEVELS[index])


@pytest.mark.parametrize("options", [{"fraction": 0.25}, {"indices": [3, 17]}])
def test_a_part_of_the_images(options, tmp_path):
    """Partial poisoning must protect the images it names, each with its own row."""
    protected = ProtectedDataset(data(), NoiseStore.from_array(LEVELS, tmp_path), **options)
    changed = [i for i in range(20) if not np.array_equal(protected[i][0].numpy(), IMAGES[i])]
    assert changed == protected.indices
    assert len(changed) == (5 if "fraction" in options else 2)
    for index in changed:
        np.testing.assert_array_equal(protected.noise(index).numpy(), LEVELS[index])


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (LEVELS[0], ValueError, r"\(N, H, W, 3\) or \(N, 3, H, W\).*noise\[labels\]"),
        (LEVELS[:0], ValueError, "none of them 0"),
        (LEVELS[:, :, :0], ValueError, "none of them 0"),
        (LEVELS[:, :2], ValueError, r"\(20, 2, 12, 12\)"),
        (LEVELS[:, :, :3, :3], ValueError, "must be larger"),
        (LEVELS.view(np.uint8), TypeError, "uint8.*subtracted"),
        (np.where(LEVELS > 7, np.nan, LEVELS), ValueError, "NaN"),
        (IMAGES.astype(np.float32), ValueError, r"255 grey levels.*Are these images"),
        (np.sign(LEVELS / 1.0), ValueError, r"255 grey levels.*whole levels as int8"),
        (np.zeros_like(LEVELS), ValueError, "zero everywhere"),
        (LEVELS / 2**16, ValueError, "zero everywhere"),
    ],
)
def test_what_is_no_noise_is_refused(array, error, message, tmp_path):
    """Read on regardless, it is laid on the images and reported as somebody's method."""
    with pytest.raises(error, match=message):
        NoiseStore.from_array(array, tmp_path)
    assert not list(tmp_path.iterdir())


def test_clamped_noise_is_noticed(tmp_path):
    """Half of the noise lost to an unsigned file format still looks like noise."""
    with pytest.warns(UserWarning, match="nowhere negative"):
        NoiseStore.from_array(LEVELS.clip(0), tmp_path)


def test_noise_of_other_images_is_refused(tmp_path):
    """Rows are all that ties noise to images: another number or size of them must not pass."""
    store = NoiseStore.from_array(LEVELS, tmp_path)
    with pytest.raises(ValueError, match=r"noise for 20 images, the dataset has 5.*noise\[labels\]"):
        ProtectedDataset(Subset(data(), range(5)), store)
    with pytest.raises(ValueError, match="12 x 12"):
        ProtectedDataset(TensorDataset(torch.zeros(20, 3, 16, 16, dtype=torch.uint8), LABELS), store)
    with pytest.raises(ValueError, match="label_map needs a generator"):
        ProtectedDataset(data(), store, label_map={0: 1, 1: 0})


def test_it_goes_through_the_same_evaluation(tmp_path, monkeypatch):
    """The figures of others and ours stand in one table only if one protocol made them."""
    victim = VictimConfig("convnet", width=4, train_steps=2, batch_size=8, augmentation=(), evaluations=1)
    test = TensorDataset(torch.from_numpy(255 - IMAGES), LABELS)
    store = NoiseStore.from_array(LEVELS, tmp_path)
    options = {"test": test, "victims": {"tiny": victim}, "seeds": (0,), "device": "cpu", "progress": False}
    report = evaluate(data(), store, copy_name="theirs", **options)
    record = next(record for record in report.records if record.copy == "theirs")
    assert (record.method, record.rho_u, record.generator) == ("imported", 8 / 255, store.description["noise"])
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")  # nothing is to be kept: no cache is needed
    patches = fit_generator(data(), SC_LINF, progress=False)
    computed = ProtectedDataset(data(), patches, cache_dir=tmp_path, progress=False)
    record = next(each for each in evaluate(data(), computed.store, **options).records if each.copy != "clean")
    assert (record.method, record.rho_u, record.copy) == ("sc-linf", 8 / 255, "sc-linf")
    assert record.generator == computed.origin["generator"]
    with pytest.raises(ValueError, match=r"informed-same-seed.*needs the generator"):
        evaluate(data(), store, countermeasures=("informed-same-seed",), **options)

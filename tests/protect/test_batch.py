"""Protect a batch: the right noise for the right image, whatever the data calls its classes."""

import pickle
from functools import partial

import numpy as np
import pytest
import torch

from semtransforms.core.config import GeneratorConfig
from semtransforms.core.models import build_model
from semtransforms.generators.generator import NoiseGenerator
from semtransforms.protect.batch import check_class_count, generator_labels, protect_batch

SIZES = ((8, 8), (12, 9), (8, 8), (9, 12))


@pytest.fixture(scope="module")
def generator() -> NoiseGenerator:
    torch.manual_seed(0)
    config = GeneratorConfig(
        surrogate="convnet", width=4, steps_u=2, num_samples=1, num_classes=3, image_size=(8, 8), precision="fp32"
    )
    return NoiseGenerator(build_model("convnet", num_classes=3, image_size=8, width=4), config)


def images() -> list[torch.Tensor]:
    rng = np.random.default_rng(0)
    dark_and_bright = [rng.choice([0, 1, 254, 255], (3, *size)) for size in SIZES]  # where noise would leave the range
    return [torch.from_numpy(each.astype(np.uint8)) for each in dark_and_bright]


def test_each_image_gets_its_own_noise_within_the_bound(generator):
    """Grouped by size for the loop, images would come back in another order, or wrap around at white."""
    before = [image.clone() for image in images()]
    batch = protect_batch(before, [2, 0, 1, 2], generator, seed=5)
    for index, (clean, noise, protected) in enumerate(zip(images(), batch.noise, batch.protected, strict=True)):
        alone = generator.noise(clean[None], [[2, 0, 1, 2][index]], seed=5)[0]
        assert torch.equal(noise, alone)
        assert torch.equal(before[index], clean)
        total = clean.numpy().astype(int) + alone.numpy()
        assert 0 <= total.min() <= total.max() <= 255
        assert np.array_equal(protected.numpy(), total)
        assert 0 < np.abs(alone.numpy().astype(int)).max() <= 8


def test_labels_of_the_data_become_the_generators(generator):
    """Noise for another class than the data's own protects nothing."""
    mapped = protect_batch(images(), [30, 10, 20, 30], generator, seed=1, label_map={10: 0, 20: 1, 30: 2})
    for noise, same in zip(mapped.noise, protect_batch(images(), [2, 0, 1, 2], generator, seed=1).noise, strict=True):
        assert torch.equal(noise, same)
    assert protect_batch([], [], generator, seed=1).protected == []


def test_a_worker_gets_it_by_name(generator):
    """A cluster sends the function to its workers; one that carries a dataset or a file handle does not arrive."""
    assert len(pickle.dumps(protect_batch)) < 100
    work = pickle.loads(pickle.dumps(partial(protect_batch, images()[:2], [0, 1], generator, seed=2)))
    here = protect_batch(images()[:2], [0, 1], generator, seed=2)
    there = pickle.loads(pickle.dumps(work()))
    assert all(torch.equal(a, b) for a, b in zip(there.noise, here.noise, strict=True))


@pytest.mark.parametrize(
    ("labels", "label_map", "error", "message"),
    [
        ([0, 3], None, ValueError, r"^x: labels must be in 0\.\.2, got 3 at index 41"),
        ([0, -1], None, ValueError, r"^x: the label at index 41 is missing, got -1"),
        ([None, 1], {1: 0}, ValueError, r"^x: the label at index 40 is missing, got None"),
        ([0, 0.5], None, TypeError, r"^x: labels must be whole numbers, got 0\.5 .* at index 41"),
        ([7, 8], {7: 0}, ValueError, r"^x: label_map has no entry for label 8 at index 41"),
        ([7, 8], {7: 0, 8: 3}, ValueError, r"^label_map\[8\] must be in 0\.\.2, got 3"),
    ],
)
def test_a_wrong_label_is_named_as_the_caller_counts(labels, label_map, error, message):
    """The place in a batch says nothing about the row of a million that must be mended."""
    with pytest.raises(error, match=message):
        generator_labels(labels, label_map, 3, place="x: ", rows=[40, 41])


def test_the_number_of_classes_is_compared_where_it_is_known():
    """Two classes protected as the first two of three: the noise says nothing about these labels."""
    check_class_count("dataset", None, 3)
    check_class_count("dataset", ["a", "b", "c"], 3)
    with pytest.raises(ValueError, match=r"dataset has 2 classes, the generator 3.*fit_generator.*label_map"):
        check_class_count("dataset", ["a", "b"], 3)

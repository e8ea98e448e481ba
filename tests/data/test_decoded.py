"""A dataset whose images are decoded once, against the dataset itself."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset
from torchvision.datasets import ImageFolder

from semtransforms.data import decoded
from semtransforms.data.decoded import DecodedOnce
from semtransforms.data.loading import load_labelled


@pytest.fixture
def data(tmp_path):
    for number in range(6):
        folder = tmp_path / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8, 10 - number, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return ImageFolder(tmp_path, transform=lambda image: image.rotate(90))


def test_it_gives_the_raw_samples_and_leaves_the_dataset_alone(data):
    """Another order, or a transform left on, is noise for other images than the owner's."""
    once, before = DecodedOnce(data), dict(vars(data))
    for _ in range(2):
        for (image, label), (path, own) in zip((once[i] for i in range(len(once))), data.samples, strict=True):
            assert np.array_equal(image, Image.open(path))
            assert label == own
    assert vars(data) == before
    assert once.classes == ["a", "b"]


@pytest.mark.parametrize(("room", "times"), [(1.0, [1] * 6), (0.0, [2] * 6), (None, [1, 1, 2, 2, 2, 2])])
def test_it_reads_an_image_again_only_where_memory_ends(data, monkeypatch, room, times):
    """Photographs that fill the memory end the evaluation; those that were thrown away too early cost hours."""
    if room is None:  # for the first two: 8 x 10 and 8 x 8 pixels of 4 bytes
        monkeypatch.setattr(decoded, "free_memory", lambda device: 4 * (8 * 10 + 8 * 8))
        room = 1.0
    monkeypatch.setattr(decoded, "SHARE_OF_MEMORY", room)
    read, real = Counter(), data.loader
    data.loader = lambda path: (read.update([path]), real(path))[1]
    once = DecodedOnce(data)
    for _ in range(2):
        assert [once[i][0].size for i in range(6)] == [(width, 8) for width in (10, 8, 6, 9, 7, 5)]
    assert [read[path] for path, _ in data.samples] == times


def test_an_image_that_does_not_decode_is_named_by_its_place_and_file(data):
    """Among a million files, the one to repair."""
    path = data.samples[4][0]
    with open(path, "wb") as file:
        file.write(b"no image")
    with pytest.raises(ValueError, match=r"^dataset: the image at index 1 \(.*3\.png\) does not decode") as caught:
        load_labelled(DecodedOnce(Subset(data, [0, 4])), image_size=(8, 8))
    assert str(caught.value).count("does not decode") == 1
    floats = [(torch.rand(3, 8, 8), 0), (torch.rand(3, 8, 8), 1)]
    with pytest.raises(TypeError, match="sample 0"):
        load_labelled(DecodedOnce(floats))

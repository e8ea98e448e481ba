"""Noise made at the generator's size and enlarged: the same by every way of protecting, small in the store."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

from semtransforms import SEM, NoiseGenerator, ProtectedDataset, SEMProtect, fit_generator, with_effort
from semtransforms.core.grid import add_noise
from semtransforms.core.keys import image_keys
from semtransforms.data.loading import Labelled
from semtransforms.data.sources import open_source
from semtransforms.evaluation.countermeasures import InformedTrainer
from semtransforms.protect.batch import protect_batch
from semtransforms.protect.publish import protect_source

SIDE = 16


@pytest.fixture(scope="module")
def generator() -> NoiseGenerator:
    config = replace(with_effort(SEM, steps_u=2, steps_a=1, train_steps=4), surrogate="convnet", width=4, batch_size=8)
    return fit_generator((photographs(8, SIDE, SIDE), torch.arange(8) % 2), config, device="cpu", progress=False)


def photographs(count, height, width, seed=0):
    """Smooth in the large and grainy in the small."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(40, 216, (count, 3, 4, 3), dtype=np.uint8)
    smooth = [np.asarray(Image.fromarray(each).resize((width, height), 3), dtype=int) for each in coarse]
    pixels = np.stack(smooth) + draw.integers(-20, 21, (count, height, width, 3))
    return torch.from_numpy(pixels.clip(0, 255).astype(np.uint8)).permute(0, 3, 1, 2).contiguous()


LARGE, LABELS = photographs(4, 48, 64, seed=1), torch.tensor([0, 1, 1, 0])


def test_larger_images_get_the_noise_of_their_small_copy(generator):
    """Made at full size, the noise is gone after a trainer's resize. The draws are those of the whole image."""
    scale = generator.scale()
    small = torch.stack([scale.shrink(each) for each in LARGE])
    assert small.shape[1:] == (3, SIDE, 21)
    made = generator.engine.noise(small, LABELS, image_keys(LARGE, LABELS, 7))
    expected = torch.stack([scale.enlarge(each, image) for each, image in zip(made, LARGE, strict=True)])
    assert torch.equal(generator.noise(LARGE, LABELS, seed=7), expected)
    assert int(expected.abs().max()) == 8


def test_most_of_it_survives_a_resize(generator):
    """What this is for: after a trainer's resize more of the noise is left than of noise made at full size."""
    left = {}
    for size in (None, "full"):
        protected = add_noise(LARGE, generator.noise(LARGE, LABELS, noise_size=size))
        shrunk = [np.asarray(Image.fromarray(each.permute(1, 2, 0).numpy()).resize((21, 16), 2), dtype=int)
                  for each in (*protected, *LARGE)]  # fmt: skip
        left[size] = np.sqrt(np.mean(np.square(np.subtract(shrunk[:4], shrunk[4:]))))
    assert left[None] > 1.5 * left["full"]


def test_full_size_and_own_size(generator):
    """Asked for, noise is made at the image's own size, as it always was; at the generator's size both are one."""
    full = generator.engine.noise(LARGE, LABELS, image_keys(LARGE, LABELS, 0))
    assert torch.equal(generator.noise(LARGE, LABELS, noise_size="full"), full)
    assert torch.equal(generator.noise(LARGE, LABELS, noise_size=48), full)
    assert not torch.equal(generator.noise(LARGE, LABELS), full)
    own = photographs(4, SIDE, SIDE, seed=2)
    assert torch.equal(generator.noise(own, LABELS), generator.noise(own, LABELS, noise_size="full"))


@pytest.mark.parametrize("wrong", [0, 3, 2.5, "large", True])
def test_a_wrong_size_is_named(generator, wrong):
    """Found before hours of work, by name."""
    with pytest.raises(ValueError, match="noise_size"):
        generator.scale(wrong)
    with pytest.raises(ValueError, match="noise_size"):
        SEMProtect(generator, noise_size=wrong)


class Mixed(Dataset):
    """Photographs of mixed sizes, as PIL images."""

    def __init__(self):
        self.images = [*photographs(2, 48, 64), *photographs(2, 20, 17), *photographs(1, SIDE, SIDE)]
        self.labels = [0, 1, 1, 0, 1]

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return Image.fromarray(self.images[index].permute(1, 2, 0).numpy()), self.labels[index]


def test_every_way_gives_the_same_bytes(generator, tmp_path):
    """A copy that depends on the way, the batch or the order cannot be made again."""
    data = Mixed()
    expected = protect_batch(data.images, data.labels, generator, seed=3).protected
    protected = ProtectedDataset(data, generator, seed=3, cache_dir=tmp_path / "store", batch_size=2, progress=False)
    transform = SEMProtect(generator, seed=3)
    one = [protect_batch([image], [label], generator, seed=3).protected[0]
           for image, label in zip(data.images, data.labels, strict=True)]  # fmt: skip
    for index, pixels in enumerate(expected):
        wanted = pixels.permute(1, 2, 0).numpy()
        assert np.array_equal(np.asarray(protected[index][0]), wanted)
        assert torch.equal(protected.protected(index), pixels)
        assert torch.equal(protected.noise(index).int(), pixels.int() - protected.clean(index))
        assert np.array_equal(np.asarray(transform(*data[index])[0]), wanted)
        assert torch.equal(one[index], pixels)
        folder = tmp_path / "photos" / str(data.labels[index])
        folder.mkdir(parents=True, exist_ok=True)
        data[index][0].save(folder / f"{index}.png")
    source = open_source(str(tmp_path / "photos"))
    protect_source(source, tmp_path / "out", generator, seed=3, private=tmp_path / "private")
    for index, pixels in enumerate(expected):
        found = np.asarray(Image.open(tmp_path / "out" / str(data.labels[index]) / f"{index}.png"))
        assert np.array_equal(found, pixels.permute(1, 2, 0).numpy())


def test_the_store_holds_the_small_noise(generator, tmp_path):
    """Of twelve megapixels it is kilobytes: 36 MB a photograph would fill a disk."""
    data = TensorDataset(LARGE, LABELS)
    small = ProtectedDataset(data, generator, cache_dir=tmp_path, progress=False)
    full = ProtectedDataset(data, generator, noise_size="full", cache_dir=tmp_path, progress=False)
    assert small.store.folder != full.store.folder
    assert small.store.read(0).shape == (SIDE, 21, 3)
    assert full.store.read(0).shape == (48, 64, 3)
    assert torch.equal(full.noise(1), generator.noise(LARGE, LABELS, noise_size="full")[1])
    again = ProtectedDataset(data, small.store, progress=False)  # a store that was made here, given as one
    assert torch.equal(again.protected(2), small.protected(2))
    other = TensorDataset(photographs(4, 64, 48, seed=1), LABELS)
    with pytest.raises(ValueError, match="index 0 is 64 x 48"):
        ProtectedDataset(other, small.store, progress=False)


def test_the_informed_trainer_washes_at_the_same_size(generator):
    """At full size their loop looks for noise that is not there, and would be reported as harmless."""
    protected = protect_batch(list(LARGE), LABELS, generator, seed=0).protected
    washed = InformedTrainer(generator, seed=1).on_stored(Labelled(torch.stack(protected), LABELS), seed=0).images
    moved = washed.int() - torch.stack(protected)
    assert 0 < int(moved.abs().max()) <= 8
    full = generator.engine.undo(torch.stack(protected), LABELS, image_keys(torch.stack(protected), LABELS, 1)).int()
    same = InformedTrainer(generator, seed=1, noise_size="full").on_stored(
        Labelled(torch.stack(protected), LABELS), seed=0
    )
    assert torch.equal(same.images.int() - torch.stack(protected), full)  # they try out both
    roughness = [(each[..., 1:] - each[..., :-1]).abs().float().mean() for each in (moved, full)]
    assert roughness[0] < roughness[1] / 2  # enlarged three times, neighbours differ by a third


class Growing(Dataset):
    """Gives another size of the same shape once it was surveyed."""

    def __init__(self, surveyed):
        self.read, self.surveyed = 0, surveyed

    def __len__(self):
        return 2

    def __getitem__(self, index):
        self.read += 1
        side = 1 if self.read <= self.surveyed else 2
        return photographs(2, 48 * side, 64 * side)[index], index


def test_an_image_that_grows_while_noise_is_made_is_refused(generator, tmp_path):
    """Its noise would be kept for an image that nobody has seen."""
    counted = Growing(10**9)
    ProtectedDataset(counted, generator, cache_dir=tmp_path / "first", progress=False)
    with pytest.raises(ValueError, match="is 96 x 128"):  # the last two reads make the noise
        ProtectedDataset(Growing(counted.read - 2), generator, cache_dir=tmp_path / "second", progress=False)

"""``store=False``: noise that is made when a sample is asked for, and kept nowhere."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, TensorDataset

from semtransforms import SEM_ONE_PASS, NoiseGenerator, NoiseStore, ProtectedDataset
from semtransforms.core.config import GeneratorConfig
from semtransforms.noise.engine import build_surrogate
from semtransforms.protect import live as live_module

SEED = 5


def painter(num_classes=4):
    """A one-pass generator whose weights are as they were drawn."""
    facts = {**SEM_ONE_PASS.to_dict(), "num_classes": num_classes, "image_size": (16, 16)}
    config = GeneratorConfig.from_dict(facts)
    return NoiseGenerator(build_surrogate(config), config)


class Photographs(Dataset):
    """PIL images of several sizes."""

    def __init__(self, count=9):
        draw = np.random.default_rng(0)
        sides = [(20 + k, 31) for k in range(count)]
        self.images = [Image.fromarray(draw.integers(0, 256, (*side, 3), dtype=np.uint8)) for side in sides]
        self.labels = [k % 4 for k in range(count)]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], self.labels[index]


def test_the_bytes_are_those_that_the_generator_gives_in_the_workers_of_a_loader(tmp_path):
    """What a trainer reads must be what was published, whichever process makes it; and nothing may lie in the cache."""
    generator, photographs = painter(), Photographs()
    live = ProtectedDataset(photographs, generator, seed=SEED, store=False, cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())
    assert live.store is None
    loader = DataLoader(live, batch_size=4, num_workers=2, multiprocessing_context="spawn", collate_fn=list)
    found = [np.array(image) for batch in loader for image, _ in batch]
    for index, (image, label) in enumerate(zip(photographs.images, photographs.labels, strict=True)):
        clean = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        noise = generator.noise([clean], [label], seed=SEED)[0]
        expected = (np.array(image).astype(int) + noise.permute(1, 2, 0).numpy()).astype(np.uint8)
        assert np.array_equal(found[index], expected)
        assert np.array_equal(np.array(live[index][0]), expected)  # alone, and in this process
        assert torch.equal(live.noise(index), noise)
    assert np.abs(found[0].astype(int) - np.array(photographs.images[0]).astype(int)).max() > 0


def test_a_share_leaves_the_other_images_as_they_are():
    """A researcher protects a part: the same part that a store would have been for."""
    images = torch.randint(0, 256, (12, 3, 16, 16), dtype=torch.uint8)
    data = TensorDataset(images, torch.arange(12) % 4)
    live = ProtectedDataset(data, painter(), seed=SEED, store=False, indices=[1, 7])
    samples = live.__getitems__(range(12))
    changed = [index for index, (image, _) in enumerate(samples) if not torch.equal(image, images[index])]
    assert changed == [1, 7]
    assert not live.noise(0).any()
    assert live.noise(7).any()


def test_large_images_take_turns(monkeypatch):
    """64 photographs of 12 megapixels, decoded at once, are five gigabytes in each worker."""
    photographs, most = Photographs(), []
    wanted = ProtectedDataset(photographs, painter(), seed=SEED, store=False).__getitems__(range(9))
    made = live_module.LiveNoise.made

    def watched(self, pairs, rows):
        most.append(len(pairs))
        return made(self, pairs, rows)

    monkeypatch.setattr(live_module, "TURN_BYTES", 2 * 3 * 24 * 31)  # of two of them, or of three small ones
    monkeypatch.setattr(live_module.LiveNoise, "made", watched)
    found = ProtectedDataset(photographs, painter(), seed=SEED, store=False).__getitems__(range(9))
    assert sum(most) == 9
    assert max(most) <= 3
    assert all(ours[1] == other[1] for ours, other in zip(found, wanted, strict=True))
    assert all(np.array_equal(ours[0], other[0]) for ours, other in zip(found, wanted, strict=True))


def test_bad_input_is_named_when_its_turn_comes(tmp_path):
    """Without the first pass over the images, a message must still say which one it is."""
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    live = ProtectedDataset(TensorDataset(images, torch.tensor([0, 9, 1])), painter(), seed=SEED, store=False)
    live[0]
    with pytest.raises(ValueError, match="got 9 at index 1"):
        live[1]
    broken = tmp_path / "broken.png"
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(broken)
    broken.write_bytes(broken.read_bytes()[:50])
    photographs = Photographs()
    photographs.images[2] = Image.open(broken)
    with pytest.raises(ValueError, match=r"index 2.* does not decode"):
        ProtectedDataset(photographs, painter(), seed=SEED, store=False)[2]
    photographs.images[2] = None
    with pytest.raises(TypeError, match=r"sample 2: image must be"):
        ProtectedDataset(photographs, painter(), seed=SEED, store=False)[2]
    once = ProtectedDataset(Photographs(), painter(), seed=SEED, store=False)
    photographs.images[3] = once[3][0]
    with pytest.raises(ValueError, match="index 3 is protected already"):
        ProtectedDataset(photographs, painter(), seed=SEED, store=False)[3]
    store = NoiseStore.from_array(np.ones((9, 16, 16, 3), np.int8), tmp_path / "store")
    with pytest.raises(ValueError, match="store=False makes noise with a generator"):
        ProtectedDataset(Photographs(), store, store=False)

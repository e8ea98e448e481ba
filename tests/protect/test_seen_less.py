"""Noise that is seen less: the same bytes by every way of protecting, and the choice is kept with the copy."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset
from typer.testing import CliRunner

from semtransforms import NoiseGenerator, ProtectedDataset, SEMProtect
from semtransforms.cli import app
from semtransforms.core.config import GeneratorConfig
from semtransforms.core.grid import add_noise
from semtransforms.core.models import build_model
from semtransforms.data.loading import Labelled
from semtransforms.data.sources import open_source
from semtransforms.evaluation.countermeasures import InformedTrainer
from semtransforms.protect.batch import protect_batch
from semtransforms.protect.publish import protect_source

SIDE = 8
SIZES = [(24, 32), (33, 20), (SIDE, SIDE), (9, 30)]
LABELS = [0, 1, 1, 0]


@pytest.fixture(scope="module")
def generator():
    """A network that was never fitted: its noise is real noise all the same."""
    torch.manual_seed(0)
    config = GeneratorConfig(
        surrogate="convnet", width=4, steps_u=2, num_samples=1, num_classes=2, image_size=(8, 8), precision="fp32"
    )
    return NoiseGenerator(build_model("convnet", num_classes=2, image_size=8, width=4), config)


def photographs():
    """Left flat, right gravel, as PIL images of several sizes."""
    draw = np.random.default_rng(0)
    images = []
    for height, width in SIZES:
        pixels = np.full((height, width, 3), 120)
        pixels[:, width // 2 :] += draw.integers(-100, 101, (height, width - width // 2, 3))
        images.append(torch.from_numpy(pixels.astype(np.uint8)).permute(2, 0, 1).contiguous())
    return images


class Photographs:
    """Them as a dataset of PIL images."""

    def __len__(self):
        return len(SIZES)

    def __getitem__(self, index):
        return Image.fromarray(photographs()[index].permute(1, 2, 0).numpy()), LABELS[index]


@pytest.fixture
def folder(tmp_path):
    """Them as an image folder."""
    for index, label in enumerate(LABELS):
        (tmp_path / "photos" / str(label)).mkdir(parents=True, exist_ok=True)
        Photographs()[index][0].save(tmp_path / "photos" / str(label) / f"{index}.png")
    return tmp_path / "photos"


def test_every_way_gives_the_same_bytes(generator, folder, tmp_path):
    """A way that forgets the mask publishes what its owner wanted nobody to see."""
    images, how = photographs(), {"seed": 3, "visibility": 0.25}
    noise = generator.noise(images, LABELS, **how)
    full = generator.noise(images, LABELS, seed=3)
    for index, (image, damped, plain) in enumerate(zip(images, noise, full, strict=True)):
        flat = image.shape[2] // 2 - (2 if index == 2 else 8)  # windows there see no gravel
        if flat > 0:
            assert 0 < int(damped[:, :, :flat].abs().max()) < int(plain[:, :, :flat].abs().max())
        assert int(damped.abs().max()) <= 8
    expected = [add_noise(image, each) for image, each in zip(images, noise, strict=True)]
    data, store = Photographs(), {"cache_dir": tmp_path / "store", "progress": False}
    protected = ProtectedDataset(data, generator, **how, **store)
    again = ProtectedDataset(data, protected.store, progress=False)  # its store, given as one
    transform = SEMProtect(generator, **how)
    rows = {"image": [data[i][0] for i in range(4)], "label": LABELS}
    mapped = transform.map_fn()(rows)["image"]
    protect_source(open_source(str(folder)), tmp_path / "out", generator, private=tmp_path / "private", **how)
    for index, pixels in enumerate(expected):
        wanted = pixels.permute(1, 2, 0).numpy()
        alone = protect_batch([images[index]], [LABELS[index]], generator, **how).protected[0]
        assert torch.equal(alone, pixels)
        assert torch.equal(protected.protected(index), pixels)
        assert torch.equal(protected.noise(index), noise[index])
        assert torch.equal(again.protected(index), pixels)
        (tmp_path / "mapped.png").write_bytes(mapped[index]["bytes"])
        for found in (
            protected[index][0], transform(*data[index])[0], Image.open(tmp_path / "mapped.png"),
            Image.open(tmp_path / "out" / str(LABELS[index]) / f"{index}.png"),
        ):  # fmt: skip
            assert np.array_equal(np.asarray(found), wanted)


def test_the_choice_is_kept_with_the_copy(generator, folder, tmp_path):
    """Half a folder at one visibility and half at another is nobody's wish; nor is a store of the wrong one."""
    source, private = open_source(str(folder)), tmp_path / "private"
    protect_source(source, tmp_path / "out", generator, private=private, visibility=0.5)
    assert json.loads((tmp_path / "out" / "protection.json").read_text())["visibility"] == 0.5
    with pytest.raises(ValueError, match="visibility"):
        protect_source(source, tmp_path / "out", generator, private=private)
    data = TensorDataset(torch.stack(photographs()[:1] * 2), torch.tensor([0, 1]))
    stores = [
        ProtectedDataset(data, generator, visibility=each, cache_dir=tmp_path, progress=False).store for each in (1, 0)
    ]
    assert stores[0].folder != stores[1].folder
    assert np.array_equal(stores[0].read(0), stores[1].read(0))  # as it was made: the mask comes with the image
    with pytest.raises(ValueError, match=r"visibility=0\.5 needs a generator"):
        ProtectedDataset(data, stores[0], visibility=0.5, progress=False)
    assert generator.scale(visibility=0).identity == generator.scale(visibility=0.0).identity  # one protection
    assert "visibility=0.5" in repr(SEMProtect(generator, visibility=0.5))


@pytest.mark.parametrize("wrong", [-0.1, 1.5, float("nan"), "half", True])
def test_a_wrong_visibility_is_named(generator, wrong):
    """Found before hours of work, by name."""
    with pytest.raises(ValueError, match="visibility must be"):
        generator.scale(visibility=wrong)
    with pytest.raises(ValueError, match="visibility must be"):
        SEMProtect(generator, visibility=wrong)


def test_the_command_line_takes_it(generator, folder, tmp_path):
    """The owner of photographs has no Python."""
    generator.save_pretrained(tmp_path / "generator")
    words = ["protect", str(folder), str(tmp_path / "out"), "--generator", str(tmp_path / "generator"), "--seed", "3"]
    words += ["--cache-dir", str(tmp_path / "private"), "--visibility"]
    failed = CliRunner().invoke(app, [*words, "2"])
    assert failed.exit_code != 0
    assert not (tmp_path / "out").exists()
    assert CliRunner().invoke(app, [*words, "0"]).exit_code == 0
    found = np.asarray(Image.open(tmp_path / "out" / "0" / "0.png"))
    noise = NoiseGenerator.from_pretrained(tmp_path / "generator").noise(
        photographs()[:1], LABELS[:1], seed=3, visibility=0
    )
    assert np.array_equal(found, add_noise(photographs()[0], noise[0]).permute(1, 2, 0).numpy())


def test_the_informed_trainer_may_guess_it(generator):
    """Who takes off more than was added spoils the flat parts, and would be reported as harmless."""
    images = torch.stack(photographs()[:1] * 2)
    data = Labelled(images, torch.tensor([0, 1]))
    washed = {each: InformedTrainer(generator, seed=1, visibility=each).on_stored(data, seed=0).images.int() - images
              for each in (0, 1)}  # fmt: skip
    assert washed[0][..., 20:].abs().max() > 4  # gravel
    assert washed[0][..., :8].abs().max() == 1
    assert washed[1][..., :8].abs().max() > 4

"""The protected copy in memory: the same images, the same store, and no file decoded twice for it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from torch.utils.data import Subset
from torchvision.datasets import ImageFolder

from semtransforms.core.config import GeneratorConfig
from semtransforms.core.models import build_model
from semtransforms.data.loading import load_labelled
from semtransforms.data.store import NoiseStore
from semtransforms.generators.generator import NoiseGenerator
from semtransforms.protect.loaded import load_protected
from semtransforms.protect.wrapper import ProtectedDataset


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The format of each file that is decoded, as it is."""
    kinds: list[str] = []
    load = ImageFile.ImageFile.load

    def counted(image: ImageFile.ImageFile) -> object:
        if image.tile:  # empty once it is decoded
            kinds.append(str(image.format))
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", counted)
    return kinds


@pytest.fixture
def generator() -> NoiseGenerator:
    torch.manual_seed(0)
    config = GeneratorConfig(
        surrogate="convnet", width=4, steps_u=1, num_samples=1, num_classes=2, image_size=(8, 8), precision="fp32"
    )
    return NoiseGenerator(build_model("convnet", num_classes=2, image_size=8, width=4), config)


def photographs(root: Path, kind: str, sides: tuple[int, ...]) -> ImageFolder:
    """Six files in two classes, some of them lying on their side."""
    rng = np.random.default_rng(0)
    for number in range(6):
        folder = root / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = (1, 6)[number % 2]
        pixels = rng.integers(0, 256, (sides[number % len(sides)], 8, 3), dtype=np.uint8)
        with_exif = {} if kind == "png" else {"exif": exif}
        Image.fromarray(pixels).save(root / folder.name / f"{number:02}.{kind}", **with_exif)
    return ImageFolder(root)


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_a_folder_is_decoded_once_for_its_noise(kind: str, generator, decoded, tmp_path: Path):
    """Decoding takes as long as the noise does on a fast card: twice of it is half as fast."""
    photos = photographs(tmp_path / "photos", kind, (8, 12, 9))
    protected = ProtectedDataset(photos, generator, cache_dir=tmp_path / "cache", progress=False)
    assert len(decoded) == 6
    decoded.clear()
    again = ProtectedDataset(photos, generator, cache_dir=tmp_path / "cache", progress=False)
    assert again.store.folder == protected.store.folder
    assert decoded == []
    for index in range(6):
        assert protected.noise(index).shape == protected.clean(index).shape


@pytest.mark.parametrize("image_size", [None, (10, 6)])
@pytest.mark.parametrize("part", [lambda data: data, lambda data: Subset(data, [-1, 3, 0])])
def test_the_copy_is_the_one_that_the_wrapper_gives(image_size, part, generator, decoded, tmp_path: Path):
    """What is judged must be what is published; read image by image it would be decoded twice more."""
    sides = (9,) if image_size is None else (8, 12, 9)
    photos = part(photographs(tmp_path / "photos", "png", sides))
    clean = load_labelled(photos, image_size=image_size)
    assert len(decoded) == len(photos)
    decoded.clear()
    options = {"seed": 3, "cache_dir": tmp_path / "cache", "progress": False}
    images, origin = load_protected(photos, generator, clean, image_size=image_size, **options)
    assert len(decoded) == (0 if image_size is None else len(photos))
    wrapper = ProtectedDataset(photos, generator, **options)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert torch.equal(images, load_labelled(wrapper, image_size=image_size).images)
    assert origin == wrapper.origin
    for source in (generator, wrapper.store):  # the noise is there already
        assert torch.equal(load_protected(photos, source, clean, image_size=image_size, **options)[0], images)


def test_half_a_store_gives_the_whole_copy(generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """After a kill the images of the finished shards pass by no longer: they would be left empty."""
    monkeypatch.setattr("semtransforms.data.store.SHARD_BYTES", 2 * 3 * 9 * 8)
    photos = photographs(tmp_path / "photos", "png", (9,))
    clean = load_labelled(photos)
    options = {"cache_dir": tmp_path / "cache", "progress": False}
    expected = load_labelled(ProtectedDataset(photos, generator, **options)).images
    (store,) = (tmp_path / "cache").iterdir()
    (store / "manifest.json").unlink()
    (store / "shard-00001.safetensors").unlink()
    assert torch.equal(load_protected(photos, generator, clean, **options)[0], expected)


def test_noise_of_another_size_is_refused(tmp_path: Path):
    """Noise of one size added to images of another would be spread over them, or fail without a word of which."""
    images, labels = torch.zeros(3, 3, 9, 8, dtype=torch.uint8), torch.tensor([0, 1, 0])
    store = NoiseStore.build(
        tmp_path / "s",
        [[9, 8], [8, 8], [9, 8]],
        lambda start, stop: [[torch.ones(3, 8 if i == 1 else 9, 8, dtype=torch.int8)] for i in range(start, stop)],
        progress=False,
    )
    with pytest.raises(ValueError, match=r"index 1 is 9 x 8, its noise was made at 8 x 8"):
        load_protected((images, labels), store, load_labelled((images, labels)))

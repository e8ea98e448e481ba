"""SEMProtect: which value is the image, which the label, and that types, alpha and everything else survive."""

import copy
import hashlib
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torchvision import tv_tensors
from torchvision.transforms import v2

from semtransforms.core.config import GeneratorConfig
from semtransforms.generators.generator import NoiseGenerator
from semtransforms.noise.engine import build_surrogate
from semtransforms.protect.transform import SEMProtect
from semtransforms.views.resize import NoiseScale

CONFIG = GeneratorConfig(surrogate="convnet", width=4, num_classes=10, image_size=(16, 16), steps_u=2, num_samples=1)


def oracle_noise(pixels: np.ndarray, label: int, seed: int) -> np.ndarray:
    """Noise that only the right bytes with the right label give: int8 (3, H, W) in -4..4, never out of 0..255."""
    digest = hashlib.sha256(pixels.tobytes() + bytes([label]) + str(seed).encode()).digest()
    noise = np.random.default_rng(list(digest)).integers(-4, 5, pixels.shape)
    return np.clip(noise, -pixels.astype(int), 255 - pixels.astype(int)).astype(np.int8)


def oracle(pixels: Any, label: int, seed: int = 0) -> np.ndarray:
    """The protected image: uint8 (3, H, W) of a uint8 (3, H, W)."""
    pixels = np.ascontiguousarray(pixels)
    return (pixels.astype(int) + oracle_noise(pixels, label, seed)).astype(np.uint8)


class HashGenerator:
    """Stands for a NoiseGenerator; its noise is the oracle's."""

    config = CONFIG
    num_classes = 10
    name = None
    fingerprint = "0" * 64
    device = torch.device("cpu")

    def scale(self, noise_size: Any = None, visibility: float = 1.0) -> NoiseScale:
        return NoiseScale(None, 127, visibility)

    def make_noise(
        self, images: list[torch.Tensor], labels: torch.Tensor, *, seed: int, **_: Any
    ) -> list[torch.Tensor]:
        return [torch.from_numpy(oracle_noise(i.numpy(), int(y), seed)) for i, y in zip(images, labels, strict=True)]


@pytest.fixture
def protect() -> SEMProtect:
    return SEMProtect(HashGenerator())


def pixels(count: int | None = None, height: int = 8, width: int = 8) -> torch.Tensor:
    shape = (3, height, width) if count is None else (count, 3, height, width)
    return torch.from_numpy(np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8))


def pil(image: torch.Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def chw(image: Image.Image) -> np.ndarray:
    return np.asarray(image).transpose(2, 0, 1)


@pytest.mark.parametrize("label", [3, np.int64(3), torch.tensor(3), torch.tensor([3], dtype=torch.uint8)])
@pytest.mark.parametrize("label_first", [False, True])
def test_pair_of_image_tensor_and_label_in_any_order(protect, label, label_first):
    """torchvision takes the first pure tensor as the image: (label, image) would get noise on its label."""
    image = pixels()
    before = image.clone()
    sample = (label, image) if label_first else (image, label)

    result = protect(*sample)

    assert type(result) is tuple
    out_label, out = result if label_first else result[::-1]
    assert out_label is label
    assert out.dtype == torch.uint8
    assert (out.numpy() == oracle(image, 3)).all()
    assert torch.equal(image, before)  # the input is not written to


def test_dict_with_label_tensor_before_image(protect):
    """{"label": t, "image": t}: the label comes first in the dict and would be taken for the image."""
    image = pixels()
    result = protect({"label": torch.tensor(5), "image": image, "id": torch.tensor(1), "file": "a.png"})
    assert list(result) == ["label", "image", "id", "file"]
    assert (result["image"].numpy() == oracle(image, 5)).all()
    assert (int(result["label"]), int(result["id"]), result["file"]) == (5, 1, "a.png")


@pytest.mark.parametrize(
    ("image_key", "label_key"), [("img", "fine_label"), ("pixel_values", "labels"), ("Image", "Target")]
)
def test_keys_of_common_datasets(protect, image_key, label_key):
    """CIFAR-100's rows have coarse_label too; transformers call images pixel_values."""
    image = pixels()
    result = protect({"coarse_label": 1, label_key: 6, image_key: image})
    assert (result[image_key].numpy() == oracle(image, 6)).all()


def test_named_tuple_and_nested_target(protect):
    """The keys of a nested structure decide, and the structure comes back as it was."""

    class Sample(NamedTuple):
        index: int
        image: torch.Tensor
        target: dict[str, int]

    image = pixels()
    result = protect(Sample(9, image, {"label": 4, "area": 12}))
    assert type(result) is Sample
    assert (result.index, result.target) == (9, {"label": 4, "area": 12})
    assert (result.image.numpy() == oracle(image, 4)).all()


def test_pil_stays_pil_without_file(protect, tmp_path):
    """A result that kept .filename or .format would be saved as a path or as JPEG, which destroys the noise."""
    pil(pixels()).save(tmp_path / "a.jpg")
    image = Image.open(tmp_path / "a.jpg")
    out, label = protect(image, 2)
    assert type(out) is Image.Image
    assert (out.mode, out.format, label) == ("RGB", None, 2)
    assert not hasattr(out, "filename")
    assert (chw(out) == oracle(chw(image), 2)).all()


def test_alpha_is_kept_and_gets_no_noise(protect):
    """Noise in the alpha channel would change what is visible, not what is learned."""
    rgba = torch.cat([pixels(), pixels()[:1]])
    image = Image.fromarray(rgba.permute(1, 2, 0).contiguous().numpy())
    out, _ = protect(image, 1)
    assert out.mode == "RGBA"
    for result in (chw(out), protect(rgba, 1)[0].numpy()):
        assert (result[3] == rgba[3].numpy()).all()
        assert (result[:3] == oracle(rgba[:3], 1)).all()


def test_grey_becomes_rgb(protect):
    """The noise has three channels; a grey result could not hold it."""
    grey = pixels()[:1]
    expected = oracle(grey.expand(3, -1, -1), 1)
    assert (chw(protect(Image.fromarray(grey[0].numpy()), 1)[0]) == expected).all()
    assert (protect(grey, 1)[0].numpy() == expected).all()


def test_tv_image_stays_tv_image_and_other_tensors_pass(protect):
    """Detection and segmentation samples carry boxes and masks that must not become images or labels."""
    image, mask = tv_tensors.Image(pixels()), torch.zeros(1, 8, 8, dtype=torch.uint8)
    boxes = tv_tensors.BoundingBoxes([[0, 0, 4, 4]], format="XYXY", canvas_size=(8, 8))
    out, out_mask, out_boxes, label = protect(image, mask, boxes, 8)
    assert type(out) is tv_tensors.Image
    assert (out.numpy() == oracle(image, 8)).all()
    assert out_mask is mask
    assert out_boxes is boxes
    assert label == 8


@pytest.mark.parametrize("wrap", [torch.Tensor.clone, tv_tensors.Image])
def test_batch_equals_single_images(protect, wrap):
    """Every image of a batch must meet its own label."""
    images, labels = pixels(3), torch.tensor([4, 0, 9])
    for out, same in (protect(wrap(images), labels), protect(labels, wrap(images))[::-1]):
        assert type(out) is type(wrap(images))
        assert same is labels
        assert (out.numpy() == np.stack([oracle(i, int(y)) for i, y in zip(images, labels, strict=True)])).all()


def test_lists_of_images_of_mixed_sizes(protect):
    """What datasets.with_transform and a custom collate give: lists, which cannot be stacked."""
    images, labels = [pil(pixels()), pil(pixels(height=5, width=9))], [3, 4]
    result = protect({"image": images, "label": labels})
    assert result["label"] == labels
    for out, image, label in zip(result["image"], images, labels, strict=True):
        assert (chw(out) == oracle(chw(image), label)).all()
    as_pairs = protect([(images[0], 3), (images[1], 4)])
    assert [chw(o).tolist() for o, _ in as_pairs] == [chw(o).tolist() for o in result["image"]]


def test_inside_compose(protect):
    """The noise comes before the other transforms, as they see the stored image."""
    image = pil(pixels())
    out, label = v2.Compose([protect, v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])(image, 7)
    assert label == 7
    assert np.abs(out.numpy() * 255 - oracle(chw(image), 7)).max() < 1e-4
    with pytest.raises(TypeError, match=r"before the conversion to float"):
        v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), protect])(image, 7)


@pytest.mark.parametrize(
    "sample",
    [
        (torch.rand(3, 8, 8), 1),
        {"image": torch.rand(3, 8, 8), "label": 1},
        (tv_tensors.Image(torch.rand(3, 8, 8)), 1),
        (torch.zeros(3, 8, 8, dtype=torch.int64), 1),
    ],
)
def test_image_that_is_not_uint8_is_refused(protect, sample):
    """Noise is exact in bytes only; a float image would lose the bound in silence."""
    with pytest.raises(TypeError, match=r"must be uint8, got torch.(float32|int64).*before the conversion"):
        protect(sample)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ((3, 4), "found no image"),
        ((torch.zeros(8, 8, dtype=torch.uint8), 1), "found no image"),
        ({"x": pixels(), "label": 3}, r"found no image.*pixel_values"),
        (pixels(), "found no label"),
        ((pixels(2), torch.rand(2, 10)), r"found no label.*MixUp"),
        ({"image": pixels(), "id": 3}, r"found no label.*fine_label"),
        ((pixels(), 3, 17), r"one label per image, found 1 images at \[0\] and 2 labels at \[1\], \[2\]"),
        ((pixels(2), torch.tensor([1, 2, 3])), "found 2 images at .* and 3 labels"),
        ({"image": pixels(), "label": 1, "target": 1}, "found 1 images .* and 2 labels"),
        ({"image": pixels(), "label": torch.eye(10)[:1]}, r"one whole number per image, got a tensor \(1, 10\)"),
        ((pixels(), 10), r"0\.\.9, got 10"),
        ((pixels(), -1), "missing"),
        ({"image": pixels(), "label": None}, "missing"),
        ((torch.zeros(1, 1, 3, 8, 8, dtype=torch.uint8), 3), r"\(C, H, W\) or \(N, C, H, W\), got \(1, 1, 3, 8, 8\)"),
    ],
)
def test_ambiguous_or_incomplete_samples_are_refused(protect, sample, message):
    """A guess would protect with the wrong label, or not at all, and nobody would notice."""
    with pytest.raises(ValueError, match=message):
        protect(sample)


def test_float_label_is_refused(protect):
    """A regression target is no class."""
    with pytest.raises(TypeError, match=r"whole numbers, got 2\.5"):
        protect({"image": pixels(), "label": 2.5})


def test_label_map_translates_for_the_generator_only():
    """Data with other label numbers can use a published generator; its own labels stay."""
    image = pixels()
    protect = SEMProtect(HashGenerator(), label_map={200: 3, 7: 4})
    out, label = protect(image, 200)
    assert label == 200
    assert (out.numpy() == oracle(image, 3)).all()
    with pytest.raises(ValueError, match=r"no entry for label 5 at index 0"):
        protect(image, 5)
    with pytest.raises(ValueError, match=r"label_map\[1\] must be in 0\.\.9, got 10"):
        SEMProtect(HashGenerator(), label_map={1: 10})


def test_seed_reaches_the_generator_but_not_the_repr():
    """Whoever learns the seed from a log recomputes the noise and subtracts it."""
    image = pixels()
    protect = SEMProtect(HashGenerator(), seed=918273)
    assert (protect(image, 1)[0].numpy() == oracle(image, 1, seed=918273)).all()
    text = repr(v2.Compose([protect]))
    assert "918273" not in text
    assert "rho_u=8/255" in text
    assert "method='sem'" in text


def test_name_instead_of_generator_is_explained():
    """SEMProtect("sem-digits") is the first thing a user tries."""
    with pytest.raises(TypeError, match=r"SEMProtect\.from_pretrained\('sem-digits'\)"):
        SEMProtect("sem-digits")


def saved_generator(folder: Path) -> NoiseGenerator:
    NoiseGenerator(build_surrogate(CONFIG), CONFIG).save_pretrained(folder)
    return NoiseGenerator.from_pretrained(folder, device="cpu")


def test_real_generator_keeps_the_bound_and_survives_pickling(tmp_path):
    """A DataLoader worker under spawn gets a pickled transform; one read from a folder travels without weights."""
    generator = saved_generator(tmp_path / "generator")
    images, labels = pixels(4, 16, 16), torch.tensor([0, 3, 3, 9])
    by_name = SEMProtect.from_pretrained(tmp_path / "generator", seed=5, device="cpu")
    in_memory = SEMProtect(NoiseGenerator(generator.surrogate, CONFIG, name="my-own"), seed=5)
    expected = images.int() + generator.noise(images, labels, seed=5).int()
    assert 0 < (expected - images.int()).abs().max() <= 8
    for protect in (by_name, in_memory):
        for same in (protect, pickle.loads(pickle.dumps(protect)), copy.deepcopy(protect)):
            assert torch.equal(same(images, labels)[0].int(), expected)
    assert len(pickle.dumps(by_name)) < 2500 < 15_000 < len(pickle.dumps(in_memory))


class Protected(Dataset):
    """As the guide writes it, and which worker it was."""

    def __init__(self, photos: list[tuple[torch.Tensor, int]], protect: SEMProtect) -> None:
        self.photos, self.protect = photos, protect

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, int, str]:
        return *self.protect(*self.photos[index]), get_worker_info().id, os.environ["OWN_DEVICE"]


def own_device(number: int) -> None:
    os.environ["OWN_DEVICE"] = f"cuda:{number}"


@pytest.mark.processes
def test_two_workers_of_a_loader_protect_in_passing(tmp_path):
    """The guide's way to several GPUs: noise of another worker's image, or a device that is chosen after the noise."""
    generator = saved_generator(tmp_path / "generator")
    images, labels = pixels(4, 16, 16), [0, 3, 3, 9]
    protect = SEMProtect.from_pretrained(tmp_path / "generator", seed=5, device="cpu")
    loader = DataLoader(
        Protected(list(zip(images, labels, strict=True)), protect),
        batch_size=2,
        num_workers=2,
        multiprocessing_context="spawn",
        worker_init_fn=own_device,
    )
    seen, given, workers, devices = zip(*loader, strict=True)
    expected = images.int() + generator.noise(images, torch.tensor(labels), seed=5).int()
    assert torch.equal(torch.cat(seen).int(), expected)
    assert torch.cat(given).tolist() == labels
    assert torch.cat(workers).tolist() == [0, 0, 1, 1]
    assert [*devices[0], *devices[1]] == ["cuda:0"] * 2 + ["cuda:1"] * 2


def test_pickled_after_its_folder_is_gone(tmp_path):
    """Downloads into a temporary folder (wandb, mlflow) end before the workers start."""
    config = GeneratorConfig(surrogate="convnet", width=4, num_classes=2, image_size=(8, 8), precision="fp32")
    with tempfile.TemporaryDirectory() as folder:
        NoiseGenerator(build_surrogate(config), config).save_pretrained(folder)
        protect = SEMProtect.from_pretrained(folder)
    again = pickle.loads(pickle.dumps(protect))
    assert again.generator.fingerprint == protect.generator.fingerprint


def test_unpickling_notices_a_replaced_generator(tmp_path):
    """A worker that read other weights than its parent would add other noise in silence."""
    protect = SEMProtect(saved_generator(tmp_path))
    parcel = pickle.dumps(protect)
    with torch.no_grad():
        for weights in protect.generator.surrogate.parameters():
            weights.add_(1)
    protect.generator.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is not the one that was pickled"):
        pickle.loads(parcel)

"""Noise on noise reaches twice the radius: refused where it can be known that an image was protected."""

import copy
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset
from torchvision import tv_tensors
from torchvision.datasets import CIFAR10
from torchvision.transforms import v2

from semtransforms import NoiseGenerator, ProtectedDataset, SEMProtect, evaluate
from semtransforms.core.config import GeneratorConfig
from semtransforms.core.models import build_model
from semtransforms.evaluation.victims import VictimConfig

LABELS = [0, 1, 0, 1]
PIXELS = np.random.default_rng(0).integers(40, 200, (4, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def generator() -> NoiseGenerator:
    torch.manual_seed(0)
    config = GeneratorConfig(
        surrogate="convnet", width=4, steps_u=2, num_samples=1, num_classes=2, image_size=(16, 16), precision="fp32"
    )
    return NoiseGenerator(build_model("convnet", num_classes=2, image_size=16, width=4), config, name="small")


def planes() -> torch.Tensor:
    return torch.from_numpy(PIXELS.transpose(0, 3, 1, 2).copy())


IMAGES = {
    "pil": lambda: Image.fromarray(PIXELS[0]),
    "pil with alpha": lambda: Image.fromarray(np.concatenate([PIXELS[0], PIXELS[0, ..., :1]], 2)),
    "tensor": lambda: planes()[0],
    "tv_tensor": lambda: tv_tensors.Image(planes()[0]),
}


@pytest.mark.parametrize("make", IMAGES.values(), ids=IMAGES)
def test_a_sample_is_protected_once(make, generator: NoiseGenerator):
    """Two transforms in a pipeline, one of them forgotten: 16 levels in the place of 8."""
    protect = SEMProtect(generator, seed=1)
    clean = make()
    once = protect((clean, 0))
    for sample in (once, {"image": once[0], "label": 0}, [once]):
        with pytest.raises(ValueError, match=r"protected already: twice the noise"):
            protect(sample)
    protect((clean, 0))  # the image that was given knows nothing of it
    assert protect((make(), 1))[1] == 1


def test_a_batch_is_protected_once(generator: NoiseGenerator):
    """A batch is one tensor."""
    protect = SEMProtect(generator, seed=1)
    with pytest.raises(ValueError, match="protected already"):
        protect(protect((planes(), torch.tensor(LABELS))))


@pytest.mark.parametrize(
    "between",
    [v2.RandomHorizontalFlip(1), v2.CenterCrop(12), v2.Resize(20), copy.deepcopy, lambda image: image.copy()],
)
def test_a_pil_image_tells_behind_other_transforms(between, generator: NoiseGenerator):
    """In a pipeline the second one does not follow at once."""
    protect = SEMProtect(generator, seed=1)
    image, label = protect((IMAGES["pil"](), 0))
    with pytest.raises(ValueError, match="protected already"):
        protect((between(image), label))


def test_what_nothing_can_tell_is_said(generator: NoiseGenerator):
    """An array has no place for a mark, and a tensor loses it: the docstrings say that such images are not known."""
    protect = SEMProtect(generator, seed=1)
    image, label = protect((planes()[0], 0))
    protect((image.clone(), label))
    assert "as long as nothing is done to it" in " ".join((SEMProtect.__doc__ or "").split())
    assert "Arrays" in (ProtectedDataset.__doc__ or "")


@pytest.mark.parametrize("suffix", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"])
def test_the_mark_goes_into_no_file(suffix: str, generator: NoiseGenerator):
    """Whoever saves a sample would publish a word that finds all protected images."""
    image, _ = SEMProtect(generator, seed=1)((IMAGES["pil"](), 0))
    buffer = io.BytesIO()
    image.save(buffer, suffix)
    assert b"semtransforms" not in buffer.getvalue()
    assert "semtransforms_protected" not in Image.open(buffer).info


def wrap(dataset, generator: NoiseGenerator, tmp_path, **options) -> ProtectedDataset:
    return ProtectedDataset(dataset, generator, seed=1, cache_dir=tmp_path, progress=False, **options)


@pytest.mark.parametrize("kind", ["pil", "tensor"])
def test_a_list_of_protected_samples_is_not_protected_again(kind: str, generator: NoiseGenerator, tmp_path):
    """A list has no name of what it was made from; its images have."""
    images = [Image.fromarray(each) for each in PIXELS] if kind == "pil" else list(planes())
    protected = wrap(list(zip(images, LABELS, strict=True)), generator, tmp_path)
    samples = [protected[index] for index in range(4)]
    with pytest.raises(ValueError, match="image at index 0 is protected already"):
        wrap(samples, generator, tmp_path)
    with pytest.raises(ValueError, match="protected already"):
        SEMProtect(generator, seed=2)(samples[0])


def test_unprotected_neighbours_are_clean(generator: NoiseGenerator, tmp_path):
    """A part that was left clean could never be protected."""
    half = wrap(list(zip(map(Image.fromarray, PIXELS), LABELS, strict=True)), generator, tmp_path, indices=[1, 3])
    clean = [half[0], half[2]]
    assert len(wrap([clean[0], (clean[1][0], 1)], generator, tmp_path)) == 2
    with pytest.raises(ValueError, match="index 1 is protected already"):
        wrap([half[0], half[1]], generator, tmp_path)


def test_a_tensor_that_was_protected_whole_is_not_protected_again(generator: NoiseGenerator, tmp_path):
    """The arrays of a TensorDataset are read without looking at each image."""
    images, labels = SEMProtect(generator, seed=1)((planes(), torch.tensor(LABELS)))
    with pytest.raises(TypeError, match="protected already"):
        wrap(TensorDataset(images, labels), generator, tmp_path)


def test_cifar_has_a_way_of_its_own(generator: NoiseGenerator, tmp_path):
    """The noise is added before there is a PIL image."""
    cifar = CIFAR10.__new__(CIFAR10)
    cifar.data, cifar.targets, cifar.classes = PIXELS.copy(), LABELS, ["a", "b"]
    cifar.transform = cifar.target_transform = cifar.transforms = None
    protected = wrap(cifar, generator, tmp_path)
    with pytest.raises(ValueError, match="protected already"):
        SEMProtect(generator, seed=1)(protected[0])


def test_what_is_protected_can_be_judged(generator: NoiseGenerator, tmp_path):
    """A mark that refuses the second protection must not refuse the evaluation, which reads protected images."""
    clean = list(zip(map(Image.fromarray, PIXELS), LABELS, strict=True))
    protected = wrap(clean, generator, tmp_path)
    tests = [(Image.fromarray(255 - each), label) for each, label in zip(PIXELS, LABELS, strict=True)]
    victim = VictimConfig(network="convnet", width=4, train_steps=1, batch_size=2)
    report = evaluate(
        clean, protected=[protected[k] for k in range(4)], test=tests, victims={"a": victim}, seeds=(0,), progress=False
    )
    assert len(report.records) == 2

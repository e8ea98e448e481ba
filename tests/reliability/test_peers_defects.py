"""What the research scripts get wrong, and no method here may.

Noise of others that loses its sign or is looked up by class: ``test_imported_noise.py``.
"""

import subprocess
import sys
from dataclasses import replace

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset, TensorDataset
from torchvision.datasets import CIFAR10, CIFAR100, ImageFolder
from torchvision.transforms import v2
from typer.testing import CliRunner

from semtransforms.cli import app
from semtransforms.generators.fitting import fit_generator
from semtransforms.noise.methods import EM, NTGA, SC_L2, SC_LINF, SEM, SEM_ONE_PASS, TAP
from semtransforms.protect.wrapper import ProtectedDataset

COUNT = 37  # no multiple of the batch
SMALL = {"surrogate": "convnet", "width": 4, "steps_u": 3, "steps_a": 1, "num_samples": 1, "train_steps": 20,
         "batch_size": 16, "precision": "fp32", "learning_rate": 0.05}  # fmt: skip
METHODS = [
    replace(SEM_ONE_PASS, **SMALL, one_pass=20),
    replace(SEM, **SMALL), replace(EM, **SMALL), replace(TAP, **(SMALL | {"train_steps": 100})),
    replace(NTGA, batch_size=16, steps_u=2), SC_LINF, SC_L2,
]  # fmt: skip


def photographs():
    """Three faintly different classes, each with more of one colour, uint8 (37, 16, 16, 3)."""
    pixels = np.random.default_rng(0).integers(100, 156, (COUNT, 16, 16, 3), dtype=np.uint8)
    labels = np.arange(COUNT) % 3
    for label in range(3):
        pixels[labels == label, :, :, label] += 16
    return pixels, labels


@pytest.fixture(scope="module", params=METHODS, ids=lambda config: config.method)
def generator(request):
    pixels, labels = photographs()
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return fit_generator((images, torch.from_numpy(labels)), request.param, progress=False, device="cpu")


def cifar(kind=CIFAR10, transform=None):
    dataset = kind.__new__(kind)
    dataset.root, dataset.train = "data", True
    dataset.data, labels = photographs()
    dataset.targets, dataset.classes = labels.tolist(), ["a", "b", "c"]
    dataset.transform, dataset.target_transform, dataset.transforms = transform, None, None
    return dataset


def test_noise_is_computed_for_the_raw_image_and_lies_on_it(generator, tmp_path):
    """Peers compute it for a cropped and flipped view and store it for the image: it points at other pixels."""
    dataset = cifar(transform=v2.Compose([v2.RandomCrop(16, padding=4), v2.RandomHorizontalFlip(1.0)]))
    protected = ProtectedDataset(dataset, generator, seed=4, cache_dir=tmp_path, progress=False)
    pixels, labels = photographs()
    raw = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    expected = generator.noise(raw, torch.from_numpy(labels), seed=4)
    for index in range(COUNT):
        assert torch.equal(protected.clean(index), raw[index])
        assert torch.equal(protected.protected(index).to(torch.int16) - raw[index], expected[index].to(torch.int16))


def test_the_tail_of_the_data_gets_noise_like_the_rest(generator, tmp_path):
    """Peers drop the last partial batch of the last pass: 80 images of CIFAR-10 keep stale noise, or none."""
    protected = ProtectedDataset(cifar(), generator, cache_dir=tmp_path, progress=False, batch_size=16)
    reach = [int(protected.noise(index).abs().max()) for index in range(COUNT)]
    assert min(reach[32:]) >= 1
    assert min(reach[32:]) >= 0.5 * np.median(reach[:32])


def folder(root):
    for index, (pixels, label) in enumerate(zip(*photographs(), strict=True)):
        (root / f"class{label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / f"class{label}" / f"{index:02d}.png")
    return ImageFolder(root)


def rows():
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])})
    pixels, labels = photographs()
    return datasets.Dataset.from_dict(
        {"image": [Image.fromarray(each) for each in pixels], "label": labels.tolist()}, features=features
    )


def tensors():
    pixels, labels = photographs()
    return TensorDataset(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels))


@pytest.mark.parametrize("kind", ["cifar10", "cifar100", "folder", "rows", "tensors", "subset"])
def test_partial_protection_is_never_ignored(kind, tmp_path):
    """Peers read the share for CIFAR-10 and protect everything of other data, or nothing, without a word."""
    dataset = {
        "cifar10": cifar, "cifar100": lambda: cifar(CIFAR100), "folder": lambda: folder(tmp_path / "images"),
        "rows": rows, "tensors": tensors, "subset": lambda: Subset(cifar(), range(COUNT)),
    }[kind]()  # fmt: skip
    generator = fit_generator(dataset, SC_LINF, progress=False, device="cpu")
    protected = ProtectedDataset(dataset, generator, fraction=0.3, cache_dir=tmp_path / "cache", progress=False)
    changed = [i for i in range(COUNT) if not torch.equal(protected.protected(i), protected.clean(i))]
    assert changed == protected.indices
    assert len(changed) == round(0.3 * COUNT)


def test_no_choice_of_images_is_empty(tmp_path):
    """A peer's subset option yields an empty set, and a protection of nothing is reported as done."""
    generator = fit_generator(tensors(), SC_LINF, progress=False, device="cpu")
    assert len(ProtectedDataset(tensors(), generator, fraction=1e-9, cache_dir=tmp_path, progress=False).indices) == 1
    with pytest.raises(ValueError, match="at least one"):
        ProtectedDataset(tensors(), generator, indices=[], cache_dir=tmp_path, progress=False)


def fit_damaged(place, method):
    """The command that fits a method on images of which one does not decode."""
    folder(place / "images")
    (place / "images" / "class0" / "00.png").write_bytes(b"no image")
    quickly = [] if method == "sc-linf" else ["--train-steps", "1"]  # SC trains nothing, and refuses the option
    return ["fit", str(place / "images"), str(place / "out"), "--method", method, *quickly]


@pytest.mark.parametrize("method", ["sem", "tap", "ntga", "sc-linf"])
def test_a_run_that_crashes_does_not_exit_with_0(method, tmp_path):
    """Peers' shell scripts go on to the next experiment, and its table gets the figures of a broken fit."""
    result = CliRunner().invoke(app, fit_damaged(tmp_path, method))
    assert result.exit_code != 0
    assert "00.png" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.processes
def test_the_exit_code_leaves_the_process(tmp_path):
    """The shell sees the status of the process, not what the command returned inside."""
    command = [sys.executable, "-m", "semtransforms", *fit_damaged(tmp_path, "sem")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "00.png" in done.stderr
    assert not (tmp_path / "out").exists()

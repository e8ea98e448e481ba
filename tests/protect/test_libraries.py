"""The libraries that owners and trainers use, themselves and not stand-ins; a test skips where its library is not."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset

from semtransforms.core.config import GeneratorConfig
from semtransforms.core.models import build_model
from semtransforms.generators.generator import NoiseGenerator
from semtransforms.protect.transform import SEMProtect
from semtransforms.protect.wrapper import ProtectedDataset

SIDE, COUNT, CLASSES, LEVELS = 28, 8, 9, 8
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE, 3), dtype=np.uint8)
LABELS = [7 * index % CLASSES for index in range(COUNT)]


@pytest.fixture(scope="module")
def generator() -> NoiseGenerator:
    """A network that was never fitted: its noise is real noise all the same."""
    torch.manual_seed(0)
    config = GeneratorConfig(
        surrogate="convnet",
        width=4,
        steps_u=2,
        num_samples=1,
        num_classes=CLASSES,
        image_size=(SIDE, SIDE),
        precision="fp32",
        rho_u=LEVELS / 255,
    )
    return NoiseGenerator(build_model("convnet", num_classes=CLASSES, image_size=SIDE, width=4), config)


@pytest.fixture(scope="module")
def expected(generator: NoiseGenerator) -> np.ndarray:
    """The protected images, (N, H, W, 3): each clean one, its own noise added, and nothing else."""
    images = [torch.from_numpy(pixels.transpose(2, 0, 1).copy()) for pixels in PIXELS]
    noise = [generator.noise([image], [label], seed=1)[0] for image, label in zip(images, LABELS, strict=True)]
    assert 0 < max(int(each.abs().max()) for each in noise) <= LEVELS
    return np.stack([(PIXELS[i] + each.numpy().transpose(1, 2, 0)).astype(np.uint8) for i, each in enumerate(noise)])


class Pictures(Dataset):
    """A dataset as people write one around albumentations."""

    def __init__(self, transform=None):
        self.transform = transform

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        image = PIXELS[index]
        if self.transform is not None:
            image = self.transform(image=image)["image"]
        return image, LABELS[index]


def protect(dataset, generator, cache: Path) -> ProtectedDataset:
    return ProtectedDataset(dataset, generator, seed=1, cache_dir=cache, progress=False)


def as_float(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1).copy()).float() / 255


def test_timm_reads_and_loads(generator, expected, tmp_path: Path):
    """``create_loader`` sets ``dataset.transform``: trainers get PIL images, or noise on a resized picture."""
    timm_data = pytest.importorskip("timm.data")
    for index, (pixels, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
        (tmp_path / "images" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "images" / str(label) / f"{index}.png")
    for empty in set(range(CLASSES)) - set(LABELS):
        (tmp_path / "images" / str(empty)).mkdir()
    dataset = timm_data.create_dataset("", root=str(tmp_path / "images"), class_map={str(k): k for k in range(CLASSES)})
    protected = protect(dataset, generator, tmp_path / "cache")
    loader = timm_data.create_loader(
        protected, input_size=(3, 24, 24), batch_size=4, is_training=False, use_prefetcher=False, num_workers=0
    )
    transform = timm_data.create_transform((3, 24, 24))
    row_of = {label: index for index, label in enumerate(LABELS)}
    seen = [(image, int(label)) for images, labels in loader for image, label in zip(images, labels, strict=True)]
    assert sorted(label for _, label in seen) == sorted(LABELS)
    for image, label in seen:
        assert torch.equal(image, transform(Image.fromarray(expected[row_of[label]])))


def test_albumentations_is_refused_inside_and_runs_outside(generator, expected, tmp_path: Path):
    """Its ``Compose`` takes keywords only: owners were told to repair their files, and had no way to go on."""
    albumentations = pytest.importorskip("albumentations")
    flip = albumentations.Compose([albumentations.HorizontalFlip(p=1)])
    with pytest.raises(TypeError, match="transform=None"):
        protect(Pictures(flip), generator, tmp_path)
    protected = protect(Pictures(), generator, tmp_path)
    protected.transform = lambda image: flip(image=np.asarray(image))["image"]
    for index in range(COUNT):
        assert np.array_equal(protected[index][0], expected[index][:, ::-1])


@pytest.mark.parametrize("target_transform", [None, lambda label: int(label[0])])
def test_medmnist(generator, expected, target_transform, tmp_path: Path, monkeypatch):
    """Labels that are arrays of one number are refused, or are not the ones the noise is made for."""
    medmnist = pytest.importorskip("medmnist")
    labels = np.array(LABELS, np.uint8)[:, None]
    parts = {
        f"{part}_{what}": value
        for part in ("train", "val", "test")
        for what, value in (("images", PIXELS), ("labels", labels))
    }
    np.savez(tmp_path / "pathmnist.npz", **parts)
    monkeypatch.setitem(medmnist.INFO["pathmnist"], "n_samples", {"train": COUNT})  # it knows how many it published
    dataset = medmnist.PathMNIST(split="train", root=str(tmp_path), target_transform=target_transform)
    protected = protect(dataset, generator, tmp_path / "cache")
    for index in range(COUNT):
        image, label = protected[index]
        assert np.array_equal(np.asarray(image), expected[index])
        assert label == (LABELS[index] if target_transform else labels[index])


def tensors(generator, cache: Path) -> ProtectedDataset:
    protected = protect(Pictures(), generator, cache)
    protected.transform = as_float
    return protected


def assert_all_seen(folder: Path, expected: np.ndarray) -> None:
    """Every process wrote the levels of the images it trained on: together they are the protected ones, each once."""
    seen = [image for file in folder.glob("*.json") for image in json.loads(file.read_text())]
    assert sorted(seen) == sorted(image.transpose(2, 0, 1).ravel().tolist() for image in expected)


def write_seen(folder: Path, rank: int, images: list[torch.Tensor]) -> None:
    levels = [(image * 255).round().int().flatten().tolist() for batch in images for image in batch]
    (folder / f"{rank}.json").write_text(json.dumps(levels))


def lightning_loop(data: ProtectedDataset, folder: Path, **how) -> None:
    from lightning.pytorch import LightningModule, Trainer

    class Module(LightningModule):
        def __init__(self):
            super().__init__()
            self.layer, self.seen = torch.nn.Linear(3 * SIDE * SIDE, CLASSES), []

        def training_step(self, batch, _):
            self.seen.append(batch[0])
            return torch.nn.functional.cross_entropy(self.layer(batch[0].flatten(1)), batch[1])

        def on_train_end(self):
            write_seen(folder, self.global_rank, self.seen)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.01)

    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(max_epochs=1, accelerator="cpu", default_root_dir=folder, **quiet, **how)
    trainer.fit(Module(), DataLoader(data, batch_size=2, shuffle=True))


@pytest.mark.processes
@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_lightning(generator, expected, tmp_path: Path):
    """Its samplers and copies to processes do not know the wrapper: images come twice, or without noise."""
    pytest.importorskip("lightning")
    data = tensors(generator, tmp_path / "cache")
    for name, how in {"one": {}, "two": {"strategy": "ddp_fork", "devices": 2}}.items():
        (tmp_path / name).mkdir()
        lightning_loop(data, tmp_path / name, **how)
        assert_all_seen(tmp_path / name, expected)


def accelerate_loop(data: ProtectedDataset, folder: Path) -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    layer = torch.nn.Linear(3 * SIDE * SIDE, CLASSES)
    loader = DataLoader(data, batch_size=2, shuffle=True)
    layer, optimizer, loader = accelerator.prepare(layer, torch.optim.SGD(layer.parameters(), 0.01), loader)
    seen = []
    for images, labels in loader:
        seen.append(images)
        accelerator.backward(torch.nn.functional.cross_entropy(layer(images.flatten(1)), labels))
        optimizer.step()
        optimizer.zero_grad()
    write_seen(folder, accelerator.process_index, seen)


@pytest.mark.processes
@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_accelerate_in_two_processes(generator, expected, tmp_path: Path):
    """Its loaders share out the rows: images come twice, or without noise."""
    accelerate = pytest.importorskip("accelerate")
    data = tensors(generator, tmp_path / "cache")
    (tmp_path / "seen").mkdir()
    accelerate.debug_launcher(accelerate_loop, args=(data, tmp_path / "seen"), num_processes=2)
    assert len(list((tmp_path / "seen").iterdir())) == 2
    assert_all_seen(tmp_path / "seen", expected)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_webdataset_is_protected_as_it_streams(generator, expected, tmp_path: Path):
    """A stream has no length and no index: it cannot be wrapped, and its samples must get the same noise."""
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "rows.tar")) as tar:
        for index, (pixels, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
            tar.write({"__key__": f"{index:04d}", "png": png(pixels), "cls": label})
    stream = webdataset.WebDataset(str(tmp_path / "rows.tar"), shardshuffle=False).decode("pil").to_tuple("png", "cls")
    with pytest.raises(TypeError, match="SEMProtect"):
        protect(stream, generator, tmp_path / "cache")
    seen = list(stream.map(SEMProtect(generator, seed=1)))
    assert [label for _, label in seen] == LABELS
    assert np.array_equal(np.stack([np.asarray(image) for image, _ in seen]), expected)


def test_datasets_are_protected_as_they_stream(generator, expected, tmp_path: Path):
    """A stream hands over other batches than a table does: images come undecoded, or as JPEG again."""
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    rows = {"image": [{"bytes": png(pixels), "path": None} for pixels in PIXELS], "label": LABELS}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "rows.parquet")
    files = {"train": str(tmp_path / "rows.parquet")}
    stream = datasets.load_dataset("parquet", data_files=files, streaming=True, cache_dir=tmp_path / "c")["train"]
    with pytest.raises(TypeError, match="SEMProtect"):
        protect(stream, generator, tmp_path / "cache")
    protected = stream.map(SEMProtect(generator, seed=1).map_fn(), batched=True, batch_size=3).cast(features)
    seen = list(protected)
    assert [row["label"] for row in seen] == LABELS
    assert np.array_equal(np.stack([np.asarray(row["image"]) for row in seen]), expected)


def test_a_subset_of_what_is_protected_is_a_dataset_like_others(generator, expected, tmp_path: Path):
    """``random_split`` and friends build on ``Subset``, which asks for batches in its own way."""
    part = Subset(protect(Pictures(), generator, tmp_path), [5, 2])
    images = torch.cat([batch for batch, _ in DataLoader(part, batch_size=2)])
    assert np.array_equal(images.numpy(), expected[[5, 2]])

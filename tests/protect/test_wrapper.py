"""ProtectedDataset over the kinds of datasets people have, with a generator that is ten lines of NumPy."""

import hashlib
import multiprocessing
import os
import pickle
import signal
import warnings
import weakref

import numpy as np
import pytest
import torch
from killing import kill_at_rename
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset
from torchvision import transforms, tv_tensors
from torchvision.datasets import CIFAR10, MNIST, ImageFolder
from torchvision.datasets import folder as torchvision_folder

from semtransforms.core.config import GeneratorConfig
from semtransforms.data import store as store_module
from semtransforms.data.raw import read_samples, take_off_transforms
from semtransforms.data.shards import DamagedStoreError
from semtransforms.data.store import NoiseStore
from semtransforms.protect import wrapper as datasets_module
from semtransforms.protect.wrapper import ProtectedDataset
from semtransforms.views.resize import NoiseScale

LEVELS = 8
RNG = np.random.default_rng(0)


def noise_of(pixels, label, seed):
    """What the generator says for one image: keyed by its bytes, its label and the seed, cut at 0 and 255."""
    key = hashlib.sha256(pixels.tobytes() + f"{pixels.shape} {label} {seed}".encode()).digest()
    noise = np.random.default_rng(list(key)).integers(-LEVELS, LEVELS + 1, pixels.shape)
    return (np.clip(pixels + noise, 0, 255) - pixels).astype(np.int8)


class FakeGenerator:
    """Deterministic noise without a network; ``weights`` stands for what must not travel to the workers."""

    def __init__(self, num_classes=4):
        self.num_classes = num_classes
        self.config = GeneratorConfig(num_classes=num_classes, image_size=(8, 8))
        self.name, self.fingerprint = "fake", hashlib.sha256(b"fake").hexdigest()
        self.classes = None
        self.smallest = 8  # as of the network its config names
        self.weights = np.zeros(1 << 20)
        self.seen = []

    def scale(self, noise_size=None, visibility=1.0):
        return NoiseScale(None, LEVELS, visibility)

    def make_noise(self, images, labels, *, scale, seed=0, batch_size=None, device=None, progress=False):
        self.seen += labels.tolist()
        return [
            torch.from_numpy(noise_of(image.numpy(), label, seed))
            for image, label in zip(images, labels.tolist(), strict=True)
        ]


class Pairs(Dataset):
    """Any map-style dataset."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], self.labels[index]


PIXELS = RNG.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
LABELS = [int(label) for label in RNG.integers(0, 4, 12)]


def cifar(transform=None, target_transform=None):
    dataset = CIFAR10.__new__(CIFAR10)
    dataset.root, dataset.train = "data", True
    dataset.data = np.ascontiguousarray(PIXELS.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)  # as torchvision has it
    dataset.targets = LABELS
    dataset.classes = ["a", "b", "c", "d"]
    dataset.transform, dataset.target_transform, dataset.transforms = transform, target_transform, None
    return dataset


def folder(root):
    for index, (pixels, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
        (root / f"class{label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / f"class{label}" / f"{index:02d}.png")
    return ImageFolder(root)


def tensor_dataset():
    return TensorDataset(torch.from_numpy(PIXELS).permute(0, 3, 1, 2).contiguous(), torch.tensor(LABELS))


def kinds(root):
    pil = [Image.fromarray(pixels) for pixels in PIXELS]
    small = [image.resize((8 + i, 9)) for i, image in enumerate(pil)]
    tv = [tv_tensors.Image(torch.from_numpy(pixels.transpose(2, 0, 1).copy())) for pixels in PIXELS]
    return {
        "cifar": cifar(),
        "subset": Subset(Subset(cifar(), [3, 1, 3, 7, 9]), [4, 0, 2]),
        "folder": folder(root),
        "tensors": tensor_dataset(),
        "pil": Pairs(pil, LABELS),
        "mixed sizes": Pairs(small, LABELS),
        "tv_tensors": Pairs(tv, LABELS),
        "arrays": Pairs(PIXELS, LABELS),
        "grey": Pairs([image.convert("L") for image in pil], LABELS),
        "alpha": Pairs([image.convert("RGBA") for image in pil], LABELS),
    }


KINDS = ["cifar", "subset", "folder", "tensors", "pil", "mixed sizes", "tv_tensors", "arrays", "grey", "alpha"]


def protect(dataset, cache, generator=None, **options):
    return ProtectedDataset(dataset, generator or FakeGenerator(), cache_dir=cache, progress=False, **options)


def channels_first(image):
    if isinstance(image, torch.Tensor):
        return image.numpy()
    array = np.asarray(image)
    array = np.dstack([array] * 3) if array.ndim == 2 else array
    return array[..., :3].transpose(2, 0, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_lies_on_the_raw_image_and_its_type_stays(kind, tmp_path):
    """One kind of dataset gets wrong noise, exceeds the radius, changes labels or the type the transform expects."""
    dataset = kinds(tmp_path / "images")[kind]
    protected = protect(dataset, tmp_path / "cache", seed=5)
    assert len(protected) == len(dataset)
    for index in range(len(dataset)):
        (clean, label), (image, same_label) = dataset[index], protected[index]
        assert same_label == label
        assert type(image) is type(clean)
        before, after = channels_first(clean), channels_first(image)
        expected = noise_of(np.ascontiguousarray(before), int(label), 5)
        assert np.array_equal(after, before + expected)
        assert np.abs(after.astype(int) - before).max() <= LEVELS
        assert np.array_equal(protected.noise(index).numpy(), expected)
        assert np.array_equal(protected.clean(index).numpy(), before)
        assert np.array_equal(protected.protected(index).numpy(), after)
    if kind == "alpha":
        assert image.mode == "RGBA"
        assert np.array_equal(np.asarray(image)[..., 3], np.asarray(clean)[..., 3])
    assert np.array_equal(channels_first(protected[-1][0]), after)
    with pytest.raises(IndexError):
        protected[len(dataset)]


def test_mnist_becomes_rgb(tmp_path):
    """Grey torchvision datasets, whose pixels lie in a tensor (N, H, W), cannot be protected."""
    dataset = MNIST.__new__(MNIST)
    dataset.data, dataset.targets = torch.from_numpy(PIXELS[..., 0].copy()), torch.tensor(LABELS)
    dataset.transform = dataset.target_transform = dataset.transforms = None
    dataset.classes = list("abcd")
    image, label = protect(dataset, tmp_path)[3]
    expected = np.repeat(PIXELS[3, ..., 0][None], 3, 0)
    assert label == LABELS[3]
    assert np.array_equal(channels_first(image), expected + noise_of(expected, label, 0))


def test_transforms_run_after_the_noise_on_a_copy(tmp_path):
    """Noise is added to a float or cropped image, the label seen by the generator is the transformed one, or the
    user's dataset has lost its transform."""
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (1.0,) * 3)])
    shift = lambda label: label + 100  # noqa: E731
    for make in (lambda d: d, lambda d: Subset(Subset(d, range(12)), range(12))):
        base = cifar(transform, shift)
        before = dict(base.__dict__)
        dataset, raw = make(base), protect(make(cifar()), tmp_path)
        protected = protect(dataset, tmp_path)
        for index in (0, 11):
            image, label = protected[index]
            assert label == LABELS[index] + 100
            assert torch.equal(image, transform(raw[index][0]))
        assert base.__dict__ == before
        assert base.data is before["data"]
        if dataset is not base:
            assert dataset.dataset.dataset is base
        assert torch.equal(dataset[0][0], transform(Image.fromarray(PIXELS[0])))


def test_joint_transforms_and_image_folder_transform(tmp_path):
    """``transforms=`` of torchvision's base class, or ImageFolder's ``transform``, is dropped or applied twice."""
    dataset = folder(tmp_path / "images")
    raw = protect(dataset, tmp_path / "c")
    dataset = ImageFolder(tmp_path / "images", transform=transforms.functional.hflip, target_transform=str)
    image, label = protect(dataset, tmp_path / "c")[2]
    assert np.array_equal(np.asarray(image), np.asarray(raw[2][0])[:, ::-1])
    assert label == str(raw[2][1])
    joint = Pairs([Image.fromarray(p) for p in PIXELS], LABELS)
    joint.transforms = lambda image, label: (transforms.functional.vflip(image), label * 10)
    image, label = protect(joint, tmp_path / "c")[2]
    assert label == LABELS[2] * 10
    assert np.array_equal(np.asarray(image), np.asarray(protect(cifar(), tmp_path / "c")[2][0])[::-1])


def test_read_samples_sees_the_protected_pixels(tmp_path):
    """Fitting or training on a ProtectedDataset reads the clean images behind it."""
    protected = protect(cifar(transforms.ToTensor()), tmp_path)
    for dataset in (protected, Subset(protected, [4])):
        index = 0 if dataset is protected else 4
        pixels, label = next(read_samples(dataset))
        assert torch.equal(pixels, protected.protected(index))
        assert label == LABELS[index]
    with pytest.raises(TypeError, match="protected already"):
        protect(Subset(protected, [4]), tmp_path)


class Holder(Dataset):
    def __init__(self, base):
        self.base = base

    def __len__(self):
        return len(self.base)

    def __getitem__(self, index):
        return self.base[index]


@pytest.mark.parametrize(
    "hide", [lambda data: ConcatDataset([cifar(), data]), Holder, lambda data: Holder(Holder(data))]
)
def test_what_is_protected_is_found_under_any_name(tmp_path, hide):
    """Noise on noise reaches twice the radius, and nobody is told."""
    with pytest.raises(TypeError, match="protected already"):
        protect(hide(protect(cifar(), tmp_path)), tmp_path)
    assert len(protect(hide(cifar()), tmp_path)) == len(hide(cifar()))  # what is not protected still is


def test_rows_of_a_hugging_face_dataset(tmp_path):
    """A datasets.Dataset gives rows: they come back as rows, with the noise in the image."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.Value("int64"), "id": datasets.Value("string")}
    )
    rows = {"image": [Image.fromarray(p) for p in PIXELS[:3]], "label": LABELS[:3], "id": ["x", "y", "z"]}
    protected = protect(datasets.Dataset.from_dict(rows, features=features), tmp_path)
    row = protected[1]
    assert row["id"] == "y"
    expected = PIXELS[1].transpose(2, 0, 1)
    assert np.array_equal(
        channels_first(row["image"]), expected + noise_of(np.ascontiguousarray(expected), row["label"], 0)
    )
    named = datasets.Features({**features, "label": datasets.ClassLabel(names=["a", "b"])})
    two = datasets.Dataset.from_dict({**rows, "label": [0, 1, 0]}, features=named)
    with pytest.raises(ValueError, match=r"2 classes, generator 'fake' 4.*fit_generator.*label_map"):
        protect(two, tmp_path)
    assert protect(two, tmp_path, label_map={0: 3, 1: 2}).classes == ["a", "b"]
    renamed = datasets.Dataset.from_dict(rows, features=features).rename_column("image", "img")
    with pytest.raises(TypeError, match="map_fn"):
        protect(renamed, tmp_path)


def test_part_of_the_images(tmp_path):
    """``fraction`` or ``indices`` protects other images than it says, or too many."""
    for kind, dataset in (("cifar", cifar()), ("tensors", tensor_dataset())):
        protected = protect(dataset, tmp_path, fraction=0.25, seed=3)
        assert len(protected.indices) == 3
        assert protected.indices == sorted(protected.indices)
        assert protected.indices == protect(dataset, tmp_path, fraction=0.25, seed=3).indices
        chosen = protect(dataset, tmp_path, indices=[7, 2], seed=3)
        assert chosen.indices == [2, 7]
        for view in (protected, chosen):
            for index in range(12):
                changed = not np.array_equal(channels_first(view[index][0]), channels_first(dataset[index][0]))
                assert changed == (index in view.indices), kind
                assert bool(view.noise(index).any()) == changed


def test_label_map(tmp_path):
    """A dataset with its own numbering is protected as other classes, or cannot be protected at all."""
    dataset = Pairs([Image.fromarray(p) for p in PIXELS[:3]], [10, 20, 10])
    with pytest.raises(ValueError, match=r"0\.\.3, got 20 at index 1.*fit_generator.*label_map"):
        protect(dataset, tmp_path)
    protected = protect(dataset, tmp_path, label_map={10: 3, 20: 0})
    expected = np.ascontiguousarray(PIXELS[0].transpose(2, 0, 1))
    assert np.array_equal(protected.noise(0).numpy(), noise_of(expected, 3, 0))
    assert protected[0][1] == 10
    with pytest.raises(ValueError, match="no entry for label 20 at index 1"):
        protect(dataset, tmp_path, label_map={10: 3})
    with pytest.raises(ValueError, match=r"label_map\[20\] must be in 0\.\.3, got 4"):
        protect(dataset, tmp_path, label_map={10: 3, 20: 4})


@pytest.mark.parametrize(
    ("theirs", "first"),
    [
        (("b", "a", "c", "d"), ("a", "b")),  # another order
        (("a", "b", "c", "owl"), ("d", "owl")),  # another class
        (("A", "b", "C", "d"), None),
        (("w", "x", "y", "z"), None),  # a generator for other classes, as the bundled ones are used
        (None, None),
    ],
)
def test_names_in_another_order_are_warned_of(theirs, first, tmp_path):
    """Cats with the noise of dogs: both halves of a collection that is protected twice would give each other away."""
    generator = FakeGenerator()
    generator.classes = theirs
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        protected = protect(cifar(), tmp_path, generator)
        protect(cifar(), tmp_path, generator, label_map={0: 1, 1: 0, 2: 2, 3: 3})  # they have said how to count
    said = [str(each.message) for each in caught]
    assert len(said) == (first is not None)
    assert all(f"{first[0]!r} gets that of {first[1]!r}" in each and "label_map" in each for each in said)
    assert all(each.filename == protect.__code__.co_filename for each in caught)
    # what the warning says: the noise is that of the number
    assert np.array_equal(protected.noise(0).numpy(), noise_of(PIXELS[0].transpose(2, 0, 1).copy(), LABELS[0], 0))


class Restless(Pairs):
    def __getitem__(self, index):
        return Image.fromarray(RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)), 0


def test_bad_input_is_refused_before_any_noise(tmp_path):
    """An hour passes before an error that the first second could have found."""
    images = [Image.fromarray(p) for p in PIXELS]
    broken = folder(tmp_path / "images")
    path = broken.samples[5][0]
    with open(path, "r+b") as file:
        file.truncate(60)
    nan = torch.full((2, 3, 4, 4), torch.nan)
    for dataset, options, error, message in [
        (Pairs([], []), {}, ValueError, "empty"),
        (iter([(images[0], 0)]), {}, TypeError, "map-style"),
        (cifar(), {"fraction": 0}, ValueError, r"fraction must be in \(0, 1\], got 0"),
        (cifar(), {"fraction": 1.5}, ValueError, r"got 1\.5"),
        (cifar(), {"fraction": float("nan")}, ValueError, "got nan"),
        (cifar(), {"indices": []}, ValueError, "at least one"),
        (cifar(), {"indices": [0, 12]}, ValueError, r"0\.\.11, got 12"),
        (cifar(), {"indices": [-1]}, ValueError, "got -1"),
        (cifar(), {"indices": [0.5]}, ValueError, "whole numbers"),
        (cifar(), {"indices": [1], "fraction": 0.5}, ValueError, "one of them"),
        (cifar(), {"batch_size": 0}, ValueError, "batch_size"),
        (cifar(), {"device": "cuda:99"}, ValueError, "cuda:99"),
        (cifar(), {"generator": FakeGenerator(5)}, ValueError, "4 classes, generator 'fake' 5.*label_map"),
        (Pairs(images, [*LABELS[:-1], None]), {}, ValueError, "index 11 is missing"),
        (Pairs(images, [*LABELS[:-1], -1]), {}, ValueError, "index 11 is missing"),
        (
            TensorDataset(tensor_dataset().tensors[0], torch.rand(12)),
            {},
            TypeError,
            "dataset: .*whole numbers, .*at index 0",
        ),
        (TensorDataset(nan, torch.zeros(2, dtype=torch.int64)), {}, TypeError, "float32.*before the conversion"),
        (Pairs([torch.rand(3, 4, 4)], [0]), {}, TypeError, "sample 0.*before the conversion"),
        (broken, {}, ValueError, f"index 5 .{path}.*does not decode"),
        (Restless(images, LABELS), {}, ValueError, "another image at index 0"),
    ]:
        generator = options.pop("generator", FakeGenerator())
        with pytest.raises(error, match=message):
            protect(dataset, tmp_path / "cache", generator, **options)
        assert generator.seen == []
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_costs_no_pass_over_the_images(tmp_path):
    """An hour of reading a large folder of images ends with "cannot write"."""

    class Unread(Pairs):
        def __getitem__(self, index):
            raise AssertionError("an image was read")

    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match=r"cache_dir .*file.* cannot be written .*pass cache_dir="):
        protect(Unread(PIXELS, LABELS), tmp_path / "file" / "cache")
    assert os.listdir(tmp_path) == ["file"]


def test_a_complete_store_is_read_where_nothing_can_be_written(tmp_path, monkeypatch):
    """A cache shared read-only with a cluster's nodes is refused."""
    protect(cifar(), tmp_path)

    def refuse(**_):
        raise PermissionError(13, "read-only")

    monkeypatch.setattr(store_module.tempfile, "TemporaryFile", refuse)
    assert_noise(protect(cifar(), tmp_path))
    with pytest.raises(OSError, match="cannot be written"):
        protect(cifar(), tmp_path / "another")


def test_too_small_an_image_is_named_before_any_noise(tmp_path):
    """Row 9 of the dataset is reported as index 1 of a group, after the groups before it have cost their hour."""
    images = list(PIXELS)
    images[9] = PIXELS[9, :, :5]
    generator = FakeGenerator()
    with pytest.raises(ValueError, match=r"index 9 is 8 x 5, .*'resnet18' takes 8 x 8 and larger"):
        protect(Pairs(images, LABELS), tmp_path, generator, indices=[1, 4, 9], batch_size=1)
    assert generator.seen == []
    assert list(tmp_path.iterdir()) == []


def test_the_noise_is_computed_once_and_never_for_other_inputs(tmp_path):
    """A changed image, label, seed or generator reads old noise; or the same inputs are computed twice."""
    changed = cifar()
    changed.data = changed.data.copy()
    changed.data[3, 0, 0, 0] ^= 1
    relabelled = cifar()
    relabelled.targets = [(LABELS[0] + 1) % 4, *LABELS[1:]]
    other = FakeGenerator()
    other.fingerprint = "another"
    stores = {protect(cifar(), tmp_path).store.folder}
    again = FakeGenerator()
    assert protect(cifar(transforms.ToTensor()), tmp_path, again).store.folder in stores
    assert again.seen == []
    for dataset, options in [
        (changed, {}),
        (relabelled, {}),
        (cifar(), {"seed": 1}),
        (cifar(), {"generator": other}),
        (cifar(), {"fraction": 0.5}),
    ]:
        stores.add(protect(dataset, tmp_path, **options).store.folder)
    assert len(stores) == 6
    images = folder(tmp_path / "images")
    stores.add(protect(images, tmp_path).store.folder)
    Image.fromarray(255 - PIXELS[0]).save(images.samples[0][0])
    stores.add(protect(images, tmp_path).store.folder)
    assert len(stores) == 8


def compute_until_killed(cache):
    kill_at_rename(5, "shard-*.safetensors")
    protect(cifar(), cache)


@pytest.mark.processes
def test_a_killed_computation_resumes(tmp_path, monkeypatch):
    """After a kill -9 everything is computed again, or a part of the images is left without noise."""
    monkeypatch.setattr(store_module, "SHARD_BYTES", 400)
    process = multiprocessing.get_context("fork").Process(target=compute_until_killed, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    done = len(list(tmp_path.glob("*/shard-*.safetensors")))
    generator = FakeGenerator()
    protected = protect(cifar(), tmp_path, generator)
    assert done == 4
    assert generator.seen == LABELS[2 * done :] or generator.seen == LABELS[done:]
    assert_noise(protected)


def test_damage_that_shows_in_decoding_only_costs_no_finished_shard(tmp_path, monkeypatch):
    """A photograph whose end is there and whose middle is not stops the run: it must say which, and keep the rest."""
    monkeypatch.setattr(store_module, "SHARD_BYTES", 400)
    images = folder(tmp_path / "images")
    decode, damaged = torchvision_folder.pil_loader, images.samples[9][0]

    def loader(path):
        if path == damaged:
            raise OSError("broken data stream")
        return decode(path)

    generator = FakeGenerator()
    with monkeypatch.context() as patch:
        patch.setattr(torchvision_folder, "pil_loader", loader)
        with pytest.raises(ValueError, match=f"index 9 .{damaged}.*does not decode .broken data stream"):
            protect(images, tmp_path / "cache", generator)
    done = len(generator.seen)
    assert 0 < done < 12
    protected = protect(images, tmp_path / "cache", generator)
    assert len(generator.seen) == 12
    for index in range(12):
        clean = np.ascontiguousarray(channels_first(images[index][0]))
        assert np.array_equal(protected.noise(index).numpy(), noise_of(clean, images[index][1], 0))


@pytest.mark.parametrize("rows", [range(-6, 0), [-1], range(-3, 3), [3, -4]])
def test_a_subset_counted_from_the_end_has_its_own_noise(rows, tmp_path):
    """``Subset(data, range(-6, 0))``: other images would be read with the noise of the first ones."""
    images, labels = tensor_dataset().tensors
    folders = set()
    for data in (images, 255 - images):
        protected = protect(Subset(TensorDataset(data, labels), rows), tmp_path)
        folders.add(protected.store.folder)
        for index, row in enumerate(rows):
            expected = noise_of(data[row].numpy(), int(labels[row]), 0)
            assert np.array_equal(protected.noise(index).numpy(), expected)
    assert len(folders) == 2


def assert_noise(protected):
    for index, (pixels, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
        expected = noise_of(np.ascontiguousarray(pixels.transpose(2, 0, 1)), label, 0)
        assert np.array_equal(protected.noise(index).numpy(), expected)


def damage(protected, number):
    path = protected.store.folder / protected.store.files[number]
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    return path


def test_damage_is_repaired_where_the_generator_is(tmp_path, monkeypatch):
    """A flipped bit on the disk is trained on, stops the run, or costs the whole store."""
    monkeypatch.setattr(store_module, "SHARD_BYTES", 400)
    protect(cifar(), tmp_path)
    generator = FakeGenerator()
    protected = protect(cifar(), tmp_path, generator)
    path = damage(protected, 1)
    assert generator.seen == []
    with pytest.warns(UserWarning, match=path.name) as caught:
        list(protected)
    assert [warning.filename for warning in caught] == [__file__]  # the line that read, not one of ours
    assert_noise(protected)
    assert 0 < len(generator.seen) <= 2
    assert_noise(protect(cifar(), tmp_path))
    damage(protected, 1)
    travelled = pickle.loads(pickle.dumps(protected))
    with pytest.raises(DamagedStoreError, match=path.name):
        assert_noise(travelled)
    with pytest.warns(UserWarning, match=path.name):  # the reader set the shard aside: the next run computes it
        assert_noise(protect(cifar(), tmp_path))


class Rows(Pairs):
    """As ``datasets`` gives them."""

    def __getitem__(self, index):
        return {"image": self.images[index], "label": self.labels[index], "id": index}


@pytest.mark.parametrize(
    "make",
    [
        cifar,
        tensor_dataset,
        lambda: Rows(tensor_dataset().tensors[0], LABELS),
        lambda: Pairs([Image.fromarray(pixels) for pixels in PIXELS], LABELS),
    ],
)
def test_a_batch_is_its_samples_one_by_one(make, tmp_path, monkeypatch):
    """A loader asks for a batch at once: it would get other noise, another order, or other random transforms."""
    monkeypatch.setattr(datasets_module, "TURN_BYTES", 3 * 3 * 8 * 8)  # three images, so that turns begin and end
    dataset = make()
    dataset.transforms = lambda image, label: (
        np.rot90(channels_first(image), int(torch.randint(4, ())), (1, 2)),
        int(label) + 1,
    )
    protected = protect(dataset, tmp_path, indices=[0, 2, 3, 5, 7, 11])
    indices = [5, 2, 7, 0, 11, -1, 4, 3, 1, 6] * 2
    torch.manual_seed(0)
    expected = [protected[index] for index in indices]
    for batch in (indices, iter(indices), torch.tensor(indices)):
        torch.manual_seed(0)
        np.testing.assert_equal(protected.__getitems__(batch), expected)
    torch.manual_seed(0)
    for index, sample in zip(indices, expected, strict=True):
        image, label = (sample["image"], sample["label"]) if isinstance(sample, dict) else sample
        clean = PIXELS[index].transpose(2, 0, 1)
        noise = noise_of(clean, LABELS[index], 0) if index in (0, 2, 3, 5, 7, 11, -1) else 0
        np.testing.assert_array_equal(image, np.rot90(clean + noise, int(torch.randint(4, ())), (1, 2)))
        assert label == LABELS[index] + 1
    assert protected.__getitems__([]) == []
    with pytest.raises(IndexError, match=r"0\.\.11, got 12"):
        protected.__getitems__([0, 12])


def test_a_loader_asks_a_subclass_for_its_own_samples(tmp_path):
    """A subclass that adds the index, or augments, would lose it under a DataLoader without a word."""

    class WithIndex(ProtectedDataset):
        def __getitem__(self, index):
            return (*super().__getitem__(index), index)

    protected = WithIndex(tensor_dataset(), FakeGenerator(), cache_dir=tmp_path, progress=False)
    assert torch.cat([indices for *_, indices in DataLoader(protected, 5)]).tolist() == list(range(12))
    assert torch.cat([part[2] for part in DataLoader(Subset(protected, [3, 1]), 2)]).tolist() == [3, 1]


def test_large_images_are_not_held_together(tmp_path, monkeypatch):
    """Sixteen photographs of a camera, raw and noisy, are gigabytes in each worker."""
    alive, most = set(), []

    class Counted(Pairs):
        def __getitem__(self, index):
            image = self.images[index].clone()
            alive.add(id(image))
            weakref.finalize(image, alive.discard, id(image))
            most.append(len(alive))
            return image, self.labels[index]

    images, labels = tensor_dataset().tensors
    protected = protect(Counted(images, labels.tolist()), tmp_path)
    for limit, together in ((3 * 8 * 8, 1), (4 * 3 * 8 * 8, 4)):
        monkeypatch.setattr(datasets_module, "TURN_BYTES", limit)
        most.clear()
        protected.__getitems__(range(12))
        assert max(most) <= together + 1  # one that the interpreter has not let go yet
    assert max(most) >= 4


def test_a_joint_transform_must_give_a_pair(tmp_path):
    """What a transform forgot to return would fail in the collate function, far from its cause."""
    protected = protect(tensor_dataset(), tmp_path)
    protected.transforms = lambda image, label: None
    for read in (lambda: protected[0], lambda: protected.__getitems__([0])):
        with pytest.raises(TypeError, match="unpack"):
            read()


@pytest.mark.processes
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_loader_workers_only_read(context, tmp_path):
    """Workers compute noise of their own, need the generator, or give other bytes than the main process."""
    protected = protect(cifar(transforms.PILToTensor()), tmp_path)
    expected = torch.stack([protected[i][0] for i in range(12)])
    files = {path: path.stat().st_mtime_ns for path in protected.store.folder.iterdir()}
    loader = DataLoader(protected, batch_size=4, num_workers=2, multiprocessing_context=context)
    assert torch.equal(torch.cat([images for images, _ in loader]), expected)
    assert files == {path: path.stat().st_mtime_ns for path in protected.store.folder.iterdir()}


def test_pickle_carries_no_weights_and_no_noise(tmp_path):
    """Every spawned worker gets the network and the noise through a pipe."""
    dataset = tensor_dataset()
    protected = protect(dataset, tmp_path)
    protected.noise(0)
    data = pickle.dumps(protected)
    assert len(data) < len(pickle.dumps(dataset)) + 8000
    assert_noise(pickle.loads(data))


def test_images_are_read_in_groups(tmp_path, monkeypatch):
    """The whole data set is held in memory while its noise is computed."""
    sizes = []

    class Watching(FakeGenerator):
        def make_noise(self, images, labels, **options):
            sizes.append(len(images))
            return super().make_noise(images, labels, **options)

    protected = protect(cifar(), tmp_path, Watching(), batch_size=5)
    assert sizes == [5, 5, 2]
    assert_noise(protected)


def test_imported_noise_never_wraps_around(tmp_path):
    """Noise on an image that it was not made for turns white to black: 250 + 8 is 2 in a byte."""
    levels = np.tile(np.array([8, -8], np.int8), (12, 8, 4, 3)).reshape(12, 8, 8, 3)
    dataset = cifar()
    dataset.data = np.full_like(dataset.data, 250)
    image = np.asarray(ProtectedDataset(dataset, NoiseStore.from_array(levels, tmp_path))[0][0])
    assert np.array_equal(image, np.where(levels[0] > 0, 255, 242))


class Augments(Dataset):
    """Flips some pictures as it reads them, in code of its own; ``flips`` says which, read by read."""

    def __init__(self, flips):
        self.flips = flips

    def __len__(self):
        return 12

    def __getitem__(self, index):
        pixels = PIXELS[index]
        return Image.fromarray(np.ascontiguousarray(pixels[:, ::-1]) if self.flips(index) else pixels), LABELS[index]


def test_images_that_change_from_read_to_read_are_refused(tmp_path):
    """A random flip in ``__getitem__``, or another file in place of a broken one: noise of one lies on another."""
    reads = dict.fromkeys(range(12), 0)

    def second_of_7(index):
        reads[index] += 1
        return index == 7 and reads[index] > 1

    with pytest.raises(ValueError, match=r"another image at index 7.*`transform`"):
        protect(Augments(second_of_7), tmp_path)


def later(kind, root):
    """A protected dataset, and what changes image 5 of it."""
    pil = [Image.fromarray(pixels.copy()) for pixels in PIXELS]
    dataset = {"folder": folder, "tensors": lambda _: tensor_dataset(), "cifar": lambda _: cifar()}.get(
        kind, lambda _: Pairs(pil, LABELS)
    )(root / "images")
    dataset = Subset(dataset, range(12)) if kind == "subset" else dataset

    def change():
        if kind == "folder":
            Image.fromarray(255 - np.asarray(dataset[5][0])).save(dataset.samples[5][0])
        elif kind == "tensors":
            dataset.tensors[0][5] = 255 - dataset.tensors[0][5]
        elif kind == "cifar":
            dataset.data[5] = 255 - dataset.data[5]
        else:
            pil[5] = Image.fromarray(255 - np.asarray(pil[5]))

    return dataset, change


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("kind", ["folder", "tensors", "cifar", "pil", "subset"])
def test_noise_is_added_to_the_image_it_was_made_for(kind, cached, tmp_path, monkeypatch):
    """A picture that is replaced after its noise was made, or in the cache's lifetime, loses its protection unseen."""
    monkeypatch.setitem(globals(), "PIXELS", PIXELS.copy())  # CIFAR's data are these themselves
    dataset, change = later(kind, tmp_path)
    protected = protect(dataset, tmp_path / "cache")
    if cached:
        protected = protect(dataset, tmp_path / "cache")
    change()
    for read in (protected.__getitem__, protected.protected, lambda index: protected.__getitems__([index])):
        with pytest.raises(ValueError, match="another image at index 5"):
            read(5)
        read(4)
        read(6)
    again = protect(dataset, tmp_path / "cache")  # what the message says to do
    clean = again.clean(5).numpy()
    label = dataset.targets[5] if kind == "folder" else LABELS[5]
    assert np.array_equal(again.protected(5).numpy(), clean + noise_of(clean, label, 0))


@pytest.mark.parametrize("order", [1, -1])
def test_transforms_can_be_set_on_the_protected_dataset(order, tmp_path):
    """timm's loader sets ``dataset.transform``; where that does nothing, the trainer gets PIL images or none."""
    dataset = cifar(transforms.ToTensor(), str)
    protected = protect(Subset(dataset, range(12)[::order]), tmp_path)
    plain = protect(Subset(cifar(), range(12)[::order]), tmp_path)
    assert protected.transform is dataset.transform
    protected.transform = transforms.functional.hflip
    for each in (protected, pickle.loads(pickle.dumps(protected))):
        image, label = each[2]
        assert np.array_equal(np.asarray(image), np.asarray(plain[2][0])[:, ::-1])
        assert label == str(plain[2][1])
    protected.transform, protected.target_transform = None, None
    assert np.array_equal(np.asarray(protected[2][0]), np.asarray(plain[2][0]))
    assert protected[2][1] == plain[2][1]
    plain.transforms = lambda image, label: (label, image)
    assert plain[2][0] == protected[2][1]
    assert isinstance(dataset.transform, transforms.ToTensor)  # the owner's own is left alone


def test_read_samples_of_a_protected_dataset_transforms_once(tmp_path):
    """A joint transform and its parts both run: the image is flipped back."""
    protected = protect(cifar(transforms.functional.hflip), tmp_path)
    assert torch.equal(next(read_samples(protected))[0], protected.protected(0))
    raw, apply = take_off_transforms(protected)
    assert np.array_equal(np.asarray(apply(*raw[0])[0]), np.asarray(protected[0][0]))


@pytest.mark.parametrize("rows", [None, [5, 0, -1]])
def test_what_samplers_ask_for(rows, tmp_path):
    """WeightedRandomSampler is built of ``.targets``: with those of all images for three it draws wrong ones."""
    dataset = folder(tmp_path / "images")
    protected = protect(dataset if rows is None else Subset(dataset, rows), tmp_path / "cache")
    chosen = range(12) if rows is None else rows
    assert list(protected.targets) == [dataset.targets[row] for row in chosen] == [label for _, label in protected]
    assert list(protected.samples) == [dataset.samples[row] for row in chosen]
    assert protected.class_to_idx == dataset.class_to_idx
    assert list(protected.classes) == dataset.classes
    arrays = cifar()
    arrays.targets = torch.tensor(LABELS)
    assert protect(Subset(arrays, [3, 1]), tmp_path / "cache").targets.tolist() == [LABELS[3], LABELS[1]]
    for name in ("targets", "samples", "data", "imgs"):
        with pytest.raises(AttributeError, match=name):
            getattr(protect(Pairs(PIXELS, LABELS), tmp_path / "cache"), name)


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "P"])
def test_a_colour_key_leaves_the_mode_that_the_clean_image_has(mode, tmp_path):
    """A transparent colour, left over when a loader converts to RGB, makes a fourth channel: no batch stacks."""
    (tmp_path / "images" / "a").mkdir(parents=True)
    image = Image.fromarray(PIXELS[0]).quantize(8) if mode == "P" else Image.fromarray(PIXELS[0]).convert(mode)
    image.save(tmp_path / "images" / "a" / "0.png", transparency=(1, 2, 3) if mode == "RGB" else 0)
    clean = ImageFolder(tmp_path / "images")
    for part in ({}, {"indices": [0]}):
        assert protect(clean, tmp_path / "cache", FakeGenerator(1), **part)[0][0].mode == clean[0][0].mode == "RGB"
    raw = Pairs([Image.open(tmp_path / "images" / "a" / "0.png")], [0])
    assert protect(raw, tmp_path / "cache")[0][0].mode == ("RGBA" if mode == "P" else "RGB")

"""What is known of a dataset before its samples are read."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset
from torchvision.datasets.vision import VisionDataset

from semtransforms.data.raw import class_names, read_samples, take_off_transforms
from semtransforms.protect.wrapper import ProtectedDataset


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        (["cat", "dog"], ("cat", "dog")),
        (np.array(["cat", "dog"]), ("cat", "dog")),
        (np.array([3, 5]), ("3", "5")),
        (pd.Series(["cat", "dog"]), ("cat", "dog")),
        (pd.Index(["cat", "dog"]), ("cat", "dog")),
        (torch.tensor([3, 5]), ("3", "5")),
        ({"cat": 0, "dog": 1}, ("cat", "dog")),
        ([], None),
        (2, None),
        (None, None),
    ],
)
def test_class_names_of_any_form(classes, names):
    """scikit-learn and pandas give arrays: 'the truth value of an array is ambiguous' names nothing an owner knows."""
    assert class_names(SimpleNamespace(classes=classes)) == names
    assert class_names(SimpleNamespace()) is None


class Pictures(Dataset):
    """Twelve grey pictures, each of its own level, with labels of any form; ``read`` is the dataset's own code."""

    def __init__(self, labels, transform=None, target_transform=None, read=None):
        self.labels, self.transform, self.target_transform, self.read = labels, transform, target_transform, read

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        image, label = Image.new("RGB", (8, 8), (index,) * 3), self.labels[index]
        if self.read:
            return self.read(self, image, label)
        image = self.transform(image) if self.transform else image
        return image, self.target_transform(label) if self.target_transform else label


NAMES = ["cat", "dog", "eel", "fox"]
LABELS = [index % 4 for index in range(12)]


@pytest.mark.parametrize(
    ("labels", "target_transform"),
    [
        ([np.array([label], np.uint8) for label in LABELS], None),  # MedMNIST
        ([np.array([label], np.uint8) for label in LABELS], lambda label: int(label[0])),
        ([np.array(label) for label in LABELS], None),
        ([torch.tensor([[label]]) for label in LABELS], None),
        ([NAMES[label] for label in LABELS], NAMES.index),
        ([np.array([NAMES[label]]) for label in LABELS], lambda label: NAMES.index(label[0])),
        ([np.eye(4)[label] for label in LABELS], np.argmax),
        ([torch.eye(4)[label] for label in LABELS], lambda label: label.argmax()),
        ([torch.arange(40) + label for label in LABELS], lambda label: label[0]),  # CelebA's attributes
        ([{"category": label, "box": None} for label in LABELS], lambda label: label["category"]),
        ([float(label) for label in LABELS], int),
        ([bool(label % 2) for label in LABELS], int),
    ],
)
@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: Subset(data, range(12))])
def test_labels_that_become_whole_numbers(labels, target_transform, wrap):
    """MedMNIST and CelebA are refused, although their target_transform makes the label that a trainer learns."""
    dataset = wrap(Pictures(labels, target_transform=target_transform))
    expected = [int(np.asarray(dataset[index][1]).item()) for index in range(12)]
    assert [label for _, label in read_samples(dataset)] == expected
    raw, apply = take_off_transforms(dataset)
    made = [(apply(*raw[index]) if apply else raw[index])[1] for index in range(12)]
    assert [int(np.asarray(label).item()) for label in made] == expected  # and made once only


def test_whole_labels_stay_those_of_the_data():
    """A transform that numbers classes anew for the trainer changes the noise's class, and the cache's key."""
    dataset = Pictures(LABELS, target_transform=lambda label: label + 100)
    assert [label for _, label in read_samples(dataset)] == LABELS


def test_torchvisions_own_pair_of_transforms_makes_the_label_too():
    """torchvision keeps target_transform a second time: label and image are then transformed twice, or not at all."""

    class Vision(VisionDataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return self.transforms(Image.new("RGB", (8, 8), (index,) * 3), NAMES[index])

    dataset = Vision("", transform=lambda image: image.rotate(90), target_transform=NAMES.index)
    assert [label for _, label in read_samples(dataset)] == [0, 1, 2, 3]
    raw, apply = take_off_transforms(dataset)
    assert raw[2][0].getpixel((0, 0)) == (2, 2, 2)
    assert apply(*raw[2])[1] == 2


def by_keyword(dataset, image, label):
    return dataset.transform(image=np.asarray(image))["image"], label


def with_label(dataset, image, label):
    return dataset.transform(image, label)


def by_named_label(dataset, image, label):
    return image, dataset.target_transform(label=label)


@pytest.mark.parametrize(
    ("read", "how"),
    [(by_keyword, r"keywords \(image\)"), (with_label, "2 arguments"), (by_named_label, r"keywords \(label\)")],
)
def test_a_transform_that_is_called_otherwise_is_named(read, how):
    """Owners who use albumentations are told to repair or remove their files."""
    dataset = Pictures(LABELS, transform=lambda *a, **k: k or a, target_transform=lambda **k: k["label"], read=read)
    with pytest.raises(TypeError, match=f"{how}.*transform=None") as told:
        next(read_samples(dataset))
    assert "decode" not in str(told.value)


@pytest.mark.parametrize(
    "wrap", [lambda data: data, lambda data: Subset(data, range(12)), lambda data: ConcatDataset([data, data])]
)
def test_a_transform_that_is_set_later_stays_outside(wrap):
    """timm's loader sets ``dataset.transform``: on the dataset inside it would move the picture under its noise."""
    inside = Pictures(LABELS)
    raw, _ = take_off_transforms(wrap(inside))
    inside.transform = lambda image: Image.new("RGB", (8, 8), "white")
    assert raw[3][0].getpixel((0, 0)) == (3, 3, 3)
    assert wrap(inside)[3][0].getpixel((0, 0)) == (255, 255, 255)  # the owner's own is as they set it


class Stream(IterableDataset):
    def __len__(self):
        return 3

    def __iter__(self):
        return iter([(Image.new("RGB", (8, 8)), 0)] * 3)


def test_a_stream_that_has_a_length_is_refused():
    """Its ``__getitem__`` is there and does nothing: 'should implement __getitem__' is what the owner reads."""
    with pytest.raises(TypeError, match=r"map-style.*Stream, which streams"):
        next(read_samples(Stream()))
    with pytest.raises(TypeError, match=r"map-style.*Stream"):
        ProtectedDataset(Stream(), "sem-digits")

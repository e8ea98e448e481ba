"""The datasets, all in the folder that the environment variable SEMTRANSFORMS_DATA names.

================= ================================================================================================
dataset           what has to be there
================= ================================================================================================
cifar10           ``cifar-10-batches-py/``, as torchvision unpacks it
cifar100          ``cifar-100-python/``, as torchvision unpacks it
imagenet-subset   ``imagenet/train/CLASS/*`` and ``imagenet/test/CLASS/*`` (ImageNet's validation images): the first
                  100 classes (sorted WordNet ids) are read, at 224 px; 60 GB of memory
facescrub         ``facescrub/train/PERSON/*`` and ``facescrub/test/PERSON/*``: faces cut out, of ten people drawn
                  by you, 102 and 18 images of each; read at 64 px
cifar10-jpeg      ``cifar10-jpeg/train-*.parquet`` and ``test.parquet``
tiny-imagenet-100 ``tiny-imagenet-100/train-*.parquet`` and ``validation.parquet``
faces10           ``faces10/train.parquet`` and ``test.parquet``; read at 64 px
================= ================================================================================================
"""

from __future__ import annotations

import os
from pathlib import Path

from torch.utils.data import Subset
from torchvision.datasets import CIFAR100, ImageFolder

from examples.reproduce.protect_photographs import PARQUET, read_data
from semtransforms.data.loading import Labelled, load_labelled

VARIABLE = "SEMTRANSFORMS_DATA"
IMAGE_FOLDERS = {"imagenet-subset": ("imagenet", 100, 224), "facescrub": ("facescrub", 10, 64)}  # classes, pixels
FOLDERS = {
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
    **{name: folder for name, (folder, _, _) in IMAGE_FOLDERS.items()},
    **{name: name for name in PARQUET},
}


def find(dataset: str) -> Path:
    """The folder that holds the datasets, with this one in it.

    Raises:
        ValueError: the environment variable is not set.
        FileNotFoundError: the dataset is not there.
    """
    root = os.environ.get(VARIABLE)
    if not root:
        raise ValueError(f"{dataset} is needed: set {VARIABLE} to the folder that holds {FOLDERS[dataset]}/")
    folder = Path(root).expanduser()
    if not (folder / FOLDERS[dataset]).is_dir():
        raise FileNotFoundError(
            f"{dataset} is needed, and {folder / FOLDERS[dataset]} is no folder. Put there what "
            "examples/reproduce/data.py says, or leave its rows out with --rows."
        )
    return folder


def read(dataset: str, rows: int | None = None) -> tuple[Labelled, Labelled]:
    """Training and test images, in memory.

    Args:
        dataset: a key of ``FOLDERS``.
        rows: the first of the training samples, of a dataset that has no folder for each class; ``None`` for all.

    Raises:
        ValueError, FileNotFoundError: as :func:`find`.
    """
    root = find(dataset)
    if dataset in IMAGE_FOLDERS:
        folder, classes, side = IMAGE_FOLDERS[dataset]
        parts = [ImageFolder(root / folder / part) for part in ("train", "test")]
        names = [part.classes[:classes] for part in parts]
        if names[0] != names[1] or len(names[0]) < classes:
            raise ValueError(
                f"{dataset}: train/ and test/ of {root / folder} must have the same first {classes} folders, got "
                f"{len(names[0])} and {len(names[1])}, of which {len(set(names[0]) & set(names[1]))} in both"
            )
        kept = [[k for k, label in enumerate(part.targets) if label < classes] for part in parts]
        train, test = (
            load_labelled(Subset(part, some), classes, (side, side)) for part, some in zip(parts, kept, strict=True)
        )
        return train, test
    if dataset == "cifar100":
        return load_labelled(CIFAR100(root, True)), load_labelled(CIFAR100(root, False))
    return read_data(dataset, root, 10**9 if rows is None else rows, download=False)

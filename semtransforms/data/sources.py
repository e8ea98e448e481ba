"""Reading what people keep labelled images in: image folders, `datasets`, Parquet, the Hub, torchvision."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from torch import Tensor

from semtransforms.core.files import read_json
from semtransforms.core.limits import MOST
from semtransforms.core.names import unknown
from semtransforms.core.strings import Strings
from semtransforms.data.fetching import fetch_table
from semtransforms.data.folders import Listed, files_since, list_alike, list_classes, list_labelled
from semtransforms.data.images import UNDECODABLE, as_pixels, check_labels
from semtransforms.data.metadata import METADATA, record_above
from semtransforms.data.naming import class_folders, unique_names
from semtransforms.data.opening import MOST_PIXELS, ImageFile, open_image
from semtransforms.data.remote import Place, RemotePath, check_there, named, place_of
from semtransforms.data.tables import (
    FORMS,
    find_column,
    homes_of_files,
    identity_of,
    image_of_row,
    is_protected,
    is_tabular,
    load_table,
)
from semtransforms.data.tars import find_tars, list_tars


@dataclass(frozen=True)
class Source:
    """Labelled images read one at a time; a map-style dataset of (uint8 ``(3, H, W)``, int label).

    Args:
        identity: what the images are, for a person and for telling two sources apart.
        labels: int64 ``(N,)``.
        classes: label names in the order of the labels, or ``None`` where they are not known.
        folders: one folder name per class, whose sorted order is the order of the labels.
        names: for each image, where its protected copy goes: folder and stem, without suffix; unique.
        read: what image ``i`` is opened from, which any process can do.
        place: how a message names image ``i``.
        folder: the folder on disk that holds the images and must not be written into, if there is one.
        columns: names of the image and the label column.
        other_columns: what else is there, and is not read.
        files: for each image its file relative to ``folder``, with ``/``, where it is one.
        other_files: files among the images whose suffix is no image's; they are not read.
        left_out: images that are not here since they, or their copies, do not decode: where they are and why.
        most_pixels: larger images are refused.
        protected: whether the table says that images in it were protected before.
        far: whether reading an image waits for a network.
        since: places of the images that have come since they were listed.
        address: of the images, if they lie elsewhere; must not be written into either.
    """

    identity: str
    labels: Tensor
    classes: tuple[str, ...] | None
    folders: tuple[str, ...]
    names: Sequence[str]
    read: Callable[[int], ImageFile]
    place: Callable[[int], str]
    folder: Path | None = None
    columns: tuple[str, str] = ("image", "label")
    other_columns: tuple[str, ...] = ()
    files: Sequence[str] = ()
    other_files: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    most_pixels: int = MOST_PIXELS
    protected: bool = False
    far: bool = False
    since: Callable[[], Sequence[str]] = tuple
    address: RemotePath | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"index must be in 0..{len(self) - 1}, got {index}")
        try:
            return as_pixels(self.open(index)), int(self.labels[index])
        except UNDECODABLE as error:  # whoever reads a data set adds the index, and the place from `samples`
            raise ValueError(reason(error)) from error

    def open(self, index: int) -> Image.Image:
        """Open image ``index`` with PIL, as :func:`semtransforms.data.opening.open_image` does."""
        return open_image(self.read(index), self.most_pixels)

    def at(self, rows: Sequence[int]) -> Source:
        """The images at some positions, in that order."""
        return replace(
            self,
            labels=self.labels[list(rows)],
            names=[self.names[row] for row in rows],
            files=tuple(self.files[row] for row in rows) if self.files else (),
            read=lambda index: self.read(rows[index]),
            place=lambda index: self.place(rows[index]),
        )

    @property
    def samples(self) -> list[tuple[str, int]]:
        """Place and label of every image, under the name ImageFolder has for them: messages look there."""
        return [(self.place(index), label) for index, label in enumerate(self.labels.tolist())]


def reason(error: BaseException) -> str:
    """Why an image does not decode, without the place of the image, which the message around it names.

    Args:
        error: one of ``UNDECODABLE``.

    Returns:
        A few words.
    """
    if isinstance(error, UnidentifiedImageError):
        return "it is no image of a known format"
    return str(getattr(error, "strerror", None) or error)


def open_source(
    spec: str, *, split: str | None = None, image_column: str | None = None, label_column: str | None = None
) -> Source:
    """Find out what ``spec`` is and list its images, without decoding any.

    Args:
        spec: an image folder, a ``datasets`` folder, Parquet, tars, a name on the Hub, ``torchvision:NAME:ROOT``; or
            the address of a folder, of Parquet or of tars (``s3://bucket/photos``).
        split: which part, for sources that have parts; ``None`` for ``"train"`` there.
        image_column: column of the images, for sources that have columns; ``None`` to find it.
        label_column: column of the labels, likewise.

    Returns:
        The images with their labels.

    Raises:
        ValueError: nothing of that kind is there, it is empty, or its labels cannot be used.
        OSError, ModuleNotFoundError: it lies elsewhere and cannot be read.
    """
    path = place_of(spec)
    with named("SOURCE", path):
        if isinstance(path, RemotePath):
            check_there(path)
        if spec.startswith("torchvision:"):
            source = _torchvision(spec, split)
        elif path.is_dir() and is_tabular(path):
            source = _tabular(spec, path, split, image_column, label_column)
        elif tars := find_tars(path):
            _refuse_split(spec, split, "is made of tars")
            source = _of_tars(spec, path, tars, image_column, label_column)
        elif path.is_dir():
            _refuse_split(spec, split, "is an image folder")
            is_listed = (path / METADATA).is_file()
            source = _of_files(path, list_labelled(path, label_column) if is_listed else list_classes(path))
        else:
            source = _tabular(spec, path, split, image_column, label_column)
    if len(source) == 0:
        raise ValueError(f"SOURCE {spec!r} holds no images. SOURCE is {FORMS}.")
    return source


def _refuse_split(spec: str, split: str | None, kind: str) -> None:
    if split is not None:
        raise ValueError(
            f"--split {split!r} was given, but SOURCE {spec!r} {kind}, which has no parts. Leave --split out, and give "
            "what makes up the part as SOURCE."
        )


def open_with_one_label(folder: Place, label: int, classes: tuple[str, ...] | None) -> Source:
    """The images of a folder and its sub-folders, all with one label; their copies keep their places.

    Args:
        folder: here or elsewhere.
        label: of all images.
        classes: label names, where known.

    Returns:
        The images.

    Raises:
        OSError, ValueError: it is no folder, cannot be read, or holds no images.
    """
    with named("SOURCE", folder):
        if isinstance(folder, RemotePath):
            check_there(folder)
        return _of_files(folder, list_alike(folder, label, classes))


def _of_files(root: Place, listed: Listed) -> Source:
    """A source of image files. Copies go to their classes' folders; without such, to where the files lie."""
    places = files = listed.files
    if listed.folders:
        homes = [f"{folder}/" for folder in listed.folders]
        owned = zip((homes[label] for label in listed.labels.tolist()), files, strict=True)
        places = Strings(file if file.startswith(home) else home + file for home, file in owned)

    def read(index: int) -> ImageFile:
        if isinstance(root, Path):
            return root / files[index]
        return replace(root / files[index], kind="file", version=listed.versions[index])

    here = root if isinstance(root, Path) else None
    return Source(
        identity=str(root if here is None else here.resolve()),
        labels=listed.labels,
        classes=listed.classes,
        folders=listed.folders,
        names=unique_names(places),
        read=read,
        place=lambda index: str(root / files[index]),
        folder=here,
        address=None if isinstance(root, Path) else root,
        files=files,
        other_files=tuple(str(root / other) for other in listed.others),
        protected=here is None and record_above(root) is not None,
        far=here is None,
        since=lambda: [str(root / file) for file in files_since(root, listed)],
    )


def _tabular(spec: str, path: Place, split: str | None, image_column: str | None, label_column: str | None) -> Source:
    from datasets import ClassLabel, Value
    from datasets import Image as ImageFeature

    here = fetch_table(path) if isinstance(path, RemotePath) else path
    split, table = load_table(spec, here, split)
    features = table.features
    image_column = find_column(
        spec, "image", image_column, features, [n for n, f in features.items() if isinstance(f, ImageFeature)]
    )
    named = [n for n, f in features.items() if isinstance(f, ClassLabel)]
    label_column = find_column(spec, "label", label_column, features, named)
    kind = features[label_column]
    if isinstance(kind, Value) and kind.dtype in ("string", "large_string"):
        raise ValueError(
            f"SOURCE {spec!r}: label column {label_column!r} holds text. "
            f"Turn it into numbers first: dataset.class_encode_column({label_column!r})."
        )
    classes = tuple(kind.names) if isinstance(kind, ClassLabel) else None
    labels = check_labels(list(table.with_format(None)[label_column]), len(classes) if classes else None)
    # decode=False: the bytes as they are; PIL opens them here, so that orientation and modes are read in one place
    images, homes = table.select_columns([image_column]), homes_of_files(here)
    protected = is_protected(images.data.column(image_column))
    if isinstance(features[image_column], ImageFeature):
        images = images.cast_column(image_column, ImageFeature(decode=False))

    def read_row(index: int) -> ImageFile:
        return image_of_row(images[index][image_column], homes)

    source = _numbered(
        f"{spec} ({split}, {image_column}, {label_column}, {identity_of(table)})", labels, classes, read_row,
        place=lambda index: f"image {index} of {spec!r}",
        folder=path if isinstance(path, Path) and path.is_dir() else None,
        columns=(image_column, label_column),
        other_columns=tuple(name for name in features if name not in (image_column, label_column)),
    )  # fmt: skip
    return replace(source, protected=protected, address=None if isinstance(path, Path) else path)


def _of_tars(
    spec: str, path: Place, files: Sequence[Place], image_column: str | None, label_column: str | None
) -> Source:
    found = list_tars(spec, files, image_column, label_column)
    record = record_above(files[0].parent)
    classes = read_json(record).get("classes") if record else None
    source = _numbered(
        f"{path.resolve() if isinstance(path, Path) else path} (tars, {image_column}, {label_column})",
        check_labels(found.labels, len(classes) if classes else None),
        tuple(classes) if classes else None,
        found.read,
        place=found.place,
        folder=path if isinstance(path, Path) and path.is_dir() else None,
        other_columns=found.others,
    )
    return replace(
        source,
        protected=record is not None,
        address=None if isinstance(path, Path) else path,
        far=not isinstance(path, Path),
        since=lambda: [str(file) for file in find_tars(path) if file not in files],
    )


def _torchvision(spec: str, split: str | None) -> Source:
    from torchvision import datasets

    _, _, rest = spec.partition(":")
    name, colon, root = rest.partition(":")
    if not (name and colon and root):
        raise ValueError(f"SOURCE {spec!r} must be torchvision:NAME:ROOT, such as torchvision:CIFAR10:./data.")
    if name not in datasets.__all__:
        told = unknown("dataset of torchvision", name, datasets.__all__, all_in="torchvision.datasets.__all__")
        raise ValueError(f"SOURCE {spec!r}: {told}")
    make = getattr(datasets, name)
    parameters = inspect.signature(make).parameters
    part: dict[str, Any] = {}
    if "split" in parameters:
        part = {"split": split or "train"}
    elif "train" in parameters:
        if split not in (None, "train", "test"):
            raise ValueError(f"SOURCE {spec!r} has no split {split!r}. Give --split, one of: train, test.")
        part = {"train": split != "test"}
    elif split is not None:
        raise ValueError(f"--split {split!r} was given, but SOURCE {spec!r} has no parts. Leave --split out.")
    try:
        dataset = make(str(Path(root).expanduser()), **part)
        labels = getattr(dataset, "targets", None)
        labels = getattr(dataset, "labels", None) if labels is None else labels
        labels = [dataset[index][1] for index in range(len(dataset))] if labels is None else labels
    except (RuntimeError, OSError, ValueError, TypeError) as error:  # not there, incomplete, or needing more arguments
        raise ValueError(f"SOURCE {spec!r}: {name} cannot be read from the folder {root!r} ({error}).") from error
    classes = getattr(dataset, "classes", None)
    return _numbered(
        f"torchvision:{name}:{Path(root).expanduser().resolve()} ({split or 'train'})",
        check_labels(labels, None),
        None if classes is None else tuple(map(str, classes)),
        lambda index: _pil(dataset[index][0]),
        place=lambda index: f"image {index} of {spec!r}",
        folder=None,  # ROOT is often the working folder, and what lies beside the data set is not read
    )


def _pil(image: Any) -> Image.Image:
    if not isinstance(image, Image.Image):
        raise TypeError(f"it is a {type(image).__name__}, not an image")
    return image


def _numbered(
    identity: str,
    labels: Tensor,
    classes: tuple[str, ...] | None,
    read: Callable[[int], ImageFile],
    *,
    place: Callable[[int], str],
    folder: Path | None,
    columns: tuple[str, str] = ("image", "label"),
    other_columns: tuple[str, ...] = (),
) -> Source:
    """A source whose images have a number and no file name."""
    if classes is None and len(labels) and int(labels.max()) >= MOST["num_classes"]:
        raise ValueError(
            f"{place(int(labels.argmax()))} has the label {int(labels.max()):,}, and each label up to it is a class: "
            f"{MOST['num_classes']:,} at most. Number the classes from 0."
        )
    folders = class_folders(classes, len(classes) if classes else int(labels.max()) + 1 if len(labels) else 0)
    digits = len(str(max(len(labels) - 1, 0)))
    names = [f"{folders[label]}/{index:0{digits}d}" for index, label in enumerate(labels.tolist())]
    return Source(identity, labels, classes, folders, names, read, place, folder, columns, other_columns)

"""Reading what people keep labelled images in: image folders, `datasets`, Parquet, the Hub, torchvision."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from torch import Tensor

from semtransforms.core.names import unknown
from semtransforms.data.images import UNDECODABLE, as_pixels, check_labels
from semtransforms.data.opening import ImageFile, open_image

FORMS = """an image folder with one sub-folder per class (photos/cat/1.jpg), \
a folder written by datasets' save_to_disk, a Parquet file, a folder or a 'pattern*.parquet' of them, \
a dataset on the Hugging Face Hub (uoft-cs/cifar10), \
or torchvision:NAME:ROOT (torchvision:CIFAR10:./data)"""

IMAGE_SUFFIXES = (
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg",
    ".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
)  # fmt: skip

# How people call the parts of a data set: a folder of such a name that holds folders only is no class.
PARTS = ("train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval", "evaluation")


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
        files: for each image its file relative to ``folder``, where it is one.
        other_files: files among the images whose suffix is no image's; they are not read.
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
    files: tuple[Path, ...] = ()
    other_files: tuple[str, ...] = ()

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
        return open_image(self.read(index))

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
        spec: an image folder, a ``datasets`` folder, Parquet, a name on the Hub, or ``torchvision:NAME:ROOT``.
        split: which part, for sources that have parts; ``None`` for ``"train"`` there.
        image_column: column of the images, for sources that have columns; ``None`` to find it.
        label_column: column of the labels, likewise.

    Returns:
        The images with their labels.

    Raises:
        ValueError: nothing of that kind is there, it is empty, or its labels cannot be used.
    """
    path = Path(spec).expanduser()
    if spec.startswith("torchvision:"):
        source = _torchvision(spec, split)
    elif path.is_dir() and not _is_tabular(path):
        if split is not None:
            raise ValueError(
                f"--split {split!r} was given, but SOURCE {spec!r} is an image folder, which has no parts. "
                "Leave --split out, and give the folder of the part as SOURCE."
            )
        source = _image_folder(path)
    else:
        source = _tabular(spec, path, split, image_column, label_column)
    if len(source) == 0:
        raise ValueError(f"SOURCE {spec!r} holds no images. SOURCE is {FORMS}.")
    return source


def unique_names(paths: Iterable[Path]) -> list[str]:
    """Name each file by its stem, or by more where another file has that stem already.

    Args:
        paths: relative paths.

    Returns:
        Posix paths without suffix, no two equal even where upper and lower case are (macOS, Windows): of
        ``a.jpg`` and ``a.png`` the first becomes ``a``, the second ``a.png``.
    """
    taken: set[str] = set()
    names = []
    for path in paths:
        candidates = chain([path.stem, path.name], (f"{path.name}-{k}" for k in count(2)))
        name = next(n for c in candidates if (n := path.with_name(c).as_posix()).lower() not in taken)
        taken.add(name.lower())
        names.append(name)
    return names


def class_folders(classes: Sequence[str] | None, num_classes: int) -> tuple[str, ...]:
    """Name one folder per class so that sorting the names gives the labels back, as ImageFolder does.

    Args:
        classes: label names, or ``None``.
        num_classes: number of labels.

    Returns:
        The names, cleaned of what a file system refuses; with the label in front where their order needs it.
    """
    digits = len(str(max(num_classes - 1, 0)))
    if classes is None:
        return tuple(f"{label:0{digits}d}" for label in range(num_classes))
    clean = [re.sub(r"[^\w .,+()&'-]", "_", name).strip(" .") or "_" for name in classes]
    if clean == sorted(clean) and len({name.lower() for name in clean}) == len(clean):
        return tuple(clean)
    return tuple(f"{label:0{digits}d}-{name}" for label, name in enumerate(clean))


def _image_folder(root: Path) -> Source:
    folders = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise ValueError(f"SOURCE {str(root)!r} has no class sub-folders. SOURCE is {FORMS}.")
    parts = [name for name in folders if name.lower() in PARTS and _holds_folders_only(root / name)]
    if parts:
        part = "train" if "train" in parts else parts[0]
        raise ValueError(
            f"SOURCE {str(root)!r} holds parts ({', '.join(parts)}) where class folders should be. "
            f"Give one part: {str(root / part)!r}."
        )
    files: list[Path] = []
    others: list[str] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        inside = sorted(p for p in (root / folder).rglob("*") if _is_visible(p, root) and p.is_file())
        found = [path for path in inside if path.suffix.lower() in IMAGE_SUFFIXES]
        others += sorted(str(path) for path in set(inside).difference(found))
        if not found:
            raise ValueError(
                f"SOURCE: class folder {str(root / folder)!r} holds no images ({', '.join(IMAGE_SUFFIXES)}). "
                "Remove it, or fill it."
            )
        files += found
        labels += [label] * len(found)

    relative = tuple(file.relative_to(root) for file in files)
    return Source(
        identity=str(root.resolve()),
        labels=check_labels(labels, None),
        classes=tuple(folders),
        folders=tuple(folders),
        names=unique_names(relative),
        read=lambda index: files[index],
        place=lambda index: str(files[index]),
        folder=root,
        files=relative,
        other_files=tuple(others),
    )


def _holds_folders_only(folder: Path) -> bool:
    inside = list(folder.iterdir())
    return any(p.is_dir() and not p.name.startswith(".") for p in inside) and not any(map(_is_image, inside))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _is_visible(path: Path, root: Path) -> bool:
    """Whether neither a file nor a folder of ``root`` that it lies in is hidden: trash, thumbnails, older versions."""
    return not any(part.startswith(".") for part in path.relative_to(root).parts)


def _is_tabular(folder: Path) -> bool:
    return _is_saved(folder) or _holds_parquet(folder)


def _is_saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote it."""
    return (folder / "dataset_dict.json").exists() or (folder / "state.json").exists()


def _holds_parquet(folder: Path) -> bool:
    """Whether Parquet lies there, or in ``data``, as in a clone of a dataset on the Hub."""
    return any(any(folder.glob(pattern)) for pattern in ("*.parquet", "data/*.parquet"))


def _tabular(spec: str, path: Path, split: str | None, image_column: str | None, label_column: str | None) -> Source:
    from datasets import ClassLabel, Value
    from datasets import Image as ImageFeature

    split, table = _load_table(spec, path, split)
    features = table.features
    image_column = _column(
        spec, "image", image_column, features, [n for n, f in features.items() if isinstance(f, ImageFeature)]
    )
    named = [n for n, f in features.items() if isinstance(f, ClassLabel)]
    label_column = _column(spec, "label", label_column, features, named)
    kind = features[label_column]
    if isinstance(kind, Value) and kind.dtype in ("string", "large_string"):
        raise ValueError(
            f"SOURCE {spec!r}: label column {label_column!r} holds text. "
            f"Turn it into numbers first: dataset.class_encode_column({label_column!r})."
        )
    classes = tuple(kind.names) if isinstance(kind, ClassLabel) else None
    labels = check_labels(list(table.with_format(None)[label_column]), len(classes) if classes else None)
    # decode=False: the bytes as they are; PIL opens them here, so that orientation and modes are read in one place
    images = table.select_columns([image_column])
    if isinstance(features[image_column], ImageFeature):
        images = images.cast_column(image_column, ImageFeature(decode=False))

    def read_row(index: int) -> ImageFile:
        value = images[index][image_column]
        if value is None:
            raise ValueError("there is no image in this row")
        data: bytes | None = value["bytes"] if isinstance(value, dict) else value
        return Path(value["path"]) if data is None else data

    return _numbered(
        f"{spec} ({split}, {image_column}, {label_column}, {table._fingerprint})", labels, classes, read_row,
        place=lambda index: f"image {index} of {spec!r}",
        folder=path if path.is_dir() else None,
        columns=(image_column, label_column),
        other_columns=tuple(name for name in features if name not in (image_column, label_column)),
    )  # fmt: skip


def _load_table(spec: str, path: Path, split: str | None) -> tuple[str, Any]:
    """The part asked for, and its name."""
    import datasets

    if path.is_dir() and _is_saved(path):
        table = datasets.load_from_disk(str(path))
    elif path.is_dir():
        try:
            table = datasets.load_dataset(str(path))  # finds the parts by the names of the files, as on the Hub
        except (datasets.exceptions.DatasetsError, ValueError) as error:
            raise ValueError(
                f"SOURCE {spec!r}: its Parquet files cannot be loaded together ({_first_line(error)}). "
                "Give one of them, or a 'pattern*.parquet'."
            ) from error
    elif path.exists() or (any(c in spec for c in "*?[") and list(path.parent.glob(path.name))):
        files = [str(path)] if path.exists() else sorted(map(str, path.parent.glob(path.name)))
        if not all(file.endswith(".parquet") for file in files):
            raise ValueError(f"SOURCE {spec!r} is a file that is not Parquet. SOURCE is {FORMS}.")
        try:
            table = datasets.load_dataset("parquet", data_files=files)  # files that were named are one part
        except datasets.exceptions.DatasetsError as error:
            raise ValueError(f"SOURCE {spec!r} is not readable as Parquet ({_first_line(error)}).") from error
    elif re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", spec):
        try:
            table = datasets.load_dataset(spec)
        except Exception as error:  # the Hub's client raises its own, requests' and httpx's families of errors
            raise ValueError(
                f"SOURCE {spec!r} is nothing on this disk, and as a dataset on the Hub it cannot be loaded "
                f"({_first_line(error)}). SOURCE is {FORMS}."
            ) from error
    else:
        raise ValueError(f"SOURCE {spec!r} does not exist. SOURCE is {FORMS}.")
    parts = table if isinstance(table, dict) else {str(table.split or "train"): table}
    if split is None:
        split = next(iter(parts)) if len(parts) == 1 else "train"
    if split not in parts:
        raise ValueError(f"SOURCE {spec!r} has no split {split!r}. Give --split, one of: {', '.join(parts)}.")
    return split, parts[split]


def _first_line(error: BaseException) -> str:
    """What went wrong in the beginning: `datasets` says at the top only that something did."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).partition("\n")[0]


def _column(spec: str, kind: str, given: str | None, features: Any, typed: list[str]) -> str:
    """The column given, or the one of the right type, or the one of the usual name."""
    remedy = f"Give --{kind}-column, one of: {', '.join(features)}."
    if given is not None and given not in features:
        raise ValueError(f"SOURCE {spec!r} has no column {given!r}. {remedy}")
    found = given or (typed[0] if len(typed) == 1 else kind if kind in features else None)
    if found is None:
        raise ValueError(f"SOURCE {spec!r} does not say which of its columns is the {kind}. {remedy}")
    return found


def _torchvision(spec: str, split: str | None) -> Source:
    from torchvision import datasets

    _, _, rest = spec.partition(":")
    name, colon, root = rest.partition(":")
    if not (name and colon and root):
        raise ValueError(f"SOURCE {spec!r} must be torchvision:NAME:ROOT, such as torchvision:CIFAR10:./data.")
    if name not in datasets.__all__:
        raise ValueError(f"SOURCE {spec!r}: {unknown('dataset of torchvision', name, datasets.__all__)}")
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
    folders = class_folders(classes, len(classes) if classes else int(labels.max()) + 1 if len(labels) else 0)
    digits = len(str(max(len(labels) - 1, 0)))
    names = [f"{folders[label]}/{index:0{digits}d}" for index, label in enumerate(labels.tolist())]
    return Source(identity, labels, classes, folders, names, read, place, folder, columns, other_columns)

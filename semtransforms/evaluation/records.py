"""One run of one victim as a flat record: what an evaluation keeps, and what its reader may rely on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from semtransforms.core.names import unknown

SCHEMA = 1
CLEAN, NONE = "clean", "none"  # the copy without protection; the trainer without a countermeasure


@dataclass(frozen=True, kw_only=True)
class Record:
    """One victim, trained once on one copy.

    Args:
        schema: number of this form.
        data: SHA-256 of the training and test data, hexadecimal.
        dataset: its name.
        train_images, test_images, classes, height, width: its size; pixels, the median of several.
        guess_accuracy: share of the most frequent label among the test images, 0..1: reached without looking.
        copy: ``"clean"``, or the name of the protected copy.
        generator: fingerprint of its generator; ``None`` for the clean copy.
        method: of the generator, as in the table of methods.
        rho_u: radius of its noise, a fraction of the pixel range.
        copy_sha256: of the copy's images; the seed of its noise stays out of what may be published.
        victim: name of the trainer's protocol.
        network: name of the trainer's network.
        train_steps: updates planned.
        rho_a: radius of the adversarial training, 0 for standard training; a fraction of the pixel range.
        norm: in which ``rho_a`` is measured.
        settings: every field of the trainer's config, as JSON.
        countermeasure: name; ``"none"``, or several joined by ``+``.
        seed: of the victim.
        test_accuracy: on clean test images after the last update, 0..1; the better of the next two.
        test_accuracy_plain: on the test images as they are.
        test_accuracy_processed: on test images that the countermeasure processed too; ``None`` where it has none.
        peak_test_accuracy: the best of the curve, as a trainer has it who stops at the right moment.
        peak_step: the update it was reached at.
        robust_accuracy: on the test images under PGD; ``None`` where not measured.
        robust_rho: radius of that PGD.
        train_accuracy: on the training batches of the end.
        diverged: the loss became NaN; the accuracies then say nothing about the protection.
        stopped_step: updates behind the network that early stopping took; ``None`` without it.
        curve: (update, mean loss since the last point, test accuracy); a loss is ``None`` where it was not finite.
        seconds: wall time of the training.
        passes: images sent forward and backward.
        processor, threads, python, torch, semtransforms: where it ran.
        train_size: side of the square that the trainer brought photographs to, in pixels; ``None``: they took images of
            one size as they are.
        crop: how, as in ``VictimConfig``; ``None`` likewise.
        pretrained: the weights that the network started from, by name and digest, the size in pixels that they are of,
            and the one that they were given; ``None`` from scratch.
        transfer: what of it was trained, as in ``VictimConfig``; ``None`` likewise.
        left_out: training and test images that were not used since they, or their copies, do not decode; ``None``: all
            were.
    """

    schema: int = SCHEMA
    data: str
    dataset: str
    train_images: int
    test_images: int
    classes: int
    height: int
    width: int
    guess_accuracy: float
    copy: str
    generator: str | None
    method: str | None
    rho_u: float | None
    copy_sha256: str
    victim: str
    network: str
    train_steps: int
    rho_a: float
    norm: Literal["linf", "l2"]
    settings: str
    countermeasure: str
    seed: int
    test_accuracy: float
    test_accuracy_plain: float
    test_accuracy_processed: float | None
    peak_test_accuracy: float
    peak_step: int
    robust_accuracy: float | None
    robust_rho: float | None
    train_accuracy: float
    diverged: bool
    stopped_step: int | None
    curve: tuple[tuple[int, float | None, float], ...]
    seconds: float
    passes: int
    processor: str
    threads: int
    python: str
    torch: str
    semtransforms: str
    train_size: int | None = None
    crop: Literal["resize", "random-resized"] | None = None
    pretrained: str | None = None
    transfer: Literal["fine-tune", "last-block", "probe"] | None = None
    left_out: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Every field as a JSON value; a loss that is not finite, which JSON cannot say, as ``None``.

        What has a default and is ``None`` is left out: so are records of before there was such a field.
        """
        curve = [[step, None if loss is None or not math.isfinite(loss) else loss, accuracy]
                 for step, loss, accuracy in self.curve]  # fmt: skip
        values = {name: value for name, value in asdict(self).items() if value is not None or name not in _OPTIONAL}
        return values | {"curve": curve}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, source: str = "record") -> Record:
        """The inverse of :meth:`to_dict`, for values that anyone may have written.

        Args:
            values: field -> JSON value.
            source: where they come from, a file for instance; for messages.

        Returns:
            The record.

        Raises:
            ValueError: another schema; a field is missing, unknown, of another type or out of its range.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"{source}: a record must be an object of named fields, got {values!r}")
        if values.get("schema") != SCHEMA:
            raise ValueError(
                f"{source}: schema must be {SCHEMA}, got {values.get('schema')!r}. Read it with the version of "
                "semtransforms that wrote it, or evaluate again."
            )
        kinds = get_type_hints(cls)
        for name in values:
            if name not in kinds:
                raise ValueError(f"{source}: {unknown('field', name, kinds)}")
        if missing := [name for name in kinds if name not in values and name not in _OPTIONAL]:
            raise ValueError(f"{source}: missing {', '.join(missing)}. Remove the file to run it again.")
        for name, value in values.items():
            kind = kinds[name]
            if not _is_a(value, kind):
                raise ValueError(f"{source}: {name} must be {_in_words(kind)}, got {value!r}")
            if value is not None and not _in_range(name, value):
                raise ValueError(f"{source}: {name} must be {_range_in_words(name)}, got {value!r}")
        return cls(**{**values, "curve": tuple(tuple(point) for point in values["curve"])})


_OPTIONAL = ("train_size", "crop", "pretrained", "transfer", "left_out")
_COUNTS = (
    "train_images", "test_images", "classes", "height", "width", "train_steps", "threads", "train_size", "left_out",
)  # fmt: skip


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a JSON value is of a field's type; a whole number is a float too, ``True`` is no number."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_is_a(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return False
        each = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        return len(value) == len(each) and all(map(_is_a, value, each))
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def _in_words(kind: Any) -> str:
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(map(_in_words, get_args(kind)))
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    words = {str: "a text", int: "a whole number", float: "a finite number", bool: "true or false", NoneType: "null"}
    return words.get(kind, "a list of [step, loss or null, test accuracy]")


def _in_range(name: str, value: Any) -> bool:
    if name == "curve":
        return all(0 <= accuracy <= 1 for _, _, accuracy in value)
    if "accuracy" in name:
        return bool(0 <= value <= 1)
    return name not in _COUNTS or value >= 1


def _range_in_words(name: str) -> str:
    if name in _COUNTS:
        return "at least 1"
    return "points with accuracies in 0..1" if name == "curve" else "in 0..1"

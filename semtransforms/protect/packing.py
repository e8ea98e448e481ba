"""Protected images packed: a folder of `datasets`, a Parquet file, or a folder of tars as WebDataset reads them."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from semtransforms.core.files import to_json, write_atomically
from semtransforms.data.metadata import PROTECTION
from semtransforms.data.sources import Source
from semtransforms.data.tables import PROTECTED
from semtransforms.data.tars import LABEL

_SCRATCH = ".unfinished-table-"  # begins the name of the folder that a table is built in
IN_A_TAR = 10_000  # images; WebDataset's writer has the same


def is_there(out: Path, format: str) -> bool:
    """Whether something lies where a table shall be written.

    Args:
        out: the table's place.
        format: ``"datasets"`` or ``"tars"``, which an empty folder does not hinder, or ``"parquet"``.
    """
    return os.path.exists(out) and not (format != "parquet" and out.is_dir() and not any(out.iterdir()))


def remove_half_built(files: Path) -> None:
    """Remove what a kill has left of tables.

    Args:
        files: folder of the single files of a protection that was begun; nobody else writes there now.
    """
    for left in files.glob(f"{_SCRATCH}*"):
        if not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)


def pack(source: Source, files: Path, indices: Sequence[int], out: Path, format: str, manifest: dict[str, Any]) -> None:
    """Put finished PNG files into one ``datasets`` folder or Parquet file, or into tars.

    Args:
        source: the clean images.
        files: folder of the PNG files.
        indices: the images that have one.
        out: the folder or file to write.
        format: ``"datasets"``, ``"parquet"`` or ``"tars"``.
        manifest: what is told of the protection; the checksums are added.
    """
    with tempfile.TemporaryDirectory(dir=files, prefix=_SCRATCH) as scratch:
        built = Path(scratch, out.name)
        if format == "tars":
            manifest["columns"] = ["png", LABEL]
            built.mkdir()
            _write_tars(source, files, indices, built)
        else:
            manifest["columns"] = list(source.columns)
            _write_table(source, files, indices, built, format, Path(scratch))
        if format == "parquet":
            manifest["files"] = {out.name: _sha256(built)}
            record = Path(scratch, PROTECTION)  # not beside OUT, where a kill would leave it half-written
            write_atomically(record, to_json(manifest))
            os.replace(record, out.with_suffix(f".{PROTECTION}"))
        else:
            manifest["files"] = {p.name: _sha256(p) for p in sorted(built.iterdir())}
            write_atomically(built / PROTECTION, to_json(manifest))
        os.replace(built, out)


def _write_table(source: Source, files: Path, indices: Sequence[int], built: Path, format: str, scratch: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Value
    from datasets import Image as ImageFeature

    image_column, label_column = source.columns
    label_type = Value("int64") if source.classes is None else ClassLabel(names=list(source.classes))
    pngs = [(str(files / f"{source.names[i]}.png"), int(source.labels[i])) for i in indices]

    def rows(pngs: list[tuple[str, int]]) -> Iterator[dict[str, Any]]:
        for png, label in pngs:
            # bytes, and no path of a file: datasets would store the path only, or encode anew
            yield {image_column: {"bytes": Path(png).read_bytes(), "path": PROTECTED}, label_column: label}

    features = Features({image_column: ImageFeature(), label_column: label_type})
    with _refusals_of_the_disk():
        table = Dataset.from_generator(rows, features=features, cache_dir=str(scratch), gen_kwargs={"pngs": pngs})
    if format == "parquet":
        table.to_parquet(str(built))
    else:
        table.save_to_disk(str(built))


def _write_tars(source: Source, files: Path, indices: Sequence[int], built: Path) -> None:
    """One after the other, in the images' order; a name is an image's number in the source."""
    digits = max(6, len(str(max(len(source) - 1, 0))))
    for start in range(0, len(indices), IN_A_TAR):
        with tarfile.open(built / f"{start // IN_A_TAR:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for row in indices[start : start + IN_A_TAR]:
                label = str(int(source.labels[row])).encode()
                _add(tar, f"{row:0{digits}d}.{LABEL}", label)
                _add(tar, f"{row:0{digits}d}.png", (files / f"{source.names[row]}.png").read_bytes())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)  # of no owner and no time, which would tell about ours, and change the checksums
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


@contextmanager
def _refusals_of_the_disk() -> Iterator[None]:
    """`datasets` has an error of its own for a full disk too, with the system's somewhere behind it."""
    from datasets.exceptions import DatasetGenerationError

    try:
        yield
    except DatasetGenerationError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        raise OSError(*cause.args) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

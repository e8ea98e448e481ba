"""Protected images packed: a folder of `datasets`, Parquet, or a folder of tars as WebDataset reads them."""

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

from semtransforms.core.files import flush_file, to_json, write_atomically
from semtransforms.data.metadata import PROTECTION
from semtransforms.data.sources import Source
from semtransforms.data.tables import PROTECTED
from semtransforms.data.tars import LABEL

_SCRATCH = ".unfinished-table-"  # begins the name of the folder that a table is built in
IN_A_TAR = 10_000  # images; WebDataset's writer has the same
IN_A_SHARD = 500 << 20  # bytes of images; the Hub's own shards of Parquet have as many


def is_there(out: Path, format: str) -> bool:
    """Whether something lies where a table shall be written.

    Args:
        out: the table's place. An empty folder does not hinder one that is a folder.
        format: of :func:`pack`.
    """
    return os.path.exists(out) and not (not _is_file(out, format) and out.is_dir() and not any(out.iterdir()))


def _is_file(out: Path, format: str) -> bool:
    return format == "parquet" and out.suffix == ".parquet"


def remove_half_built(files: Path) -> None:
    """Remove what a kill has left of tables.

    Args:
        files: folder of the single files of a protection that was begun; nobody else writes there now.
    """
    for left in files.glob(f"{_SCRATCH}*"):
        if not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)


def pack(source: Source, files: Path, indices: Sequence[int], out: Path, format: str, manifest: dict[str, Any]) -> None:
    """Put finished PNG files into one ``datasets`` folder, into Parquet or into tars.

    Args:
        source: the clean images.
        files: folder of the PNG files.
        indices: the images that have one.
        out: the folder to write; for Parquet, one file where it ends in ``.parquet``.
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
            if format == "datasets":
                with _table(source, files, indices, scratch) as table:
                    table.save_to_disk(str(built))
            elif _is_file(out, format):
                with _table(source, files, indices, scratch) as table:
                    table.to_parquet(str(built))
            else:
                built.mkdir()
                _write_shards(source, files, indices, built)
        if _is_file(out, format):
            manifest["files"] = {out.name: _sha256(built)}
            record = Path(scratch, PROTECTION)  # not beside OUT, where a kill would leave it half-written
            write_atomically(record, to_json(manifest))
            os.replace(record, out.with_suffix(f".{PROTECTION}"))
        else:
            manifest["files"] = {p.name: _sha256(p) for p in sorted(built.iterdir())}
            write_atomically(built / PROTECTION, to_json(manifest))
        for file in [built] if built.is_file() else [*built.iterdir()]:
            flush_file(file)  # what it was made of is removed next
        os.replace(built, out)
        if os.name == "posix":
            flush_file(out.parent)


def _write_shards(source: Source, files: Path, indices: Sequence[int], built: Path) -> None:
    """Parquet files that a reader, or a process of many, takes one by one; each has at least an image."""
    starts, size = [0], 0
    for place, row in enumerate(indices):
        size += (bytes_of := _png(source, files, row).stat().st_size)
        if size > IN_A_SHARD and place > starts[-1]:
            starts.append(place)
            size = bytes_of
    ends = [*starts[1:], len(indices)]
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        with _table(source, files, indices[start:end], str(built.parent)) as table:
            table.to_parquet(str(built / f"train-{number:05d}-of-{len(starts):05d}.parquet"))


def _png(source: Source, files: Path, row: int) -> Path:
    return files / f"{source.names[row]}.png"


@contextmanager
def _table(source: Source, files: Path, indices: Sequence[int], scratch: str) -> Iterator[Any]:
    """A table of finished images; `datasets` keeps one of its own in the folder ``scratch`` as long as it is asked."""
    from datasets import ClassLabel, Dataset, Features, Value
    from datasets import Image as ImageFeature

    image_column, label_column = source.columns
    label_type = Value("int64") if source.classes is None else ClassLabel(names=list(source.classes))
    pngs = [(str(_png(source, files, i)), int(source.labels[i])) for i in indices]

    def rows(pngs: list[tuple[str, int]]) -> Iterator[dict[str, Any]]:
        for png, label in pngs:
            # bytes, and no path of a file: datasets would store the path only, or encode anew
            yield {image_column: {"bytes": Path(png).read_bytes(), "path": PROTECTED}, label_column: label}

    features = Features({image_column: ImageFeature(), label_column: label_type})
    with tempfile.TemporaryDirectory(dir=scratch) as cache:
        with _refusals_of_the_disk():
            table = Dataset.from_generator(rows, features=features, cache_dir=cache, gen_kwargs={"pngs": pngs})
        yield table


def _write_tars(source: Source, files: Path, indices: Sequence[int], built: Path) -> None:
    """One after the other, in the images' order; a name is an image's number in the source."""
    digits = max(6, len(str(max(len(source) - 1, 0))))
    for start in range(0, len(indices), IN_A_TAR):
        with tarfile.open(built / f"{start // IN_A_TAR:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for row in indices[start : start + IN_A_TAR]:
                label = str(int(source.labels[row])).encode()
                _add(tar, f"{row:0{digits}d}.{LABEL}", label)
                _add(tar, f"{row:0{digits}d}.png", _png(source, files, row).read_bytes())


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

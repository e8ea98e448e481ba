"""Tables that somebody else wrote: none has its reader's files published, and no column ends in a traceback."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from semtransforms.data.images import UNDECODABLE
from semtransforms.data.sources import open_source
from semtransforms.data.tables import homes_of_files

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes a Parquet file of two rows: images, labels, other columns."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def write(images: pa.Array, labels: pa.Array, **others: pa.Array) -> str:
        (tmp_path / "in").mkdir(exist_ok=True)
        pq.write_table(pa.table({"image": images, "label": labels, **others}), tmp_path / "in" / "rows.parquet")
        return str(tmp_path / "in" / "rows.parquet")

    return write


def struct(*rows: tuple[bytes | None, str | None]) -> pa.Array:
    return pa.array([{"bytes": data, "path": path} for data, path in rows], IMAGE)


LABELS = pa.array([0, 1])
GOOD = struct((png(1), None), (png(2), None))


def test_files_beside_a_table_are_read(table, tmp_path: Path):
    """A table that comes as a folder of images beside it would be refused."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "beside.png").write_bytes(png(3))
    source = open_source(table(struct((None, "beside.png"), (png(4), "/anywhere/a.png")), LABELS))
    for row, seed in enumerate((3, 4)):  # a name beside bytes is a name only
        assert np.array_equal(source[row][0].permute(1, 2, 0), Image.open(io.BytesIO(png(seed))))


@pytest.mark.parametrize(
    "name", ["{outside}", "../secret.png", "in/../../secret.png", "link.png", "/etc/passwd", "/dev/zero", "~/a.png"]
)
def test_a_table_names_no_file_elsewhere(name: str, table, tmp_path: Path):
    """Whoever protects a table of strangers would publish a picture of their own disk, or read without an end."""
    (tmp_path / "secret.png").write_bytes(png())
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "secret.png")
    source = open_source(table(struct((None, name.format(outside=tmp_path / "secret.png")), (png(), None)), LABELS))
    with pytest.raises(ValueError, match=r"outside of its folder|not there"):
        source.read(0)
    assert isinstance(source.read(1), bytes)  # the others are read


def test_a_table_on_the_hub_names_files_of_its_cache(tmp_path: Path):
    """A data set of image files on the Hub is a table of their paths in the cache."""
    import datasets

    homes = homes_of_files(Path("org/name"))
    assert Path(datasets.config.HF_DATASETS_CACHE).resolve() in homes
    assert not any(home in (Path("/"), Path.home(), Path.cwd()) for home in homes)


@pytest.mark.parametrize(
    "images",
    [
        pa.array(["a", "b"]),
        pa.array([1, 2]),
        pa.array([[1], [2]]),
        pa.array([{"bytes": 1, "path": 2}] * 2),
        pa.array([{"a": 1}] * 2),
        pa.array([None, None], IMAGE),
        struct((None, None), (None, None)),
    ],
    ids=lambda array: str(array.type),
)
def test_columns_that_hold_no_images(images: pa.Array, table):
    """An error of Python's in the middle of a run, which says neither the row nor what is wrong."""
    source = open_source(table(images, LABELS), image_column="image", label_column="label")
    with pytest.raises(UNDECODABLE, match="image"):
        source.read(0)


@pytest.mark.parametrize(
    "labels",
    [
        pa.array([0.5, 1]),
        pa.array([float("nan"), 1]),
        pa.array(["a", "b"]),
        pa.array([[0], [1]]),
        pa.array([{"a": 0}, {"a": 1}]),
        pa.array([None, None]),
        pa.array([False, True]),
        pa.array([0, 2**40]),
        pa.array([0, 2**64 - 1], pa.uint64()),
        pa.array([0, -1]),
        pa.array([0, 1], pa.date32()),
        pa.array(["a", "b"]).dictionary_encode(),
    ],
    ids=lambda array: f"{array.type}-{array[1]}",
)
def test_columns_that_hold_no_labels(labels: pa.Array, table):
    """A label of 2**40 made as many class names, until the memory was full."""
    with pytest.raises((ValueError, TypeError), match="label"):
        open_source(table(GOOD, labels), image_column="image", label_column="label")


def test_other_columns_do_not_matter_or_are_named(table):
    """A column that `datasets` cannot read would end in an error that names no file."""
    assert (
        len(open_source(table(GOOD, LABELS, more=pa.array([[[1]], [[2]]]), price=pa.array([1, 2], pa.decimal128(5)))))
        == 2
    )
    with pytest.raises(ValueError, match=r"SOURCE .*rows\.parquet.* is not readable as Parquet"):
        open_source(table(GOOD, LABELS, more=pa.array([[("a", 1)]] * 2, pa.map_(pa.string(), pa.int64()))))


@pytest.mark.parametrize(
    "features",
    [
        {"image": {"_type": "Evil"}, "label": {"_type": "Value", "dtype": "int64"}},
        {"image": {"_type": "Image"}, "label": {"_type": "Value", "dtype": "__import__('os')"}},
        [1, 2],
        "text",
    ],
    ids=str,
)
def test_what_a_table_says_of_itself(features: object, table):
    """It is read by `datasets`, whose errors were a traceback."""
    path = table(GOOD, LABELS)
    rows = pq.read_table(path).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(rows, path)
    with pytest.raises(ValueError, match="SOURCE"):
        open_source(path)


def test_class_names_lead_to_no_folder_elsewhere(table, tmp_path: Path):
    """Copies of a class called ../../evil would be written there."""
    path = table(GOOD, LABELS)
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["../../evil", "/abs/evil"]}}
    rows = pq.read_table(path).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(rows, path)
    for name in open_source(path).names:
        assert (tmp_path / "out" / name).resolve().is_relative_to(tmp_path / "out")


@pytest.mark.parametrize("name", ["../other.arrow", "/etc/passwd", 5])
def test_a_saved_data_set_names_no_file_elsewhere(name: object, tmp_path: Path):
    """Rows of another data set on the reader's disk would be published as this one's."""
    import datasets

    rows = datasets.Dataset.from_dict({"label": [0, 1]})
    rows.save_to_disk(str(tmp_path / "saved"))
    state = json.loads((tmp_path / "saved" / "state.json").read_text())
    state["_data_files"] = [{"filename": name}]
    (tmp_path / "saved" / "state.json").write_text(json.dumps(state))
    with pytest.raises(ValueError, match="outside of its folder"):
        open_source(str(tmp_path / "saved"))


@pytest.mark.parametrize("state", ["{", "[]", '{"_data_files": 5}', "[" * 100_000])
def test_a_saved_data_set_with_a_damaged_record(state: str, tmp_path: Path):
    """A traceback in the place of the name of the file."""
    (tmp_path / "state.json").write_text(state)
    with pytest.raises(ValueError, match=r"state\.json"):
        open_source(str(tmp_path))

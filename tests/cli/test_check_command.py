"""``semtransforms check``: what an owner is told of a published folder."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from owner import write_photographs
from PIL import Image
from test_cli import fails, run, save_generator
from typer.testing import Result

from semtransforms.protect import checksums
from semtransforms.protect.shelves import Folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photographs(tmp_path / "photos", each=3)


@pytest.fixture
def published(photos: Path, tmp_path: Path) -> Path:
    return publish(photos, tmp_path / "published")


def publish(photos: Path, out: Path, *options: object) -> Path:
    generator = out.parent / "generator"
    if not generator.exists():
        save_generator(generator, 2)
    assert (
        run("protect", photos, out, "--generator", generator, "--cache-dir", out.parent / "p", *options).exit_code == 0
    )
    return out


def answers(result: Result) -> dict[str, tuple[str, str]]:
    """Question to (ok or FAIL, the rest of the line)."""
    lines = [line for line in result.stdout.splitlines() if line]
    return {line[6:].partition(":")[0]: (line[:4].strip(), line.partition(":")[2]) for line in lines}


def failing(result: Result) -> set[str]:
    assert result.exit_code == 1, result.output
    return {question for question, (word, _) in answers(result).items() if word == "FAIL"}


@pytest.mark.parametrize("options", [(), ("--format", "jpeg")])
def test_what_protect_wrote_is_in_order(photos: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    """An owner whose folder is right would be told to look for a mistake."""
    out = publish(photos, tmp_path / "out", *options)
    result = run("check", out, "--original", photos)
    assert result.exit_code == 0, result.output
    found = answers(result)
    assert set(found) == {"files", "nothing else", "metadata", "completeness", "labels", "bound"}
    assert run("check", out).exit_code == 0
    if not options:  # the largest difference, by hand
        pairs = [(clean, out / clean.relative_to(photos).with_suffix(".png")) for clean in photos.rglob("*.jpg")]
        apart = [np.asarray(Image.open(a), int) - np.asarray(Image.open(b), int) for a, b in pairs]
        assert f"at most {max(np.abs(each).max() for each in apart)} grey levels" in found["bound"][1]


def test_a_pixel_beyond_the_bound_is_found(photos: Path, published: Path) -> None:
    """A copy that somebody touched up would be published as if rho_u still held."""
    file = published / "cat" / "1.png"
    pixels = np.array(Image.open(file))
    clean = np.array(Image.open(photos / "cat" / "1.jpg"))
    pixels[3, 4, 0] = clean[3, 4, 0] + 9 if clean[3, 4, 0] < 128 else clean[3, 4, 0] - 9
    Image.fromarray(pixels).save(file)
    result = run("check", published, "--original", photos)
    assert failing(result) == {"files", "bound"}
    assert "cat/1.png" in answers(result)["bound"][1]


def test_secrets_and_strangers_in_the_folder_are_named(published: Path, tmp_path: Path) -> None:
    """The seed or the generator would go out with the pictures; a link would let others read the owner's disk."""
    (published / "secret.json").write_text('{"seed": 1}')
    (published / "dog" / "link.png").symlink_to(tmp_path / "photos" / "dog" / "0.jpg")
    result = run("check", published)
    assert failing(result) == {"nothing else"}
    assert "secret.json" in result.stdout
    assert "dog/link.png" in result.stdout


def test_metadata_that_came_later_is_found(published: Path) -> None:
    """Whoever edits a copy puts place and camera into what goes out."""
    file = published / "dog" / "0.png"
    exif = Image.Exif()
    exif[0x010F] = "a maker"
    Image.open(file).save(file, exif=exif)
    assert failing(run("check", published)) == {"files", "metadata"}


def test_missing_moved_and_new_photographs_are_named(photos: Path, published: Path) -> None:
    """Photographs would stay unprotected, or teach the wrong class, and nobody would know."""
    (published / "cat" / "0.png").unlink()
    Image.new("RGB", (20, 20)).save(photos / "dog" / "late.jpg")
    (photos / "dog" / "gone.jpg").write_bytes(b"no image")
    (photos / "cat" / "2.jpg").rename(photos / "dog" / "2b.jpg")
    result = run("check", published, "--original", photos)
    assert failing(result) == {"files", "completeness"}
    told = answers(result)
    assert "missing: cat/0.png" in told["files"][1]
    assert all(name in told["completeness"][1] for name in ("late", "2b", "cat/2", "1 do not decode"))


def test_a_class_that_was_changed_in_the_record_is_found(photos: Path, published: Path) -> None:
    """The copy of a cat would be published as a dog."""
    record = json.loads((published / "protection.json").read_text())
    moved = published / "dog" / "9.png"
    (published / "cat" / "1.png").rename(moved)
    record["files"]["dog/9.png"] = record["files"].pop("cat/1.png")
    (published / "protection.json").write_text(json.dumps(record))
    assert failing(run("check", published, "--original", photos)) == {"completeness"}


def test_checksums_of_very_many_files_lie_in_tables(
    photos: Path, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four million of them would lie in memory three times as one text; or in tables that nobody reads."""
    record = json.loads((published / "protection.json").read_text())
    files = record["files"]
    monkeypatch.setattr(checksums, "MOST", 5)
    (published / "protection-0009.jsonl").touch()  # not ours: no record names it
    part = checksums.write_checksums(Folder(published), files.items())
    assert sorted(part["tables"]) == [f"protection-{k:04d}.jsonl" for k in range(-(-len(files) // 5))]
    for name, sha256 in part["tables"].items():
        assert hashlib.sha256((published / name).read_bytes()).hexdigest() == sha256
    lines = [json.loads(line) for name in part["tables"] for line in (published / name).read_text().splitlines()]
    assert dict(lines) == files
    record.pop("files")
    (published / "protection.json").write_text(json.dumps(record | part))
    assert failing(run("check", published, "--original", photos)) == {"nothing else"}  # that one
    (published / "protection-0009.jsonl").unlink()
    assert run("check", published, "--original", photos).exit_code == 0
    assert checksums.write_checksums(Folder(published), list(files.items())[:5]) == {
        "files": dict(list(files.items())[:5])
    }
    assert not list(published.glob("protection-*"))  # the tables of an earlier, longer record
    for damaged in ("[]", '{"tables": 5}', '{"tables": [1]}'):  # whoever protects again is not stopped by it
        (published / "protection.json").write_text(damaged)
        assert checksums.write_checksums(Folder(published), [("a.png", "0")]) == {"files": {"a.png": "0"}}
    (published / "protection.json").write_text(json.dumps(record | part))
    checksums.write_checksums(Folder(published), files.items())
    (published / "protection-0001.jsonl").write_text("")
    fails(run("check", published), "damaged", "protection-0001.jsonl is not as it was written")


def test_what_is_no_published_folder_is_said(photos: Path, published: Path) -> None:
    """A traceback would leave the owner with no answer."""
    fails(run("check", photos), "protection.json", "semtransforms protect")
    (published / "protection.json").write_text("{")
    fails(run("check", published), "damaged")
    fails(run("check", published.parent / "nowhere"), "protection.json")


def test_a_table_is_told_from_a_folder(tmp_path: Path) -> None:
    """An owner who published a Parquet file would be told that the package did not write it."""
    (tmp_path / "published.parquet").touch()
    fails(run("check", tmp_path / "published.parquet"), "has no published.protection.json")
    (tmp_path / "published.protection.json").write_text("{}")  # as protect writes it beside the table
    fails(run("check", tmp_path / "published.parquet"), "published.protection.json is damaged")
    fails(run("check", tmp_path), "published.protection.json", "table", "published.parquet")


@pytest.fixture
def table(photos: Path, tmp_path: Path) -> Path:
    """A published table; the second cat does not decode, so that its rows are not those of the originals."""
    (photos / "cat" / "1.jpg").write_bytes((photos / "cat" / "1.jpg").read_bytes()[:200])
    generator, out = tmp_path / "generator", tmp_path / "out.parquet"
    save_generator(generator, 2)
    options = ("--generator", generator, "--cache-dir", tmp_path / "p", "--format", "parquet")
    assert run("protect", photos, out, *options).exit_code == 1  # one photograph does not decode
    return out


def rewrite(table: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Change the rows, and the checksum with them: what is asked is more than that."""
    schema = pq.read_schema(table)
    rows = pq.read_table(table).to_pylist()
    change(rows)
    names = {name for row in rows for name in row}
    pq.write_table(pa.Table.from_pylist(rows, schema if names == set(schema.names) else None), table)
    record = table.with_suffix(".protection.json")
    values = json.loads(record.read_text())
    values["files"] = {table.name: hashlib.sha256(table.read_bytes()).hexdigest()}
    record.write_text(json.dumps(values))


def test_a_table_of_ours_is_in_order(photos: Path, table: Path, tmp_path: Path) -> None:
    """Rows carry no name: paired with the photographs as they lie there, all behind the damaged one are another's."""
    result = run("check", table, "--original", photos)
    assert result.exit_code == 0, result.output
    found = answers(result)
    assert set(found) == {"files", "nothing else", "metadata", "completeness", "labels", "bound"}
    assert "5 rows for 5 originals (1 do not decode" in found["completeness"][1]
    apart = []
    for row, clean in zip(pq.read_table(table).to_pylist(), ["cat/0", "cat/2", "dog/0", "dog/1", "dog/2"], strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])), int)
        apart.append(np.abs(pixels - np.asarray(Image.open(photos / f"{clean}.jpg"), int)).max())
    assert f"at most {max(apart)} grey levels" in found["bound"][1]
    record = table.with_suffix(".protection.json")
    older = {name: value for name, value in json.loads(record.read_text()).items() if name != "columns"}
    record.write_text(json.dumps(older))
    assert run("check", table).exit_code == 0


def test_a_folder_of_datasets_is_in_order(photos: Path, tmp_path: Path) -> None:
    """The other form of table; what lies beside its files would be published with it."""
    out = publish(photos, tmp_path / "out", "--format", "datasets")
    result = run("check", out, "--original", photos)
    assert result.exit_code == 0, result.output
    (out / "secret.json").write_text("{}")
    assert failing(run("check", out)) == {"nothing else"}


def _touch_up(rows: list[dict[str, Any]]) -> None:
    pixels = np.array(Image.open(io.BytesIO(rows[3]["image"]["bytes"])))
    pixels[:9, :9] ^= 64
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    rows[3]["image"]["bytes"] = buffer.getvalue()


def _tell_the_camera(rows: list[dict[str, Any]]) -> None:
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x010F] = "a maker"
    Image.open(io.BytesIO(rows[0]["image"]["bytes"])).save(buffer, "PNG", exif=exif)
    rows[0]["image"]["bytes"] = buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (_touch_up, {"bound"}),
        (_tell_the_camera, {"metadata"}),
        (lambda rows: rows.pop(), {"completeness"}),
        (lambda rows: rows[0].update(label=1), {"labels"}),
        (lambda rows: rows.reverse(), {"labels", "bound"}),
        (lambda rows: [row.update(path="/home/owner") for row in rows], {"nothing else", "labels"}),  # class names went
    ],
)
def test_what_was_changed_in_a_table_is_found(
    change: Callable[[list[dict[str, Any]]], Any], wrong: set[str], photos: Path, table: Path
) -> None:
    """Published as a table, a copy beyond the bound, of another class or with the owner's paths would not be seen."""
    rewrite(table, change)
    assert failing(run("check", table, "--original", photos)) == wrong


def test_a_table_whose_bytes_changed_is_found(table: Path, tmp_path: Path) -> None:
    """A table that was cut on its way."""
    pq.write_table(pq.read_table(table), table, compression="gzip")
    assert failing(run("check", table)) == {"files"}
    other = table.rename(tmp_path / "other.parquet")
    table.with_suffix(".protection.json").rename(tmp_path / "other.protection.json")
    fails(run("check", other), "it is of out.parquet")


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd"])
def test_a_record_that_names_files_elsewhere_is_refused(published: Path, name: str) -> None:
    """A folder from a stranger could have any file of this machine read, and told about."""
    file = published / "protection.json"
    record = json.loads(file.read_text())
    record["files"][name] = "0" * 64
    file.write_text(json.dumps(record))
    fails(run("check", published), "lies elsewhere")

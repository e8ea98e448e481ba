"""``semtransforms check``: what an owner is told of a published folder."""

import json
from pathlib import Path

import numpy as np
import pytest
from owner import write_photographs
from PIL import Image
from test_cli import fails, run, save_generator
from typer.testing import Result


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


def test_what_is_no_published_folder_is_said(photos: Path, published: Path) -> None:
    """A traceback would leave the owner with no answer."""
    fails(run("check", photos), "protection.json", "semtransforms protect")
    (published / "protection.json").write_text("{")
    fails(run("check", published), "damaged")
    fails(run("check", published.parent / "nowhere"), "protection.json")


def test_a_table_is_told_from_a_folder(tmp_path: Path) -> None:
    """An owner who published a Parquet file would be told that the package did not write it."""
    (tmp_path / "published.parquet").touch()
    fails(run("check", tmp_path / "published.parquet"), "is a file", "png or jpeg")
    (tmp_path / "published.protection.json").write_text("{}")  # as protect writes it beside the table
    fails(run("check", tmp_path), "published.protection.json", "table", "png or jpeg")


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd"])
def test_a_record_that_names_files_elsewhere_is_refused(published: Path, name: str) -> None:
    """A folder from a stranger could have any file of this machine read, and told about."""
    file = published / "protection.json"
    record = json.loads(file.read_text())
    record["files"][name] = "0" * 64
    file.write_text(json.dumps(record))
    fails(run("check", published), "lies elsewhere")

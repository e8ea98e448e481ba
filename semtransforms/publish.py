"""Writing protected copies for the world, and keeping what would undo them to oneself.

What is published: the protected images and ``protection.json``. What is not: the seed, the noise, and everything of
the clean file but its pixels' shape.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from semtransforms import __version__
from semtransforms.functional import add_noise, levels
from semtransforms.images import RGBImage, check_labels, encode_png, to_pil, to_rgb
from semtransforms.journal import Journal, to_json, write_atomically
from semtransforms.models import MODELS
from semtransforms.sources import UNDECODABLE, Source

if TYPE_CHECKING:
    from semtransforms.generator import NoiseGenerator

MANIFEST = "protection.json"

# One batch of reading, noise and writing: what an interruption costs at most, and what lies in memory at once.
BATCH_IMAGES = 128
BATCH_BYTES = 64 << 20


def _png(image: RGBImage, noise: Tensor) -> bytes:
    return encode_png(add_noise(image.pixels, noise), image.alpha)


def _jpeg(image: RGBImage, noise: Tensor) -> bytes:
    buffer = io.BytesIO()
    # the mildest JPEG there is short of lossless: no colour subsampling
    to_pil(add_noise(image.pixels, noise)).save(buffer, format="JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def _npy(image: RGBImage, noise: Tensor) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, noise.numpy(), allow_pickle=False)
    return buffer.getvalue()


@dataclass(frozen=True)
class Format:
    """How one protected image becomes a file, and what the files are packed into."""

    suffix: str
    encode: Callable[[RGBImage, Tensor], bytes]
    packed: bool = False
    published: bool = True
    lossless: bool = True


FORMATS = {
    "png": Format(".png", _png),
    "parquet": Format(".png", _png, packed=True),
    "datasets": Format(".png", _png, packed=True),
    "noise": Format(".npy", _npy, published=False),
    "jpeg": Format(".jpg", _jpeg, lossless=False),
}


@dataclass
class Outcome:
    """What a protection did.

    Args:
        written: files protected by this call.
        found: files that an earlier, interrupted call had finished.
        with_metadata: of those written, how many had EXIF, GPS, ICC profiles or text.
        without_alpha: of those written, how many lost their alpha channel (JPEG has none).
        failed: images that do not decode, or are too small for the generator's network: where they are and why.
        private: the folder with the seed.
    """

    private: Path
    written: int = 0
    found: int = 0
    with_metadata: int = 0
    without_alpha: int = 0
    failed: list[str] = field(default_factory=list)


def protect_source(
    source: Source,
    out: Path,
    generator: NoiseGenerator,
    *,
    format: str = "png",
    seed: int | None = None,
    private: Path,
    device: str | None = None,
) -> Outcome:
    """Write a protected copy of every image of a source; called again after an interruption, go on.

    Args:
        source: the clean images.
        out: folder to write (a file ending in ``.parquet`` for that format); must be empty, or begun by this call.
        generator: makes the noise; fitted for the source's classes.
        format: ``"png"``, ``"parquet"``, ``"datasets"``, ``"noise"`` or ``"jpeg"``.
        seed: of the noise; ``None`` for a fresh one that nobody can guess.
        private: folder for what must not be published.
        device: where to compute the noise.

    Returns:
        What was done, with the images that could not be.

    Raises:
        ValueError: an argument does not fit; nothing has been written then.
    """
    kind = FORMATS[format]
    labels = check_classes(source, generator)
    check_places(source, out, private)
    if format == "parquet" and out.suffix != ".parquet":
        raise ValueError(f"OUT must end in .parquet for --format parquet, got {str(out)!r}.")
    if kind.packed and out.exists() and (format == "parquet" or any(out.iterdir())):
        raise ValueError(f"OUT {str(out)!r} exists already. Choose another name, or remove it.")
    files = out.with_name(f"{out.name}.unfinished") if kind.packed else out
    identity = [source.identity, str(out.resolve()), generator.fingerprint, format]
    journal = Journal.begin(private, identity, files, seed)
    outcome = Outcome(private=journal.folder)

    files.mkdir(parents=True, exist_ok=True)
    if not kind.published:
        files.chmod(0o700)
    for folder in source.folders:  # also of a class without images: readers count folders to number the labels
        (files / folder).mkdir(exist_ok=True)
    todo = [i for i, name in enumerate(source.names) if not journal.is_finished(name + kind.suffix, source.stamp(i))]
    outcome.found = len(source) - len(todo)
    with tqdm(total=len(source), initial=outcome.found, unit="image", disable=None, desc="protect") as bar:
        smallest = MODELS[generator.config.surrogate].smallest
        for batch in _batches(_decode(source, todo, outcome, smallest)):
            images = [image for _, image in batch]
            noise = generator.noise(
                [image.pixels for image in images], labels[[i for i, _ in batch]], seed=journal.seed, device=device
            )
            for (i, image), levels_of_one in zip(batch, noise, strict=True):
                name = source.names[i] + kind.suffix
                data = kind.encode(image, levels_of_one)
                (files / name).parent.mkdir(parents=True, exist_ok=True)
                write_atomically(files / name, data, mode=0o666 if kind.published else 0o600)
                journal.finish(name, source.stamp(i), data)
                outcome.without_alpha += image.alpha is not None and not kind.lossless
            outcome.written += len(batch)
            bar.update(len(batch))

    if len(outcome.failed) == len(source):
        raise ValueError(f"SOURCE has no image that can be protected; the first of {len(source)}: {outcome.failed[0]}.")
    finished = [i for i, name in enumerate(source.names) if journal.is_finished(name + kind.suffix, source.stamp(i))]
    manifest = _manifest(source, generator, format, len(finished))
    if kind.packed:
        _pack(source, files, finished, out, format, manifest)
    elif kind.published:
        names = [source.names[i] + kind.suffix for i in finished]
        manifest["files"] = {name: journal.sha256(name) for name in names}
        write_atomically(files / MANIFEST, to_json(manifest))
    return outcome


def check_classes(source: Source, generator: NoiseGenerator) -> Tensor:
    """Check that a generator was fitted for a source's classes.

    Args:
        source: labelled images.
        generator: whose noise they shall get.

    Returns:
        The labels, int64 ``(N,)``.

    Raises:
        ValueError: the class counts differ; the message says what to do.
    """
    if source.classes is not None and len(source.classes) != generator.num_classes:
        raise ValueError(
            f"SOURCE has {len(source.classes)} classes, but generator {generator.name!r} was fitted for "
            f"{generator.num_classes}. Fit one on these images: semtransforms fit SOURCE FOLDER, "
            "then --generator FOLDER."
        )
    return check_labels(source.labels, generator.num_classes)


def check_places(source: Source, out: Path, private: Path) -> None:
    """Refuse places where writing would change what is read, or publish what is private.

    Args:
        source: its folder must not hold ``out``, nor lie in it.
        out: where the protected copies go.
        private: where the seed goes; must lie outside ``out``.

    Raises:
        ValueError: the places overlap, or ``out`` cannot be a folder.
    """
    target = out.resolve()
    if source.folder is not None:
        origin = source.folder.resolve()
        if target == origin or origin in target.parents:
            raise ValueError(f"OUT {str(out)!r} lies inside SOURCE {str(source.folder)!r}. Choose a folder outside it.")
        if target in origin.parents:
            raise ValueError(f"SOURCE {str(source.folder)!r} lies inside OUT {str(out)!r}. Choose another OUT.")
    if target == private.resolve() or target in private.resolve().parents:
        raise ValueError(
            f"the private folder {str(private)!r} lies inside OUT {str(out)!r}, where its seed would be published. "
            "Choose another OUT or --cache-dir."
        )
    if out.exists() and not out.is_dir():
        raise ValueError(f"OUT {str(out)!r} is a file. Choose another name, or remove it.")


def _decode(source: Source, indices: list[int], outcome: Outcome, smallest: int) -> Iterator[tuple[int, RGBImage]]:
    """Decode images one by one, noting those that cannot be protected and those with metadata."""
    for index in indices:
        try:
            with source.open(index) as image:
                decoded = to_rgb(image)
                if min(decoded.pixels.shape[1:]) < smallest:
                    raise ValueError(f"{image.width}x{image.height} pixels; the generator takes {smallest} and more")
                outcome.with_metadata += carries_metadata(image)
        except UNDECODABLE as error:
            outcome.failed.append(f"{source.place(index)} ({error})")
        else:
            yield index, decoded


def _batches(images: Iterator[tuple[int, RGBImage]]) -> Iterator[list[tuple[int, RGBImage]]]:
    batch: list[tuple[int, RGBImage]] = []
    size = 0
    for index, image in images:
        batch.append((index, image))
        size += image.pixels.numel()
        if len(batch) == BATCH_IMAGES or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def carries_metadata(image: Image.Image) -> bool:
    """Whether an open image file says more than its pixels: EXIF (with GPS), XMP, an ICC profile, a comment, text."""
    named = {"exif", "xmp", "icc_profile", "comment", "photoshop", "XML:com.adobe.xmp"}
    return bool(named & image.info.keys() or image.getexif() or getattr(image, "text", None))


def _manifest(source: Source, generator: NoiseGenerator, format: str, images: int) -> dict[str, Any]:
    return {
        "what": "Images protected by semtransforms: each pixel differs from the original by at most rho_u.",
        "generator": {
            "name": generator.name and Path(generator.name).name,  # a folder's path would tell about its owner
            "method": generator.config.method,
            "fingerprint": generator.fingerprint,
        },
        "rho_u": f"{levels(generator.config.rho_u)}/255",
        "bound_holds": FORMATS[format].lossless,
        "format": format,
        "images": images,
        "classes": None if source.classes is None else list(source.classes),
        "version": __version__,
    }


def _pack(source: Source, files: Path, indices: list[int], out: Path, format: str, manifest: dict[str, Any]) -> None:
    """Put finished PNG files into one ``datasets`` folder or Parquet file, then remove them."""
    from datasets import ClassLabel, Dataset, Features, Value
    from datasets import Image as ImageFeature

    image_column, label_column = source.columns
    label_type = Value("int64") if source.classes is None else ClassLabel(names=list(source.classes))
    pngs = [(str(files / f"{source.names[i]}.png"), int(source.labels[i])) for i in indices]

    def rows(pngs: list[tuple[str, int]]) -> Iterator[dict[str, Any]]:
        for png, label in pngs:
            # bytes and no path: datasets would store a path only, or encode anew
            yield {image_column: {"bytes": Path(png).read_bytes(), "path": None}, label_column: label}

    features = Features({image_column: ImageFeature(), label_column: label_type})
    with tempfile.TemporaryDirectory(dir=files, prefix=".pack-") as scratch:
        table = Dataset.from_generator(rows, features=features, cache_dir=scratch, gen_kwargs={"pngs": pngs})
        built = Path(scratch, out.name)
        if format == "parquet":
            table.to_parquet(str(built))
            manifest["files"] = {out.name: _sha256(built)}
            write_atomically(out.with_suffix(f".{MANIFEST}"), to_json(manifest))
        else:
            table.save_to_disk(str(built))
            manifest["files"] = {p.name: _sha256(p) for p in sorted(built.iterdir())}
            write_atomically(built / MANIFEST, to_json(manifest))
        os.replace(built, out)
    shutil.rmtree(files)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

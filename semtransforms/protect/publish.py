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
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from safetensors.torch import save
from torch import Tensor
from tqdm.auto import tqdm

from semtransforms import __version__
from semtransforms.core.files import alone_in, explained, making_folder, to_json, write_atomically
from semtransforms.core.grid import levels
from semtransforms.data.images import UNDECODABLE, RGBImage, encode_png, to_pil, to_rgb
from semtransforms.data.sources import Source, reason
from semtransforms.protect.batch import check_class_count, generator_labels, protect_batch
from semtransforms.protect.journal import Journal

if TYPE_CHECKING:
    from semtransforms.generators.generator import NoiseGenerator, NoiseSize

MANIFEST = "protection.json"

# One batch of reading, noise and writing: what an interruption costs at most, and what lies in memory at once.
BATCH_IMAGES = 128
BATCH_BYTES = 64 << 20

# (index, stamp, image) of one image to protect
Decoded = tuple[int, str, RGBImage]


def _png(image: RGBImage, noise: Tensor) -> bytes:
    return encode_png(*image)


def _jpeg(image: RGBImage, noise: Tensor) -> bytes:
    buffer = io.BytesIO()
    # the mildest JPEG there is short of lossless: no colour subsampling
    to_pil(image.pixels).save(buffer, format="JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def _noise(image: RGBImage, noise: Tensor) -> bytes:
    data: bytes = save({"noise": noise.contiguous()})
    return data


@dataclass(frozen=True)
class Format:
    """How one protected image becomes a file, and what the files are packed into.

    ``encode`` takes the protected image and its noise. ``room`` is what a file takes at least, in bytes per byte of
    pixels: noise does not compress as images do.
    """

    suffix: str
    encode: Callable[[RGBImage, Tensor], bytes]
    room: float
    packed: bool = False
    published: bool = True
    lossless: bool = True


FORMATS = {
    "png": Format(".png", _png, room=0.4),
    "parquet": Format(".png", _png, room=0.4, packed=True),
    "datasets": Format(".png", _png, room=0.4, packed=True),
    "noise": Format(".safetensors", _noise, room=1, published=False),
    "jpeg": Format(".jpg", _jpeg, room=0.2, lossless=False),
}


@dataclass
class Outcome:
    """What a protection did.

    Args:
        written: files protected by this call.
        found: files that an earlier, interrupted call had finished.
        removed: files of an earlier call whose images are gone, no longer decode, or have another name now.
        with_metadata: of those written, how many had EXIF, GPS, ICC profiles or text.
        without_alpha: of those written, how many lost their alpha channel (JPEG has none).
        failed: images that do not decode, or are too small for the generator's network: where they are and why.
        private: the folder with the seed.
    """

    private: Path
    written: int = 0
    found: int = 0
    removed: int = 0
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
    noise_size: NoiseSize = None,
    device: str | None = None,
) -> Outcome:
    """Write a protected copy of every image of a source; called again after an interruption, go on.

    Called again after the source has changed, it makes OUT what it would be now: copies of images that changed, got
    another label or are new are written, those of images that are gone are removed. Only files of ours are touched.

    Args:
        source: the clean images.
        out: folder to write (a file ending in ``.parquet`` for that format); must be empty, or begun by this call.
        generator: makes the noise; fitted for the source's classes.
        format: ``"png"``, ``"parquet"``, ``"datasets"``, ``"noise"`` or ``"jpeg"``.
        seed: of the noise; ``None`` for a fresh one that nobody can guess.
        private: folder for what must not be published.
        noise_size: S, the shorter side at which the noise of larger images is made; see ``NoiseGenerator.scale``.
        device: where to compute the noise.

    Returns:
        What was done, with the images that could not be.

    Raises:
        ValueError: an argument does not fit, or another process writes ``out``; nothing has been written then.
        OSError: ``out`` or ``private`` cannot be written, or the disk has not enough room.
    """
    kind = FORMATS[format]
    labels = check_classes(source, generator)
    check_places(source, out, private)
    if format == "parquet" and out.suffix != ".parquet":
        raise ValueError(f"OUT must end in .parquet for --format parquet, got {str(out)!r}.")
    files = out.with_name(f"{out.name}.unfinished") if kind.packed else out
    side = generator.scale(noise_size).side
    identity = [source.identity, str(out.resolve()), generator.fingerprint, format, str(side)]
    with making_folder(files, "OUT"), alone_in(files, "OUT") as alone, making_folder(private, "--cache-dir"):
        if kind.packed and os.path.exists(out) and (format == "parquet" or any(out.iterdir())):
            raise ValueError(f"OUT {str(out)!r} exists already. Choose another name, or remove it.")
        with Journal.begin(private, identity, files, seed, alone=alone) as journal:
            if not kind.published:
                files.chmod(0o700)
            outcome = Outcome(private=journal.folder)
            finished = _finish(source, labels, generator, kind, journal, files, outcome, noise_size, device)
            manifest = _manifest(source, generator, format, len(finished))
            with explained("OUT", out):
                if kind.packed:
                    _pack(source, files, finished, out, format, manifest)
                elif kind.published:
                    names = [source.names[i] + kind.suffix for i in finished]
                    manifest["files"] = {name: journal.sha256(name) for name in names}
                    write_atomically(files / MANIFEST, to_json(manifest))
    return outcome


def _finish(
    source: Source,
    labels: Tensor,
    generator: NoiseGenerator,
    kind: Format,
    journal: Journal,
    files: Path,
    outcome: Outcome,
    noise_size: NoiseSize,
    device: str | None,
) -> list[int]:
    """Make what is not finished, remove what is no longer wanted; returns the images whose copies are there."""
    found = [
        i for i, name in enumerate(source.names)
        # the stamp may cost as much as decoding: asked for only where it decides
        if (stamp := journal.stamp(name + kind.suffix)) is not None and stamp == _stamp(source, i)
    ]  # fmt: skip
    outcome.found = len(found)
    todo = sorted(set(range(len(source))).difference(found))
    check_room(source, files, len(todo), kind)
    for folder in source.folders:  # also of a class without images: readers count folders to number the labels
        journal.make_folder(folder)
    written = []
    with tqdm(total=len(source), initial=outcome.found, unit="image", disable=None, desc="protect") as bar:
        for group in _groups(_decode(source, todo, outcome, generator.smallest)):
            rows = [i for i, _, _ in group]
            pixels = [image.pixels for _, _, image in group]
            batch = protect_batch(
                pixels, labels[rows], generator, seed=journal.seed, noise_size=noise_size, device=device
            )
            for (i, stamp, image), protected, noise in zip(group, batch.protected, batch.noise, strict=True):
                data = kind.encode(RGBImage(protected, image.alpha), noise)
                journal.finish(source.names[i] + kind.suffix, stamp, data, mode=0o666 if kind.published else 0o600)
                outcome.without_alpha += image.alpha is not None and not kind.lossless
            written += rows
            outcome.written += len(group)
            bar.update(len(group))
    if not found and not written:
        raise ValueError(f"SOURCE has no image that can be protected; the first of {len(source)}: {outcome.failed[0]}.")
    finished = sorted(found + written)
    outcome.removed = journal.keep_only((source.names[i] + kind.suffix for i in finished), source.folders)
    return finished


def _stamp(source: Source, index: int) -> str | None:
    """A word that changes when an image or its label does, for noise is made for both; ``None``: it does not decode."""
    try:
        return f"{int(source.labels[index])}-{source.stamp(index)}"
    except UNDECODABLE:
        return None


def check_room(source: Source, files: Path, todo: int, kind: Format) -> None:
    """Find out before the work that the disk is too small, from the sizes of a few images.

    Args:
        source: the clean images.
        files: a folder on that disk.
        todo: how many copies are to be written.
        kind: their format.

    Raises:
        OSError: it is.
    """
    copies = todo + (2 * len(source) if kind.packed else 0)  # `datasets` makes a copy of its own, and the packed one
    pixels = []
    for index in range(0, len(source) if copies else 0, len(source) // 32 + 1):
        with suppress(*UNDECODABLE), source.open(index) as image:
            pixels.append(image.width * image.height)
    needed = int(3 * kind.room * copies * sum(pixels) / max(len(pixels), 1))
    free = shutil.disk_usage(files).free
    if needed > free:
        raise OSError(
            f"OUT {str(files)!r} needs about {needed:,} bytes and its disk has {free:,} free. "
            "Free space there, or choose a folder on a larger disk."
        )


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
    remedy = "Fit one on these images: semtransforms fit SOURCE FOLDER, then --generator FOLDER."
    check_class_count("SOURCE", source.classes, generator.num_classes, generator=generator.name, remedy=remedy)
    return generator_labels(source.labels, None, generator.num_classes, place="SOURCE: ")


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
    if os.path.isfile(out):
        raise ValueError(f"OUT {str(out)!r} is a file. Choose another name, or remove it.")


def _decode(source: Source, indices: list[int], outcome: Outcome, smallest: int) -> Iterator[Decoded]:
    """Decode images one by one, noting those that cannot be protected and those with metadata."""
    for index in indices:
        try:
            stamp = _stamp(source, index)  # first: an image that changes from now on is done again the next time
            with source.open(index) as image:
                decoded = to_rgb(image)
                if min(decoded.pixels.shape[1:]) < smallest:
                    raise ValueError(f"{image.width}x{image.height} pixels; the generator takes {smallest} and more")
                outcome.with_metadata += carries_metadata(image)
        except UNDECODABLE as error:
            outcome.failed.append(f"{source.place(index)} ({reason(error)})")
        else:
            yield index, stamp or "", decoded


def _groups(images: Iterator[Decoded]) -> Iterator[list[Decoded]]:
    group: list[Decoded] = []
    size = 0
    for decoded in images:
        group.append(decoded)
        size += decoded[2].pixels.numel()
        if len(group) == BATCH_IMAGES or size >= BATCH_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


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
            record = Path(scratch, MANIFEST)  # not beside OUT, where a kill would leave it half-written
            write_atomically(record, to_json(manifest))
            os.replace(record, out.with_suffix(f".{MANIFEST}"))
        else:
            table.save_to_disk(str(built))
            manifest["files"] = {p.name: _sha256(p) for p in sorted(built.iterdir())}
            write_atomically(built / MANIFEST, to_json(manifest))
        os.replace(built, out)
    shutil.rmtree(files)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Writing protected copies for the world, and keeping what would undo them to oneself.

What is published: the protected images and ``protection.json``. What is not: the seed, the noise, and everything of
the clean file but its pixels' shape.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from semtransforms import __version__
from semtransforms.core.ahead import ahead
from semtransforms.core.checks import check_integer, check_number, whole_seed
from semtransforms.core.files import explained, to_json
from semtransforms.core.grid import levels
from semtransforms.core.hardware import describe_arithmetic
from semtransforms.core.private import making_private, refuse_link
from semtransforms.data.images import UNDECODABLE
from semtransforms.data.metadata import METADATA, PROTECTION
from semtransforms.data.opening import MOST_PIXELS
from semtransforms.data.refusals import StorageError
from semtransforms.data.remote import AT_ONCE, Place
from semtransforms.data.sources import Source
from semtransforms.protect.batch import check_class_count, generator_labels, warn_of_other_names
from semtransforms.protect.checksums import write_checksums
from semtransforms.protect.finished import Line
from semtransforms.protect.formats import Difference, Format, pick_quality
from semtransforms.protect.grouping import Groups
from semtransforms.protect.journal import Journal, key_of
from semtransforms.protect.labelling import write_labels
from semtransforms.protect.making import Engine, Failed, Made, Maker, make, stamp
from semtransforms.protect.packing import is_there, pack, remove_half_built
from semtransforms.protect.places import check_format, check_places, check_room
from semtransforms.protect.shelves import Shelf, shelf_at

if TYPE_CHECKING:
    from semtransforms.generators.generator import NoiseGenerator, NoiseSize

MANIFEST = PROTECTION

# One batch of reading, noise and writing: what an interruption costs at most, and what lies in memory at once.
BATCH_IMAGES = 128
BATCH_BYTES = 32 << 20  # of pixels; a photograph of 12 megapixels has 36 MB, so it is alone


@dataclass
class Outcome:
    """What a protection did.

    Args:
        written: files protected by this call.
        found: files that an earlier, interrupted call had finished.
        removed: files of an earlier call whose images are gone, no longer decode, or have another name now.
        with_metadata: of those written, how many had EXIF, GPS, ICC profiles or text.
        without_alpha: of those written, how many lost their alpha channel (JPEG has none).
        converted: of those written, how many had a colour profile by which they were brought to sRGB.
        profile_ignored: of those written, how many had a colour profile that could not be used.
        failed: images that do not decode, are gone, or too small for the generator's network: where they are and why.
        since: images that have come into SOURCE after it was listed, which are not protected: where they are.
        empty: folders of classes without images, which are not there; labels stand in ``metadata.csv`` then.
        difference: how far all files, those found too, are from the originals.
        private: the folder with the seed.
    """

    private: Path
    written: int = 0
    found: int = 0
    removed: int = 0
    with_metadata: int = 0
    without_alpha: int = 0
    converted: int = 0
    profile_ignored: int = 0
    failed: list[str] = field(default_factory=list)
    since: Sequence[str] = ()
    empty: tuple[str, ...] = ()
    difference: Difference = field(default_factory=Difference)


def protect_source(
    source: Source,
    out: Place,
    generator: NoiseGenerator,
    *,
    format: str = "png",
    quality: int | None = None,
    seed: int | None = None,
    private: Path,
    noise_size: NoiseSize = None,
    visibility: float = 1.0,
    device: str | None = None,
    workers: int = 0,
    max_megapixels: float = MOST_PIXELS / 1e6,
    engine: Engine = make,
) -> Outcome:
    """Write a protected copy of every image of a source; called again after an interruption, go on.

    Called again after the source has changed, it makes OUT what it would be now: copies of images that changed, got
    another label or are new are written, those of images that are gone are removed. Only files of ours are touched.

    Args:
        source: the clean images.
        out: folder to write, or for ``"parquet"`` a file if it ends so; must be empty, or begun by this call. Elsewhere
            (:func:`semtransforms.data.remote.place_of`) a folder for ``"png"`` and ``"jpeg"``.
        generator: makes the noise; fitted for the source's classes.
        format: ``"png"``, ``"parquet"``, ``"datasets"``, ``"tars"``, ``"noise"`` or ``"jpeg"``.
        quality: of JPEG, 75 to 100; ``None`` for 90.
        seed: of the noise; ``None`` for a fresh one that nobody can guess.
        private: folder for what must not be published.
        noise_size, visibility: at which size noise is made, and how much is seen of it; see ``NoiseGenerator.scale``.
        device: where to compute the noise.
        workers: processes that share the images; 0 works in this one. The files are the same.
        max_megapixels: larger images are refused before they are decoded.
        engine: makes the files' bytes; in processes of this machine, or of a cluster.

    Returns:
        What was done, with the images that could not be.

    Raises:
        ValueError: an argument does not fit, or another process writes ``out``; nothing has been written then.
        OSError: ``out`` or ``private`` cannot be written, or the disk has not enough room.
        StorageError: images or ``out`` lie elsewhere and cannot be reached any more.
    """
    check_limits(workers, max_megapixels)
    check_format(format, out)
    seed = None if seed is None else whole_seed("seed", seed)
    labels = check_classes(source, generator)
    check_places(source, out, private)
    chosen = pick_quality(format, quality)
    maker = Maker(
        generator, format, chosen, 0 if seed is None else seed, noise_size, visibility, device,
        round(max_megapixels * 1e6),
    )  # fmt: skip
    return _protect(source, labels, out, maker, seed, private, workers, engine)


def _protect(
    source: Source,
    labels: Tensor,
    out: Place,
    maker: Maker,
    seed: int | None,
    private: Path,
    workers: int,
    engine: Engine,
) -> Outcome:
    """What is left of ``protect_source`` when its arguments are known to be right."""
    kind, generator = maker.kind, maker.generator
    unfinished = out.with_name(f"{out.name}.unfinished") if kind.packed and isinstance(out, Path) else None
    shelf = shelf_at(unfinished or out)
    form = maker.format if maker.quality is None else f"{maker.format} {maker.quality}"
    scale = generator.scale(maker.noise_size, maker.visibility).identity
    identity = [source.identity, shelf_at(out).identity, generator.fingerprint, form, *scale]
    if unfinished:
        refuse_link(unfinished, "OUT")
    lock = private / key_of(identity)
    with shelf.made(), shelf.alone(lock) as alone, making_private(private, "--cache-dir"):
        if unfinished:
            assert isinstance(out, Path)
            begun = Journal.was_begun(private, identity)
            if begun and alone:
                remove_half_built(unfinished)
            if is_there(out, maker.format):
                if begun:  # a kill behind the end has left them
                    Journal.remove_left(private, identity, shelf)
                raise ValueError(f"OUT {str(out)!r} exists already. Choose another name, or remove it.")
        with Journal.begin(private, identity, shelf, seed, alone=alone) as journal:
            if not kind.published and isinstance(out, Path):
                out.chmod(0o700)
            outcome = Outcome(private=journal.folder)
            maker = replace(maker, seed=journal.seed)
            finished = _finish(source, labels, maker, journal, outcome, workers, engine)
            outcome.difference = journal.difference()
            check_all_there(out, shelf, journal.lines())
            manifest = _manifest(source, maker, len(finished), outcome.difference)
            with explained("OUT", out):
                if unfinished:
                    assert isinstance(out, Path)
                    pack(source, unfinished, finished, out, maker.format, manifest)
                    journal.remove_copies()
                else:
                    shelf.flush(journal.lines())
                    if kind.published:
                        outcome.empty = _write_record(source, finished, kind, journal, manifest)
    with suppress(OSError, StorageError, ValueError):  # of a source that is no longer there nothing can be told
        outcome.since = source.since()
    return outcome


def _finish(
    source: Source,
    labels: Tensor,
    maker: Maker,
    journal: Journal,
    outcome: Outcome,
    workers: int,
    engine: Engine,
) -> Sequence[int]:
    """Make what is not finished, remove what is no longer wanted; returns the images whose copies are there."""
    kind = maker.kind
    there = bytearray(len(source))  # a byte an image, where a list of numbers takes 40
    names = enumerate(source.names)
    known = ((row, stamp) for row, name in names if (stamp := journal.stamp(name + kind.suffix)) is not None)

    def as_known(each: tuple[int, str]) -> tuple[int, bool]:
        return each[0], each[1] == _stamp(source, each[0])

    # the stamp costs as much as reading: asked for only where it decides
    for row, same in ahead(as_known, known, AT_ONCE if source.far else 0):
        there[row] = same
    outcome.found = there.count(1)
    todo = array("q", (row for row in range(len(source)) if not there[row]))
    shelf = journal.shelf
    check_room(source, shelf.place, len(todo), kind, maker.quality)
    groups = _reached(engine(maker, Groups(source, labels, todo, BATCH_IMAGES, BATCH_BYTES), workers))
    made = _remembered(groups, source, kind, journal, outcome)
    with tqdm(total=len(source), initial=outcome.found, unit="image", disable=None, desc="protect") as bar:
        for done in ahead(lambda each: _write(each, source, kind, shelf), made, shelf.at_once):
            if done is not None:
                there[done] = 1
                outcome.written += 1
            bar.update()
    if not any(there):
        raise ValueError(f"SOURCE has no image that can be protected; the first of {len(source)}: {outcome.failed[0]}.")
    finished = array("q", (row for row in range(len(source)) if there[row]))
    outcome.removed = journal.keep_only(source.names[row] + kind.suffix for row in finished)
    return finished


def _write_record(
    source: Source, finished: Sequence[int], kind: Format, journal: Journal, manifest: dict[str, Any]
) -> tuple[str, ...]:
    """Write what is told of the copies, ``protection.json`` at last; returns the folders of classes without images."""
    names = (source.names[row] + kind.suffix for row in finished)
    manifest |= write_checksums(journal.shelf, ((name, journal.sha256(name)) for name in names))
    if empty := write_labels(source, finished, kind.suffix, journal.shelf):
        manifest["labels"] = METADATA
    journal.shelf.write(MANIFEST, to_json(manifest))
    return empty


def check_all_there(out: Place, shelf: Shelf, lines: Iterable[Line]) -> None:
    """See that nobody has removed finished files meanwhile.

    Args:
        out: what messages call their place.
        shelf: the folder that they lie in.
        lines: what is known of them.

    Raises:
        OSError: someone has.
    """
    if gone := next(shelf.lost(lines), None):
        raise OSError(
            f"OUT {str(out)!r}: {gone!r} was written and is gone, so someone removed it meanwhile. The same command "
            "makes again what is missing."
        )


def _remembered(
    groups: Iterable[list[Made | Failed]], source: Source, kind: Format, journal: Journal, outcome: Outcome
) -> Iterator[Made | Failed]:
    """What became of each image, noted before its file is written."""
    for group in groups:
        while group:  # emptied, so that a large file is not held while the next one is made
            match group[0]:
                case Failed(place):
                    outcome.failed.append(place)
                case made:
                    journal.remember(source.names[made.row] + kind.suffix, made.stamp, made.data, made.difference)
                    outcome.with_metadata += made.with_metadata
                    outcome.without_alpha += made.without_alpha
                    outcome.converted += made.profile == "converted"
                    outcome.profile_ignored += made.profile == "ignored"
                    del made
            yield group.pop(0)


def _write(made: Made | Failed, source: Source, kind: Format, shelf: Shelf) -> int | None:
    """Write one file; returns its row, or none where it failed."""
    if isinstance(made, Failed):
        return None
    with explained("OUT", shelf.place):
        # what a power failure takes of it is made again: it is looked at when the protection goes on
        mode = 0o666 if kind.published else 0o600
        shelf.write(source.names[made.row] + kind.suffix, made.data, mode=mode, flush=False)
    return made.row


def _reached(groups: Iterator[list[Made | Failed]]) -> Iterator[list[Made | Failed]]:
    """Let the error of a storage that is silent say how to go on."""
    try:
        yield from groups
    except StorageError as error:
        line = str(error).strip().splitlines()[-1]  # from a process it brings all of its traceback
        raise StorageError(f"SOURCE: {line}. What is finished is kept: the same command goes on from here.") from error


def _stamp(source: Source, index: int) -> str | None:
    """What the journal knows a finished image by; ``None``: it cannot be read."""
    try:
        return stamp(int(source.labels[index]), source.read(index))
    except UNDECODABLE:
        return None


def check_limits(workers: int, max_megapixels: float) -> None:
    """See that both of ``protect_source`` can be worked with.

    Raises:
        ValueError: one cannot.
    """
    check_integer("workers", workers, low=0, advice="0 works in this process.")
    check_number("max_megapixels", max_megapixels, low=0.001)


def check_classes(source: Source, generator: NoiseGenerator) -> Tensor:
    """Check that a generator was fitted for a source's classes, and warn where their names tell another order.

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
    warn_of_other_names("SOURCE", source.classes, generator.classes, generator=generator.name, remedy=remedy)
    return generator_labels(source.labels, None, generator.num_classes, place="SOURCE: ")


def _manifest(source: Source, maker: Maker, images: int, difference: Difference) -> dict[str, Any]:
    generator, exact = maker.generator, maker.kind.lossless
    return {
        "what": "Images protected by semtransforms: each pixel differs from the original by at most "
        + ("rho_u." if exact else "largest_difference, as measured in these files; the noise alone by rho_u."),
        "generator": {
            "name": generator.name and Path(generator.name).name,  # a folder's path would tell about its owner
            "method": generator.config.method,
            "fingerprint": generator.fingerprint,
        },
        "rho_u": f"{levels(generator.config.rho_u)}/255",
        "visibility": maker.visibility,
        "made_with": describe_arithmetic(
            generator.config.noise_precision, torch.device(maker.device or generator.device)
        ),
        "bound_holds": exact,
        "format": maker.format,
        "quality": maker.quality,
        "largest_difference": f"{difference.largest}/255",
        "rms_difference": f"{difference.rms:.2f}/255",
        "images": images,
        "classes": None if source.classes is None else list(source.classes),
        "version": __version__,
    }

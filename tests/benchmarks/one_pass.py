"""Speed of noise in one pass beside gradient steps, in memory and from files to files.

    python -m tests.benchmarks.one_pass PHOTOS --json tests/benchmarks/one_pass.json

In memory, images of random bytes: at 32 px, at 224 px with noise of full size, and a photograph of 12 megapixels whose
noise is made at 32 px and enlarged. Files: photographs of PHOTOS, which has a sub-folder for each class, shrunk to a
shorter side of 224 px and written as JPEG, are protected by ``protect_source``, noise made at full size; what reading
and writing alone take stands beside it. Each is done once to warm up, then ``--repeats`` times.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from semtransforms import NoiseGenerator
from semtransforms.core.files import to_json, write_atomically
from semtransforms.core.hardware import describe_machine
from semtransforms.data.images import RGBImage, to_rgb
from semtransforms.data.sources import open_source
from semtransforms.protect.formats import FORMATS, QUALITY
from semtransforms.protect.publish import protect_source

from .__main__ import spread

GENERATORS = ("sem-one-pass-cifar10", "sem-plus-cifar10")
SIDE = 224  # px, of the photographs in files
# shape, images for a generator that takes one pass and for one that takes forty, size of the noise
IN_MEMORY: dict[str, tuple[tuple[int, int], int, int, Any]] = {
    "32 px": ((32, 32), 2_048, 128, "full"),
    "224 px, noise of full size": ((SIDE, SIDE), 48, 4, "full"),
    "12 megapixels, noise of 32 px": ((3000, 4000), 2, 2, None),
}


def rate(work: Callable[[], object], count: int, repeats: int) -> list[float]:
    """Images a second of some work on ``count`` of them, each time that it was done."""
    work()
    rates = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        rates.append(count / (time.perf_counter() - started))
    return rates


def in_memory(name: str, threads: int, repeats: int) -> list[dict[str, Any]]:
    """The noise of a generator alone."""
    torch.set_num_threads(threads)
    generator, rows = NoiseGenerator.from_pretrained(name, device="cpu"), []
    for title, (shape, many, few, size) in IN_MEMORY.items():
        count = many if generator.config.one_pass else few
        images = torch.randint(0, 256, (count, 3, *shape), dtype=torch.uint8)
        labels = torch.arange(count) % 10

        def work(images: Any = images, labels: Any = labels, size: Any = size) -> object:
            return generator.noise(images, labels, seed=1, noise_size=size)

        rows.append({"what": title, "generator": name, "threads": threads, "rates": rate(work, count, repeats)})
    return rows


def from_files(photos: Path, folder: Path, count: int, repeats: int) -> list[dict[str, Any]]:
    """From JPEG files to protected files, with one process and with two; and what is no noise of it."""
    paths = shrink(photos, folder / "photos", count)
    generator, rows = NoiseGenerator.from_pretrained(GENERATORS[0], device="cpu"), []
    classes, number = sorted({path.parent.name for path in paths}), itertools.count()
    assert len(classes) == generator.num_classes, f"PHOTOS must have {generator.num_classes} classes"
    for format, workers in itertools.product(("jpeg", "png"), (0, 2)):

        def work(format: str = format, workers: int = workers) -> object:
            return protect_source(
                open_source(str(folder / "photos")), folder / f"out-{next(number)}", generator, format=format,
                noise_size="full", workers=workers, seed=1, private=folder / "private",
            )  # fmt: skip

        rows.append({
            "what": f"JPEG files of {SIDE} px to {format.upper()} files", "generator": GENERATORS[0],
            "threads": max(1, workers), "rates": rate(work, len(paths), repeats),
        })  # fmt: skip
    images = [read(path) for path in paths]
    alone: dict[str, Callable[[], object]] = {"decoding JPEG": lambda: [read(path) for path in paths]}
    for format in ("jpeg", "png"):
        alone[f"encoding {format.upper()}"] = lambda format=format: [
            FORMATS[format].encode(each, each.pixels, QUALITY) for each in images
        ]
    for title, job in alone.items():
        rows.append({"what": f"{title} alone", "generator": "–", "threads": 1, "rates": rate(job, count, repeats)})
    return rows


def shrink(photos: Path, target: Path, count: int) -> list[Path]:
    """The first photographs of a folder, spread over its classes, with a shorter side of ``SIDE`` pixels."""
    found = sorted(path for path in photos.glob("*/*") if path.suffix in (".jpg", ".jpeg", ".png"))
    made = []
    for path in found[:: max(1, len(found) // count)][:count]:
        place = target / path.parent.name / f"{path.stem}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            times = SIDE / min(image.size)
            size = (round(times * image.width), round(times * image.height))
            image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(place, quality=92)
        made.append(place)
    return made


def read(path: Path) -> RGBImage:
    """The photograph in a file."""
    with Image.open(path) as image:
        return to_rgb(image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="PHOTOS")
    parser.add_argument("--photographs", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    about = describe_machine(torch.device("cpu"))
    rows = [
        row
        for threads, name in itertools.product((1, 2), GENERATORS)
        for row in in_memory(name, threads, arguments.repeats)
    ]
    with tempfile.TemporaryDirectory() as folder:
        rows += from_files(arguments.source, Path(folder), arguments.photographs, arguments.repeats)
    print(f"{about}\n\n| what | generator | threads; of files: processes | images a second |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row['what']} | {row['generator']} | {row['threads']} | {spread(row['rates'])} |")
    if arguments.json:
        write_atomically(arguments.json, to_json({"about": about, "rows": rows}))


if __name__ == "__main__":
    main()

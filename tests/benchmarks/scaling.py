"""How protecting grows with workers, of this machine and of a Ray cluster, and what it moves for each image.

    python -m tests.benchmarks.scaling --images 64 --side 224

Rates count from the first file to the last, so that neither the start of processes nor the first group is in them. The
cluster is one of this machine, started for it, or that of RAY_ADDRESS.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from examples.reproduce.markdown import table
from semtransforms import NoiseGenerator, protect_with_ray
from semtransforms.core.hardware import describe_machine
from semtransforms.data.sources import Source, open_source
from semtransforms.protect import publish
from semtransforms.protect.publish import protect_source

GROUP = 4  # images; groups of 128 would be few


def write_photographs(root: Path, images: int, side: int) -> Source:
    """Smooth JPEG files of ten classes."""
    rng = np.random.default_rng(0)
    for k in range(images):
        small = Image.fromarray(rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8))
        file = root / f"{k % 10}" / f"{k:06d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        small.resize((side, side), Image.Resampling.BICUBIC).save(file, quality=90)
    return open_source(str(root))


def time_files(protect: Callable[..., Any], **options: Any) -> tuple[float, float, float]:
    """Images a second, seconds to the first file, and how much of the rest the driver was busy with writing."""
    begun, at, busy, write, remember = time.perf_counter(), [], [0.0], publish._write, publish.Journal.remember

    def timed(*arguments: Any) -> int | None:
        start = time.perf_counter()
        row = write(*arguments)
        at.append(time.perf_counter())
        busy[0] += at[-1] - start
        return row

    def also_timed(*arguments: Any) -> None:
        start = time.perf_counter()
        remember(*arguments)
        busy[0] += time.perf_counter() - start

    publish._write, publish.Journal.remember = timed, also_timed
    try:
        protect(**options)
    finally:
        publish._write, publish.Journal.remember = write, remember
    passed = at[-1] - at[GROUP - 1]
    return (len(at) - GROUP) / passed, at[0] - begun, busy[0] / len(at)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--generator", default="sem-plus-cifar10-small")
    arguments = parser.parse_args()
    publish.BATCH_IMAGES = GROUP
    generator = NoiseGenerator.from_pretrained(arguments.generator, device="cpu")
    rates: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        source = write_photographs(Path(scratch, "photographs"), arguments.images, arguments.side)
        for repeat in range(arguments.repeats):
            for name, protect in (("processes", protect_source), ("Ray", protect_with_ray)):
                for workers in (1, 2):
                    out = Path(scratch, f"{name} {workers} {repeat}")
                    found = time_files(protect, source=source, out=out, generator=generator, workers=workers,
                                       private=Path(scratch, "private"))  # fmt: skip
                    rates.setdefault((name, workers), []).append(found)
        read = statistics.fmean(file.stat().st_size for file in Path(scratch, "photographs").rglob("*.jpg"))
        written = statistics.fmean(file.stat().st_size for file in out.rglob("*.png"))
    lines = [
        [name, str(workers), *(_spread([each[k] for each in found], unit) for k, unit in ((0, 1), (1, 1), (2, 1000)))]
        for (name, workers), found in rates.items()
    ]
    print(describe_machine(), f"{arguments.images} JPEG files of {arguments.side} px, {arguments.generator}")
    print(table(["by", "workers", "images/s", "to the first file, s", "writing a file, ms"], lines))
    print(f"read {read:,.0f} bytes an image, handed to the driver and written {written:,.0f}")


def _spread(figures: list[float], unit: float) -> str:
    low, middle, high = (unit * each for each in (min(figures), statistics.median(figures), max(figures)))
    return f"{middle:.2f} ({low:.2f}–{high:.2f}, n={len(figures)})"


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()

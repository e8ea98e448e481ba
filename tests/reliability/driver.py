"""Memory of the process that lists images, keeps the journal and writes: ``python -m tests.reliability.driver``.

Files are made by nobody here: a stand-in for workers hands the same bytes back for each. So what grows with the number
of files is what the process holds of each, whatever the images are.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from semtransforms.protect.formats import Difference
from semtransforms.protect.making import Failed, Made, Maker, Task, stamp


def hand_back(maker: Maker, groups: Iterable[Sequence[Task | Failed]], workers: int) -> Iterator[list[Made | Failed]]:
    """What the engine of a cluster gives the driver, for no work."""
    for group in groups:
        yield [
            Made(task.row, stamp(task.label, task.file), b"protected", Difference(8, 100, 12), False, None, False)
            for task in group
            if isinstance(task, Task)
        ]


def write_files(root: Path, count: int) -> None:
    """An image folder of ten classes: one picture under many names, as long as those of photographs are."""
    from PIL import Image

    picture = root / "picture"
    root.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    for number in range(count):
        folder = root / "photos" / f"class-{number % 10}"
        if number < 10:
            folder.mkdir(parents=True)
        os.link(picture, folder / f"IMG_20260101_{number:08d}.png")


def drive(root: Path) -> None:
    """Protect the files, in a process of its own; prints seconds, and the growth of its memory in bytes."""
    import torch

    from semtransforms.core.config import GeneratorConfig
    from semtransforms.core.models import build_model
    from semtransforms.data.sources import open_source
    from semtransforms.generators.generator import NoiseGenerator
    from semtransforms.protect.publish import protect_source

    torch.manual_seed(0)
    config = GeneratorConfig(surrogate="convnet", width=4, num_classes=10, image_size=(8, 8))
    generator = NoiseGenerator(build_model("convnet", num_classes=10, image_size=8, width=4), config)
    torch.set_num_threads(1)
    before, started = _peak(), time.perf_counter()
    source = open_source(str(root / "photos"))
    listed = _peak()
    outcome = protect_source(source, root / "out", generator, seed=1, private=root / "private", engine=hand_back)
    done = outcome.written + outcome.found
    print(done, time.perf_counter() - started, listed - before, _peak() - before)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--folder", type=Path, help="Where to write; a disk in memory spares the waits for a disk.")
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.drive is not None:
        drive(arguments.drive)
        return
    print("| files | call | s | MiB listed | MiB at the peak |\n| --- | --- | --- | --- | --- |")
    for count in arguments.files:
        root = Path(tempfile.mkdtemp(dir=arguments.folder)) / "files"
        try:
            write_files(root, count)
            for call in ("first", "again"):
                command = [sys.executable, "-m", "tests.reliability.driver", "--drive", str(root)]
                told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
                assert int(told[0]) == count
                mib = " | ".join(f"{int(each) / 2**20:.1f}" for each in told[2:])
                print(f"| {count:,} | {call} | {float(told[1]):.1f} | {mib} |", flush=True)
        finally:
            shutil.rmtree(root.parent)


if __name__ == "__main__":
    main()

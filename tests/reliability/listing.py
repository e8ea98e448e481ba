"""Time and memory of listing an image folder of very many small files: ``python -m tests.reliability.listing``.

Each count is listed in a process of its own, by the package and, for comparison, by torchvision's ``ImageFolder``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))  # the examples are no package

from examples.reproduce.markdown import table

CLASSES = 100

# said in the child: seconds and bytes of resident memory that the listing took beyond what was imported
CHILD = """
import json, psutil, sys, time
from semtransforms.data.sources import open_source
from torchvision.datasets import ImageFolder
list_images = {"semtransforms": open_source, "ImageFolder": ImageFolder}[sys.argv[1]]
before, started = psutil.Process().memory_info().rss, time.perf_counter()
found = list_images(sys.argv[2])
seconds = time.perf_counter() - started
print(json.dumps([len(found), seconds, psutil.Process().memory_info().rss - before]))
"""


def write_files(root: Path, count: int) -> None:
    """So many one-byte files in ``CLASSES`` folders: a listing reads none of them."""
    for number in range(CLASSES):
        folder = root / f"class-{number:03d}"
        folder.mkdir()
        for index in range(number, count, CLASSES):
            with open(folder / f"{index:07d}.png", "wb") as file:
                file.write(b"x")


def measure(root: Path, who: str) -> tuple[int, float, int]:
    """Files found, seconds and bytes."""
    done = subprocess.run([sys.executable, "-c", CHILD, who, str(root)], capture_output=True, text=True, check=True)
    found, seconds, memory = json.loads(done.stdout)
    return found, seconds, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, nargs="+", default=[100_000, 1_000_000])
    arguments = parser.parse_args()
    lines = []
    for count in arguments.files:
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            write_files(Path(folder), count)
            written = time.perf_counter() - started
            for who in ("semtransforms", "ImageFolder"):
                found, seconds, memory = measure(Path(folder), who)
                assert found == count, f"{who} found {found} of {count}"
                lines.append([f"{count:,}", who, f"{seconds:.1f}", f"{1e6 * seconds / count:.0f}",
                              f"{memory / 2**20:,.0f}", f"{memory / count:,.0f}"])  # fmt: skip
            print(f"{count:,} files written in {written:.0f} s", file=sys.stderr)
    print(table(["files", "listed by", "s", "µs a file", "memory, MiB", "bytes a file"], lines))


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()

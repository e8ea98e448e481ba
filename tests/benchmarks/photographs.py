"""Time and memory of ``semtransforms protect`` for photographs of 12 megapixels, measured from outside; Linux only.

    python -m tests.benchmarks.photographs PHOTOS
    python -m tests.benchmarks.photographs PHOTOS --photographs 1000 --formats jpeg --workers 2

PHOTOS has a sub-folder for each class. Its photographs are cut to 4:3 and enlarged to 4000x3000 px: up to ``DISTINCT``
different ones, the rest are other names of the same files. The noise is class-wise, made at 64 px and enlarged.

When files were written says how long each photograph took; the first of each process is left out, since it warms up.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import torch
from PIL import Image, ImageOps

from semtransforms import SEM_CLASSWISE, fit_generator
from semtransforms.core.hardware import describe_machine

from .__main__ import spread

SIZE = (4000, 3000)
QUALITY = 92  # of the enlarged photographs, about what cameras take
DISTINCT = 20
LOOK_EVERY = 0.02  # seconds


@dataclass
class Seen:
    """What a command and its processes used.

    Args:
        seconds: of the whole command.
        cpu: pairs of the time of day and the CPU seconds used until then.
        resident, anonymous: process to its largest resident memory and the part of it that no file holds, in MiB.
    """

    seconds: float = 0.0
    cpu: list[tuple[float, float]] = field(default_factory=list)
    resident: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    anonymous: dict[int, float] = field(default_factory=lambda: defaultdict(float))

    def cpu_between(self, start: float, end: float) -> float:
        """CPU seconds used between two times of day."""
        before, after = (min(self.cpu, key=lambda look: abs(look[0] - moment))[1] for moment in (start, end))
        return after - before


def watch(command: list[str]) -> Seen:
    """Run a command and look at it and its processes until it ends."""
    seen, used = Seen(), defaultdict(float)
    started = time.perf_counter()
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        for each in [process, *process.children(recursive=True)]:
            try:
                status = Path(f"/proc/{each.pid}/status").read_text(encoding="ascii")
                times = each.cpu_times()
            except (OSError, psutil.Error):  # it has just ended
                continue
            used[each.pid] = times.user + times.system
            sizes = {line.split()[0]: int(line.split()[1]) / 1024 for line in status.splitlines() if "kB" in line}
            for key, largest in (("VmHWM:", seen.resident), ("RssAnon:", seen.anonymous)):
                largest[each.pid] = max(largest[each.pid], sizes.get(key, 0.0))
        seen.cpu.append((time.time(), sum(used.values())))
        time.sleep(LOOK_EVERY)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    seen.seconds = time.perf_counter() - started
    return seen


def make_photographs(source: Path, target: Path, count: int) -> None:
    """Photographs of a folder, enlarged, under the classes that they have there."""
    found = sorted(path for path in source.glob("*/*") if path.suffix in (".jpg", ".jpeg", ".png"))
    distinct = min(count, DISTINCT)
    chosen = found[:: max(1, len(found) // distinct)][:distinct]
    made = []
    for index, path in zip(range(count), itertools.cycle(chosen)):
        place = target / path.parent.name / f"{index:05}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        if index < len(chosen):
            with Image.open(path) as image:
                ImageOps.fit(image.convert("RGB"), SIZE, Image.Resampling.BICUBIC).save(place, quality=QUALITY)
            made.append(place)
        else:
            os.link(made[index % len(chosen)], place)


def make_generator(folder: Path, classes: list[str]) -> None:
    """A class-wise generator of 64 px; how well it protects is not asked here, so two updates will do."""
    drawn = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4 * len(classes), 3, 64, 64), dtype=torch.uint8, generator=drawn)
    labels = torch.arange(len(images)) % len(classes)
    config = replace(SEM_CLASSWISE, train_steps=2, decay_every=2, batch_size=16)
    fit_generator((images, labels), config, progress=False).save_pretrained(folder)


def row(format: str, workers: int, seen: Seen, written: list[float]) -> str:
    """A line of the table."""
    at_once = max(workers, 1)
    each = [(end - start) / at_once for start, end in zip(written, written[at_once:], strict=False)]
    cpu = seen.cpu_between(written[0], written[-1]) / (len(written) - 1)
    first, *others = zip(seen.resident.values(), seen.anonymous.values(), strict=True)
    memory = [first, max(others)] if workers else [first]
    cells = [
        f"JPEG to {format.upper()}", str(workers), spread(each), f"{cpu:.2f}", f"{seen.seconds:.0f}",
        "; ".join(f"{resident:.0f} ({anonymous:.0f})" for resident, anonymous in memory),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="PHOTOS")
    parser.add_argument("--photographs", type=int, default=8, help="at least 2 more than workers")
    parser.add_argument("--formats", nargs="+", default=["jpeg", "png"])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--folder", type=Path, help="where originals and copies lie meanwhile; default: the system's")
    arguments = parser.parse_args()
    if arguments.photographs < max(arguments.workers) + 2:
        parser.error(f"--photographs must be at least {max(arguments.workers) + 2}, got {arguments.photographs}")
    columns = ("", "workers", "seconds a photograph", "CPU seconds", "whole command, s", "MiB at the peak (anonymous)")
    print(f"{describe_machine(torch.device('cpu'))}\n\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|", flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        make_photographs(arguments.source, folder / "photos", arguments.photographs)
        make_generator(folder / "generator", sorted(os.listdir(folder / "photos")))
        for format, workers in itertools.product(arguments.formats, arguments.workers):
            with tempfile.TemporaryDirectory(dir=folder) as out:
                seen = watch([
                    sys.executable, "-m", "semtransforms", "protect", str(folder / "photos"), f"{out}/published",
                    "--generator", str(folder / "generator"), "--cache-dir", f"{out}/private", "--device", "cpu",
                    "--format", format, "--workers", str(workers),
                ])  # fmt: skip
                files = Path(out, "published").glob("*/*.*")
                print(row(format, workers, seen, sorted(path.stat().st_mtime for path in files)), flush=True)


if __name__ == "__main__":
    main()

"""A tiny folder of photographs, and plans that take a second."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from semtransforms.photographs import check, journey, look, plan

CLASSES = ("cat", "dog")
COLOUR = 60  # levels more in one channel tell a class


def write_photographs(root: Path, each: int = 8, sizes: tuple[tuple[int, int], ...] = ((40, 30), (30, 50))) -> Path:
    """JPEG files, ``each`` a class; the classes differ in colour, the files in size (width, height) and noise."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        for number in range(each):
            width, height = sizes[number % len(sizes)]
            pixels = rng.integers(0, 120, (height, width, 3), dtype=np.uint8)
            pixels[..., label] += COLOUR
            path = root / name / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, quality=90)
    return root


def quicken(set_attribute) -> None:
    """Replace the fits there are to choose from by one of a second, and measure nothing.

    Args:
        set_attribute: ``setattr``, or that of pytest's ``monkeypatch``.
    """
    set_attribute(plan, "EFFORTS", (plan.Effort(side=16, width=4, enough=3),))
    set_attribute(plan, "MOST_UPDATES", 6)
    set_attribute(plan, "measure_passes", lambda *_: 1000.0)
    set_attribute(journey, "measure_passes", lambda *_: 1000.0)
    set_attribute(journey, "measure_files", lambda *_: (1e-6, 2e-6))
    set_attribute(plan, "CHECKPOINT_SECONDS", 0)  # at every update
    set_attribute(look, "FEWEST_MEASURED", 2)
    set_attribute(check, "TRAINER", replace(check.TRAINER, width=4))
    set_attribute(check, "FEWEST_UPDATES", 10)


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}

"""Noise made at the generator's size and enlarged, beside noise made at each image's own: for trainers who resize.

    python -m examples.reproduce.noise_size sem-plus-cifar10-small --data DATA

The first 10 classes of ``tiny-imagenet-100``, 64 px, are protected both ways by label ``k`` of the generator, and
trained on at 64 px and at 32 px, to which the trainer shrinks what was published. Every training is kept in ``--work``
as it ends. The figures go to ``examples/reproduce/results/noise_size-NAME.json``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torchvision.transforms.v2.functional import resize

from examples.reproduce.other_data import first_classes
from examples.reproduce.protect_photographs import VICTIMS, read_data
from semtransforms import NoiseGenerator, evaluate
from semtransforms.core.files import to_json, write_atomically

ROOT = Path(__file__).parents[2]
CLASSES, SIDE = 10, 64
TRAINED_AT = (32, 64)
NOISE_SIZES: tuple[Any, ...] = (None, "full")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generator", help="folder, org/name or short name")
    parser.add_argument("--data", type=Path, required=True, help="holds tiny-imagenet-100/")
    parser.add_argument("--work", type=Path, default=Path("runs/noise-size"))
    parser.add_argument("--results", type=Path, default=ROOT / "examples" / "reproduce" / "results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args(words)

    name = Path(arguments.generator).name
    generator = NoiseGenerator.from_pretrained(arguments.generator)
    parts = read_data("tiny-imagenet-100", arguments.data, 10**9, download=False)
    data, tests = (first_classes(part, CLASSES, SIDE) for part in parts)
    rows = []
    for noise_size in NOISE_SIZES:
        started = time.perf_counter()
        published = generator.protect(data.images, data.labels, seed=0, noise_size=noise_size, progress=True)
        seconds = time.perf_counter() - started
        for side in TRAINED_AT:
            report = evaluate(
                (shrunk(data.images, side), data.labels),
                protected=(shrunk(published, side), data.labels),
                copy_name=f"noise at {noise_size or min(generator.config.image_size or ())}",
                test=(shrunk(tests.images, side), tests.labels),
                victims={"standard": VICTIMS["standard"]},
                seeds=arguments.seeds,
                out=arguments.work / name / str(side),
            )
            for record in report.records:
                row = {"trained_at": side, "copy": record.copy, "seed": record.seed, "accuracy": record.test_accuracy}
                rows.append({**row, "noise_size": noise_size, "seconds_of_noise": round(seconds)})
                print(row)
            file = arguments.results / f"noise_size-{name}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, to_json({"generator": name, "fingerprint": generator.fingerprint, "rows": rows}))


def shrunk(images: Tensor, side: int) -> Tensor:
    """What a trainer makes of published images, uint8 (N, 3, H, W), who trains at ``side`` pixels."""
    return images if images.shape[-1] == side else resize(images, [side, side], antialias=True)


if __name__ == "__main__":
    main()

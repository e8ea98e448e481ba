"""What is seen of noise, and what it keeps from a trainer: with the mask of ``visibility``, and with a smaller rho_u.

    python -m examples.reproduce.seen sem-plus-cifar10-small --data DATA --train
    python -m examples.reproduce.seen sem-plus-cifar10-small --data DATA --picture examples/seen.png
    python -m examples.reproduce.seen GENERATOR --data DATA --picture examples/seen-classwise.png

The photographs of ``clothing10`` (10 kinds of clothing, CC0) are protected by label ``k`` of the generator, in the ways
of ``WAYS``. Of some of them, at their own size, it is measured how much is seen: with FLIP (NVIDIA), with ColorVideoVDP
and as PSNR and SSIM. FLIP knows how well an eye sees which frequency and colour, but not that texture hides noise;
ColorVideoVDP knows that too. Both are told ``PIXELS_PER_DEGREE``: one pixel of the photograph is one of a 4K screen,
0.7 m wide, at 0.7 m. With ``--train`` a standard trainer then shrinks what was published to 32 px; every training is
kept in ``--work`` as it ends. The figures go to ``examples/reproduce/results/seen-NAME.json``.

``pip install flip-evaluator cvvdp`` gives the two metrics; with ``--without-vdp`` the first one will do.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import datasets
import numpy as np
import torch
from sklearn.datasets import load_sample_image
from torch import Tensor

from examples.reproduce.protect_photographs import TRAINER
from semtransforms import NoiseGenerator, evaluate
from semtransforms.core.files import to_json, write_atomically
from semtransforms.core.grid import add_noise
from semtransforms.data.images import to_pil, to_rgb
from semtransforms.data.loading import resized
from semtransforms.evaluation.metrics import describe_noise
from semtransforms.protect.batch import ProtectedBatch, protect_batch

ROOT = Path(__file__).parents[2]
PIXELS_PER_DEGREE = 67
SIDE = 32  # pixels, at which is trained: the size at which the noise is made, where it is strongest
VICTIM = replace(TRAINER, train_steps=250)
BATCH = 64  # photographs in memory
MEASURED = 16  # photographs, spread over the data
# (what is turned down, how far): the mask, or all noise alike, which a mask must beat
WAYS = (
    *(("visibility", to) for to in (1.0, 0.5, 0.25, 0.0)),
    *(("rho_u", to) for to in (0.75, 0.5, 0.375)),
)
# where crops of photographs begin: a wall, a smooth area as large as a face, a print of leaves (rows of clothing10)
PICTURED = {671: (400, 20), 1606: (180, 140), 539: (150, 330)}
# sky, and trees (china.jpg, which comes with scikit-learn)
CHINA = ((30, 380), (296, 400))
CROP, GAP = 128, 4  # pixels

Metric = Callable[[Tensor, Tensor], float]
Way = tuple[str, float]


def metrics(with_vdp: bool = True) -> dict[str, Metric]:
    """What says how much is seen of a change: (clean, protected), uint8 (3, H, W) each."""
    from flip_evaluator import evaluate as flip

    def seen_by_flip(clean: Tensor, protected: Tensor) -> float:
        pair = (each.permute(1, 2, 0).numpy().astype(np.float32) / 255 for each in (clean, protected))
        return float(flip(*pair, "LDR", parameters={"ppd": PIXELS_PER_DEGREE})[1])

    found: dict[str, Metric] = {
        "flip": seen_by_flip,
        "psnr": lambda clean, protected: _noise(clean, protected, "psnr"),
        "ssim": lambda clean, protected: _noise(clean, protected, "ssim"),
    }
    if with_vdp:
        import pycvvdp

        viewing = pycvvdp.vvdp_display_geometry([3840, 2160], ppd=PIXELS_PER_DEGREE)
        vdp = pycvvdp.cvvdp(display_name="standard_4k", display_geometry=viewing, device=torch.device("cpu"))
        found["jod"] = lambda clean, protected: float(
            vdp.predict(*(each.permute(1, 2, 0).numpy() for each in (protected, clean)), dim_order="HWC")[0]
        )
    return found


def _noise(clean: Tensor, protected: Tensor, name: str) -> float:
    return float(getattr(describe_noise(clean[None], protected[None], torch.zeros(1, dtype=torch.int64)), name))


def published(batch: ProtectedBatch, way: Way) -> list[Tensor]:
    """Photographs as one of ``WAYS`` publishes them, N times uint8 (3, H, W)."""
    what, share = way
    if what == "visibility":
        return replace(batch, scale=replace(batch.scale, visibility=share)).protected
    pairs = zip(batch.clean, batch.noise, strict=True)
    return [add_noise(image, (noise.float() * share).round().to(torch.int8)) for image, noise in pairs]


def protect(rows: datasets.Dataset, generator: NoiseGenerator) -> ProtectedBatch:
    """Photographs of ``clothing10`` with their noise."""
    part = rows[:]
    return protect_batch([to_rgb(image).pixels for image in part["image"]], part["label"], generator, seed=0)


def look(
    rows: datasets.Dataset, generator: NoiseGenerator, seeing: Mapping[str, Metric]
) -> dict[Way, dict[str, float]]:
    """How much is seen of what each way publishes: the mean over ``MEASURED`` photographs."""
    batch = protect(rows.select(np.linspace(0, len(rows) - 1, MEASURED, dtype=int)), generator)
    found: dict[Way, dict[str, float]] = {}
    for way in WAYS:
        pairs = list(zip(batch.clean, published(batch, way), strict=True))
        found[way] = {name: fmean(metric(*pair) for pair in pairs) for name, metric in seeing.items()}
        print(way, found[way], flush=True)
    return found


def learn(
    train: datasets.Dataset, test: datasets.Dataset, generator: NoiseGenerator, work: Path, seeds: Sequence[int]
) -> Iterator[tuple[Way, list[float], list[float]]]:
    """What a trainer learns from each way, and from clean photographs: accuracies, one for each seed."""
    copies: defaultdict[Way | None, list[Tensor]] = defaultdict(list)
    for start in range(0, len(train), BATCH):
        batch = protect(train.select(range(start, min(start + BATCH, len(train)))), generator)
        copies[None] += [resized(image, (SIDE, SIDE)) for image in batch.clean]
        for way in WAYS:
            copies[way] += [resized(image, (SIDE, SIDE)) for image in published(batch, way)]
        print(f"{len(copies[None])} of {len(train)} photographs", flush=True)
    tests = torch.stack([resized(to_rgb(image).pixels, (SIDE, SIDE)) for image in test["image"]])
    labels, truth = (torch.tensor(part["label"]) for part in (train, test))
    for way in WAYS:
        name = " ".join(map(str, way))
        records = evaluate(
            (torch.stack(copies[None]), labels),
            protected=(torch.stack(copies[way]), labels),
            copy_name=name,
            test=(tests, truth),
            victims={"standard": VICTIM},
            seeds=seeds,
            out=work,
        ).records
        clean, protected = ([each.test_accuracy for each in records if each.copy == copy] for copy in ("clean", name))
        yield way, clean, protected


def picture(rows: datasets.Dataset, generator: NoiseGenerator, file: Path) -> None:
    """Crops at 100 %: clean, all of rho_u, and what the mask leaves of it."""
    china = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)
    corners = [*CHINA, *PICTURED.values()]
    part = rows.select(list(PICTURED))[:]
    # china.jpg has none of the generator's classes: any label will do
    photographs = [*(china for _ in CHINA), *(to_rgb(image).pixels for image in part["image"])]
    batch = protect_batch(photographs, [*(0 for _ in CHINA), *part["label"]], generator, seed=0)
    columns = [batch.clean, published(batch, ("visibility", 1.0)), published(batch, ("visibility", 0.0))]
    step = CROP + GAP
    sheet = torch.full((3, step * len(corners) - GAP, step * len(columns) - GAP), 255, dtype=torch.uint8)
    for column, shown in enumerate(columns):
        for row, (image, (top, left)) in enumerate(zip(shown, corners, strict=True)):
            crop = image[:, top : top + CROP, left : left + CROP]
            sheet[:, row * step : row * step + CROP, column * step : column * step + CROP] = crop
    to_pil(sheet).save(file, optimize=True)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generator", help="folder, org/name or short name, of ten classes")
    parser.add_argument("--data", type=Path, required=True, help="holds clothing10/")
    parser.add_argument("--work", type=Path, default=Path("runs/seen"))
    parser.add_argument("--results", type=Path, default=ROOT / "examples" / "reproduce" / "results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--picture", type=Path, help="PNG to draw; nothing is measured then")
    parser.add_argument("--train", action="store_true", help="also train on every copy; hours on a laptop")
    parser.add_argument("--without-vdp", action="store_true", help="do without ColorVideoVDP")
    arguments = parser.parse_args(words)

    generator, name = NoiseGenerator.from_pretrained(arguments.generator), Path(arguments.generator).name
    folder = arguments.data / "clothing10"
    train, test = (
        datasets.load_dataset("parquet", data_files=str(folder / f"{part}.parquet"), split="train")
        for part in ("train", "test")
    )
    if arguments.picture:
        picture(train, generator, arguments.picture)
        return
    seen = look(train, generator, metrics(not arguments.without_vdp))
    record: dict[str, Any] = {
        "generator": name,
        "fingerprint": generator.fingerprint,
        "photographs_measured": MEASURED,
        "pixels_per_degree": PIXELS_PER_DEGREE,
        "trained_at": SIDE,
        "train_steps": VICTIM.train_steps,
        "clean_accuracy": [],
        "rows": [{"turned_down": what, "to": to, **seen[what, to], "accuracy": []} for what, to in WAYS],
    }
    file = arguments.results / f"seen-{name}.json"
    write_atomically(file, to_json(record))
    if not arguments.train:
        return
    for way, clean, protected in learn(train, test, generator, arguments.work / name, arguments.seeds):
        record["clean_accuracy"], record["rows"][WAYS.index(way)]["accuracy"] = clean, protected
        write_atomically(file, to_json(record))
        print(way, clean, protected, flush=True)


if __name__ == "__main__":
    main()

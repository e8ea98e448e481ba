"""What is seen of noise, and what it keeps from a trainer: with the mask of ``visibility``, and with a smaller rho_u.

    python -m examples.reproduce.seen sem-plus-cifar10-small --data DATA --picture examples/seen.png

The photographs of ``clothing10`` (10 kinds of clothing, CC0) are protected by label ``k`` of the generator, in the ways
of ``WAYS``. Of some of them, at their own size, it is measured how much is seen: with FLIP (NVIDIA), with ColorVideoVDP
and as PSNR and SSIM. FLIP knows how well an eye sees which frequency and colour, but not that texture hides noise;
ColorVideoVDP knows that too. Both are told ``PIXELS_PER_DEGREE``: one pixel of the photograph is one of a 4K screen,
0.7 m wide, at 0.7 m. Then a standard trainer shrinks what was published to 32 px. Every training is kept in ``--work``
as it ends. The figures go to ``examples/reproduce/results/seen-NAME.json``.

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
VICTIM = replace(TRAINER, train_steps=300)
BATCH = 64  # photographs in memory
MEASURED = 24  # photographs, spread over the data
# (what is turned down, how far): the mask, or all noise alike, which a mask must beat
WAYS = (("visibility", 1.0), ("visibility", 0.25), ("visibility", 0.0), ("rho_u", 0.5), ("rho_u", 0.375))
# row of a photograph, and where the crop begins: a wall, a smooth area as large as a face, a print of leaves
PICTURED = {671: (400, 20), 1606: (180, 140), 539: (150, 330)}
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


def batches(rows: datasets.Dataset, generator: NoiseGenerator) -> Iterator[tuple[int, ProtectedBatch]]:
    """The noise of all photographs, and which is the first of each batch."""
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        images = [to_rgb(image).pixels for image in part["image"]]
        yield start, protect_batch(images, part["label"], generator, seed=0)
        print(f"{min(start + BATCH, len(rows))} of {len(rows)} photographs", flush=True)


def measure(
    rows: datasets.Dataset, generator: NoiseGenerator, seeing: Mapping[str, Metric]
) -> tuple[dict[Way | None, Tensor], dict[Way, dict[str, float]]]:
    """What each way publishes, shrunk as the trainer shrinks it (``None``: clean), and how much is seen of it."""
    copies: defaultdict[Way | None, list[Tensor]] = defaultdict(list)
    seen: dict[Way, defaultdict[str, list[float]]] = {way: defaultdict(list) for way in WAYS}
    chosen = set(np.linspace(0, len(rows) - 1, MEASURED, dtype=int).tolist())
    for start, batch in batches(rows, generator):
        copies[None] += [resized(image, (SIDE, SIDE)) for image in batch.clean]
        for way in WAYS:
            for row, (clean, image) in enumerate(zip(batch.clean, published(batch, way), strict=True), start):
                copies[way].append(resized(image, (SIDE, SIDE)))
                for name, metric in seeing.items() if row in chosen else ():
                    seen[way][name].append(metric(clean, image))
    return (
        {way: torch.stack(images) for way, images in copies.items()},
        {way: {name: fmean(figures) for name, figures in found.items()} for way, found in seen.items()},
    )


def picture(rows: datasets.Dataset, generator: NoiseGenerator, file: Path) -> None:
    """Crops at 100 %: clean, all of rho_u, and what the mask leaves of it."""
    part = rows.select(list(PICTURED))
    images = [to_rgb(image).pixels for image in part["image"]]
    batch = protect_batch(images, part["label"], generator, seed=0)
    columns = [batch.clean, published(batch, ("visibility", 1.0)), published(batch, ("visibility", 0.0))]
    step = CROP + GAP
    sheet = torch.full((3, step * len(PICTURED) - GAP, step * len(columns) - GAP), 255, dtype=torch.uint8)
    for column, shown in enumerate(columns):
        for row, (image, (top, left)) in enumerate(zip(shown, PICTURED.values(), strict=True)):
            part = image[:, top : top + CROP, left : left + CROP]
            sheet[:, row * step : row * step + CROP, column * step : column * step + CROP] = part
    to_pil(sheet).save(file, optimize=True)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generator", help="folder, org/name or short name, of ten classes")
    parser.add_argument("--data", type=Path, required=True, help="holds clothing10/")
    parser.add_argument("--work", type=Path, default=Path("runs/seen"))
    parser.add_argument("--results", type=Path, default=ROOT / "examples" / "reproduce" / "results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--picture", type=Path, help="PNG to draw; nothing is measured then")
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
    copies, seen = measure(train, generator, metrics(not arguments.without_vdp))
    tests = torch.stack([resized(to_rgb(image).pixels, (SIDE, SIDE)) for image in test["image"]])
    labels, truth = (torch.tensor(part["label"]) for part in (train, test))
    rows: list[dict[str, Any]] = []
    for what, to in WAYS:
        report = evaluate(
            (copies[None], labels),
            protected=(copies[what, to], labels),
            copy_name=f"{what} {to}",
            test=(tests, truth),
            victims={"standard": VICTIM},
            seeds=arguments.seeds,
            out=arguments.work / name,
        )
        learned = {copy: [record.test_accuracy for record in report.records if record.copy == copy]
                   for copy in ("clean", f"{what} {to}")}  # fmt: skip
        rows.append({"turned_down": what, "to": to, **seen[what, to], "accuracy": learned[f"{what} {to}"]})
        record = {
            "generator": name,
            "fingerprint": generator.fingerprint,
            "photographs_measured": MEASURED,
            "pixels_per_degree": PIXELS_PER_DEGREE,
            "train_steps": VICTIM.train_steps,
            "clean_accuracy": learned["clean"],
            "rows": rows,
        }
        write_atomically(arguments.results / f"seen-{name}.json", to_json(record))
        print(rows[-1], flush=True)


if __name__ == "__main__":
    main()

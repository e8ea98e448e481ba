"""A generator on images it was not fitted for: other classes, more classes than it has, another size, no labels.

    python -m examples.reproduce.other_data sem-cifar10-small --data DATA

The first 10 and the first 20 classes of ``tiny-imagenet-100``, at 32 and at 64 px, protected by label ``k mod C`` of
the generator's C, and by the label that its own surrogate gives each clean image, as one would who has no labels.
Every training is kept in ``--work`` as it ends. The figures go to ``examples/reproduce/results/other_data-NAME.json``.
"""

from __future__ import annotations

import argparse
import json
import operator
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from examples.reproduce.protect_photographs import VICTIMS, read_data
from semtransforms import NoiseGenerator, evaluate
from semtransforms.core.files import to_json, write_atomically
from semtransforms.core.grid import add_noise, to_float
from semtransforms.data.loading import Labelled
from semtransforms.evaluation.records import CLEAN, Record

ROOT = Path(__file__).parents[2]
CLASSES, SIDES = (10, 20), (32, 64)
TRAINERS = ("standard", "adversarial-2")
MODULO, PREDICTED = "k mod C", "the surrogate's own"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generator", help="folder, org/name or short name")
    parser.add_argument("--data", type=Path, required=True, help="holds tiny-imagenet-100/")
    parser.add_argument("--work", type=Path, default=Path("runs/other-data"))
    parser.add_argument("--results", type=Path, default=ROOT / "examples" / "reproduce" / "results")
    parser.add_argument("--trainers", nargs="+", choices=VICTIMS, default=TRAINERS)
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES)
    arguments = parser.parse_args(words)

    name = Path(arguments.generator).name
    file = arguments.results / f"other_data-{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    generator = NoiseGenerator.from_pretrained(arguments.generator)
    parts = read_data("tiny-imagenet-100", arguments.data, 10**9, download=False)
    for side in arguments.sides:
        for classes in CLASSES:
            data, tests = (first_classes(part, classes, side) for part in parts)
            out = arguments.work / name / f"{classes}-{side}"
            for record in judge(generator, data, tests, arguments.trainers, out):
                print(f"{classes} classes, {side} px, {record.victim}, {record.copy}: {100 * record.test_accuracy:.1f}")
                keep(file, name, generator.fingerprint, record)


def keep(file: Path, name: str, fingerprint: str, record: Record) -> None:
    """Put a record in the file, in the place of an earlier one of the same run."""
    found = {"generator": name, "fingerprint": fingerprint}
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {**found, "records": []}
    if kept["fingerprint"] != fingerprint:
        raise ValueError(f"{file} was measured with another generator of this name. Remove it to measure anew.")
    run = operator.itemgetter("classes", "height", "victim", "copy")
    records = {run(each): each for each in (*kept["records"], record.to_dict())}
    write_atomically(file, to_json({**found, "records": [records[key] for key in sorted(records)]}))


def first_classes(data: Labelled, classes: int, side: int) -> Labelled:
    """The images of the first classes, at a size."""
    wanted = data.labels < classes
    images = data.images[wanted]
    if images.shape[2] != side:
        images = resize(images, [side, side], antialias=True)
    return replace(data, images=images, labels=data.labels[wanted], classes=data.classes and data.classes[:classes])


def protections(generator: NoiseGenerator, data: Labelled) -> Iterator[tuple[str, Tensor]]:
    """The protected images, by what the generator is told their labels are."""
    named = {MODULO: data.labels % generator.num_classes, PREDICTED: predict(generator, data.images)}
    for name, labels in named.items():
        # as the figures were measured: before the noise of larger images was made small and enlarged
        noise = generator.noise(data.images, labels, noise_size="full", progress=True)
        yield name, add_noise(data.images, noise)


@torch.no_grad()
def predict(generator: NoiseGenerator, images: Tensor) -> Tensor:
    """What the surrogate takes images for, int64 (N,)."""
    surrogate = generator.surrogate.eval()
    return torch.cat([surrogate(to_float(some.to(generator.device))).argmax(1).cpu() for some in images.split(500)])


def judge(generator: NoiseGenerator, data: Labelled, tests: Labelled, trainers: list[str], out: Path) -> list[Record]:
    """What each trainer learns from the clean and from the protected images."""
    copies = [(None, None), *protections(generator, data)]
    for trainer in trainers:
        for name, images in copies:
            report = evaluate(
                (data.images, data.labels),
                test=(tests.images, tests.labels),
                protected=None if images is None else (images, data.labels),
                copy_name=name,
                victims={trainer: VICTIMS[trainer]},
                seeds=(0,),
                out=out,
            )
    wanted = (CLEAN, MODULO, PREDICTED)
    return sorted(
        (r for r in report.records if r.victim in trainers and r.copy in wanted),
        key=lambda r: (list(VICTIMS).index(r.victim), wanted.index(r.copy)),
    )


if __name__ == "__main__":
    main()

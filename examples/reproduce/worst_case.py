"""Judge a generator by the trainer that learns most from it, of fourteen, over three seeds.

    python -m examples.reproduce.worst_case sem-cifar10-small --data DATA

The first 10,000 rows of ``cifar10-jpeg`` are protected and README's victims trained on them: a standard one that does
something against the noise, or nothing, and one that trains adversarially at 2/255. Every training is kept in
``--work`` as it ends. The figures go to ``examples/reproduce/results/worst_case-NAME.json``;
``python -m examples.reproduce.tables`` puts all that were measured side by side.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from examples.reproduce.markdown import spread, table
from examples.reproduce.protect_photographs import VICTIMS, read_data
from semtransforms import NoiseGenerator, evaluate
from semtransforms.core.files import to_json, write_atomically
from semtransforms.evaluation.records import NONE

ROOT = Path(__file__).parents[2]
ROWS = 10_000
ADVERSARIAL = "adversarial-2"
IN_T = ("greyscale", "jpeg-50", "jpeg-10")  # of SEM_PLUS
NOT_IN_T = ("jpeg-75", "mean", "median", "gaussian", "bit-depth-3", "cutout", "mixup", "cutmix", "ueraser")
TRAINERS = (NONE, ADVERSARIAL, *IN_T, *NOT_IN_T)


def judge(generator: NoiseGenerator, name: str, data: Path, work: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Test accuracies in %, one for each seed, by what the trainer does; and how visible the noise is."""
    photos, tests = read_data("cifar10-jpeg", data, ROWS, download=False)
    for victim, countermeasures in (("standard", (NONE, *IN_T, *NOT_IN_T)), (ADVERSARIAL, (NONE,))):
        report = evaluate(
            (photos.images, photos.labels),
            generator,
            test=(tests.images, tests.labels),
            victims={victim: VICTIMS[victim]},
            countermeasures=countermeasures,
            seeds=seeds,
            name=f"first {ROWS:,} rows",
            copy_name=name,
            out=work / "report",
            cache_dir=work / "cache",
        )
    accuracy: dict[str, dict[int, float]] = {trainer: {} for trainer in TRAINERS}
    for record in report.records:
        trainer = record.countermeasure if record.victim == "standard" else record.victim
        if record.copy == name and record.seed in seeds and trainer in accuracy:
            accuracy[trainer][record.seed] = round(100 * record.test_accuracy, 1)
    noise = report.noise[name]
    return {
        "generator": name,
        "fingerprint": generator.fingerprint,
        "seeds": list(seeds),
        "accuracy": {trainer: [found[seed] for seed in seeds] for trainer, found in accuracy.items()},
        "psnr": round(noise["psnr"], 2),
        "ssim": round(noise["ssim"], 4),
    }


def compare(judged: Sequence[Mapping[str, Any]]) -> str:
    """Generators side by side as Markdown: mean and standard deviation over the seeds, then the worst case."""
    lines = [[trainer, *(spread(each["accuracy"][trainer]) for each in judged)] for trainer in TRAINERS]
    for words, trainers in (("of all", TRAINERS), ("of those in no T", NOT_IN_T)):
        means = [[fmean(each["accuracy"][trainer]) for trainer in trainers] for each in judged]
        lines.append([f"**largest {words}**", *(f"**{max(some):.1f}**" for some in means)])
        lines.append([f"mean {words}", *(f"{fmean(some):.1f}" for some in means)])
    lines.append(["PSNR, dB; SSIM", *(f"{each['psnr']:.1f}; {each['ssim']:.3f}" for each in judged)])
    return table(["the trainer", *(each["generator"] for each in judged)], lines)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generator", help="folder, org/name or short name")
    parser.add_argument("--data", type=Path, required=True, help="holds cifar10-jpeg/")
    parser.add_argument("--work", type=Path, default=Path("runs/worst-case"))
    parser.add_argument("--results", type=Path, default=ROOT / "examples" / "reproduce" / "results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the victims")
    arguments = parser.parse_args(words)
    generator, name = NoiseGenerator.from_pretrained(arguments.generator), Path(arguments.generator).name
    found = judge(generator, name, arguments.data, arguments.work, arguments.seeds)
    arguments.results.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.results / f"worst_case-{name}.json", to_json(found))


if __name__ == "__main__":
    main()

"""Play the unauthorised trainer: every victim against every countermeasure on the clean and the protected copy."""

from __future__ import annotations

import hashlib
import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from semtransforms.core.checks import check_integer, whole_seed
from semtransforms.data.loading import Labelled, load_labelled
from semtransforms.data.photographs import Photographs, load_photographs
from semtransforms.evaluation.checks import check_on_samples, check_starts, check_test
from semtransforms.evaluation.copies import (
    Copy,
    as_squares,
    clean_copy,
    given_copy,
    given_photographs,
    protect_copy,
    protected_photographs,
)
from semtransforms.evaluation.countermeasures import Countermeasure, InformedTrainer, PublishedGenerator
from semtransforms.evaluation.plays import DEFAULTS, Play, Setup, plays_of
from semtransforms.evaluation.records import CLEAN
from semtransforms.evaluation.report import EvaluationReport
from semtransforms.evaluation.results import Results
from semtransforms.evaluation.runs import Run, plan_runs
from semtransforms.evaluation.spreading import spread
from semtransforms.evaluation.trial import Trial
from semtransforms.evaluation.victims import CUTS, VictimConfig
from semtransforms.protect.transform import SEMProtect
from semtransforms.protect.wrapper import NoiseSource
from semtransforms.views.windows import centre_squares


def evaluate(
    dataset: Any,
    generator: NoiseSource | PublishedGenerator | None = None,
    *,
    test: Any,
    protected: Any = None,
    victims: Sequence[str] | Mapping[str, VictimConfig] = DEFAULTS[0],
    countermeasures: Sequence[str | Countermeasure | Sequence[Countermeasure]] = DEFAULTS[1],
    trainers: str | Sequence[str] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    protocol: str = "quick",
    network: str = "resnet18",
    width: int | None = None,
    pretrained: str | os.PathLike[str] | None = None,
    pretrained_network: str | None = None,
    train_sizes: Sequence[int] = (),
    crops: Sequence[str] = CUTS[:1],
    protection_seed: int = 0,
    image_size: tuple[int, int] | None = None,
    name: str | None = None,
    copy_name: str | None = None,
    pool: bool = False,
    out: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    workers: int = 0,
    progress: bool = True,
) -> EvaluationReport:
    """Measure what an unauthorised trainer still learns from a protected copy.

    Each victim is trained on the clean copy as it is, and on the protected copy under each countermeasure. With ``out``
    every run is kept there as it ends, so that an evaluation that was killed goes on with the missing runs; further
    calls with the same data and other generators, victims or countermeasures add to the same report.

    Args:
        dataset: the clean data, map-style, as for :class:`~semtransforms.ProtectedDataset`.
        generator: a folder, ``org/name@revision`` on the Hub, a short name or a
            :class:`~semtransforms.NoiseGenerator` to protect with, or a :class:`~semtransforms.NoiseStore` with the
            noise of these images; ``None`` where ``protected`` is given, or to evaluate the clean copy alone (then the
            countermeasures act on it).
        test: clean test data of the same classes, map-style.
        protected: a copy that is protected already, instead of ``generator``: same images, labels and order.
        victims: ``"standard"``, ``"adversarial-2/255"``, ``"adversarial-l2-0.5"``, ``"early-stopping-30"`` (30 % of
            the validation images clean), ``"longer-10"``, ``"sam"``, ``"simclr"``; with ``pretrained`` also
            ``"probe"``, ``"fine-tune"``, ``"last-block"``; or names and their configs.
        countermeasures: names such as ``"none"``, ``"greyscale"``, ``"jpeg-10+cutout"``, ``"informed-same-seed"``,
            ``"informed-other-seed"``, ``"informed-by=FOLDER"`` (who holds another generator); or countermeasures,
            such as a :class:`~semtransforms.Purifier`, single or in sequences.
        trainers: in the place of both, the name of a set: ``"quick"`` (minutes on a laptop), ``"owner"`` (those that a
            data owner must know), ``"full"``; what of it cannot be played is left out, and said. Or names such as
            ``("standard", "jpeg-75", "probe+jpeg-75")``: who trains how, and what they do, joined by ``+``.
        seeds: of the victims.
        protocol: ``"quick"`` or ``"paper"``, for victims given by name.
        network, width: of victims given by name; ``"convnet"`` suits a CPU. ``"timm/..."`` and ``"torchvision/..."``
            are those of these libraries.
        pretrained: weights of such a network, as in :class:`~semtransforms.VictimConfig`.
        pretrained_network: the network that those weights are of, where the other victims are to have ``network``;
            default: ``network``.
        train_sizes: sides in pixels of the squares that victims train on, such as ``(64, 128)``: each victim is run at
            each size with each crop. Photographs may then have any and mixed sizes. They are published at their own
            sizes, decoded one at a time, and kept with a shorter side of at most twice the largest of these.
        crops: how victims cut their squares out of photographs: ``"resize"``, ``"random-resized"``; see
            :class:`~semtransforms.VictimConfig`.
        protection_seed: of the noise.
        image_size: height and width that clean, protected and test images are resized and cropped to, where they have
            several sizes; the noise is added before, to the images as they are. Not with ``train_sizes``.
        name: what the data are called in the report; default: the class of ``dataset``.
        copy_name: what the protected copy is called; default: the generator's name, or ``"protected"``.
        pool: let another fit or protection for each seed share the copy's column; otherwise a copy of the same name
            in ``out`` must be the same copy.
        out: folder of the report.
        cache_dir: where noise is kept; default as for :class:`~semtransforms.ProtectedDataset`.
        device: where to train; default: CUDA if present.
        workers: processes that share the runs, and the CUDA devices where there are several; 0 works in this one. Each
            holds the images, and has its share of the threads.
        progress: show bars.

    Returns:
        The report, of everything in ``out`` where it is given.

    Raises:
        ValueError: copies of different length or labels, test images that are training images too, unknown or twice
            the same names, no seeds, a countermeasure that changes the image size, a folder with a report on other
            data, or on another copy or victim of the same name; workers, and a run that cannot be pickled.
        TypeError: data that are not labelled uint8 images.
    """
    if generator is not None and protected is not None:
        raise ValueError("generator and protected were both given: pass the one that made the copy to be judged")
    check_integer("workers", workers, low=0, advice="0 works in this process.")
    protection_seed = whole_seed("protection_seed", protection_seed)
    seeds, name = _seeds(seeds), name or type(dataset).__name__
    if image_size is not None and (isinstance(image_size, int) or len(image_size) != 2):
        raise ValueError(f"image_size must be (height, width), got {image_size!r}")
    if isinstance(generator, (str, os.PathLike)):
        generator = SEMProtect.from_pretrained(os.fspath(generator), device=device).generator
    setup = Setup(
        protocol, network, width, pretrained, pretrained_network, train_sizes, crops, generator, protection_seed
    )
    plays, left_out = plays_of(trainers, victims, countermeasures, dataset, setup)
    for trainer, why in left_out.items() if progress else ():
        tqdm.write(f"not played: {trainer} ({why})")
    for play in plays:
        check_starts(play.victims_for(1), play.countermeasures)

    some, chosen = _all_victims(plays, 1), {name: each for play in plays for name, each in play.countermeasures.items()}
    side = _side_to_keep(some, chosen, image_size)
    clean, tests = _load("dataset", dataset, image_size, side), _load("test", test, image_size, side)
    check_test(clean, tests)
    facts = _facts(clean, tests, name) | {"left_out": _left_out(dataset, test)}
    configs = _all_victims(plays, len(clean.labels))
    for play in plays:
        check_on_samples(clean, play.victims_for(len(clean.labels)), play.countermeasures, seeds[0])
    results = Results(None if out is None else Path(out).expanduser(), facts)

    options = {"seed": protection_seed, "cache_dir": cache_dir, "device": device, "progress": progress}
    copies = [clean_copy(clean), *_published(dataset, generator, protected, clean, image_size, side, options)]
    if copy_name is not None and len(copies) > 1:
        copies[1] = replace(copies[1], name=copy_name)
    if len(copies) > 1 and copies[1].name == CLEAN:
        raise ValueError(f"the protected copy must not be called {CLEAN!r}. Pass another copy_name.")

    runs = [
        run
        for play in plays
        for run in plan_runs(copies, play.victims_for(len(clean.labels)), play.countermeasures, seeds)
    ]
    results.go_on(runs, pool)
    results.describe(*_as_shown(copies[1:], clean, configs), chosen)
    with results.among_others():
        _play(runs, Trial(clean, tests, facts), results, workers, device, progress)
        return results.finish(runs)


def _play(runs: Sequence[Run], trial: Trial, results: Results, workers: int, device: Any, progress: bool) -> None:
    """Do the runs that are missing, and keep each as it ends."""
    missing = {run.file: run for run in runs if run.file not in results.records}
    jobs = {file: partial(trial.record, run, results.checkpoint(run)) for file, run in missing.items()}

    def still_missing() -> Iterator[str]:
        for number, run in enumerate(runs, 1):
            if run.file in missing and run.file not in results.records:  # another evaluation may have added it
                if progress:
                    _say(run, number, len(runs))
                yield run.file

    here = len(runs) - len(missing)
    # without workers each run has a bar of its own
    bar = tqdm(total=len(runs), initial=here, desc="evaluate", unit="run", disable=not (progress and workers))
    with bar, closing(spread(jobs, still_missing(), min(workers, len(jobs)), device, progress)) as done:
        for file, record in done:
            results.add(missing[file], record)
            bar.update(sum(run.file in results.records for run in runs) - bar.n)


def _say(run: Run, number: int, count: int) -> None:
    start = f", from {run.settings['pretrained']}" if "pretrained" in run.settings else ""
    names = f"{run.victim}{start} on {run.copy.name}, {run.countermeasure}, seed {run.config.seed}"
    tqdm.write(f"[{number}/{count}] {names}")


def _all_victims(plays: Sequence[Play], images: int) -> dict[str, VictimConfig]:
    return {name: config for play in plays for name, config in play.victims_for(images).items()}


def _seeds(seeds: Sequence[int]) -> list[int]:
    if isinstance(seeds, str) or not isinstance(seeds, Iterable):
        raise ValueError(f"seeds must be a sequence of whole numbers, got {seeds!r}. Use seeds=(0, 1, 2).")
    try:
        found = [operator.index(seed) for seed in seeds]
    except TypeError as error:
        raise ValueError(f"seeds must be whole numbers, got {list(seeds)!r}. Use seeds=(0, 1, 2).") from error
    if not found or len(set(found)) < len(found):
        raise ValueError(f"seeds must name at least one seed, none twice, got {found}. Use seeds=(0, 1, 2).")
    return found


def _side_to_keep(
    configs: Mapping[str, VictimConfig],
    countermeasures: Mapping[str, tuple[Countermeasure, ...]],
    image_size: tuple[int, int] | None,
) -> int | None:
    """The shorter side in pixels at which photographs are kept; ``None`` for images of one size, as they are."""
    sizes = [config.train_size for config in configs.values() if config.train_size is not None]
    if not sizes:
        return None
    if image_size is not None:
        raise ValueError(
            f"image_size={image_size} brings all images to one size before the trainers have them, and these have "
            "sizes of their own (train_size). Leave image_size (--size) out."
        )
    informed = [each.side for parts in countermeasures.values() for each in parts if isinstance(each, InformedTrainer)]
    return max(2 * max(sizes), *(side for side in informed if side is not None), 0)


def _load(argument: str, dataset: Any, image_size: tuple[int, int] | None, side: int | None) -> Labelled | Photographs:
    try:
        return load_labelled(dataset, image_size=image_size) if side is None else load_photographs(dataset, side)
    except ValueError as error:
        raise ValueError(f"{argument}: {error}") from error


def _published(
    dataset: Any,
    generator: Any,
    protected: Any,
    clean: Labelled | Photographs,
    image_size: tuple[int, int] | None,
    side: int | None,
    options: Mapping[str, Any],
) -> Iterator[Copy]:
    """The protected copy, where there is one."""
    if isinstance(clean, Photographs):
        assert side is not None
        if generator is not None:
            yield protected_photographs(dataset, generator, clean, side, **options)
        elif protected is not None:
            yield given_photographs(protected, dataset, clean, side)
    elif generator is not None:
        yield protect_copy(dataset, generator, clean, image_size=image_size, **options)
    elif protected is not None:
        yield given_copy(protected, clean, image_size)


def _as_shown(
    copies: Sequence[Copy], clean: Labelled | Photographs, configs: Mapping[str, VictimConfig]
) -> tuple[list[Copy], Labelled]:
    """Copies and clean images of one size, for pictures and metrics: where trainers resize, at their largest size."""
    if isinstance(clean, Labelled):
        return list(copies), clean
    largest = max(config.train_size or 0 for config in configs.values())
    shown = Labelled(centre_squares(clean.images, largest), clean.labels)
    return [as_squares(copy, largest) for copy in copies], shown


def _facts(clean: Labelled | Photographs, tests: Labelled | Photographs, name: str) -> dict[str, Any]:
    """What all records of an evaluation share."""
    size = clean.sizes.median(0).values if isinstance(clean, Photographs) else torch.tensor(clean.images.shape[2:])
    return {
        "data": hashlib.sha256((clean.sha256() + tests.sha256()).encode()).hexdigest(),
        "dataset": name,
        "train_images": len(clean.labels),
        "test_images": len(tests.labels),
        "classes": len(clean.labels.unique()),  # type: ignore[no-untyped-call]
        "height": int(size[0]),
        "width": int(size[1]),
        "guess_accuracy": int(tests.labels.bincount().max()) / len(tests.labels),
    }


def _left_out(*datasets: Any) -> int | None:
    """How many images the data sets are without since they do not decode; ``None`` for none, as records have it."""
    return sum(len(getattr(dataset, "left_out", ())) for dataset in datasets) or None

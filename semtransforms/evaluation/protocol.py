"""Play the unauthorised trainer: every victim against every countermeasure on the clean and the protected copy."""

from __future__ import annotations

import hashlib
import json
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from semtransforms.core.grid import to_float
from semtransforms.core.hardware import describe_machine, pick_device
from semtransforms.core.keys import index_keys
from semtransforms.data.loading import Labelled, load_labelled
from semtransforms.evaluation.copies import clean_copy, given_copy, protect_copy
from semtransforms.evaluation.countermeasures import (
    CleanOnly,
    Countermeasure,
    ProtectedClasses,
    PublishedGenerator,
    apply_at_test,
    apply_stored,
)
from semtransforms.evaluation.records import CLEAN, NONE, Record
from semtransforms.evaluation.report import EvaluationReport
from semtransforms.evaluation.results import Results
from semtransforms.evaluation.runs import Run, plan_runs
from semtransforms.evaluation.trainers import countermeasures_by_name, victims_by_name
from semtransforms.evaluation.victims import VictimConfig, VictimResult, train_victim
from semtransforms.evaluation.victims.validation import validation_images
from semtransforms.protect.transform import SEMProtect
from semtransforms.protect.wrapper import NoiseSource


def evaluate(
    dataset: Any,
    generator: NoiseSource | PublishedGenerator | None = None,
    *,
    test: Any,
    protected: Any = None,
    victims: Sequence[str] | Mapping[str, VictimConfig] = ("standard",),
    countermeasures: Sequence[str | Countermeasure | Sequence[Countermeasure]] = (NONE,),
    seeds: Sequence[int] = (0, 1, 2),
    protocol: str = "quick",
    network: str = "resnet18",
    width: int | None = None,
    protection_seed: int = 0,
    image_size: tuple[int, int] | None = None,
    name: str | None = None,
    copy_name: str | None = None,
    pool: bool = False,
    out: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
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
            the validation images clean); or names and their configs.
        countermeasures: names such as ``"none"``, ``"greyscale"``, ``"jpeg-10+cutout"``, ``"informed-same-seed"``,
            ``"informed-other-seed"``, ``"informed-by=FOLDER"`` (who holds another generator); or countermeasures,
            such as a :class:`~semtransforms.Purifier`, single or in sequences.
        seeds: of the victims.
        protocol: ``"quick"`` or ``"paper"``, for victims given by name.
        network, width: of victims given by name; ``"convnet"`` suits a CPU.
        protection_seed: of the noise.
        image_size: height and width that clean, protected and test images are resized and cropped to, where they have
            several sizes; the noise is added before, to the images as they are.
        name: what the data are called in the report; default: the class of ``dataset``.
        copy_name: what the protected copy is called; default: the generator's name, or ``"protected"``.
        pool: let another fit or protection for each seed share the copy's column; otherwise a copy of the same name
            in ``out`` must be the same copy.
        out: folder of the report.
        cache_dir: where noise is kept; default as for :class:`~semtransforms.ProtectedDataset`.
        device: where to train; default: CUDA if present.
        progress: show bars.

    Returns:
        The report, of everything in ``out`` where it is given.

    Raises:
        ValueError: copies of different length or labels, test images that are training images too, unknown or twice
            the same names, no seeds, a countermeasure that changes the image size, a folder with a report on other
            data, or on another copy or victim of the same name.
        TypeError: data that are not labelled uint8 images.
    """
    if generator is not None and protected is not None:
        raise ValueError("generator and protected were both given: pass the one that made the copy to be judged")
    seeds, name = _seeds(seeds), name or type(dataset).__name__
    if image_size is not None and (isinstance(image_size, int) or len(image_size) != 2):
        raise ValueError(f"image_size must be (height, width), got {image_size!r}")
    victims_for = victims_by_name(victims, protocol, network, width)
    if isinstance(generator, (str, os.PathLike)):
        generator = SEMProtect.from_pretrained(os.fspath(generator), device=device).generator
    chosen = countermeasures_by_name(countermeasures, generator, protection_seed)

    clean, tests = _load("dataset", dataset, image_size), _load("test", test, image_size)
    _check_test(clean, tests)
    facts = _facts(clean, tests, name)
    configs = victims_for(len(clean.labels))
    _check_on_samples(clean, configs, chosen, seeds[0])
    results = Results(None if out is None else Path(out).expanduser(), facts)

    copies = [clean_copy(clean)]
    if generator is not None:
        options: dict[str, Any] = {"cache_dir": cache_dir, "device": device, "progress": progress}
        copies.append(protect_copy(dataset, generator, clean, seed=protection_seed, image_size=image_size, **options))
    elif protected is not None:
        copies.append(given_copy(protected, clean, image_size))
    if copy_name is not None and len(copies) > 1:
        copies[1] = replace(copies[1], name=copy_name)
    if len(copies) > 1 and copies[1].name == CLEAN:
        raise ValueError(f"the protected copy must not be called {CLEAN!r}. Pass another copy_name.")

    runs = list(plan_runs(copies, configs, chosen, seeds))
    results.go_on(runs, pool)
    results.describe(copies[1:], clean, chosen)
    for number, run in enumerate(runs, 1):
        if run.file in results.records:
            continue
        if progress:
            names = f"{run.victim} on {run.copy.name}, {run.countermeasure}, seed {run.config.seed}"
            tqdm.write(f"[{number}/{len(runs)}] {names}")
        result = train_victim(
            run.copy.images,
            clean.labels,
            run.config,
            test_images=tests.images,
            test_labels=tests.labels,
            countermeasures=run.countermeasures,
            clean=clean.images,
            checkpoint=results.checkpoint(run),
            settings=run.settings,
            device=device,
            progress=progress,
        )
        results.add(run, _record(run, result, facts, device))
    return results.report()


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


def _load(argument: str, dataset: Any, image_size: tuple[int, int] | None) -> Labelled:
    try:
        return load_labelled(dataset, image_size=image_size)
    except ValueError as error:
        raise ValueError(f"{argument}: {error}") from error


def _check_test(clean: Labelled, tests: Labelled) -> None:
    if tests.images.shape[1:] != clean.images.shape[1:]:
        raise ValueError(
            f"test images are {tuple(tests.images.shape[2:])}, training images {tuple(clean.images.shape[2:])}. "
            "Pass image_size=(height, width) to bring both to one size."
        )
    if int(tests.labels.max()) > int(clean.labels.max()):
        raise ValueError(
            f"test has label {int(tests.labels.max())}, training labels end at {int(clean.labels.max())}: another "
            "numbering? Use test data of the same classes."
        )
    if clean.classes and tests.classes and clean.classes != tests.classes:
        raise ValueError(
            f"test has the classes {', '.join(tests.classes)}; the training data have {', '.join(clean.classes)}. "
            "Labels must mean the same in both."
        )
    known = {hashlib.sha256(image.numpy().tobytes()).digest() for image in clean.images}
    common = [k for k, image in enumerate(tests.images) if hashlib.sha256(image.numpy().tobytes()).digest() in known]
    if common:
        raise ValueError(
            f"test shares {len(common)} of its {len(tests.labels)} images with the training data (first at index "
            f"{common[0]}): accuracy on them says nothing. Leave them out of test."
        )


def _facts(clean: Labelled, tests: Labelled, name: str) -> dict[str, Any]:
    """What all records of an evaluation share."""
    return {
        "data": hashlib.sha256((clean.sha256() + tests.sha256()).encode()).hexdigest(),
        "dataset": name,
        "train_images": len(clean.labels),
        "test_images": len(tests.labels),
        "classes": len(clean.labels.unique()),  # type: ignore[no-untyped-call]
        "height": clean.images.shape[2],
        "width": clean.images.shape[3],
        "guess_accuracy": int(tests.labels.bincount().max()) / len(tests.labels),
    }


def _check_on_samples(
    clean: Labelled,
    configs: Mapping[str, VictimConfig],
    countermeasures: Mapping[str, tuple[Countermeasure, ...]],
    seed: int,
) -> None:
    """Find what is wrong with a countermeasure before any training, on an image of each class and a few more."""
    classes = clean.labels.unique()  # type: ignore[no-untyped-call]
    rows = torch.tensor([int((clean.labels == label).nonzero()[0]) for label in classes])
    rows = torch.cat([rows, torch.arange(min(32, len(clean.labels)))]).unique()  # type: ignore[no-untyped-call]
    some = Labelled(clean.images[rows], clean.labels[rows], clean=clean.images[rows])
    views, count = to_float(some.images), int(classes.max()) + 1
    with torch.random.fork_rng(devices=[]):  # the caller's own stream must not move
        network = nn.Sequential(nn.Flatten(), nn.Linear(views[0].numel(), count)).requires_grad_(False)
    targets = F.one_hot(some.labels, count).float()
    for name, parts in countermeasures.items():
        apply_stored(parts, some, seed=seed)
        apply_at_test(parts, some.images)
        left = len(clean.labels)
        for each in parts:
            if each.acts_on == "batch":
                got = each.on_batch(views, targets, keys=index_keys(rows, seed), network=network)
                if got[0].shape != views.shape or got[1].shape != targets.shape:
                    raise ValueError(f"countermeasure {each.name!r} changes the size of a batch. Keep its shapes.")
            if isinstance(each, ProtectedClasses) and (absent := set(each.classes) - set(classes.tolist())):
                raise ValueError(
                    f"countermeasure {each.name!r} names label {min(absent)}, which no image has: labels are "
                    f"0..{count - 1}"
                )
            if isinstance(each, CleanOnly):
                left = max(1, round(left * each.percent / 100))
        for victim, config in configs.items():
            try:
                validation_images(config, left)
            except ValueError as error:
                raise ValueError(f"victim {victim!r} with countermeasure {name!r}: {error}") from None


def _record(run: Run, result: VictimResult, facts: dict[str, Any], device: Any) -> Record:
    values = asdict(result)
    del values["train_loss"]
    config = run.config
    return Record(
        **facts,
        **run.copy.origin,
        **values,
        copy=run.copy.name,
        victim=run.victim,
        network=run.settings["network"],
        train_steps=config.train_steps,
        rho_a=config.rho_a,
        norm=config.norm,
        settings=json.dumps(run.settings, sort_keys=True),
        countermeasure=run.countermeasure,
        seed=config.seed,
        robust_rho=config.rho_a or None,
        **describe_machine(pick_device(device)),
    )

"""Play the unauthorised trainer: every victim against every countermeasure on the clean and the protected copy."""

from __future__ import annotations

import difflib
import hashlib
import json
import operator
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from semtransforms.core.config import parse_radius
from semtransforms.core.grid import to_float
from semtransforms.core.hardware import describe_machine, pick_device
from semtransforms.core.keys import index_keys
from semtransforms.core.models import look_up
from semtransforms.data.loading import Labelled, load_labelled
from semtransforms.evaluation.countermeasures import (
    CleanOnly,
    Countermeasure,
    ImageMap,
    InformedTrainer,
    ProtectedClasses,
    PublishedGenerator,
    apply_at_test,
    apply_stored,
    parse_countermeasure,
)
from semtransforms.evaluation.metrics import describe_noise
from semtransforms.evaluation.records import CLEAN, NONE, Record
from semtransforms.evaluation.report import EvaluationReport
from semtransforms.evaluation.runs import Copy, Run, check_folder, check_kept, read_description, read_kept, write_json
from semtransforms.evaluation.victims import VictimConfig, VictimResult, paper, quick, train_victim, validation_images
from semtransforms.protect.figures import noise_picture
from semtransforms.protect.transform import SEMProtect
from semtransforms.protect.wrapper import NoiseSource, ProtectedDataset

PROTOCOLS = ("quick", "paper")
PICTURES = 6  # images in the report's grid


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
            single or in sequences.
        seeds: of the victims.
        protocol: ``"quick"`` or ``"paper"``, for victims given by name.
        network, width: of victims given by name; ``"convnet"`` suits a CPU.
        protection_seed: of the noise.
        image_size: height and width that clean, protected and test images are resized and cropped to, where they have
            several sizes; noise is computed before, at each image's own size.
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
    seeds = _seeds(seeds)
    if image_size is not None and (isinstance(image_size, int) or len(image_size) != 2):
        raise ValueError(f"image_size must be (height, width), got {image_size!r}")
    trainers = _trainers(victims, protocol, network, width)
    if generator is not None and isinstance(generator, (str, os.PathLike)):
        generator = SEMProtect.from_pretrained(os.fspath(generator), device=device).generator
    tricks = _all_tricks(countermeasures, generator, protection_seed)

    clean, tests = _load("dataset", dataset, image_size), _load("test", test, image_size)
    _check_test(clean, tests)
    facts = _facts(clean, tests, name or type(dataset).__name__)
    configs = trainers(len(clean.labels))
    _check_on_samples(clean, configs, tricks, seeds[0])
    folder = None if out is None else Path(out).expanduser()
    if folder is not None:
        check_folder(folder, facts)

    copies = [Copy(CLEAN, clean.images, _origin(clean.images))]
    if generator is not None:
        copies.append(_protect(dataset, generator, protection_seed, image_size, cache_dir, device, progress))
    elif protected is not None:
        copies.append(_given(protected, clean, image_size))
    if copy_name is not None and len(copies) > 1:
        copies[1] = replace(copies[1], name=copy_name)
    if len(copies) > 1 and copies[1].name == CLEAN:
        raise ValueError(f"the protected copy must not be called {CLEAN!r}. Pass another copy_name.")
    runs = list(_runs(copies, configs, tricks, seeds))
    kept: dict[str, Record] = {}
    noise: dict[str, Any] = {}
    pictures: dict[str, Tensor] = {}
    described: dict[str, str] = {}  # copy -> digest of the one that noise and pictures are of
    if folder is not None:
        kept = read_kept(folder)
        check_kept(kept, runs, pool)
        noise, pictures, described = read_description(folder)
    for copy in copies[1:]:
        digest = copy.origin["copy_sha256"]
        if described.setdefault(copy.name, digest) == digest:  # of pooled copies the first is shown
            if copy.name not in noise:
                measures = describe_noise(clean.images, copy.images, clean.labels, rho_u=copy.origin["rho_u"])
                noise[copy.name] = measures.to_dict()
            pictures |= _pictures(clean, copy, tricks)
    if folder is not None:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        write_json(folder / "evaluation.json", facts | {"described": described})

    def report() -> EvaluationReport:
        found = EvaluationReport(tuple(kept.values()), noise, pictures)
        if folder is not None:
            found.save(folder)
        return found

    for number, run in enumerate(runs, 1):
        if run.file in kept:
            continue
        if progress:
            names = f"{run.victim} on {run.copy.name}, {run.countermeasure}, seed {run.config.seed}"
            tqdm.write(f"[{number}/{len(runs)}] {names}")
        file = None if folder is None else folder / "runs" / f"{run.file}.json"
        result = train_victim(
            run.copy.images,
            clean.labels,
            run.config,
            test_images=tests.images,
            test_labels=tests.labels,
            countermeasures=run.measures,
            clean=clean.images,
            checkpoint=None if file is None else file.with_suffix(".safetensors"),
            device=device,
            progress=progress,
        )
        kept[run.file] = _record(run, result, facts, device)
        if folder is not None and file is not None:
            write_json(file, kept[run.file].to_dict())
            kept = read_kept(folder)  # another process may have added some
            report()
    return report()


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


def _trainers(
    victims: Sequence[str] | Mapping[str, VictimConfig], protocol: str, network: str, width: int | None
) -> Any:
    """The trainers as a function of how many images there are: the quick protocol counts in epochs."""
    if isinstance(victims, Mapping):
        if not victims:
            raise ValueError("victims must name at least one, got none. Use victims=('standard',).")
        return lambda images: dict(victims)
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be {' or '.join(map(repr, PROTOCOLS))}, got {protocol!r}")
    if isinstance(victims, str) or not victims:
        raise ValueError(f"victims must be a sequence of names, got {victims!r}. Use victims=('standard',).")
    changes = {each: parse_victim(each) for each in victims}

    def at_size(images: int) -> dict[str, VictimConfig]:
        make = partial(quick, images) if protocol == "quick" else paper
        which = network if width is None else f"{network}-{width}"
        configs = {
            f"{protocol} {each} {which}": make(network=network, width=width, **some) for each, some in changes.items()
        }
        for each, config in configs.items():
            if "early-stopping" in each:  # looks forty times, gives up after four looks without a better one
                configs[each] = replace(config, patience=max(1, config.train_steps // 10))
        return configs

    look_up(network, width)
    return at_size


def parse_victim(text: str) -> dict[str, Any]:
    """What a trainer's name stands for, as fields of :class:`VictimConfig`.

    Args:
        text: ``"standard"``, ``"adversarial-2/255"``, ``"adversarial-l2-0.5"``, or ``"early-stopping-30"`` (with 30 %
            of the validation images clean; none without a number).

    Raises:
        ValueError: unknown, with the nearest.
    """
    if text == "standard":
        return {}
    if matched := re.fullmatch(r"early-stopping(?:-(\d+))?", text):
        return {"validation_clean": int(matched[1] or 0) / 100, "evaluations": 40}
    if matched := re.fullmatch(r"adversarial-(l2-)?(.+)", text):
        if matched[1]:
            try:
                radius = float(matched[2])
            except ValueError:
                raise ValueError(f"victim {text!r}: an l2 radius is a number such as 0.5") from None
            return {"rho_a": radius, "norm": "l2"}
        return {"rho_a": parse_radius(matched[2])}
    known = ["standard", "adversarial-2/255", "adversarial-l2-0.5", "early-stopping"]
    nearest = difflib.get_close_matches(text, known, n=2) or known
    raise ValueError(f"unknown victim {text!r}, did you mean {' or '.join(map(repr, nearest))}?")


def _all_tricks(countermeasures: Any, generator: Any, seed: int) -> dict[str, tuple[Countermeasure, ...]]:
    if isinstance(countermeasures, str) or not countermeasures:
        raise ValueError(
            f"countermeasures must be a sequence with at least one, got {countermeasures!r}. Use "
            f"countermeasures=({NONE!r},)."
        )
    named = [_tricks(each, generator, seed) for each in countermeasures]
    tricks = dict(named)
    if len(tricks) < len(named) or tricks.get(NONE):
        names = ", ".join(name for name, _ in named)
        raise ValueError(f"countermeasures must have names of their own, and {NONE!r} is taken; got {names}")
    return tricks


def _tricks(
    chosen: str | Countermeasure | Sequence[Countermeasure], generator: Any, seed: int
) -> tuple[str, tuple[Countermeasure, ...]]:
    """A countermeasure's name and its parts, in order."""
    if isinstance(chosen, str):
        informed = {"informed-same-seed": seed, "informed-other-seed": seed + 1}
        if chosen in informed:
            if not hasattr(generator, "surrogate"):
                raise ValueError(f"countermeasure {chosen!r} needs the generator that made the copy (generator=...)")
            return chosen, (InformedTrainer(generator, seed=informed[chosen], name=chosen),)
        if chosen.startswith("informed-by="):
            folder = chosen.removeprefix("informed-by=")
            other = SEMProtect.from_pretrained(folder).generator
            # a report that is published names no path
            chosen = f"informed-by={Path(folder).name}#{other.fingerprint[:6]}"
            return chosen, (InformedTrainer(other, seed=seed, name=chosen),)
        return chosen, parse_countermeasure(chosen)
    parts = (chosen,) if isinstance(chosen, Countermeasure) else tuple(chosen)
    return "+".join(each.name for each in parts) or NONE, parts


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


def _protect(
    dataset: Any,
    generator: Any,
    seed: int,
    image_size: tuple[int, int] | None,
    cache_dir: Any,
    device: Any,
    progress: bool,
) -> Copy:
    if isinstance(dataset, Sequence) and all(isinstance(part, Tensor) for part in dataset):
        dataset = torch.utils.data.TensorDataset(*dataset)
    copy = ProtectedDataset(dataset, generator, seed=seed, cache_dir=cache_dir, device=device, progress=progress)
    published = load_labelled(copy, image_size=image_size)
    made = dict(copy.origin)
    name = made.pop("name") or made["method"] or "protected"
    return Copy(Path(name).name, published.images, _origin(published.images, **made))


def _given(protected: Any, clean: Labelled, image_size: tuple[int, int] | None) -> Copy:
    copy = load_labelled(protected, image_size=image_size)
    if len(copy.labels) != len(clean.labels):
        raise ValueError(
            f"protected has {len(copy.labels)} images, dataset {len(clean.labels)}: they must be the same images in "
            "the same order"
        )
    if copy.images.shape != clean.images.shape:
        raise ValueError(f"protected images are {tuple(copy.images.shape[2:])}, clean {tuple(clean.images.shape[2:])}")
    wrong = (copy.labels != clean.labels).nonzero().flatten()
    if len(wrong):
        raise ValueError(
            f"protected has another label than dataset at {len(wrong)} images, first at index {int(wrong[0])}: they "
            "must be the same images in the same order"
        )
    change = int((copy.images.to(torch.int16) - clean.images).abs().max())
    if change > 64:
        warnings.warn(
            f"protected differs from dataset by up to {change} grey levels, far above any protective noise: are they "
            "the same images in the same order?",
            stacklevel=3,
        )
    return Copy("protected", copy.images, _origin(copy.images))


def _origin(
    images: Tensor, generator: str | None = None, method: str | None = None, rho_u: float | None = None
) -> dict[str, Any]:
    """What a record says of a copy; a digest of it stands for the seed, which must stay secret."""
    digest = hashlib.sha256(images.numpy()).hexdigest()
    return {"generator": generator, "method": method, "rho_u": rho_u, "copy_sha256": digest}


def _runs(
    copies: list[Copy],
    trainers: Mapping[str, VictimConfig],
    tricks: Mapping[str, tuple[Countermeasure, ...]],
    seeds: Sequence[int],
) -> Iterator[Run]:
    """All seeds of a row before the next row: what is stopped leaves whole rows."""
    for victim, config in trainers.items():
        for seed in seeds:
            yield Run(copies[0], victim, replace(config, seed=seed), NONE, ())
        for trick, measures in tricks.items():
            if len(copies) == 1 and trick == NONE:
                continue
            for seed in seeds:
                yield Run(copies[-1], victim, replace(config, seed=seed), trick, measures)


def _pictures(clean: Labelled, copy: Copy, tricks: Mapping[str, tuple[Countermeasure, ...]]) -> dict[str, Tensor]:
    """Rows of the report's grid: clean, noise, protected, and what each stored countermeasure leaves."""
    # one image of each of the first classes
    rows = [int((clean.labels == label).nonzero()[0]) for label in torch.unique(clean.labels)[:PICTURES]]
    some = Labelled(copy.images[rows], clean.labels[rows], clean=clean.images[rows])
    levels = (some.images.to(torch.int16) - clean.images[rows]).clamp(-128, 127).to(torch.int8)
    grid = {"clean": clean.images[rows], f"{copy.name}: noise ×16": noise_picture(levels), copy.name: some.images}
    for trick, measures in tricks.items():
        stored = [each for each in measures if each.acts_on == "stored"]
        # others depend on the whole set: these few would show something else than the trainer had
        if stored and all(isinstance(each, ImageMap | InformedTrainer) for each in stored):
            grid[f"{copy.name} + {trick}"] = apply_stored(stored, some, seed=0).images
    return grid


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
    tricks: Mapping[str, tuple[Countermeasure, ...]],
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
    for trick, measures in tricks.items():
        apply_stored(measures, some, seed=seed)
        apply_at_test(measures, some.images)
        for each in measures:
            if each.acts_on == "batch":
                got = each.on_batch(views, targets, keys=index_keys(rows, seed), network=network)
                if got[0].shape != views.shape or got[1].shape != targets.shape:
                    raise ValueError(f"countermeasure {each.name!r} changes the size of a batch. Keep its shapes.")
        left = len(clean.labels)
        for each in measures:
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
                raise ValueError(f"victim {victim!r} with countermeasure {trick!r}: {error}") from None


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
        network=config.to_dict()["network"],
        train_steps=config.train_steps,
        rho_a=config.rho_a,
        norm=config.norm,
        settings=json.dumps(config.to_dict(), sort_keys=True),
        countermeasure=run.countermeasure,
        seed=config.seed,
        robust_rho=config.rho_a or None,
        **describe_machine(pick_device(device)),
    )

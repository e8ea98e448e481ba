"""One row: fit, protect, train, record. It runs in a process of its own that may be stopped at any moment.

Fits, noise and trainings are shared by all rows that mean the same ones, and kept in the work folder as they end; each
is done under a lock, so that several processes can share a list of rows.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.data import TensorDataset

from examples.reproduce.rows import OTHER_FIT, Row
from examples.reproduce.scales import Scale
from semtransforms import GeneratorConfig, NoiseGenerator, ProtectedDataset, VictimConfig, evaluate, fit_generator
from semtransforms.core.files import locked, read_json, to_json, write_atomically
from semtransforms.core.hardware import describe_machine
from semtransforms.data.loading import Labelled
from semtransforms.evaluation.countermeasures import Countermeasure, InformedTrainer
from semtransforms.evaluation.metrics import surrogate_robustness
from semtransforms.evaluation.records import CLEAN, NONE, Record
from semtransforms.noise.methods import unused_options

BUSY, STOPPED = 75, 130  # exit status: another process works on it; interrupted
ROBUSTNESS_IMAGES = 5_000


def measure_row(row: Row, scale: Scale, out: Path, results: Path) -> None:
    """The process of a row: measure its missing seeds, each of them recorded as it ends.

    Args:
        row: to be measured.
        scale: at which.
        out: work folder.
        results: where ``ROW.json`` goes.

    Raises:
        SystemExit: ``BUSY`` or ``STOPPED``.
        Exception: whatever went wrong; of that seed nothing is recorded.
    """
    # a driver that is killed can stop nobody any more
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with lock(out, f"row-{scale.name}-{row.name}"):
            _measure_seeds(row, scale, out, results / f"{row.name}.json")
    except BlockingIOError as error:
        print(error, file=sys.stderr)
        sys.exit(BUSY)
    except KeyboardInterrupt:
        sys.exit(STOPPED)


def missing_seeds(row: Row, scale: Scale, results: Path) -> list[int]:
    """The seeds of a row that are not recorded yet; none where the row does not exist at the scale.

    Raises:
        ValueError: the row was measured with other settings, or its file is damaged.
    """
    file = results / f"{row.name}.json"
    result = read_result(file)
    if result and (other := differing(result, row, scale)):
        raise ValueError(f"{file} was measured with another {', '.join(other)}. Remove it to measure the row anew.")
    done = [record["seed"] for record in result.get("records", ())]
    return [seed for seed in row.seeds_at(scale.name) if seed not in done]


def read_result(file: Path) -> dict[str, Any]:
    """What is recorded of a row; nothing where nothing is.

    Raises:
        ValueError: the file is damaged.
    """
    return dict(read_json(file)) if file.exists() else {}


@contextmanager
def lock(out: Path, name: str) -> Iterator[None]:
    """Be the only process at something; a process that ends, however, gives it back.

    Raises:
        BlockingIOError: another process is at it.
    """
    file = out / "locks" / re.sub(r"[^A-Za-z0-9.-]+", "_", name)
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(file, wait=False) as held:
        if not held:
            raise BlockingIOError(f"another process is at {name}")
        yield


def settings(row: Row, scale: Scale) -> dict[str, Any]:
    """What decides the figures of a row besides the seed, as JSON values."""
    generator, victim, trainer = scale.plan(row)
    return {
        "dataset": scale.dataset(row),
        "generator": generator and _without_seed(generator),
        "victim": victim,
        "trainer": _without_seed(trainer),
        "countermeasure": row.countermeasure,
    }


def differing(result: Mapping[str, Any], row: Row, scale: Scale) -> list[str]:
    """Which of a row's settings are not those that a result was measured with.

    A field that configs have been given since then is the same while it has its default.
    """
    then, today = dict(result.get("settings", {})), settings(row, scale)
    for key, default in (("generator", GeneratorConfig()), ("trainer", VictimConfig())):
        if then.get(key) is not None:
            then[key] = _without_seed(default) | then[key]
    return [key for key in today if key not in then or then[key] != today[key]]


def _without_seed(config: GeneratorConfig | VictimConfig) -> dict[str, Any]:
    return {key: value for key, value in config.to_dict().items() if key != "seed"}


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:  # None: not in a process of its own
        parent.join()
        os._exit(STOPPED)


def _measure_seeds(row: Row, scale: Scale, out: Path, file: Path) -> None:
    result = read_result(file) or {
        "row": asdict(row),
        "published": row.published,
        "scale": scale.name,
        "settings": settings(row, scale),
        "records": [],
        "fits": [],
    }
    if not (seeds := missing_seeds(row, scale, file.parent)):
        return  # another process was faster
    dataset = scale.dataset(row)
    data, tests = scale.read(dataset)
    for seed in seeds:
        record, fit = _measure(row, scale, seed, dataset, data, tests, out / f"{scale.name}-{dataset}")
        result["records"].append(record.to_dict())
        result["fits"] += [{"seed": seed, **fit}] if fit else []
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, to_json(result))


def _measure(
    row: Row, scale: Scale, seed: int, dataset: str, data: Labelled, tests: Labelled, place: Path
) -> tuple[Record, dict[str, Any]]:
    """The victim's record and the times of the fit; the seed is that of the fit, the protection and the victim."""
    config, victim, trainer = scale.plan(row)
    copy, generator = CLEAN, None
    fit: dict[str, Any] = {}
    countermeasure: str | Countermeasure = row.countermeasure
    if config is not None:
        copy = _copy_name(config)
        generator, fit = _fit(config, seed, data, place, scale.checkpoint_every)
        if row.table == "fig3":
            fit |= {"surrogate_robustness": _robustness(generator, data, seed)}
        if countermeasure == OTHER_FIT:
            other, _ = _fit(config, seed + 1, data, place, scale.checkpoint_every)
            countermeasure = InformedTrainer(other, seed=seed, name=OTHER_FIT)
    run = partial(
        evaluate,
        (data.images, data.labels),
        test=(tests.images, tests.labels),
        victims={victim: trainer},
        seeds=(seed,),
        protection_seed=seed,
        pool=True,  # each seed is a fit and a protection of its own
        name=f"{dataset}, {len(data.labels):,} images",
        out=place / "report",
        cache_dir=place / "cache",
    )
    # evaluate trains on the clean copy too, once for all rows with this trainer
    with lock(place, f"{CLEAN}-{victim}-{NONE}-{seed}"):
        report = run()
    wanted = (copy, victim, row.countermeasure, seed)
    if wanted[:3] != (CLEAN, victim, NONE):
        with lock(place, "-".join(map(str, wanted))):
            report = run(generator, countermeasures=(countermeasure,), copy_name=copy)
    return next(r for r in report.records if (r.copy, r.victim, r.countermeasure, r.seed) == wanted), fit


def _copy_name(config: GeneratorConfig) -> str:
    """A name that no other settings have; a field that is new, with its default, does not change it."""
    default = _without_seed(GeneratorConfig())
    changed = {key: value for key, value in _without_seed(config).items() if value != default[key]}
    return f"{config.method}-{hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:8]}"


def _fit(
    config: GeneratorConfig, seed: int, data: Labelled, place: Path, every: int
) -> tuple[NoiseGenerator, dict[str, Any]]:
    """Fit a generator, make its noise and time both; or read what was kept."""
    name = f"{_copy_name(config)}-{seed}"
    with lock(place, f"fit-{name}"):
        return _fit_alone(replace(config, seed=seed), name, data, place, every)


def _fit_alone(
    config: GeneratorConfig, name: str, data: Labelled, place: Path, every: int
) -> tuple[NoiseGenerator, dict[str, Any]]:
    folder, work = place / "generators" / name, place / "fits" / name
    work.mkdir(parents=True, exist_ok=True)
    fitted, timed, protecting = work / "fitted.json", work / "timed.json", work / "protecting"
    if not fitted.exists():
        before, interruptions = _earlier_stretches(work, _begin_at_shorter(config, work, place))
        started = time.perf_counter()
        generator = fit_generator(
            (data.images, data.labels), config, checkpoint_dir=work, resume=True, checkpoint_every=every
        )
        seconds = before + time.perf_counter() - started
        generator.save_pretrained(folder)
        write_atomically(
            fitted, to_json({"fit_seconds": seconds, "fit_interruptions": interruptions, **describe_machine()})
        )
    generator = NoiseGenerator.from_pretrained(folder)
    if replace(generator.config, num_classes=None, image_size=None) != config:
        raise ValueError(f"{folder} was fitted when configs had other defaults. Remove the work folder {place}.")
    if not timed.exists():
        interrupted = protecting.exists()
        protecting.touch()
        started = time.perf_counter()
        # kept in the cache, where evaluate finds it
        dataset = TensorDataset(data.images, data.labels)
        ProtectedDataset(dataset, generator, seed=config.seed, cache_dir=place / "cache")
        # of noise that was begun by a process that was stopped, no time is known
        spent = None if interrupted else time.perf_counter() - started
        write_atomically(timed, to_json({**json.loads(fitted.read_text(encoding="utf-8")), "protect_seconds": spent}))
    return generator, json.loads(timed.read_text(encoding="utf-8"))


def _begin_at_shorter(config: GeneratorConfig, work: Path, place: Path) -> tuple[float, int]:
    """Let a fit go on from the longest one that differs by its length alone: Figures 3 and 5 want ten lengths of one.

    Returns:
        The seconds behind it, and how often it was stopped.
    """
    checkpoint = work / "checkpoint.safetensors"
    if checkpoint.exists() or "decay_every" in unused_options(config):  # there train_steps is no length
        return 0.0, 0
    shorter: dict[int, Path] = {}
    for fitted in (place / "fits").glob(f"{config.method}-*-{config.seed}/fitted.json"):
        other = NoiseGenerator.from_pretrained(place / "generators" / fitted.parent.name).config
        same = replace(other, train_steps=config.train_steps, num_classes=None, image_size=None) == config
        if same and other.train_steps < config.train_steps and fitted.with_name(checkpoint.name).exists():
            shorter[other.train_steps] = fitted
    if not shorter:
        return 0.0, 0
    nearest = shorter[max(shorter)]
    found = json.loads(nearest.read_text(encoding="utf-8"))
    if any(found[key] != value for key, value in describe_machine().items()):
        return 0.0, 0  # the seconds of two machines make no sum
    shutil.copyfile(nearest.with_name(checkpoint.name), work / "copied")
    (work / "copied").replace(checkpoint)
    return found["fit_seconds"], found["fit_interruptions"]


def _earlier_stretches(work: Path, first: tuple[float, int]) -> tuple[float, int]:
    """Seconds that earlier processes spent on updates that were kept, and how many of them were stopped.

    A stopped process cannot say how long it worked, so each leaves the moment it began; the checkpoint's own time says
    until when its work was kept.
    """
    log, checkpoint = work / "stretch.json", work / "checkpoint.safetensors"
    seconds, interruptions = first
    if log.exists():
        last = json.loads(log.read_text(encoding="utf-8"))
        kept = checkpoint.stat().st_mtime - last["began"] if checkpoint.exists() else 0.0
        # below 0: the checkpoint is of a process before it
        seconds, interruptions = last["seconds"] + max(0.0, kept), last["interruptions"] + 1
    write_atomically(log, to_json({"began": time.time(), "seconds": seconds, "interruptions": interruptions}))
    return seconds, interruptions


def _robustness(generator: NoiseGenerator, data: Labelled, seed: int) -> float:
    """R_theta of Eq. 8; R_delta_u of Eq. 9 is read off the victim's curve."""
    config = generator.config
    return surrogate_robustness(
        generator.surrogate,
        data.images[:ROBUSTNESS_IMAGES],
        data.labels[:ROBUSTNESS_IMAGES],
        defense=config.defense,
        attack=config.attack,
        eot=generator.eot,
        seed=seed,
    )

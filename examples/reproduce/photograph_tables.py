"""The tables of photographs: what is seen of their noise, and what trainers learn from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from examples.reproduce.markdown import MISSING, cell, share, spread, table
from examples.reproduce.records import RESULTS
from semtransforms.core.files import read_json
from semtransforms.evaluation.records import NONE

# those with a random start are of fits that began at random noise, as all did before
PHOTOGRAPHS = {
    "clothing10": "`clothing10`, all 1,817",
    "clothing10-fit2": "the same, a second fit",
    "clothing10-tf_efficientnet_lite0-tf_efficientnet_lite1": "the same, driven against Lite0, Lite1",
    "clothing10-60-each": "60 a class, textures all the same",
    "clothing10-20-each": "20 a class, textures all the same",
    "tiny-imagenet-10": "`tiny-imagenet-100`, 10 classes, 5,000",
    "random-start-clothing10": "`clothing10`, random start",
    "random-start-clothing10-fit2": "the same, a second fit",
    "random-start-clothing10-fit3": "the same, a third fit",
    "random-start-clothing10-fit3-tf_efficientnet_lite0-tf_efficientnet_lite1": "the third, against Lite0, Lite1",
    "random-start-clothing10-tf_efficientnet_lite0": "the second, driven against Lite0 at 128 px",
    "random-start-clothing10-rho4": "random start, ρ_u = 4/255",
    "random-start-clothing10-rho3": "random start, ρ_u = 3/255",
    "random-start-clothing10-60-each": "random start, 60 a class",
    "random-start-clothing10-20-each": "random start, 20 a class",
    "random-start-tiny-imagenet-10": "`tiny-imagenet-100`, 10 classes, 5,000, random start",
}
USUAL = 500  # updates
CROPS = {"random-resized": "random resized", "resize": "resize"}


def photographs(root: Path) -> str:
    """What trainers of several sizes and crops learn from photographs with class-wise noise, and from JPEG files."""
    lines, clean_elsewhere = [], _clean_trainings(root)
    for name, words in PHOTOGRAPHS.items():
        record = _record(root, name)
        found: dict[tuple[str, int, str], dict[str, list[float]]] = {}
        for row in record["rows"]:
            of = found.setdefault((_trainer(row), row["trained_at"], row["crop"]), {})
            for copy, figure in ((row["copy"], row["accuracy"]), (f"{row['copy']} at best", row["peak"])):
                of.setdefault(copy, []).append(100 * figure)
        for (trainer, side, crop), of in sorted(found.items()):
            # who does something to what was published does nothing to clean photographs
            plain = trainer.partition(", ")[0], side, crop
            clean = of.get("clean") or found.get(plain, {}).get("clean")
            clean = clean or clean_elsewhere.get((record["photographs"], record["guess"], *plain))
            guess, copies = 100 * record["guess"], ("protected", "protected at best", "jpeg-90", "jpeg-75")
            cells = (_learned(of.get(copy), clean, guess) for copy in copies)
            lines.append([words, trainer, f"{side} px", CROPS[crop], cell(clean), *cells])
    head = ("photographs", "trainer", "trained at", "crop", "clean", "protected", "at best", "JPEG 90", "JPEG 75")
    return table(head, lines)


def _record(root: Path, name: str) -> Mapping[str, Any]:
    file = root / RESULTS / f"photographs-{name}.json"
    return read_json(file) if file.exists() else {"rows": []}


def _clean_trainings(root: Path) -> Mapping[tuple[Any, ...], list[float]]:
    """What clean photographs taught, for records of other noise on the same ones: the first record that has it."""
    found: dict[tuple[Any, ...], list[float]] = {}
    for record in (_record(root, name) for name in PHOTOGRAPHS):
        here: dict[tuple[Any, ...], list[float]] = {}
        for row in record["rows"]:
            if row["copy"] == "clean":
                key = record["photographs"], record["guess"], _trainer(row), row["trained_at"], row["crop"]
                here.setdefault(key, []).append(100 * row["accuracy"])
        found = {**here, **found}
    return found


def _trainer(row: Mapping[str, Any]) -> str:
    """The network, and what its trainer does; records of before say nothing of a convnet whose trainer does nothing."""
    steps = row.get("steps", USUAL)
    told = [row.get("network", "convnet") + (f" for {steps:,} updates" if steps != USUAL else "")]
    if row.get("rho_a"):
        told.append(f"adversarial at {row['rho_a']}/255")
    if row.get("countermeasure", NONE) != NONE:
        told.append(row["countermeasure"])
    return ", ".join(told)


def one_label(root: Path) -> str:
    """How many clean photographs of a class are named rightly where it alone is protected, and where nothing is."""
    record = read_json(root / RESULTS / "photographs-random-start-clothing10.json")
    found: dict[tuple[str, int], dict[str, list[float]]] = {}
    for row in record["rows"]:
        copy, _, label = row["copy"].partition("-")
        if label in record["classes"]:
            of = found.setdefault((label, row["trained_at"]), {})
            of.setdefault(copy, []).append(100 * row["accuracy"])
    lines = [
        [f"`{label}`", f"{side} px", cell(of.get("clean")), cell(of.get("alone"))]
        for (label, side), of in sorted(found.items())
    ]
    return table(("the class", "trained at", "all clean", "protected alone"), lines)


def _learned(figures: Sequence[float] | None, clean: Sequence[float] | None, guess: float) -> str:
    """An accuracy, and the share of what clean images teach, which is never less than nothing, where that is known."""
    if not figures:
        return MISSING
    if not clean:
        return spread(figures)
    below = fmean(figures) <= guess
    return f"{spread(figures)} ({'0 %' if below else share(figures, clean, guess)})"


def starting(root: Path) -> str:
    """What trainers learn from photographs who start from pretrained weights, clean and protected."""
    lines = []
    for name, words in PHOTOGRAPHS.items():
        file = root / RESULTS / f"pretrained-{name}.json"
        if not file.exists():
            continue
        record = read_json(file)
        found: dict[tuple[str, ...], dict[str, list[float]]] = {}
        seconds: dict[tuple[str, ...], list[float]] = {}
        for row in record["rows"]:
            effort = "" if row["transfer"] == "probe" else f", {row['steps']} updates"
            trainer = words, f"{row['transfer']}{effort}", f"`{row['network']}`", f"{row['trained_at']} px"
            copy = row["copy"].partition("#")[0]
            for column, figure in ((copy, row["accuracy"]), (f"{copy} at best", row["peak"])):
                found.setdefault(trainer, {}).setdefault(column, []).append(100 * figure)
            seconds.setdefault(trainer, []).append(row["seconds"])
        for trainer, of in found.items():
            for copy in [each for each in of if each != "clean" and not each.endswith(" at best")] or [MISSING]:
                cells = (
                    _learned(of.get(each), of.get("clean"), 100 * record["guess"]) for each in (copy, f"{copy} at best")
                )
                lines.append([*trainer, cell(of.get("clean")), copy, *cells, f"{median(seconds[trainer]):.0f}"])
    head = ("photographs", "trainer", "network", "at", "clean", "noise", "protected", "at best", "seconds")
    return table(head, lines)


def seen(root: Path) -> str:
    """What is seen of noise that is turned down, by a mask and all of it alike, and what a trainer learns then."""
    record = read_json(root / RESULTS / "seen-sem-plus-cifar10-small.json")
    lines = [["clean", "0", "10", MISSING, "1", spread(_percent(record["clean_accuracy"]))]]
    for row in record["rows"]:
        turned = f"`visibility={row['to']:g}`" if row["turned_down"] == "visibility" else f"{row['to']:g} of ρ_u"
        figures = (f"{row[name]:.{digits}f}" for name, digits in (("flip", 4), ("jod", 2), ("psnr", 1), ("ssim", 3)))
        lines.append([turned, *figures, spread(_percent(row["accuracy"]))])
    return table(("noise", "FLIP", "ColorVideoVDP, JOD", "PSNR, dB", "SSIM", "a trainer learns"), lines)


def seen_classwise(root: Path) -> str:
    """What is seen of class-wise noise of several radii, beside what trainers learn from it at their best moment."""
    lines = []
    for rho, name in (("8", "clothing10-fit2"), ("4", "clothing10-rho4"), ("3", "clothing10-rho3")):
        whole = read_json(root / RESULTS / f"seen-sem-classwise-rho{rho}.json")["rows"][0]
        figures = [f"{whole[name]:.{digits}f}" for name, digits in (("flip", 3), ("psnr", 1), ("ssim", 3))]
        learned: dict[tuple[str, int], list[float]] = {}
        for row in read_json(root / RESULTS / f"photographs-random-start-{name}.json")["rows"]:
            if (_trainer(row), row["crop"]) == ("convnet", "random-resized"):
                learned.setdefault((row["copy"], row["trained_at"]), []).append(100 * row["peak"])
        cells = [cell(learned.get((copy, side))) for side in (32, 64) for copy in ("clean", "protected")]
        lines.append([f"{rho}/255", *figures, *cells])
    return table(("ρ_u", "FLIP", "PSNR, dB", "SSIM", "clean, 32 px", "32 px", "clean, 64 px", "64 px"), lines)


def _percent(shares: Sequence[float]) -> list[float]:
    return [100 * share for share in shares]

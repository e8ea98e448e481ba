"""``semtransforms evaluate``: what a trainer still learns."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semtransforms.cli.errors import one_line_errors
from semtransforms.cli.options import (
    GENERATOR_HELP,
    SEED_FILE_HELP,
    Device,
    ImageColumn,
    LabelColumn,
    Size,
    Source,
    Split,
    Width,
    read_seed,
)

if TYPE_CHECKING:
    from semtransforms.data.sources import Source as LabelledSource

OUT_HELP = "Folder for the report; new, empty or one to go on with."
VICTIMS_HELP = (
    "Comma-separated: standard, adversarial-2/255, adversarial-l2-0.5, early-stopping, longer-10, sam, simclr; with "
    "--pretrained: probe, fine-tune, last-block."
)
NETWORK_HELP = "The trainer's network; convnet suits a CPU. resnet18, vit, mixer, ...; timm/NAME and torchvision/NAME."
PRETRAINED_HELP = (
    "Weights that a network of timm or torchvision starts from: a file, a folder as on the Hub, the name of published "
    "weights, or default."
)
COUNTERMEASURES_HELP = (
    "Comma-separated: none, greyscale, jpeg-75, mean, cutout, d-vae, pairs-500 (holds 500 originals), "
    "informed-same-seed (holds the generator), ...; joined with +."
)
TRAINERS_HELP = (
    "In the place of both: quick (minutes with --network convnet), owner (those that you must know) or full (all that "
    "have a name, hours); or comma-separated names, such as standard,jpeg-75,probe+jpeg-75."
)
PRETRAINED_NETWORK_HELP = "Network of these weights, where other trainers are to have --network. Default: --network."
TRAIN_SIZE_HELP = (
    "Comma-separated sides of the square that trainers train on, such as 64,128; photographs may have any and mixed "
    "sizes. Without it all images must have one size."
)
CROP_HELP = "Comma-separated, with --train-size: resize, random-resized."
TEST_SPLIT_HELP = (
    "Part of --test to read, where it has parts. Default: test where SOURCE and --test are one name, else train."
)
WORKERS_HELP = "Processes that share the runs, a CUDA device each where there are several; 0: in this process."

Out = Annotated[Path, typer.Argument(metavar="OUT", help=OUT_HELP, show_default=False)]
Test = Annotated[str, typer.Option(help="Clean test images of the same classes, as SOURCE is given.")]
MaybeGenerator = Annotated[str | None, typer.Option(help=GENERATOR_HELP)]
Protected = Annotated[str | None, typer.Option(help="A copy protected already, instead of --generator.")]
Victims = Annotated[str, typer.Option(help=VICTIMS_HELP)]
Countermeasures = Annotated[str, typer.Option(help=COUNTERMEASURES_HELP)]
Trainers = Annotated[str | None, typer.Option(help=TRAINERS_HELP)]
TrainSizes = Annotated[str | None, typer.Option("--train-size", metavar="PIXELS", help=TRAIN_SIZE_HELP)]
Crops = Annotated[str, typer.Option("--crop", help=CROP_HELP)]
Seeds = Annotated[str, typer.Option(help="Comma-separated seeds of the victims.")]
Protocol = Annotated[str, typer.Option(help="quick (20 epochs) or paper (40,000 updates).")]
Network = Annotated[str, typer.Option(help=NETWORK_HELP)]
Pretrained = Annotated[str | None, typer.Option(metavar="PATH_OR_NAME", help=PRETRAINED_HELP)]
PretrainedNetwork = Annotated[str | None, typer.Option(metavar="NAME", help=PRETRAINED_NETWORK_HELP)]
ProtectionSeed = Annotated[str | None, typer.Option(metavar="INTEGER", help="Of the noise; default: 0.")]
ProtectionSeedFile = Annotated[Path | None, typer.Option("--protection-seed-file", metavar="FILE", help=SEED_FILE_HELP)]
CopyName = Annotated[str | None, typer.Option(help="What the protected copy is called in the report.")]
CacheDir = Annotated[Path | None, typer.Option(help="Private folder for the noise.")]
Workers = Annotated[int, typer.Option(help=WORKERS_HELP)]
TestSplit = Annotated[str | None, typer.Option(help=TEST_SPLIT_HELP)]


def evaluate_command(
    source: Source,
    out: Out,
    test: Test,
    generator: MaybeGenerator = None,
    protected: Protected = None,
    victims: Victims = "standard",
    countermeasures: Countermeasures = "none",
    trainers: Trainers = None,
    seeds: Seeds = "0,1,2",
    protocol: Protocol = "quick",
    network: Network = "resnet18",
    width: Width = None,
    pretrained: Pretrained = None,
    pretrained_network: PretrainedNetwork = None,
    size: Size = None,
    train_size: TrainSizes = None,
    crop: Crops = "resize",
    protection_seed: ProtectionSeed = None,
    protection_seed_file: ProtectionSeedFile = None,
    copy_name: CopyName = None,
    cache_dir: CacheDir = None,
    split: Split = None,
    test_split: TestSplit = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    device: Device = None,
    workers: Workers = 0,
) -> None:
    """Play the unauthorised trainer: what does a network still learn from the protected copy?

    Writes report.html, report.md and report.json. An interrupted evaluation goes on when started again. Images that do
    not decode are left out, with their copies; they are named and counted, and the exit code is 1.
    """
    with one_line_errors("interrupted: the same command goes on from here"):
        from semtransforms.data.sources import open_source
        from semtransforms.evaluation.protocol import evaluate as run_evaluation

        if generator is None and protected is None:
            raise ValueError("--generator or --protected must say which copy is to be judged.")
        options: dict[str, Any] = {
            "victims": _names("victims", victims), "countermeasures": _names("countermeasures", countermeasures),
            "trainers": _trainers(trainers), "pretrained_network": pretrained_network,
            "seeds": _numbers("seeds", seeds), "protocol": protocol, "network": network, "width": width,
            "pretrained": pretrained, "train_sizes": () if train_size is None else _numbers("train-size", train_size),
            "crops": _names("crop", crop),
            "protection_seed": read_seed(protection_seed, protection_seed_file, "--protection-seed") or 0,
            "image_size": None if size is None else (size, size), "name": Path(source).name or source,
            "copy_name": copy_name, "out": out, "cache_dir": cache_dir, "device": device,
            "workers": workers,
        }  # fmt: skip
        read = partial(open_source, image_column=image_column, label_column=label_column)
        parts = (split, test_split or _test_part(source, test))
        clean, copy, tests = _whole_images(read, source, protected, test, *parts)
        report = run_evaluation(clean, generator, test=tests, protected=copy, **options)
        typer.echo("\n".join(report.verdict()))
        typer.echo(f"Report: {out / 'report.html'} (private: it shows originals and noise)")
        if clean.left_out or tests.left_out:
            raise typer.Exit(1)


def _whole_images(
    read: Callable[..., LabelledSource],
    source: str,
    protected: str | None,
    test: str,
    split: str | None,
    test_split: str | None,
) -> tuple[LabelledSource, LabelledSource | None, LabelledSource]:
    """The images of SOURCE, their copies and the test images, without those that do not decode, which are named."""
    from semtransforms.data.matching import pairs_without_damaged, without_damaged

    clean, copy = read(source, split=split), None
    if protected is None:
        clean = without_damaged("SOURCE", clean)
    else:
        clean, copy = pairs_without_damaged(clean, read(protected, split=split))
    tests = without_damaged("--test", read(test, split=test_split))
    for place in clean.left_out + tests.left_out:
        typer.echo(f"error: left out: {place}", err=True)
    return clean, copy, tests


def _test_part(source: str, test: str) -> str | None:
    """The part of one data set that gives the test images; ``None`` for the usual one of another."""
    from semtransforms.data.remote import place_of

    return "test" if test == source and not place_of(source).is_dir() else None


def _names(option: str, text: str) -> list[str]:
    """Comma-separated words; the commas inside protected-classes-0,1 belong to the word."""
    words: list[str] = []
    for part in text.split(","):
        if words and re.fullmatch(r"\s*\d+\s*(\+.*)?", part) and "protected-classes-" in words[-1]:
            words[-1] += f",{part.strip()}"
        else:
            words.append(part.strip())
    if not all(words):
        raise ValueError(f"--{option} must be comma-separated names, got {text!r}.")
    return words


def _trainers(text: str | None) -> str | list[str] | None:
    """The name of a set, also a misspelt one, or the names of trainers."""
    from semtransforms.evaluation.sets import SETS, TRAINERS

    if text is None:
        return None
    nearest = difflib.get_close_matches(text, [*SETS, *TRAINERS], n=1)
    return text if nearest and nearest[0] in SETS else _names("trainers", text)


def _numbers(option: str, text: str) -> list[int]:
    try:
        if numbers := [int(part) for part in text.split(",") if part.strip()]:
            return numbers
    except ValueError:
        pass
    raise ValueError(f"--{option} must be comma-separated whole numbers, got {text!r}.")

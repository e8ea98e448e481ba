"""``semtransforms protect``: a copy that can be published."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from semtransforms.cli.errors import one_line_errors
from semtransforms.cli.options import (
    GENERATOR_HELP,
    Device,
    ImageColumn,
    LabelColumn,
    PretrainedSurrogates,
    SeedFile,
    Source,
    Split,
    parse_pretrained,
    read_seed,
)

if TYPE_CHECKING:
    from semtransforms.data.sources import Source as LabelledSource
    from semtransforms.photographs.check import Checked
    from semtransforms.protect.publish import Outcome

MINUTES = 20  # of a fit on two cores

FORMAT_HELP = (
    "png: image folder, exact. jpeg: image folder for photographs, a fifth as large. parquet: one file if OUT ends in "
    ".parquet, else a folder of shards. datasets: a datasets folder. tars: a folder of tars for WebDataset. noise: the "
    "noise alone, to be kept private."
)
QUALITY_HELP = "Of JPEG, 75 to 100. Default: 90."
WORKERS_HELP = "Processes that share the images; 0: this one alone. The files are the same."
CLUSTER_HELP = (
    "Share the images with the machines of a Ray cluster, which must see SOURCE too: HOST:PORT; auto: the one of this "
    "machine, or one that is started here meanwhile. --workers is how many take part; 0: all."
)
MEGAPIXELS_HELP = "Larger images are refused before they are decoded."

NOISE_SIZE_HELP = (
    "Shorter side in pixels at which the noise of larger images is made, before it is enlarged. Default: the "
    "generator's own. full: each image's own, for trainers who do not resize."
)

VISIBILITY_HELP = (
    "0..1: how much of the radius the noise has where it is seen most. 1: all of it everywhere. 0: what the eye "
    "tolerates, little in sky and skin, more in leaves; costs protection."
)

OUT_HELP = "What to write: a folder, new or empty; or for png and jpeg the address of one (s3://bucket/folder)."
Out = Annotated[str, typer.Argument(metavar="OUT", help=OUT_HELP, show_default=False)]
Format = Annotated[str, typer.Option(help=FORMAT_HELP)]
Quality = Annotated[int | None, typer.Option(help=QUALITY_HELP)]
Workers = Annotated[int, typer.Option(help=WORKERS_HELP)]
Cluster = Annotated[str | None, typer.Option(metavar="auto|HOST:PORT", help=CLUSTER_HELP)]
MaxMegapixels = Annotated[float, typer.Option(help=MEGAPIXELS_HELP)]
SEED_HELP = "Default: fresh and secret, as a real protection needs it. Others can see it here: give --seed-file, or -."
Seed = Annotated[str | None, typer.Option(metavar="INTEGER", help=SEED_HELP)]
NoiseSize = Annotated[str | None, typer.Option(help=NOISE_SIZE_HELP)]
Visibility = Annotated[float, typer.Option(help=VISIBILITY_HELP)]
CacheDir = Annotated[Path | None, typer.Option(help="Private folder for seed, generator and report.")]
MaybeGenerator = Annotated[str | None, typer.Option(help=f"{GENERATOR_HELP} Default: one is fitted, and kept private.")]
ONE_LABEL = (
    "One label for all is no protection to count on: a trainer who had the other classes clean learned two of three "
    "classes as if nothing had been done. Photographs of more than one thing, in class folders, are protected better."
)
Label = Annotated[str | None, typer.Option(help="A class of --generator: the label of all images of SOURCE.")]
Minutes = Annotated[float | None, typer.Option(help=f"For that fit. Default: {MINUTES}.")]


def protect_command(
    source: Source,
    out: Out,
    generator: MaybeGenerator = None,
    minutes: Minutes = None,
    pretrained_surrogate: PretrainedSurrogates = None,
    label: Label = None,
    format: Format = "png",
    quality: Quality = None,
    seed: Seed = None,
    seed_file: SeedFile = None,
    cache_dir: CacheDir = None,
    split: Split = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    noise_size: NoiseSize = None,
    visibility: Visibility = 1.0,
    device: Device = None,
    workers: Workers = 0,
    cluster: Cluster = None,
    max_megapixels: MaxMegapixels = 178.9,
) -> None:
    """Write a protected copy of a labelled image collection, ready to be published.

    Without --generator one is fitted for these images first, and a quick trainer checks the copy in the end. Every
    image becomes upright 8-bit sRGB (PNG keeps transparency). An interrupted run goes on when started again.
    """
    with one_line_errors("interrupted: the same command goes on from here"):
        from semtransforms.protect.formats import FORMATS

        if format not in FORMATS:
            hint = " For JPEG write --format jpeg." if format.startswith("j") else ""
            raise ValueError(f"--format must be one of {', '.join(FORMATS)}, got {format!r}.{hint}")
        columns: dict[str, Any] = {"split": split, "image_column": image_column, "label_column": label_column}
        common: dict[str, Any] = {
            "format": format, "quality": quality, "seed": read_seed(seed, seed_file), "visibility": visibility,
            "device": device, "workers": workers, "max_megapixels": max_megapixels,
        }  # fmt: skip
        if generator is not None:
            for option, given in (("--minutes", minutes), ("--pretrained-surrogate", pretrained_surrogate)):
                if given:
                    raise ValueError(
                        f"{option} is for a fit, and --generator is fitted already. Leave one of them out."
                    )
            common["noise_size"] = parse_noise_size(noise_size)
            outcome, images, known = _protect_with(generator, source, out, label, cache_dir, columns, cluster, common)
            _tell(outcome, out, format, images)
            _tell_classes(images.classes, known)
            if label is not None:
                typer.echo(ONE_LABEL)
        else:
            for option, value in (("--noise-size", noise_size), ("--label", label), ("--cluster", cluster)):
                if value is not None:
                    raise ValueError(
                        f"{option} {value!r} needs a generator that is there. Give --generator, or leave it out."
                    )
            common |= {"private": cache_dir, "columns": columns}
            outcome = _fit_and_protect(source, out, minutes, pretrained_surrogate, common)
        if outcome.failed:
            raise typer.Exit(1)


def _fit_and_protect(
    source: str, out: str, minutes: float | None, pretrained: list[str] | None, common: Mapping[str, Any]
) -> Outcome:
    """Protect with a generator that is fitted for these images, and tell the verdict."""
    # only here: what fits and judges brings torchvision and with it torch's compiler, 160 MB
    from semtransforms.photographs.journey import protect_photographs

    limit = MINUTES if minutes is None else minutes
    done = protect_photographs(source, out, minutes=limit, pretrained=parse_pretrained(pretrained), **common)
    _tell(done.outcome, out, common["format"], done.found.source)
    tell_verdict(done.checked, done.generator)
    return done.outcome


def _protect_with(
    generator: str,
    source: str,
    out: str,
    label: str | None,
    cache_dir: Path | None,
    columns: Mapping[str, Any],
    cluster: str | None,
    common: Mapping[str, Any],
) -> tuple[Outcome, LabelledSource, tuple[str, ...] | None]:
    """Protect with a generator that is there; returns its class names too."""
    from semtransforms.core.names import unknown
    from semtransforms.data.remote import place_of
    from semtransforms.data.sources import open_source, open_with_one_label
    from semtransforms.data.store import default_cache_dir
    from semtransforms.generators.generator import NoiseGenerator
    from semtransforms.protect.publish import protect_source

    if label is not None and (given := [name for name, value in columns.items() if value is not None]):
        option = f"--{given[0].replace('_', '-')}"
        raise ValueError(f"{option} says where labels are read, and --label is the label. Leave one of them out.")
    maker = NoiseGenerator.from_pretrained(generator, device=common["device"])
    if label is None:
        images = open_source(source, **columns)
    else:
        names = maker.classes or tuple(map(str, range(maker.num_classes)))
        if label not in names:
            all_in = f"semtransforms.NoiseGenerator.from_pretrained({generator!r}).classes"
            raise ValueError(f"--label: {unknown('class of the generator', label, names, all_in=all_in)}")
        images = open_with_one_label(place_of(source), names.index(label), maker.classes)
    private, target = cache_dir and cache_dir / "protections", place_of(out)
    if cluster is not None:
        from semtransforms.protect.ray import protect_with_ray

        outcome = protect_with_ray(images, target, maker, cluster=cluster, private=private, **common)
    else:
        private = private or default_cache_dir() / "protections"
        outcome = protect_source(images, target, maker, private=private, **common)
    return outcome, images, maker.classes


def _tell_classes(classes: tuple[str, ...] | None, known: tuple[str, ...] | None) -> None:
    """Whose noise the images have, where the generator is used for other classes than its own."""
    from semtransforms.protect.batch import first_other_name, share_names

    pair = first_other_name(classes, known)
    if pair is not None and not share_names(classes, known):
        typer.echo(
            f"No class has the name of one of the generator's: noise went by number, so {pair[0]!r} has that of "
            f"{pair[1]!r}. For noise of your own classes leave --generator out."
        )


def tell_verdict(checked: Checked, generator: Path) -> None:
    """What a trainer learns from the copy, and what else must stay private."""
    typer.echo(f"The generator is in {generator}. Keep it private: who has it can undo the protection.")
    if checked.report is not None:
        typer.echo(f"Report: {checked.report} (private: it shows originals and noise)")
    typer.echo("\n".join(checked.verdict))


def _tell(outcome: Outcome, out: str, format: str, source: LabelledSource) -> None:
    """What was done, and what must stay private."""
    from semtransforms.data.remote import place_of
    from semtransforms.protect.telling import describe_outcome

    for place in outcome.failed:
        typer.echo(f"error: not protected: {place}", err=True)
    typer.echo("\n".join(describe_outcome(outcome, place_of(out), format, source)))


def parse_noise_size(text: str | None) -> int | Literal["full"] | None:
    """What ``--noise-size`` says.

    Raises:
        ValueError: it is neither a whole number nor ``full``.
    """
    if text is None:
        return None
    if text == "full":
        return "full"
    if not text.isdecimal():
        raise ValueError(f"--noise-size must be a whole number of pixels or 'full', got {text!r}.")
    return int(text)

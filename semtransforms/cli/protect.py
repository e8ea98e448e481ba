"""``semtransforms protect``: a copy that can be published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from semtransforms.cli.errors import one_line_errors
from semtransforms.cli.options import GENERATOR_HELP, Device, ImageColumn, LabelColumn, Source, Split

if TYPE_CHECKING:
    from semtransforms.data.sources import Source as Images
    from semtransforms.photographs.check import Checked
    from semtransforms.protect.publish import Outcome

MINUTES = 20  # of a fit on two cores

FORMAT_HELP = (
    "png: image folder. parquet, datasets: one Parquet file or datasets folder. noise: the noise alone, "
    "to be kept private. jpeg: costs protection."
)

NOISE_SIZE_HELP = (
    "Shorter side in pixels at which the noise of larger images is made, before it is enlarged. Default: the "
    "generator's own. full: each image's own, for trainers who do not resize."
)

Out = Annotated[Path, typer.Argument(metavar="OUT", help="What to write; new or empty.", show_default=False)]
Format = Annotated[str, typer.Option(help=FORMAT_HELP)]
Seed = Annotated[int | None, typer.Option(help="Default: fresh and secret, as a real protection needs it.")]
NoiseSize = Annotated[str | None, typer.Option(help=NOISE_SIZE_HELP)]
CacheDir = Annotated[Path | None, typer.Option(help="Private folder for seed, generator and report.")]
MaybeGenerator = Annotated[str | None, typer.Option(help=f"{GENERATOR_HELP} Default: one is fitted, and kept private.")]
Label = Annotated[str | None, typer.Option(help="A class of --generator: the label of all images of SOURCE.")]
Minutes = Annotated[float | None, typer.Option(help=f"For that fit. Default: {MINUTES}.")]


def protect_command(
    source: Source,
    out: Out,
    generator: MaybeGenerator = None,
    minutes: Minutes = None,
    label: Label = None,
    format: Format = "png",
    seed: Seed = None,
    cache_dir: CacheDir = None,
    split: Split = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    noise_size: NoiseSize = None,
    device: Device = None,
) -> None:
    """Write a protected copy of a labelled image collection, ready to be published.

    Without --generator one is fitted for these images first, and a quick trainer checks the copy in the end. Every
    image becomes upright 8-bit RGB (transparency is kept). An interrupted run goes on when started again.
    """
    with one_line_errors("interrupted: the same command goes on from here"):
        from semtransforms.photographs.journey import protect_photographs
        from semtransforms.protect.publish import FORMATS

        if format not in FORMATS:
            jpeg = " JPEG costs protection; if you must have it, write --format jpeg." if format.startswith("j") else ""
            raise ValueError(f"--format must be one of {', '.join(FORMATS)}, got {format!r}.{jpeg}")
        columns: dict[str, Any] = {"split": split, "image_column": image_column, "label_column": label_column}
        common: dict[str, Any] = {"format": format, "seed": seed, "device": device}
        if generator is not None:
            if minutes is not None:
                raise ValueError("--minutes is for a fit, and --generator is fitted already. Leave one of them out.")
            common["noise_size"] = parse_noise_size(noise_size)
            outcome, images = _protect_with(generator, source, out, label, cache_dir, columns, common)
            _tell(outcome, out, format, images.other_columns)
        else:
            for option, value in (("--noise-size", noise_size), ("--label", label)):
                if value is not None:
                    raise ValueError(
                        f"{option} {value!r} needs a generator that is there. Give --generator, or leave it out."
                    )
            limit = MINUTES if minutes is None else minutes
            done = protect_photographs(source, out, minutes=limit, private=cache_dir, **columns, **common)
            outcome = done.outcome
            _tell(outcome, out, format, done.found.source.other_columns)
            _tell_verdict(done.checked, done.generator)
        if outcome.failed:
            raise typer.Exit(1)


def _protect_with(
    generator: str,
    source: str,
    out: Path,
    label: str | None,
    cache_dir: Path | None,
    columns: Mapping[str, Any],
    common: Mapping[str, Any],
) -> tuple[Outcome, Images]:
    """Protect with a generator that is there."""
    from semtransforms.core.names import unknown
    from semtransforms.data.sources import open_source, open_with_one_label
    from semtransforms.data.store import default_cache_dir
    from semtransforms.generators.generator import NoiseGenerator
    from semtransforms.protect.publish import protect_source

    maker = NoiseGenerator.from_pretrained(generator, device=common["device"])
    if label is None:
        images = open_source(source, **columns)
    else:
        names = maker.classes or tuple(map(str, range(maker.num_classes)))
        if label not in names:
            raise ValueError(f"--label: {unknown('class of the generator', label, names)}")
        images = open_with_one_label(Path(source).expanduser(), names.index(label), maker.classes)
    private = (cache_dir or default_cache_dir()) / "protections"
    return protect_source(images, out, maker, private=private, **common), images


def _tell_verdict(checked: Checked, generator: Path) -> None:
    """What a trainer learns from the copy, and what else must stay private."""
    typer.echo(f"The generator is in {generator}. Keep it private: who has it can undo the protection.")
    if checked.report is not None:
        typer.echo(f"Report: {checked.report} (private: it shows originals and noise)")
    typer.echo("\n".join(checked.verdict))


def _tell(outcome: Outcome, out: Path, format: str, other_columns: Sequence[str]) -> None:
    """What was done, and what must stay private."""
    for place in outcome.failed:
        typer.echo(f"error: not protected: {place}", err=True)
    found = f", {outcome.found} were finished before" if outcome.found else ""
    typer.echo(f"{outcome.written} images protected{found}: {out}")
    if outcome.removed:
        typer.echo(f"{outcome.removed} copies removed: their images are no longer in SOURCE under that name.")
    typer.echo(
        "Metadata (EXIF, GPS, ICC profiles, comments, text) is not copied; "
        f"{outcome.with_metadata} of these images had some."
    )
    if outcome.without_alpha:
        typer.echo(f"{outcome.without_alpha} images lost their transparency: JPEG has none.")
    if other_columns:
        typer.echo(f"Columns not copied: {', '.join(other_columns)}.")
    if format == "jpeg":
        typer.echo(
            "JPEG changes pixels: part of the noise is lost, and the bound rho_u no longer holds. "
            "Publish PNG where you can."
        )
    if format == "noise":
        typer.echo("This is the noise: whoever has it can subtract it. Keep it private.")
    typer.echo(f"The seed is in {outcome.private}. Keep it private: with it the noise can be computed.")


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

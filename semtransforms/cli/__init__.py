"""The command line: `semtransforms demo | fit | protect | evaluate | list | show | push`."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Make image datasets unlearnable with Stable Error-Minimizing noise.",
)

SOURCE_HELP = (
    "Image folder with one sub-folder per class, datasets folder, Parquet, name on the Hugging Face Hub, "
    "or torchvision:NAME:ROOT."
)

SourceArgument = Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCE_HELP, show_default=False)]
GENERATOR_HELP = "Folder of your own, org/name or org/name@revision on the Hub, or a name of `semtransforms list`."
Generator = Annotated[str, typer.Option(help=GENERATOR_HELP)]
Split = Annotated[str | None, typer.Option(help="Part to read, where SOURCE has parts. Default: train.")]
ImageColumn = Annotated[str | None, typer.Option(help="Column of the images, where SOURCE has columns.")]
LabelColumn = Annotated[str | None, typer.Option(help="Column of the labels, where SOURCE has columns.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1. Default: CUDA if present.")]


@contextmanager
def one_line_errors(interrupted: str = "interrupted") -> Iterator[None]:
    """Turn the errors a user can mend into one line on stderr and exit code 2, warnings into one line each."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: typer.echo(f"warning: {message}", err=True)
        try:
            yield
        except (ValueError, TypeError, OSError, ModuleNotFoundError, FloatingPointError) as error:
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(2) from error
        except RuntimeError as error:
            # torch's word for what a device cannot do or hold; any other is a mistake of ours, and keeps its traceback
            if not re.search(r"CUDA|NVIDIA|out of memory|not linked with|backend", str(error)):
                raise
            first = str(error).partition("\n")[0]
            typer.echo(f"error: --device: {first} Another device, such as --device cpu, may do.", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt:
            typer.echo(interrupted, err=True)
            raise typer.Exit(130) from None


@app.command("demo")
def demo_command(
    out: Annotated[Path, typer.Option(help="Folder for the picture.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    device: Device = None,
) -> None:
    """Protect 1,402 scanned digits and train a network on the clean and on the protected copy (under a minute)."""
    with one_line_errors():
        from semtransforms.cli.demo import run_demo
        from semtransforms.core.files import making_folder

        with making_folder(out, "--out"):
            result = run_demo(out, device=device, progress=not as_json)
        if as_json:
            typer.echo(json.dumps(result))
            return
        rows = [["trained on", "test accuracy", "train accuracy", "seconds"]]
        for copy, victim in result["victims"].items():
            accuracies = [f"{victim[part]:.1%}" for part in ("test_accuracy", "train_accuracy")]
            rows.append([copy, *accuracies, f"{victim['seconds']:.1f}"])
        typer.echo(_table(rows))
        typer.echo(
            f"{result['train_images']} images protected within rho_u = {result['rho_u']} by {result['generator']} "
            f"in {result['protect_seconds']:.1f} s; {result['test_images']} clean test images; "
            f"{result['seconds']:.0f} s in all.\nPicture: {result['picture']}"
        )


@app.command()
def fit(
    source: SourceArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the generator.", show_default=False)],
    method: Annotated[str, typer.Option(help="Row of the table of methods: sem-plus, sem, rem, em, ...")] = "sem-plus",
    rho_u: Annotated[str | None, typer.Option(help="Radius of the noise, as in 8/255.")] = None,
    rho_a: Annotated[str | None, typer.Option(help="Radius of the adversary, as in 4/255.")] = None,
    steps_u: Annotated[int | None, typer.Option(help="PGD steps of the noise (K_u).")] = None,
    steps_a: Annotated[int | None, typer.Option(help="PGD steps of the adversary (K_a).")] = None,
    num_samples: Annotated[int | None, typer.Option(help="Transformations per gradient (J); ntga: networks.")] = None,
    surrogate: Annotated[str | None, typer.Option(help="Network, as in convnet; ntga: ntk-fnn or ntk-cnn.")] = None,
    width: Annotated[int | None, typer.Option(help="Its width, for networks that have one.")] = None,
    size: Annotated[int | None, typer.Option(help="Resize and crop to a square of so many pixels.")] = None,
    train_steps: Annotated[int | None, typer.Option(help="Surrogate updates (M); ntga: the time t.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per update; ntga: per block.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32 or bf16.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the fit; the seed of a protection is another one.")] = None,
    checkpoint_dir: Annotated[Path | None, typer.Option(help="Where to keep checkpoints; none without it.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --checkpoint-dir.")] = False,
    split: Split = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    device: Device = None,
) -> None:
    """Fit a noise generator on your own images; what is not given is the method's."""
    with one_line_errors():
        from semtransforms.noise.methods import method as preset_of
        from semtransforms.noise.methods import unused_options, with_effort

        preset = preset_of(method)
        effort: dict[str, Any] = {
            "rho_u": None if rho_u is None else _radius("rho_u", rho_u),
            "rho_a": None if rho_a is None else _radius("rho_a", rho_a),
            "steps_u": steps_u, "steps_a": steps_a, "train_steps": train_steps,
        }  # fmt: skip
        others: dict[str, Any] = {
            "num_samples": num_samples, "surrogate": surrogate, "width": width, "batch_size": batch_size,
            "precision": precision, "seed": seed,
        }  # fmt: skip
        unused = unused_options(preset)
        for name, value in {**effort, **others}.items():
            if value is not None and name in unused:
                raise ValueError(f"--{name.replace('_', '-')} is not used by --method {method}. Leave it out.")
        given = {name: value for name, value in others.items() if value is not None}
        config = replace(with_effort(preset, **effort), **given)
        if size is not None:
            if size < 1:
                raise ValueError(f"--size must be at least 1 pixel, got {size}.")
            config = replace(config, image_size=(size, size))
        if resume and checkpoint_dir is None:
            raise ValueError("--resume needs --checkpoint-dir, the folder the interrupted fit wrote to.")
        out = out.expanduser()
        if os.path.exists(out) and (not out.is_dir() or any(out.iterdir())):
            raise ValueError(f"OUT {str(out)!r} exists and is not an empty folder. Choose another name.")

        from semtransforms.core.files import making_folder
        from semtransforms.data.sources import open_source
        from semtransforms.generators.fitting import fit_generator

        with making_folder(out, "OUT"):
            images = open_source(source, split=split, image_column=image_column, label_column=label_column)
            generator = fit_generator(images, config, checkpoint_dir=checkpoint_dir, resume=resume, device=device)
            folder = generator.save_pretrained(out)
        typer.echo(f"Generator written to {folder}. Next: semtransforms protect SOURCE OUT --generator {folder}")


@app.command()
def protect(
    source: SourceArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="What to write; new or empty.", show_default=False)],
    generator: Generator,
    format: Annotated[
        str,
        typer.Option(
            help="png: image folder. parquet, datasets: one Parquet file or datasets folder. noise: the noise alone, "
            "to be kept private. jpeg: costs protection."
        ),
    ] = "png",
    seed: Annotated[int | None, typer.Option(help="Default: fresh and secret, as a real protection needs it.")] = None,
    cache_dir: Annotated[Path | None, typer.Option(help="Private folder for the seed.")] = None,
    split: Split = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    device: Device = None,
) -> None:
    """Write a protected copy of a labelled image collection, ready to be published.

    Every image becomes upright 8-bit RGB (transparency is kept). An interrupted run goes on when started again.
    """
    with one_line_errors("interrupted: the same command goes on from here"):
        from semtransforms.data.sources import open_source
        from semtransforms.data.store import default_cache_dir
        from semtransforms.generators.generator import NoiseGenerator
        from semtransforms.protect.publish import FORMATS, protect_source

        if format not in FORMATS:
            jpeg = " JPEG costs protection; if you must have it, write --format jpeg." if format.startswith("j") else ""
            raise ValueError(f"--format must be one of {', '.join(FORMATS)}, got {format!r}.{jpeg}")
        noise_maker = NoiseGenerator.from_pretrained(generator, device=device)
        images = open_source(source, split=split, image_column=image_column, label_column=label_column)
        private = (cache_dir or default_cache_dir()) / "protections"
        outcome = protect_source(images, out, noise_maker, format=format, seed=seed, private=private, device=device)
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
        if images.other_columns:
            typer.echo(f"Columns not copied: {', '.join(images.other_columns)}.")
        if format == "jpeg":
            typer.echo(
                "JPEG changes pixels: part of the noise is lost, and the bound rho_u no longer holds. "
                "Publish PNG where you can."
            )
        if format == "noise":
            typer.echo("This is the noise: whoever has it can subtract it. Keep it private.")
        typer.echo(f"The seed is in {outcome.private}. Keep it private: with it the noise can be computed.")
        if outcome.failed:
            raise typer.Exit(1)


@app.command()
def evaluate(
    source: SourceArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the report; new, empty or one to go on with.",
                                        show_default=False)],
    test: Annotated[str, typer.Option(help="Clean test images of the same classes, as SOURCE is given.")],
    generator: Annotated[str | None, typer.Option(help=GENERATOR_HELP)] = None,
    protected: Annotated[str | None, typer.Option(help="A copy protected already, instead of --generator.")] = None,
    victims: Annotated[str, typer.Option(help="Comma-separated: standard, adversarial-2/255, adversarial-l2-0.5, "
                                         "early-stopping.")] = "standard",
    countermeasures: Annotated[str, typer.Option(help="Comma-separated: none, greyscale, jpeg-75, mean, cutout, "
                                                 "informed-same-seed, ...; joined with +.")] = "none",
    seeds: Annotated[str, typer.Option(help="Comma-separated seeds of the victims.")] = "0,1,2",
    protocol: Annotated[str, typer.Option(help="quick (20 epochs) or paper (40,000 updates).")] = "quick",
    network: Annotated[str, typer.Option(help="The trainer's network; convnet suits a CPU.")] = "resnet18",
    width: Annotated[int | None, typer.Option(help="Its width, for networks that have one.")] = None,
    size: Annotated[int | None, typer.Option(help="Resize and crop to a square of so many pixels.")] = None,
    protection_seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    copy_name: Annotated[str | None, typer.Option(help="What the protected copy is called in the report.")] = None,
    cache_dir: Annotated[Path | None, typer.Option(help="Private folder for the noise.")] = None,
    split: Split = None,
    test_split: Annotated[str | None, typer.Option(help="Part of --test to read, where it has parts. Default: test "
                                                   "where SOURCE and --test are one name, else train.")] = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    device: Device = None,
) -> None:  # fmt: skip
    """Play the unauthorised trainer: what does a network still learn from the protected copy?

    Writes report.html, report.md and report.json. An interrupted evaluation goes on when started again.
    """
    with one_line_errors("interrupted: the same command goes on from here"):
        from semtransforms.data.sources import open_source
        from semtransforms.evaluation.protocol import evaluate as run_evaluation

        if generator is None and protected is None:
            raise ValueError("--generator or --protected must say which copy is to be judged.")
        columns = {"image_column": image_column, "label_column": label_column}
        if test_split is None and test == source and not Path(source).expanduser().is_dir():
            test_split = "test"
        report = run_evaluation(
            open_source(source, split=split, **columns),
            generator,
            test=open_source(test, split=test_split, **columns),
            protected=None if protected is None else open_source(protected, split=split, **columns),
            victims=_words("victims", victims),
            countermeasures=_words("countermeasures", countermeasures),
            seeds=_seeds(seeds),
            protocol=protocol,
            network=network,
            width=width,
            protection_seed=protection_seed,
            image_size=None if size is None else (size, size),
            name=Path(source).name or source,
            copy_name=copy_name,
            out=out,
            cache_dir=cache_dir,
            device=device,
        )
        typer.echo("\n".join(report.verdict()))
        typer.echo(f"Report: {out / 'report.html'}")


@app.command("list")
def list_generators() -> None:
    """List the generators that have a short name."""
    with one_line_errors():
        from semtransforms.core.grid import levels
        from semtransforms.generators.card import in_short
        from semtransforms.generators.names import available

        rows = [["name", "method", "data", "classes", "size", "surrogate", "rho_u", "rho_a", "KiB", "place",
                 "trainer protected (clean), in %"]]  # fmt: skip
        for row in available():
            facts = [
                row["name"], row["method"], row["data"], row["num_classes"], row["image_size"] and
                "x".join(map(str, row["image_size"])), row["surrogate"],
                *(row[rho] is not None and f"{levels(row[rho])}/255" for rho in ("rho_u", "rho_a")),
                row["bytes"] and f"{row['bytes'] / 1024:.0f}", row["place"], in_short(row["measured"]),
            ]  # fmt: skip
            rows.append([str(fact or "?") for fact in facts])
        typer.echo(_table(rows))


@app.command()
def show(
    source: SourceArgument,
    generator: Generator,
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("semtransforms.png"),
    index: Annotated[list[int] | None, typer.Option(help="Which image; may be repeated.")] = None,
    number: Annotated[int, typer.Option("-n", help="How many, spread over SOURCE, without --index.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the noise shown.")] = 0,
    split: Split = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    device: Device = None,
) -> None:
    """Draw clean images, their noise and their protected copies side by side."""
    with one_line_errors():
        if out.suffix.lower() != ".png":
            raise ValueError(f"--out must end in .png, got {str(out)!r}: other formats would change the pixels shown.")
        if number < 1:
            raise ValueError(f"-n must be at least 1, got {number}.")
        if not os.path.isdir(out.parent):
            raise ValueError(f"--out {str(out)!r} lies in no folder. Make {str(out.parent)!r} first.")
        from semtransforms.core.files import explained
        from semtransforms.data.raw import read_sample
        from semtransforms.data.sources import open_source
        from semtransforms.generators.generator import NoiseGenerator
        from semtransforms.protect.batch import protect_batch
        from semtransforms.protect.figures import side_by_side
        from semtransforms.protect.publish import check_classes

        noise_maker = NoiseGenerator.from_pretrained(generator, device=device)
        images = open_source(source, split=split, image_column=image_column, label_column=label_column)
        labels = check_classes(images, noise_maker)
        count = min(number, len(images))
        chosen = index or [k * len(images) // count for k in range(count)]
        beyond = [i for i in chosen if not 0 <= i < len(images)]
        if beyond:
            raise ValueError(f"--index must be in 0..{len(images) - 1}, got {beyond[0]}.")
        pixels = [read_sample(images, i)[0] for i in chosen]
        batch = protect_batch(pixels, labels[chosen], noise_maker, seed=seed, device=device)
        names = images.classes or noise_maker.classes
        captions = [names[label] if names else str(label) for label in labels[chosen].tolist()]
        picture = side_by_side(pixels, batch.noise, captions)
        with explained("--out", out):
            picture.save(out, format="PNG")
        typer.echo(f"Picture: {out}")


@app.command()
def push(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="What `semtransforms fit` wrote.",
                                          show_default=False)],
    repository: Annotated[str, typer.Argument(metavar="ORG/NAME", help="On the Hub; made if missing.",
                                              show_default=False)],
    private: Annotated[bool, typer.Option("--private", help="Readable by you and your organisation only.")] = False,
) -> None:  # fmt: skip
    """Publish a generator on the Hugging Face Hub: whoever has it can wash its noise out.

    Log in with `hf auth login` first, or set HF_TOKEN.
    """
    with one_line_errors():
        from semtransforms.generators.generator import NoiseGenerator

        generator = NoiseGenerator.from_pretrained(folder, device="cpu")
        typer.echo(generator.push_to_hub(repository, private=private or None))


def _words(option: str, text: str) -> list[str]:
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


def _seeds(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ValueError(f"--seeds must be comma-separated whole numbers, got {text!r}.") from None


def _radius(name: str, text: str) -> float:
    from semtransforms.core.config import parse_radius

    try:
        return parse_radius(text)
    except ValueError as error:
        raise ValueError(f"--{name.replace('_', '-')}: {error}") from None


def _table(rows: list[list[str]]) -> str:
    """Columns of equal width, headings first."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


if __name__ == "__main__":
    app()

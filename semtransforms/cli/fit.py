"""``semtransforms fit``: a generator for one's own images."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semtransforms.cli.errors import one_line_errors
from semtransforms.cli.options import (
    Device,
    ImageColumn,
    LabelColumn,
    PretrainedSurrogates,
    Size,
    Source,
    Split,
    Width,
    parse_pretrained,
)

if TYPE_CHECKING:
    from semtransforms.core.config import GeneratorConfig
    from semtransforms.generators.generator import NoiseGenerator

Out = Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the generator.", show_default=False)]
Method = Annotated[str, typer.Option(help="Row of the table of methods: sem-plus, sem, rem, em, ...")]
RhoU = Annotated[str | None, typer.Option(help="Radius of the noise, as in 8/255.")]
RhoA = Annotated[str | None, typer.Option(help="Radius of the adversary, as in 4/255.")]
StepsU = Annotated[int | None, typer.Option(help="PGD steps of the noise (K_u).")]
StepsA = Annotated[int | None, typer.Option(help="PGD steps of the adversary (K_a).")]
NumSamples = Annotated[int | None, typer.Option(help="Transformations per gradient (J); ntga: networks.")]
Surrogate = Annotated[str | None, typer.Option(help="Network, as in convnet; ntga: ntk-fnn or ntk-cnn.")]
TrainSteps = Annotated[int | None, typer.Option(help="Surrogate updates (M); ntga: the time t.")]
BatchSize = Annotated[int | None, typer.Option(help="Images per update; ntga: per block.")]
Precision = Annotated[str | None, typer.Option(help="auto, fp32 or bf16.")]
Seed = Annotated[int | None, typer.Option(help="Of the fit; the seed of a protection is another one.")]
CheckpointDir = Annotated[Path | None, typer.Option(help="Where to keep checkpoints; none without it.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --checkpoint-dir.")]


def fit_command(
    source: Source,
    out: Out,
    method: Method = "sem-plus",
    rho_u: RhoU = None,
    rho_a: RhoA = None,
    steps_u: StepsU = None,
    steps_a: StepsA = None,
    num_samples: NumSamples = None,
    surrogate: Surrogate = None,
    width: Width = None,
    pretrained_surrogate: PretrainedSurrogates = None,
    size: Size = None,
    train_steps: TrainSteps = None,
    batch_size: BatchSize = None,
    precision: Precision = None,
    seed: Seed = None,
    checkpoint_dir: CheckpointDir = None,
    resume: Resume = False,
    split: Split = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    device: Device = None,
) -> None:
    """Fit a noise generator on your own images; what is not given is the method's.

    Of images of mixed sizes the fit sees the middle, a square of 64 px, unless --size says otherwise. On several
    devices: torchrun --nproc-per-node 2 -m semtransforms fit ...; the generator is the same.
    """
    effort = {"rho_u": rho_u, "rho_a": rho_a, "steps_u": steps_u, "steps_a": steps_a, "train_steps": train_steps}
    others: dict[str, Any] = {
        "num_samples": num_samples, "surrogate": surrogate, "width": width, "batch_size": batch_size,
        "precision": precision, "seed": seed,
    }  # fmt: skip
    with one_line_errors():
        if pretrained_surrogate:
            others["pretrained"] = parse_pretrained(pretrained_surrogate)
        config = _config(method, effort, others, size)
        if resume and checkpoint_dir is None:
            raise ValueError("--resume needs --checkpoint-dir, the folder the interrupted fit wrote to.")
        columns = {"split": split, "image_column": image_column, "label_column": label_column}
        how = {"checkpoint_dir": checkpoint_dir, "resume": resume, "device": device}
        _fit(source, columns, config, how, out)


def _fit(source: str, columns: dict[str, Any], config: GeneratorConfig, how: dict[str, Any], out: Path) -> None:
    """Fit and save; where torchrun has started several processes, the first has the folder and the words."""
    from semtransforms.core.files import alone_in, explained, making_folder, sweep
    from semtransforms.core.sharing import started
    from semtransforms.data.sources import open_source
    from semtransforms.generators.fitting import fit_generator

    share = started()

    def fitted() -> NoiseGenerator:
        return fit_generator(open_source(source, **columns), config, distributed=share.world > 1, **how)

    if not share.writes:
        fitted()
        return
    out = _new_or_empty(out, how["resume"])
    with making_folder(out, "OUT", mode=0o700), alone_in(out, "OUT") as alone:
        if alone:
            sweep(out)
        generator = fitted()
        with explained("OUT", out):
            folder = generator.save_pretrained(out)
    height, width = generator.config.image_size or (0, 0)
    typer.echo(f"Fitted on images of {width}x{height} px.")
    typer.echo(f"Generator written to {folder}. Next: semtransforms protect SOURCE OUT --generator {folder}")


def _config(method: str, effort: dict[str, Any], others: dict[str, Any], size: int | None) -> GeneratorConfig:
    """The method's config, changed by what was given.

    Args:
        method: its name.
        effort: what step sizes and schedule follow; the radii as typed. ``None`` is not given.
        others: fields that change alone; likewise.
        size: side of the square that images are cut to, in pixels.

    Raises:
        ValueError: an option's value is wrong, or the method does not use it.
    """
    from semtransforms.core.checks import check_integer
    from semtransforms.noise.methods import method as preset_of
    from semtransforms.noise.methods import unused_options, with_effort

    preset = preset_of(method)
    effort = {name: value for name, value in effort.items() if value is not None}
    others = {name: value for name, value in others.items() if value is not None}
    for name in ("rho_u", "rho_a"):
        if name in effort:
            effort[name] = _radius(_option(name), effort[name])
    unused = unused_options(preset)
    for name in (*effort, *others):
        if name in unused:
            raise ValueError(f"{_option(name)} is not used by --method {method}. Leave it out.")
    if size is not None:
        check_integer("--size", size, low=1)
        others["image_size"] = (size, size)
    return replace(with_effort(preset, **effort), **others)


def _option(name: str) -> str:
    """The option of a config's field."""
    return f"--{name.replace('_', '-')}"


def _radius(option: str, text: str) -> float:
    from semtransforms.core.checks import parse_radius

    try:
        return parse_radius(text)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def _new_or_empty(out: Path, resume: bool) -> Path:
    """The folder to write to, ``~`` spelled out; with ``resume`` it may hold part of the generator that was written."""
    out = out.expanduser()
    held = {path.name: path for path in out.iterdir()} if out.is_dir() else {}
    if resume and held:
        from semtransforms.core.files import is_unfinished
        from semtransforms.core.hub import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE

        parts = {CONFIG_FILE, WEIGHTS_FILE, CARD_FILE}
        # a kill leaves some of them, and others unfinished; whole, or with none unfinished, they are something else
        if not parts <= held.keys() and any(map(is_unfinished, held.values())):
            held = {name: path for name, path in held.items() if name not in parts and not is_unfinished(path)}
    if held or (os.path.exists(out) and not out.is_dir()):
        holds = f" (it holds {next(iter(held))!r})" if held else ""
        raise ValueError(f"OUT {str(out)!r} exists and is not an empty folder{holds}. Choose another name.")
    return out

"""One call for an owner: look, plan, fit a private generator, protect, check.

What is private lies in ``<private>/generators/<name of the folder>-<hash>/``: the plan, the checkpoint of an unfinished
fit, the generator, the reports. Each step goes on where a kill has left it.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from semtransforms.core.ahead import ahead
from semtransforms.core.checks import whole_seed
from semtransforms.core.config import GeneratorConfig, PretrainedSurrogate
from semtransforms.core.files import alone_in, explained, read_json, sweep, to_json, write_atomically
from semtransforms.core.grid import levels
from semtransforms.core.models import MODELS
from semtransforms.core.private import making_private, refuse_link, tighten
from semtransforms.data.opening import MOST_PIXELS
from semtransforms.data.remote import Place, place_of
from semtransforms.data.sources import open_source
from semtransforms.data.store import default_cache_dir
from semtransforms.generators.fitting import fit_generator
from semtransforms.generators.generator import NoiseGenerator
from semtransforms.noise.guided import check_pretrained, named
from semtransforms.photographs.check import TRAINER, Checked, check_copy, seconds_of_check
from semtransforms.photographs.look import Found, Say, check_enough, look, read_squares
from semtransforms.photographs.plan import Plan, in_words, make_plan, measure_files, measure_noise, measure_passes
from semtransforms.protect.checksums import read_checksums
from semtransforms.protect.finished import Line
from semtransforms.protect.formats import FORMATS, pick_quality
from semtransforms.protect.places import check_places, check_room
from semtransforms.protect.publish import MANIFEST, Outcome, check_all_there, check_limits, protect_source
from semtransforms.protect.shelves import shelf_at
from semtransforms.views.resize import NOISE_SIZE, NoiseScale

SMALLEST = MODELS["convnet"].smallest  # px, of the surrogate that a plan has

CHECKED_FORMATS = ("png", "jpeg")  # one file for each photograph
NAME_LENGTH = 50  # characters; four bytes each at most

Columns = Mapping[str, str | None]


@dataclass(frozen=True)
class Protection:
    """What one call did.

    Args:
        found: the photographs, and what was left out.
        outcome: what was written, and where the seed is.
        checked: the verdict and its report.
        generator: the folder of the private generator.
    """

    found: Found
    outcome: Outcome
    checked: Checked
    generator: Path


def protect_photographs(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    minutes: float = 20,
    pretrained: Sequence[PretrainedSurrogate] = (),
    private: str | os.PathLike[str] | None = None,
    seed: int | None = None,
    rho_u: float | None = None,
    format: str = "png",
    quality: int | None = None,
    visibility: float = 1.0,
    workers: int = 0,
    max_megapixels: float = MOST_PIXELS / 1e6,
    columns: Columns | None = None,
    device: str | None = None,
    progress: bool = True,
) -> Protection:
    """Protect photographs with a generator that is fitted for them, and check what a trainer still learns.

    Called again, it goes on, even after ``kill -9``. More photographs of the same classes get the same generator.

    Args:
        source: an image folder, or what else :func:`semtransforms.data.sources.open_source` takes.
        out: folder to write the protected copies to, or the address of one; must be empty, or begun by this call.
        minutes: for the fit; protecting and checking take as long as they take, and the plan says how long.
        pretrained: networks with pretrained weights that noise is driven against too.
        private: folder for what must not be published: generator, seed, reports. Default: where noise is kept.
        seed: of the fit and the noise; ``None`` for fresh ones that nobody can guess.
        rho_u: radius of the noise, a fraction of the pixel range; default: 8/255, the only one that was measured here.
        format: ``"png"`` or ``"jpeg"``.
        quality, visibility, workers, max_megapixels: as for :func:`~semtransforms.protect.publish.protect_source`.
        columns: ``split``, ``image_column`` and ``label_column``, as for ``open_source``.
        device, progress: where to compute, default: CUDA if present; show bars, and say what was found and is done.

    Returns:
        What was found and done, with the verdict.

    Raises:
        ValueError: before any long work: too few photographs, classes or minutes; a generator of other classes.
        OSError: ``out`` or ``private`` cannot be written, or the disk has not enough room.
    """
    _check_options(format, quality, workers, max_megapixels, visibility, seed)
    columns = {name: value for name, value in (columns or {}).items() if value is not None}
    images = replace(open_source(os.fspath(source), **columns), most_pixels=round(max_megapixels * 1e6))
    target, hidden = place_of(os.fspath(out)), (default_cache_dir() if private is None else Path(private)).expanduser()
    check_places(images, target, hidden)
    check_pretrained(pretrained)
    say: Say = tqdm.write if progress else lambda line: None
    say("\n".join((found := look(images, SMALLEST, progress=progress)).describe()))
    check_enough(found)
    with _private_folder(hidden / "generators", os.fspath(source), columns) as folder:
        maker = _Maker(folder, tuple(pretrained), rho_u, device, progress, say)
        generator = maker.find(found) or maker.fit(found, maker.plan(found, minutes, seed, target, format, quality))
        outcome = protect_source(
            images, target, generator, format=format, quality=quality, seed=seed, private=hidden / "protections",
            visibility=visibility, device=device, workers=workers, max_megapixels=max_megapixels,
        )  # fmt: skip
        checked = maker.check(found, generator.config, target, format)
    return Protection(found, outcome, checked, maker.generator)


def plan_photographs(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    minutes: float = 20,
    private: str | os.PathLike[str] | None = None,
    rho_u: float | None = None,
    format: str = "png",
    quality: int | None = None,
    device: str | None = None,
) -> list[str]:
    """Say what :func:`protect_photographs` would do and how long it would take here; nothing is fitted, none is kept.

    Args:
        source, out, minutes, private, rho_u, format, quality, device: as there.

    Returns:
        Lines for the owner.

    Raises:
        ValueError, OSError: as there, before any long work.
    """
    lines: list[str] = []
    images, target = open_source(os.fspath(source)), place_of(os.fspath(out))
    hidden = (default_cache_dir() if private is None else Path(private)).expanduser()
    check_places(images, target, hidden)
    found = look(images, SMALLEST)
    check_enough(found)
    with _private_folder(hidden / "generators", os.fspath(source), {}) as folder:
        maker = _Maker(folder, (), rho_u, device, False, lines.append)
        if maker.find(found) is None:
            maker.plan(found, minutes, None, target, format, quality, keep=False)
    return lines


def _check_options(
    format: str, quality: int | None, workers: int, max_megapixels: float, visibility: float, seed: int | None
) -> None:
    """Find out now what protecting would refuse behind the fit."""
    if format not in CHECKED_FORMATS:
        raise ValueError(
            f"format (--format) must be one of {', '.join(CHECKED_FORMATS)}, got {format!r}: the check reads them. "
            "For others fit a generator (semtransforms fit), and give it with --generator."
        )
    pick_quality(format, quality)
    check_limits(workers, max_megapixels)
    NoiseScale(NOISE_SIZE, 0, visibility)
    if seed is not None:
        whole_seed("seed", seed)


@contextmanager
def _private_folder(generators: Path, source: str, columns: Columns) -> Iterator[Path]:
    """The private folder of these photographs, however their folder is spelled; readable by its owner only."""
    place = Path(source).expanduser()
    place = place.resolve() if place.exists() else Path(source)
    # cut: a name of 255 bytes, the most that disks take, would leave no room for the rest
    folder = generators / f"{place.name[:NAME_LENGTH]}-{_digest([str(place), columns])}"
    refuse_link(folder, "--cache-dir")
    with (
        making_private(generators, "--cache-dir"),
        making_private(folder, "--cache-dir"),
        alone_in(folder, "the private folder"),
    ):
        sweep(folder)
        try:
            yield folder
        finally:
            tighten(folder, "--cache-dir")  # a report's files are written as they are anywhere


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]


def seed_of_fit(seed: int) -> int:
    """The seed of the fit where that of the noise is given, which the generator's own config must not tell."""
    return int.from_bytes(hashlib.sha256(f"fit {seed}".encode()).digest()[:8], "big") >> 1


def _side(config: GeneratorConfig) -> int:
    """S: at least as large as what pretrained surrogates see."""
    assert config.image_size is not None  # a plan has it, and so has a generator
    return max(min(config.image_size), config.pretrained_side)


@dataclass(frozen=True)
class _Maker:
    """What is done in the private folder: the generator is found, or planned and fitted, and the copies are checked."""

    folder: Path
    pretrained: tuple[PretrainedSurrogate, ...]
    rho_u: float | None
    device: str | None
    progress: bool
    say: Say

    @property
    def generator(self) -> Path:
        """Where it lies once it is finished."""
        return self.folder / "generator"

    def find(self, found: Found) -> NoiseGenerator | None:
        """The finished generator, if there is one.

        Raises:
            ValueError: it was fitted for other classes, with other pretrained surrogates, or another radius.
        """
        if not self.generator.is_dir():
            return None
        generator = NoiseGenerator.from_pretrained(self.generator, device=self.device)
        before, now = generator.classes or tuple(map(str, range(generator.num_classes))), found.classes
        if before != now:
            differing = [f"new: {name}" for name in now if name not in before]
            differing += [f"gone: {name}" for name in before if name not in now]
            raise ValueError(
                f"SOURCE has other classes than those that its generator {str(self.generator)!r} was fitted for "
                f"({', '.join(differing) or 'in another order'}). Noise is made for a class, so a new generator is "
                "needed: give another --cache-dir and an empty OUT, and it is fitted there."
            )
        if self.pretrained and named(generator.config, self.pretrained) != generator.config:
            raise ValueError(
                f"pretrained (--pretrained-surrogate): the generator {str(self.generator)!r} was fitted with "
                f"{[each.network for each in generator.config.pretrained] or 'none'}, or with other weights. Leave it "
                "out, or give another --cache-dir and an empty OUT, and a new one is fitted there."
            )
        if self.rho_u is not None and levels(self.rho_u) != (fitted := levels(generator.config.rho_u)):
            raise ValueError(
                f"rho_u must be {fitted}/255, for which the generator {str(self.generator)!r} was fitted, got "
                f"{255 * self.rho_u:g}/255. Give another --cache-dir and an empty OUT, and a new one is fitted there."
            )
        self._checkpoint.unlink(missing_ok=True)  # a kill behind the fit leaves it
        self.say(f"The generator of these classes is used again: {self.generator}")
        read, write = measure_files(found, _side(generator.config))
        passes = measure_passes(replace(generator.config, width=TRAINER.width), self.device)
        noise = measure_noise(generator.config, generator.surrogate, self.device)
        self._expect(found, generator.config, passes, read, write, noise, fit=0)
        return generator

    def plan(
        self,
        found: Found,
        minutes: float,
        seed: int | None,
        out: Place,
        format: str,
        quality: int | None,
        *,
        keep: bool = True,
    ) -> Plan:
        """Plan a fit or take up the one that was begun, and say how long everything will take.

        Raises:
            ValueError: ``out`` holds something, or the minutes are too few.
            OSError: ``out`` cannot be written, or the disk has not enough room for the copies.
        """
        shelf = shelf_at(out)
        if shelf.first() is not None:  # found out now, not behind the fit
            raise ValueError(f"OUT {str(out)!r} is not empty. Choose an empty folder.")
        with shelf.made():  # so that one that cannot be written is found out now, too
            check_room(found.source, out, len(found.rows), FORMATS[format], quality)
            read, write = measure_files(found, NOISE_SIZE)
            plan = self._begun(found) or self._begin(found, minutes, seed, read, keep)
        self.say(plan.describe())
        noise, fit = measure_noise(plan.config, device=self.device), plan.fit_seconds + found.pixels * read
        self._expect(found, plan.config, plan.check_passes, read, write, noise, fit=fit)
        return plan

    def fit(self, found: Found, plan: Plan) -> NoiseGenerator:
        """Carry a planned fit through, from its checkpoint on if there is one."""
        photographs = read_squares(found, _side(plan.config), self.progress, self.say)
        generator = fit_generator(
            photographs,
            plan.config,
            checkpoint_dir=self.folder,
            resume=True,
            checkpoint_every=plan.checkpoint_every,
            device=self.device,
            progress=self.progress,
        )
        with explained("--cache-dir", self.folder):
            unfinished = self.folder / "generator.unfinished"
            if unfinished.is_symlink():  # not ours
                unfinished.unlink()
            shutil.rmtree(unfinished, ignore_errors=True)
            generator.save_pretrained(unfinished)
            os.replace(unfinished, self.generator)
            self._checkpoint.unlink(missing_ok=True)
        return NoiseGenerator.from_pretrained(self.generator, device=self.device)

    def check(self, found: Found, config: GeneratorConfig, out: Place, format: str) -> Checked:
        """Check the copies of a format that lie in ``out``."""
        shelf = shelf_at(out)
        files = [out / f"{found.source.names[row]}{FORMATS[format].suffix}" for row in found.rows]
        there = ahead(lambda file: file.is_file(), files, shelf.at_once)
        copies = {row: file for row, file, is_there in zip(found.rows, files, there, strict=True) if is_there}
        # another copy gets another report: the runs of an earlier one are not of this copy
        published = read_checksums(out, read_json(out / MANIFEST))
        folder = self.folder / f"report-{_digest([found.digest, shelf.identity, published])}"
        checked = check_copy(found, copies, config, folder, device=self.device, progress=self.progress)
        check_all_there(out, shelf, map(Line, [MANIFEST, *published]))  # it took minutes
        return checked

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    @property
    def _planned(self) -> Path:
        return self.folder / "plan.json"

    def _begun(self, found: Found) -> Plan | None:
        """The plan of an unfinished fit of these photographs, if there is one."""
        if not self._planned.exists():
            return None
        try:
            plan = Plan.from_dict(read_json(self._planned))
        except ValueError as error:
            raise ValueError(f"{self._planned}: {error}. Remove it, and the fit begins anew.") from error
        if plan.photographs != found.digest:
            self.say("The photographs have changed since a fit was begun: it begins anew.")
        elif plan.config.pretrained != self.pretrained:
            self.say("The pretrained surrogates have changed since a fit was begun: it begins anew.")
        elif self.rho_u is not None and levels(self.rho_u) != levels(plan.config.rho_u):
            self.say("The radius has changed since a fit was begun: it begins anew.")
        elif not plan.is_of_today:
            self.say("The fit was begun by an older version, which fitted otherwise: it begins anew.")
        else:
            self.say(f"The fit of {plan.minutes:g} minutes that was begun goes on.")
            return plan
        return None

    def _begin(self, found: Found, minutes: float, seed: int | None, read: float, keep: bool) -> Plan:
        """A new plan, in the place of what there was of another."""
        plan = make_plan(
            found, minutes, read=read, seed=secrets.randbits(63) if seed is None else seed_of_fit(seed),
            pretrained=self.pretrained, rho_u=self.rho_u, device=self.device,
        )  # fmt: skip
        if keep:
            with explained("--cache-dir", self.folder):
                self._checkpoint.unlink(missing_ok=True)
                write_atomically(self._planned, to_json(plan.to_dict()), mode=0o600)
        return plan

    def _expect(
        self,
        found: Found,
        config: GeneratorConfig,
        passes: float,
        read: float,
        write: float,
        noise: float,
        *,
        fit: float,
    ) -> None:
        """Say how long each step will take, and which photographs are too small for noise of the usual size.

        ``passes`` are those of the network that checks, ``noise`` the seconds that the noise of one image takes.
        """
        small = int((found.sizes.min(axis=1) < _side(config)).sum())
        if small:
            self.say(f"Smaller than {_side(config)} px, with noise that is made at their own size: {small}.")
        protect = found.pixels * write + len(found.rows) * noise
        check = seconds_of_check(found, config, passes=passes, read=read)
        steps = {"fit": fit, "protect": protect, "check": check}
        text = ", ".join(f"{name} {in_words(seconds)}" for name, seconds in steps.items() if seconds)
        self.say(f"Expected: {text}.")

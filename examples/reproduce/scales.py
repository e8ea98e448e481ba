"""The two scales: what a row of the paper means there, in the configs of the package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

from examples.reproduce.data import find, read
from examples.reproduce.protect_photographs import SMALL, TRAINER, VICTIMS
from examples.reproduce.rows import LEVEL, Row
from semtransforms import SEM, GeneratorConfig, VictimConfig
from semtransforms.data.loading import Labelled
from semtransforms.evaluation.victims import paper
from semtransforms.noise.methods import method

# of a preset: how much is computed, which SMALL decides for the methods whose surrogate sees noise
_EFFORT = {"alpha_u", "steps_u", "alpha_a", "steps_a", "train_steps", "decay_every", "batch_size", "learning_rate"}
# a surrogate fitted on clean images makes no noise as it learns, and affords the 40 epochs of TAP's authors (here of
# 10,000 images); a fifth of their noise steps, of five times the size
_ON_CLEAN = {"train_steps": 3_120, "decay_every": 1_200, "steps_u": 50, "alpha_u": 0.32 * LEVEL}

# by the name that a miniature row calls them
_TRAINERS = {
    **VICTIMS,
    "without-augmentation": replace(VICTIMS["standard"], augmentation=()),
    # a tenth of the images, of four times the pixels
    **{f"few-{name}": replace(each, train_steps=min(400, each.train_steps)) for name, each in VICTIMS.items()},
}

# what to protect with (None: the clean copy); the trainer, by a name that no other settings have, and in full
Plan = tuple[GeneratorConfig | None, str, VictimConfig]


@dataclass(frozen=True)
class Scale:
    """How rows are run; its functions are those of a module, since rows run in processes of their own.

    Args:
        name: of the folder of results.
        about: what a reader of the results must know.
        plan: what to run for a row.
        read: training and test images of a dataset.
        find: an error where a dataset is not there.
        stand_ins: datasets in the place of the rows' own.
        checkpoint_every: updates of a fit that a stop may cost.
    """

    name: str
    about: str
    plan: Callable[[Row], Plan]
    read: Callable[[str], tuple[Labelled, Labelled]] = read
    find: Callable[[str], object] = find
    stand_ins: Mapping[str, str] = field(default_factory=dict)
    checkpoint_every: int = 100

    def dataset(self, row: Row) -> str:
        """What is read for a row."""
        return self.stand_ins.get(row.dataset, row.dataset)


def changed(base: GeneratorConfig, changes: Mapping[str, Any]) -> GeneratorConfig:
    """A config with changes; the step size of a changed radius keeps its share of it."""
    steps = {
        f"alpha_{which}": getattr(base, f"alpha_{which}") * (changes[f"rho_{which}"] / getattr(base, f"rho_{which}"))
        for which in "ua"
        if f"rho_{which}" in changes
    }
    return replace(base, **{**steps, **changes})


def miniature(name: str) -> GeneratorConfig:
    """A method at cpu scale: its row of the table of methods on the photographs' ``SMALL``.

    Raises:
        ValueError: unknown method.
    """
    preset = method(name)
    if preset.surrogate != SEM.surrogate:  # a closed form has no surrogate that could be smaller
        return preset
    row = {each.name: getattr(preset, each.name) for each in fields(preset) if each.name not in _EFFORT}
    effort = _ON_CLEAN if preset.fitted_on == "clean" else {}
    return replace(SMALL, **{key: value for key, value in row.items() if value != getattr(SEM, key)}, **effort)


def plan_paper(row: Row) -> Plan:
    """The paper's own setting."""
    trainer = paper(rho_a=row.rho_a * LEVEL, **row.trainer)
    changes = {key.replace("_", " "): "none" if value == () else value for key, value in row.trainer.items()}
    others = [f"{key} {value}" for key, value in changes.items() if key != "network"]
    generator = None if row.method == "clean" else changed(method(row.method), row.generator)
    return generator, ", ".join([f"paper {trainer.network} rho_a {row.rho_a}", *others]), trainer


def plan_cpu(row: Row) -> Plan:
    """The miniature of a row that has one."""
    assert row.cpu is not None  # no seeds are wanted of the others
    generator = None if row.method == "clean" else changed(miniature(row.method), row.cpu.generator)
    return generator, row.cpu.victim, _TRAINERS[row.cpu.victim]


SCALES = {
    "paper": Scale(
        "paper",
        "The paper's own setting: its datasets, ResNet-18 as surrogate, 40,000 updates of the victim.",
        plan_paper,
    ),
    "cpu": Scale(
        "cpu",
        "A miniature on the first 10,000 rows of cifar10-jpeg (CIFAR-10 re-encoded once as JPEG); surrogate a "
        f"{SMALL.surrogate} of width {SMALL.width}, {SMALL.train_steps} updates against {255 * SMALL.rho_a:g}/255 "
        f"unless the row says otherwise (TAP's: {_ON_CLEAN['train_steps']:,} on the clean images, with "
        f"{_ON_CLEAN['steps_u']} steps of noise); victim a {TRAINER.network} of width {TRAINER.width}. **Only the "
        "order of the figures can be compared with the paper's**, and the victim may have another radius than the "
        "published one: both stand in the row. Table 8's stand-in for Facescrub is faces10 (ten people of another "
        "collection, 102 and 18 photographs each, as in the paper) at 64 px. Rows without a miniature are not measured "
        "here.",
        plan_cpu,
        read=partial(read, rows=10_000),
        stand_ins={"cifar10": "cifar10-jpeg", "facescrub": "faces10"},
        checkpoint_every=25,
    ),
}

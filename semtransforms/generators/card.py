"""The model card of a generator: what its ``README.md`` says on the Hub.

It is written from the config and from ``NoiseGenerator.card``, which knows these keys, all optional:

- ``data``, ``source``: what it was fitted on, in a word; whose the images are, their licence, how many were used.
- ``datasets``, ``license``: names of data sets on the Hub (a list); the licence of the weights, as the Hub writes it.
- ``fitted_by``, ``measured_by``, ``measured_on``: the commands, and the machine of the second.
- ``notes``: what else a reader must know of the figures.
- ``measured``: a list of ``{"trainer", "clean", "protected"}``, test accuracies in % of trainers on both copies, a list
  with one entry per seed; and ``"source"``, where the figures come from: for each copy ``FILE.json#/JSON/pointer``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from huggingface_hub import ModelCardData

from semtransforms.core.config import GeneratorConfig
from semtransforms.core.grid import levels
from semtransforms.core.templates import fill
from semtransforms.noise.engine import engine_of

TEMPLATE = Path(__file__).with_name("card.md.jinja")

UNKNOWN = "not recorded"
UNMEASURED = "not measured"

# as in CITATION.cff
CITATION = """@inproceedings{liu2024stable,
  title     = {Stable Unlearnable Example: Enhancing the Robustness of Unlearnable Examples via Stable Error-Minimizing Noise},
  author    = {Liu, Yixin and Xu, Kaidi and Chen, Xun and Sun, Lichao},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  volume    = {38},
  year      = {2024},
  note      = {arXiv:2311.13091}
}"""  # noqa: E501 - a line of BibTeX


def write_card(config: GeneratorConfig, classes: Sequence[str] | None, card: Mapping[str, Any]) -> str:
    """The text of a model card.

    Args:
        config: the generator's.
        classes: label names in order, where known.
        card: facts, by the keys that the module names; what is missing is said to be missing.

    Returns:
        Markdown behind a metadata header.
    """
    header = ModelCardData(
        license=card.get("license"),
        library_name="semtransforms",
        tags=["unlearnable-examples", "data-protection", config.method],
        datasets=card.get("datasets"),
    )
    assert config.num_classes is not None
    assert config.image_size is not None
    measured = card.get("measured", ())
    # whether a trainer who holds it, or some originals, was measured
    washed = any(row["trainer"].startswith("informed") for row in measured)
    paired = any(row["trainer"].startswith("pairs") for row in measured)
    sees = "adversary" in (config.defense_sees, config.surrogate_sees)
    return fill(
        TEMPLATE,
        escape=False,
        header=header.to_yaml(),
        method=config.method.upper(),
        method_name=config.method,
        data=card.get("data", "labelled images"),
        rho_u=levels(config.rho_u),
        rho_a=f"{config.rho_a * 255:g}/255" if sees else "none",
        surrogate=config.surrogate if config.width is None else f"{config.surrogate}, width {config.width}",
        size=" x ".join(map(str, config.image_size)),
        num_classes=config.num_classes,
        last=config.num_classes - 1,
        classes=_cell(", ".join(classes)) if classes else UNKNOWN,
        source=card.get("source", card.get("data", UNKNOWN)),
        fitted_by=_code(card.get("fitted_by")),
        measured_by=_code(card.get("measured_by")),
        measured_on=card.get("measured_on", UNKNOWN),
        notes=f"{card['notes']} " if "notes" in card else "",
        measured=measured,
        washed=washed,
        paired=paired,
        keeps_noise=engine_of(config).keeps_noise,
        citation=CITATION,
        cell=_cell,
        in_words=in_words,
    )


def check_card(card: Any) -> dict[str, Any]:
    """A card as it can be written down.

    Raises:
        ValueError: it is no mapping, holds what JSON cannot, or ``measured`` has another form than the module says.
    """
    if not isinstance(card, Mapping):
        raise ValueError(f"card must be a mapping of facts, got {type(card).__name__}")
    try:
        json.dumps(dict(card), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"card must hold JSON values only ({error})") from None
    if not isinstance(rows := card.get("measured", ()), list | tuple):
        raise ValueError(f'card: "measured" must be a list of rows, got {type(rows).__name__}')
    for row in rows:
        figures = [row.get(copy, []) for copy in ("clean", "protected")] if isinstance(row, Mapping) else [None]
        if (
            not isinstance(row, Mapping)
            or not isinstance(row.get("trainer"), str)
            or any(not isinstance(some, list) or not all(isinstance(x, int | float) for x in some) for some in figures)
        ):
            raise ValueError(
                'card: each of "measured" must be {"trainer": name, "clean": [figures], "protected": [figures]}, got '
                f"{row!r}"
            )
    return dict(card)


def in_words(figures: Sequence[float]) -> str:
    """Accuracies over seeds: mean ± standard deviation and n, a single one alone."""
    if len(figures) < 2:
        return f"{figures[0]:.1f}" if figures else UNMEASURED
    return f"{fmean(figures):.1f} ± {stdev(figures):.1f} (n={len(figures)})"


def in_short(measured: Sequence[Mapping[str, Any]]) -> str:
    """The first row of ``measured``, and the one of the trainer who learns most: protected (clean), in %."""
    known = [row for row in measured if row.get("protected")]
    if not known:
        return UNMEASURED
    worst = max(known, key=lambda row: fmean(row["protected"]))
    rows = [("", known[0])] if worst is known[0] else [("", known[0]), ("most: ", worst)]
    return "; ".join(
        f"{most}{row['trainer']} {in_words(row['protected'])} ({in_words(row.get('clean', ()))})" for most, row in rows
    )


def _cell(text: str) -> str:
    """Text that stays in its cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def _code(command: str | None) -> str:
    return UNKNOWN if command is None else f"`{command}`"

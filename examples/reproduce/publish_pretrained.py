"""Check the folders of ``pretrained/``, and publish them.

    python -m examples.reproduce.publish_pretrained [--to ORG]

What goes to the Hub is the folder's generator and card, saved anew. It is published as ORG/NAME, and the line for
``semtransforms.generators.names.TABLE`` is printed. Log in first (``hf auth login``, or HF_TOKEN).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from semtransforms import NoiseGenerator

ROOT = Path(__file__).parents[2]
FILES = ["README.md", "config.json", "model.safetensors"]
MOST_BYTES = 30 << 20  # of all folders together: they travel in the wheel


def check(folder: Path) -> NoiseGenerator:
    """Whether a folder may be published.

    Args:
        folder: of one generator.

    Returns:
        The generator.

    Raises:
        ValueError: files too many, too few or damaged; a card that says other things than ``config.json``; a figure
            that is not in the file it is said to come from, or was measured with another generator.
    """
    found = sorted(path.name for path in folder.iterdir())
    if found != FILES:
        raise ValueError(f"{folder} must hold {', '.join(FILES)} and nothing else, it holds {', '.join(found)}.")
    generator = NoiseGenerator.from_pretrained(folder, device="cpu")
    with tempfile.TemporaryDirectory() as place:
        again = generator.save_pretrained(place)
        for name in FILES:
            if _content(again / name) != _content(folder / name):
                raise ValueError(f"{folder / name} is not what save_pretrained writes. Load the generator and save it.")
    for row in generator.card.get("measured", ()):
        for copy in ("clean", "protected"):
            if not row.get(copy):
                continue
            if (source := row.get("source", {}).get(copy)) is None:
                raise ValueError(f"{folder}: {row['trainer']!r} on {copy} is {row[copy]}, and no source says so.")
            if (figures := _read_figures(source, generator.fingerprint)) != row[copy]:
                raise ValueError(f"{folder}: {row['trainer']!r} on {copy} is {row[copy]}, {source} says {figures}.")
    return generator


def _content(path: Path) -> Any:
    if path.suffix != ".json":
        return path.read_bytes()
    return {**json.loads(path.read_text(encoding="utf-8")), "semtransforms": None}  # an older version may have saved it


def _read_figures(source: str, fingerprint: str) -> list[float]:
    """Accuracies in % behind ``FILE.json#/JSON/pointer``, rounded as in a card; a step ``*`` is all of a list."""
    name, _, pointer = source.partition("#")
    record = json.loads((ROOT / name).read_text(encoding="utf-8"))
    measured_with = record.get("fingerprint") if isinstance(record, dict) else None
    if measured_with != fingerprint:
        raise ValueError(f"{name} was measured with generator {str(measured_with)[:12]}, not {fingerprint[:12]}.")
    return [round(100 * share, 1) for share in _follow(record, pointer.split("/")[1:])]


def _follow(value: Any, steps: Sequence[str]) -> Iterator[float]:
    if not steps:
        yield value
        return
    for each in value if steps[0] == "*" else [value[int(steps[0]) if isinstance(value, list) else steps[0]]]:
        yield from _follow(each, steps[1:])


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folders", type=Path, default=ROOT / "pretrained", help="where they are")
    parser.add_argument("--to", metavar="ORG", help="publish them there; without it they are only checked")
    arguments = parser.parse_args(words)

    folders = sorted(path for path in arguments.folders.iterdir() if path.is_dir())
    generators = {folder.name: check(folder) for folder in folders}  # all, before the first one is published
    size = sum(path.stat().st_size for folder in folders for path in folder.iterdir())
    if size > MOST_BYTES:
        raise ValueError(f"{arguments.folders} holds {size / 2**20:.1f} MiB, more than {MOST_BYTES >> 20}.")
    print(f"{len(folders)} checked, {size / 2**20:.2f} MiB: {', '.join(generators)}")
    for name, generator in generators.items():
        if arguments.to:
            commit = generator.push_to_hub(f"{arguments.to}/{name}").rpartition("/")[2]
            print(f'    "{name}": OnHub("{arguments.to}/{name}", "{commit}"),')


if __name__ == "__main__":
    main()

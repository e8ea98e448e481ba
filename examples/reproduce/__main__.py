"""Reproduce the paper's tables: published figures beside ours, row by row.

    python -m examples.reproduce --list
    SEMTRANSFORMS_DATA=DATA python -m examples.reproduce --table 2 --scale cpu --budget 540

Run it from the root of the repository. It takes the next missing rows in the order of their importance, stops inside
the budget and goes on where it stopped when it is started again; several processes may share the work folder.
"""

from __future__ import annotations

import time

STARTED = time.monotonic()  # the imports below count too

import argparse  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

from examples.reproduce.driver import drive  # noqa: E402
from examples.reproduce.rows import TITLES, Row, select  # noqa: E402
from examples.reproduce.scales import SCALES, Scale  # noqa: E402
from examples.reproduce.work import missing_seeds  # noqa: E402

RESULTS = Path(__file__).parent / "results"


def state(row: Row, scale: Scale, results: Path) -> str:
    """How far a row is, in words."""
    wanted = row.seeds_at(scale.name)
    if not wanted:
        return "paper only"
    try:
        done = len(wanted) - len(missing_seeds(row, scale, results))
    except ValueError as error:
        return str(error)
    return f"done {done} of {len(wanted)} seeds" if done else "missing"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.reproduce", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", action="append", default=[], help=f"{', '.join(TITLES)}; may be repeated")
    parser.add_argument("--rows", nargs="+", default=[], help="names, or patterns such as 'table2-cifar10-*'")
    parser.add_argument("--scale", choices=SCALES, default="cpu")
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds, starting of Python included")
    parser.add_argument("--out", type=Path, default=Path("runs/reproduce"), help="work folder")
    parser.add_argument("--list", action="store_true", help="show the rows and how far they are")
    arguments = parser.parse_args()
    scale, results = SCALES[arguments.scale], RESULTS / arguments.scale
    try:
        rows = select(arguments.table, arguments.rows)
        if arguments.list:
            for row in rows:
                print(f"{row.name:40} {state(row, scale, results)}")
            return 0
        if not any(row.seeds_at(scale.name) for row in rows):
            raise ValueError(f"none of these {len(rows)} rows exists at scale {scale.name}")
        return drive(rows, scale, arguments.out, results, STARTED + arguments.budget)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())

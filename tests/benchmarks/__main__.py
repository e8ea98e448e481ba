"""Time the jobs: ``python -m tests.benchmarks``; ``--quick`` ends within two minutes on two cores.

Every job is done once to warm up, then ``--repeats`` times in turn with what it is compared with. The ratio is the
median over those pairs, so that other work on the machine meets both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from semtransforms.core.hardware import autocast_dtype, describe_machine, keep_freed_memory, pick_device

from .floors import count_operations, reachable_rate
from .jobs import Job, engine_jobs, epoch_jobs, process_jobs

EPOCH = 10_000  # images of the dataset that is iterated over


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the convnet in the place of ResNet-18, fewer images")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch-size", type=int, help="of the engine's jobs; default: 128 on a GPU, 8 or 32 on a CPU")
    parser.add_argument("--only", default="", help="jobs whose name has this in it")
    parser.add_argument("--device")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {arguments.repeats}")
    device = pick_device(arguments.device)
    keep_freed_memory()
    network = "convnet" if arguments.quick else "resnet18"
    batch_size = arguments.batch_size or (128 if device.type == "cuda" else 32 if arguments.quick else 8)
    operations = count_operations(network)
    rate = reachable_rate(device, autocast_dtype("auto", device) or torch.float32)
    about = {"network": network, "batch_size": batch_size, "operations_per_second": rate, **describe_machine(device)}
    print(f"{about}\n\n| job | seconds | floor | against | ratio |\n|---|---|---|---|---|", flush=True)

    records = []
    with tempfile.TemporaryDirectory() as folder:
        for job in _jobs(network, batch_size, device, Path(folder)):
            if arguments.only in job.name:
                record = measure(job, arguments.repeats)
                if job.passes:
                    record |= {"passes": job.passes.total, "floor": operations.of(job.passes) / rate}
                records.append(record)
                print(row(record), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"about": about, "jobs": records}, indent=1) + "\n", encoding="utf-8")


def _jobs(network: str, batch_size: int, device: torch.device, folder: Path) -> Iterator[Job]:
    yield from engine_jobs(network, batch_size, device)
    yield from process_jobs(folder)
    yield from epoch_jobs(EPOCH, folder)


def measure(job: Job, repeats: int) -> dict[str, Any]:
    """Every figure of a job and of what it is compared with, in the order of time."""
    job.ours()
    record: dict[str, Any] = {"job": job.name, "unit": job.unit, "ours": [], "against": job.against}
    if job.baseline is None:
        return record | {"ours": [job.ours() for _ in range(repeats)]}
    job.baseline()
    baseline = []
    for _ in range(repeats):
        record["ours"].append(job.ours())
        baseline.append(job.baseline())
    ratios = [ours / other for ours, other in zip(record["ours"], baseline, strict=True)]
    return record | {"baseline": baseline, "ratios": ratios}


def row(record: dict[str, Any]) -> str:
    """A line of the table: medians, and the range."""
    cells = [record["job"], f"{spread(record['ours'])} {record['unit']}", "", "", ""]
    if "passes" in record:
        middle = statistics.median(record["ours"])
        cells[2] = (
            f"{record['floor']:.3g} s ({middle / record['floor']:.1f}×); {record['passes'] / middle:,.0f} passes/s"
        )
    if "ratios" in record:
        cells[3] = f"{record['against']}, {spread(record['baseline'])} {record['unit']}"
        cells[4] = spread(record["ratios"])
    return f"| {' | '.join(cells)} |"


def spread(values: list[float]) -> str:
    """Median, range and number."""
    return f"{statistics.median(values):.3g} ({min(values):.3g}–{max(values):.3g}, n={len(values)})"


if __name__ == "__main__":
    sys.exit(main())

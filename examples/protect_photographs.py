"""The main job on real photographs: fit SEM, protect, and train victims on what was published.

    python examples/protect_photographs.py --dataset cifar10-jpeg --data DATA --seeds 0 1 2 --out runs/cifar10-jpeg
    python examples/protect_photographs.py --dataset tiny-imagenet-100 --data DATA --out runs/tiny
    python examples/protect_photographs.py --dataset cifar10 --data ~/data --out runs/cifar10

``--data`` holds ``cifar10-jpeg/`` and ``tiny-imagenet-100/`` (Parquet), or torchvision's CIFAR-10 (downloaded with
``--download``). Each result is one JSON file; a run that is stopped continues with the missing ones.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import datasets
import torch
import torchvision
from torch.utils.data import Subset

import semtransforms
from semtransforms import EM, SEM, ProtectedDataset, VictimConfig, fit_generator, train_victim
from semtransforms.fitting import Labelled, load_labelled

# 32 px photographs on a laptop's CPU: the paper's radii and J = 2; fewer and longer steps, a smaller surrogate and more
# updates instead, which protects better in the same time
SMALL = replace(
    SEM,
    surrogate="convnet",
    width=16,
    alpha_u=4 / 255,
    steps_u=3,
    rho_a=2 / 255,
    alpha_a=2 / 255,
    steps_a=2,
    num_samples=2,
    train_steps=600,
    decay_every=300,
)
METHODS = {
    "em": replace(SMALL, method="em", defense_sees=EM.defense_sees, surrogate_sees=EM.surrogate_sees, num_samples=1),
    "sem-2": SMALL,  # against an adversary of 2/255
    "sem-4": replace(SMALL, rho_a=4 / 255, alpha_a=4 / 255),
}
VICTIMS = {
    "standard": VictimConfig("convnet", width=32, train_steps=1500, learning_rate=0.2),
    "adversarial-2": VictimConfig("convnet", 32, train_steps=600, learning_rate=0.2, rho_a=2 / 255, steps_a=5),
    "adversarial-4": VictimConfig("convnet", 32, train_steps=2000, learning_rate=0.2, rho_a=4 / 255, steps_a=5),
}
PARQUET = {
    "cifar10-jpeg": ("train-*.parquet", "test.parquet"),
    "tiny-imagenet-100": ("train-*.parquet", "validation.parquet"),
}


def read_data(name: str, root: Path, rows: int, download: bool) -> tuple[Any, Labelled]:
    """The first ``rows`` training samples as a map-style data set, and the test images in memory."""
    if name == "cifar10":
        train, test = (torchvision.datasets.CIFAR10(root, part, download=download) for part in (True, False))
        return Subset(train, range(min(rows, len(train)))), load_labelled(test)
    train, test = (
        datasets.load_dataset(
            "parquet", data_files=sorted(map(str, (root / name).glob(pattern))), split="train", cache_dir=None
        )
        for pattern in PARQUET[name]
    )
    return Subset(train, range(min(rows, len(train)))), load_labelled(test)


def machine() -> dict[str, str]:
    return {
        "processor": torch.cuda.get_device_name() if torch.cuda.is_available() else _processor(),
        "threads": str(torch.get_num_threads()),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "semtransforms": semtransforms.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def protect(method: str, seed: int, data: Any, out: Path, num_classes: int) -> Labelled:
    """Fit and protect, or read what an earlier run left; the timing is kept beside it."""
    record = out / f"protect-{method}-{seed}.json"
    folder = out / f"generator-{method}-{seed}"
    started = time.perf_counter()
    if not (folder / "config.json").exists():
        config = replace(METHODS[method], seed=seed, num_classes=num_classes)
        generator = fit_generator(data, config, checkpoint_dir=out / f"fit-{method}-{seed}", resume=True)
        generator.save_pretrained(folder)
    fitted = time.perf_counter()
    protected = ProtectedDataset(data, str(folder), seed=seed, cache_dir=out / "cache")
    if not record.exists():
        seconds = {"fit_seconds": fitted - started, "protect_seconds": time.perf_counter() - fitted}
        record.write_text(json.dumps({"method": method, "seed": seed, **seconds, **machine()}, indent=1))
    return load_labelled(protected, num_classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=[*PARQUET, "cifar10"], default="cifar10-jpeg")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--download", action="store_true", help="let torchvision download CIFAR-10")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=["em", "sem-2"])
    parser.add_argument("--victims", nargs="*", choices=VICTIMS, default=list(VICTIMS))
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    data, test = read_data(arguments.dataset, arguments.data, arguments.rows, arguments.download)
    classes = int(test.labels.max()) + 1
    clean = load_labelled(data, classes)
    for seed in arguments.seeds:
        for method in arguments.methods:
            protect(method, seed, data, arguments.out, classes)
    # all seeds of a victim before the next victim: a run that is stopped leaves whole rows
    for victim in arguments.victims:
        for seed in arguments.seeds:
            for method in ("clean", *arguments.methods):
                record = arguments.out / f"{victim}-{method}-{seed}.json"
                if record.exists():
                    continue
                published = clean if method == "clean" else protect(method, seed, data, arguments.out, classes)
                result = train_victim(
                    published.images,
                    clean.labels,
                    replace(VICTIMS[victim], seed=seed),
                    test_images=test.images,
                    test_labels=test.labels,
                )
                fields = {"dataset": arguments.dataset, "rows": len(clean.labels), "victim": victim, "method": method}
                record.write_text(json.dumps({**fields, "seed": seed, **asdict(result), **machine()}, indent=1))
    print(table(arguments.out))


def table(out: Path) -> str:
    """Test accuracy on clean images, mean and standard deviation over seeds, as Markdown."""
    records = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
    lines = [f"| victim | {' | '.join(('clean', *METHODS))} |", "|---" * (len(METHODS) + 2) + "|"]
    for victim in VICTIMS:
        cells = []
        for method in ("clean", *METHODS):
            found = [r["test_accuracy"] for r in records if (r.get("victim"), r.get("method")) == (victim, method)]
            spread = f" ± {100 * statistics.stdev(found):.1f}" if len(found) > 1 else ""
            cells.append(f"{100 * statistics.mean(found):.1f}{spread} (n={len(found)})" if found else "not measured")
        lines.append(f"| {victim} | {' | '.join(cells)} |")
    for key in ("fit_seconds", "protect_seconds"):
        cells = []
        for method in METHODS:
            found = [r[key] for r in records if r.get("method") == method and key in r]
            cells.append(
                f"{statistics.median(found):.0f} ({min(found):.0f}-{max(found):.0f})" if found else "not measured"
            )
        lines.append(f"| {key.replace('_', ', ')}, median (range) | – | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

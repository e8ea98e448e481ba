"""How much of the noise is the same bytes with other threads, instructions, precision, torch: a table of shares.

    python -m tests.reliability.determinism
    python -m tests.reliability.determinism --python OTHER/bin/python --images 16

A process chooses its instructions once: there is one for each, which goes through threads, precision and batches.
All is compared with one thread, in fp32, with the instructions that torch chooses here.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # the examples are no package

import numpy as np  # noqa: E402

GENERATORS = ("sem-plus-cifar10-small", "ar-linf")
INSTRUCTIONS: dict[str, dict[str, str]] = {
    "as chosen": {},
    "as chosen, again": {},
    "ATEN_CPU_CAPABILITY=avx512": {"ATEN_CPU_CAPABILITY": "avx512"},
    "ATEN_CPU_CAPABILITY=avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "ATEN_CPU_CAPABILITY=default": {"ATEN_CPU_CAPABILITY": "default"},
    "AVX2 in oneDNN too": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
}
# threads, precision, images at a time (None: as it suits)
WAYS: dict[str, tuple[int, str, int | None]] = {
    "1 thread, fp32": (1, "fp32", None),
    "2 threads, fp32": (2, "fp32", None),
    "1 thread, fp32, an image at a time": (1, "fp32", 1),
    "1 thread, bf16": (1, "bf16", None),
    "2 threads, bf16": (2, "bf16", None),
}
FEW = list(WAYS)[::3]  # with other instructions


def write_noise(images: int, ways: list[str], out: Path) -> None:
    """Compute noise in this process, in all of the ways; the instructions are those of its environment."""
    import torch

    from semtransforms import NoiseGenerator
    from semtransforms.core.hardware import describe_machine
    from semtransforms.noise.engine import build_surrogate
    from semtransforms.noise.methods import method

    pixels = np.random.default_rng(0).integers(0, 256, (images, 3, 8, 8), dtype=np.uint8)
    pictures = torch.from_numpy(pixels.repeat(4, axis=2).repeat(4, axis=3))
    config = replace(method("ar-linf"), num_classes=10, image_size=(32, 32))
    network = NoiseGenerator.from_pretrained(ROOT / "pretrained" / GENERATORS[0], device="cpu")
    noise = {}
    for name in ways:
        threads, precision, batch_size = WAYS[name]
        torch.set_num_threads(threads)
        for generator, maker in zip(GENERATORS, (
            NoiseGenerator(network.surrogate, replace(network.config, precision=precision)),
            NoiseGenerator(build_surrogate(config), config),
        ), strict=True):  # fmt: skip
            made = maker.noise(pictures, torch.arange(images) % 10, seed=1, batch_size=batch_size)
            noise[f"{generator}/{name}"] = made.numpy()
    np.savez(out, **noise)
    out.with_suffix(".json").write_text(json.dumps(describe_machine(torch.device("cpu"))))


def compute(
    python: str, images: int, ways: list[str], environment: dict[str, str]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Let a process compute noise: by generator and way, and on what machine."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "noise.npz"
        call = [python, __file__, "--write", str(out), "--images", str(images), "--ways", *ways]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        variables = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "2", **environment}
        done = subprocess.run(call, env=variables, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        with np.load(out) as noise:
            return dict(noise), json.loads(out.with_suffix(".json").read_text())


def compare(found: np.ndarray, first: np.ndarray) -> list[str]:
    """Share of equal bytes, of images that are wholly equal, the most levels apart, and the share of equal signs."""
    whole = (found == first).reshape(len(found), -1).all(axis=1).mean()
    apart = np.abs(found.astype(int) - first).max()
    return [
        f"{(found == first).mean():.2%}",
        f"{whole:.0%}",
        str(apart),
        f"{(np.sign(found) == np.sign(first)).mean():.2%}",
    ]


HEAD = ["generator", "instructions", "computed with", "equal bytes", "equal images", "most levels apart", "equal signs"]


def measure(images: int, pythons: list[str]) -> list[list[str]]:
    """The rows of the table."""
    first: dict[str, np.ndarray] = {}
    lines = []
    for title, (python, environment) in {
        **{name: (sys.executable, environment) for name, environment in INSTRUCTIONS.items()},
        **{python: (python, {}) for python in pythons},
    }.items():
        found, machine = compute(python, images, list(WAYS) if not first else FEW, environment)
        told = title if python == sys.executable else f"Python {machine['python']}, torch {machine['torch']}"
        for key, noise in found.items():
            generator, way = key.split("/")
            lines.append([generator, told, way, *compare(noise, first.setdefault(generator, noise))])
            print(*lines[-1], sep="; ", file=sys.stderr, flush=True)
    return sorted(lines, key=lambda line: GENERATORS.index(line[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--python", nargs="*", default=[], help="of other environments, with another torch")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--ways", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write is not None:
        write_noise(arguments.images, arguments.ways, arguments.write)
        return
    from examples.reproduce.markdown import table

    print(table(HEAD, measure(arguments.images, arguments.python)))


if __name__ == "__main__":
    main()

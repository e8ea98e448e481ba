"""How much of the noise is the same bytes with other threads, instructions, precision, torch: a table of shares.

    python -m tests.reliability.determinism
    python -m tests.reliability.determinism --python OTHER/bin/python --images 16

Each row is computed in a process of its own, which chooses its instructions once, and compared with the first.
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
WITHOUT_AVX512 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
WAYS: dict[str, tuple[int, str, dict[str, str]]] = {
    "1 thread, fp32": (1, "fp32", {}),
    "the same again": (1, "fp32", {}),
    "2 threads": (2, "fp32", {}),
    "ATEN_CPU_CAPABILITY=default": (1, "fp32", {"ATEN_CPU_CAPABILITY": "default"}),
    "ATEN_CPU_CAPABILITY=avx2": (1, "fp32", {"ATEN_CPU_CAPABILITY": "avx2"}),
    "ATEN_CPU_CAPABILITY=avx512": (1, "fp32", {"ATEN_CPU_CAPABILITY": "avx512"}),
    "AVX2 in oneDNN too": (1, "fp32", WITHOUT_AVX512),
    "bf16": (1, "bf16", {}),
    "bf16, 2 threads": (2, "bf16", {}),
    "bf16, AVX2 everywhere": (1, "bf16", WITHOUT_AVX512),
    "batches of 1": (1, "fp32", {"BATCH_SIZE": "1"}),
}


def write_noise(generator: str, images: int, precision: str, threads: int, out: Path) -> None:
    """Compute noise in this process; the instructions are those of its environment."""
    import torch

    from semtransforms import GeneratorConfig, NoiseGenerator
    from semtransforms.core.hardware import describe_machine
    from semtransforms.noise.engine import build_surrogate
    from semtransforms.noise.methods import method

    torch.set_num_threads(threads)
    pixels = np.random.default_rng(0).integers(0, 256, (images, 3, 8, 8), dtype=np.uint8)
    pictures = torch.from_numpy(pixels).float()
    pictures = torch.nn.functional.interpolate(pictures, size=32, mode="nearest").round().to(torch.uint8)
    if generator == "ar-linf":
        config: GeneratorConfig = replace(method("ar-linf"), num_classes=10, image_size=(32, 32))
        maker = NoiseGenerator(build_surrogate(config), config)
    else:
        maker = NoiseGenerator.from_pretrained(ROOT / "pretrained" / generator, device="cpu")
        maker = NoiseGenerator(maker.surrogate, replace(maker.config, precision=precision))
    batch_size = int(os.environ.get("BATCH_SIZE", "0")) or None
    noise = maker.noise(pictures, torch.arange(images) % 10, seed=1, batch_size=batch_size)
    np.save(out, noise.numpy())
    out.with_suffix(".json").write_text(json.dumps(describe_machine(torch.device("cpu"))))


def compute(python: str, generator: str, images: int, way: tuple[int, str, dict[str, str]], out: Path) -> np.ndarray:
    """Let a process compute noise."""
    threads, precision, environment = way
    call = [python, __file__, "--write", str(out), "--generator", generator, "--images", str(images),
            "--precision", precision, "--threads", str(threads)]  # fmt: skip
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    variables = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads), **environment}
    done = subprocess.run(call, env=variables, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return np.load(out)


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


HEAD = ["generator", "computed with", "equal bytes", "equal images", "most levels apart", "equal signs"]


def measure(
    generator: str, images: int, ways: dict[str, tuple[int, str, dict[str, str]]], pythons: list[str]
) -> list[list[str]]:
    """The rows of one generator; the first way is what the others are compared with."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "noise.npy"
        lines, first = [], None
        for name, way in ways.items():
            found = compute(sys.executable, generator, images, way, out)
            first = found if first is None else first
            lines.append([generator, name, *compare(found, first)])
        assert first is not None
        for python in pythons:
            found = compute(python, generator, images, next(iter(ways.values())), out)
            machine = json.loads(out.with_suffix(".json").read_text())
            lines.append([generator, f"Python {machine['python']}, torch {machine['torch']}", *compare(found, first)])
        return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--python", nargs="*", default=[], help="of other environments, with another torch")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--generator", help=argparse.SUPPRESS)
    parser.add_argument("--precision", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write is not None:
        write_noise(arguments.generator, arguments.images, arguments.precision, arguments.threads, arguments.write)
        return
    from examples.reproduce.markdown import table

    lines = [line for name in GENERATORS for line in measure(name, arguments.images, WAYS, arguments.python)]
    print(table(HEAD, lines))


if __name__ == "__main__":
    main()

"""Would it pay to stop an image's noise early? How many signs of its gradient still change at each step.

python -m tests.benchmarks.signs sem-cifar10-small --data DATA
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

from torch import Tensor

from examples.reproduce.protect_photographs import read_data
from semtransforms import NoiseGenerator
from semtransforms.noise import pgd


def gradient_signs(generator: NoiseGenerator, images: Tensor, labels: Tensor) -> list[Tensor]:
    """The sign of the noise's gradient at each of its K steps, float (N, 3, H, W)."""
    found, mean_gradient = [], pgd.mean_gradient

    def watched(*arguments: object) -> Tensor:
        gradient = mean_gradient(*arguments)
        found.append(gradient.sign())
        return gradient

    pgd.mean_gradient = watched
    try:
        generator.noise(images, labels, batch_size=len(images))
    finally:
        pgd.mean_gradient = mean_gradient
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generator")
    parser.add_argument("--data", type=Path, required=True, help="holds cifar10-jpeg/")
    parser.add_argument("--images", type=int, default=256)
    arguments = parser.parse_args()
    data, _ = read_data("cifar10-jpeg", arguments.data, arguments.images, download=False)
    signs = gradient_signs(NoiseGenerator.from_pretrained(arguments.generator), data.images, data.labels)
    for step, (before, now) in enumerate(pairwise(signs), start=2):
        changed = (before != now).flatten(1)
        settled = 1 - changed.any(1).float().mean()
        print(f"step {step}: {changed.float().mean():.1%} of the signs changed, in {settled:.1%} of the images none")


if __name__ == "__main__":
    main()

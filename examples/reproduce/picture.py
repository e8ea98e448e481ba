"""Draw a picture like README's.

    python -m examples.reproduce.picture GENERATOR... examples/protected.png

The two photographs come with scikit-learn: china.jpg and flower.jpg, both CC BY.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_sample_images
from torchvision.transforms.v2.functional import center_crop, resize

from semtransforms import NoiseGenerator
from semtransforms.protect.figures import side_by_side

SIDE = 160  # pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generators", nargs="+", metavar="GENERATOR", help="name or folder; several share the picture")
    parser.add_argument("out", type=Path, help="PNG to write")
    arguments = parser.parse_args()
    photographs = [torch.from_numpy(image.copy()).permute(2, 0, 1) for image in load_sample_images().images]
    pixels = [center_crop(resize(image, [SIDE], antialias=True), [SIDE, SIDE]) for image in photographs]
    noise, captions = [], []
    for each in arguments.generators:
        # the labels decide the noise; these two photographs have none in the generator's classes, so any will do
        noise += NoiseGenerator.from_pretrained(each).noise(pixels, [0, 1])
        whose = f", {Path(each).name}" if len(arguments.generators) > 1 else ""
        captions += [f"{photograph}{whose}" for photograph in ("china.jpg", "flower.jpg")]
    # what each does to a photograph, below each other
    order = sorted(range(len(noise)), key=lambda row: row % len(pixels))
    side_by_side(
        [pixels[row % len(pixels)] for row in order], [noise[row] for row in order], [captions[row] for row in order]
    ).save(arguments.out)


if __name__ == "__main__":
    main()

"""Draw README's picture: ``python examples/picture.py GENERATOR examples/protected.png``.

The two photographs come with scikit-learn: china.jpg and flower.jpg, both CC BY.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_sample_images
from torchvision.transforms.v2.functional import center_crop, resize

from semtransforms import NoiseGenerator
from semtransforms.figures import side_by_side

SIDE = 160  # pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generator", help="name or folder of a generator")
    parser.add_argument("out", type=Path, help="PNG to write")
    arguments = parser.parse_args()
    photographs = [torch.from_numpy(image.copy()).permute(2, 0, 1) for image in load_sample_images().images]
    pixels = [center_crop(resize(image, [SIDE], antialias=True), [SIDE, SIDE]) for image in photographs]
    # the labels decide the noise; these two photographs have none in the generator's classes, so any will do
    noise = NoiseGenerator.from_pretrained(arguments.generator).noise(pixels, [0, 1])
    side_by_side(pixels, noise, ["china.jpg", "flower.jpg"]).save(arguments.out)


if __name__ == "__main__":
    main()

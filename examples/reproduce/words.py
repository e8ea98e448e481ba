"""What a trainer is called in a table that people read."""

from __future__ import annotations

WORDS = {
    "greyscale": "greyscale",
    "jpeg-75": "JPEG, quality 75",
    "jpeg-50": "JPEG, quality 50",
    "jpeg-10": "JPEG, quality 10",
    "mean": "3×3 mean filter",
    "median": "3×3 median filter",
    "gaussian": "3×3 Gaussian filter",
    "bilateral": "bilateral filter",
    "bit-depth-3": "three bits a colour",
    "denoise": "denoising",
    "linear-removal": "linear removal",
    "cutout": "cutout",
    "mixup": "mixup",
    "cutmix": "cutmix",
    "randaugment": "RandAugment",
    "colour-jitter": "colour jitter",
    "gaussian-noise": "Gaussian noise",
    "ueraser": "UEraser, the worst of five augmentations",
    "informed-same-seed": "holds the generator, washes with the seed of the protection",
    "informed-other-seed": "holds the generator, washes with another seed",
    "informed-other-fit": "holds the generator of another fit",
}


def in_words(trainer: str) -> str:
    """A countermeasure with its name in the package; any other trainer as they are called."""
    return f"{WORDS[trainer]} (`{trainer}`)" if trainer in WORDS else trainer

"""Fit the bundled ``sem-digits`` generator on scikit-learn's digits: ``python examples/fit_digits.py pretrained``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from semtransforms import SEM, fit_generator
from semtransforms.config import Transformation
from semtransforms.demo import load_digits_images, split_digits

CONFIG = replace(
    SEM,
    surrogate="convnet",
    width=16,
    rho_u=16 / 255,
    alpha_u=4.8 / 255,
    rho_a=8 / 255,
    alpha_a=4 / 255,
    steps_u=5,
    steps_a=3,
    num_samples=2,
    train_steps=300,
    decay_every=150,
    # a mirrored digit is no digit: T is the crop alone
    eot=(Transformation("crop", {"padding": 4}),),
    # the same file on every machine
    precision="fp32",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pretrained", type=Path, help="folder that receives sem-digits/")
    parser.add_argument("--train-steps", type=int, default=CONFIG.train_steps)
    arguments = parser.parse_args()

    images, labels = load_digits_images()
    train, _ = split_digits(labels)
    generator = fit_generator((images[train], labels[train]), replace(CONFIG, train_steps=arguments.train_steps))
    generator.classes = tuple(str(digit) for digit in range(10))
    generator.card = {
        "data": "scikit-learn digits (UCI Optical Recognition of Handwritten Digits, CC BY 4.0), 32x32, 1,398 scans",
        "fitted_by": "python examples/fit_digits.py pretrained",
    }
    print(generator.save_pretrained(arguments.pretrained / "sem-digits"))


if __name__ == "__main__":
    main()

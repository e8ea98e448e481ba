"""The demonstration: real scans that need no download, protected, and what a network still learns from them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from semtransforms.core.config import Transformation
from semtransforms.core.grid import levels
from semtransforms.evaluation.victims import VictimConfig, train_victim
from semtransforms.generators.generator import NoiseGenerator
from semtransforms.protect.batch import protect_batch
from semtransforms.protect.figures import save_picture, side_by_side

GENERATOR = "sem-digits"
SIDE = 32  # pixels: the size the bundled networks take

# small enough for two CPU cores; no flips, which would turn a 2 into another sign
VICTIM = VictimConfig(
    network="convnet", width=16, train_steps=160, batch_size=64, augmentation=(Transformation("crop", {"padding": 2}),)
)


def load_digits_images() -> tuple[Tensor, Tensor]:
    """Read scikit-learn's 1,797 scanned digits (8x8, values 0..16) as 32x32 RGB images.

    Returns:
        uint8 ``(1797, 3, 32, 32)`` and int64 ``(1797,)`` labels 0..9, the same bytes on every machine.

    Raises:
        ModuleNotFoundError: scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the demo's digits come with scikit-learn, which is not installed: pip install 'semtransforms[demo]'"
        ) from error
    digits = load_digits()
    scans = (digits.images * (255 / 16)).round().astype("uint8")  # 17 levels of ink -> 0..255
    large = (Image.fromarray(scan).resize((SIDE, SIDE), Image.Resampling.BILINEAR) for scan in scans)
    grey = torch.from_numpy(np.stack([np.asarray(image) for image in large]))
    return grey[:, None].repeat(1, 3, 1, 1), torch.from_numpy(digits.target).long()


def split_digits(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Split the digits into train and test, stratified, without drawing anything.

    Args:
        labels: int64 ``(N,)``, as :func:`load_digits_images` gives them.

    Returns:
        int64 indices of train and of test, ascending. Of every nine images of a class the fifth and the ninth are
        test images: about 1,400 train and 400 test.
    """
    rank = torch.zeros_like(labels)  # position of an image among those of its class
    for label in range(int(labels.max()) + 1):
        members = (labels == label).nonzero().flatten()
        rank[members] = torch.arange(len(members))
    test = (rank % 9 == 4) | (rank % 9 == 8)
    return (~test).nonzero().flatten(), test.nonzero().flatten()


def run_demo(out: Path, *, device: str | None = None, progress: bool = True) -> dict[str, Any]:
    """Protect the training digits, train one network on each copy, test both on clean digits, draw a picture.

    Args:
        out: folder for ``semtransforms-demo.png``; made if missing.
        device: where to compute; default: CUDA if present.
        progress: show bars.

    Returns:
        JSON values: sizes, radius, seconds, accuracies of both victims (0..1), and the picture's path.

    Raises:
        ModuleNotFoundError: scikit-learn is missing.
        OSError: ``out`` cannot be written.
    """
    started = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    images, labels = load_digits_images()
    train, test = split_digits(labels)
    generator = NoiseGenerator.from_pretrained(GENERATOR, device=device)
    clean = images[train]
    # a seed that is known, so that the demo gives the same figures to everyone; a real protection's is secret
    batch = protect_batch(clean.unbind(), labels[train], generator, seed=0, progress=progress)
    protect_seconds = time.perf_counter() - started
    victims = {}
    for copy, published in (("clean", clean), ("protected", torch.stack(batch.protected))):
        result = train_victim(
            published, labels[train], VICTIM, test_images=images[test], test_labels=labels[test],
            device=device, progress=progress,
        )  # fmt: skip
        victims[copy] = {
            "test_accuracy": round(result.test_accuracy, 4),
            "train_accuracy": round(result.train_accuracy, 4),
            "seconds": round(result.seconds, 2),
        }
    digits = (0, 3, 5, 8)
    first = [int((labels[train] == digit).nonzero()[0]) for digit in digits]
    picture = out / "semtransforms-demo.png"
    drawn = side_by_side(clean[first].unbind(), [batch.noise[k] for k in first], [str(digit) for digit in digits])
    save_picture(drawn, picture)
    return {
        "generator": GENERATOR,
        "fingerprint": generator.fingerprint,
        "rho_u": f"{levels(generator.config.rho_u)}/255",
        "train_images": len(train),
        "test_images": len(test),
        "protect_seconds": round(protect_seconds, 2),
        "victims": victims,
        "seconds": round(time.perf_counter() - started, 2),
        "picture": str(picture),
    }

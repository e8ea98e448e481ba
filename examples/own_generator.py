"""Fit a generator on your own images, save it, and protect the images with it.

    python examples/own_generator.py PHOTOS PRIVATE [UPDATES]

PHOTOS has a sub-folder for each class. PRIVATE gets the generator and the noise: publish neither. A fit that was
killed goes on when the same command is given again.
"""

import secrets
import sys
from dataclasses import replace
from pathlib import Path

from torchvision.datasets import ImageFolder

from semtransforms import SEM_PLUS, ProtectedDataset, fit_generator, with_effort

if __name__ == "__main__":
    photos, private = ImageFolder(sys.argv[1]), Path(sys.argv[2])
    updates = int(sys.argv[3]) if len(sys.argv) > 3 else SEM_PLUS.train_steps
    # a small network suits a CPU; photographs of several sizes are fitted at one
    config = replace(SEM_PLUS, surrogate="convnet", width=32, image_size=(32, 32))
    config = with_effort(config, train_steps=updates)
    generator = fit_generator(photos, config, checkpoint_dir=private / "checkpoint", resume=True)
    generator.save_pretrained(private / "generator")

    seed = secrets.randbits(63)  # fresh and secret
    protected = ProtectedDataset(photos, private / "generator", seed=seed, cache_dir=private / "noise")
    print(f"{len(protected)} images protected at their own sizes; the first is {protected[0][0]}")

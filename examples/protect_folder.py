"""Protect an image folder from Python: a sub-folder for each class goes in, PNG files to publish come out.

    python examples/protect_folder.py PHOTOS PUBLISHED PRIVATE GENERATOR

PRIVATE keeps the noise. Never publish it: whoever has the noise subtracts it. GENERATOR is a folder or a name, with as
many classes as PHOTOS. Run it once for the same photographs: each run draws a fresh seed, and whoever has two copies
can compare them. `semtransforms protect` does the same for large folders, and goes on after an interruption.
"""

import secrets
import sys
from pathlib import Path

from torchvision.datasets import ImageFolder

from semtransforms import ProtectedDataset

if __name__ == "__main__":
    photos, published, private, generator = sys.argv[1:]
    dataset = ImageFolder(photos)
    protected = ProtectedDataset(dataset, generator, seed=secrets.randbits(63), cache_dir=private)
    for (path, _), (image, _) in zip(dataset.samples, protected, strict=True):
        file = Path(published, f"{Path(path).relative_to(photos)}.png")  # 1.jpg and 1.png may lie side by side
        file.parent.mkdir(parents=True, exist_ok=True)
        image.save(file)
    print(f"{len(protected)} protected images in {published}")

"""A trainer who lays the photographs of a class over each other: do they find the noises that these share?

    python -m examples.reproduce.align clothing10 --data DATA --generator FOLDER

They know the method and S, the size that the noise is made at, and have neither generator nor seed. They shrink the
published photographs to S, keep what changes from pixel to pixel (a Laplacian filter), and begin with one photograph of
the class as the template. Each round moves all others to where they fit the template best, mirrored or not, and takes
the mean of the better half as the next template. From ``STARTS`` photographs they end with as many templates, of which
the one counts that is most like a noise of the class. The figures go to ``examples/reproduce/results/align-NAME.json``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import trange

from examples.reproduce.photographs import FILES, ROOT, SEED, Part, read
from semtransforms import NoiseGenerator, ProtectedDataset
from semtransforms.core.files import to_json, write_atomically
from semtransforms.core.hardware import describe_machine
from semtransforms.data.images import as_pixels
from semtransforms.noise.classwise import Classwise
from semtransforms.views.resize import centre_square

STARTS, ROUNDS = 12, 8
FOUND = 0.5  # likeness from which on a noise counts as found; templates of classes that were not reach 0.1
LAPLACIAN = torch.tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]])


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(FILES))
    parser.add_argument("--data", type=Path, required=True, help="holds the folder of the data")
    parser.add_argument("--generator", type=Path, required=True, help="folder of a class-wise one")
    parser.add_argument("--work", type=Path, default=Path("runs/align"), help="for the noise")
    parser.add_argument("--results", type=Path, default=ROOT / "examples" / "reproduce" / "results")
    arguments = parser.parse_args(words)

    train, _ = read(arguments.name, arguments.data, None)
    generator = NoiseGenerator.from_pretrained(arguments.generator)
    assert isinstance(generator.surrogate, Classwise)
    squares, labels = published(train, generator, arguments.work)
    noises = generator.surrogate.noises
    own = noises.view(-1, generator.surrogate.count, *noises.shape[1:])
    likeness = [round(align(squares[labels == label], own[label]), 3) for label in trange(len(own), desc="align")]
    print(likeness, f"{sum(each > FOUND for each in likeness)} of {len(own)} found")
    record = {
        "noises": generator.surrogate.count, "fingerprint": generator.fingerprint, "likeness": likeness,
        "found": sum(each > FOUND for each in likeness), "machine": describe_machine(),
    }  # fmt: skip
    write_atomically(arguments.results / f"align-{arguments.name}.json", to_json(record))


def published(train: Part, generator: NoiseGenerator, work: Path) -> tuple[Tensor, Tensor]:
    """The protected photographs as this trainer has them: float (N, 3, S, S) in grey levels, and labels."""
    assert generator.config.image_size is not None
    protected = ProtectedDataset(train, generator, seed=SEED, cache_dir=work)
    pairs = [protected[row] for row in trange(len(train), desc="read")]
    squares = [centre_square(as_pixels(image), min(generator.config.image_size)) for image, _ in pairs]
    return torch.stack(squares).float(), torch.tensor([label for _, label in pairs])


def align(squares: Tensor, noises: Tensor) -> float:
    """How like a noise of their class the best template is: 1 for the same, about 0 for another.

    Args:
        squares: float (N, 3, S, S), of one class.
        noises: float (V, 3, S, S), those of the class; they only judge.
    """
    fine, true = _fine(squares), _fine(noises)
    sides = torch.fft.rfft2(torch.stack([fine, fine.flip(3)]))
    judges = torch.fft.rfft2(torch.cat([true, true.flip(3)]))
    best = 0.0
    for start in range(min(STARTS, len(fine))):
        template = fine[start]
        for _ in range(ROUNDS):
            template = _next_template(fine, sides, template)
        fits = torch.fft.irfft2((judges * torch.fft.rfft2(template).conj()).sum(1), s=template.shape[1:])
        best = max(best, float(fits.max()))
    return best


def _fine(images: Tensor) -> Tensor:
    """What changes from pixel to pixel, each image of length one: float (N, 3, S, S)."""
    edges = F.conv2d(F.pad(images, (1, 1, 1, 1), mode="circular"), LAPLACIAN.expand(3, 1, 3, 3), groups=3)
    return edges / edges.flatten(1).norm(dim=1)[:, None, None, None]


def _next_template(fine: Tensor, sides: Tensor, template: Tensor) -> Tensor:
    """The mean of the better half of all images, each where it fits the template best."""
    side = template.shape[1]
    fits = torch.fft.irfft2((sides * torch.fft.rfft2(template).conj()).sum(2), s=template.shape[1:])
    weights, places = fits.flatten(2).transpose(0, 1).flatten(1).max(1)
    moved = []
    for row in np.flatnonzero(weights >= weights.median()).tolist():
        mirrored, down, right = (int(index) for index in np.unravel_index(int(places[row]), (2, side, side)))
        image = fine[row].flip(2) if mirrored else fine[row]
        moved.append(weights[row] * image.roll((-down, -right), (1, 2)))
    mean = torch.stack(moved).sum(0)
    return mean / mean.norm()


if __name__ == "__main__":
    main()

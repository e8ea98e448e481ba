"""Noise that is made when a sample is asked for, and kept nowhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from semtransforms.data.raw import pair_of, read_whole, sample_label
from semtransforms.protect.adding import MadeNoise, clean_pixels
from semtransforms.protect.batch import NoiseMaker, generator_labels

TURN_BYTES = 64 << 20  # of decoded images in memory at a time, however many a batch has


@dataclass(frozen=True)
class LiveNoise:
    """What makes the noise of samples in whatever process asks for them.

    Args:
        maker: makes the noise.
        label_map: label of the data -> label of the generator, where the two differ.
    """

    maker: NoiseMaker
    label_map: Mapping[int, int] | None

    def made(self, pairs: Sequence[tuple[Any, Any]], rows: Sequence[int]) -> list[MadeNoise]:
        """The noise of samples: the same bytes that a store would hold.

        Args:
            pairs: raw images with their labels, as the data has them.
            rows: the positions that messages name them by.

        Raises:
            ValueError: a label that the generator does not know; an image that is too small for it, or protected
                already.
        """
        places = list(zip(pairs, rows, strict=True))
        images = [clean_pixels(image, row) for (image, _), row in places]
        labels = [sample_label(label, row) for (_, label), row in places]
        if not images:
            return []
        num_classes = self.maker.generator.num_classes
        targets = generator_labels(labels, self.label_map, num_classes, place="dataset: ", rows=rows)
        self.maker.check_sizes((image.shape[1:] for image in images), rows)
        made = self.maker.make(images, targets).made
        return [MadeNoise(np.ascontiguousarray(each.permute(1, 2, 0).numpy()), None) for each in made]


def read_in_turns(dataset: Any, rows: Iterable[int]) -> Iterator[tuple[list[int], list[Any]]]:
    """Read raw samples, as many at a time as fit into ``TURN_BYTES``, and at least one.

    Args:
        dataset: gives them.
        rows: their positions.

    Yields:
        Positions, and the samples there.
    """
    places: list[int] = []
    samples: list[Any] = []
    held = 0
    for row in rows:
        sample = read_whole(dataset, row)
        image = pair_of(sample)[0]
        held += 3 * image.width * image.height if isinstance(image, Image.Image) else getattr(image, "nbytes", 0)
        places.append(row)
        samples.append(sample)
        if held >= TURN_BYTES:
            yield places, samples
            places, samples, held = [], [], 0
    if samples:
        yield places, samples

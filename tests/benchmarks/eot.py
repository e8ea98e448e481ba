"""What crop, flip and JPEG cost beside a step, kornia's and ours: ``python tests/benchmarks/eot.py``.

A hand-written kernel is allowed where kornia's costs more than 5 % of a step; this is the measurement. Crop and flip
are tested equal to kornia's in ``tests/views/test_eot.py``, JPEG is PIL's in ``tests/views/test_catalogue.py``.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable

import kornia
import torch
from torch import Tensor
from torch.nn import functional as F

from semtransforms.core.keys import index_keys
from semtransforms.core.models import build_model
from semtransforms.views.jpeg import jpeg
from semtransforms.views.members import Crop, Flip, Kornia

COUNT, SIDE, REPEATS = 256, 32, 15  # J * B = 2 * 128 images, as in the small setting


def milliseconds(work: Callable[[], object]) -> list[float]:
    for _ in range(3):
        work()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - started))
    return sorted(times)


def main() -> None:
    images, keys = torch.rand(COUNT, 3, SIDE, SIDE), index_keys(torch.arange(COUNT), 0)
    labels = torch.arange(COUNT) % 10

    def there_and_back(transform: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        def work() -> object:
            leaf = images.clone().requires_grad_()
            return torch.autograd.grad(transform(leaf).sum(), leaf)

        return work

    jobs: dict[str, Callable[[], object]] = {"nothing": there_and_back(lambda x: x * 1)}
    crop, flip, theirs_flip = Crop(4), Flip(), Kornia(kornia.augmentation.RandomHorizontalFlip())
    jobs["crop, ours"] = there_and_back(lambda x: crop(x, crop.draw(keys, x.shape)))
    for mode in ("slice", "resample"):
        theirs = kornia.augmentation.RandomCrop((SIDE, SIDE), padding=4, cropping_mode=mode)
        jobs[f"crop, kornia {mode}"] = there_and_back(theirs)
    jobs["flip, kornia"] = there_and_back(lambda x: theirs_flip(x, theirs_flip.draw(keys, x.shape)))
    jobs["flip, ours"] = there_and_back(lambda x: flip(x, flip.draw(keys, x.shape)))
    jobs["flip, where"] = there_and_back(
        lambda x: torch.where(flip.draw(keys, x.shape)["mirrored"][:, None, None, None], x.flip(-1), x)
    )
    quality = torch.full((COUNT,), 30)
    theirs_jpeg = kornia.augmentation.RandomJPEG(jpeg_quality=(30.0, 30.0), p=1.0)
    jobs["jpeg, kornia"], jobs["jpeg, ours"] = there_and_back(theirs_jpeg), there_and_back(lambda x: jpeg(x, quality))
    network = build_model("convnet", num_classes=10, image_size=SIDE).eval().requires_grad_(False)
    network.to(memory_format=torch.channels_last)
    jobs["gradient of convnet"] = there_and_back(
        lambda x: F.cross_entropy(network(x.contiguous(memory_format=torch.channels_last)), labels)
    )
    times = {name: milliseconds(work) for name, work in jobs.items()}
    base = statistics.median(times["nothing"])
    print(
        f"{COUNT} x 3 x {SIDE} x {SIDE}, forward and backward, ms; {torch.get_num_threads()} threads, "
        f"{platform.machine()}, torch {torch.__version__}, kornia {kornia.__version__}"
    )
    for name, found in times.items():
        low, middle, high = (value - base for value in (found[0], statistics.median(found), found[-1]))
        print(f"{name:22} median {middle:8.2f}  ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()

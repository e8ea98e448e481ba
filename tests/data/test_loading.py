"""Images brought to one size: against torchvision's own transforms and PIL."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from semtransforms.data.loading import resized
from semtransforms.views.windows import centre_squares


def photograph(height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, height, width), dtype=np.uint8))


@pytest.mark.parametrize("shape", [(33, 80), (80, 33), (67, 99), (45, 45), (10, 23), (16, 41)])
def test_a_square_is_that_of_torchvisions_resize_and_crop(shape):
    """The longer side of half of all shapes would else be a pixel longer than a trainer has it, and cut elsewhere."""
    usual = v2.Compose([v2.Resize(16, antialias=True), v2.CenterCrop(16)])
    image = photograph(*shape)
    assert torch.equal(resized(image, (16, 16)), usual(image))
    assert torch.equal(centre_squares([image], 16)[0], usual(image))


@pytest.mark.parametrize(
    ("shape", "size", "covering"),
    [
        ((100, 80), (64, 32), (64, 51)),  # the height decides, 80 * 64 / 100 = 51.2
        ((50, 30), (32, 32), (53, 32)),  # the width decides, 50 * 32 / 30 = 53.3
        ((50, 31), (16, 29), (46, 29)),  # 50 * 29 / 31 = 46.8
        ((20, 20), (24, 30), (30, 30)),
    ],
)
def test_other_shapes_are_covered_and_cropped(shape, size, covering):
    """A size that is not covered would be filled up with black, or the photograph squeezed."""
    image = photograph(*shape)
    height, width = covering
    whole = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((width, height), Image.Resampling.BILINEAR)
    top, left = (round((long - short) / 2) for long, short in zip(covering, size, strict=True))
    expected = np.asarray(whole)[top : top + size[0], left : left + size[1]].astype(int)
    found = resized(image, size)
    assert found.shape == (3, *size)
    assert np.abs(found.permute(1, 2, 0).numpy() - expected).max() <= 1  # rounding

"""The size at which noise is made: shapes, shrinking and enlarging against NumPy, the bound."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import v2

from semtransforms.views import resize
from semtransforms.views.resize import NoiseScale, centre_square

DRAW = torch.Generator().manual_seed(0)
SCALE = NoiseScale(8, 5)


def noise(*shape):
    return torch.randint(-5, 6, shape, generator=DRAW).to(torch.int8)


def image(*shape):
    return torch.randint(0, 256, shape, generator=DRAW).to(torch.uint8)


def cubic(distance):
    """The cubic convolution kernel of Keys (1981), with a = -3/4 as image libraries take it."""
    x, a = abs(distance), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def matrix(small, large):
    """Rows of weights: pixel centres on centres, edges repeated."""
    weights = np.zeros((large, small))
    for i in range(large):
        centre = (i + 0.5) * small / large - 0.5
        for j in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            weights[i, min(max(j, 0), small - 1)] += cubic(centre - j)
    return weights


@pytest.mark.parametrize(
    ("size", "made"),
    [((8, 8), (8, 8)), ((7, 30), (7, 30)), ((16, 16), (8, 8)), ((16, 24), (8, 12)), ((3000, 4000), (8, 10)),
     ((9, 8), (9, 8))],
)  # fmt: skip
def test_a_photograph_keeps_its_shape(size, made):
    """Made for a square, the noise of a landscape is stretched; made at 7 of 8 px, small images get other noise."""
    assert SCALE.made_at(*size) == made
    assert NoiseScale(None, 5).made_at(*size) == size
    assert SCALE.shrink(image(3, *size)).shape[1:] == made


@pytest.mark.parametrize("shape", [(400, 533), (533, 400), (97, 61), (301, 299), (3000, 4000), (17, 90), (31, 47)])
def test_noise_and_fit_have_the_shape_that_trainers_have(shape):
    """A pixel more on the longer side stretches the noise against the photograph that a trainer resizes."""
    side, own = 16, image(3, *shape)
    whole = v2.functional.resize(own, [side], antialias=True)
    assert NoiseScale(side, 5).made_at(*shape) == whole.shape[1:]
    # the bytes of PIL and of torchvision differ by rounding; the place that is cut out is seen anywhere
    gaps = centre_square(own, side).int() - v2.functional.center_crop(whole, [side, side]).int()
    assert int(gaps.abs().max()) <= 1


def test_shrinking_averages():
    """Without antialiasing single pixels of a photograph decide, and a trainer's own resize sees others."""
    large = image(3, 64, 96)
    small = SCALE.shrink(large).double()
    # a triangle as wide as eight pixels on either side: NumPy
    weights = np.array([[max(0, 1 - abs((i + 0.5) * 8 - (j + 0.5)) / 8) for j in range(96)] for i in range(12)])
    weights /= weights.sum(1, keepdims=True)
    rows = weights[:8, :64] / weights[:8, :64].sum(1, keepdims=True)
    expected = rows @ large.double().numpy() @ weights.T
    assert np.abs(small.numpy() - expected).max() <= 1.01  # whole numbers after each of two passes


@pytest.mark.parametrize(
    ("small", "size"),
    [((8, 12), (16, 24)), ((8, 8), (50, 8)), ((8, 8), (33, 47)), ((8, 10), (310, 400)), ((5, 9), (6, 40_000)),
     ((3, 8), (40, 50)), ((1, 4), (7, 30))],
)  # fmt: skip
def test_enlarging_is_bicubic(small, size):
    """Any other kernel gives other noise for the same seed, and blocks that are seen."""
    made = noise(3, *small)
    wide = NoiseScale(8, 127)
    found = wide.enlarge(made, torch.full((3, *size), 128, dtype=torch.uint8))
    expected = matrix(made.shape[1], size[0]) @ made.numpy().astype(float) @ matrix(made.shape[2], size[1]).T
    assert np.abs(found.numpy() - expected).max() <= 0.501


@pytest.mark.parametrize("visibility", [1, 0.3])
def test_strips_do_not_show(visibility, monkeypatch):
    """Rows that are taken twice, left out or damped by another row's share would be seen as lines in a sky."""
    made, own = noise(3, 8, 11), image(3, 150, 200)
    scale, before = NoiseScale(8, 5, visibility), own.clone()
    at_once = scale.enlarge(made, own)  # 30,000 pixels
    monkeypatch.setattr(resize, "_STRIP", 1700)  # eight rows, and six in the end
    assert torch.equal(scale.enlarge(made, own), at_once)
    assert torch.equal(scale.add(made, own).int(), own.int() + at_once)
    for rows in (slice(0, 1), slice(13, 92), slice(149, 150)):
        assert torch.equal(scale.add(made, own, rows).int(), (own.int() + at_once)[:, rows])
    assert torch.equal(own, before)


def test_a_photograph_is_not_held_in_floats():
    """In float32 the noise of 12 megapixels takes 144 MB, more than all else that protects a photograph."""
    made, own = noise(3, 8, 11), image(3, 600, 800)
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            nonlocal largest
            result = function(*arguments, **(options or {}))
            if isinstance(result, torch.Tensor) and result.dtype != torch.uint8:
                largest = max(largest, result.nbytes)
            return result

    with Watch():
        SCALE.add(made, own)
    assert 0 < largest <= own.numel() / 8


def test_the_bound_holds_in_every_byte():
    """Bicubic enlargement overshoots, and a bright sky has no room above it."""
    steep = torch.where(noise(3, 8, 8) > 0, 5, -5).to(torch.int8)
    for pixels in (image(3, 40, 40), torch.full((3, 40, 40), 253, dtype=torch.uint8), torch.zeros(3, 40, 40).byte()):
        found = SCALE.enlarge(steep, pixels)
        assert found.dtype == torch.int8
        assert int(found.abs().max()) <= 5
        total = pixels.int() + found
        assert 0 <= int(total.min()) <= int(total.max()) <= 255
    assert int(SCALE.enlarge(steep, torch.full((3, 40, 40), 128, dtype=torch.uint8)).abs().max()) == 5


def test_an_image_of_the_size_keeps_its_noise():
    """CIFAR's images must get the noise they always had, bit for bit."""
    made, own = noise(3, 8, 12), image(3, 8, 12)
    assert SCALE.shrink(own) is own
    assert SCALE.enlarge(made, own) is made
    assert torch.equal(SCALE.add(made, own).int(), (own.int() + made).clamp(0, 255))
    assert torch.equal(SCALE.add(made, own, slice(2, 5)).int(), (own.int() + made).clamp(0, 255)[:, 2:5])

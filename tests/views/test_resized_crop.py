"""The window that a trainer cuts out, against torchvision's."""

import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tv

from semtransforms.views.eot import Transformation, build_eot
from semtransforms.views.resized_crop import ResizedCrop


def images(height=40, width=56):
    return torch.rand(3, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_a_window_is_torchvisions_resized_crop():
    """T would show the noise other sizes and places than trainers see, and the noise would be for nobody."""
    windows = torch.tensor([[0.0, 0, 40, 56], [3, 5, 30, 20], [10, 30, 28, 26]])
    seen = ResizedCrop()(images(), {"window": windows, "resolution": torch.full((3,), 40.0)})
    for view, image, window in zip(seen, images(), windows.int().tolist(), strict=True):
        expected = tv.resized_crop(image, *window, [40, 40], antialias=True)
        assert torch.allclose(view, expected, atol=1e-5)


def test_a_lower_resolution_is_torchs_resize_there_and_back():
    """A trainer of small images sees no fine noise; T has to say so."""
    image = images(40, 40)
    whole = torch.tensor([[0.0, 0, 40, 40]] * 3)
    seen = ResizedCrop()(image, {"window": whole, "resolution": torch.tensor([40.0, 24, 17])})
    for view, each, side in zip(seen, image, (40, 24, 17), strict=True):
        small = F.interpolate(each[None], (side, side), mode="bilinear", antialias=True)
        assert torch.allclose(view, F.interpolate(small, (40, 40), mode="bilinear")[0], atol=1e-5)


def test_windows_are_those_of_random_resized_crop():
    """Draws outside the image, or of one size alone, would leave most crops without protection."""
    member = ResizedCrop(scale=(0.35, 1), resolution=20)
    drawn = member.draw(torch.arange(4000) * 7919, (4000, 3, 40, 56))
    top, left, height, width = drawn["window"].unbind(1)
    assert float(top.min()) >= 0
    assert float((top + height).max()) <= 40 + 1e-4
    assert float(left.min()) >= 0
    assert float((left + width).max()) <= 56 + 1e-4
    area = height * width / (40 * 56)
    assert float(area.min()) > 0.3
    assert float(area.max()) <= 1 + 1e-4
    assert 0.55 < float(area.mean()) < 0.7  # half of 0.35 + 1, less what does not fit
    assert (float(drawn["resolution"].min()), float(drawn["resolution"].max())) == (20, 40)
    assert abs(float((drawn["resolution"] < (20 * 40) ** 0.5).float().mean()) - 0.5) < 0.05  # as many in each half


def test_the_gradient_comes_back_through_it():
    """PGD descends through T; a member that cuts the graph leaves the noise where it started."""
    image = images().double().requires_grad_()
    eot = build_eot([Transformation("resized-crop", {"scale": [0.5, 0.9]})])
    weights = torch.rand(3, 3, 40, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (eot(image, torch.arange(3)) * weights).sum().backward()
    with torch.no_grad():  # the map is linear: the inner product with the gradient is the value
        value = (eot(image, torch.arange(3)) * weights).sum()
    assert torch.allclose((image.grad * image).sum(), value)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"scale": [0, 1]}, "scale"), ({"ratio": [2, 1]}, "ratio"), ({"resolution": 0}, "resolution")],
)
def test_what_no_window_can_be_is_refused_by_name(arguments, named):
    """An error from within the fit, hours later, would not say which argument it was."""
    with pytest.raises(ValueError, match=named):
        build_eot([Transformation("resized-crop", arguments)])

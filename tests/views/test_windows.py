"""Windows of photographs: against PIL, torchvision and windows cut by hand."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop

from semtransforms.core.keys import index_keys
from semtransforms.views.windows import centre_squares, draw_windows, padded_windows, resized_windows

SHAPES = [(48, 64), (64, 48), (40, 40), (33, 80)]


def photographs():
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8) for height, width in SHAPES]
    pictures = [
        Image.fromarray(a).resize((w, h), Image.Resampling.BICUBIC) for a, (h, w) in zip(arrays, SHAPES, strict=True)
    ]
    return pictures, [torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in pictures]


def as_array(images):
    return images.permute(0, 2, 3, 1).numpy().astype(int)


def test_a_drawn_window_is_resized_as_pil_does():
    """A trainer's loader is PIL: other pixels than it gives would be the accuracy of nobody's training."""
    pictures, images = photographs()
    keys = index_keys(torch.arange(len(images)), 3)
    boxes = draw_windows(keys, np.array(SHAPES))
    expected = [
        np.asarray(picture.crop((left, top, left + w, top + h)).resize((16, 16), Image.Resampling.BILINEAR))
        for picture, (top, left, h, w) in zip(pictures, boxes.tolist(), strict=True)
    ]
    assert np.abs(as_array(resized_windows(images, keys, 16)) - np.stack(expected)).max() <= 1  # rounding


def test_the_middle_is_the_one_that_pil_gives():
    """Tested on another square than trainers take, an accuracy is not theirs."""
    pictures, images = photographs()
    for picture, image, (height, width) in zip(pictures, images, SHAPES, strict=True):
        scale = 16 / min(height, width)
        small = picture.resize((int(width * scale), int(height * scale)), Image.Resampling.BILINEAR)
        left, top = (round((side - 16) / 2) for side in small.size)
        expected = np.asarray(small.crop((left, top, left + 16, top + 16))).astype(int)
        assert np.abs(as_array(centre_squares([image], 16))[0] - expected).max() <= 1


@pytest.mark.parametrize("shape", [(48, 64), (90, 30)])
def test_windows_are_drawn_as_torchvision_draws_them(shape):
    """Smaller windows or windows of another shape are a stronger augmentation than the one that is named."""
    count = 2_000
    ours = draw_windows(index_keys(torch.arange(count), 0), np.array([shape] * count))
    image = torch.zeros(3, *shape)
    torch.manual_seed(0)
    theirs = np.array(
        [RandomResizedCrop.get_params(image, [0.35, 1.0], [3 / 4, 4 / 3]) for _ in range(count)]
    )  # top, left, height, width
    for mine, other in zip(ours.T, theirs.T, strict=True):
        assert ks_2samp(mine, other).pvalue > 0.001
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 0] + ours[:, 2] <= shape[0]).all()
    assert (ours[:, 1] + ours[:, 3] <= shape[1]).all()


@pytest.mark.parametrize("shape", [(10, 100), (100, 10), (1, 50)])
def test_a_panorama_gives_its_middle(shape):
    """No window of 35 % and of shape 3:4 to 4:3 fits into it; torchvision then takes the middle, always the same."""
    (ours,) = draw_windows(index_keys(torch.arange(1), 0), np.array([shape]))
    assert tuple(ours) == RandomResizedCrop.get_params(torch.zeros(3, *shape), [0.35, 1.0], [3 / 4, 4 / 3])


def test_padded_windows_are_those_of_the_padded_image():
    """A crop that never reaches the border, or leaves the black out, is a weaker training than the one named."""
    image = torch.arange(1, 3 * 8 * 10 + 1, dtype=torch.uint8).view(3, 8, 10)
    keys = index_keys(torch.arange(300), 0)
    padded = np.pad(image.numpy(), [(0, 0), (1, 1), (1, 1)])
    allowed = {padded[:, top : top + 8, left : left + 8].tobytes() for top in range(3) for left in range(5)}
    windows = padded_windows([image] * 300, keys, 8)
    assert {window.numpy().tobytes() for window in windows} == allowed


@pytest.mark.parametrize("cut", [padded_windows, resized_windows])
def test_a_window_goes_by_its_own_key(cut):
    """In another batch, an image would be cut elsewhere: a training that goes on would not be the same."""
    _, images = photographs()
    before = [image.clone() for image in images]
    keys = index_keys(torch.arange(len(images)), 1)
    together = cut(images, keys, 32)
    for row, image in enumerate(images):
        assert torch.equal(cut([image], keys[row : row + 1], 32)[0], together[row])
    assert all(map(torch.equal, images, before))

"""What the eye tolerates where, against NumPy and by hand, and the noise that keeps to it."""

import numpy as np
import pytest
import torch
from PIL import Image

from semtransforms.views.resize import NoiseScale
from semtransforms.views.visibility import share_seen, tolerated

DRAW = np.random.default_rng(0)
REACH = 8


def grey(brightness):
    """A grey photograph, uint8 (3, H, W), of brightnesses (H, W)."""
    return torch.from_numpy(np.repeat(np.asarray(brightness, np.uint8)[None], 3, 0))


def watson(brightness, reach):
    """His formula, window by window: t = 1 level, c the standard deviation of 5 x 5 pixels."""
    height, width = brightness.shape
    shares = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            rows = np.arange(i - 2, i + 3).clip(0, height - 1)
            columns = np.arange(j - 2, j + 3).clip(0, width - 1)
            contrast = brightness[np.ix_(rows, columns)].astype(float).std()
            shares[i, j] = min(max(1, contrast**0.7 * 1**0.3), reach) / reach
    return shares


@pytest.mark.parametrize("size", [(13, 20), (5, 5), (1, 9), (2, 1)])
def test_the_map_is_watsons(size):
    """Another map would show noise where it is seen, or cost protection where it is not."""
    brightness = DRAW.integers(0, 256, size) // DRAW.integers(1, 40, size)
    found = tolerated(grey(brightness), size, REACH)
    assert found.dtype == torch.uint8
    assert np.abs(found.numpy() - 255 * watson(brightness, REACH)).max() <= 0.501


def test_flat_edge_and_texture():
    """A sky gets one level, gravel all of the radius, and an edge hides noise near it only."""
    flat = tolerated(grey(np.full((20, 20), 200)), (20, 20), REACH)
    assert set(flat.flatten().tolist()) == {round(255 / 8)}
    gravel = tolerated(grey(np.indices((20, 20)).sum(0) % 2 * 80), (20, 20), REACH)
    assert set(gravel.flatten().tolist()) == {255}
    edge = tolerated(grey(np.repeat([np.repeat([50, 200], 10)], 20, 0)), (20, 20), REACH)[10]
    assert edge[8:12].tolist() == 4 * [255]  # their windows have both sides
    assert set(edge[:8].tolist() + edge[12:].tolist()) == {round(255 / 8)}


def test_colours_count_by_their_brightness():
    """Red as bright as its green ground is flat to this model: PIL's grey says how bright a colour is."""
    colours = DRAW.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    brightness = np.asarray(Image.fromarray(colours).convert("L"))
    image = torch.from_numpy(colours).permute(2, 0, 1)
    assert torch.equal(tolerated(image, (12, 12), REACH), tolerated(grey(brightness), (12, 12), REACH))


def test_details_finer_than_the_noise_do_not_hide_it():
    """Broad stripes of noise are seen through the grain of film, which a photograph at full size is full of."""
    grain = grey(DRAW.integers(100, 156, (160, 160)))
    assert tolerated(grain, (160, 160), REACH).float().mean() > 200
    assert tolerated(grain, (16, 16), REACH).float().mean() < 120


@pytest.mark.parametrize("side", [None, 8])
@pytest.mark.parametrize("visibility", [0, 0.25, 1])
def test_the_noise_is_damped_by_the_map(side, visibility):
    """All of it in texture, and in flat ground what was asked for, each time within the radius and the bytes."""
    image = np.full((48, 64), 128)
    image[:, 32:] += np.kron(np.indices((12, 8)).sum(0) % 2, np.ones((4, 4), int)) * 100
    image = grey(image)
    made = torch.from_numpy(DRAW.choice([-8, 8], (3, 48, 64) if side is None else (3, 8, 11)).astype(np.int8))
    scale, before = NoiseScale(side, REACH, visibility), (made.clone(), image.clone())
    noise = scale.enlarge(made, image)
    assert torch.equal(made, before[0])
    assert torch.equal(image, before[1])
    assert int(noise.abs().max()) <= REACH
    assert int((image.int() + noise).min()) >= 0
    assert int((image.int() + noise).max()) <= 255
    plain = NoiseScale(side, REACH).enlarge(made, image).int()
    inside = np.s_[:, 8:40, 40:56]  # texture; the windows at the border repeat its last pixel
    assert torch.equal(noise[inside].int(), plain[inside])
    share = visibility + (1 - visibility) / 8  # of the radius of 8 levels the eye tolerates one
    wanted = plain[:, :, :20] * share
    assert (noise[:, :, :20] - wanted).abs().max() <= 0.5 * (1 + share) + 0.02  # rounded once here, once in the oracle
    assert noise[:, :, :20].abs().max() == np.rint(8 * share)


def test_all_of_the_radius_is_what_it_was():
    """The paper's methods, and every copy that was made before there was a choice, keep their bytes."""
    image = torch.from_numpy(DRAW.integers(0, 256, (3, 40, 40), dtype=np.uint8))
    made = torch.from_numpy(DRAW.integers(-8, 9, (3, 40, 40), dtype=np.int8))
    assert NoiseScale(8, REACH, 1).enlarge(made, image) is made
    assert NoiseScale(8, REACH, 1.0) == NoiseScale(8, REACH)


def test_the_share_that_is_seen_is_counted():
    """The page would call noise hard to see that anybody sees in the sky, or the other way round."""
    image = np.full((40, 60), 128)
    image[:, 30:] += np.indices((40, 30)).sum(0) % 2 * 100  # a chequered half, in which ten levels are lost
    clean = grey(image)
    protected = clean.clone()
    protected[0] += 1  # what the eye just tolerates on flat ground
    assert share_seen(clean, protected) == 0
    protected[0, :20] += 9
    assert share_seen(clean, protected) == pytest.approx(20 * 28 / 2400, abs=20 * 2 / 2400)  # flat, but for its border
    assert share_seen(protected, clean) > 0  # a change to darker is one too

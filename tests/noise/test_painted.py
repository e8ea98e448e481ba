"""SC against scikit-learn, AR by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from sklearn.neighbors import NearestCentroid

from semtransforms.core.keys import index_keys
from semtransforms.generators.fitting import fit_generator
from semtransforms.generators.generator import NoiseGenerator
from semtransforms.noise import painted as classwise
from semtransforms.noise.methods import AR_L2, AR_LINF, SC_L2, SC_LINF
from semtransforms.noise.painted import class_corners, class_processes, cluster_points, run_processes


def grey(count=40, side=32, classes=10):
    """Images in the middle of the range, so that nothing saturates."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(100, 156, (count, 3, side, side), generator=generator, dtype=torch.uint8)
    return images, torch.arange(count) % classes


def fit(config, data):
    return fit_generator(data, config, progress=False, device="cpu")


def test_the_points_are_distributed_as_scikit_learns():
    """The original takes its shortcut from make_classification; other spreads are another method."""
    count, axes = 4000, 12
    theirs, classes = make_classification(
        n_samples=count, n_features=axes, n_informative=axes, n_redundant=0, n_classes=4, n_clusters_per_class=1,
        class_sep=10.0, flip_y=0.0, shuffle=False, random_state=0,
    )  # fmt: skip
    labels = torch.arange(count) % 4
    ours = cluster_points(labels, index_keys(torch.arange(count), 1), axes, 4, seed=2).numpy()
    for points, named in ((theirs, classes), (ours, labels.numpy())):
        centres = np.stack([points[named == label].mean(0) for label in range(4)])
        assert np.abs(np.abs(centres) - 10).max() < 0.5
        # a row of U(-1, 1) numbers of this length has variance axes / 3
        spread = np.mean([points[named == label].var(0).mean() for label in range(4)])
        assert spread == pytest.approx(axes / 3, rel=0.25)


def test_no_two_classes_share_a_corner():
    """Two classes with one pattern are told apart by nothing: their images stay learnable."""
    corners = class_corners(3, 8, seed=0)
    assert len({tuple(corner.tolist()) for corner in corners}) == 8
    assert set(corners.unique().tolist()) == {-1.0, 1.0}


def test_an_images_patches_are_its_point_painted():
    """A shifted grid or mixed channels would still look like patches and protect less."""
    images, labels = grey()
    generator = fit(SC_LINF, (images, labels))
    noise = generator.noise(images, labels, ids=torch.arange(len(labels)), seed=3)
    points = cluster_points(labels, index_keys(torch.arange(len(labels)), 3), 48, 10, seed=0).numpy()
    for levels, point in zip(noise.numpy(), points, strict=True):
        painted = np.kron(point.reshape(3, 4, 4), np.ones((8, 8)))
        np.testing.assert_array_equal(levels, np.rint(painted * 8 / np.abs(point).max()))


def test_the_two_norms_are_what_they_say():
    """Only the l-infinity version is comparable with the other methods: the bound must hold exactly, and be reached."""
    images, labels = grey()
    linf, l2 = (fit(config, (images, labels)).noise(images, labels).float() for config in (SC_LINF, SC_L2))
    assert (linf.abs().amax((1, 2, 3)) == 8).all()
    # l2 norm 6/255 sqrt(3072) = 1.304: a root mean square of 6 levels, up to the rounding of 48 patches
    assert l2.square().mean((1, 2, 3)).sqrt().numpy() == pytest.approx(np.full(len(images), 6.0), abs=0.15)
    assert l2.abs().max() > 8


def test_a_linear_model_tells_the_noise_apart():
    """The paper's own point: such noise is linearly separable, which is why networks fall for it."""
    images, labels = grey(200)
    noise = fit(SC_LINF, (images, labels)).noise(images, labels).flatten(1).numpy()
    assert NearestCentroid().fit(noise[:100], labels[:100]).score(noise[100:], labels[100:]) == 1.0


def test_the_noise_of_an_image_does_not_depend_on_its_batch():
    """Noise made again for one image, on another machine or in another order, must be the stored one."""
    images, labels = grey(20)
    generator = fit(SC_LINF, (images, labels))
    together = generator.noise(images, labels)
    alone = torch.cat([generator.noise(images[i : i + 1], labels[i : i + 1]) for i in range(20)])
    assert torch.equal(together, alone)
    assert not torch.equal(together[0], together[10])  # same class, other image: another point


def test_mixed_sizes_and_edges():
    """Real folders hold images of any size: the last patch of a row is cut, not left out."""
    generator = fit(SC_LINF, grey(classes=3))
    images = [torch.full((3, 20, 33), 128, dtype=torch.uint8), torch.full((3, 8, 8), 128, dtype=torch.uint8)]
    noise = generator.noise(images, torch.tensor([1, 2]))
    assert [tuple(levels.shape) for levels in noise] == [(3, 20, 33), (3, 8, 8)]
    corner = noise[0][:, 16:, 32:]  # 4 x 1 px of the patch that does not fit
    assert torch.equal(corner, corner[:, :1].expand_as(corner))
    assert (corner != 0).all()
    assert all(levels.abs().max() == 8 for levels in noise)
    with pytest.raises(ValueError, match=r"8 x 8.*'shortcut-patches'.*4 x 9 at index 0"):
        generator.noise([torch.zeros(3, 4, 9, dtype=torch.uint8)], torch.tensor([0]))


@pytest.mark.parametrize(("height", "width", "patch"), [(224, 224, 32), (56, 40, 8), (57, 57, 9), (1000, 600, 143)])
def test_patches_grow_with_the_image(height, width, patch):
    """On ImageNet SC paints 32 px; with 8 px, 1000 x 600 px want a matrix of 3 GB for each class."""
    images, labels = torch.full((2, 3, height, width), 128, dtype=torch.uint8), torch.tensor([0, 1])
    noise = fit(replace(SC_LINF, num_classes=2), (images, labels)).noise(images, labels, ids=torch.arange(2), seed=3)
    rows, columns = -(-height // patch), -(-width // patch)
    assert max(rows, columns) <= 7
    points = cluster_points(labels, index_keys(torch.arange(2), 3), 3 * rows * columns, 2, seed=0).numpy()
    for levels, point in zip(noise.numpy(), points, strict=True):
        painted = np.kron(point.reshape(3, rows, columns), np.ones((patch, patch)))[:, :height, :width]
        np.testing.assert_array_equal(levels, np.rint(painted * 8 / np.abs(point).max()))


def test_too_few_patches_for_the_classes():
    """One patch has eight corners; the ninth class would share another's."""
    images, labels = grey(20, side=8)
    with pytest.raises(ValueError, match=r"8 corners, too few for num_classes=10"):
        fit(SC_LINF, (images, labels)).noise(images, labels)


def test_a_fit_without_weights_keeps_no_checkpoint(tmp_path):
    """An empty checkpoint folder promises a fit that could be continued."""
    fit_generator(grey(), SC_LINF, checkpoint_dir=tmp_path / "work", progress=False, device="cpu")
    assert not (tmp_path / "work").exists()


def test_a_generator_without_weights_is_kept_and_found(tmp_path):
    """Command line, hub and workers all go through the files."""
    images, labels = grey()
    generator = fit(replace(SC_LINF, seed=5), (images, labels))
    generator.save_pretrained(tmp_path / "sc")
    loaded = NoiseGenerator.from_pretrained(tmp_path / "sc")
    assert loaded.fingerprint == generator.fingerprint
    assert torch.equal(loaded.noise(images, labels), generator.noise(images, labels))
    assert not torch.equal(fit(SC_LINF, (images, labels)).noise(images, labels), generator.noise(images, labels))


def test_the_processes_are_run_as_by_hand():
    """The order of a window's pixels decides the texture; a mirrored one is still a texture, and another method."""
    draw = np.random.default_rng(0)
    coefficients, start = draw.normal(size=(2, 3, 3)).astype(np.float32), draw.normal(size=(2, 6, 7)).astype(np.float32)
    coefficients[:, 2, 2] = 0
    expected = start.astype(np.float64)
    for k in range(2):
        for row in range(2, 6):
            for column in range(2, 7):
                before = [
                    expected[k, row - 2 + i, column - 2 + j] * coefficients[k, i, j]
                    for i in range(3) for j in range(3) if (i, j) != (2, 2)
                ]  # fmt: skip
                expected[k, row, column] = sum(before)
    before = start.copy()
    for part in (slice(0, 2), slice(0, 1)):
        got = run_processes(torch.from_numpy(coefficients[part]), torch.from_numpy(start[part]))
        np.testing.assert_allclose(got.numpy(), expected[part], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(start, before)  # the caller's


def test_no_process_grows_out_of_its_tile():
    """A texture that grows leaves all of the radius to one corner of the image, and nothing to the rest."""
    processes = class_processes(10, seed=0).flatten(0, 1).repeat(20, 1, 1)
    starts = np.random.default_rng(1).normal(size=(len(processes), 40, 40)).astype(np.float32)
    fields = run_processes(processes, torch.from_numpy(starts)).numpy()
    early, late = (np.sqrt((part**2).mean((1, 2))) for part in (fields[:, 8:16, 8:16], fields[:, -8:, -8:]))
    assert (late / early).max() < 30  # 107 where they are taken as drawn


def test_each_class_has_a_filter_that_is_blind_to_its_own_noise_alone():
    """This is the shortcut: the paper's point is that one convolution tells the classes apart."""
    processes = class_processes(10, seed=0)
    assert processes.sum((2, 3)).numpy() == pytest.approx(np.ones((10, 3)), abs=1e-4)
    images, labels = grey(20)
    noise = fit(AR_L2, (images, labels)).noise(images, labels).numpy().astype(float)
    filters = processes.numpy().astype(float)
    filters[..., 2, 2] = -1
    responses = np.zeros((20, 10))
    for k, each in enumerate(noise):
        for label, weights in enumerate(filters):
            answer = sum(
                each[c, i : 30 + i, j : 30 + j] * weights[c, i, j] for c in range(3) for i in range(3) for j in range(3)
            )
            responses[k, label] = np.abs(answer).mean()
    assert (responses.argmin(1) == labels.numpy()).all()
    own = responses[np.arange(20), labels.numpy()]
    # all that is left of the own filter's answer is the rounding to whole grey levels
    assert own.max() < 1.5 < np.sort(responses, 1)[:, 1].min()


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 40)])
def test_an_images_textures_are_its_processes_run_anew_in_each_tile(height, width):
    """Begun at the wrong place, or of another seed's processes, the noise is that of another generator."""
    images, labels = torch.full((3, 3, height, width), 128, dtype=torch.uint8), torch.tensor([2, 0, 2])
    for seed in (0, 5):
        config = replace(AR_L2, num_classes=3, seed=seed)
        noise = fit(config, (images, labels)).noise(images, labels, ids=torch.arange(3), seed=3).numpy()
        processes = class_processes(3, seed).numpy().astype(float)
        filters = processes.copy()
        filters[..., 2, 2] = -1
        for levels, label in zip(noise.astype(float), labels.tolist(), strict=True):
            assert np.sqrt((levels**2).mean()) == pytest.approx(4.6, abs=0.06)
            for left in range(0, width, 32):
                tile = levels[:, :, left : left + 32]
                rows, columns = tile.shape[1] - 2, tile.shape[2] - 2
                for channel in range(3):
                    answer = sum(
                        tile[channel, i : rows + i, j : columns + j] * filters[label, channel, i, j]
                        for i in range(3) for j in range(3)
                    )  # fmt: skip
                    # nine roundings by at most half a level each
                    assert np.abs(answer).max() <= 0.5 * np.abs(filters[label, channel]).sum() + 1e-3


def test_the_start_is_cut_off_the_textures(monkeypatch):
    """In the first rows and columns the noise is white, whatever the class: a trainer could learn from there."""
    images, labels = grey(10, side=8)
    generator = fit(AR_L2, (images, labels))
    seen = []
    run = classwise.run_processes

    def watched(coefficients, start):
        seen.append(run(coefficients, start))
        return seen[-1]

    class_processes(10, 0)  # kept, so that the next run is the images'
    monkeypatch.setattr(classwise, "run_processes", watched)
    noise = generator.noise(images, labels).double()
    whole = seen[0].view(10, 3, 36, 36)[:, :, 4:12, 4:12].double()
    scaled = whole * (255 * AR_L2.root_mean_square / whole.square().mean((1, 2, 3), keepdim=True).sqrt())
    assert (noise - scaled).abs().max() <= 0.5 + 1e-3


@pytest.mark.parametrize("side", [64, 224])
def test_the_textures_do_not_grow_with_the_image(side):
    """Most processes explode in the long run: the far corner took all of the noise, and the rest of an image none."""
    images, labels = grey(10, side=side)
    noise = fit(AR_L2, (images, labels)).noise(images, labels).float()
    for quarter in (noise[..., :32, :32], noise[..., -32:, -32:]):
        assert quarter.square().mean((1, 2, 3)).sqrt().min() > 2  # of 4.6


def test_the_two_norms_of_the_textures():
    """l2 norm 1 at 32 px is what others publish; only within rho_u is it comparable with SEM."""
    images, labels = grey()
    linf, l2 = (fit(config, (images, labels)).noise(images, labels).float() / 255 for config in (AR_LINF, AR_L2))
    assert (linf.abs().amax((1, 2, 3)) * 255).numpy() == pytest.approx(np.full(40, 8.0))
    assert l2.flatten(1).norm(dim=1).numpy() == pytest.approx(np.ones(40), abs=0.05)


def test_the_textures_of_an_image_do_not_depend_on_its_batch():
    """As for SC: stored noise is made again elsewhere."""
    images, labels = grey(20)
    generator = fit(AR_L2, (images, labels))
    alone = torch.cat([generator.noise(images[i : i + 1], labels[i : i + 1]) for i in range(20)])
    together = generator.noise(images, labels)
    assert torch.equal(together, alone)
    assert not torch.equal(together[0], together[10])


def test_a_hundred_classes_have_processes_too():
    """CIFAR-100 has too many for a response of 10 between any two: without giving way there is no noise for it."""
    assert len({tuple(process.flatten().tolist()) for process in class_processes(100, seed=0)}) == 100

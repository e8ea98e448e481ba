"""Trainers who train in another way, sharpness-aware or without labels: against NumPy, and what does not go with it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_countermeasures import photographs
from test_victims import NO_FLIP, TINY, stripes, train
from torch import nn

from semtransforms.core.config import PGDConfig
from semtransforms.core.keys import index_keys
from semtransforms.data.loading import Labelled
from semtransforms.evaluation.countermeasures import parse_countermeasure
from semtransforms.evaluation.victims import VictimConfig
from semtransforms.evaluation.victims.contrastive import Projector, contrast, draw_view, put_projector, with_layer
from semtransforms.evaluation.victims.sharpness import update_sharpness_aware


def softmax_gradient(weights, images, labels):
    """Of the mean cross-entropy of a linear layer without bias."""
    logits = images @ weights.T
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    return (shares - np.eye(len(weights))[labels]).T @ images / len(images)


def test_a_sharpness_aware_update_is_that_of_the_paper():
    """Eq. 2 and Algorithm 1 of Foret et al.: the gradient at the worst weights nearby, from where the weights are."""
    torch.manual_seed(0)
    layer = nn.Linear(12, 3, bias=False)
    network = nn.Sequential(nn.Flatten(), layer).double()
    views, targets = torch.rand(6, 3, 2, 2).double(), torch.arange(6) % 3
    before, flat = layer.weight.detach().numpy().copy(), views.flatten(1).numpy()
    slope = softmax_gradient(before, flat, targets.numpy())
    worst = before + 0.7 * slope / np.sqrt((slope**2).sum())
    expected = before - 0.2 * softmax_gradient(worst, flat, targets.numpy())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.2)
    loss, _ = update_sharpness_aware(network, optimizer, views, targets, None, 0.7)
    np.testing.assert_allclose(layer.weight.detach().numpy(), expected, rtol=1e-5, atol=1e-7)  # logits in float32
    logits = flat @ before.T
    assert loss.item() == pytest.approx(np.mean(np.log(np.exp(logits).sum(1)) - logits[range(6), targets]))


def test_a_sharpness_aware_update_leaves_statistics_of_the_weights_that_it_has():
    """BatchNorm would remember images as weights saw them that nobody has."""
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.Flatten())
    views, targets = torch.rand(8, 3, 2, 2), torch.arange(8) % 4
    network.train()(views)
    once = [buffer.clone() for buffer in network.buffers()]
    for part in (network[0], network[2]):
        part.reset_running_stats()
    update_sharpness_aware(network, torch.optim.SGD(network.parameters(), lr=1.0), views, targets, None, 5.0)
    torch.testing.assert_close(list(network.buffers()), once)


def test_contrast_agrees_with_numpy():
    """Eq. 1 of Chen et al.: each of 2 N views against all others but itself, temperature 0.5."""
    projected = torch.randn(10, 4, generator=torch.Generator().manual_seed(0)).double()
    z = projected.numpy() / np.linalg.norm(projected.numpy(), axis=1, keepdims=True)
    likeness = np.exp(z @ z.T / 0.5)
    np.fill_diagonal(likeness, 0)
    partner = (np.arange(10) + 5) % 10
    expected = -np.log(likeness[range(10), partner] / likeness.sum(1)).mean()
    loss, nearest = contrast(projected)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert nearest.item() == pytest.approx((likeness.argmax(1) == partner).mean())


def test_views_of_an_image_differ_and_depend_on_its_key_alone():
    """Two views that are the same teach nothing; draws of a batch would end with the batch."""
    images = photographs(4).float() / 255
    keys = index_keys(torch.arange(4), 0)
    views = draw_view(images, keys)
    assert views.shape == images.shape
    assert 0 <= views.min() <= views.max() <= 1
    torch.testing.assert_close(draw_view(images[2:], keys[2:]), views[2:])
    many = draw_view(images[:1].expand(200, -1, -1, -1), index_keys(torch.arange(200), 1))
    assert len({view.numpy().tobytes() for view in many}) > 190
    grey = (many.amax(1) - many.amin(1)).flatten(1).amax(1) < 1e-4
    assert 0.1 < grey.float().mean() < 0.3  # of two in ten


def test_contrastive_training_tells_photographs_apart_without_their_labels():
    """An encoder that is not trained, or is trained on labels, would be reported as this trainer."""
    images = photographs(32, 16)
    labels = torch.arange(32) % 2
    config = replace(TINY, contrastive=True, train_steps=30, batch_size=32)
    result = train(config, (images, labels))
    (_, first, _), *_, (_, last, _) = result.curve
    assert last < first - 0.1
    assert result.train_accuracy > 3 / 63  # of views next to their partner; one in 63 by chance
    assert result.passes == 30 * 32 * 2
    swapped = train(config, (images, 1 - labels))  # the labels reach the layer alone
    assert [loss for _, loss, _ in swapped.curve] == [loss for _, loss, _ in result.curve]


def test_the_layer_behind_the_encoder_is_a_probe():
    """A layer on what the projector gives would be weaker than the trainer."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 9))
    put_projector(network)
    assert isinstance(network[3], Projector)
    images, labels = stripes()
    named = with_layer(network, Labelled(images, labels), 2, None)
    assert isinstance(network[3], Projector)  # the trained network goes on as it was
    from sklearn.linear_model import LogisticRegression

    features = network[:3](images.float() / 255).detach().double()
    # the mean loss and half of 0.01 times the squared weights; two rows of weights of a softmax, one of a logistic
    theirs = LogisticRegression(C=1 / (0.01 / 2 * len(labels)), tol=1e-8, max_iter=2000).fit(features, labels)
    ours = named[3].weight[1] - named[3].weight[0]
    np.testing.assert_allclose(ours.detach().numpy(), theirs.coef_[0], rtol=0.01, atol=1e-3)
    with pytest.raises(ValueError, match=r"last linear layer, and it has none.*convnet"):
        put_projector(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()))


def test_sharpness_aware_training_learns():
    """A step in the wrong direction would look like protection."""
    result = train(replace(NO_FLIP, sharpness=0.05))
    assert result.test_accuracy > 0.95
    assert result.passes == 60 * 32 * 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"contrastive": True, "rho_a": 2 / 255}, "contrastive.*rho_a"),
        ({"contrastive": True, "sharpness": 0.05}, "contrastive.*sharpness"),
        ({"contrastive": True, "patience": 9}, "contrastive.*patience"),
        ({"contrastive": True, "augmentation": lambda image: image}, "contrastive.*augmentation"),
        ({"sharpness": -0.1}, "sharpness"),
    ],
)
def test_ways_that_do_not_go_together_are_refused(changes, words):
    """A choice that is dropped without a word makes the record a lie."""
    with pytest.raises(ValueError, match=words):
        VictimConfig("convnet", **changes)


def test_adversarial_and_sharpness_aware_go_together_and_count_their_passes():
    """Both change the gradient, each at its place."""
    config = VictimConfig("convnet", rho_a=2 / 255, steps_a=5, sharpness=0.05)
    assert config.passes == 7
    assert config.attack == PGDConfig(2 / 255, pytest.approx(0.8 / 255), 5)


def test_contrastive_training_refuses_what_acts_on_batches():
    """Its views are its own: a mixture of targets that nobody uses would be in the record alone."""
    with pytest.raises(ValueError, match=r"'mixup'.*draws its own views"):
        train(replace(TINY, contrastive=True), countermeasures=parse_countermeasure("mixup"))


def test_configs_of_usual_trainings_are_kept_as_they_were():
    """New fields in the settings would make every kept run another trainer's."""
    assert not {"sharpness", "contrastive"} & VictimConfig("convnet").to_dict().keys()
    assert VictimConfig("convnet", sharpness=0.05).to_dict()["sharpness"] == 0.05
    assert VictimConfig("convnet", contrastive=True).to_dict()["contrastive"] is True

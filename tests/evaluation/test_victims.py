"""The unauthorised trainer: schedules, what is measured, interruption, early stopping."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from killing import run_killed
from torch import nn
from torchvision.transforms import v2

from semtransforms.core.config import PGDConfig
from semtransforms.data.loading import Labelled
from semtransforms.evaluation.countermeasures import CleanShare, Countermeasure
from semtransforms.evaluation.victims import VictimConfig, paper, quick, train_victim, training
from semtransforms.evaluation.victims import accuracy as accuracies
from semtransforms.evaluation.victims.accuracy import accuracy, robust_accuracy
from semtransforms.evaluation.victims.training import learning_rate_share
from semtransforms.evaluation.victims.validation import set_aside

TINY = VictimConfig("convnet", width=4, train_steps=60, batch_size=32, learning_rate=0.1, evaluations=3)


def stripes(count=96, seed=0, side=8):
    """Two classes that a network tells apart at once: a bright left or a bright right half, under noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = torch.randint(0, 120, (count, 3, side, side), generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, :, label * side // 2 : (label + 1) * side // 2] += 90
    return images.to(torch.uint8), labels


def train(config=TINY, data=None, **options):
    images, labels = data or stripes()
    tests, named = stripes(64, seed=1)
    return train_victim(images, labels, config, test_images=tests, test_labels=named, device="cpu", progress=False,
                        **options)  # fmt: skip


NO_FLIP = replace(TINY, augmentation=())  # a flip would turn one class into the other


def test_the_paper_protocol_is_the_papers():
    """Section 5.1: 40,000 updates, B 128, SGD 0.1, 0.9, 5e-4, times 0.1 every 16,000, PGD-10 at rho_a / 5."""
    config = paper(rho_a=4 / 255)
    assert (config.train_steps, config.batch_size, config.learning_rate) == (40_000, 128, 0.1)
    assert (config.momentum, config.weight_decay, config.nesterov) == (0.9, 5e-4, False)
    assert config.attack == PGDConfig(4 / 255, pytest.approx(0.8 / 255), 10)
    shares = [learning_rate_share(step, config) for step in (0, 15_999, 16_000, 31_999, 32_000, 39_999)]
    assert shares == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_the_quick_protocol_is_one_cycle_of_20_epochs():
    """A fixed number of updates would train 50,000 images for four epochs and call that protection."""
    config = quick(50_000)
    assert config.train_steps == 7813  # 20 * 50,000 / 128, rounded up
    shares = [learning_rate_share(step, config) for step in range(config.train_steps)]
    assert max(shares) == pytest.approx(1, abs=1e-3)
    assert np.argmax(shares) == pytest.approx(config.train_steps / 5, abs=1)
    assert shares[-1] == 0
    assert quick(50_000, train_steps=7).train_steps == 7
    assert quick(24).train_steps == 100  # 20 epochs of so few would be 4 updates


def test_learns_what_can_be_learnt_and_measures_it():
    """A trainer too weak to learn from clean images makes every protection look perfect."""
    result = train(NO_FLIP)
    assert result.test_accuracy > 0.95
    assert result.test_accuracy == result.test_accuracy_plain
    assert result.test_accuracy_processed is None
    assert result.train_accuracy > 0.95
    assert not result.diverged
    assert [step for step, _, _ in result.curve] == [20, 40, 60]
    assert result.curve[0][1] > result.curve[-1][1] >= 0  # the loss falls
    assert result.peak_test_accuracy == max(measured for _, _, measured in result.curve)
    assert result.passes == 60 * 32


def test_wrong_labels_are_not_learnt():
    """An accuracy that is high whatever the labels say measures something else than learning."""
    images, labels = stripes()
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    assert train(NO_FLIP, (images, 1 - labels)).test_accuracy < 0.05
    assert train(NO_FLIP, (images, shuffled)).test_accuracy < 0.85


class Fixed(nn.Module):
    """Class 1 where the right half is brighter than the left: known right answers, known margin."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        margin = images[..., 4:].mean((1, 2, 3)) - images[..., :4].mean((1, 2, 3))
        return torch.stack([-margin, margin], 1) * self.scale


def half_bright(level):
    """The right half is ``level`` grey levels brighter than the left in even images, darker in odd ones."""
    images = torch.full((20, 3, 8, 8), 100, dtype=torch.uint8)
    images[0::2, :, :, 4:] += level
    images[1::2, :, :, :4] += level
    return Labelled(images, torch.tensor([1, 0] * 10))


def test_accuracy_counts_what_is_right():
    """Three of four: an accuracy that is off by a batch or a dtype decides every table."""
    data = half_bright(10)
    labels = data.labels.clone()
    labels[:5] = 1 - labels[:5]
    network = Fixed().train()
    assert accuracy(network, Labelled(data.images, labels), None) == 0.75
    assert network.training


@pytest.mark.parametrize(("norm", "rho"), [("linf", 4 / 255), ("l2", 4 / 255 * np.sqrt(3 * 64))])
def test_robust_accuracy_knows_the_margin(norm, rho):
    """A halves' difference of 10 levels survives +-4 levels a pixel (2 left) and not +-6; l2 of equal reach alike."""
    attack = PGDConfig(rho, rho / 5, 10, norm=norm)
    assert robust_accuracy(Fixed(), half_bright(10), attack, None) == 1
    assert robust_accuracy(Fixed(), half_bright(10), replace(attack, rho=1.5 * rho), None) == 0


def test_robust_accuracy_is_of_all_classes():
    """Folders are sorted by class: the first 1,000 of 2,000 images would be of one class."""

    class Zero(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.tensor([1.0, 0.0]))

        def forward(self, images):
            return self.bias + 0 * images.sum((1, 2, 3))[:, None]

    data = Labelled(torch.zeros(2000, 3, 8, 8, dtype=torch.uint8), torch.arange(2000) // 1000)
    assert robust_accuracy(Zero(), data, PGDConfig(2 / 255, 1 / 255, 2), None) == pytest.approx(0.5, abs=0.05)


def test_the_attack_of_robust_accuracy_is_stronger_than_the_trainers(monkeypatch):
    """Measured with the adversary of its own training, a victim's robustness is flattered."""
    seen = []

    def watch(network, views, labels, config, **options):
        seen.append(config)
        return torch.zeros_like(views)

    monkeypatch.setattr(accuracies, "pgd", watch)
    robust_accuracy(Fixed(), half_bright(10), PGDConfig(4 / 255, 2 / 255, 5, norm="l2"), None)
    assert seen == [PGDConfig(4 / 255, 1 / 255, 10, norm="l2")]


def test_adversarial_training_is_seen_in_its_figures():
    """Without rho_a there is no robust accuracy to speak of; with it the passes count the adversary's."""
    config = replace(NO_FLIP, rho_a=8 / 255, steps_a=3)
    result = train(config)
    assert result.robust_accuracy > 0.9
    assert result.passes == 60 * 32 * 4
    assert train(NO_FLIP).robust_accuracy is None


def test_a_seed_reproduces_and_another_differs():
    """Spread over seeds is the error bar of every table."""
    first, again, other = train(), train(), train(replace(TINY, seed=1))
    assert replace(first, seconds=0) == replace(again, seconds=0)
    assert first.curve != other.curve


KILLED = """
import torch; torch.set_num_threads(1)
from semtransforms.evaluation.victims import training
from killing import kill_at_rename
from test_victims import *
training.CHECKPOINT_SECONDS = 0
kill_at_rename(25, "victim.safetensors")
train({config}, checkpoint={path!r})
"""


@pytest.mark.processes
@pytest.mark.parametrize("config", ["NO_FLIP", "replace(NO_FLIP, evaluations=12, patience=59)"])
def test_killed_and_resumed_gives_the_same_result(tmp_path, config):
    """kill -9 in the middle of an hour's training must cost seconds and not change a figure."""
    path = tmp_path / "victim.safetensors"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        unbroken = train(eval(config))
        run_killed(KILLED.format(path=str(path), config=config), __file__)
        assert path.exists()
        resumed = train(eval(config), checkpoint=path)
    finally:
        torch.set_num_threads(threads)
    assert replace(resumed, seconds=0) == replace(unbroken, seconds=0)
    assert not path.exists()


def test_a_foreign_checkpoint_is_refused(tmp_path, monkeypatch):
    """Continuing another trainer's network would report a figure that no config describes."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    path = tmp_path / "victim.safetensors"

    class Interrupt(Exception):
        pass

    def stop(*_):
        raise Interrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "accuracy", stop)  # at the first evaluation
        with pytest.raises(Interrupt):
            train(checkpoint=path)
    assert path.exists()
    with pytest.raises(ValueError, match=r"another training.*config"):
        train(replace(TINY, seed=1), checkpoint=path)
    with pytest.raises(ValueError, match=r"another training.*data"):
        train(data=stripes(seed=3), checkpoint=path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="damaged"):
        train(checkpoint=path)


def test_divergence_is_reported_as_that():
    """A network of NaN guesses: its 50 % must not pass for protection."""
    result = train(replace(NO_FLIP, learning_rate=1e12))
    assert result.diverged
    assert result.passes < 60 * 32  # and it stops


def test_early_stopping_takes_the_best_validated_network():
    """Table 5: stopped too late or with the last weights instead of the best, the row is that of a usual trainer."""
    seen = []  # accuracy on the validation images, as measured

    def watch(network, data, dtype):
        measured = accuracy(network, data, dtype)
        if len(data.labels) == 24:  # a quarter of 96
            seen.append(measured)
        return measured

    config = replace(NO_FLIP, train_steps=100, evaluations=20, patience=10, validation=0.25)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "accuracy", watch)
        result = train(config)
    best = 5 * (seen.index(max(seen)) + 1)  # the first of equally good ones; looked at every 5 updates
    assert result.stopped_step == best
    assert result.passes // 32 == 5 * len(seen) == best + 10
    assert result.test_accuracy == {step: measured for step, _, measured in result.curve}[best]


def test_clean_validation_images_come_from_the_owner():
    """The share of clean validation images is the axis of Table 5; published ones in their place would fake it."""
    published = torch.zeros(40, 3, 8, 8, dtype=torch.uint8)
    owner = torch.ones_like(published)
    config = replace(TINY, patience=10, validation=0.5, validation_clean=0.3)
    kept, held = set_aside(Labelled(published, torch.arange(40), clean=owner), config, ())
    assert (len(kept.labels), len(held.labels)) == (20, 20)
    assert int((held.images == 1).flatten(1).all(1).sum()) == 6  # 30 % of 20
    assert not published.any()  # the caller's images are not written into
    assert sorted(torch.cat([kept.labels, held.labels]).tolist()) == list(range(40))
    with pytest.raises(ValueError, match="clean"):
        set_aside(Labelled(published, torch.arange(40)), config, ())
    with pytest.raises(ValueError, match=r"validation=0\.001"):
        set_aside(Labelled(published, torch.arange(40)), replace(config, validation=0.001), ())
    _, held = set_aside(Labelled(published, torch.arange(40), clean=owner), config, (Invert(),))
    assert int((held.images == 254).flatten(1).all(1).sum()) == 6  # their clean images are processed as all others


def test_any_module_and_any_transforms():
    """A trainer's own network and pipeline must be usable, and the module given stay as it was."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    pipeline = v2.Compose([v2.RandomCrop(8, padding=1), v2.ToDtype(torch.float32, scale=True)])
    for given in (network, lambda classes: nn.Sequential(nn.Flatten(), nn.Linear(192, classes))):
        results = [train(replace(TINY, network=given, width=None, augmentation=pipeline)) for _ in range(2)]
        assert results[0].test_accuracy > 0.9
        assert results[0].curve == results[1].curve  # a seed reproduces the pipeline's draws too
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    with pytest.raises(ValueError, match="augmentation must keep the size"):
        train(replace(TINY, augmentation=v2.Resize(4)))


class Keys(Countermeasure):
    """Remembers the keys it was given."""

    acts_on = "batch"

    def __init__(self, name):
        self.name, self.seen = name, []

    def on_batch(self, images, targets, *, keys, network):
        self.seen.append(keys)
        return images, targets


def test_draws_differ_between_epochs_and_countermeasures():
    """The same crops in every epoch, or cutout where mixup is drawn: a weaker trainer than the record says."""
    first, second, crops = Keys("first"), Keys("second"), Keys("crops")
    with pytest.MonkeyPatch.context() as patch:
        spy = lambda images, keys: crops.on_batch(images / 255, None, keys=keys, network=None)[0]  # noqa: E731
        patch.setattr(training, "build_eot", lambda _: spy)
        train(replace(TINY, train_steps=6), countermeasures=(first, second))
    keys = torch.cat([*first.seen, *second.seen, *crops.seen]).tolist()
    assert len(keys) == len(set(keys)) == 3 * 6 * 32  # 96 images, two epochs


class Invert(Countermeasure):
    """Negatives of the stored images, at test as well: turns left into right on one side only."""

    name, acts_on = "invert", "stored"

    def on_stored(self, data, *, seed):
        return replace(data, images=255 - data.images)

    def at_test(self, images):
        return 255 - images


def test_test_images_are_also_tried_processed():
    """A trainer who trains on negatives shows the network negatives; tested on plain images alone it seems to fail."""
    result = train(NO_FLIP, countermeasures=(Invert(),))
    assert result.test_accuracy_plain < 0.5
    assert result.test_accuracy == result.test_accuracy_processed > 0.95
    assert result.peak_test_accuracy == max(measured for _, _, measured in result.curve) >= result.test_accuracy


def test_what_is_no_map_of_test_images_measures_them_once():
    """A figure on "processed" test images that nothing processed would be the plain one under another name."""
    images, labels = stripes()
    result = train(NO_FLIP, (images, labels), countermeasures=(CleanShare(50),), clean=images)
    assert result.test_accuracy_processed is None


def test_networks_and_pipelines_that_differ_are_not_called_the_same():
    """Their records would pass for each other when an evaluation goes on."""
    configs = [
        replace(TINY, network=nn.Sequential(nn.Flatten(), nn.Linear(192, 2))),
        replace(TINY, network=nn.Sequential(nn.Flatten(), nn.Linear(192, 2), nn.Identity())),
        replace(TINY, network=lambda classes: nn.Linear(192, classes)),
        replace(TINY, network=lambda classes: nn.Linear(192, classes + 7)),
        replace(TINY, augmentation=v2.RandomHorizontalFlip(0.5)),
        replace(TINY, augmentation=v2.RandomHorizontalFlip(1.0)),
    ]
    names = [str(config.to_dict()) for config in configs]
    assert len(set(names)) == len(names)
    assert configs[0].to_dict() == replace(configs[0]).to_dict()


@pytest.mark.parametrize(
    ("field", "value"),
    [("train_steps", 0), ("batch_size", 2.5), ("rho_a", 4), ("rho_a", -0.1), ("norm", "l1"), ("schedule", "linear"),
     ("patience", 0), ("validation", 2), ("learning_rate", float("nan")), ("evaluations", True), ("momentum", 0.0)],
)  # fmt: skip
def test_a_wrong_setting_is_named(field, value):
    """Otherwise it surfaces after the data are read, as an error of torch."""
    with pytest.raises(ValueError, match=field):
        VictimConfig(**{field: value})


def test_data_that_do_not_fit_are_refused():
    """Length and labels are wrong more often than anything else."""
    images, labels = stripes(8)
    with pytest.raises(ValueError, match=r"images must be non-empty.*8 and 7 labels"):
        train(data=(images, labels[:7]))
    with pytest.raises(ValueError, match="did you mean 'convnet'"):
        train(replace(TINY, network="convnett"))

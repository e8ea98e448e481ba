"""What a step costs, counted: passes, gradients, waits for the host, bytes. Seconds are measured, never asserted."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from work_counter import counted

from semtransforms.core.config import PGDConfig
from semtransforms.core.keys import batch_rows, index_keys
from semtransforms.core.models import build_model
from semtransforms.evaluation.victims import VictimConfig, train_victim
from semtransforms.generators.fitting import fit_generator, train_step
from semtransforms.generators.generator import NoiseGenerator
from semtransforms.noise.methods import EM, REM, SEM, TAP
from semtransforms.noise.pgd import pgd
from semtransforms.views.eot import build_eot

SIDE, CLASSES, CONVOLUTIONS = 16, 4, 6
STEPS_U, STEPS_A, SAMPLES = 3, 2, 2
SMALL = {
    "surrogate": "convnet",
    "width": 4,
    "steps_u": STEPS_U,
    "steps_a": STEPS_A,
    "num_samples": SAMPLES,
    "precision": "fp32",
}


def problem(config, count=8):
    config = replace(config, num_classes=CLASSES)
    generator = torch.Generator().manual_seed(0)
    network = build_model("convnet", num_classes=CLASSES, image_size=SIDE, width=4)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    images = torch.rand(count, 3, SIDE, SIDE, generator=generator)
    keys = index_keys(torch.arange(count), 0)
    eot = build_eot(config.eot)

    def step():
        return train_step(network, optimizer, images, torch.arange(count) % CLASSES, keys=keys, config=config, eot=eot)

    step()  # the first one measures how many images fit, and makes the momentum
    return step


BATCH, TOGETHER = 8, 8 * SAMPLES  # the samples of a gradient go through the network together


@pytest.mark.parametrize(
    ("preset", "passes"),
    [
        (SEM, [TOGETHER] * STEPS_U + [BATCH] * (STEPS_A + 1)),
        (REM, [TOGETHER] * STEPS_U * (STEPS_A + 1) + [BATCH] * (STEPS_A + 1)),
        (EM, [BATCH] * (STEPS_U + 1)),
        (TAP, [BATCH]),
    ],
    ids=["sem", "rem", "em", "tap"],
)
def test_a_fit_makes_the_passes_of_algorithm_1(preset, passes):
    """One pass more for each image is days at the paper's scale; one less is another method."""
    step = problem(replace(preset, **SMALL | {"num_samples": min(SAMPLES, preset.num_samples)}))
    with counted() as work:
        step()
    assert work.images_in == passes


def test_noise_makes_the_passes_of_equation_7():
    """Protecting ImageNet with one pass more for each step is another day."""
    config = replace(SEM, **SMALL, num_classes=CLASSES, image_size=(SIDE, SIDE))
    generator = NoiseGenerator(build_model("convnet", num_classes=CLASSES, image_size=SIDE, width=4), config)
    images = torch.randint(0, 256, (10, 3, SIDE, SIDE), dtype=torch.uint8)
    generator.noise(images[:1], [0])
    with counted() as work:
        generator.noise(images, torch.arange(10) % CLASSES, batch_size=4)
    assert work.images_in == [4 * SAMPLES] * STEPS_U * 2 + [2 * SAMPLES] * STEPS_U


@pytest.mark.parametrize("rho_a", [0.0, 4 / 255])
def test_a_victim_makes_the_passes_that_it_reports(rho_a):
    """The passes stand beside every figure of an evaluation, and decide what a table costs."""
    config = VictimConfig("convnet", width=4, train_steps=3, batch_size=8, rho_a=rho_a, steps_a=2, evaluations=1)
    images, labels = torch.randint(0, 256, (20, 3, SIDE, SIDE), dtype=torch.uint8), torch.arange(20) % CLASSES
    with counted() as work:
        result = train_victim(images, labels, config, test_images=images[:1], test_labels=labels[:1], progress=False)
    # besides: one image to see how many fit, and the test image, by itself and under PGD of twice the steps
    assert result.passes == 8 * 3 * (3 if rho_a else 1)
    assert work.images_in.count(8) * 8 == result.passes


def test_weights_get_gradients_in_the_update_alone():
    """A backward pass to the weights in the loop is half as much work again, thrown away."""
    step = problem(replace(SEM, **SMALL))
    with counted() as work:
        step()
    assert work.weight_gradients == CONVOLUTIONS
    # the update's first convolution has no use for the gradient of its images
    assert work.input_gradients == CONVOLUTIONS * (STEPS_U + STEPS_A) + CONVOLUTIONS - 1


@pytest.mark.parametrize("preset", [SEM, REM, EM, TAP], ids=lambda preset: preset.method)
def test_no_step_waits_for_the_host(preset):
    """A value read on the host empties the queue of an accelerator: it idles at every step until it is refilled."""
    step = problem(replace(preset, **SMALL))
    with counted() as work:
        step()
    assert work.waits == []


def test_the_counter_sees_a_wait():
    """The test above must be able to fail."""
    values = torch.rand(4)
    with counted() as work:
        values[values > 0.5].sum().item()
        values.cpu(), values.tolist()
    assert work.waits == ["index", "_local_scalar_dense", "cpu", "tolist"]


def test_waits_of_a_training_do_not_grow_with_its_updates(tmp_path):
    """The loops around the step draw, log and schedule: once per update would be a wait per update."""
    images, labels = torch.randint(0, 256, (20, 3, SIDE, SIDE), dtype=torch.uint8), torch.arange(20) % CLASSES
    config = replace(SEM, **SMALL, batch_size=4)
    victim = VictimConfig("convnet", width=4, batch_size=4, rho_a=2 / 255, steps_a=1, evaluations=1)

    def fit(steps):
        fit_generator((images, labels), replace(config, train_steps=steps), progress=False)

    def train(steps):
        train_victim(images, labels, replace(victim, train_steps=steps), test_images=images[:1],
                     test_labels=labels[:1], progress=False)  # fmt: skip

    for training in (fit, train):
        waits = []
        for steps in (3, 8):  # below 10, where a fit reads its loss
            with counted() as work:
                training(steps)
            # the shuffled rows of a new epoch are drawn on the host
            waits.append(len(work.waits))
        assert waits[0] == waits[1]


def test_no_loop_runs_over_images():
    """Operations of a step that grow with the batch are Python's speed, a thousand times below the device's."""
    counts = []
    for count in (4, 16):
        step = problem(replace(SEM, **SMALL), count)
        with counted() as work:
            step()
        counts.append(len(work.operations))
    assert counts[0] == counts[1]


def test_a_noise_step_copies_few_images():
    """What a step of the loop writes beside the network's activations, which are hundreds of times the images.

    Of each sample: six for the random numbers, the rest for T, the perturbation, the clamps, and the way back.
    """
    images = torch.rand(64, 3, SIDE, SIDE)
    network, keys = _Free(), index_keys(torch.arange(64), 0)
    eot = build_eot(SEM.eot)
    written = []
    for steps in (1, 2):
        config = PGDConfig(8 / 255, 2 / 255, steps, replace(SEM, **SMALL).perturbation("uniform"), num_samples=SAMPLES)
        pgd(network, images, torch.zeros(64, dtype=torch.int64), config, keys=keys, eot=eot)
        with counted() as work:
            pgd(network, images, torch.zeros(64, dtype=torch.int64), config, keys=keys, eot=eot)
        written.append(work.bytes)
    assert (written[1] - written[0]) / images.nbytes < 27 * SAMPLES


class _Free(nn.Module):
    """Logits that cost nothing to compute beside the images."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(CLASSES))

    def forward(self, images):
        return images.mean((1, 2, 3))[:, None] * self.weight


def test_rows_of_a_step_are_made_where_they_are_used():
    """Copied from the host, the rows of each step would wait for a transfer."""
    rows = batch_rows(3, 100, 8, 0, torch.device("meta"))
    assert rows.device.type == "meta"
    assert rows.shape == (8,)

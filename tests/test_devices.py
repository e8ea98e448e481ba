"""Fits, noise and victims on a pretended GPU: no tensor is left on the wrong device, and the bytes are the CPU's.

``pretended.py`` says how, and what is not seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from pretended import GPU, pretended_gpu
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from semtransforms import SEM_CLASSWISE, SEM_ONE_PASS, SEM_PLUS, GeneratorConfig, NoiseGenerator, fit_generator
from semtransforms.core.keys import fold_in
from semtransforms.evaluation.countermeasures import parse_countermeasure
from semtransforms.evaluation.victims import VictimConfig, train_victim
from semtransforms.noise.methods import NTGA, REM, TAP_UNTARGETED

SMALL = {"precision": "fp32", "train_steps": 2, "batch_size": 4, "steps_u": 2, "alpha_u": 4 / 255}
NETWORK = {**SMALL, "surrogate": "convnet", "width": 8, "decay_every": 1}
METHODS = {
    "plus": replace(SEM_PLUS, **NETWORK, steps_a=2),
    "adversary": replace(REM, **NETWORK, steps_a=2, num_samples=2),
    "textures": replace(SEM_CLASSWISE, **NETWORK, hold_steps=1),
    "classwise": replace(SEM_CLASSWISE, **NETWORK, hold_steps=0),
    "one pass": replace(SEM_ONE_PASS, **NETWORK, steps_a=2, one_pass=2),
    "away": replace(TAP_UNTARGETED, **NETWORK | {"train_steps": 9, "decay_every": 9}),
    "kernel": replace(NTGA, steps_u=2),
}


def pictures(count: int = 8, side: int = 16) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(side)
    labels = torch.arange(count) % 2
    images = torch.randint(0, 130, (count, 3, side, side), generator=draw) + 120 * labels[:, None, None, None]
    return images.to(torch.uint8), labels


def run(config: GeneratorConfig, device: str) -> tuple[NoiseGenerator, list[Tensor]]:
    """A fit, its noise for images of two sizes, and what takes noise away again where something does."""
    images, labels = pictures()
    generator = fit_generator((images, labels), config, device=device, progress=False)
    made = [generator.noise(images, labels, seed=1)]
    if config.method != "ntga":
        made.append(generator.noise(*pictures(6, 24), seed=1, noise_size="full"))
    if config.surrogate == "convnet":
        engine = generator.engine
        made.append(engine.undo(images[:4], labels[:4], fold_in(labels[:4], 0), steps=2))
    return generator, made


@pytest.mark.parametrize("name", METHODS)
def test_a_fit_and_its_noise_leave_no_tensor_behind(name: str):
    """Two hours after a GPU was rented: 'Expected all tensors to be on the same device'."""
    _, wanted = run(METHODS[name], "cpu")
    with pretended_gpu():
        generator, made = run(METHODS[name], "cuda")
        assert generator.device == GPU or generator.engine.exact  # noise that is kept is on the CPU
        assert all(noise.device.type == "cpu" for noise in made)
    for ours, other in zip(made, wanted, strict=True):
        assert torch.equal(ours, other)


VICTIM = VictimConfig("convnet", width=4, train_steps=2, batch_size=8, evaluations=1, precision="fp32", steps_a=2)
VICTIMS = {
    "adversary": (replace(VICTIM, rho_a=4 / 255), ""),
    "l2 and sharpness": (replace(VICTIM, rho_a=1.0, norm="l2", sharpness=0.05), ""),
    "sizes": (replace(VICTIM, train_size=12, crop="random-resized"), ""),
    "views": (replace(VICTIM, contrastive=True, augmentation=()), ""),
    "validated": (replace(VICTIM, patience=1, validation=0.3), "cutmix"),
    "mixed": (VICTIM, "mixup+cutout+gaussian-noise+warp"),
    "colours": (VICTIM, "channel-shuffle+colour-jitter+random-resized"),
    "by hand": (VICTIM, "augmix+randaugment"),
    "layer": (VICTIM, "linear-removal"),
}


@pytest.mark.parametrize("name", VICTIMS)
def test_a_victim_leaves_no_tensor_behind(name: str):
    """The protocol's hundred runs would end at the one countermeasure that nobody had tried on a GPU."""
    config, countermeasures = VICTIMS[name]
    (images, labels), (tests, named) = pictures(16), pictures(6)

    def result(device: str):
        trained = train_victim(
            images, labels, config, test_images=tests, test_labels=named, clean=images, device=device, progress=False,
            countermeasures=parse_countermeasure(countermeasures) if countermeasures else (),
        )  # fmt: skip
        return replace(trained, seconds=0.0)

    wanted = result("cpu")
    with pretended_gpu():
        assert result("cuda") == wanted


GROUND: dict[str, Callable[[Callable[..., Tensor]], object]] = {
    # each is given what makes a tensor of a shape on the GPU; all else is on the CPU
    "a sum": lambda on: on(4, 3) + torch.ones(4, 3),
    "a sum of one device": lambda on: on(4, 3) + on(3),
    "a number from the CPU": lambda on: on(4, 3) * torch.tensor(2.0),
    "a number from the GPU": lambda on: torch.ones(4, 3) * on(),
    "written into a CPU tensor": lambda on: torch.ones(4, 3).add_(on(4, 3)),
    "written into a number on the CPU": lambda on: torch.tensor(1.0).add_(on()),
    "joined": lambda on: torch.cat([on(4, 3), torch.ones(1, 3)]),
    "stacked": lambda on: torch.stack([torch.ones(3), on(3)]),
    "chosen": lambda on: torch.where(torch.ones(3) > 0, on(3), on(3)),
    "limited": lambda on: torch.clamp(on(3), torch.zeros(3), torch.ones(3)),
    "rows by an index on the CPU": lambda on: on(4, 3)[torch.tensor([0, 2])],
    "rows by an index beside it": lambda on: on(4, 3)[on(2).long()],
    "gathered": lambda on: on(4, 3).gather(1, torch.zeros(4, 1, dtype=torch.int64)),
    "added by an index": lambda on: on(4, 3).index_add_(0, torch.tensor([1]), on(1, 3)),
    "a value into a slice": lambda on: on(4, 3).__setitem__(slice(2), torch.ones(2, 3)),
    "copied into": lambda on: on(4, 3).copy_(torch.ones(4, 3)),
    "convolved": lambda on: F.conv2d(on(1, 3, 8, 8), torch.ones(2, 3, 3, 3)),
    "a layer left on the CPU": lambda on: nn.Linear(3, 2)(on(4, 3)),
    "labels left on the CPU": lambda on: F.cross_entropy(on(4, 3), torch.tensor([0, 1, 2, 0])),
    "looked up": lambda on: F.embedding(torch.tensor([1]), on(4, 3)),
    "multiplied": lambda on: torch.ones(2, 4) @ on(4, 3),
    "many at once": lambda on: torch._foreach_add([on(3), on(3)], [on(3), torch.ones(3)]),
    "like it": lambda on: torch.zeros_like(on(3)) + on(3),
    "new from it": lambda on: on(3).new_ones(3) + on(3),
    "moved there": lambda on: on(3) + torch.ones(3).to(on(3).device),
    "moved there as a double": lambda on: on(3) + torch.ones(3).to(on(3).device, torch.float64),
    "moved back": lambda on: on(3).cpu() + torch.ones(3),
    "moved back and not": lambda on: on(3).to("cpu") + on(3),
    "made there": lambda on: torch.arange(3, device=on(3).device) + on(3),
    "made here": lambda on: torch.arange(3) + on(3),
}  # fmt: skip


@pytest.mark.parametrize("name", GROUND)
def test_the_pretended_gpu_refuses_what_torch_refuses(name: str):
    """The tests above would pass whatever lies where, or fail at what a GPU takes."""

    def is_refused() -> bool:
        try:
            GROUND[name](lambda *shape: torch.ones(shape, device="cuda"))
        except RuntimeError as error:
            if "device" not in str(error):
                raise
            return True
        return False

    with FakeTensorMode():
        wanted = is_refused()
    with pretended_gpu():
        assert is_refused() == wanted


def test_the_pretended_gpu_refuses_what_fake_tensors_take():
    """FakeTensorMode lets these pass, and a GPU does not."""
    with pretended_gpu():
        with pytest.raises(RuntimeError, match="indices should be either on cpu"):
            torch.ones(4, 3)[torch.tensor([0, 2], device="cuda")]
        with pytest.raises(RuntimeError, match="Expected a 'cuda' device type for generator"):
            torch.rand(3, device="cuda", generator=torch.Generator())
        with pytest.raises(TypeError, match="can't convert cuda:0"):
            torch.ones(3, device="cuda").numpy()
        assert torch.ones(3, device="cuda").tolist() == [1, 1, 1]


def test_gradients_and_moved_networks_stay_on_the_pretended_gpu():
    """What autograd makes passes Python by: an optimizer's state would be taken for the CPU's."""
    with pretended_gpu():
        network = nn.Linear(3, 2).to("cuda")
        images = torch.ones(4, 3, device="cuda").requires_grad_()
        loss = network(images).sum()
        assert torch.autograd.grad(loss, images, retain_graph=True)[0].device == GPU
        loss.backward()
        assert network.weight.grad.device == network.weight.detach().device == GPU
        assert nn.Parameter(network.weight.data).device == GPU
        assert network.cpu().weight.device == torch.device("cpu") != images.device

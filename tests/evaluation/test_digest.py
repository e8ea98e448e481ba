"""What tells a caller's networks and pipelines apart: in a record of a run, and in another process."""

import cmath
import functools
import math
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from semtransforms import VictimConfig
from semtransforms.evaluation.victims.digest import described

STRENGTH = 3


def scale(image, by=2, *, offset=1):
    return image * by + offset


def named(image):
    return scale(image) * STRENGTH


def capturing(value):
    return lambda image: image * value


def nesting(value):
    def outer(image):
        def inner(part):
            return part * value

        return inner(image)

    return outer


def counting(start):
    def count(image):
        return image if start == 0 else counting(start - 1)(count(image))

    return count


def loading(names):
    """A class of a function's own, whose method captures."""

    class Load:
        def __call__(self, image):
            return image if names else -image

    return Load()


@dataclass
class Blur:
    width: int

    def __call__(self, image):
        return image * self.width


class Remembering(nn.Module):
    """As kornia's augmentations do: what was drawn last is kept in a private field."""

    def __init__(self, strength):
        super().__init__()
        self.strength, self._params = strength, {}

    def forward(self, image):
        self._params = {"draw": torch.rand(1)}
        return image * self.strength


class Lazy:
    @functools.cached_property
    def strength(self):
        return 3

    def __call__(self, image):
        return image * self.strength


class Twice(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, image):
        return self.layer(self.layer(image))


def seeded(layer, seed=0):
    torch.manual_seed(seed)
    return layer()


def frozen(network):
    return network.requires_grad_(False)


def hooked(value):
    layer = seeded(lambda: nn.Linear(2, 2))
    layer.register_forward_hook(lambda module, given, out: out * value)
    return layer


def parametrized(seed):
    return nn.utils.parametrizations.weight_norm(seeded(lambda: nn.Linear(2, 2), seed=seed))


# two of each that differ in what they do
PAIRS = {
    "captured": (capturing(1), capturing(2)),
    "captured, of another type": (capturing(1), capturing(True)),
    "captured tensor": (capturing(torch.zeros(2)), capturing(torch.ones(2))),
    "captured function": (capturing(capturing(1)), capturing(capturing(2))),
    "captured by an inner function": (nesting(1), nesting(2)),
    "captured by a function that names itself": (counting(1), counting(2)),
    "captured by a method": (loading(()), loading(("a",))),
    "partial": (functools.partial(scale, by=2), functools.partial(scale, by=3)),
    "default": (lambda image, by=1: image * by, lambda image, by=2: image * by),
    "keyword default": (lambda image, *, by=1: image * by, lambda image, *, by=2: image * by),
    "constant": (lambda image: image * 3, lambda image: image * 4),
    "global named": (lambda image: scale(image), lambda image: named(image)),
    "attribute": (lambda image: image.cos(), lambda image: image.sin()),
    "number of arguments": (lambda *image: image[0], lambda image: image[0]),
    "of another module": (capturing(math.sqrt), capturing(cmath.sqrt)),
    "compiled": (torch.compile(capturing(1)), torch.compile(capturing(2))),
    "hook": (hooked(1), hooked(2)),
    "parametrized": (parametrized(0), parametrized(1)),
    "setting of a module": (Remembering(1), Remembering(2)),
    "cached property": (Lazy(), Blur(1)),
    "field": (Blur(1), Blur(2)),
    "bound method": (Blur(1).__call__, Blur(2).__call__),
    "cached": (functools.cache(capturing(1)), functools.cache(capturing(2))),
    "pipeline": (v2.Compose([v2.RandomHorizontalFlip(0.5)]), v2.Compose([v2.RandomHorizontalFlip(0.6)])),
    "lambda in a pipeline": (v2.Compose([v2.Lambda(capturing(1))]), v2.Compose([v2.Lambda(capturing(2))])),
    "set": (capturing({"a", "b"}), capturing({"a", "c"})),
    "weights": (seeded(lambda: nn.Linear(2, 2)), seeded(lambda: nn.Linear(2, 2), seed=1)),
    "settings without weights": (nn.Sequential(nn.Dropout(0.1)), nn.Sequential(nn.Dropout(0.2))),
    "frozen": (nn.Linear(2, 2, bias=False), frozen(nn.Linear(2, 2, bias=False))),
    "forward of one's own": (seeded(lambda: Twice(nn.Linear(2, 2))), seeded(lambda: nn.Sequential(nn.Linear(2, 2)))),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_what_differs_is_told_apart(pair):
    """A kept run of one would pass for a run of the other: a figure of a victim that was never trained."""
    first, second = (described("network", each) for each in PAIRS[pair])
    assert first != second
    assert described("network", PAIRS[pair][0]) == first


def everything():
    return {pair: described("network", PAIRS[pair][0]) for pair in PAIRS}


@pytest.mark.processes
def test_another_process_gives_the_same():
    """With an address or the order of a set in it, no kept run would ever be found again."""
    here = Path(__file__).parent
    code = f"import sys; sys.path.insert(0, {str(here)!r}); import test_digest as t; print(t.everything())"
    got = [
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True
        )
        for seed in ("1", "2")
    ]
    assert got[0].stdout == got[1].stdout, got[0].stderr
    assert len(eval(got[0].stdout)) == len(PAIRS)


def test_a_changed_global_is_seen(monkeypatch):
    """Most scripts keep their settings at the top; a run kept from before an edit must not pass for one after it."""
    before, unrelated = described("augmentation", named), described("augmentation", scale)
    monkeypatch.setattr(sys.modules[__name__], "STRENGTH", 4)
    assert described("augmentation", named) != before
    assert described("augmentation", scale) == unrelated
    monkeypatch.setattr(sys.modules[__name__], "STRENGTH", 3)
    monkeypatch.setattr(sys.modules[__name__], "scale", lambda image: image)
    assert described("augmentation", named) != before


def test_use_changes_no_module():
    """kornia's augmentations keep their last draw; a kept run would be refused as one with other settings."""
    module = Remembering(2)
    before = described("augmentation", lambda image: module(image))
    module(torch.zeros(1))
    assert described("augmentation", lambda image: module(image))[-8:] == before[-8:]


def test_hooks_of_others_change_nothing():
    """torch numbers the hooks of a whole process; with the numbers a script that hooks more would lose its runs."""
    before = described("network", hooked(1))
    nn.Identity().register_forward_hook(print)
    assert described("network", hooked(1)) == before


def test_equal_copies_are_equal():
    """A pipeline built anew in the next run is the same pipeline."""
    for make in (lambda: capturing((1, 2)), lambda: Blur(3), lambda: seeded(lambda: nn.Conv2d(3, 4, 3))):
        assert described("network", make()) == described("network", make())


@pytest.mark.parametrize(
    "held", [threading.Lock(), (each for each in ()), sys.stderr], ids=["lock", "generator", "file"]
)
def test_what_has_no_digest_is_refused(held):
    """Left out, two that differ in it would pass for each other; the error names the argument and what is in it."""
    with pytest.raises(ValueError, match=r"augmentation=.*capturing") as caught:
        described("augmentation", capturing(held))
    assert type(held).__name__ in str(caught.value)


def test_a_victims_config_has_it():
    """Defect: closures with other captured values got the same digest."""
    config = VictimConfig("convnet", augmentation=capturing(1))
    assert config.to_dict() != replace(config, augmentation=capturing(2)).to_dict()
    assert config.to_dict() == replace(config, augmentation=capturing(1)).to_dict()
    assert VictimConfig(capturing(1)).to_dict() != VictimConfig(capturing(2)).to_dict()

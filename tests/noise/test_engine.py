"""The one face of what makes noise: every kind behind it, and a further one that joins."""

from dataclasses import replace
from types import MappingProxyType

import pytest
import torch
from torch import nn

from semtransforms.core.config import KERNELS, GeneratorConfig
from semtransforms.core.models import MODELS
from semtransforms.generators import fitting
from semtransforms.generators.fitting import FITTED_BY, fit_generator
from semtransforms.generators.generator import NoiseGenerator
from semtransforms.noise import engine as engines
from semtransforms.noise.engine import ENGINES, Engine, NetworkEngine, build_surrogate, engine_of
from semtransforms.noise.methods import METHODS, NTGA, SEM, SEM_CLASSWISE, SEM_ONE_PASS
from semtransforms.noise.painted import PAINTERS


def stripes(count=12):
    labels = torch.arange(count) % 2
    images = torch.randint(60, 196, (count, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images[labels == 1, :, ::2] += 30
    return images, labels


def quick(preset):
    """The preset, small enough for a test."""
    sizes = {"train_steps": 2, "batch_size": 6, "steps_u": 2, "steps_a": 1, "num_samples": 1, "precision": "fp32"}
    sizes["one_pass"] = min(preset.one_pass, 2)
    return replace(preset, **sizes, **({"surrogate": "convnet", "width": 4} if preset.surrogate in MODELS else {}))


def test_every_surrogate_has_an_engine_and_every_engine_a_fit():
    """A name without a row is an error after the data are read; with a row in one table alone, after the checks."""
    assert set(ENGINES) == {*MODELS, *PAINTERS, *KERNELS}
    assert set(FITTED_BY) == {*ENGINES.values(), engine_of(SEM_CLASSWISE), engine_of(SEM_ONE_PASS)}


@pytest.mark.parametrize("method", ["sem", "sem-one-pass", "sem-classwise", "ntga", "sc-linf", "ar-linf"])
def test_all_kinds_keep_the_promise_of_the_face(method):
    """Whoever protects a batch adds what comes back to its bytes, and asks nobody which kind it came from."""
    images, labels = stripes()
    generator = fit_generator((images, labels), quick(METHODS[method]), progress=False, device="cpu")
    keys = torch.arange(len(images))
    noise = generator.engine.noise(images, labels, keys)
    assert (noise.dtype, noise.shape, noise.device.type) == (torch.int8, images.shape, "cpu")
    assert 0 < int(noise.abs().max()) <= 8
    added = images.int() + noise
    assert 0 <= int(added.min()) <= int(added.max()) <= 255
    # keyed by the image: alone as in company
    alone = torch.cat([generator.engine.noise(*(part[i : i + 1] for part in (images, labels, keys))) for i in (3, 7)])
    assert (alone != noise[[3, 7]]).float().mean() < 0.01  # ties of a sign
    assert 1 <= generator.engine.smallest <= 8


def test_only_recorded_noise_is_bound_to_its_images():
    """A push that asks the wrong engine publishes the noise; a fit on resized images finds none of the originals."""
    assert {name for name, engine in ENGINES.items() if engine.keeps_noise} == set(KERNELS)
    assert {name for name, engine in ENGINES.items() if engine.exact} == set(KERNELS)


def test_room_for_what_is_stored():
    """A generator of another number of images than its file would be refused as damaged."""
    config = replace(NTGA, num_classes=2, image_size=(4, 6))
    surrogate = build_surrogate(config, {"digests": torch.zeros(5, 16)})
    assert surrogate.state_dict()["levels"].shape == (5, 3, 4, 6)


def test_an_unknown_surrogate_names_the_nearest():
    """Closed forms are names too: whoever mistypes one must not be sent to the networks alone."""
    with pytest.raises(ValueError, match=r"unknown surrogate 'shortcut-patch', did you mean 'shortcut-patches'"):
        engine_of(replace(SEM, surrogate="shortcut-patch"))


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_network_out_of_memory_halves_its_batch(error, monkeypatch):
    """A large batch of large images must get slower, not fail, while one image fits."""
    images, labels = stripes(9)
    config = replace(quick(SEM), num_classes=2, image_size=(8, 8))
    generator = NoiseGenerator(build_surrogate(config), config)
    expected, sizes, pgd = generator.noise(images, labels), [], engines.pgd

    def small_memory(network, images, *arguments, **options):
        sizes.append(len(images))
        if len(images) > most:
            raise error
        return pgd(network, images, *arguments, **options)

    most = 3
    monkeypatch.setattr(engines, "pgd", small_memory)
    assert (generator.noise(images, labels) == expected).float().mean() >= 0.999
    assert sizes == [9, 5, 3, 2, 4, 2, 2]
    most = 0
    with pytest.raises(type(error)):
        generator.noise(images, labels)


class OneConvolution(Engine):
    """A convolution in the place of a network: a kind that the package does not have."""

    surrogates = "'one-convolution'"
    unused = frozenset({"alpha_u", "steps_u"})
    smallest = 5

    @classmethod
    def check(cls, config: GeneratorConfig) -> None:
        """Nothing can be wrong."""

    @classmethod
    def build(cls, config: GeneratorConfig, stored) -> nn.Module:
        """One convolution."""
        return nn.Conv2d(3, 3, 3, padding=1)

    def noise(self, images, labels, keys):
        """Its output, as far as the radius."""
        levels = self.surrogate(images / 255).tanh() * 255 * self.config.rho_u
        return levels.detach().round().clamp(-images.float(), 255 - images.float()).to(torch.int8)


def test_a_further_kind_joins_by_its_rows(tmp_path, monkeypatch):
    """If fitting, saving, loading or the checks asked which kind it is, the next kind would have to be told to them."""

    def fit(data, config, run):
        surrogate = build_surrogate(config)
        with torch.no_grad():
            surrogate.bias.copy_(torch.tensor([2.0, -2.0, 0.5]))
        return surrogate

    monkeypatch.setattr(engines, "ENGINES", MappingProxyType({**ENGINES, "one-convolution": OneConvolution}))
    monkeypatch.setattr(fitting, "FITTED_BY", {**FITTED_BY, OneConvolution: fit})
    images, labels = stripes()
    config = GeneratorConfig(method="one-convolution", surrogate="one-convolution", eot=())
    generator = fit_generator((images, labels), config, progress=False, device="cpu")
    noise = generator.noise(images, labels)
    assert noise[:, 0].float().mean() > 4  # what the fit made of it
    loaded = NoiseGenerator.from_pretrained(generator.save_pretrained(tmp_path / "g"), device="cpu")
    assert torch.equal(loaded.noise(images, labels), noise)
    assert torch.equal(loaded.protect(images, labels), (images.int() + noise).to(torch.uint8))
    with pytest.raises(ValueError, match="at least 5 x 5 for 'one-convolution'"):
        loaded.noise(images[..., :4], labels)


def test_a_network_engine_is_where_its_weights_are():
    """Images sent to another device than the weights stop in the middle of a protection."""
    network = nn.Linear(3, 2, device="meta")
    assert NetworkEngine(network, SEM, None).device.type == "meta"

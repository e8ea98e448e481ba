"""Noise that is driven against pretrained networks, on top of its class's."""

import json
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from semtransforms import SEM_CLASSWISE, NoiseGenerator, fit_generator
from semtransforms.core.config import GeneratorConfig, PretrainedSurrogate
from semtransforms.core.grid import to_float
from semtransforms.noise.classwise import Classwise
from semtransforms.noise.guided import Guide, build_guides, check_pretrained, fit_heads

NETWORK, SIDES, CLASSES = "torchvision/squeezenet1_1", (32, 48), 3
SIDE = max(SIDES)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small network, as an owner has them in a file."""
    file = tmp_path_factory.mktemp("weights") / "squeezenet.safetensors"
    torch.manual_seed(0)
    save_file(torchvision.models.squeezenet1_1().state_dict(), file)
    return file


@pytest.fixture(scope="module")
def pictures() -> tuple[Tensor, Tensor]:
    """Squares of a colour of their class with noise on them: uint8 (30, 3, 16, 16) and int64 (30,)."""
    drawn = np.random.default_rng(0)
    labels = np.arange(30) % CLASSES
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]])[labels]
    pixels = colours[:, :, None, None] + drawn.normal(0, 25, (30, 3, 16, 16))
    return torch.from_numpy(pixels.clip(0, 255).astype(np.uint8)), torch.from_numpy(labels)


def config_with(weights: Path) -> GeneratorConfig:
    surrogate = PretrainedSurrogate(NETWORK, str(weights), SIDES)
    return replace(SEM_CLASSWISE, width=4, batch_size=10, train_steps=3, decay_every=2, pretrained=(surrogate,))


@pytest.fixture(scope="module")
def generator(weights: Path, pictures: tuple[Tensor, Tensor]) -> NoiseGenerator:
    return fit_generator(pictures, config_with(weights), progress=False, device="cpu")


def guide_of(generator: NoiseGenerator) -> Guide:
    assert isinstance(generator.surrogate, Classwise)
    guide = generator.surrogate.guides[0]
    assert isinstance(guide, Guide)
    return guide


def test_noise_keeps_to_the_bound(generator: NoiseGenerator, pictures: tuple[Tensor, Tensor]) -> None:
    """Else what is published differs from the original by more than the owner was told."""
    images, labels = pictures
    noise = generator.noise(images, labels, seed=3).int()
    assert 6 <= noise.abs().max() <= 8  # and it is noise of about that size
    assert (images.int() + noise).min() >= 0
    assert (images.int() + noise).max() <= 255


def test_pretrained_networks_are_led_to_the_next_class(
    generator: NoiseGenerator, pictures: tuple[Tensor, Tensor]
) -> None:
    """Else a linear layer on pretrained features still sees what is in the pictures."""
    images, labels = pictures
    guide = guide_of(generator)
    driven = generator.noise(images, labels, seed=3)

    def leads(noise: Tensor) -> float:
        """By how much the logit of the next class is above that of the own one, on average."""
        with torch.no_grad():
            seen = to_float((images.int() + noise.int()).to(torch.uint8))
            logits = torch.stack([guide.at(k)(seen) for k in range(len(SIDES))]).mean(0)
        rows = torch.arange(len(labels))
        return float((logits[rows, (labels + 1) % CLASSES] - logits[rows, labels]).mean())

    assert isinstance(generator.surrogate, Classwise)
    of_class = generator.surrogate.noise(to_float(images), labels, torch.arange(30)) * 255
    assert leads(driven) > leads(of_class.round().to(torch.int8)) + 0.1


def test_the_noise_of_the_class_stays_readable(
    generator: NoiseGenerator, pictures: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a network from scratch is no longer ruled: the fitted surrogate has a part in each step."""
    images, labels = pictures
    assert isinstance(generator.surrogate, Classwise)
    network = generator.surrogate.network.eval()

    def loss(noise: Tensor) -> float:
        with torch.no_grad():
            logits = network(to_float((images.int() + noise.int()).to(torch.uint8)))
        return float(torch.nn.functional.cross_entropy(logits, labels))

    both = loss(generator.noise(images, labels, seed=3))
    monkeypatch.setattr("semtransforms.noise.guided.SHARE", 1)  # of the pretrained network alone
    assert both < loss(generator.noise(images, labels, seed=3))


def test_larger_images_begin_at_the_enlarged_noise_of_their_class(
    generator: NoiseGenerator, pictures: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a photograph's noise begins at one that no network was fitted to, and rules over none."""
    images, labels = (each[:6] for each in pictures)
    larger = torch.nn.functional.interpolate(images.float(), (SIDE, SIDE)).to(torch.uint8)
    monkeypatch.setattr("semtransforms.noise.guided.STEPS", 0)
    keys = torch.arange(6)
    small, large = (generator.engine.noise(each, labels, keys).float() for each in (images, larger))
    enlarged = torch.nn.functional.interpolate(small, (SIDE, SIDE), mode="bicubic")
    assert torch.cosine_similarity(large.flatten(), enlarged.flatten(), dim=0) > 0.9


def test_noise_of_an_image_is_its_own(generator: NoiseGenerator, pictures: tuple[Tensor, Tensor]) -> None:
    """Else the copy depends on batch size and order, and a resumed run differs from an undisturbed one."""
    images, labels = pictures
    together = generator.noise(images[:6], labels[:6], seed=3)
    alone = torch.cat([generator.noise(images[i : i + 1], labels[i : i + 1], seed=3) for i in (4, 2)])
    apart = (together[[4, 2]].int() - alone.int()).abs()
    assert (apart > 0).float().mean() < 0.01  # a sign of a gradient of about 0 may turn


def test_a_generator_is_whole_without_the_file_of_weights(
    weights: Path, pictures: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    """Else a saved generator protects only where that file still lies, and tells of the owner's machine."""
    copy = tmp_path / "private-name" / "squeezenet.safetensors"
    copy.parent.mkdir()
    copy.write_bytes(weights.read_bytes())
    fitted = fit_generator(pictures, config_with(copy), progress=False, device="cpu")
    folder = fitted.save_pretrained(tmp_path / "generator")
    copy.unlink()
    loaded = NoiseGenerator.from_pretrained(folder, device="cpu")
    assert torch.equal(loaded.noise(*pictures, seed=3), fitted.noise(*pictures, seed=3))
    assert loaded.fingerprint == fitted.fingerprint
    for name in ("config.json", "README.md"):
        assert "private-name" not in (folder / name).read_text()
    assert json.loads((folder / "config.json").read_text())["config"]["pretrained"][0]["network"] == NETWORK


def test_the_layer_is_logistic_regression(weights: Path, pictures: tuple[Tensor, Tensor]) -> None:
    """Else noise is driven against a layer that no trainer has."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    images, labels = pictures
    guides = build_guides([PretrainedSurrogate(NETWORK, str(weights), SIDES)], CLASSES, with_weights=True)
    fit_heads(guides, images, labels, progress=False)
    guide = guides[0]
    assert isinstance(guide, Guide)
    seen = torch.nn.functional.interpolate(to_float(images), (SIDE, SIDE), mode="bilinear", antialias=True)
    with torch.no_grad():
        features = guide.network(seen)
        ours = guide.at(SIDES.index(SIDE))(to_float(images)).softmax(1)
    # the mean loss + 0.005 |w|^2, times n / 0.01 / n: scikit-learn's sum of losses times C + |w|^2 / 2
    theirs = linear_model.LogisticRegression(C=1 / (0.01 * len(images)), max_iter=10_000, tol=1e-8)
    theirs.fit(features.numpy(), labels.numpy())
    assert np.abs(ours.numpy() - theirs.predict_proba(features.numpy())).max() < 0.01


@pytest.mark.parametrize(
    ("network", "named"), [("timm/efficientnet_lite9", "efficientnet_lite"), ("resnet18", "no pretrained weights")]
)
def test_a_network_that_is_not_there_is_named_before_the_fit(
    network: str, named: str, pictures: tuple[Tensor, Tensor]
) -> None:
    """Else the owner waits for a fit that cannot end well."""
    if network.startswith("timm"):
        pytest.importorskip("timm")
    config = replace(SEM_CLASSWISE, pretrained=(PretrainedSurrogate(network),))
    with pytest.raises(ValueError, match=named):
        fit_generator(pictures, config, progress=False)


def test_a_side_that_is_too_small_is_named(weights: Path) -> None:
    """Else the owner reads of kernels and paddings, and not of what to change."""
    with pytest.raises(ValueError, match=r"squeezenet1_1.*8 px.*sides="):
        build_guides([PretrainedSurrogate(NETWORK, str(weights), (64, 8))], CLASSES, with_weights=True)


def test_a_network_of_one_size_has_one_layer(pictures: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    """Else a transformer ends the fit in an error once all its updates are done."""
    timm = pytest.importorskip("timm")
    images, labels = pictures
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "vit.safetensors")
    surrogate = PretrainedSurrogate("timm/test_vit", str(tmp_path / "vit.safetensors"))  # with the sides of default
    guides = build_guides([surrogate], CLASSES, with_weights=True)
    fit_heads(guides, images, labels, progress=False)
    guide = guides[0]
    assert isinstance(guide, Guide)
    assert len(guide.heads) == 1
    assert guide.at(0)(to_float(images)).shape == (len(images), CLASSES)


def test_a_recorded_config_says_that_its_weights_must_be_given_again(
    generator: NoiseGenerator, pictures: tuple[Tensor, Tensor], weights: Path, tmp_path: Path
) -> None:
    """Who fits once more with a generator's config was told of "unknown weights" that the config itself names."""
    with pytest.raises(ValueError, match=r"squeezenet\.safetensors#[0-9a-f]{8}'.*SHA-256.*give it again, as a path"):
        fit_generator(pictures, generator.config, progress=False, device="cpu")
    with pytest.raises(ValueError, match="another architecture") as caught:
        build_guides([PretrainedSurrogate("torchvision/resnet18", str(weights), (32,))], CLASSES, with_weights=True)
    assert "--network" not in str(caught.value)  # the option of another command


def test_a_fit_is_resumed_with_the_weights_that_it_was_begun_with(
    pictures: tuple[Tensor, Tensor], weights: Path, tmp_path: Path
) -> None:
    """Without them the checkpoint's tensors did not fit: a stack of calls in place of what to give."""
    config = config_with(weights)
    fit_generator(pictures, config, checkpoint_dir=tmp_path, progress=False, device="cpu")
    without = replace(config, pretrained=(), image_size=(SIDE, SIDE))
    with pytest.raises(ValueError, match=r"pretrained was .*squeezenet\.safetensors#.* Give again .*path"):
        fit_generator(pictures, without, checkpoint_dir=tmp_path, resume=True, progress=False, device="cpu")


def test_configs_with_one_side_are_read() -> None:
    """Else a private generator of before could never be used again."""
    config = replace(SEM_CLASSWISE, pretrained=(PretrainedSurrogate(NETWORK, "w#12", (96,)),))
    values = json.loads(json.dumps(config.to_dict()))
    values["pretrained"][0]["side"] = values["pretrained"][0].pop("sides")[0]
    assert GeneratorConfig.from_dict(values) == config


@pytest.mark.parametrize("sides", [(), (64, 64), 128, [128]])
def test_sides_are_a_tuple_of_different_ones(sides: object) -> None:
    """Else one size counts twice, or the fit ends in an error of Python's after its updates."""
    with pytest.raises(ValueError, match="tuple of different ones"):
        replace(SEM_CLASSWISE, pretrained=(PretrainedSurrogate(NETWORK, sides=sides),))  # type: ignore[arg-type]


def test_sample_wise_methods_refuse_pretrained_surrogates() -> None:
    """Else the field would be ignored, and the owner believe in noise that was not made."""
    with pytest.raises(ValueError, match="classwise"):
        replace(SEM_CLASSWISE, classwise=0, fitted_on="protected", pretrained=(PretrainedSurrogate(NETWORK),))


def test_configs_without_them_stay_as_they_were() -> None:
    """Else the fingerprints of all generators that were ever published change."""
    assert "pretrained" not in SEM_CLASSWISE.to_dict()
    config = replace(SEM_CLASSWISE, pretrained=(PretrainedSurrogate(NETWORK, "w#12", (96, 128)),))
    assert GeneratorConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("given", [(NETWORK,), NETWORK, PretrainedSurrogate(NETWORK)])
def test_what_is_no_list_of_surrogates_is_told_how_to_write_one(given: object) -> None:
    """Else a name in place of a surrogate ends in an AttributeError that says nothing to the owner."""
    with pytest.raises(TypeError, match=r"\[PretrainedSurrogate\("):
        replace(SEM_CLASSWISE, pretrained=given)
    with pytest.raises(TypeError, match=r"\[PretrainedSurrogate\("):
        check_pretrained(given)  # type: ignore[arg-type]


def test_weights_that_cannot_be_fetched_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else an owner without a connection reads of a name or service, and not of weights."""

    def refuse(*given: object, **options: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(OSError, match=rf"{NETWORK}.*no route.*give a file"):
        check_pretrained([PretrainedSurrogate(NETWORK)])


def test_a_fit_at_another_shape_than_square(weights: Path, pictures: tuple[Tensor, Tensor]) -> None:
    """Else the surrogate's side takes the place of image_size=(16, 32), or the bytes of a crop cannot be digested."""
    config = replace(config_with(weights), image_size=(16, 32), train_steps=1)
    assert fit_generator(pictures, config, progress=False, device="cpu").config.image_size == (16, 32)

"""A generator that somebody else wrote: each field of its files is refused before it takes memory, time or a file."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import HubServer
from safetensors.torch import load_file, save_file

from semtransforms import NoiseGenerator
from semtransforms.core import hub
from semtransforms.core.config import GeneratorConfig, PretrainedSurrogate, Transformation
from semtransforms.core.models import build_model
from semtransforms.generators import weights
from semtransforms.generators.names import shipped
from semtransforms.views.eot import build_eot

HUGE, NAN, INFINITE = 10**12, float("nan"), float("inf")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = GeneratorConfig(
        surrogate="convnet", width=4, steps_u=2, num_samples=1, num_classes=2, image_size=(8, 8), precision="fp32"
    )
    network = build_model("convnet", num_classes=2, image_size=8, width=4)
    return NoiseGenerator(network, config, classes=["a", "b"]).save_pretrained(tmp_path_factory.mktemp("g") / "sound")


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "generator"))


@pytest.fixture
def nothing_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where a network is made in memory, and not in outline."""
    build = weights.build_surrogate

    def guarded(*arguments):
        assert torch.get_default_device().type == "meta", "memory was taken before the file was compared"
        return build(*arguments)

    monkeypatch.setattr(weights, "build_surrogate", guarded)


def rewrite(folder: Path, **fields: object) -> Path:
    """With a checksum that fits: who writes a generator writes that too."""
    record = json.loads((folder / "config.json").read_text())
    record["config"] |= fields
    record["sha256"] = weights._checksum(record["config"], [(folder / "model.safetensors").read_bytes()])
    (folder / "config.json").write_text(json.dumps(record))
    return folder


def refuses(folder: Path, *words: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        NoiseGenerator.from_pretrained(folder, device="cpu")
    said = " ".join(str(caught.value).split())
    assert all(word in said for word in words)
    assert len(said) < 3_000  # with the networks that there are; a value that fills pages is cut


CONFIGS = {
    "classes": {"num_classes": HUGE},
    "classes of a million": {"num_classes": 10**6},
    "width": {"width": 10**9},
    "width of 4096": {"width": 4_096},
    "size": {"image_size": [10**9, 10**9]},
    "size, one": {"image_size": [8]},
    "size, not a number": {"image_size": [NAN, 8]},
    "size, infinite": {"image_size": [INFINITE, 8]},
    "size, text": {"image_size": "88"},
    "size, negative": {"image_size": [-8, 8]},
    "steps": {"steps_u": 10**9},
    "steps times samples": {"steps_u": 10_000, "num_samples": 1_000},
    "updates": {"train_steps": HUGE},
    "noises": {"classwise": 10**9},
    "noises of large size": {"classwise": 9_999, "image_size": [16_384, 16_384]},
    "patches": {"surrogate": "shortcut-patches", "num_classes": HUGE},
    "processes": {"surrogate": "autoregressive", "num_classes": 10**6},
    "kernels": {"surrogate": "ntk-cnn", "image_size": [16_384, 16_384]},
    "a path": {"surrogate": "../../etc/passwd"},
    "no name": {"surrogate": ["convnet"]},
    "a long name": {"method": "a" * 10**5},
    "radius, not a number": {"rho_u": NAN},
    "radius, infinite": {"alpha_u": INFINITE},
    "radius of 400 digits": {"rho_a": 10**400},
    "seed of 30 digits": {"seed": 10**30},
    "text for a number": {"steps_u": "10"},
    "truth for a number": {"num_samples": True},
    "nothing for a number": {"batch_size": None},
    "unknown": {"__class__": "os.system"},
    "eot, no list": {"eot": 5},
    "eot, a word": {"eot": "crop"},
    "eot, no name": {"eot": [{}]},
    "eot, no arguments": {"eot": [{"name": "crop", "arguments": 5}]},
    "eot, no word": {"eot": [{"name": ["crop"], "arguments": {}}]},
    "eot, 100,000": {"eot": [{"name": "flip"}] * 100_000},
    "surrogates, no list": {"pretrained": 5, "classwise": 1},
    "surrogates, unknown": {"pretrained": [{"evil": 1}], "classwise": 1},
    "surrogates, no sides": {"pretrained": [{"network": "timm/resnet18", "weights": "x", "sides": 5}], "classwise": 1},
    "surrogates, many sides": {
        "pretrained": [{"network": "timm/resnet18", "weights": "x", "sides": list(range(8, 2_000))}],
        "classwise": 1,
    },
    "surrogates, large": {
        "pretrained": [{"network": "timm/resnet18", "weights": "x", "sides": [10**9]}],
        "classwise": 1,
    },
}


@pytest.mark.parametrize("fields", CONFIGS.values(), ids=CONFIGS)
def test_a_config_that_asks_for_too_much_or_makes_no_sense(fields, folder: Path, nothing_built: None):
    """Whoever tries a generator from the Hub would have a full memory, a run without an end, or a traceback."""
    refuses(rewrite(folder, **fields))


def test_what_somebody_may_mean_is_taken(folder: Path):
    """A limit that is too low refuses generators that are published."""
    fields = {"num_samples": 100, "steps_u": 1_000, "train_steps": 10**6, "seed": 2**63 - 1}
    assert NoiseGenerator.from_pretrained(rewrite(folder, **fields), device="cpu").config.steps_u == 1_000
    for name in shipped():
        NoiseGenerator.from_pretrained(name, device="cpu")


RECORDS = {
    "deep list": b"[" * 200_000,
    "deep mapping": b'{"a":' * 100_000,
    "5,000 digits": b'{"config":{"seed":' + b"9" * 5_000 + b"}}",
    "no mapping": b"[]",
    "nothing": b"null",
    "no config": b'{"config":[]}',
    "binary": b"\0\xff" * 100,
}


@pytest.mark.parametrize("content", RECORDS.values(), ids=RECORDS)
def test_a_file_that_is_no_config(content: bytes, folder: Path, nothing_built: None):
    """A traceback of a thousand lines in the place of one."""
    (folder / "config.json").write_bytes(content)
    refuses(folder)


def test_a_config_of_many_megabytes_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Parsed, it takes ten times its bytes."""
    monkeypatch.setitem(hub.MOST_BYTES, "config.json", 100)
    refuses(folder, "it is no generator's")


@pytest.mark.parametrize(
    "fields",
    [{"classes": 5}, {"classes": "ab"}, {"classes": {"a": 1, "b": 2}}, {"card": 5}, {"card": {"measured": 5}},
     {"card": {"measured": [{"trainer": 5}]}}, {"card": {"measured": None}}],
    ids=str,
)  # fmt: skip
def test_label_names_and_cards_of_another_form(fields, folder: Path):
    """An error of Python's, which names neither the file nor the field."""
    record = json.loads((folder / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps(record))
    refuses(folder)


@pytest.mark.parametrize("change", ["shape", "missing", "more", "type", "nan", "none"])
def test_weights_of_another_form_than_the_config(change: str, folder: Path, nothing_built: None):
    """They would be loaded into a network of other layers, or what is left would stay as it was drawn."""
    tensors = load_file(folder / "model.safetensors")
    first = next(key for key, value in tensors.items() if value.ndim == 4)
    if change == "shape":
        tensors[first] = tensors[first].flatten()
    elif change == "missing":
        del tensors[first]
    elif change == "more":
        tensors["evil"] = torch.zeros(1)
    elif change == "type":
        tensors[first] = tensors[first].to(torch.int64)
    elif change == "nan":
        tensors[first] = torch.full_like(tensors[first], NAN)
    else:
        tensors = {}
    save_file(tensors, folder / "model.safetensors")
    refuses(rewrite(folder), "model.safetensors", "NaN" if change == "nan" else "does not fit")


@pytest.mark.parametrize("network", ["timm/hf-hub:evil/x", "../../etc/passwd", "timm/no_such", "resnet18"])
def test_surrogates_that_name_files_or_repositories(network: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """A generator would have its reader's files opened, or other repositories fetched."""
    tensors = load_file(folder / "model.safetensors")
    save_file({"noises": torch.zeros(2, 3, 8, 8), **{f"network.{key}": each for key, each in tensors.items()}},
              folder / "model.safetensors")  # fmt: skip
    monkeypatch.setattr(hub, "fetch", lambda *_, **__: pytest.fail("it was fetched"))
    surrogate = {"network": network, "weights": str(folder / "config.json"), "sides": [64]}
    refuses(rewrite(folder, pretrained=[surrogate], classwise=1, surrogate="convnet"))


def test_weights_that_a_config_names_are_not_opened(folder: Path):
    """A file without tensors would have the file that the config names read in their place."""
    save_file({}, folder / "model.safetensors")
    surrogate = {"network": "torchvision/resnet18", "weights": str(folder / "config.json"), "sides": [64]}
    refuses(rewrite(folder, pretrained=[surrogate], classwise=1), "holds no tensors")


def nested(depth: int) -> dict[str, object]:
    inner: dict[str, object] = {"name": "flip"}
    for _ in range(depth):
        inner = {"name": "one-of", "arguments": {"members": [inner], "probabilities": [1.0]}}
    return inner


ARGUMENTS = {
    "padding": ("crop", {"padding": 10**9}),
    "padding, not a number": ("crop", {"padding": NAN}),
    "padding, text": ("crop", {"padding": "4"}),
    "blur": ("RandomGaussianBlur", {"kernel_size": [10**9 + 1] * 2, "sigma": [1, 1]}),
    "blur of 9,999": ("RandomGaussianBlur", {"kernel_size": [9_999] * 2, "sigma": [1, 1]}),
    "median": ("RandomMedianBlur", {"kernel_size": [9_999] * 2}),
    "elastic": ("RandomElasticTransform", {"kernel_size": [10**6 + 1] * 2}),
    "crop": ("RandomCrop", {"size": [10**9] * 2}),
    "resize": ("RandomResizedCrop", {"size": [10**9] * 2}),
    "jigsaw": ("RandomJigsaw", {"grid": [10**6] * 2}),
    "rain": ("RandomRain", {"number_of_drops": [10**9] * 2}),
    "resolution": ("resized-crop", {"resolution": 10**9}),
    "ratio": ("resized-crop", {"ratio": [1e-300, 1]}),
    "infinite": ("RandomRotation", {"degrees": INFINITE}),
    "400 digits": ("RandomRotation", {"degrees": 10**400}),
    "deep": ("one-of", nested(200)["arguments"]),
    "many": ("one-of", {"members": [{"name": "flip"}] * 10**5, "probabilities": [0] * 10**5}),
    "no members": ("one-of", {"members": 5, "probabilities": [1]}),
    "a long word": ("RandomCrop", {"size": [8, 8], "padding_mode": "a" * 10**6}),
    "a module": ("AugmentationSequential", {}),
}


@pytest.mark.parametrize(("name", "arguments"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_transformations_that_would_fill_the_memory(name: str, arguments: dict[str, object]):
    """The first batch would take more than the machine has."""
    with pytest.raises(ValueError, match=f"{name}|^padding|^ratio") as caught:
        build_eot([Transformation(name, arguments)])
    assert len(str(caught.value)) < 700


def test_transformations_that_are_in_use_are_taken():
    """A limit that is too low refuses what trainers do."""
    usual = [
        ("crop", {"padding": 28}), ("RandomElasticTransform", {"kernel_size": [63, 63], "sigma": [32, 32]}),
        ("RandomRain", {"number_of_drops": [1_000, 2_000]}), ("RandomRotation", {"degrees": 360}),
        ("resized-crop", {"resolution": 224}),
    ]  # fmt: skip
    build_eot([Transformation(name, arguments) for name, arguments in usual] + [Transformation(**nested(2))])


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_repository_with_huge_files_is_not_fetched(
    name: str, sound: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch
):
    """Its download would fill the disk."""
    files = {each: (sound / each).read_bytes() for each in ("config.json", "model.safetensors")}
    server.add("evil/large", files)
    monkeypatch.setitem(hub.MOST_BYTES, name, len(files[name]) - 1)
    with pytest.raises(ValueError, match=f"{name} has {len(files[name]):,} bytes"):
        NoiseGenerator.from_pretrained("evil/large", device="cpu")
    assert {request.method for request in server.requests if "/resolve/" in request.path} == {"HEAD"}  # none fetched
    monkeypatch.setitem(hub.MOST_BYTES, name, len(files[name]))
    assert NoiseGenerator.from_pretrained("evil/large", device="cpu").classes == ("a", "b")


def test_other_files_of_a_repository_are_left_alone(sound: Path, server: HubServer, tmp_path: Path):
    """A name such as ../../.bashrc in a list of files would be written there."""
    files = {each: (sound / each).read_bytes() for each in ("config.json", "model.safetensors")}
    server.add("evil/names", {**files, "../../../evil.txt": b"x", "/evil.txt": b"x", "evil.py": b"x", "a.bin": b"x"})
    NoiseGenerator.from_pretrained("evil/names", device="cpu")
    assert not any("evil." in request.path or ".bin" in request.path for request in server.requests)
    assert not list(tmp_path.rglob("evil.*"))


@pytest.mark.processes
def test_the_look_at_a_config_loads_no_compiler():
    """torch brings its compiler for arithmetic on outlines: 150 MB and seconds for whoever loads a generator."""
    code = """
import sys
from dataclasses import replace
from pathlib import Path
from semtransforms.generators.weights import _check_outline
from semtransforms.noise.engine import build_surrogate
from semtransforms.noise.methods import SC_LINF, SEM, SEM_CLASSWISE
for preset in (SEM, SEM_CLASSWISE, SC_LINF):
    size = {"surrogate": "convnet", "width": 4} if preset is not SC_LINF else {}
    config = replace(preset, **size, num_classes=2, image_size=(16, 16))
    _check_outline(config, build_surrogate(config).state_dict(), Path("model.safetensors"))
print("torch._dynamo" in sys.modules, "torchvision" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_side_that_no_network_takes():
    """An image would be enlarged to it: 4 TB."""
    with pytest.raises(ValueError, match="a side of a pretrained surrogate"):
        GeneratorConfig(classwise=1, pretrained=(PretrainedSurrogate("timm/resnet18", sides=(10**6,)),))


def test_the_noise_of_a_taken_config_is_within_the_bound(folder: Path):
    """A config at the edge of what is taken makes noise all the same, in every byte."""
    taken = NoiseGenerator.from_pretrained(rewrite(folder, rho_u=1 / 255, rho_a=1 / 255, alpha_u=1.0), device="cpu")
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8))
    assert taken.noise(images, [0, 1]).abs().max() <= 1

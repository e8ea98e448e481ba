"""Algorithm 1 and Eq. 7, on problems small enough for seconds."""

import datetime
import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from killing import run_killed
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.utils.data import TensorDataset
from torchvision.datasets import ImageFolder

from semtransforms.core.config import Transformation
from semtransforms.core.keys import batch_rows, fold_in, index_keys
from semtransforms.generators.fitting import fit_generator, load_labelled, train_step
from semtransforms.generators.generator import NoiseGenerator
from semtransforms.generators.weights import round_to_half
from semtransforms.noise.engine import build_surrogate
from semtransforms.noise.methods import AR_LINF, EM, NTGA, REM, REM_DELTA_U, REM_THETA, SC_LINF, SEM, SEM_CLASSWISE
from semtransforms.views.eot import build_eot
from semtransforms.views.resize import centre_square

SMALL = {
    "surrogate": "convnet", "width": 4, "steps_u": 2, "steps_a": 2, "num_samples": 2, "train_steps": 12,
    "batch_size": 16, "precision": "fp32",
}  # fmt: skip


def shapes(count=40, side=12, seed=0):
    """Three classes of coloured stripes: learnable in a few steps."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.randint(60, 196, (count, 3, side, side), generator=generator, dtype=torch.uint8)
    for label in range(3):
        images[labels == label, label, :, label::3] = 230
    return images, labels


def small(preset=SEM, **changes):
    return replace(preset, **(SMALL | changes))


def fit(config=None, data=None, **options):
    data = shapes() if data is None else data  # an empty data set is false
    return fit_generator(data, config or small(), progress=False, device="cpu", **options)


@pytest.fixture(scope="module")
def fitted():
    return fit(small(train_steps=40))


# --- Algorithm 1 --------------------------------------------------------------------------------------------------


# class-wise noise that moves from the first update on: as textures it says nothing of what a fit does
MOVING = replace(SEM_CLASSWISE, hold_steps=0, alpha_u=1 / 255)


@pytest.mark.parametrize("preset", [SEM, MOVING, REM, REM_DELTA_U, REM_THETA, EM], ids=lambda p: p.method)
def test_every_method_lowers_the_loss_on_its_own_noise(preset):
    """Error-minimising noise that does not minimise the surrogate's error protects nothing."""
    images, labels = shapes()
    generator = fit(replace(small(preset), train_steps=40, num_samples=1))
    noise = generator.noise(images, labels)
    with torch.no_grad():
        clean, protected = (
            torch.nn.functional.cross_entropy(generator.surrogate(x / 255.0), labels).item()
            for x in (images, images + noise)
        )
    assert protected < clean


def test_a_step_follows_algorithm_1():
    """Lines 2-12 one by one with torch only: fresh t for the view, rounded noise, attack before the update."""
    from torch.nn import functional as F

    from semtransforms.noise.pgd import pgd

    config = small(num_classes=3, image_size=(12, 12))
    images, labels = shapes(16)
    keys = index_keys(torch.arange(16), 0)
    eot = build_eot(config.eot)
    ours, theirs = build_surrogate(config), build_surrogate(config)
    train_step(
        ours, torch.optim.SGD(ours.parameters(), lr=0.1), images / 255.0, labels, keys=keys, config=config, eot=eot
    )

    x = images / 255.0
    delta = pgd(theirs, x, labels, config.defense, keys=fold_in(keys, 0), eot=eot)
    rounded = (delta * 255).round() / 255
    assert rounded.abs().max() <= 8 / 255 + 1e-6
    view = eot(x + rounded, fold_in(keys, 1))
    attacked = view + pgd(theirs, view, labels, config.attack, keys=fold_in(keys, 2), maximise=True)
    theirs.train()
    F.cross_entropy(theirs(attacked), labels).backward()
    with torch.no_grad():
        for weight in theirs.parameters():
            weight -= 0.1 * weight.grad
    for mine, reference in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-5, rtol=1e-4)


def test_the_learning_rate_falls_as_published():
    """x0.1 every ``decay_every`` updates: a schedule off by one step changes every weight."""
    rates = []

    class Spy(torch.optim.SGD):
        def step(self, *args):
            rates.append(self.param_groups[0]["lr"])
            return super().step(*args)

    original = torch.optim.SGD
    torch.optim.SGD = Spy
    try:
        fit(small(EM, train_steps=7, decay_every=3, steps_u=1))
    finally:
        torch.optim.SGD = original
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001])


def test_every_row_comes_once_an_epoch():
    """The official code drops the last partial batch: 80 of CIFAR-10's 50,000 images are never drawn in an epoch."""
    stream = torch.cat([batch_rows(step, 10, 4, seed=1) for step in range(15)])
    epochs = stream.view(6, 10)
    assert (epochs.sort(1).values == torch.arange(10)).all()
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 6
    assert len(batch_rows(0, 3, 8, seed=0)) == 8


def test_a_seed_reproduces_and_another_differs():
    """A figure that cannot be repeated cannot be cited."""
    one, two, other = fit(), fit(), fit(small(seed=1))
    assert one.fingerprint == two.fingerprint
    assert one.fingerprint != other.fingerprint


KILLED = """
import torch
from killing import kill_at_rename
from test_fitting import fit, small
torch.set_num_threads(1)
kill_at_rename(8, "checkpoint.safetensors")
fit(small(), checkpoint_dir={folder!r}, checkpoint_every=1)
"""


@pytest.mark.processes
def test_killed_and_resumed_gives_the_same_weights(tmp_path):
    """kill -9 in the middle of an hour-long fit must cost minutes, and not change the result by a bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        unbroken = fit(small())
        run_killed(KILLED.format(folder=str(tmp_path)), __file__)
        assert (tmp_path / "checkpoint.safetensors").exists()
        resumed = fit(small(), checkpoint_dir=tmp_path, resume=True)
    finally:
        torch.set_num_threads(threads)
    assert resumed.fingerprint == unbroken.fingerprint
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == ["checkpoint.safetensors"]


@pytest.mark.parametrize("preset", [SEM, SEM_CLASSWISE], ids=lambda p: p.method)
def test_resume_in_the_middle_of_the_schedule(tmp_path, preset):
    """Momentum, of the noises too, learning rate and order of the data must continue, not restart."""
    config = replace(preset, **SMALL, decay_every=5)
    unbroken = fit(replace(config, train_steps=12))
    fit(replace(config, train_steps=7), checkpoint_dir=tmp_path)
    resumed = fit(replace(config, train_steps=12), checkpoint_dir=tmp_path, resume=True)
    for key, value in unbroken.surrogate.state_dict().items():
        assert torch.equal(value, resumed.surrogate.state_dict()[key]), key


def test_a_foreign_or_damaged_checkpoint_is_refused(tmp_path):
    """Continuing another fit's weights would publish a generator that no config describes."""
    fit(checkpoint_dir=tmp_path)
    with pytest.raises(FileExistsError, match="resume=True"):
        fit(checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match=r"another fit.*seed was 0, is 1"):
        fit(small(seed=1), checkpoint_dir=tmp_path, resume=True)
    with pytest.raises(ValueError, match="other images"):
        fit(data=shapes(seed=1), checkpoint_dir=tmp_path, resume=True)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged"):
        fit(checkpoint_dir=tmp_path, resume=True)


def test_divergence_is_an_error():
    """A surrogate of NaN makes noise that protects nothing, silently."""
    with pytest.raises(FloatingPointError, match="learning_rate"):
        fit(small(learning_rate=1e30))


# --- Eq. 7 --------------------------------------------------------------------------------------------------------


def test_noise_is_bounded_and_visits_every_image(fitted):
    """Images left without noise, or noise beyond the bound, break the promise of the package."""
    images, labels = shapes(37)
    images[0], images[1] = 0, 255
    noise = fitted.noise(images, labels, batch_size=16)  # 37 = 16 + 16 + 5: the last partial batch included
    assert noise.dtype == torch.int8
    assert noise.shape == images.shape
    assert noise.abs().amax((1, 2, 3)).eq(8).all()
    assert noise[0].min() >= 0
    assert noise[1].max() <= 0
    total = images.to(torch.int16) + noise
    assert total.min() >= 0
    assert total.max() <= 255
    protected = fitted.protect(images, labels)
    assert (protected.to(torch.int16) - images).abs().max() == 8


@pytest.mark.parametrize("batch_size", [1, 7])
def test_noise_does_not_depend_on_batch_size_or_order(fitted, batch_size):
    """A store continued on another machine, or a shuffled loader, must give each image the same noise."""
    images, labels = shapes(64)
    reference = fitted.noise(images, labels, batch_size=64)
    other = fitted.noise(images, labels, batch_size=batch_size)
    assert (reference == other).float().mean() >= 0.999
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    shuffled = fitted.noise(images[order], labels[order], batch_size=64)
    assert (reference[order] == shuffled).float().mean() >= 0.999


def test_noise_depends_on_label_and_seed(fitted):
    """Without the label there is no shortcut; without the seed, whoever has the generator has the noise."""
    images, labels = shapes(12)
    base = fitted.noise(images, labels)
    assert (base != fitted.noise(images, (labels + 1) % 3)).float().mean() > 0.05
    assert (base != fitted.noise(images, labels, seed=1)).float().mean() > 0.05


def test_ids_key_the_draws_instead_of_the_bytes(fitted):
    """A caller with ids of their own relies on equal ids giving equal draws, and different ids different ones."""
    images, labels = shapes(1)
    four, same = images.expand(4, -1, -1, -1), labels.expand(4)
    noise = fitted.noise(four, same, ids=torch.tensor([7, 7, 8, 9]))
    assert torch.equal(noise[0], noise[1])
    assert (noise[0] != noise[2]).float().mean() > 0.05
    assert (noise[2] != noise[3]).float().mean() > 0.05


def test_mixed_sizes_are_each_protected(fitted):
    """A folder of photographs has every size; each must come back in its place."""
    sides = [(12, 12), (16, 20), (12, 12), (9, 30), (16, 20)]
    images = [torch.randint(0, 256, (3, h, w), dtype=torch.uint8) for h, w in sides]
    labels = torch.tensor([0, 1, 2, 0, 1])
    noise = fitted.noise(images, labels)
    assert [tuple(n.shape[1:]) for n in noise] == sides
    alone = fitted.noise(images[3][None], labels[3:4])[0]
    assert (alone == noise[3]).float().mean() >= 0.999


def test_noise_refuses_what_it_cannot_protect(fitted):
    """Bad input is an error that names the argument before any work, never quiet nonsense."""
    images, labels = shapes(4)
    with pytest.raises(TypeError, match="uint8"):
        fitted.noise(images.float(), labels)
    with pytest.raises(ValueError, match=r"0\.\.2"):
        fitted.noise(images, torch.tensor([0, 1, 2, 3]))
    with pytest.raises(TypeError, match="labels"):
        fitted.noise(images, torch.rand(4))
    with pytest.raises(ValueError, match="labels"):
        fitted.noise(images, labels[:3])
    with pytest.raises(ValueError, match="images"):
        fitted.noise(images[:, :1], labels)
    with pytest.raises(ValueError, match=r"8 x 8.*index 1"):
        fitted.noise([images[0], images[1, :, :7]], labels[:2])
    for batch_size in (0, -1):
        with pytest.raises(ValueError, match="batch_size"):
            fitted.noise(images, labels, batch_size=batch_size)
    for ids in (torch.arange(3), torch.rand(4)):
        with pytest.raises(ValueError, match="ids"):
            fitted.noise(images, labels, ids=ids)
    assert fitted.noise(images[:0], labels[:0]).shape == (0, 3, 12, 12)


# --- files --------------------------------------------------------------------------------------------------------


def test_saved_and_loaded_is_the_same_generator(fitted, tmp_path):
    """A loaded generator that makes other noise breaks every store and every published hash."""
    fitted.classes, fitted.card = ("a", "b", "c"), {"data": "stripes"}
    fitted.save_pretrained(tmp_path / "stripes")
    loaded = NoiseGenerator.from_pretrained(tmp_path / "stripes", device="cpu")
    images, labels = shapes(6)
    assert loaded.fingerprint == fitted.fingerprint
    assert loaded.classes == ("a", "b", "c")
    assert torch.equal(loaded.noise(images, labels), fitted.noise(images, labels))
    files = sorted((tmp_path / "stripes").iterdir())
    assert [path.name for path in files] == ["README.md", "config.json", "model.safetensors"]
    assert len({path.stat().st_mode for path in files}) == 1  # as the user's umask has it, all of them


def test_a_fit_ends_on_weights_that_fp16_holds(tmp_path):
    """Rounded when saved instead, the generator that was measured would not be the one that is published."""
    fitted = fit(checkpoint_dir=tmp_path / "work")
    full = load_file(tmp_path / "work" / "checkpoint.safetensors")
    stored = load_file(fitted.save_pretrained(tmp_path / "g") / "model.safetensors")
    changed = 0
    for key, weight in fitted.surrogate.state_dict().items():
        if not weight.is_floating_point():
            assert torch.equal(stored[key], weight)  # BatchNorm's count of batches
            continue
        exact = full[f"weight.{key}"].numpy()  # a resumed fit goes on with these
        assert stored[key].dtype == torch.float16
        assert np.array_equal(stored[key].numpy(), exact.astype(np.float16))
        assert np.array_equal(weight.numpy(), exact.astype(np.float16).astype(np.float32))
        changed += int((weight.numpy() != exact).sum())
    assert changed > 0
    again = fit(checkpoint_dir=tmp_path / "work", resume=True)
    assert again.fingerprint == fitted.fingerprint


def test_a_value_that_fp16_cannot_hold_is_kept(fitted, tmp_path):
    """Bright images and a deep network give BatchNorm variances beyond 65504: infinite in fp16, and the noise is 0."""
    surrogate = build_surrogate(fitted.config)
    surrogate.load_state_dict(fitted.surrogate.state_dict())
    variance = next(value for key, value in surrogate.state_dict().items() if key.endswith("running_var"))
    variance[0] = 70_000.5
    round_to_half(surrogate)
    assert variance[0] == 70_000.5
    generator = NoiseGenerator(surrogate, fitted.config)
    generator.save_pretrained(tmp_path)
    loaded = NoiseGenerator.from_pretrained(tmp_path, device="cpu")
    images, labels = shapes(6)
    assert loaded.fingerprint == generator.fingerprint
    assert torch.equal(loaded.noise(images, labels), generator.noise(images, labels))


def test_weights_of_ones_own_are_stored_as_they_are(fitted, tmp_path):
    """A caller's module was not rounded by a fit: fp16 would change its noise without a word."""
    surrogate = build_surrogate(fitted.config)  # as initialised: hardly a weight fits fp16
    generator = NoiseGenerator(surrogate, fitted.config)
    stored = load_file(generator.save_pretrained(tmp_path / "own") / "model.safetensors")
    assert {stored[key].dtype for key in stored if key.endswith("0.weight")} == {torch.float32}
    assert NoiseGenerator.from_pretrained(tmp_path / "own", device="cpu").fingerprint == generator.fingerprint
    with pytest.raises(ValueError, match=r"is torch\.float16: .*surrogate\.float\(\)"):
        NoiseGenerator(build_surrogate(fitted.config).half(), fitted.config).save_pretrained(tmp_path / "half")
    assert not (tmp_path / "half").exists()


@pytest.mark.parametrize("fault", ["card", "disk"])
def test_a_save_that_fails_leaves_the_older_one(fitted, tmp_path, fault, monkeypatch):
    """An hour of fitting lay in that folder."""
    fitted.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    again = NoiseGenerator.from_pretrained(tmp_path)
    if fault == "card":
        again.card["measured_at"] = np.float32(3)
    else:
        write, written = Path.write_bytes, []

        def full(path, content):
            written.append(path)
            if len(written) == 2:  # the first file is whole by then
                raise OSError(28, "No space left on device")
            return write(path, content)

        monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises((TypeError, OSError)):
        again.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_whoever_reads_while_it_is_saved_again_finds_it(fitted, tmp_path):
    """Workers start while a script saves: half a folder would stop them."""
    generator = fitted
    generator.save_pretrained(tmp_path)
    done = threading.Event()

    def save():
        while not done.is_set():
            generator.save_pretrained(tmp_path)

    writer = threading.Thread(target=save)
    writer.start()
    try:
        for _ in range(20):
            assert NoiseGenerator.from_pretrained(tmp_path, device="cpu").fingerprint == generator.fingerprint
    finally:
        done.set()
        writer.join()


def test_what_to_do_about_a_changed_config(fitted, tmp_path):
    """The weights of one's own fit are intact and nowhere to be fetched: deleting them is no remedy."""
    fitted.save_pretrained(tmp_path)
    record = json.loads((tmp_path / "config.json").read_text())
    record["config"]["steps_u"] += 1
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="Put back the files that were saved") as error:
        NoiseGenerator.from_pretrained(tmp_path)
    assert "Delete" not in str(error.value)


@pytest.mark.parametrize(
    "card", [["a"], {"when": datetime.date(2026, 1, 1)}, {"measured": [{"clean": [1.0]}]}, {"measured": ["75"]},
             {"measured": [{"trainer": "standard", "clean": 75.1}]}]
)  # fmt: skip
def test_cards_that_cannot_be_written_are_refused(fitted, card):
    """At once, not when an hour of fitting is to be saved."""
    with pytest.raises(ValueError, match="card"):
        NoiseGenerator(fitted.surrogate, fitted.config, card=card)


def test_files_in_fp32_still_load(fitted, tmp_path):
    """Version 0.1.0 wrote them, and no checksum."""
    fitted.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    full = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    save_file(full, tmp_path / "model.safetensors")
    record = json.loads((tmp_path / "config.json").read_text())
    del record["sha256"]
    (tmp_path / "config.json").write_text(json.dumps(record))
    assert NoiseGenerator.from_pretrained(tmp_path, device="cpu").fingerprint == fitted.fingerprint


def test_the_fingerprint_sees_every_change(fitted):
    """Equal fingerprints for different noise would serve a stale cache."""
    changed = fit(small(train_steps=40))
    with torch.no_grad():
        next(changed.surrogate.parameters())[0, 0, 0, 0] += 1e-6
    assert changed.fingerprint != fitted.fingerprint
    radius = NoiseGenerator(fitted.surrogate, replace(fitted.config, rho_u=4 / 255, rho_a=4 / 255))
    assert radius.fingerprint != fitted.fingerprint


@pytest.mark.parametrize("damage", ["truncated", "nan", "shape", "type", "missing", "pickled", "config", "field"])
def test_damaged_files_are_refused(fitted, tmp_path, damage):
    """A damaged or foreign file must not become noise, and pickle must never be opened."""
    folder = fitted.save_pretrained(tmp_path / "g")
    weights, config = folder / "model.safetensors", folder / "config.json"
    tensors = load_file(weights)
    name = next(key for key in tensors if key.endswith("weight"))
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "nan":
        tensors[name][0] = float("nan")
    elif damage == "shape":
        tensors[name] = tensors[name][:1].contiguous()
    elif damage == "type":
        tensors[name] = tensors[name].to(torch.int32)
    elif damage == "missing":
        del tensors[name]
    elif damage == "pickled":
        weights.rename(folder / "pytorch_model.bin")
    elif damage == "config":
        config.write_text("{")
    else:
        record = json.loads(config.read_text())
        record["config"]["rho_uu"] = 1
        config.write_text(json.dumps(record))
    if damage in ("nan", "shape", "type", "missing"):
        save_file(tensors, weights)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        NoiseGenerator.from_pretrained(folder)
    expected = {"pickled": "never loaded", "nan": "NaN", "field": "rho_u", "config": "config.json"}
    assert expected.get(damage, "model.safetensors") in str(caught.value)


def test_an_unknown_name_lists_the_nearest():
    """A typo must not cost a search through the docs."""
    with pytest.raises(ValueError, match=r"unknown generator 'sem-digit'.*sem-digits"):
        NoiseGenerator.from_pretrained("sem-digit")


def test_cuda_asked_for_where_there_is_none(fitted):
    """The error must come at once and say 'cpu', not after loading the data."""
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ValueError, match=r"'cuda'.*'cpu'"):
        fit_generator(shapes(), small(), device="cuda")
    with pytest.raises(ValueError, match="device"):
        fitted.noise(*shapes(2), device="cuda:3")


def test_networks_that_draw_by_themselves_reproduce():
    """Dropout drawn from torch's global stream makes two fits of one seed differ, and a resumed one too."""
    from semtransforms.core import models
    from semtransforms.evaluation.victims import VictimConfig, train_victim

    def with_dropout(num_classes, image_size, width):
        return torch.nn.Sequential(models._convnet(num_classes, image_size, width), torch.nn.Dropout(0.5))

    images, labels = shapes(24)
    patched = dict(models.MODELS) | {"convnet": models.Architecture(with_dropout, smallest=8, width=4)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "MODELS", patched)
        torch.manual_seed(1)
        state = torch.get_rng_state()
        fits = [fit(small(train_steps=4)), fit(small(train_steps=4))]
        victims = [
            train_victim(images, labels, VictimConfig("convnet", 4, train_steps=4, batch_size=8), test_images=images,
                         test_labels=labels, device="cpu", progress=False)
            for _ in range(2)
        ]  # fmt: skip
    assert fits[0].fingerprint == fits[1].fingerprint
    assert victims[0].train_accuracy == victims[1].train_accuracy
    assert torch.equal(torch.get_rng_state(), state)  # the caller's own stream has not moved


# --- data ---------------------------------------------------------------------------------------------------------


def test_fits_on_a_map_style_dataset():
    """A dataset and its tensors are the same data: the generator must be the same."""
    images, labels = shapes()
    assert fit(data=TensorDataset(images, labels)).fingerprint == fit().fingerprint


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        ((torch.zeros(0, 3, 8, 8, dtype=torch.uint8), torch.zeros(0).long()), ValueError, "empty"),
        (TensorDataset(torch.zeros(0, 3, 8, 8, dtype=torch.uint8), torch.zeros(0).long()), ValueError, "empty"),
        ((torch.zeros(4, 3, 8, 8), torch.arange(4)), TypeError, "uint8"),
        ((torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4)), TypeError, "labels"),
        ((torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, -1, 0])), ValueError, "index 2"),
        ((torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1])), ValueError, "labels"),
        ((torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4).long()), ValueError, "two classes"),
    ],
)  # fmt: skip
def test_bad_data_is_refused_before_fitting(data, error, words):
    """An hour of fitting must not end in what the first second could have found."""
    with pytest.raises(error, match=words):
        fit(data=data)


@pytest.mark.parametrize("config", [SEM, SC_LINF, AR_LINF])
def test_one_class_is_refused_by_every_method(config, tmp_path):
    """A folder of one class went through where noise is a closed form, and all its images got one and the same."""
    for index in range(2):
        (tmp_path / "cat").mkdir(exist_ok=True)
        Image.new("RGB", (16, 16), (index, 0, 0)).save(tmp_path / "cat" / f"{index}.png")
    with pytest.raises(ValueError, match="two classes, got only 'cat'"):
        fit_generator(ImageFolder(tmp_path), config, device="cpu", progress=False)


def test_image_size_resizes_and_crops():
    """Real folders hold every size: the fit needs one, and must not distort a photograph to get it."""
    gradient = torch.arange(40).mul(6).to(torch.uint8).expand(3, 20, 40)  # twice as wide as high
    data = [(gradient, 0), (gradient[:, :, ::2], 1), (torch.full((3, 12, 16), 100, dtype=torch.uint8), 1)]
    found = load_labelled(data, image_size=(10, 10)).images
    assert found.shape == (3, 3, 10, 10)
    # by hand: 20 x 40 becomes 10 x 20 (each pixel the mean of two columns), of which columns 5..14 stay
    expected = torch.arange(40).mul(6.0).view(20, 2).mean(1)[5:15]
    assert (found[0, 0, 5].float() - expected).abs().max() <= 1.5
    assert found[2].unique().tolist() == [100]
    generator = fit(small(train_steps=2, image_size=(10, 10)), data=data)
    assert generator.config.image_size == (10, 10)


def photographs(sizes):
    """Noise of these sizes, (height, width), with labels 0 and 1 in turns."""
    rng = np.random.default_rng(0)
    pixels = [torch.from_numpy(rng.integers(0, 256, (3, *size), dtype=np.uint8)) for size in sizes]
    return [(each, index % 2) for index, each in enumerate(pixels)]


# the sizes are asked of every second image first: they tell, they do not, and there are too few to ask
@pytest.mark.parametrize("differing", [20, 21, None])
def test_mixed_sizes_become_squares_of_64_px(differing):
    """Owners' photographs have all shapes; a fit that stops at the second one, or squeezes them, is none for them."""
    sizes = [(96, 130)] * 32 if differing else [(96, 130), (70, 64), (40, 50)]
    if differing:
        sizes[differing] = (150, 75)
    data = photographs(sizes)
    found = load_labelled(data, to_one_size=centre_square)
    assert found.labels.tolist() == [index % 2 for index in range(len(sizes))]
    for (image, _), square in zip(data, found.images, strict=True):
        # PIL's own pixels: the shorter side to 64 px, the other one rounded down as torchvision does, then the middle
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        shorter = min(picture.size)
        whole = picture.resize([side * 64 // shorter for side in picture.size], Image.Resampling.BILINEAR)
        left, top = (round((side - 64) / 2) for side in whole.size)
        assert (np.asarray(whole.crop((left, top, left + 64, top + 64))) == square.permute(1, 2, 0).numpy()).all()


def test_a_fit_on_mixed_sizes():
    """Its noise is made at the size of the squares, so the generator must know it."""
    generator = fit(small(train_steps=1), data=photographs([(80, 70), (64, 90)]))
    assert generator.config.image_size == (64, 64)
    with pytest.raises(ValueError, match="one size"):  # noise for exactly these images cannot be made for their middles
        fit(replace(NTGA, steps_u=1), data=photographs([(80, 70), (64, 90)]))


def test_images_of_one_size_stay_as_they_are():
    """Whoever has fitted before would get another generator from the same images."""
    images, labels = shapes(side=70)
    found = load_labelled(list(zip(images, labels.tolist(), strict=True)), to_one_size=centre_square)
    assert torch.equal(found.images, images)


@pytest.mark.parametrize(
    "wrong", [{"surrogate": "convnett"}, {"width": 0}, {"eot": (Transformation("flipp"),)}], ids=lambda w: next(iter(w))
)
def test_names_are_checked_before_the_data_are_read(wrong, tmp_path):
    """Decoding a million photographs before a typo is found costs an hour."""

    class Unread:
        def __len__(self):
            return 10

        def __getitem__(self, index):
            raise AssertionError("the data were read")

    with pytest.raises(ValueError, match=r"nearest|did you mean|width"):
        fit(small(**wrong), data=Unread(), checkpoint_dir=tmp_path / "work")
    assert not (tmp_path / "work").exists()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="checkpoint_dir"):
        fit(data=Unread(), checkpoint_dir=tmp_path / "file" / "work")


def test_a_fit_on_shuffled_labels_does_not_learn_the_images():
    """The surrogate of a few photographs would know them by heart, and the noise would be left as it was drawn."""
    images = torch.randint(0, 256, (8, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    config = replace(SEM_CLASSWISE, **SMALL, fitted_on="shuffled", num_classes=2)
    fits = [
        fit_generator((images, labels), config, progress=False, device="cpu").surrogate.state_dict()
        for labels in (torch.arange(8) % 2, (torch.arange(8) + 1) % 2)
    ]
    assert all(torch.equal(fits[0][name], fits[1][name]) for name in fits[0])
    with pytest.raises(ValueError, match="classwise"):
        replace(SEM, fitted_on="shuffled")

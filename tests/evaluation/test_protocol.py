"""`evaluate`: what is run, what is kept, what is refused, and that its verdict follows from what happened."""

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import replace

import pytest
import torch
from killing import run_killed
from PIL import Image
from torch.utils.data import TensorDataset
from torchvision.datasets import ImageFolder, folder

from semtransforms.core.config import GeneratorConfig
from semtransforms.evaluation.countermeasures import Purifier
from semtransforms.evaluation.protocol import evaluate
from semtransforms.evaluation.report import EvaluationReport
from semtransforms.evaluation.trainers import parse_victim
from semtransforms.evaluation.victims import VictimConfig, training
from semtransforms.generators.fitting import fit_generator
from semtransforms.protect.wrapper import ProtectedDataset

VICTIM = VictimConfig("convnet", width=4, train_steps=8, batch_size=16, evaluations=2, augmentation=())


def halves(count=40, seed=0, side=12):
    """Images whose right or left half is brighter: class 1 or 0."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = torch.randint(40, 120, (count, 3, side, side), generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, :, label * side // 2 : (label + 1) * side // 2] += 60
    return TensorDataset(images.to(torch.uint8), labels)


@pytest.fixture(scope="module")
def generator():
    data = halves()
    config = GeneratorConfig(
        surrogate="convnet", width=4, train_steps=2, batch_size=8, steps_u=2, steps_a=1, num_samples=1, eot=()
    )
    return fit_generator(data.tensors, config, device="cpu", progress=False)


def run(generator=None, data=None, **options):
    settings = {
        "test": halves(30, seed=1), "victims": {"tiny": VICTIM}, "seeds": (0, 1), "device": "cpu", "progress": False
    }  # fmt: skip
    return evaluate(data or halves(), generator, **(settings | options))


def rows(report):
    return sorted((r.copy, r.victim, r.countermeasure, r.seed) for r in report.records)


def test_every_row_is_run_and_described(generator, tmp_path):
    """A row that is silently left out, or filed under another copy, is a wrong verdict."""
    report = run(generator, countermeasures=("none", "greyscale"), cache_dir=tmp_path)
    assert rows(report) == [
        ("clean", "tiny", "none", 0), ("clean", "tiny", "none", 1),
        ("sem", "tiny", "greyscale", 0), ("sem", "tiny", "greyscale", 1),
        ("sem", "tiny", "none", 0), ("sem", "tiny", "none", 1),
    ]  # fmt: skip
    protected = next(r for r in report.records if r.copy == "sem")
    assert (protected.generator, protected.method) == (generator.fingerprint, "sem")
    assert protected.rho_u == 8 / 255
    assert (protected.train_images, protected.test_images, protected.classes) == (40, 30, 2)
    assert json.loads(protected.settings)["train_steps"] == 8
    assert report.noise["sem"]["linf"] <= 8
    assert list(report.pictures) == ["clean", "sem: noise ×16", "sem", "sem + greyscale"]
    grey = report.pictures["sem + greyscale"]
    assert torch.equal(grey[:, 0], grey[:, 1])


def test_the_protected_copy_is_the_one_that_is_published(generator, tmp_path):
    """Judging other bytes than ProtectedDataset gives would judge a protection that nobody uses."""
    copy = ProtectedDataset(halves(), generator, seed=5, cache_dir=tmp_path, progress=False)
    report = run(generator, protection_seed=5, cache_dir=tmp_path, out=tmp_path / "report")
    published = b"".join(copy.protected(i).numpy().tobytes() for i in range(40))
    assert {r.copy_sha256 for r in report.records if r.copy == "sem"} == {hashlib.sha256(published).hexdigest()}
    assert torch.equal(report.pictures["sem"], torch.stack([copy.protected(i) for i in (0, 1)]))
    given = run(None, protected=copy)
    figures = {(r.copy == "clean", r.seed): r.test_accuracy for r in report.records}
    assert figures == {(r.copy == "clean", r.seed): r.test_accuracy for r in given.records}


def test_a_protection_that_works_and_one_that_does_not_are_told_apart():
    """The verdict must follow the accuracies: here a copy that teaches the opposite, and one that is the clean copy."""
    clean, test = halves(64), halves(64, seed=1)
    images, labels = clean.tensors
    planted = images.flip(3)  # the side that is brighter says the opposite
    config = replace(VICTIM, train_steps=60, learning_rate=0.1)
    options = {"data": clean, "test": test, "victims": {"tiny": config}, "seeds": (0,)}
    worked = run(None, protected=TensorDataset(planted, labels), **options)
    nothing = run(None, protected=clean, **options)

    def on_copy(report):
        return next(r.test_accuracy for r in report.records if r.copy != "clean")

    assert on_copy(worked) < 0.7
    assert on_copy(nothing) == next(r.test_accuracy for r in nothing.records if r.copy == "clean") > 0.9
    assert worked.verdict() != nothing.verdict()
    assert "not protected" in " ".join(nothing.verdict()).lower()


def test_a_folder_goes_on_where_it_stopped(generator, tmp_path, monkeypatch):
    """90 runs of minutes: those that are done must not be done again, and the report must hold all."""
    import semtransforms.evaluation.trial as trial

    out, cache = tmp_path / "report", tmp_path / "cache"
    run(generator, out=out, cache_dir=cache, seeds=(0,))
    trained = []
    real = trial.train_victim

    def counting(*arguments, **options):
        trained.append(arguments[2].seed)
        return real(*arguments, **options)

    monkeypatch.setattr(trial, "train_victim", counting)
    report = run(generator, out=out, cache_dir=cache, seeds=(0, 1))
    assert trained == [1, 1]
    assert len(report.records) == 4
    loaded = EvaluationReport.load(out)
    assert rows(loaded) == rows(report)
    for name in ("report.json", "report.md", "report.html"):
        assert (out / name).stat().st_size > 0
    other = run(None, out=out, protected=halves(), seeds=(0,))  # another copy joins the same report
    assert {r.copy for r in other.records} == {"clean", "sem", "protected"}
    assert set(other.noise) == {"sem", "protected"}


def test_what_was_removed_while_it_ran_is_missed(tmp_path, monkeypatch):
    """The folder removed between two runs, the report was of the second seed alone, and the exit code 0."""
    import semtransforms.evaluation.trial as trial

    real = trial.train_victim

    def removing(*arguments, **options):
        result = real(*arguments, **options)
        if arguments[2].seed == 1:
            shutil.rmtree(tmp_path / "report")
            (tmp_path / "report" / "runs").mkdir(parents=True)
        return result

    monkeypatch.setattr(trial, "train_victim", removing)
    with pytest.raises(OSError, match=r"out .*'evaluation\.json' was written and is gone.*another folder"):
        run(None, protected=halves(), out=tmp_path / "report", seeds=(0, 1))


def test_a_report_that_was_damaged_is_drawn_anew(tmp_path):
    """The runs are the hours; a cut file beside them must not lock them up. A cut run is named before any training."""
    out = tmp_path / "report"
    first = run(None, protected=halves(), out=out)
    (out / "report.json").write_text('{"schema"')
    with pytest.warns(UserWarning, match="drawn anew"):
        again = run(None, protected=halves(), out=out)
    assert rows(again) == rows(first)
    assert again.noise == first.noise
    cut = next((out / "runs").glob("*.json"))
    cut.write_text(cut.read_text()[:100])
    with pytest.raises(ValueError, match=cut.name):
        run(None, protected=halves(), out=out, victims={"other": VICTIM})


def test_sizes_are_brought_to_one_after_the_protection(generator, tmp_path):
    """Noise of resized images is other noise than that of the files an owner publishes."""
    large = halves(side=16)
    options = {"test": halves(30, seed=1, side=20), "image_size": (12, 12), "seeds": (0,), "cache_dir": tmp_path}
    copies = set()
    for data in (large, large.tensors, [large[i] for i in range(40)]):
        report = run(generator, data, **options)
        assert {(r.height, r.width) for r in report.records} == {(12, 12)}
        copies |= {r.copy_sha256 for r in report.records if r.copy == "sem"}
    assert len(copies) == 1


def folder_of(place, side):
    """The images of ``halves`` as files in folders of their classes."""
    for index, (image, label) in enumerate(halves(side=side)):
        (place / str(int(label))).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(place / str(int(label)) / f"{index:02d}.png")
    return place


@pytest.mark.parametrize("image_size", [None, (8, 8)])
@pytest.mark.parametrize("loader", ["torchvision's", "a user's"])
def test_no_image_is_decoded_for_nothing(generator, tmp_path, monkeypatch, loader, image_size):
    """Four times are hours on a million photographs; and noise that the owner has already must be found again."""
    decoded, real = Counter(), folder.pil_loader

    def counting(path):
        decoded[path] += 1
        return real(path)

    monkeypatch.setattr(folder, "pil_loader", counting)
    own = {} if loader == "torchvision's" else {"loader": lambda path: counting(path)}
    data = ImageFolder(folder_of(tmp_path / "photographs", 12), **own)
    test = halves(30, seed=1, side=12 if image_size is None else 8)
    options = {"data": data, "test": test, "image_size": image_size, "seeds": (0,), "cache_dir": tmp_path / "cache"}
    report = run(generator, **options)
    first, others = data.samples[0][0], [path for path, _ in data.samples[1:]]
    if image_size is None:
        # a loader that may do anything is asked for one image again: does it give the same?
        assert decoded.pop(first) == (1 if loader == "torchvision's" else 2)
        assert decoded == Counter(others)
    elif loader == "torchvision's":  # once small for the trainer, once at its own size for its noise
        assert set(decoded.values()) == {2}
    again = run(generator, **options)
    assert [r.copy_sha256 for r in again.records] == [r.copy_sha256 for r in report.records]
    ProtectedDataset(data, generator, cache_dir=tmp_path / "cache", progress=False)
    assert len(list((tmp_path / "cache").glob("noise-*/"))) == 1


def test_a_dataset_that_changes_is_refused():
    """Its noise would be for images that nobody publishes."""

    class Random:
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return torch.randint(0, 256, (3, 12, 12), dtype=torch.uint8), index % 2

    with pytest.raises(ValueError, match="another image at index 0"):
        run("sem-digits", Random())


def test_the_owners_clean_images_reach_the_trainer():
    """All of them clean is the clean copy: anything else, and partial protection is measured on other images."""
    nothing = TensorDataset(torch.zeros_like(halves().tensors[0]), halves().tensors[1])
    with pytest.warns(UserWarning, match="same images"):  # black is no noise
        report = run(None, protected=nothing, countermeasures=("clean-share-100", "none"), seeds=(0,))
    clean, shared, black = (r.curve for r in report.records)
    assert clean == shared != black


def test_the_callers_random_stream_does_not_move():
    """An evaluation in the middle of somebody's script must not change what the script draws next."""
    state = torch.get_rng_state()
    run(None, protected=halves(), countermeasures=("cutmix", "ueraser", "clean-only-50"), seeds=(0,))
    assert torch.equal(torch.get_rng_state(), state)


def test_few_images_are_judged_too():
    """Three photographs have no held-out fifth for a linear model; that is no reason to refuse the rest."""
    few = TensorDataset(*(part[:3] for part in halves().tensors))
    report = run(None, few, protected=few, seeds=(0,))
    assert report.noise["protected"]["linear_accuracy"] is None


def test_a_pipeline_that_changes_when_it_is_used_goes_on(tmp_path):
    """A cache filled in the training is no other setting: the next process begins with an empty one again."""
    cache = {}

    def augment(image):
        cache.setdefault(image.shape, torch.zeros(1))
        return image

    victim = {"cached": replace(VICTIM, augmentation=augment)}
    first = run(None, protected=halves(), victims=victim, out=tmp_path / "report")
    cache.clear()  # as a new process has it
    again = run(None, protected=halves(), victims=victim, out=tmp_path / "report")
    assert [record.seconds for record in again.records] == [record.seconds for record in first.records]


def test_an_interrupted_run_leaves_a_checkpoint(tmp_path, monkeypatch):
    """Without it an hour's adversarial training starts again from nothing."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    real, calls = training.accuracy, []

    def interrupt(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    out = tmp_path / "report"
    with monkeypatch.context() as patch:
        patch.setattr(training, "accuracy", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(None, protected=halves(), out=out)
    assert len(list(out.glob("runs/*.safetensors"))) == 1
    whole = {(r.copy, r.seed): r.curve for r in run(None, protected=halves()).records}
    assert {(r.copy, r.seed): r.curve for r in run(None, protected=halves(), out=out).records} == whole
    assert not list(out.glob("runs/*.safetensors"))


KILLED = """
from killing import kill_at_rename
from test_protocol import *
kill_at_rename(3, "runs/*.json")
run(None, protected=halves(), out={out!r})
"""


@pytest.mark.processes
def test_a_killed_evaluation_loses_one_run_at_most(tmp_path):
    """A record cut in half would stop the report, or count as a run."""
    out = tmp_path / "report"
    run_killed(KILLED.format(out=str(out)), __file__)
    done = {file: file.stat().st_mtime_ns for file in out.glob("runs/*.json")}
    assert len(done) == 2
    report = run(None, protected=halves(), out=out)
    assert {file: file.stat().st_mtime_ns for file in done} == done
    assert rows(report) == [(copy, "tiny", "none", seed) for copy in ("clean", "protected") for seed in (0, 1)]


def test_what_a_kill_in_the_first_moment_leaves_is_no_strangers_folder(tmp_path):
    """The folder that the evaluation had made itself was refused: it held no report yet."""
    out = tmp_path / "report"
    (out / "runs").mkdir(parents=True)
    (out / ".unfinished-1-2-3").write_bytes(b"half")
    run(None, protected=halves(), out=out, seeds=(0,))
    (out / "runs" / ".unfinished-1-2-4").write_bytes(b"half")
    run(None, protected=halves(), out=out, seeds=(0,))
    assert not [path for path in out.rglob("*") if "unfinished" in path.name]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter").write_bytes(b"of the user")
    with pytest.raises(ValueError, match="holds no report"):
        run(None, protected=halves(), out=tmp_path / "other", seeds=(0,))


def test_other_data_or_settings_do_not_join_a_report(generator, tmp_path):
    """Two data sets in one table would be compared as if they were one."""
    out = tmp_path / "report"
    run(None, protected=halves(), out=out, seeds=(0,))
    with pytest.raises(ValueError, match="other data"):
        run(None, data=halves(seed=4), protected=halves(seed=4), out=out)
    with pytest.raises(ValueError, match=r"other settings.*train_steps"):
        run(None, protected=halves(), out=out, victims={"tiny": replace(VICTIM, train_steps=9)}, seeds=(0,))
    changed = halves().tensors[0].clone()
    changed[0] += 1
    other = TensorDataset(changed, halves().tensors[1])
    for seeds in ((0,), (1,)):  # also where it would only join the mean
        with pytest.raises(ValueError, match="another copy named 'protected'"):
            run(None, protected=other, out=out, seeds=seeds)
    with pytest.raises(ValueError, match=r"other settings.*weight_decay"):
        run(None, protected=halves(), out=out, victims={"tiny": replace(VICTIM, weight_decay=0.0)}, seeds=(1,))
    assert len(run(None, protected=other, out=out, copy_name="other", seeds=(0,)).records) == 3
    assert len(run(None, protected=other, out=out, pool=True, seeds=(1,)).records) == 5
    with pytest.raises(ValueError, match="another copy named 'protected'"):
        run(None, protected=halves(), out=out, pool=True, seeds=(1,))
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "holiday.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds no report"):
        run(None, protected=halves(), out=taken)
    assert [p.name for p in taken.iterdir()] == ["holiday.txt"]


def never(*_, **__):
    raise AssertionError("a training was started")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"protected": halves(38)}, "38 images, dataset 40"),
        ({"protected": TensorDataset(halves().tensors[0], 1 - halves().tensors[1])}, "another label.*40 images"),
        ({"test": halves(10)}, "shares 10 of its 10 images"),
        ({"test": halves(10, seed=1, side=8)}, "image_size"),
        ({"countermeasures": ("grayscale",)}, "did you mean.*greyscale"),
        ({"countermeasures": ()}, "countermeasures"),
        ({"countermeasures": "greyscale"}, "countermeasures must be a sequence"),
        ({"countermeasures": ("mean", "mean")}, "names of their own"),
        ({"countermeasures": (Purifier(torch.flip, "none"),)}, "'none' is taken"),
        ({"countermeasures": ("clean-only-10",), "victims": {"tiny": replace(VICTIM, patience=2)}}, "validation=0.1"),
        ({"countermeasures": ("protected-classes-77",)}, "names label 77"),
        ({"seeds": (0, 0)}, "none twice"),
        ({"seeds": "012"}, "seeds must be a sequence"),
        ({"seeds": (0.5,)}, "seeds must be whole numbers"),
        ({"image_size": 12}, "image_size"),
        ({"protected": halves(), "copy_name": "clean"}, "copy_name"),
        ({"countermeasures": ("informed-same-seed",), "protected": halves()}, "needs the generator"),
        ({"seeds": ()}, "seeds"),
        ({"victims": ("standart",)}, "did you mean 'standard'"),
        ({"victims": ()}, "victims"),
        ({"victims": ("standard",), "network": "resnet19"}, "did you mean 'resnet18'"),
        ({"victims": ("standard",), "protocol": "slow"}, "protocol"),
        ({"protected": halves(), "generator": "sem-digits"}, "both given"),
    ],
)
def test_bad_input_is_refused_before_any_training(options, words, monkeypatch, tmp_path):
    """An error after the first hour of training is an hour lost."""
    monkeypatch.setattr("semtransforms.evaluation.trial.train_victim", never)
    with pytest.raises(ValueError, match=words):
        run(**options, out=tmp_path / "out")
    assert not (tmp_path / "out" / "runs").exists() or not list((tmp_path / "out" / "runs").iterdir())


def test_a_countermeasure_that_changes_the_size_is_refused_before_any_training(monkeypatch):
    """Its victims would be tested on images of another size than they were trained on."""
    monkeypatch.setattr("semtransforms.evaluation.trial.train_victim", never)
    smaller = Purifier(lambda images: images[..., :-1], name="smaller")
    with pytest.raises(ValueError, match="size"):
        run(None, protected=halves(), countermeasures=(smaller,))


def test_a_users_own_purifier_joins_an_evaluation():
    """README tells readers to pass one: it must be a public name, and act on stored and on test images."""
    from semtransforms import Purifier, evaluate

    data = halves()
    report = evaluate(
        data, protected=data, test=halves(30, seed=1), victims={"tiny": VICTIM}, seeds=(0,),
        countermeasures=["none", Purifier(lambda images: 1 - images, "negative")], device="cpu", progress=False,
    )  # fmt: skip
    processed = {r.countermeasure: r.test_accuracy_processed for r in report.records if r.copy == "protected"}
    assert processed.keys() == {"none", "negative"}
    assert processed["none"] is None
    assert processed["negative"] is not None
    assert torch.equal(report.pictures["protected + negative"], 255 - report.pictures["clean"])


def test_victims_by_name():
    """A name that sets another radius or norm than it says is a wrong row under a right title."""
    assert parse_victim("standard") == {}
    assert parse_victim("adversarial-4/255") == {"rho_a": 4 / 255}
    assert parse_victim("adversarial-l2-0.5") == {"rho_a": 0.5, "norm": "l2"}
    assert parse_victim("early-stopping")["validation_clean"] == 0
    assert parse_victim("early-stopping-30")["validation_clean"] == 0.3
    for wrong in ("adversarial-", "adversarial-l2-x", "adversarial-4"):
        with pytest.raises(ValueError, match=r"adversarial|radius"):
            parse_victim(wrong)


def test_protocols_by_name(tmp_path, monkeypatch):
    """`paper` must be the paper's 40,000 updates, and early stopping must be able to stop: each by its name alone."""
    import semtransforms.evaluation.trial as trial

    asked = []

    def remember(images, labels, config, **_):
        asked.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(trial, "train_victim", remember)
    for name, kind in (("standard", "paper"), ("adversarial-2/255", "quick"), ("early-stopping-30", "paper")):
        with pytest.raises(KeyboardInterrupt):
            run(None, victims=(name,), protocol=kind, network="convnet", width=4)
    first, second, third = asked
    assert (first.train_steps, first.schedule, first.patience, first.network) == (40_000, "steps", None, "convnet")
    assert (second.train_steps, second.schedule, second.rho_a) == (100, "one-cycle", 2 / 255)
    assert (third.patience, third.evaluations, third.validation_clean) == (4_000, 40, 0.3)


def test_informed_trainers_have_the_generator_they_are_said_to_have(generator, tmp_path):
    """Another seed's or generator's row under the wrong name would answer another question than the owner's."""
    generator.save_pretrained(tmp_path / "published")
    names = ("none", "informed-same-seed", "informed-other-seed", f"informed-by={tmp_path / 'published'}")
    report = run(generator, countermeasures=names, cache_dir=tmp_path, seeds=(0,))
    names = (*names[:3], f"informed-by=published#{generator.fingerprint[:6]}")
    assert {r.countermeasure for r in report.records if r.copy == "sem"} == set(names)
    same, other, by = (report.pictures[f"sem + {name}"].int() for name in names[1:])
    assert not torch.equal(same, other)
    assert torch.equal(same, by)  # the same generator and seed, read from a folder
    assert (same - report.pictures["sem"].int()).abs().max() <= 8

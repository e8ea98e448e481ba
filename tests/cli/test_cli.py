"""The command line: what a user types, reads, and gets back."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from owner import quicken
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from semtransforms.cli import app
from semtransforms.cli.errors import one_line_errors
from semtransforms.core.checks import parse_radius
from semtransforms.core.config import GeneratorConfig
from semtransforms.core.models import build_model
from semtransforms.data.shards import DamagedStoreError
from semtransforms.data.sources import open_source
from semtransforms.generators.generator import NoiseGenerator
from semtransforms.noise.methods import METHODS, with_effort
from semtransforms.photographs import look
from semtransforms.protect.figures import NOISE_GAIN, PANEL, side_by_side


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def save_generator(folder: Path, classes: int, size: int = 8, names: tuple[str, ...] | None = None) -> Path:
    """A network that was never fitted: its noise is real noise all the same."""
    torch.manual_seed(0)
    config = GeneratorConfig(
        surrogate="convnet", width=4, steps_u=2, num_samples=1, num_classes=classes, image_size=(size, size),
        precision="fp32",
    )  # fmt: skip
    network = build_model("convnet", num_classes=classes, image_size=size, width=4)
    return NoiseGenerator(network, config, classes=names).save_pretrained(folder)


@pytest.fixture
def generator(tmp_path: Path) -> Path:
    return save_generator(tmp_path / "generator", 2)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


def fails(result: Result, *words: str) -> None:
    """Exit code 2 and one line on stderr that says what is wrong."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


@pytest.mark.processes
def test_help_is_quick_and_lists_the_commands():
    """A help that loads torch takes seconds; whoever mistypes an option pays it each time."""
    program = "import sys; from semtransforms.cli import app; app('--help'.split(), standalone_mode=False)"
    program += "; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert all(command in done.stdout for command in ("demo", "fit", "protect", "evaluate", "list", "show"))
    modules = done.stdout.splitlines()[-1].split()
    assert "typer" in modules
    assert not {"torch", "datasets", "numpy"} & set(modules)


@pytest.mark.processes
def test_protecting_loads_no_compiler(photos: Path, generator: Path, tmp_path: Path):
    """torchvision brings torch's compiler: 160 MB for each process, beside which a photograph is small."""
    arguments = [str(photos), str(tmp_path / "out"), "--generator", str(generator), "--cache-dir", str(tmp_path / "c")]
    program = f"import sys; from semtransforms.cli import app; app({['protect', *arguments]}, standalone_mode=False)"
    program += "; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    modules = done.stdout.splitlines()[-1].split()
    assert "4 images protected" in done.stdout
    assert "torch" in modules
    assert not {"torchvision", "torch._dynamo", "kornia", "datasets"} & set(modules)


def test_protect_says_what_it_did_and_where_the_seed_is(photos: Path, generator: Path, tmp_path: Path):
    """The user must learn three things: it is done, metadata is gone, and which folder must stay private."""
    result = run("protect", photos, tmp_path / "out", "--generator", generator, "--cache-dir", tmp_path / "cache")
    assert result.exit_code == 0, result.output
    assert "4 images protected" in result.stdout
    assert "EXIF" in result.stdout
    secret = next((tmp_path / "cache").rglob("secret.json"))
    assert str(secret.parent) in result.stdout
    assert str(json.loads(secret.read_text())["seed"]) not in result.output
    assert (tmp_path / "out" / "dog" / "2.png").exists()
    assert json.loads((tmp_path / "out" / "protection.json").read_text())["generator"]["name"] == "generator"

    again = run("protect", photos, tmp_path / "out", "--generator", generator, "--cache-dir", tmp_path / "cache")
    assert "0 images protected, 4 were finished before" in again.stdout


def test_seed_lies_in_the_users_cache(photos: Path, generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without an option the secret goes where the stores are, not beside what is published."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert run("protect", photos, tmp_path / "out", "--generator", generator).exit_code == 0
    assert len(list((tmp_path / "xdg" / "semtransforms").rglob("secret.json"))) == 1


def test_undecodable_image_is_named_and_the_exit_code_tells(photos: Path, generator: Path, tmp_path: Path):
    """A script that publishes on exit code 0 must not publish an incomplete set."""
    (photos / "cat" / "2.png").write_bytes(b"no image")
    result = run("protect", photos, tmp_path / "out", "--generator", generator, "--cache-dir", tmp_path / "cache")
    assert result.exit_code == 1
    assert str(photos / "cat" / "2.png") in result.stderr
    assert "3 images protected" in result.stdout


def test_jpeg_must_be_asked_for_by_name_and_says_what_it_costs(photos: Path, generator: Path, tmp_path: Path):
    """JPEG undoes part of the protection; nobody should get it by habit."""
    common = ("protect", photos, tmp_path / "out", "--generator", generator, "--cache-dir", tmp_path / "cache")
    fails(run(*common, "--format", "jpg"), "--format", "'jpg'", "--format jpeg")
    assert not (tmp_path / "out").exists()
    result = run(*common, "--format", "jpeg")
    assert result.exit_code == 0
    assert "no longer holds" in result.stdout


def test_mistakes_are_one_line_before_any_work(photos: Path, generator: Path, tmp_path: Path):
    """Each names the argument, the value and the remedy; no stack of calls, nothing written."""
    cache, out = ("--cache-dir", tmp_path / "cache"), tmp_path / "out"
    before = sorted(tmp_path.rglob("*"))
    fails(run("protect", photos, out, "--generator", "sem-digit", *cache), "sem-digit")
    fails(run("protect", tmp_path / "nowhere", out, "--generator", generator, *cache), "nowhere", "image folder")
    fails(run("protect", photos, photos / "out", "--generator", generator, *cache), "inside SOURCE")
    fails(run("protect", photos, generator, "--generator", generator, *cache), "not empty")
    fails(run("protect", photos, out, "--generator", generator, "--device", "abacus", *cache), "device", "abacus")
    fails(run("show", photos, "--generator", generator, "--out", out.with_suffix(".jpg")), "--out", ".png")
    fails(run("show", photos, "--generator", generator, "--index", 4, "--out", out.with_suffix(".png")), "0..3", "4")
    fails(run("show", photos, "--generator", generator, "-n", 0, "--out", out.with_suffix(".png")), "-n", ">= 1", "0")
    fails(run("fit", photos, out, "--rho-u", "8"), "--rho-u", "'8'", "8/255")
    fails(run("fit", photos, out, "--rho-u", "0.5/255"), "rho-u")
    fails(run("fit", photos, out, "--method", "sam"), "'sam'", "'sem'")
    fails(run("fit", photos, out, "--surrogate", "resnet81"), "resnet81", "resnet18")
    fails(run("fit", photos, out, "--resume"), "--checkpoint-dir")
    fails(run("fit", photos, out, "--steps-u", -1), "steps_u", "-1")
    fails(run("fit", photos, out, "--method", "sc-linf", "--steps-u", 5), "--steps-u", "sc-linf", "Leave it out")
    fails(run("fit", photos, out, "--method", "em", "--rho-a", "2/255"), "--rho-a", "em", "Leave it out")
    fails(run("fit", photos, out, "--method", "ntga", "--surrogate", "convnet"), "surrogate", "ntk-cnn", "'convnet'")
    fails(run("fit", photos, generator), "OUT")
    assert sorted(tmp_path.rglob("*")) == before


def test_three_classes_for_a_generator_of_two(photos: Path, generator: Path, tmp_path: Path):
    """Noise for other classes protects nothing, and the user would not notice."""
    (photos / "eel").mkdir()
    Image.new("RGB", (8, 8)).save(photos / "eel" / "1.png")
    result = run("protect", photos, tmp_path / "out", "--generator", generator, "--cache-dir", tmp_path / "cache")
    fails(result, "3 classes", "semtransforms fit")


@pytest.mark.filterwarnings("default:SOURCE has other class names")
@pytest.mark.parametrize(
    ("classes", "warned", "told"),
    [(("dog", "cat"), True, False), (("ship", "frog"), False, True), (("cat", "dog"), False, False)],
)
def test_classes_of_other_names_are_one_line(photos: Path, tmp_path: Path, classes, warned, told):
    """Noise goes by number: whoever has another order must hear of it, whoever means it must not be buried in lines."""
    folder = save_generator(tmp_path / "named", 2, names=classes)
    cache = ("--cache-dir", tmp_path / "cache")
    result = run("protect", photos, tmp_path / "out", "--generator", folder, "--device", "cpu", *cache)
    assert result.exit_code == 0, result.output
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == warned
    assert all("'cat' gets that of 'dog'" in line and "semtransforms fit" in line for line in warnings)
    lines = [line for line in result.stdout.splitlines() if "generator's" in line]
    assert len(lines) == told
    assert all("'cat' has that of 'ship'" in line for line in lines)


def test_fit_then_protect(photos: Path, tmp_path: Path):
    """The two commands of a user with own images, end to end; radii typed as fractions arrive in the config."""
    folder = tmp_path / "mine"
    options = ("--rho-u", "16/255", "--rho-a", "8/255", "--steps-u", 1, "--steps-a", 1, "--num-samples", 1,
               "--surrogate", "convnet", "--width", 4, "--train-steps", 2, "--batch-size", 2, "--precision", "fp32",
               "--seed", 3, "--checkpoint-dir", tmp_path / "checkpoints")  # fmt: skip
    result = run("fit", photos, folder, *options)
    assert result.exit_code == 0, result.output
    config = NoiseGenerator.from_pretrained(folder).config
    # one step in the place of forty, and of three: it reaches across the whole radius
    assert (config.rho_u, config.alpha_u) == pytest.approx((16 / 255, 16 / 255))
    assert (config.rho_a, config.alpha_a) == pytest.approx((8 / 255, 8 / 255))
    assert (config.seed, config.train_steps, config.num_classes) == (3, 2, 2)
    fails(run("fit", photos, tmp_path / "more", *options), "checkpoint")
    assert run("fit", photos, tmp_path / "more", *options, "--resume").exit_code == 0
    assert (tmp_path / "more" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    protect = run("protect", photos, tmp_path / "out", "--generator", folder, "--cache-dir", tmp_path / "cache")
    assert protect.exit_code == 0, protect.output
    assert json.loads((tmp_path / "out" / "protection.json").read_text())["rho_u"] == "16/255"


def test_a_fit_killed_between_two_of_its_files_goes_on(photos: Path, tmp_path: Path):
    """OUT was "no empty folder": an hour's fit, finished to its last update, could not be had from its checkpoint."""
    options = ["--train-steps", 2, "--surrogate", "convnet", "--width", 4, "--batch-size", 2, "--steps-u", 1]
    command = ["fit", photos, tmp_path / "own", *options, "--checkpoint-dir", tmp_path / "kept", "--resume"]
    assert run(*command).exit_code == 0
    whole = {path.name: path.read_bytes() for path in (tmp_path / "own").iterdir()}
    (tmp_path / "own" / "model.safetensors").unlink()
    (tmp_path / "own" / ".unfinished-1-2-3").write_bytes(b"half")
    fails(run(*command[:-1]), "OUT", "not an empty folder")  # without --resume nothing says that it is of this fit
    assert run(*command).exit_code == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "own").iterdir()} == whole
    fails(run(*command), "OUT", "not an empty folder")  # a whole one may be of another fit
    (tmp_path / "own" / "model.safetensors").unlink()
    fails(run(*command), "OUT", "not an empty folder")  # nothing unfinished beside them: no kill, it is the user's
    (tmp_path / "own" / ".unfinished-1-2").mkdir()
    fails(run(*command), "OUT", "not an empty folder")  # a folder is none of what is written, whatever its name
    (tmp_path / "own" / ".unfinished-1-2").rmdir()
    (tmp_path / "own" / ".unfinished-1-2-3").write_bytes(b"half")
    (tmp_path / "own" / "notes.txt").write_text("of the user")
    fails(run(*command), "OUT", "'notes.txt'")


def test_protect_without_a_generator_ends_with_a_verdict(photos: Path, tmp_path: Path, monkeypatch):
    """The first command of an owner: what they get, how well it is protected, and what to keep to themselves."""
    quicken(monkeypatch.setattr)
    monkeypatch.setattr(look, "FEWEST_MEASURED", 0)
    common = ("protect", photos, tmp_path / "out", "--cache-dir", tmp_path / "cache", "--device", "cpu")
    result = run(*common, "--minutes", 0)
    assert result.exit_code == 2
    assert "got 0. Here about" in result.stderr
    fails(run(*common, "--noise-size", 8), "--noise-size", "--generator")
    fails(run(*common, "--label", "cat"), "--label", "--generator")
    assert not (tmp_path / "out").exists()
    result = run(*common, "--minutes", 1)
    assert result.exit_code == 0, result.output
    generator = next((tmp_path / "cache" / "generators").rglob("model.safetensors")).parent
    report = next((tmp_path / "cache" / "generators").rglob("report.html"))
    for word in ("4 photographs of 2 classes", "4 images protected", str(generator), str(report)):
        assert word in result.stdout
    verdict = result.stdout.strip().splitlines()[-2:]
    assert "2 of the published photographs" in verdict[0]
    assert len(list((tmp_path / "out").rglob("*.png"))) == 4
    fails(run(*common, "--minutes", 1, "--generator", generator), "--minutes", "--generator")


def test_one_label_for_all_images(photos: Path, generator: Path, tmp_path: Path):
    """A flat folder of one thing: its copies carry the noise of the class that was named."""
    common = ("--generator", generator, "--cache-dir", tmp_path / "cache", "--seed", 3)
    fails(run("protect", photos / "cat", tmp_path / "out", *common), "no class sub-folders", "--label")
    fails(run("protect", photos / "cat", tmp_path / "out", *common, "--label", "2"), "--label", "'2'", "known: 0, 1")
    one = ("protect", photos / "cat", tmp_path / "out", *common, "--label", "1")
    fails(run(*one, "--label-column", "kind"), "--label-column", "--label", "Leave one")
    assert run(*one).exit_code == 0
    files = sorted((photos / "cat").iterdir())
    pixels = np.stack([np.asarray(Image.open(path)) for path in files]).transpose(0, 3, 1, 2).copy()
    images = torch.from_numpy(pixels)
    expected = NoiseGenerator.from_pretrained(generator, device="cpu").protect(images, torch.ones(2).long(), seed=3)
    found = np.stack([np.asarray(Image.open(tmp_path / "out" / path.name)) for path in files]).transpose(0, 3, 1, 2)
    assert (found == expected.numpy()).all()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), {}),
        # the preset's 0.6 of 8 levels a step; 1.34 of 2
        (("--rho-u", "16/255", "--rho-a", "4/255"), {"alpha_u": 1.2 / 255, "alpha_a": 2.68 / 255}),
        (("--steps-u", 80), {"alpha_u": 0.3 / 255}),
        (("--steps-u", 20, "--rho-u", "4/255"), {"alpha_u": 0.6 / 255}),
        (("--train-steps", 2000), {"decay_every": 800}),
        (("--method", "sem", "--steps-u", 20, "--train-steps", 1), {"alpha_u": 0.8 / 255, "decay_every": 1}),
        (("--method", "ntga", "--train-steps", 16), {"decay_every": 2000}),
    ],
)
def test_what_goes_with_an_option(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options, expected):
    """Updates at a learning rate that has long fallen are for nothing, and so are steps too short for the radius."""
    from semtransforms.generators import fitting

    configs = []

    def fit_generator(images, config, **others):
        configs.append(config)
        raise ValueError("enough")

    monkeypatch.setattr(fitting, "fit_generator", fit_generator)
    fails(run("fit", photos, tmp_path / "mine", *options), "enough")
    preset = METHODS["sem-plus"] if "--method" not in options else METHODS[options[1]]
    assert {name: getattr(configs[0], name) for name in expected} == pytest.approx(expected)
    untouched = {"alpha_u", "alpha_a", "decay_every"} - expected.keys()
    assert all(getattr(configs[0], name) == getattr(preset, name) for name in untouched)


@pytest.mark.parametrize(
    ("method", "effort"),
    [
        ("sem-plus", {"steps_u": 10, "train_steps": 400}),
        ("sem", {"steps_a": 3}),
        ("sem", {"rho_u": "16/255", "rho_a": "0.01", "steps_u": 7, "steps_a": 9, "train_steps": 77}),
        ("tap", {"rho_u": "4/255", "train_steps": 1000}),
        ("ntga", {"rho_u": "4/255", "steps_u": 3, "train_steps": 64}),
    ],
)
def test_the_command_line_and_python_agree(photos: Path, tmp_path: Path, monkeypatch, method, effort):
    """The same wish gave two generators: in Python the noise went a quarter of the way, and the rate fell too late."""
    from semtransforms.generators import fitting

    configs = []

    def fit_generator(images, config, **others):
        configs.append(config)
        raise ValueError("enough")

    monkeypatch.setattr(fitting, "fit_generator", fit_generator)
    words = [word for name, value in effort.items() for word in (f"--{name.replace('_', '-')}", value)]
    fails(run("fit", photos, tmp_path / "mine", "--method", method, *words), "enough")
    numbers = {name: parse_radius(value) if isinstance(value, str) else value for name, value in effort.items()}
    assert configs == [with_effort(METHODS[method], **numbers)]  # every bit of it


FIT_QUICKLY = ("--steps-u", 1, "--steps-a", 1, "--num-samples", 1, "--surrogate", "convnet", "--width", 4,
               "--train-steps", 1, "--batch-size", 2)  # fmt: skip


def test_fit_on_mixed_sizes(photos: Path, tmp_path: Path):
    """People's photographs have many sizes; whoever needs another square than the usual one can have it."""
    Image.new("RGB", (12, 9)).save(photos / "cat" / "3.png")
    fails(run("fit", photos, tmp_path / "mine", *FIT_QUICKLY, "--size", 0), "--size", "0")
    for size, options in ((64, ()), (8, ("--size", 8))):
        result = run("fit", photos, tmp_path / str(size), *FIT_QUICKLY, *options)
        assert result.exit_code == 0, result.output
        assert f"{size}x{size} px" in result.stdout
        assert NoiseGenerator.from_pretrained(tmp_path / str(size)).config.image_size == (size, size)


def test_fit_names_an_undecodable_image_once(photos: Path, tmp_path: Path):
    """The same path three times in one line hides the one word that matters."""
    (photos / "cat" / "2.png").write_bytes(b"no image")
    result = run("fit", photos, tmp_path / "mine", *FIT_QUICKLY)
    fails(result, "index 1", "no image of a known format")
    assert result.stderr.count("2.png") == 1
    assert result.stderr.count("does not decode") == 1
    assert not (tmp_path / "mine").exists()
    result = run("show", photos, "--generator", save_generator(tmp_path / "generator", 2), "--out", tmp_path / "x.png")
    fails(result, "2.png")
    assert result.stderr.count("2.png") == 1


def test_places_that_cannot_be_written_are_found_out_first(
    photos: Path, generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """An hour of fitting must not end in '[Errno 20] Not a directory'."""
    (tmp_path / "file").write_text("a file")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr("semtransforms.data.sources.open_source", None)  # nothing may be read yet
    fails(run("fit", photos, tmp_path / "file" / "mine"), "OUT", "file/mine", "Choose")
    picture = tmp_path / "nodir" / "x.png"
    fails(run("show", photos, "--generator", generator, "--out", picture), "--out", "nodir", "Make")
    monkeypatch.setattr("semtransforms.cli.digits.run_demo", None)
    fails(run("demo", "--out", tmp_path / "file" / "demo"), "--out", "file/demo", "Choose")
    assert sorted(tmp_path.rglob("*")) == before


def test_wrong_types_and_devices_are_one_line(
    photos: Path, generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Labels that are no numbers, a device that gives up: the user's to mend, so no stack of calls."""
    import datasets

    datasets.Dataset.from_dict({"image": [b""], "label": [0.5]}).save_to_disk(str(tmp_path / "float"))
    common = ("--generator", generator, "--cache-dir", tmp_path / "cache")
    fails(run("protect", tmp_path / "float", tmp_path / "out", *common), "labels must be whole numbers", "0.5")

    def give_up(*arguments: object, **options: object) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(NoiseGenerator, "make_noise", give_up)
    message = "CUDA out of memory. Tried to allocate 2 GiB\nand much more"
    fails(run("protect", photos, tmp_path / "out", *common), "--device", "out of memory", "--device cpu")
    message = "the size of tensor a must match"
    assert isinstance(run("protect", photos, tmp_path / "out", *common).exception, RuntimeError)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "cache").exists()


def test_warnings_are_one_line(photos: Path, tmp_path: Path):
    """rho_a above rho_u is allowed and worth a word, not a file name and a line number of ours."""
    options = ("--rho-u", "2/255", "--rho-a", "4/255", "--train-steps", 1, "--steps-u", 1, "--steps-a", 1,
               "--num-samples", 1, "--surrogate", "convnet", "--width", 4, "--batch-size", 2)  # fmt: skip
    result = run("fit", photos, tmp_path / "mine", *options)
    assert result.exit_code == 0, result.output
    assert any(line.startswith("warning: rho_a") for line in result.stderr.splitlines())


def half_bright(folder: Path, count: int, seed: int, side: int = 12) -> Path:
    """Photographs of two classes, ``count`` of each."""
    rng = np.random.default_rng(seed)
    for label, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for k in range(count):
            pixels = rng.integers(0, 120, (side, side, 3), dtype=np.uint8)
            pixels[:, side // 2 * label : side // 2 * (label + 1)] += 90
            Image.fromarray(pixels).save(folder / name / f"{k:02}.png")
    return folder


def test_evaluate_judges_a_copy_and_goes_on(tmp_path: Path):
    """The owner's question in one command: the verdict on screen, the report in a folder, nothing done twice."""
    photos, test = half_bright(tmp_path / "photos", 12, 0), half_bright(tmp_path / "test", 6, 1)
    generator = save_generator(tmp_path / "generator", 2, size=12)
    command = (
        "evaluate", photos, tmp_path / "report", "--test", test, "--generator", generator, "--network", "convnet",
        "--width", 4, "--seeds", "0", "--countermeasures", "none,greyscale+jpeg-50,protected-classes-0,1+cutout",
        "--copy-name", "mine",
        "--cache-dir", tmp_path / "cache",
    )  # fmt: skip
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert str(tmp_path / "report" / "report.html") in result.stdout
    records = json.loads((tmp_path / "report" / "report.json").read_text())["records"]
    assert [(r["copy"], r["countermeasure"]) for r in records] == [
        ("clean", "none"), ("mine", "greyscale+jpeg-50"), ("mine", "none"), ("mine", "protected-classes-0,1+cutout"),
    ]  # fmt: skip
    assert {r["dataset"] for r in records} == {"photos"}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "report" / "runs").iterdir()}
    assert run(*command).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "report" / "runs").iterdir()} == before


def test_evaluate_judges_what_protect_wrote(tmp_path: Path):
    """What is judged must be the folder that is published, whoever made it."""
    photos, test = half_bright(tmp_path / "photos", 4, 0), half_bright(tmp_path / "test", 2, 1)
    generator = save_generator(tmp_path / "generator", 2, size=12)
    run("protect", photos, tmp_path / "published", "--generator", generator, "--cache-dir", tmp_path / "cache")
    result = run("evaluate", photos, tmp_path / "report", "--test", test, "--protected", tmp_path / "published",
                 "--network", "convnet", "--width", 4, "--seeds", 0)  # fmt: skip
    assert result.exit_code == 0, result.output
    noise = json.loads((tmp_path / "report" / "report.json").read_text())["noise"]["protected"]
    assert 0 < noise["linf"] <= 8


@pytest.mark.parametrize("size", [(), ("--train-size", 8)])
def test_evaluate_leaves_out_damaged_files_and_says_so(tmp_path: Path, size):
    """One cut photograph of thousands ended the evaluation of a copy that protect had written without it."""
    photos, test = half_bright(tmp_path / "photos", 5, 0), half_bright(tmp_path / "test", 3, 1)
    generator, published = save_generator(tmp_path / "generator", 2, size=12), tmp_path / "published"
    cut, empty, lost = photos / "cat" / "01.png", published / "dog" / "03.png", test / "dog" / "02.png"
    cut.write_bytes(cut.read_bytes()[:100])
    protect = ("protect", photos, published, "--generator", generator, "--cache-dir", tmp_path / "cache")
    assert run(*protect).exit_code == 1
    for file in (empty, lost):
        file.write_bytes(b"")
    common = ("--protected", published, "--test", test, "--network", "convnet", "--width", 4, "--seeds", 0, *size)
    result = run("evaluate", photos, tmp_path / "report", *common)
    assert result.exit_code == 1, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: left out: ")]
    assert [str(file) in line for file, line in zip((cut, empty, lost), lines, strict=True)] == [True] * 3
    assert "do not decode: 3" in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    # the same as if nobody had ever had these files
    for file in (cut, photos / "dog" / "03.png", empty, lost):
        file.unlink()
    assert run("evaluate", photos, tmp_path / "without", *common).exit_code == 0
    one, other = (
        json.loads((tmp_path / name / "report.json").read_text())["records"] for name in ("report", "without")
    )
    for name in ("data", "copy_sha256", "train_images", "test_images", "test_accuracy", "curve"):
        assert [record[name] for record in one] == [record[name] for record in other]
    assert (one[0]["train_images"], one[0]["test_images"], one[0]["left_out"]) == (8, 5, 3)
    assert "left_out" not in other[0]


def test_evaluate_at_the_trainers_sizes(tmp_path: Path):
    """Photographs of mixed sizes, published as JPEG: what an owner publishes is judged at the sizes people train at."""
    photos, test = half_bright(tmp_path / "photos", 4, 0, side=24), half_bright(tmp_path / "test", 2, 1, side=20)
    large = sorted(photos.rglob("*.png"))[0]
    Image.open(large).resize((40, 30)).save(large)
    for file in sorted(photos.rglob("*.png")):
        copy = tmp_path / "published" / file.relative_to(photos).with_suffix(".jpg")
        copy.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).convert("RGB").save(copy, quality=98, subsampling=0)
    common = ("evaluate", photos, tmp_path / "report", "--test", test, "--protected", tmp_path / "published",
              "--network", "convnet", "--width", 4, "--seeds", 0)  # fmt: skip
    fails(run(*common), "images must have one size")
    fails(run(*common, "--train-size", "8px"), "--train-size", "'8px'")
    fails(run(*common, "--train-size", ""), "--train-size")
    fails(run(*common, "--crop", "random-resized"), "--train-size 64")
    result = run(*common, "--train-size", "8", "--crop", "random-resized")
    assert result.exit_code == 0, result.output
    assert "8 px (random-resized)" in result.stdout
    records = json.loads((tmp_path / "report" / "report.json").read_text())["records"]
    assert [(r["copy"], r["train_size"], r["crop"]) for r in records] == [
        (copy, 8, "random-resized") for copy in ("clean", "protected")
    ]


def test_evaluate_from_pretrained_weights(tmp_path: Path):
    """The trainer of today in one command; a wrong file is one line, before any training."""
    timm = pytest.importorskip("timm")
    photos, test = half_bright(tmp_path / "photos", 4, 0, side=32), half_bright(tmp_path / "test", 2, 1, side=32)
    generator = save_generator(tmp_path / "generator", 2, size=12)
    run("protect", photos, tmp_path / "published", "--generator", generator, "--cache-dir", tmp_path / "cache")
    weights = tmp_path / "theirs.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), weights)
    common = ("evaluate", photos, tmp_path / "report", "--test", test, "--protected", tmp_path / "published",
              "--train-size", 32, "--seeds", 0, "--victims", "probe")  # fmt: skip
    fails(run(*common, "--network", "timm/test_resnet"), "--pretrained")
    fails(run(*common, "--network", "timm/test_resnett", "--pretrained", weights), "'timm/test_resnet'")
    fails(run(*common, "--network", "timm/test_vit", "--pretrained", weights), "another architecture", "of its")
    assert not (tmp_path / "report").exists()
    result = run(*common, "--network", "timm/test_resnet", "--pretrained", weights)
    assert result.exit_code == 0, result.output
    for words in ("timm/test_resnet", "theirs.safetensors#", "linear layer"):
        assert words in result.stdout
    assert str(weights) not in (tmp_path / "report" / "report.json").read_text()


def test_the_size_of_the_noise(tmp_path: Path):
    """Who asks for noise at full size and gets it enlarged, or the other way round, publishes something else."""
    photos = half_bright(tmp_path / "photos", 2, 0, side=36)
    generator = save_generator(tmp_path / "generator", 2, size=12)
    common = ("--generator", generator, "--cache-dir", tmp_path / "cache", "--seed", 0, "--format", "noise")
    steps = {}
    for size in (None, "full", "12", "36"):
        extra = () if size is None else ("--noise-size", size)
        result = run("protect", photos, tmp_path / f"noise-{size}", *common, *extra)
        assert result.exit_code == 0, result.output
        files = sorted((tmp_path / f"noise-{size}").rglob("*.safetensors"))
        noise = torch.stack([load_file(file)["noise"].int() for file in files])
        steps[size] = float((noise[..., 1:] - noise[..., :-1]).abs().float().mean())
    assert steps[None] == steps["12"] < steps["full"] / 2
    assert steps["full"] == steps["36"]
    fails(run("protect", photos, tmp_path / "wrong", *common, "--noise-size", "half"), "--noise-size", "'half'")


def test_mistakes_in_evaluate_are_one_line(tmp_path: Path):
    """Found in the first second, not after an hour of training."""
    photos, test = half_bright(tmp_path / "photos", 3, 0), half_bright(tmp_path / "test", 2, 1)
    common = ("evaluate", photos, tmp_path / "report", "--test", test, "--network", "convnet")
    fails(run(*common), "--generator or --protected")
    fails(run(*common, "--generator", "sem-digitz"), "sem-digits")
    fails(run(*common, "--protected", photos, "--countermeasures", "grayscale"), "greyscale")
    fails(run(*common, "--protected", photos, "--countermeasures", "none,,mean"), "--countermeasures")
    fails(run(*common, "--protected", photos, "--seeds", ""), "seeds")
    fails(run(*common, "--protected", photos, "--seeds", "one"), "--seeds")
    fails(run(*common, "--protected", photos, "--victims", "adversarial-2"), "8/255")
    fails(run(*common, "--protected", photos, "--trainers", "quick", "--protocol", "paper"), "protocol='quick' alone")
    fails(run(*common, "--protected", photos, "--trainers", "standard,gpeg-75"), "gpeg-75")
    fails(run(*common, "--protected", photos, "--trainers", "owners"), "did you mean 'owner'")
    fails(run(*common[:3], "--test", photos, "--protected", photos), "shares 6 of its 6 images")
    assert not (tmp_path / "report").exists()


def test_list_shows_what_is_bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The names that --generator takes, those on the Hub included, and what each was measured to protect."""
    from semtransforms.generators import names

    folder = save_generator(tmp_path / "bundled" / "em-shapes", 3)
    record = json.loads((folder / "config.json").read_text())
    record["card"] = {"data": "shapes", "measured": [{"trainer": "standard", "clean": [90], "protected": [30, 32]}]}
    (folder / "config.json").write_text(json.dumps(record))
    monkeypatch.setattr(names, "_BUNDLED", (tmp_path / "bundled",))
    monkeypatch.setattr(names, "TABLE", {"far": names.OnHub("org/far", "0" * 40), "em-2": names.StandIn("em-shapes"),
                                       "lost": names.StandIn("not-there")})  # fmt: skip
    monkeypatch.setenv("COLUMNS", "300")
    heading, *rows = run("list").stdout.splitlines()
    assert heading.split()[:3] == ["name", "method", "data"]
    kib = f"{(folder / 'model.safetensors').stat().st_size / 1024:.0f}"
    facts = ["sem", "shapes", "3", "8x8", "convnet", "8/255", "4/255", kib]
    measured = ["standard", "31.0", "±", "1.4", "(n=2)", "(90.0)"]
    missing = ["greyscale,", "jpeg-75,", "shrink,", "random-resized,", "probe,", "fine-tune"]
    assert [row.split() for row in rows] == [
        ["em-2", *facts, "em-shapes", *measured, *missing],
        ["em-shapes", *facts, "bundled", *measured, *missing],
        ["far", *"????????", f"org/far@{'0' * 40}", "not", "measured", "all"],
    ]


@pytest.mark.parametrize("columns", [None, "100", "60"])
def test_list_fits_the_terminal_and_loses_nothing(columns: str | None, monkeypatch: pytest.MonkeyPatch):
    """A table of 200 columns is broken where the terminal ends, and nobody reads which figure is whose."""
    monkeypatch.setenv("COLUMNS", "1000")
    heading, *wide = run("list").stdout.splitlines()
    if columns is None:
        monkeypatch.delenv("COLUMNS")
    else:
        monkeypatch.setenv("COLUMNS", columns)
    narrow = run("list").stdout
    assert len(heading) > 150
    assert max(map(len, narrow.splitlines())) <= int(columns or 100)
    words = " ".join(narrow.replace(";", " ").split())
    facts = [fact for line in wide for fact in re.split(" {2,}", line)]
    assert [fact for fact in facts if " ".join(fact.replace(";", " ").split()) not in words] == []
    assert all(name in words for name in re.split(" {2,}", heading)[1:])
    assert [line for line in narrow.splitlines() if not line.startswith(" ")] == [line.split()[0] for line in wide]


def test_hidden_files_are_counted(photos: Path, generator: Path, tmp_path: Path):
    """Pictures that are not published and not named: an owner counts what is there, and finds fewer."""
    (photos / "cat" / ".picasaoriginals").mkdir()
    for place in ("cat/.picasaoriginals/1.png", "cat/.hidden.png"):
        (photos / place).write_bytes((photos / "cat" / "1.png").read_bytes())
    (photos / "dog" / "@eaDir").mkdir()
    (photos / "dog" / "@eaDir" / "thumb.jpg").write_bytes(b"x")
    result = run("protect", photos, tmp_path / "out", "--generator", generator, "--cache-dir", tmp_path / "p")
    assert result.exit_code == 0, result.output
    assert "4 images protected" in result.stdout
    assert f"3 hidden files were not read, {photos / 'cat' / '.hidden.png'} first" in result.stdout
    lines = look.look(open_source(str(photos)), 8).describe()
    assert any(line.startswith("Left out: hidden files, 3 in all") and "thumb.jpg" in line for line in lines)
    assert not any("no class" in line for line in lines)


def test_show_draws_the_noise_that_protect_adds(photos: Path, generator: Path, tmp_path: Path):
    """A picture of other noise than the protected copy's would mislead about its visibility."""
    out = tmp_path / "picture.png"
    assert run("show", photos, "--generator", generator, "--out", out, "-n", 3, "--seed", 1).exit_code == 0
    assert Image.open(out).height > 3 * PANEL
    assert run("show", photos, "--generator", generator, "--out", out, "--index", 2, "--seed", 1).exit_code == 0
    picture = np.asarray(Image.open(out)).astype(int)
    run("protect", photos, tmp_path / "out", "--generator", generator, "--cache-dir", tmp_path / "cache", "--seed", 1)
    clean, protected = (
        np.asarray(Image.open(root / "dog" / "1.png")).astype(int) for root in (photos, tmp_path / "out")
    )
    noise = np.clip(128 + NOISE_GAIN * (protected - clean), 0, 255)
    for panel in (clean, noise, protected):
        large = panel.repeat(PANEL // 8, axis=0).repeat(PANEL // 8, axis=1)
        height, width = picture.shape[0] - PANEL + 1, picture.shape[1] - PANEL + 1
        corners = np.argwhere((picture[:height, :width] == large[0, 0]).all(-1))
        assert any((picture[y : y + PANEL, x : x + PANEL] == large).all() for y, x in corners)


def test_no_noise_is_mid_grey_and_sizes_may_differ():
    """Noise x16 is read against grey: black would hide half of it."""
    images = [torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(3, 200, 300, dtype=torch.uint8)]
    picture = side_by_side(images, [image.to(torch.int8) for image in images], ["small", "large"])
    grey = (np.asarray(picture) == 128).all(-1).sum()
    assert grey >= PANEL * PANEL + PANEL * (PANEL * 2 // 3)


def test_demo_protects_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The first command a new user runs: a table for people, one JSON object for machines, a picture for both."""
    pytest.importorskip("sklearn")
    from dataclasses import replace

    from semtransforms.cli import digits

    save_generator(tmp_path / "untrained", 10, 32)
    monkeypatch.setattr(digits, "GENERATOR", str(tmp_path / "untrained"))
    monkeypatch.setattr(digits, "VICTIM", replace(digits.VICTIM, width=4, train_steps=2))
    images, labels = digits.load_digits_images()
    monkeypatch.setattr(digits, "load_digits_images", lambda: (images[:200], labels[:200]))
    result = run("demo", "--json", "--out", tmp_path / "demo")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["rho_u"] == "8/255"
    assert report["train_images"] + report["test_images"] == 200
    assert set(report["victims"]) == {"clean", "protected"}
    assert 0 <= report["victims"]["clean"]["test_accuracy"] <= 1
    assert Image.open(report["picture"]).mode == "RGB"
    assert str(tmp_path / "demo") in report["picture"]
    table = run("demo", "--out", tmp_path / "demo").stdout
    assert "test accuracy" in table
    assert "rho_u = 8/255" in table


def test_digits_are_the_same_bytes_everywhere():
    """The bundled generator is fitted on these bytes and this split; others would make its figures worthless."""
    sklearn = pytest.importorskip("sklearn.datasets")
    from semtransforms.cli import digits

    images, labels = digits.load_digits_images()
    assert (images.shape, images.dtype, labels.dtype) == ((1797, 3, 32, 32), torch.uint8, torch.int64)
    scans = sklearn.load_digits().images
    # bilinear enlargement keeps what lies inside: the mean of an image's middle, within a few levels
    middle = images[:, 0, 8:24, 8:24].double().mean((1, 2)).numpy()
    assert np.abs(middle - scans[:, 2:6, 2:6].mean((1, 2)) * 255 / 16).max() < 20
    train, test = digits.split_digits(labels)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(1797))
    assert (len(train), len(test)) == (1402, 395)
    counts = np.bincount(labels.numpy())
    assert np.abs(np.bincount(labels[test].numpy()) - counts * 2 / 9).max() < 2


def test_demo_without_scikit_learn_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The plain installation has no scikit-learn; the remedy is one pip command."""
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    fails(run("demo", "--json", "--out", tmp_path), "semtransforms[demo]")


def test_interrupt_says_how_to_go_on(photos: Path, generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """After Ctrl-C the user must know that nothing is lost; the files written so far stay finished."""
    from semtransforms.protect import publish

    monkeypatch.setattr(publish, "BATCH_IMAGES", 2)
    common = ("protect", photos, tmp_path / "out", "--generator", generator, "--cache-dir", tmp_path / "cache")
    with monkeypatch.context() as patch:
        make, calls = NoiseGenerator.make_noise, []

        def interrupted(*arguments: object, **options: object) -> object:
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return make(*arguments, **options)

        patch.setattr(NoiseGenerator, "make_noise", interrupted)
        result = run(*common)
    assert result.exit_code == 130
    assert "the same command goes on" in result.stderr
    assert "2 images protected, 2 were finished before" in run(*common).stdout


def test_a_store_that_is_damaged_twice_is_told_in_a_line(capsys):
    """Deleted while it was read again, its error stood behind a stack of calls."""
    with pytest.raises(typer.Exit) as end, one_line_errors():
        raise DamagedStoreError("shard 2 is missing. Build the store again.")
    assert end.value.exit_code == 2
    assert capsys.readouterr().err == "error: shard 2 is missing. Build the store again.\n"

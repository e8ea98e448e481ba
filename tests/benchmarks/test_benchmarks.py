"""The benchmarks: floors by hand, a reference path that is Algorithm 1, and figures that come from what was run."""

import io
import json
import os
import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

# benchmarks/ and examples/ are no parts of the package
sys.path.append(str(Path(__file__).parents[2]))

from benchmarks import __main__ as command
from benchmarks import floors, jobs, photographs, reference
from benchmarks.joins import CONFIG, curriculum, luminance, stratified, worst
from benchmarks.warm import warm_starts
from work_counter import counted

from semtransforms import REM, SEM, VictimConfig
from semtransforms.core.config import PGDConfig, Transformation
from semtransforms.core.keys import index_keys
from semtransforms.core.models import build_model
from semtransforms.evaluation.victims import paper
from semtransforms.generators import fitting
from semtransforms.noise import pgd as loop
from semtransforms.noise.pgd import pgd
from semtransforms.views.eot import build_eot


def test_passes_of_the_papers_setting():
    """Counted by hand: floors that are wrong make slow code look fast."""
    assert floors.fit_passes(SEM).total == 5000 * (10 * 5 + 10 + 1) * 128 == 39_040_000
    assert floors.noise_passes(SEM, 50_000).total == 50_000 * 10 * 5 == 2_500_000
    assert floors.victim_passes(paper(rho_a=4 / 255)).total == 40_000 * 11 * 128 == 56_320_000
    assert floors.victim_passes(VictimConfig(train_steps=10)).total == 10 * 128
    assert floors.fit_passes(REM).total == 5000 * (10 * 5 * 11 + 10 + 1) * 128 == 359_040_000


def test_operations_of_resnet18():
    """Its published 0.56 G multiplications at 32 px, two operations each; to images and to weights as much again."""
    counted = floors.count_operations("resnet18")
    assert 1.10e9 < counted.forward < 1.12e9
    assert counted.to_images == counted.to_weights == counted.forward
    assert counted.of(floors.Passes(gradient=10, update=1)) == 11 * 2 * counted.forward + counted.forward
    # the issue of speed: 87 PFLOP, 111 s at 790 TFLOP/s
    assert 86e15 < counted.of(floors.fit_passes(SEM)) < 89e15


class Linear(nn.Module):
    """A network whose gradient has the same signs everywhere: both paths must end in the same corner."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(0.01 * torch.randn(3 * 32 * 32, 2, generator=generator))

    def forward(self, images):
        return images.flatten(1) @ self.weight


def test_the_reference_path_is_the_same_algorithm():
    """Timed against another computation, the ratio would mean nothing."""
    network, generator = Linear(), torch.Generator().manual_seed(1)
    images, labels = torch.rand(4, 3, 32, 32, generator=generator), torch.arange(4) % 2
    config = replace(SEM, eot=(), steps_u=20, num_samples=2)
    theirs = reference.TRANSFORM
    reference.TRANSFORM = lambda image: image
    try:
        plain = reference.defensive_noise(network, images, labels, config)
    finally:
        reference.TRANSFORM = theirs
    ours = pgd(network, images, labels, config.defense, keys=index_keys(torch.arange(4), 0))
    # 20 steps of 1.6/255 reach the corner of the ball from any start
    torch.testing.assert_close(plain, ours, atol=1e-6, rtol=0)
    worst = reference.adversary(network, images, labels, 4 / 255, 4 / 255, 10)
    climbed = pgd(network, images, labels, replace(config.attack, alpha=4 / 255), keys=index_keys(torch.arange(4), 0),
                  maximise=True)  # fmt: skip
    inside = (images > 4 / 255) & (images < 1 - 4 / 255)
    torch.testing.assert_close(worst[inside], climbed[inside], atol=1e-6, rtol=0)


def test_the_reference_path_makes_every_pass():
    """One that skips the attack, a sample or the update is faster, and makes the engine look slow; or the reverse."""
    config = replace(SEM, steps_u=3, steps_a=2, num_samples=2, num_classes=10)
    network = build_model("convnet", num_classes=10, image_size=32, width=4)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    images, labels = torch.rand(4, 3, 32, 32), torch.arange(4)
    victim = VictimConfig(rho_a=4 / 255, steps_a=3)
    for work_of, passes in (
        (lambda: reference.defensive_noise(network, images, labels, config), floors.noise_passes(config, 4)),
        (lambda: reference.fit_step(network, optimizer, images, labels, config), floors.fit_passes(config, 1, 4)),
        (
            lambda: reference.victim_step(network, optimizer, images, labels, victim.rho_a, victim.steps_a),
            floors.victim_passes(victim, 1, 4),
        ),
    ):
        with counted() as work:
            work_of()
        assert sum(work.images_in) == passes.total
        assert work.weight_gradients == 6 * (passes.update > 0)


def test_the_reference_path_takes_the_same_step(monkeypatch):
    """On a network whose gradient depends on the point, from the same start and without draws: the same signs."""
    monkeypatch.setattr(reference, "TRANSFORM", lambda image: image)
    monkeypatch.setattr(torch, "rand_like", lambda images: torch.full_like(images, 0.5))
    monkeypatch.setattr(
        "semtransforms.noise.pgd.keyed_uniform", lambda keys, shape: torch.full((len(keys), *shape), 0.5)
    )
    torch.manual_seed(0)
    network = build_model("convnet", num_classes=10, image_size=32, width=4)
    images, labels = 0.2 + 0.6 * torch.rand(4, 3, 32, 32), torch.arange(4)
    config = replace(SEM, steps_u=1, num_samples=2)
    keys = index_keys(torch.arange(4), 0)
    plain = reference.defensive_noise(network, images, labels, config)
    ours = pgd(network, images, labels, config.defense, keys=keys)
    assert (plain - ours).abs().gt(1e-6).float().mean() < 0.01  # gradients near 0 may have either sign
    worst = reference.adversary(network, images, labels, 4 / 255, 1 / 255, 1)
    climbed = pgd(network, images, labels, replace(config.attack, alpha=1 / 255, steps=1), keys=keys, maximise=True)
    assert (worst - climbed).abs().gt(1e-6).float().mean() < 0.01


def printed_here(program, *arguments):
    """What a program prints, run in this process: another one imports torch for seconds."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.setattr("sys.argv", ["-c", *arguments])
        exec(program, {})
    return float(printed.getvalue())


def test_every_job_is_timed_and_written(tmp_path, monkeypatch, capsys):
    """A figure must come from a run: repeats, pairs and the floor stand in the record."""
    monkeypatch.setattr(jobs, "_printed", printed_here)
    monkeypatch.setattr(jobs, "STORED", 64)
    monkeypatch.setattr(command, "EPOCH", 20)
    monkeypatch.setattr(
        "sys.argv",
        ["benchmarks", "--quick", "--repeats", "2", "--batch-size", "2", "--only", "store", "--json",
         str(tmp_path / "figures.json")],
    )  # fmt: skip
    command.main()
    written = json.loads((tmp_path / "figures.json").read_text())
    assert [len(job["ours"]) for job in written["jobs"]] == [2]
    assert written["about"]["operations_per_second"] > 1e8
    assert "| open a store of 64 images |" in capsys.readouterr().out
    device = torch.device("cpu")
    for job in jobs.engine_jobs("convnet", 1, device):
        record = command.measure(job, 1)
        assert min(record["ours"] + record["baseline"]) > 0
        assert record["ratios"] == [record["ours"][0] / record["baseline"][0]]
        assert job.passes.total > 0


@pytest.mark.processes
def test_a_program_runs_in_a_process_of_its_own():
    """What this process has imported and allocated would be missing from the time and the memory of opening a store."""
    program = "import os, sys; print(float(sys.argv[1]) if os.getppid() == int(sys.argv[2]) else -1)"
    assert jobs._printed(program, "2.5", str(os.getpid())) == 2.5


def test_a_photograph_costs_what_lies_between_two_files():
    """Two processes write two files at about the same time: the time between those says nothing of either."""
    seen = photographs.Seen(
        9.0, [(0.0, 5.0), (1.0, 6.0), (2.0, 7.5), (3.0, 9.0)], {7: 300.4, 8: 500.0, 9: 600.0}, {7: 1, 8: 2, 9: 3}
    )
    assert photographs.row("png", 2, seen, [1.0, 1.1, 3.0, 3.1]) == (
        "| JPEG to PNG | 2 | 1 (1–1, n=2) | 1.00 | 9 | 300 (1); 600 (3) |"
    )
    alone = photographs.row("jpeg", 0, seen, [1.0, 1.5, 3.0])
    assert alone == "| JPEG to JPEG | 0 | 1 (0.5–1.5, n=2) | 1.50 | 9 | 300 (1) |"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.processes
def test_a_command_is_seen_with_its_memory():
    """A peak that the looks miss would pass for lean."""
    seen = photographs.watch([sys.executable, "-c", "import time; held = b'x' * (200 << 20); time.sleep(0.5)"])
    assert 0.5 <= seen.seconds < 60
    assert len(seen.resident) == 1
    assert 200 < max(seen.anonymous.values()) <= max(seen.resident.values()) < 300
    with pytest.raises(SystemExit):
        photographs.watch([sys.executable, "-c", "raise SystemExit(3)"])


def test_photographs_are_enlarged_under_their_classes(tmp_path, monkeypatch):
    """A thousand names of few photographs must be a thousand to protect, in the size that is asked about."""
    monkeypatch.setattr(photographs, "SIZE", (40, 30))
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        path = tmp_path / "small" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 6, 3), len(name), np.uint8)).save(path)
    photographs.make_photographs(tmp_path / "small", tmp_path / "large", 7)
    made = sorted((tmp_path / "large").glob("*/*.jpg"))
    assert len(made) == 7
    assert {path.parent.name for path in made} == {"cat", "dog"}
    assert {Image.open(path).size for path in made} == {(40, 30)}


def test_zero_repeats_is_an_error(monkeypatch, capsys):
    """A table without figures would look like one that was measured."""
    monkeypatch.setattr("sys.argv", ["benchmarks", "--repeats", "0"])
    with pytest.raises(SystemExit):
        command.main()
    assert "must be at least 1, got 0" in capsys.readouterr().err


def test_a_warm_start_is_where_the_last_visit_ended(monkeypatch):
    """With noise steps of no length noise stays where it starts: after each visit it must be that of the first."""
    images, labels = torch.full((8, 3, 8, 8), 128, dtype=torch.uint8), torch.arange(8) % 2
    config = replace(
        SEM, surrogate="convnet", width=2, batch_size=4, train_steps=6, steps_u=1, alpha_u=0, steps_a=1, num_samples=1
    )
    made, rounded = [], fitting.quantize

    def watched(delta, rho):
        made.append(rounded(delta, rho))
        return made[-1]

    monkeypatch.setattr(fitting, "quantize", watched)
    first = fitting.pgd
    for warm in (False, True):
        made.clear()
        with warm_starts() if warm else nullcontext():
            fitting.fit_generator((images, labels), config, progress=False)
        visits = [noise for batch in made for noise in batch]
        distinct = {tuple(noise.flatten().tolist()) for noise in visits}
        # 6 batches of 4 images: 3 visits of each of 8 images
        assert (len(visits), len(distinct)) == (24, 8 if warm else 24)
    assert fitting.pgd is first


class Colour(nn.Module):
    """Class 0 is grey, and keeps what it is shown."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def forward(self, images):
        self.shown.append(images.detach())
        spread = 5 * (images[:, 0] - images[:, 1]).square().mean((1, 2))
        return torch.stack([-spread, spread], 1)


def joined(way, label):
    """The gradient of 20 images through two views each, of which half are grey; and which views were."""
    images = torch.rand(20, 3, 8, 8, generator=torch.manual_seed(0))
    half = {"members": [{"name": "greyscale"}], "probabilities": [0.5]}
    t, config, network = build_eot([Transformation("one-of", half)]), PGDConfig(1, 1, 1, num_samples=2), Colour()
    labels, keys = torch.full((20,), label), index_keys(torch.arange(20), 0)
    with way():
        gradient = loop.mean_gradient(network, images, labels, config, keys, t, None, {})
    views = torch.cat([shown for shown in network.shown if len(shown) > 1])  # one image is sent to see how many fit
    return gradient, ((views[:, 0] - views[:, 1]).abs().amax((1, 2)) < 1e-6).view(2, 20)


def test_stratified_draws_take_a_change_once():
    """Two draws that know nothing of each other would be compared with the mean as if they did."""
    assert joined(stratified, 0)[1].sum(0).tolist() == [1] * 20
    assert set(joined(nullcontext, 0)[1].sum(0).tolist()) == {0, 1, 2}


def test_the_worst_sample_decides_alone():
    """Under label 1 a grey view has the larger loss, and no gradient: the other sample's must not come through."""
    gradient, grey = joined(worst, 1)
    some = grey.any(0)
    assert 10 <= int(some.sum()) < 20
    assert gradient[some].abs().max() == 0
    assert gradient[~some].abs().amax((1, 2, 3)).min() > 0


def test_luminance_noise_moves_the_three_colours_alike():
    """A step of each colour's own would be the usual noise under another name."""
    gradient = joined(luminance, 0)[0]
    np.testing.assert_allclose(gradient, joined(nullcontext, 0)[0].mean(1, keepdim=True).expand_as(gradient), atol=1e-7)
    images, labels = torch.rand(4, 3, 8, 8, generator=torch.manual_seed(0)), torch.zeros(4, dtype=torch.int64)
    attack, keys = PGDConfig(2 / 255, 1 / 255, 2), index_keys(torch.arange(4), 0)
    usual = loop.perturb_view(Colour(), images, labels, attack, keys, None)
    with luminance():  # a weaker adversary of the surrogate would be another change
        assert torch.equal(loop.perturb_view(Colour(), images, labels, attack, keys, None), usual)


def test_stratified_draws_need_the_samples_together():
    """In parts, other images' draws would be taken for an image's own."""
    images, labels = torch.rand(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64)
    t, config = build_eot([Transformation("flip")]), PGDConfig(1, 1, 1, num_samples=2)
    with stratified(), pytest.raises(ValueError, match=r"in parts \(3 of 8\)"):
        loop.mean_gradient(
            Colour(), images, labels, config, index_keys(torch.arange(4), 0), t, None, {images.shape[1:]: 3}
        )


def test_a_curriculum_widens_t_after_a_third(monkeypatch):
    """The wide T all along would be compared with itself."""
    seen, step = [], fitting.train_step

    def watched(*arguments, **options):
        seen.append(len(options["eot"].members))
        return step(*arguments, **options)

    monkeypatch.setattr(fitting, "train_step", watched)
    images, labels = torch.full((8, 3, 16, 16), 128, dtype=torch.uint8), torch.arange(8) % 2
    config = replace(CONFIG, width=2, batch_size=4, train_steps=6, steps_u=1, steps_a=1)
    with curriculum():
        fitting.fit_generator((images, labels), config, progress=False)
    assert seen == [2, 2, 4, 4, 4, 4]

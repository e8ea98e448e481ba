"""The report: figures and words against hand computation, the page against a parser and a browser."""

import base64
import html
import io
import itertools
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest

from semtransforms.evaluation.records import Record
from semtransforms.evaluation.report import EvaluationReport, curves
from semtransforms.evaluation.report.bounds import accuracy_bounds, share_bounds
from semtransforms.evaluation.report.summary import summarise
from semtransforms.evaluation.report.verdict import judge

STYLE = Path(curves.__file__).with_name("style.css").read_text(encoding="utf-8")
COLOURS = r"--(\w+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)"

VALUES = {
    "schema": 1, "data": "ab" * 32, "dataset": "letters", "train_images": 10_000, "test_images": 2_000, "classes": 10,
    "height": 32, "width": 32, "copy": "clean", "generator": None, "method": None, "rho_u": None,
    "copy_sha256": "cd" * 32, "guess_accuracy": 0.1, "victim": "standard", "network": "convnet", "train_steps": 1500,
    "rho_a": 0.0, "norm": "linf", "settings": "{}", "countermeasure": "none", "seed": 0, "test_accuracy": 0.75,
    "test_accuracy_plain": 0.75, "test_accuracy_processed": None, "peak_test_accuracy": 0.75, "peak_step": 1500,
    "robust_accuracy": None, "robust_rho": None, "train_accuracy": 0.9, "diverged": False, "stopped_step": None,
    "curve": [[750, 1.5, 0.5], [1500, 1.0, 0.75]], "seconds": 90.0, "passes": 192_000, "processor": "a processor",
    "threads": 2, "python": "3.11.7", "torch": "2.15.0", "semtransforms": "0.1.0",
}  # fmt: skip


def run(final=0.75, peak=None, **changes):
    """A record with these accuracies; the peak is the final one unless given."""
    peak = final if peak is None else peak
    return Record.from_dict(VALUES | {"test_accuracy": final, "peak_test_accuracy": peak} | changes)


def row_named(summary, victim="standard", countermeasure="none"):
    (row,) = (row for row in summary.rows if (row.trainer.victim, row.countermeasure) == (victim, countermeasure))
    return row


def verdict_on(*records, copy="sem"):
    return judge(summarise(records), copy)


def percents(text):
    """The figures in % that a text names, in order."""
    return [int(figure) for figure in re.findall(r"(\d+) %", text)]


def test_mean_and_deviation_by_hand():
    """20, 30 and 40 % have mean 30 and sample deviation 10 (8.2 would be the population's)."""
    summary = summarise([run(final, seed=k) for k, final in enumerate((0.2, 0.3, 0.4))])
    cell = summary.cells["clean", row_named(summary)]
    assert (cell.accuracy.mean, cell.accuracy.sd, cell.accuracy.n) == (pytest.approx(0.3), pytest.approx(0.1), 3)
    assert str(cell.accuracy) == "30.0 ± 10.0"
    assert str(summarise([run(0.2)]).cells["clean", row_named(summary)].accuracy) == "20.0"  # one run has no spread


@pytest.mark.parametrize(
    "other",
    [
        {"copy": "sem"},
        {"victim": "paper"},
        {"network": "resnet18"},
        {"train_steps": 600},
        {"rho_a": 2 / 255},
        {"countermeasure": "cutout"},
        {"stopped_step": 300},
    ],
)
def test_different_trainers_are_not_averaged(other):
    """A mean over two networks or two lengths of training is nobody's accuracy."""
    summary = summarise([run(0.8), run(0.4, **other)])
    assert sorted(cell.accuracy.mean for cell in summary.cells.values()) == [0.4, 0.8]


def test_a_diverged_run_is_counted_and_in_no_mean():
    """Its accuracy is near guessing and would pass for protection."""
    runs = [run(0.6), run(0.1, seed=1, diverged=True), run(0.1, seed=2, diverged=True)]
    report = EvaluationReport([*runs, run(0.1, copy="sem", diverged=True)])
    summary = summarise(report.records)
    cell = summary.cells["clean", row_named(summary)]
    assert (cell.runs, cell.diverged, cell.accuracy.mean, cell.accuracy.sd) == (3, 2, 0.6, None)
    (line,) = (line for line in report.to_markdown().splitlines() if line.startswith("| standard"))
    assert line.split(" | ")[2:] == [r"60.0 (n=1) \[60.0\], 2 of 3 diverged", "1 of 1 diverged |"]
    assert "1 of 1 diverged" in text_of(report.to_html())
    (verdict,) = report.verdict()
    assert verdict.startswith("sem: no verdict.")
    assert percents(verdict) == [10]  # guessing; no accuracy of a run that diverged
    assert "diverged" in verdict
    assert "1 of 1" in verdict


def test_share_learned_by_hand():
    """(31 - 10) / (80 - 10) = 30 %: best moments, the same trainer, no countermeasure on the clean side."""
    summary = summarise(
        [
            run(0.75, 0.80),
            run(0.40, 0.40, countermeasure="greyscale"),
            run(0.60, 0.60, victim="adversarial", rho_a=2 / 255),
            run(0.24, 0.31, copy="sem", countermeasure="greyscale"),
            run(0.05, 0.05, copy="sem"),
            run(0.35, 0.35, copy="sem", victim="adversarial", rho_a=2 / 255),
            run(0.35, 0.35, copy="sem", victim="another"),
        ]
    )
    assert summary.learned("sem", row_named(summary, countermeasure="greyscale")) == pytest.approx(0.3)
    assert summary.learned("sem", row_named(summary, "adversarial")) == pytest.approx(0.5)
    assert summary.learned("sem", row_named(summary)) == 0  # less than guessing is not less than nothing
    assert summary.learned("sem", row_named(summary, "another")) is None


def test_no_share_of_a_clean_copy_that_teaches_nothing():
    """2 points over guessing are chance: a share of them could be anything."""
    summary = summarise([run(0.12), run(0.11, copy="sem")])
    assert summary.learned("sem", row_named(summary)) is None
    assert judge(summary, "sem").word is None


def test_the_verdict_in_plain_words():
    """A figure of another trainer, copy or moment in the sentence that readers quote."""
    records = [run(0.75, seed=s) for s in (0, 1)]
    records += [run(0.24, 0.31, copy="sem", seed=s) for s in (0, 1)]
    records += [run(0.71, copy="sem", countermeasure="greyscale", seed=s) for s in (0, 1)]
    (verdict,) = EvaluationReport(records).verdict()
    assert verdict.startswith("sem: not protected.")
    assert "greyscale" in verdict
    # with nothing special: end, best moment, clean, guessing; with greyscale: end, and (71 - 10) / (75 - 10) = 0.938
    assert percents(verdict) == [24, 31, 75, 10, 71, 94]
    records += [run(0.72, countermeasure="greyscale", seed=0)]
    assert percents(EvaluationReport(records).verdict()[0]) == [24, 31, 75, 10, 71, 72, 94]


@pytest.mark.parametrize(
    ("final", "word"), [(0.09, "mostly"), (0.26, "mostly"), (0.27, "partly"), (0.42, "partly"), (0.43, "not")]
)
def test_the_word_follows_the_share(final, word):
    """With clean 75 and guessing 10, a quarter of the gain ends at 26.25 % and half of it at 42.5 %."""
    many = {"test_images": 10**7}
    assert verdict_on(run(0.75, **many), run(final, copy="sem", **many)).word == f"{word} protected"


def shares_allowed(right, clean_right, guess, images):
    """The shares of the lesson, of 0, 0.0001, ... 1, that scipy's Wilson intervals of both accuracies allow."""
    low, high = binomtest(right, images).proportion_ci(0.95, method="wilson")
    clean_low, clean_high = binomtest(clean_right, images).proportion_ci(0.95, method="wilson")
    got, gain, share = right / images - guess, clean_right / images - guess, np.arange(10_001) / 10_000
    apart = got - share * gain  # 0 for the true share; the errors of both accuracies add up as squares
    above = apart <= np.hypot(right / images - low, share * (clean_high - clean_right / images))
    below = -apart <= np.hypot(high - right / images, share * (clean_right / images - clean_low))
    return share[above & below]


@pytest.mark.parametrize(
    ("images", "right", "word"),
    [(40, 12, "mostly, partly or not"), (40, 22, "partly or not"), (400, 120, "mostly or partly"), (400, 220, "not")],
)
def test_few_test_images_forbid_a_sure_word(images, right, word):
    """Twelve of forty photographs named rightly may be luck: an owner would publish on the strength of it."""
    few, clean_right = {"test_images": images, "guess_accuracy": 0.25}, 6 * images // 10
    verdict = verdict_on(run(0.6, **few), run(right / images, copy="sem", **few))
    allowed = shares_allowed(right, clean_right, 0.25, images)
    said = [percents(each) for each in verdict.sentences if f"only {images:,} test images" in each]
    assert said == ([] if word == "not" else [[round(100 * allowed.min()), round(100 * allowed.max())]])
    assert verdict.word == f"{word} protected"
    assert str(verdict).startswith(f"sem: {word} protected.")


@pytest.mark.parametrize(("images", "right"), [(8, 0), (40, 12), (40, 40), (120, 31), (713, 535)])
def test_bounds_of_an_accuracy_are_wilsons(images, right):
    """Too narrow bounds make few photographs look like many."""
    expected = binomtest(right, images).proportion_ci(0.95, method="wilson")
    assert accuracy_bounds(right / images, images) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(
    ("images", "share", "clean"), [(40, 0.2, 0.7), (120, 0.2, 0.7), (120, 0.6, 0.9), (713, 0.4, 0.75)]
)
def test_bounds_hold_as_often_as_they_say(images, share, clean):
    """Bounds that hold less often than 95 times of 100 are no bounds; always is too wide, and no word would be left."""
    rng, guess = np.random.default_rng(0), 0.25
    draws = rng.binomial(images, [guess + share * (clean - guess), clean], (4_000, 2)) / images
    bounds = np.array([share_bounds(a, c, guess, images) for a, c in draws if c - guess >= 0.05])
    assert 0.94 <= np.mean((bounds[:, 0] <= share) & (share <= bounds[:, 1])) <= 0.985


def test_the_worst_row_decides_and_by_its_best_moment():
    """Nine harmless rows must not hide the tenth, nor a good end the moment before it."""
    harmless = [run(0.12, copy="sem", countermeasure=f"blur-{k}") for k in range(9)]
    assert verdict_on(run(0.75), *harmless).word == "mostly protected"
    assert verdict_on(run(0.75), *harmless, run(0.12, 0.7, copy="sem")).word == "not protected"


def test_the_largest_share_may_be_of_another_trainer():
    """60 of 75 points is less of the lesson than 50 of 52, though the accuracy is higher: both are said."""
    verdict = verdict_on(
        run(0.75),
        run(0.52, victim="adversarial", rho_a=4 / 255),
        run(0.20, copy="sem"),
        run(0.60, copy="sem", countermeasure="jpeg-10"),
        run(0.50, copy="sem", victim="adversarial", rho_a=4 / 255),
    )
    assert verdict.row.trainer.victim == "adversarial"
    assert verdict.learned == pytest.approx(40 / 42)  # (50 - 10) / (52 - 10)
    best, largest = (next(each for each in verdict.sentences if f"{share} %" in each) for share in (60, 95))
    assert "JPEG at quality 10" in best
    assert "4/255" in largest


def test_no_good_word_without_the_clean_copy():
    """A trainer that was never tried on clean data might learn nothing from it either, or everything from both."""
    alone = verdict_on(run(0.12, copy="sem"))
    assert alone.word is None
    assert "cannot be said" in str(alone)
    other = run(0.60, copy="sem", victim="another")
    half = verdict_on(run(0.75), run(0.12, copy="sem"), other)
    assert half.word is None
    assert "1 of 2" in str(half)
    # a failure is one whatever the others did
    assert verdict_on(run(0.75), run(0.70, copy="sem"), other).word == "not protected"


def test_clean_images_of_the_owner_are_no_failure_of_the_protection():
    """60 % from a fifth of the data in clean form says nothing about the four protected fifths."""
    clean, harmless = run(0.75), run(0.12, copy="sem")
    names = ("clean-share-20", "clean-only-20", "protected-classes-0,1", "clean-share-20+cutout")
    summary = summarise([clean, harmless, *(run(0.6, copy="sem", countermeasure=name) for name in names)])
    verdict = judge(summary, "sem")
    assert verdict.word == "mostly protected"
    assert "60 %" not in str(verdict)
    assert any(", ".join(names) in sentence for sentence in verdict.sentences)
    assert [summary.learned("sem", row) is None for row in summary.rows] == [False, True, True, True, True]


def test_few_seeds_are_said():
    """One seed tells nothing about the spread."""
    clean, once = [run(seed=s) for s in range(3)], run(0.2, copy="sem")
    thrice = [run(0.2, copy="sem", countermeasure="cutout", seed=s) for s in range(3)]
    assert "one seed" in str(verdict_on(*clean, once))
    assert "Of the 2 trainers, 1" in str(verdict_on(*clean, once, *thrice))
    assert "one seed" not in str(verdict_on(*clean, *thrice))
    assert "one seed" in str(verdict_on(clean[0], *thrice))  # the clean copy's
    probe = {"transfer": "probe", "pretrained": "in1k"}  # has the same features at every seed
    assert "one seed" not in str(verdict_on(run(**probe), run(0.2, copy="sem", **probe)))
    cut = {**probe, "countermeasure": "cutout"}
    assert "one seed" in str(verdict_on(run(**probe), run(0.2, copy="sem", **cut)))


def test_trainers_that_train_alike_are_told_apart():
    """Two networks "who do nothing special" in one sentence would be one trainer to the reader."""
    verdict = verdict_on(run(), run(0.2, copy="sem"), run(0.3, copy="sem", network="resnet18"))
    (first,) = (each for each in verdict.sentences if "30 %" in each)
    assert "resnet18" in first


def test_every_protected_copy_has_its_verdict():
    """A good copy must not speak for a bad one."""
    report = EvaluationReport([run(0.75), run(0.7, copy="em"), run(0.12, copy="sem")])
    assert [line.partition(".")[0] for line in report.verdict()] == ["em: not protected", "sem: mostly protected"]
    (nothing,) = EvaluationReport([run()]).verdict()
    assert "No protected copy" in nothing


def test_order_of_the_table():
    """Records come in the order of their file names; the reader expects clean, standard and none first."""
    records = [run(copy="sem", victim="adversarial-4", rho_a=4 / 255, countermeasure="cutout"), run(copy="em"),
               run(victim="adversarial-1", rho_a=1 / 255), run(victim="early", stopped_step=5),
               run(countermeasure="cutout"), run(victim="ball", rho_a=0.5, norm="l2"), run()]  # fmt: skip
    summary = summarise(records)
    assert summary.copies == ("clean", "sem", "em")
    assert [(row.trainer.victim, row.countermeasure) for row in summary.rows] == [
        ("standard", "none"), ("standard", "cutout"), ("adversarial-1", "none"), ("adversarial-4", "cutout"),
        ("ball", "none"), ("early", "none"),
    ]  # fmt: skip


def test_robust_accuracies_of_different_radii_stay_apart():
    """30 % at 2/255 and 10 % at 8/255 have no mean."""
    robust = [{"robust_accuracy": 0.3, "robust_rho": 2 / 255}, {"robust_accuracy": 0.1, "robust_rho": 8 / 255}]
    records = [run(seed=k, **values) for k, values in enumerate(robust)]
    lost = run(copy="sem", diverged=True, **robust[0])
    text = EvaluationReport([*records, lost, run(countermeasure="cutout")]).to_markdown()
    for radius, accuracy, beside in ((2, "30.0 (n=1)", "diverged"), (8, "10.0 (n=1)", "diverged")):
        table = text.partition(f"under PGD at {radius}/255")[2].partition("##")[0]
        rows = [line for line in table.splitlines() if line.startswith("| standard")]
        assert rows == [f"| standard (convnet, 1,500 updates) | none | {accuracy} | {beside} |"]


NASTY = "<script>alert('1')</script>\"&|`*x*`\n# y" + "w" * 90
SIZE = (6, 5)


def report_with(name):
    """A small report, every text in it made from ``name``."""
    changes = {key: f"{name} {key}" for key in ("dataset", "network", "processor", "python", "torch", "semtransforms")}
    records = [
        run(0.1 + 0.06 * k + seed / 100, copy=copy, victim=victim, countermeasure=countermeasure, seed=seed,
            diverged=k == 7 and seed == 0, curve=[[s, None, 0.3 + s / 2000 - k / 50] for s in (100, 400, 800)],
            rho_a=rho, robust_accuracy=rho and 0.1, robust_rho=rho or None, method=name, generator="ab" * 40, **changes)
        for k, (copy, (victim, rho), countermeasure) in enumerate(itertools.product(
            ("clean", f"{name} copy"), ((f"{name} victim", 0.0), (f"{name} adversary", 0.01)),
            ("none", f"{name} countermeasure", "greyscale")))
        for seed in (0, 1)
    ]  # fmt: skip
    pixels = torch.randint(0, 256, (4, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    noise = {f"{name} copy": {"psnr": 31.04, f"{name}_metric": 0.25, "ssim": None, "share_at_bound": 0.5}}
    return EvaluationReport(records, noise, {f"{name} title": pixels, "clean": 255 - pixels})


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_report_is_its_owners_alone_also_in_a_folder_that_is_there(tmp_path):
    """It shows originals and noise; others who may read the folder would subtract the noise."""
    folder = tmp_path / "report"
    folder.mkdir(mode=0o755)
    report_with("sem").save(folder)
    found = list(folder.rglob("*"))
    assert {path.name for path in found} >= {"report.json", "report.md", "report.html", "pictures"}
    assert {path.stat().st_mode & 0o077 for path in found} == {0}


def test_metrics_of_the_noise_in_words():
    """Keys are for programs; a metric that has no words yet must not be dropped."""
    report = report_with("new")
    for text in (report.to_markdown().replace("\\", "").replace(" |", ""), text_of(report.to_html())):
        for words in ("PSNR of the images changed, dB 31.0", "new metric 0.25", "SSIM (1: identical) not defined",
                      "values changed by the bound 50.0 %"):  # fmt: skip
            assert words in text.replace("\xa0", " ")


class Reader(HTMLParser):
    """Checks that tags nest, and collects what the page says and refers to."""

    VOID = ("meta", "img", "br", "link", "input", "hr")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.declared = [], [], [], None
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_decl(self, declaration):
        self.declared = declaration

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes), f"an attribute of {tag} is given twice"
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.texts.append(data)

    def all(self, tag):
        return [attributes for found, attributes in self.tags if found == tag]


def text_of(document):
    return " ".join(" ".join(Reader(document).texts).split())


def test_the_page_is_well_formed_and_accessible():
    """Browsers repair broken pages each in its own way, and a reader without eyes has only the markup."""
    reader = Reader(report_with("a & b").to_html())
    assert reader.declared == "DOCTYPE html"
    assert reader.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in reader.all("meta")
    assert len(reader.all("title")) == 1
    identifiers = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    links = [a["href"] for a in reader.all("a")]
    assert len(links) == 8  # every section of the page, each with its target
    assert {link.removeprefix("#") for link in links} <= set(identifiers)
    assert len(reader.all("table")) == len(reader.all("caption")) == 2 + 1 + 1  # accuracy, robust accuracy, noise
    assert all(a.get("scope") in ("col", "row") for a in reader.all("th"))
    assert all(a["alt"] for a in reader.all("img"))
    assert all("aria-label" in a or a.get("aria-hidden") == "true" for a in reader.all("svg"))


def test_names_are_escaped():
    """A victim or a countermeasure is named by a user: it must be read, never run."""
    reader = Reader(report_with(NASTY).to_html())
    assert {tag for tag, _ in reader.tags} & {"script", "iframe", "object", "embed", "link", "base", "form"} == set()
    assert not any(name.startswith("on") for _, attributes in reader.tags for name in attributes)
    text = " ".join(reader.texts)
    plain = Reader(report_with("name").to_html())
    shapes = [[(tag, list(attributes)) for tag, attributes in each.tags] for each in (reader, plain)]
    assert shapes[0] == shapes[1]  # a name adds no element and no attribute
    kinds = [
        "dataset",
        "copy",
        "victim",
        "adversary",
        "countermeasure",
        "network",
        "processor",
        "python",
        "torch",
        "semtransforms",
        "title",
    ]
    assert [kind for kind in kinds if f"{NASTY} {kind}" not in text] == []


def test_names_do_not_break_the_markdown():
    """A bar in a name would shift a row's figures into another column."""
    nasty, plain = (report_with(name).to_markdown() for name in (NASTY, "name"))
    assert len(nasty.splitlines()) == len(plain.splitlines())
    for one, other in zip(nasty.splitlines(), plain.splitlines(), strict=True):
        bars = [len(re.findall(r"(?<!\\)\|", line)) for line in (one, other)]
        assert bars[0] == bars[1]
    assert re.search(r"(?<!\\)[<`]", nasty) is None


def test_the_page_needs_nothing_but_itself():
    """It is opened from a mail, years later, without a network."""
    document = report_with("a").to_html()
    assert "http" not in document
    for call in ("<script", "<link", "@import", "url(", "srcset", "xlink"):
        assert call not in document
    assert {attributes["src"].partition(",")[0] for attributes in Reader(document).all("img")} == {
        "data:image/png;base64"
    }


def test_the_pictures_on_the_page_are_the_bytes():
    """A scaled or re-encoded picture would show another noise."""
    report = report_with("a")
    found = []
    for attributes in Reader(report.to_html()).all("img"):
        picture = Image.open(io.BytesIO(base64.b64decode(attributes["src"].partition(",")[2])))
        found.append(np.asarray(picture).transpose(2, 0, 1))
    np.testing.assert_array_equal(np.stack(found), torch.cat(list(report.pictures.values())).numpy())


def test_curves_are_where_they_belong():
    """A curve off its scale shows accuracies nobody measured; the lines of 0, 50 and 100 % are the scale."""
    records = [run(curve=[[500, 1.0, 0.5], [1000, 1.0, 1.0]]), run(copy="sem", curve=[[1000, 1.0, 0.25]]),
               run(seed=1, curve=[[1000, None, 0.125]], diverged=True)]  # fmt: skip
    drawn = [
        (a["class"], [tuple(map(float, point.split(","))) for point in a["points"].split()])
        for a in Reader(EvaluationReport(records).to_html()).all("polyline")
        if a["points"] != "2,4 32,4"  # the legend's
    ]
    (left, bottom), (right, _) = next(points for style, points in drawn if style == "grid")
    top = min(points[0][1] for style, points in drawn if style == "grid")
    found = {
        style: [((x - left) / (right - left) * 1000, (bottom - y) / (bottom - top)) for x, y in points]
        for style, points in drawn
        if style != "grid"
    }
    expected = {"c0 d0": [(500, 0.5), (1000, 1.0)], "c1 d1": [(1000, 0.25)] * 2, "guess": [(0, 0.1), (1000, 0.1)]}
    assert found.keys() == expected.keys()  # one line each: none of the run that diverged
    assert len(drawn) == 3 + 3
    for style, points in expected.items():
        np.testing.assert_allclose(found[style], points, rtol=1e-3, atol=1e-3)


def luminance(colour):
    """Relative luminance of WCAG 2."""
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_and_lines_stand_out(scheme):
    """WCAG 2 AA: 4.5 for text, 3 for lines; in both schemes and on every colour of the table."""
    colours = {name: pair[scheme] for name, *pair in re.findall(COLOURS, STYLE)}
    grounds = [colours[name] for name in ("paper", "panel", "b0", "b1", "b2", "b3")]
    assert min(contrast(colours[text], ground) for text in ("ink", "muted") for ground in grounds) >= 4.5
    assert contrast(colours["link"], colours["paper"]) >= 4.5
    assert min(contrast(colours[f"c{k}"], colours["paper"]) for k in range(curves.COLOURS)) >= 3


def test_copies_look_different_without_colour():
    """Who sees no colours has only the dashes; beyond six copies colour and dash together."""
    records = [run(copy=f"copy {k}") for k in range(12)]
    drawn = [a["class"] for a in Reader(EvaluationReport(records).to_html()).all("polyline") if a["class"][0] == "c"]
    assert len(set(drawn)) == 12
    assert len({style.split()[1] for style in drawn[:6]}) == 6


def test_save_and_load(tmp_path):
    """What is lost or reordered here is lost for whoever reads the report later."""
    report = report_with(NASTY)
    unchanged = EvaluationReport(report.records, {"em": {"psnr": float("inf")}}, report.pictures)
    for saved, noise in ((report, report.noise), (unchanged, {"em": {"psnr": None}})):
        saved.save(tmp_path / "new" / "report")
        loaded = EvaluationReport.load(tmp_path / "new" / "report")
        assert loaded.records == saved.records
        assert loaded.noise == noise
        assert list(loaded.pictures) == list(saved.pictures)
        assert all(torch.equal(loaded.pictures[title], images) for title, images in saved.pictures.items())
        assert loaded.verdict() == saved.verdict()
    files = {str(path.relative_to(tmp_path / "new" / "report")) for path in (tmp_path / "new").rglob("*.*")}
    pictures = {"pictures/00-script-alert-1-script-x-y" + "w" * 15 + ".png", "pictures/01-clean.png"}
    assert files == {"report.json", "report.md", "report.html", *pictures}


def test_a_loss_that_is_not_finite_survives_as_null(tmp_path):
    """json would write NaN, which no other reader takes."""
    diverged = replace(run(diverged=True), curve=((100, float("nan"), 0.1), (200, float("inf"), 0.1)))
    EvaluationReport([diverged]).save(tmp_path)
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert EvaluationReport.load(tmp_path).records[0].curve == ((100, None, 0.1), (200, None, 0.1))


def test_a_kill_leaves_the_old_report(tmp_path, monkeypatch):
    """A half-written report.json cannot be read, and the evaluation behind it took days."""
    report = report_with("a")
    report.save(tmp_path)
    before = (tmp_path / "report.json").read_bytes()

    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        EvaluationReport(report.records[:1]).save(tmp_path)
    assert (tmp_path / "report.json").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema must be 1, got 2"),
        ({"schema": None}, "schema must be 1, got None"),
        ({"test_acuracy": 0.5}, "unknown field 'test_acuracy', did you mean 'test_accuracy'"),
        ({"seed": "0"}, "seed must be a whole number, got '0'"),
        ({"seed": True}, "seed must be a whole number, got True"),
        ({"seed": 0.5}, "seed must be a whole number, got 0.5"),
        ({"diverged": 0}, "diverged must be true or false, got 0"),
        ({"copy": None}, "copy must be a text, got None"),
        ({"rho_u": "8/255"}, "rho_u must be a finite number or null, got '8/255'"),
        ({"seconds": float("nan")}, "seconds must be a finite number, got nan"),
        ({"norm": "l1"}, "norm must be 'linf' or 'l2', got 'l1'"),
        ({"test_accuracy": 75.0}, r"test_accuracy must be in 0\.\.1, got 75.0"),
        ({"robust_accuracy": -0.1}, r"robust_accuracy must be in 0\.\.1, got -0.1"),
        ({"classes": 0}, "classes must be at least 1, got 0"),
        ({"curve": [[1, 0.5]]}, "curve must be a list of"),
        ({"curve": [[1, 0.5, 50.0]]}, r"curve must be points with accuracies in 0\.\.1"),
    ],
)
def test_a_wrong_record_is_refused(change, message):
    """A record of another version or another hand must not become a figure in a table."""
    with pytest.raises(ValueError, match=f"runs/7.json: {message}"):
        Record.from_dict(VALUES | change, source="runs/7.json")


def test_a_missing_field_is_refused():
    """Each of them is printed somewhere, or decides what is averaged."""
    for name in VALUES:
        with pytest.raises(ValueError, match=rf"runs/7.json: .*{name}"):
            Record.from_dict({key: value for key, value in VALUES.items() if key != name}, source="runs/7.json")
    assert Record.from_dict(VALUES).to_dict() == VALUES


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no report.json"),
        ("{", "report.json is not JSON"),
        ("[]", "report.json: schema must be 1, got None"),
        ({"schema": 9}, "report.json: schema must be 1, got 9"),
        ({"records": {}}, "report.json: records must be a list of records"),
        ({"noise": {"em": {"psnr": "31"}}}, "report.json: noise must be numbers or null by copy and metric"),
        ({"pictures": [{"title": "clean"}]}, "report.json: pictures must be a list of titles"),
        ({"records": [VALUES | {"seed": "0"}]}, r"report.json: records\[0\]: seed must be a whole number"),
        ({"pictures": [{"title": "clean", "images": 2}]}, "00-clean.png does not decode"),
    ],
)
def test_a_wrong_report_is_refused(tmp_path, content, message):
    """The message names the file and the field."""
    if isinstance(content, dict):
        content = json.dumps({"schema": 1, "records": [VALUES], "noise": {}, "pictures": []} | content)
    if content is not None:
        (tmp_path / "report.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        EvaluationReport.load(tmp_path)


def test_what_makes_no_report():
    """Averages over other data, or of one run counted twice, look like any other figure."""
    for records, message in (
        ([], "at least one run"),
        ([run(), run(data="cd" * 32)], "same data"),
        ([run(), run(seed=1), run()], "each run once"),
    ):
        with pytest.raises(ValueError, match=message):
            EvaluationReport(records)
    for images in (torch.rand(2, 3, 4, 4), torch.zeros(3, 4, 4, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="pictures must be uint8"):
            EvaluationReport([run()], {}, {"clean": images})


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--hide-scrollbars"]  # fmt: skip


@pytest.mark.processes
@pytest.mark.skipif(BROWSER is None, reason="needs chromium, chromium-browser or google-chrome")
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_a_browser_shows_it_wide_and_narrow(tmp_path, scheme):
    """The page must not scroll sideways at 1280 or at 400 px, whatever the names, and must show its colours.

    In frames, since no window of a browser is 400 px wide; beside them a page whose tables are wider than the screen,
    which must scroll by themselves, and one that is too wide, which shows that the measure would notice.
    """
    document = report_with(NASTY).to_html()
    many = EvaluationReport([run(copy=f"copy {k}") for k in range(12)]).to_html()
    wide = '<!DOCTYPE html><p style="width:600px">too wide'
    frames = "".join(
        f'<iframe style="border:0;width:{width}px;height:3000px" srcdoc="{html.escape(content)}"></iframe>'
        for width, content in ((1280, document), (400, document), (1280, many), (400, wide))
    )
    sizes = "[...document.querySelectorAll('iframe')].map(f => f.contentDocument.documentElement.scrollWidth).join()"
    wrapper = tmp_path / "frames.html"
    wrapper.write_text(
        f'<!DOCTYPE html><meta charset="utf-8"><style>body{{margin:0;display:flex}}iframe{{flex:none}}</style>{frames}'
        f"<script>onload = () => document.title = {sizes}</script>",
        encoding="utf-8",
    )
    picture = tmp_path / "screen.png"
    shown = subprocess.run(
        [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=2080,3000", "--dump-dom",
         f"--blink-settings=preferredColorScheme={int(scheme == 'light')}", f"--screenshot={picture}", str(wrapper)],
        capture_output=True, text=True, env={**os.environ, "HOME": str(tmp_path)}, check=True,
    ).stdout  # fmt: skip
    widths = re.search("<title>(.*?)</title>", shown)[1].split(",")
    assert [int(width) for width in widths[:3]] == [1280, 400, 1280]
    assert int(widths[3]) >= 600

    found = re.findall(COLOURS, STYLE)
    colours = {name: bytes.fromhex(pair[scheme == "dark"].removeprefix("#")) for name, *pair in found}
    with Image.open(picture) as screen:
        for left, right in ((0, 1280), (1280, 1680)):
            colours_seen = screen.convert("RGB").crop((left, 0, right, screen.height)).getcolors(1 << 24)
            seen = {bytes(colour) for _, colour in colours_seen}
            assert {colours[name] for name in ("paper", "panel", "ink", "b3", "s3")} <= seen

"""The model card: what strangers read before they use a generator."""

import json
import re
from dataclasses import replace
from pathlib import Path
from statistics import stdev

import yaml
from huggingface_hub import ModelCard

from semtransforms.generators.card import CITATION, in_short, in_words, write_card
from semtransforms.noise.methods import NTGA, REM, SEM

ROOT = Path(__file__).parents[2]
CONFIG = replace(SEM, num_classes=3, image_size=(32, 24), surrogate="convnet", width=16)


def test_header_is_what_the_hub_reads():
    """A header that is no YAML makes the Hub refuse the push, and a licence it cannot read is none."""
    data = ModelCard(write_card(CONFIG, None, {"license": "cc-by-4.0", "datasets": ["org/stripes #new"]})).data
    assert (data.library_name, data.license, data.datasets) == ("semtransforms", "cc-by-4.0", ["org/stripes #new"])
    assert {"unlearnable-examples", "sem"} <= set(data.tags)
    plain = ModelCard(write_card(CONFIG, None, {})).data.to_dict()
    assert set(plain) == {"library_name", "tags"}  # what is not known is not claimed


def test_what_was_not_measured_is_said():
    """An empty place reads as a promise."""
    text = write_card(CONFIG, None, {})
    assert "**not measured**" in text
    assert "Measured by: not recorded" in text
    assert "| label names | not recorded |" in text
    one = write_card(CONFIG, None, {"measured": [{"trainer": "greyscale", "protected": [72.7]}]})
    assert "| greyscale | not measured | 72.7 |" in one


def test_figures_are_those_of_the_card():
    """Mean ± standard deviation over seeds, as everywhere in this project."""
    figures = [10.0, 12.5, 13.1]
    text = write_card(CONFIG, ["a", "b", "c"], {"measured": [{"trainer": "x", "clean": [75.06], "protected": figures}]})
    assert f"| x | 75.1 | {sum(figures) / 3:.1f} ± {stdev(figures):.1f} (n=3) |" in text
    assert "| label names | a, b, c |" in text
    assert "Chosen among nine. A trainer who" in write_card(CONFIG, None, {"notes": "Chosen among nine."})
    assert in_words([]) == "not measured"


def test_a_line_holds_the_first_and_the_worst():
    """A card has a dozen countermeasures; of these a list must not show the kind ones alone."""
    first = {"trainer": "standard", "clean": [75.1], "protected": [12.0]}
    others = [
        {"trainer": "mean", "protected": [11.0]}, {"trainer": "greyscale", "clean": [73.0, 74.0], "protected": [72.0]}
    ]  # fmt: skip
    assert in_short([first, *others]) == "standard 12.0 (75.1); most: greyscale 72.0 (73.5 ± 0.7 (n=2))"
    assert in_short([first, others[0]]) == "standard 12.0 (75.1)"
    assert in_short([{"trainer": "x"}]) == in_short([]) == "not measured"


def test_facts_of_the_config():
    """Another radius, size or class count on the card than in the noise."""
    text = write_card(CONFIG, None, {})
    for fact in ("radius ρ_u | 8/255", "| 4/255 |", "| 32 x 24 px, 3 classes |", "convnet, width 16", "labels 0..2"):
        assert fact in text
    assert "| radius ρ_a of the fit's adversary | none |" in write_card(replace(CONFIG, surrogate_sees=None), None, {})
    assert "# REM noise" in write_card(replace(REM, num_classes=3, image_size=(8, 8)), None, {})


def accuracy_of(row):
    """Test accuracy in % that the record of a row of the miniature holds."""
    record = json.loads((ROOT / "examples/reproduce/results/cpu" / f"{row}.json").read_text(encoding="utf-8"))
    return f"{100 * next(each for each in record['records'] if each['seed'] == 0)['test_accuracy']:.1f}"


def test_it_says_who_washes_the_noise_out():
    """Whoever publishes a generator and protects with it must know that its holders undo it; figures as recorded."""
    held, other_fit = [
        [accuracy_of(f"countermeasures-sem-informed-{who}") for who in some]
        for some in (("same-seed", "other-seed"), ("other-fit",))
    ]
    clean = accuracy_of("table2-cifar10-clean-rho0")
    text = write_card(CONFIG, None, {})
    untried = washing_of(text)
    assert set(FIGURE.findall(untried)) == {*held, *other_fit, clean}
    assert "This generator keeps the noise" not in text
    tried = washing_of(write_card(CONFIG, None, {"measured": [{"trainer": "informed-same-seed", "protected": [19.8]}]}))
    assert "can wash its noise out" not in tried  # what was measured here says other things
    assert set(FIGURE.findall(tried)) == {*held, clean}
    ntga = replace(NTGA, num_classes=3, image_size=(8, 8))
    assert "This generator keeps the noise" in write_card(ntga, None, {})


def test_it_says_what_pairs_do():
    """An owner who publishes a few originals, or protects on request, loses all others too."""
    untried = write_card(CONFIG, None, {})
    tried = write_card(CONFIG, None, {"measured": [{"trainer": "pairs-500", "protected": [59.0]}]})
    for text in (untried, tried):
        assert "originals with their protected copies" in text
    assert ("not measured for this generator" in untried, "not measured for this generator" in tried) == (True, False)


FIGURE = re.compile(r"\b\d+\.\d\b")


def washing_of(text):
    """The paragraph about whoever holds the generator."""
    return next(part for part in text.split("\n\n") if part.startswith("**Whoever has this generator "))


def test_names_stay_in_their_cell():
    """A label such as 'a|b' would shift the table of the card."""
    text = write_card(CONFIG, ["cat | dog", "multi\nline", "c"], {})
    assert "| label names | cat \\| dog, multi line, c |" in text


def test_citation_is_that_of_the_repository():
    """Two citations of one paper drift apart."""
    paper = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["preferred-citation"]
    authors = " and ".join(f"{each['family-names']}, {each['given-names']}" for each in paper["authors"])
    fields = dict(re.findall(r"^  (\w+) += \{(.*)\}", CITATION, re.MULTILINE))
    assert fields == {
        "title": paper["title"], "author": authors, "booktitle": paper["collection-title"], "year": str(paper["year"]),
        "volume": str(paper["volume"]), "note": paper["identifiers"][0]["value"],
    }  # fmt: skip
    assert CITATION in write_card(CONFIG, None, {})

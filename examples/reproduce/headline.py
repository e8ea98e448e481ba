"""README's table: what a trainer still learns, the one who learns most included."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from examples.reproduce.markdown import MISSING, spread, table
from examples.reproduce.other_data import MODULO, PREDICTED
from examples.reproduce.records import RESULTS, Figures, guessing, of_bundled, of_miniature, of_other_data, worst_cases
from examples.reproduce.words import WORDS
from semtransforms.core.files import read_json

HEAD = ("images, generator", "guessing", "clean", "standard", "adversarial", "who learns most", "of those tried")


def headline(root: Path) -> str:
    """Ten rows, the default first.

    The three trainers are the standard one, the adversarial one who learns most, and whoever learns most of all that
    were tried.
    """
    return table(
        HEAD,
        [
            _bundled(root, "CIFAR-10, 32 px: `sem-plus-cifar10-small`, the default", "sem-plus-cifar10-small"),
            _bundled(root, "CIFAR-10, 32 px: `sem-cifar10-small`", "sem-cifar10-small"),
            _bundled(root, "Tiny-ImageNet, 64 px: `sem-imagenet100-small`", "sem-imagenet100-small"),
            *(
                _miniature(root, f"CIFAR-10: {method.upper()} in a short fit", method)
                for method in ("sem", "rem", "em")
            ),
            _others(root, "10 other classes, 32 px: `sem-cifar10-small`", (10, 32), MODULO),
            _others(root, "20 other classes, 64 px: `sem-cifar10-small`", (20, 64), MODULO),
            _others(root, "10 other classes, 32 px, labels unknown", (10, 32), PREDICTED),
            _digits(root),
        ],
    )


def _line(words: str, guess: float, clean: Figures, found: Mapping[str, Figures]) -> list[str]:
    """One row; ``found`` has the trainers as the records call them, the standard one first."""
    standard, *_ = found
    adversarial = [trainer for trainer in found if trainer.startswith("adversarial")]
    hardest = _most({trainer: found[trainer] for trainer in adversarial}) if adversarial else None
    most = _most(found)
    return [
        words,
        f"{guess:.0f}",
        spread(clean),
        spread(found[standard]),
        f"{_short(hardest)}: {spread(found[hardest])}" if hardest else MISSING,
        f"{_short(most)}: {spread(found[most])}",
        str(len(found)),
    ]


def _most(found: Mapping[str, Figures]) -> str:
    return max(found, key=lambda trainer: sum(found[trainer]) / len(found[trainer]))


def _short(trainer: str) -> str:
    if trainer.startswith("informed"):
        return "holder of the generator"
    return WORDS.get(trainer, trainer.split(",")[0].removeprefix("adversarial "))


def _bundled(root: Path, words: str, name: str) -> list[str]:
    """With the three seeds of ``worst_case.py`` where it judged the generator, one elsewhere."""
    clean, found = of_bundled(root, name, "clean"), of_bundled(root, name, "protected")
    for judged in worst_cases(root):
        if judged["generator"] == name:
            for trainer, figures in judged["accuracy"].items():
                start = {"none": "standard,", "adversarial-2": "adversarial at 2/255"}.get(trainer, trainer)
                found[next(each for each in found if each.startswith(start))] = figures
    return _line(words, guessing(root, name), next(iter(clean.values())), found)


def _miniature(root: Path, words: str, method: str) -> list[str]:
    return _line(words, 10, of_miniature(root, "clean")["standard"], of_miniature(root, method))


def _others(root: Path, words: str, data: tuple[int, int], copy: str) -> list[str]:
    found = of_other_data(root)
    trainers = {"standard": "standard", "adversarial at 2/255": "adversarial-2"}
    learnt = {name: [found[*data, key, copy]] for name, key in trainers.items() if (*data, key, copy) in found}
    return _line(words, 100 / data[0], [found[*data, "standard", "clean"]], learnt)


def _digits(root: Path) -> list[str]:
    victims = read_json(root / RESULTS / "sem-digits.json")["victims"]
    clean, protected = ([100 * victims[copy]["test_accuracy"]] for copy in ("clean", "protected"))
    return _line("scikit-learn's digits, 32 px: `sem-digits`", 10, clean, {"standard": protected})

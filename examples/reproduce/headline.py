"""README's table: what a trainer still learns, the one who learns most included."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from examples.reproduce.markdown import NOTHING, spread, table
from examples.reproduce.other_data import MODULO, PREDICTED
from examples.reproduce.records import RESULTS, Figures, guessing, of_bundled, of_miniature, of_other_data, worst_cases
from examples.reproduce.words import WORDS
from semtransforms.core.files import read_json

HEAD = (
    "images, generator",
    "guessing",
    "clean copy",
    "does nothing special",
    "at 2/255",
    "at 4/255",
    "who learned most",
)


def headline(root: Path) -> str:
    """Ten rows, the default first: a standard trainer, two adversarial ones, and who learned most of all tried."""
    return table(
        HEAD,
        [
            _bundled(root, "CIFAR-10, 32 px: `sem-one-pass-cifar10`, the default", "sem-one-pass-cifar10"),
            _bundled(root, "CIFAR-10, 32 px: `sem-plus-cifar10`", "sem-plus-cifar10"),
            _bundled(root, "CIFAR-10, 32 px: `sem-cifar10`, the paper's method", "sem-cifar10"),
            _bundled(root, "Tiny-ImageNet, 64 px: `sem-imagenet100-small`", "sem-imagenet100-small"),
            *(
                _miniature(root, f"CIFAR-10 as JPEG: {method.upper()} in a short fit", method)
                for method in ("sem", "rem", "em")
            ),
            _others(root, "10 other classes, 32 px: `sem-cifar10-small`", (10, 32), MODULO),
            _others(root, "10 other classes, 32 px, labels unknown", (10, 32), PREDICTED),
            _digits(root),
        ],
    )


def _line(words: str, guess: float, clean: Figures, found: Mapping[str, Figures]) -> list[str]:
    """One row; ``found`` has the trainers as the records call them, the standard one first."""
    trainers = [_trainer(found, start) for start in ("standard", "adversarial at 2/255", "adversarial at 4/255")]
    most = max(found, key=lambda trainer: fmean(found[trainer]))
    return [
        words,
        f"{guess:.0f}",
        spread(clean),
        *(spread(found[trainer]) if trainer else NOTHING for trainer in trainers),
        f"{spread(found[most])}: {_short(most)}, " + (f"of {len(found)}" if len(found) > 1 else "the only one tried"),
    ]


def _trainer(found: Mapping[str, Figures], start: str) -> str | None:
    return next((trainer for trainer in found if trainer.startswith(start)), None)


def _short(trainer: str) -> str:
    if trainer.startswith("informed"):
        return "holds the generator"
    return WORDS.get(trainer, trainer.split(",")[0])


def _bundled(root: Path, words: str, name: str) -> list[str]:
    """With the three seeds of ``worst_case.py`` where it judged the generator, one elsewhere."""
    clean, found = of_bundled(root, name, "clean"), of_bundled(root, name, "protected")
    for judged in worst_cases(root):
        if judged["generator"] == name:
            for trainer, figures in judged["accuracy"].items():
                start = {"none": "standard,", "adversarial-2": "adversarial at 2/255"}.get(trainer, trainer)
                found[_trainer(found, start) or trainer] = figures
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

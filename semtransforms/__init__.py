"""Make image datasets unlearnable with Stable Error-Minimizing noise.

The public names load on first use: `import semtransforms` in a DataLoader worker or a command line costs no torch.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"  # the one place that says so; pyproject.toml reads it from here

__all__ = [
    "EM",
    "REM",
    "REM_DELTA_U",
    "REM_THETA",
    "SEM",
    "SEM_PLUS",
    "TAP",
    "EvaluationReport",
    "GeneratorConfig",
    "NoiseGenerator",
    "NoiseStore",
    "ProtectedDataset",
    "SEMProtect",
    "VictimConfig",
    "evaluate",
    "fit_generator",
    "train_victim",
]

if TYPE_CHECKING:
    from semtransforms.config import GeneratorConfig
    from semtransforms.datasets import ProtectedDataset
    from semtransforms.evaluation.protocol import evaluate
    from semtransforms.evaluation.report import EvaluationReport
    from semtransforms.evaluation.victims import VictimConfig, train_victim
    from semtransforms.fitting import fit_generator
    from semtransforms.generator import NoiseGenerator
    from semtransforms.methods import EM, REM, REM_DELTA_U, REM_THETA, SEM, SEM_PLUS, TAP
    from semtransforms.store import NoiseStore
    from semtransforms.transforms import SEMProtect
else:  # hidden from type checkers, for which it would turn every misspelt import into an object
    _MODULE_OF = {
        "EM": "methods",
        "REM": "methods",
        "REM_DELTA_U": "methods",
        "REM_THETA": "methods",
        "SEM": "methods",
        "SEM_PLUS": "methods",
        "TAP": "methods",
        "EvaluationReport": "evaluation.report",
        "GeneratorConfig": "config",
        "NoiseGenerator": "generator",
        "NoiseStore": "store",
        "ProtectedDataset": "datasets",
        "SEMProtect": "transforms",
        "VictimConfig": "evaluation.victims",
        "evaluate": "evaluation.protocol",
        "fit_generator": "fitting",
        "train_victim": "evaluation.victims",
    }

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        globals()[name] = value  # the next access does not come here
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})

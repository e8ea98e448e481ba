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
    "SEM_CLASSWISE",
    "SEM_ONE_PASS",
    "SEM_PLUS",
    "TAP",
    "EvaluationReport",
    "GeneratorConfig",
    "NoiseGenerator",
    "NoiseStore",
    "PretrainedSurrogate",
    "ProtectedDataset",
    "Purifier",
    "SEMProtect",
    "VictimConfig",
    "evaluate",
    "fit_generator",
    "fit_one_pass",
    "protect_photographs",
    "protect_with_ray",
    "train_victim",
    "with_effort",
]

if TYPE_CHECKING:
    from semtransforms.core.config import GeneratorConfig, PretrainedSurrogate
    from semtransforms.data.store import NoiseStore
    from semtransforms.evaluation.countermeasures.stored import Purifier
    from semtransforms.evaluation.protocol import evaluate
    from semtransforms.evaluation.report import EvaluationReport
    from semtransforms.evaluation.victims import VictimConfig, train_victim
    from semtransforms.generators.fitting import fit_generator
    from semtransforms.generators.generator import NoiseGenerator
    from semtransforms.generators.one_pass import fit_one_pass
    from semtransforms.noise.methods import (
        EM,
        REM,
        REM_DELTA_U,
        REM_THETA,
        SEM,
        SEM_CLASSWISE,
        SEM_ONE_PASS,
        SEM_PLUS,
        TAP,
        with_effort,
    )
    from semtransforms.photographs.journey import protect_photographs
    from semtransforms.protect.ray import protect_with_ray
    from semtransforms.protect.transform import SEMProtect
    from semtransforms.protect.wrapper import ProtectedDataset
else:  # hidden from type checkers, for which it would turn every misspelt import into an object
    _MODULE_OF = {
        "EM": "noise.methods",
        "REM": "noise.methods",
        "REM_DELTA_U": "noise.methods",
        "REM_THETA": "noise.methods",
        "SEM": "noise.methods",
        "SEM_CLASSWISE": "noise.methods",
        "SEM_ONE_PASS": "noise.methods",
        "SEM_PLUS": "noise.methods",
        "TAP": "noise.methods",
        "EvaluationReport": "evaluation.report",
        "GeneratorConfig": "core.config",
        "PretrainedSurrogate": "core.config",
        "NoiseGenerator": "generators.generator",
        "NoiseStore": "data.store",
        "ProtectedDataset": "protect.wrapper",
        "Purifier": "evaluation.countermeasures.stored",
        "SEMProtect": "protect.transform",
        "VictimConfig": "evaluation.victims",
        "evaluate": "evaluation.protocol",
        "fit_generator": "generators.fitting",
        "fit_one_pass": "generators.one_pass",
        "protect_photographs": "photographs.journey",
        "protect_with_ray": "protect.ray",
        "train_victim": "evaluation.victims",
        "with_effort": "noise.methods",
    }

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        globals()[name] = value  # the next access does not come here
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})

"""The table of methods: what separates three papers fits on a screen.

========= ===================== ================== ====
method    noise step sees       surrogate sees     J
========= ===================== ================== ====
SEM       U(-rho_r, rho_r)      PGD(rho_a)         5
REM       PGD(rho_a)            PGD(rho_a)         5
REM-du    PGD(rho_a)            nothing            5
REM-theta nothing               PGD(rho_a)         5
EM        nothing               nothing            1
========= ===================== ================== ====

REM-du and REM-theta are the ablations of Table 1.
"""

from __future__ import annotations

import difflib
from dataclasses import replace

from semtransforms.config import GeneratorConfig

SEM = GeneratorConfig(method="sem", defense_sees="uniform", surrogate_sees="adversary", num_samples=5)
REM = replace(SEM, method="rem", defense_sees="adversary")
REM_DELTA_U = replace(SEM, method="rem-delta-u", defense_sees="adversary", surrogate_sees=None)
REM_THETA = replace(SEM, method="rem-theta", defense_sees=None)
EM = replace(SEM, method="em", defense_sees=None, surrogate_sees=None, num_samples=1)

METHODS = {preset.method: preset for preset in (SEM, REM, REM_DELTA_U, REM_THETA, EM)}


def method(name: str) -> GeneratorConfig:
    """A preset by its name.

    Raises:
        ValueError: unknown name, with the nearest ones.
    """
    if name not in METHODS:
        nearest = difflib.get_close_matches(name, METHODS, n=2) or list(METHODS)
        raise ValueError(f"unknown method {name!r}, did you mean {' or '.join(map(repr, nearest))}?")
    return METHODS[name]

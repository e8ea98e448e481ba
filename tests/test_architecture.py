"""The layout: who may import whom, what is public, what importing costs."""

import ast
import functools
import graphlib
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import semtransforms

PACKAGE = Path(semtransforms.__file__).parent

FLOORS = (
    "core",
    "data",
    "views",
    "noise",
    "generators",
    "protect",
    "evaluation",
    "photographs",
    "app",
    "cli",
)  # from the ground up

# names that scripts outside of the project import a module by; each is the module itself
OLD_PLACES = {"hub": "generators.names", "images": "data.images", "methods": "noise.methods"}

# every public name of the package's design, and the module that will define it once it exists
PUBLIC = {
    "ProtectedDataset": "protect.wrapper",
    "SEMProtect": "protect.transform",
    "NoiseGenerator": "generators.generator",
    "fit_generator": "generators.fitting",
    "fit_one_pass": "generators.one_pass",
    "GeneratorConfig": "core.config",
    "PretrainedSurrogate": "core.config",
    "NoiseStore": "data.store",
    "SEM": "noise.methods",
    "SEM_CLASSWISE": "noise.methods",
    "SEM_ONE_PASS": "noise.methods",
    "SEM_PLUS": "noise.methods",
    "REM": "noise.methods",
    "EM": "noise.methods",
    "REM_DELTA_U": "noise.methods",
    "REM_THETA": "noise.methods",
    "TAP": "noise.methods",
    "with_effort": "noise.methods",
    "VictimConfig": "evaluation.victims",
    "train_victim": "evaluation.victims",
    "evaluate": "evaluation.protocol",
    "protect_photographs": "photographs.journey",
    "protect_with_ray": "protect.ray",
    "Purifier": "evaluation.countermeasures.stored",
    "EvaluationReport": "evaluation.report",
}

# modules that read pickles, or exist to write them
PICKLING = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
PICKLING_CALLS = {"torch.load", "torch.save", "torch.jit.load", "torch.package.PackageImporter"}


def floor_of(module: str) -> int:
    """The floor of a module's folder; what starts the command line lies above all."""
    folder = module.partition(".")[0]
    return FLOORS.index(folder) if folder in FLOORS else len(FLOORS)


@functools.cache
def read_sources() -> dict[str, ast.Module]:
    """Module name relative to the package ("store", "evaluation.victims") -> syntax tree; the root is ""."""
    trees = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        trees[name] = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return trees


def imports_of(module: str, tree: ast.Module, known: set[str], is_package: bool = False) -> set[str]:
    """Modules of the package that ``tree`` imports anywhere, inside functions and type-checking blocks included.

    What is taken from the package's root comes back as "" and the name: ``.SEM``.
    """
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = ["semtransforms", *filter(None, module.split("."))]
                up = node.level - 1 if is_package else node.level
                base = ".".join(here[: len(here) - up] + [base] * bool(base))
            targets = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            root, _, inner = target.partition(".")
            if root != "semtransforms":
                continue
            while inner and inner not in known and "." in inner:
                inner = inner.rpartition(".")[0]  # the last part was a name inside the module
            found.add(inner if inner in known else f".{inner}")
    return found


@functools.cache
def read_graph() -> dict[str, set[str]]:
    """Module -> modules of the package it imports; without the root, whose exports are lazy."""
    trees = read_sources()
    known = {name for name in trees if name}
    packages = {name for name in known if (PACKAGE / name.replace(".", "/")).is_dir()}
    return {name: imports_of(name, trees[name], known, name in packages) for name in known}


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """Everything ``start`` imports, directly or through others."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph.get(waiting.pop(), set()) - seen
        seen |= new
        waiting += new
    return seen


def pickle_uses(tree: ast.Module) -> list[str]:
    """Lines that could read or write a pickle."""
    uses = []
    # a torch file of tensors alone, which is what `weights_only` sees to
    safe = {
        node.func
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "torch.load"
        and any(each.arg == "weights_only" and ast.unparse(each.value) == "True" for each in node.keywords)
    }
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.partition(".")[0] in PICKLING]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module] if node.module.partition(".")[0] in PICKLING else []
            names += [name for alias in node.names if (name := f"{node.module}.{alias.name}") in PICKLING_CALLS]
        elif isinstance(node, ast.Attribute) and node not in safe and ast.unparse(node) in PICKLING_CALLS:
            names = [ast.unparse(node)]
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            names = ["allow_pickle"]
        uses += [f"line {node.lineno}: {name}" for name in names]
    return uses


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import semtransforms.pgd", {"pgd"}),
        ("import semtransforms.evaluation.victims as v", {"evaluation.victims"}),
        ("from semtransforms.pgd import ascend", {"pgd"}),
        ("from semtransforms import pgd, SEM", {"pgd", ".SEM"}),
        ("from semtransforms.evaluation import victims, Report", {"evaluation.victims", "evaluation"}),
        ("from . import pgd", {"pgd"}),
        ("from .pgd import ascend", {"pgd"}),
        ("def late():\n    from semtransforms.pgd import ascend", {"pgd"}),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import semtransforms.pgd", {"pgd"}),
        ("import torch\nfrom datasets import load_dataset", set()),
    ],
)
def test_the_reader_sees_every_form_of_import(source, expected):
    """A form it misses would let the tests below pass over a wrong import."""
    known = {"pgd", "evaluation", "evaluation.victims"}
    assert imports_of("store", ast.parse(source), known) == expected


def test_the_reader_sees_relative_imports_inside_a_package():
    """Two dots from evaluation/victims.py and one dot from evaluation/__init__.py start at different places."""
    known = {"pgd", "evaluation", "evaluation.victims"}
    assert imports_of("evaluation.victims", ast.parse("from ..pgd import ascend"), known) == {"pgd"}
    assert imports_of("evaluation", ast.parse("from .victims import train"), known, True) == {"evaluation.victims"}


def test_every_module_lies_in_a_room():
    """A module beside the rooms escapes the order of the floors."""
    assert {module for module in read_graph() if module.partition(".")[0] not in FLOORS} == {"__main__", *OLD_PLACES}


def test_modules_import_from_floors_below():
    """An import upwards ties the engine to what is built on it: no part can be used or changed alone any more."""
    wrong = [
        f"{module} imports {target}"
        for module, targets in read_graph().items()
        for target in targets
        if not target.startswith(".") and floor_of(target) > floor_of(module)
    ]
    assert wrong == []


def test_no_import_cycle():
    """A cycle works or fails depending on which module is imported first."""
    tuple(graphlib.TopologicalSorter(read_graph()).static_order())  # raises CycleError and names the modules


def test_modules_import_each_other_not_through_the_root():
    """The root is for users; inside, it hides from these tests what a module depends on. The version is only there."""
    wrong = {
        f"{module}: {target[1:] or 'semtransforms'}"
        for module, targets in read_graph().items()
        for target in targets
        if target.startswith(".") and target != ".__version__"
    }
    assert wrong == set()


def test_the_store_never_reaches_the_engine():
    """Workers that only read noise would load networks, and a store's content could depend on the code beside it."""
    reached = {module for module in reachable(read_graph(), "data.store") if not module.startswith(".")}
    assert {floor_of(module) for module in reached} <= {0, 1}


def test_evaluation_reaches_noise_only_through_protect():
    """A measurement that makes its own noise measures something else than what a user protects with."""
    engine = {"noise.methods", "noise.painted", "noise.ntga", "generators.generator", "generators.fitting"}
    wrong = {
        f"{module}: {target}"
        for module, targets in read_graph().items()
        if module.startswith("evaluation")
        for target in targets & engine
    }
    assert wrong == set()


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n    import cloudpickle as c",
        "import torch\ntorch.load('x')",
        "import torch\ntorch.load('x', weights_only=False)",
        "import torch\ntorch.load('x', weights_only=flag)",
        "from torch import load",
        "import torch\nsave = torch.save",
        "np.load('x', allow_pickle=True)",
    ],
)
def test_the_reader_sees_every_form_of_pickle(source):
    """A form it misses would let the next test pass over code that runs what a downloaded file says."""
    assert pickle_uses(ast.parse(source))


def test_no_pickle_anywhere():
    """Unpickling a downloaded generator or a shared store runs whatever its author put there."""
    assert {name: uses for name, tree in read_sources().items() if (uses := pickle_uses(tree))} == {}


def names_defined(tree: ast.Module) -> set[str]:
    """Names a module binds at its top level by def, class or assignment."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return names


def test_public_names_are_exported():
    """A name that README and the design promise, and `from semtransforms import ...` does not find."""
    trees = read_sources()
    existing = {name for name, home in PUBLIC.items() if home in trees and name in names_defined(trees[home])}
    assert existing <= set(semtransforms.__all__)
    assert set(semtransforms.__all__) <= set(PUBLIC)


@pytest.mark.parametrize("name", semtransforms.__all__)
def test_exports_are_the_objects_of_their_modules(name):
    """A stale row in the lazy table shows only when somebody uses the name."""
    value = getattr(semtransforms, name)
    assert value is getattr(sys.modules[f"semtransforms.{PUBLIC[name]}"], name)
    assert name in dir(semtransforms)


@pytest.mark.parametrize("old", OLD_PLACES)
def test_an_old_place_is_the_module_itself(old):
    """Two copies of a module have two classes of one name, and ``except`` and ``isinstance`` miss the other one."""
    assert importlib.import_module(f"semtransforms.{old}") is importlib.import_module(
        f"semtransforms.{OLD_PLACES[old]}"
    )


def test_unknown_name_is_an_attribute_error():
    """hasattr, copy and pytest probe modules for names; anything but AttributeError breaks them."""
    with pytest.raises(AttributeError, match="SEMM"):
        _ = semtransforms.SEMM


@pytest.mark.processes
def test_importing_the_package_imports_no_torch():
    """Each spawned worker and each `semtransforms --help` would pay seconds for networks it does not use."""
    heavy = {"torch", "torchvision", "datasets", "kornia", "huggingface_hub"}
    code = f"import sys, semtransforms; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert result.stdout.strip() == "[]"


def test_the_version_is_said_once():
    """Two places disagree after the first release: the store's key and the wheel would name different versions."""
    project = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert 'dynamic = ["version"]' in project
    assert f'version = "{semtransforms.__version__}"' not in project


LONGEST_MODULE, LONGEST_FUNCTION = 400, 60  # lines; a screen

# what is longer, and why
LONGER = {
    "evaluation.protocol.evaluate": "21 arguments, each told to the reader; 49 lines of code",
    "evaluation.victims.training.train_victim": "11 arguments, each told to the reader; 50 lines of code",
}


def test_modules_and_functions_fit_a_screen():
    """Nobody sees at a glance what a longer one does; the next change makes it longer still."""
    long = set()
    for module, tree in read_sources().items():
        path = PACKAGE / module.replace(".", "/")
        file = path.with_suffix(".py") if module and not path.is_dir() else path / "__init__.py"
        if len(file.read_text(encoding="utf-8").splitlines()) > LONGEST_MODULE:
            long.add(module)
        for node in ast.walk(tree):
            lines = (getattr(node, "end_lineno", None) or 0) - getattr(node, "lineno", 0) + 1
            if isinstance(node, ast.FunctionDef) and lines > LONGEST_FUNCTION:
                long.add(f"{module}.{node.name}")
    assert long == set(LONGER), sorted(long ^ set(LONGER))

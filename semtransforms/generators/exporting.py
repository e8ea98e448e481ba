"""A one-pass generator as an ONNX file: for browsers, phones and servers that have no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semtransforms import __version__
from semtransforms.core.checks import check_integer
from semtransforms.core.files import write_atomically
from semtransforms.core.keys import image_keys
from semtransforms.noise.engine import Engine
from semtransforms.noise.one_pass import FIELD, PATCH, random_field

OPSET = 18  # the first in which a graph pads by what it computes from an image's size; so the oldest runtimes read it
METADATA = "semtransforms"  # the property of the file whose JSON says what a page has to know


def secret_field(images: Tensor, labels: Tensor, seed: int, made_at: tuple[int, int]) -> Tensor:
    """What the secret decides of a one-pass generator's noise.

    Args:
        images: uint8 (N, 3, H, W), as they come, not shrunk.
        labels: int64 (N,).
        seed: the secret one.
        made_at: height and width at which the noise is made, in pixels.

    Returns:
        float32 (N, 8, ceil(h / 4), ceil(w / 4)) in [-1, 1): the numbers that the generator itself draws.
    """
    return random_field(image_keys(images, labels, seed), *made_at)


def write_onnx(engine: Engine, path: str | Path, classes: Sequence[str] | None, *, opset: int) -> Path:
    """Write an engine as an ONNX file; see :meth:`semtransforms.NoiseGenerator.export_onnx`.

    Args:
        engine: whose noise takes one pass.
        path: of the file; one that is there is replaced.
        classes: names of the labels, where they are known.
        opset: version of ONNX's set of operations.

    Returns:
        The path.
    """
    one_pass = engine.one_pass()
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"exporting needs {' and '.join(missing)}, not installed here: pip install 'semtransforms[onnx]'"
        )
    import onnx  # an extra

    check_integer("opset", opset, low=OPSET, advice="Older ones cannot pad by what they compute from an image's size.")
    latest = onnx.defs.onnx_opset_version()
    check_integer("opset", opset, high=latest, advice=f"The onnx that is installed ({onnx.__version__}) ends there.")
    path = Path(path).expanduser()
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path {str(path)!r}: there is no folder {str(path.parent)!r}. Make it first.")
    if path.is_dir():
        raise IsADirectoryError(f"path {str(path)!r} is a folder. Name a file in it, such as 'generator.onnx'.")
    model = _graph(one_pass, engine.device, opset)
    if model.opset_import[0].version != opset:
        raise ValueError(f"opset {opset} lacks an operation that the generator needs. Use {OPSET}, or leave it out.")
    facts = {"version": __version__, "method": engine.config.method, "classes": classes and list(classes)}
    numbers = {"num_classes": engine.config.num_classes, "reach": one_pass.reach, "side": engine.side}
    content = json.dumps(facts | numbers | {"field": FIELD, "patch": PATCH})
    model.metadata_props.add(key=METADATA, value=content)
    onnx.checker.check_model(model, full_check=True)
    write_atomically(path, model.SerializeToString(), mode=0o600)
    return path


def _graph(one_pass: torch.nn.Module, device: torch.device, opset: int) -> Any:
    """The ``onnx.ModelProto`` of a module, for any number of images of any size."""
    # sizes of an example that no patch divides, and none of them 0 or 1: torch would take such a one for the only one
    images = torch.zeros(2, 3, 3 * PATCH + 1, 2 * PATCH + 3, dtype=torch.uint8, device=device)
    labels = torch.zeros(2, dtype=torch.int64, device=device)
    field = torch.zeros(2, FIELD, 4, 3, device=device)
    free = torch.export.Dim.DYNAMIC  # follows from the images' sizes
    program = torch.onnx.export(
        one_pass.eval(),
        (images, labels, field),
        input_names=["images", "labels", "field"],
        output_names=["protected"],
        dynamic_shapes=({0: "N", 2: "H", 3: "W"}, {0: free}, {0: free, 2: free, 3: free}),
        opset_version=opset,
        dynamo=True,
        verbose=False,
    )
    assert program is not None  # as it is with dynamo
    return program.model_proto

"""Names to artefacts: where a generator's folder lies."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

_PACKAGE = Path(__file__).parent
# the wheel carries the generators inside the package, a checkout beside it
_BUNDLED = (_PACKAGE / "pretrained", _PACKAGE.parent / "pretrained")


def bundled() -> dict[str, Path]:
    """The generators that came with this installation: name to folder."""
    return {
        folder.name: folder
        for place in reversed(_BUNDLED)
        if place.is_dir()
        for folder in sorted(place.iterdir())
        if (folder / CONFIG_FILE).is_file()
    }


def resolve(name: str | Path) -> Path:
    """Find a generator's folder.

    Args:
        name: an existing folder, or the short name of a bundled generator such as ``"sem-digits"``.

    Returns:
        The folder with ``config.json`` and ``model.safetensors``.

    Raises:
        ValueError: nothing of that name; the message lists the nearest names.
        FileNotFoundError: the folder exists but holds no generator.
    """
    shipped = bundled()
    if str(name) in shipped:
        return shipped[str(name)]
    folder = Path(name).expanduser()
    if folder.is_dir():
        for required in (CONFIG_FILE, WEIGHTS_FILE):
            if not (folder / required).is_file():
                pickled = sorted(p.name for suffix in ("bin", "pt", "pth", "pkl") for p in folder.glob(f"*.{suffix}"))
                why = f"; it has {', '.join(pickled)}, and pickled weights are never loaded" if pickled else ""
                raise FileNotFoundError(
                    f"generator {str(name)!r} has no {required}{why}. Write it with NoiseGenerator.save_pretrained."
                )
        return folder
    nearest = difflib.get_close_matches(str(name), shipped, n=3, cutoff=0.3) or sorted(shipped)
    raise ValueError(
        f"unknown generator {str(name)!r}: no such folder, and no bundled generator of that name. "
        f"Nearest: {', '.join(nearest) or 'none is bundled'}. Fit one on your data with fit_generator."
    )


def available() -> list[dict[str, Any]]:
    """The bundled generators as flat rows: name, method, data, surrogate, radii, size and measured protection."""
    rows = []
    for name, folder in sorted(bundled().items()):
        record = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        config, card = record["config"], record.get("card", {})
        rows.append(
            {
                "name": name,
                "method": config["method"],
                "data": card.get("data", "unknown"),
                "surrogate": config["surrogate"],
                "image_size": config["image_size"],
                "num_classes": config["num_classes"],
                "rho_u": config["rho_u"],
                "rho_a": config["rho_a"],
                "bytes": (folder / WEIGHTS_FILE).stat().st_size,
                "measured": card.get("measured", {}),
            }
        )
    return rows

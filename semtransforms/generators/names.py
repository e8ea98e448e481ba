"""What a generator's name leads to: a folder, a repository on the Hub, or, by a short name, one of these."""

from __future__ import annotations

import functools
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from semtransforms.core.hub import CONFIG_FILE, WEIGHTS_FILE, fetch
from semtransforms.core.names import unknown

_PACKAGE = Path(__file__).parents[1]
# the wheel carries the generators inside the package, a checkout beside it
_BUNDLED = (_PACKAGE / "pretrained", _PACKAGE.parent / "pretrained")

_REPOSITORY = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?", re.ASCII)


class OnHub(NamedTuple):
    """A repository on the Hub, and the branch, tag or commit of it."""

    repo_id: str
    revision: str | None


class StandIn(NamedTuple):
    """The short name that serves for one which is not fitted yet."""

    name: str


# The short names that no folder in pretrained/ has, or whose folder there has no weights: one line each, with the full
# commit, so that a name means the same bytes everywhere and always, as in
# "sem-digits": OnHub("org/sem-digits", "0123456789abcdef0123456789abcdef01234567"),
TABLE: Mapping[str, OnHub | StandIn] = {
    "sem-imagenet100": StandIn("sem-imagenet100-small"),
}


def shipped() -> dict[str, Path]:
    """The folders that came with this installation, with weights or without: name to folder."""
    return {
        folder.name: folder
        for place in reversed(_BUNDLED)
        if place.is_dir()
        for folder in sorted(place.iterdir())
        if (folder / CONFIG_FILE).is_file()
    }


def short_names() -> dict[str, Path | OnHub | StandIn]:
    """Every short name that leads to a generator; one that came with this installation goes before the Hub's."""
    bundled = {name: folder for name, folder in shipped().items() if (folder / WEIGHTS_FILE).is_file()}
    found = {**TABLE, **bundled}
    return {name: entry for name, entry in found.items() if not isinstance(entry, StandIn) or entry.name in found}


def resolve(
    name: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """Find a generator's folder, and download it where it is on the Hub.

    A folder goes before a short name: whoever has fitted a generator of their own must not be given the published
    one, which others can wash out. A folder without ``config.json`` and ``model.safetensors`` hides no short name.

    Args:
        name: an existing folder; ``org/name`` or ``org/name@revision`` on the Hub; or a short name such as
            ``"sem-digits"``.
        revision: branch, tag or commit on the Hub, in place of ``@revision``.
        token, cache_dir, local_files_only: for the Hub, as for :func:`semtransforms.core.hub.fetch`.

    Returns:
        The folder with ``config.json`` and ``model.safetensors``.

    Raises:
        ValueError: nothing of that name, and the message lists the nearest ones; ``revision`` where it has no meaning.
        FileNotFoundError: the folder or repository holds no generator.
        OSError: the Hub cannot be reached, or refuses.
    """
    found = _look_up(str(name))
    for wanted in (revision, None if isinstance(found, Path) else found.revision):
        if wanted and ".." in wanted.split("/"):  # it names files in the cache
            raise ValueError(f"revision must be a branch, tag or commit, got {wanted!r}.")
    if revision is not None and (isinstance(found, Path) or found.revision is not None):
        raise ValueError(
            f"revision={revision!r} is for a repository org/name, got the generator {str(name)!r}. Leave it out."
        )
    if isinstance(found, Path):
        return found
    return fetch(
        found.repo_id,
        revision or found.revision or "main",
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
    )


def _look_up(name: str) -> Path | OnHub:
    """What a name leads to: a folder with a generator, or a place on the Hub."""
    folder, known = Path(name), short_names()
    try:
        folder = folder.expanduser()
        there = folder.is_dir()
    except (RuntimeError, OSError):  # no such user, or longer than any path may be
        there = False
    if there and (name not in known or any((folder / part).exists() for part in (CONFIG_FILE, WEIGHTS_FILE))):
        for required in (CONFIG_FILE, WEIGHTS_FILE):
            if not (folder / required).is_file():
                pickled = sorted(p.name for suffix in ("bin", "pt", "pth", "pkl") for p in folder.glob(f"*.{suffix}"))
                why = f"; it has {', '.join(pickled)}, and pickled weights are never loaded" if pickled else ""
                raise FileNotFoundError(
                    f"generator {name!r} has no {required}{why}. Write it with NoiseGenerator.save_pretrained."
                )
        return folder
    entry = known.get(name)
    if isinstance(entry, StandIn):
        _say_stand_in(name, entry.name)
        return _look_up(entry.name)
    if entry is not None:
        return entry
    if parts := _REPOSITORY.fullmatch(name):
        return OnHub(parts[1], parts[2])
    why = "it is not fitted yet" if name in TABLE else "no such folder or short name"
    raise ValueError(
        f"{unknown('generator', name, sorted(known))} ({why}, and not org/name on the Hub). Fit one on your data with "
        "fit_generator."
    )


@functools.cache  # once is enough
def _say_stand_in(name: str, other: str) -> None:
    warnings.warn(f"generator {name!r} is not fitted yet: {other!r} serves in its place.", stacklevel=5)


def available() -> list[dict[str, Any]]:
    """The short names as flat rows: name, method, data, surrogate, radii, size, place and measured protection.

    What only the Hub knows is None: nothing is fetched.
    """
    records, rows = shipped(), []
    for name, entry in sorted(short_names().items()):
        folder = records.get(entry.name if isinstance(entry, StandIn) else name)
        record = {} if folder is None else json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        config, card = record.get("config", {}), record.get("card", {})
        weights = None if folder is None else folder / WEIGHTS_FILE
        facts = ("method", "surrogate", "image_size", "num_classes", "rho_u", "rho_a")
        rows.append(
            {
                "name": name,
                **{fact: config.get(fact) for fact in facts},
                "data": card.get("data"),
                "bytes": weights.stat().st_size if weights and weights.is_file() else None,
                "place": "bundled" if isinstance(entry, Path) else "@".join(filter(None, entry)),
                "measured": card.get("measured", []),
            }
        )
    return rows

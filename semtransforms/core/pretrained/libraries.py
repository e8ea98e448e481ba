"""Networks of timm and torchvision by name: ``timm/efficientnet_lite0``, ``torchvision/resnet18``.

What differs between the two libraries is a row of `LIBRARIES`. timm is imported when one of its networks is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from torch import nn

from semtransforms.core import hub
from semtransforms.core.models import MODELS, look_up
from semtransforms.core.names import unknown

DEFAULT = "default"  # the weights that a library itself would take


class Pixels(NamedTuple):
    """How a network was trained to see images.

    Args:
        side: of the square, in pixels.
        fixed: whether it takes no other size.
        mean, std: of each channel, of pixels in [0, 1]; it sees (x - mean) / std.
    """

    side: int
    fixed: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Library(NamedTuple):
    """A row of `LIBRARIES`; networks and weights are given by their names in the library."""

    names: Callable[[], Sequence[str]]
    build: Callable[[str], nn.Module]  # freshly drawn, with the head of the published weights
    heads: Callable[[nn.Module], tuple[str, ...]]  # of its last linear layer, the names; most have one
    put_head: Callable[[nn.Module, int], None]  # a new one for so many classes; 0: it gives the features
    weights: Callable[[str], Sequence[str]]  # that are published for a network, the default first
    pixels: Callable[[str, str], Pixels]  # with such weights
    fetch: Callable[[str, str], Path]  # their file, or a folder that holds it, in the user's cache


_LISTS = "timm.list_models(), torchvision.models.list_models()"


def smallest_side(network: str, width: int | None = None) -> int:
    """The smallest images in pixels that a network takes, as far as that is known.

    Args:
        network: a name of :data:`~semtransforms.core.models.MODELS`, or ``"timm/..."``, ``"torchvision/..."``.
        width: asked for, or ``None``.

    Raises:
        ValueError: unknown, with the nearest names there are; a width for a network that has none.
        ModuleNotFoundError: it needs timm, which is not installed.
    """
    if network in MODELS:
        return look_up(network, width).smallest
    if not is_of_library(network):
        names = [*MODELS, *_all_names()]
        bare, _, tag = network.removeprefix("timm/").partition(".")
        if tag and f"timm/{bare}" in names:  # as timm names a network together with its weights
            raise ValueError(
                f"network {network!r} names weights too. Give them as pretrained: network='timm/{bare}', "
                f"pretrained={tag!r} (--network timm/{bare} --pretrained {tag})."
            )
        named_so = [each for each in names if each.endswith(f"/{network}")]  # the library was left out
        raise ValueError(unknown("network", network, named_so or names, all_in=_LISTS))
    if width is not None:
        raise ValueError(f"width={width} given for {network!r}, which comes in one width. Leave it out.")
    return 1


def is_of_library(network: Any) -> bool:
    """Whether it is the name of a network of timm or torchvision.

    Raises:
        ModuleNotFoundError: it would be of timm, which is not installed.
    """
    library, _, name = network.partition("/") if isinstance(network, str) else ("", "", "")
    return library in LIBRARIES and name in LIBRARIES[library].names()


def find(network: str) -> tuple[Library, str]:
    """The library of a network, and its name there.

    Args:
        network: for which :func:`is_of_library` holds.
    """
    library, _, name = network.partition("/")
    return LIBRARIES[library], name


def _all_names() -> list[str]:
    found = []
    for library, row in LIBRARIES.items():
        try:
            found += [f"{library}/{name}" for name in row.names()]
        except ModuleNotFoundError:
            continue
    return found


def _timm() -> Any:
    try:
        import timm
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "networks named timm/... come with timm, which is not installed: pip install 'semtransforms[timm]'"
        ) from None
    return timm


def _timm_build(name: str) -> nn.Module:
    network: nn.Module = _timm().create_model(name, pretrained=False)
    return network


def _timm_heads(network: nn.Module) -> tuple[str, ...]:
    heads: Any = network.pretrained_cfg["classifier"] or ()  # type: ignore[index]
    return (heads,) if isinstance(heads, str) else tuple(heads)


def _timm_put_head(network: nn.Module, num_classes: int) -> None:
    if not hasattr(network, "reset_classifier"):
        name = network.pretrained_cfg["architecture"]  # type: ignore[index]
        raise ValueError(
            f"network 'timm/{name}' names no classes: it is a part of a larger model. Use a classifier, such as "
            "'timm/vit_base_patch16_224'."
        )
    network.reset_classifier(num_classes)  # type: ignore[operator]


def _timm_weights(name: str) -> list[str]:
    found: Mapping[str, Any] = _timm().models.get_arch_pretrained_cfgs(name)
    return [full.partition(".")[2] for full, config in found.items() if config.hf_hub_id]


def _timm_config(name: str, weights: str) -> Any:
    return _timm().models.get_pretrained_cfg(name if weights == DEFAULT else f"{name}.{weights}")


def _timm_pixels(name: str, weights: str) -> Pixels:
    config = _timm_config(name, weights)
    data = _timm().data.resolve_data_config(pretrained_cfg=config.to_dict())
    return Pixels(data["input_size"][-1], config.fixed_input_size, tuple(data["mean"]), tuple(data["std"]))


def _timm_fetch(name: str, weights: str) -> Path:
    return hub.fetch(_timm_config(name, weights).hf_hub_id, what="network")


# Without their further heads, which give several outputs in training; and as their weights want them, which come from
# another library: they undo the usual normalisation themselves.
_INCEPTION = {"aux_logits": False, "transform_input": True, "init_weights": True}


def _torchvision_names() -> list[str]:
    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def _torchvision_build(name: str) -> nn.Module:
    options = _INCEPTION if name in ("googlenet", "inception_v3") else {}
    network: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    return network


def _torchvision_heads(network: nn.Module) -> tuple[str, ...]:
    return tuple(name for name, part in network.named_modules() if isinstance(part, nn.Linear | nn.Conv2d))[-1:]


def _torchvision_put_head(network: nn.Module, num_classes: int) -> None:
    (name,) = _torchvision_heads(network)
    old = network.get_submodule(name)
    if isinstance(old, nn.Conv2d):  # squeezenet's
        new: nn.Module = nn.Conv2d(old.in_channels, num_classes, 1) if num_classes else nn.Identity()
    else:
        new = nn.Linear(old.in_features, num_classes) if num_classes else nn.Identity()  # type: ignore[arg-type]
    network.set_submodule(name, new)


def _torchvision_weights(name: str) -> list[str]:
    return [each.name for each in torchvision.models.get_model_weights(name)]


def _torchvision_row(name: str, weights: str) -> Any:
    return torchvision.models.get_model_weights(name)[weights.upper() if weights == DEFAULT else weights]


def _torchvision_pixels(name: str, weights: str) -> Pixels:
    view = _torchvision_row(name, weights).transforms()
    return Pixels(view.crop_size[0], name.startswith(("vit_", "maxvit_")), tuple(view.mean), tuple(view.std))


def _torchvision_fetch(name: str, weights: str) -> Path:
    address = _torchvision_row(name, weights).url
    file = Path(torch.hub.get_dir(), "checkpoints", address.rpartition("/")[2])
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        begin_of_digest = re.search(r"-([0-9a-f]+)\.", file.name)
        try:
            torch.hub.download_url_to_file(address, str(file), begin_of_digest and begin_of_digest[1], progress=False)
        except OSError as error:
            raise OSError(
                f"the weights {weights!r} of network 'torchvision/{name}' are not in the cache, and {address} cannot "
                f"be fetched ({error}). Connect to the network once, or give a file that you have."
            ) from error
    return file


LIBRARIES: Mapping[str, Library] = {
    "timm": Library(
        lambda: _timm().list_models(),
        _timm_build,
        _timm_heads,
        _timm_put_head,
        _timm_weights,
        _timm_pixels,
        _timm_fetch,
    ),
    "torchvision": Library(
        _torchvision_names,
        _torchvision_build,
        _torchvision_heads,
        _torchvision_put_head,
        _torchvision_weights,
        _torchvision_pixels,
        _torchvision_fetch,
    ),
}

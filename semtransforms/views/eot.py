"""T, the distribution of transformations that noise is computed against: batched, differentiable, a draw per image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from semtransforms.core.checks import in_short
from semtransforms.core.config import Transformation
from semtransforms.core.keys import fold_in, index_keys
from semtransforms.core.limits import check_arguments
from semtransforms.core.names import unknown
from semtransforms.views.catalogue import CHANGES
from semtransforms.views.members import BitDepth, Crop, Fixed, Flip, Jpeg, Kornia, OneOf
from semtransforms.views.resized_crop import ResizedCrop


class EOT(nn.Module):
    """t ~ T: members applied in order, each with its own draw per image.

    Args:
        members: modules with ``draw`` and ``forward``, such as :class:`Crop`, :class:`Kornia` and :class:`OneOf`.
    """

    members: Any  # a ModuleList, whose items have draw besides forward

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor, keys: Tensor) -> Tensor:
        """Transform each image by the draw its key stands for.

        Args:
            images: float (N, C, H, W) in [0, 1].
            keys: int64 (N,), on the same device.

        Returns:
            float (N, C, H, W), differentiable; (N, C, S, S), S the shorter side, behind ``resized-crop``.
        """
        for number, member in enumerate(self.members):
            images = member(images, member.draw(fold_in(keys, number), images.shape))
        return images


def build_eot(transformations: Sequence[Transformation]) -> EOT:
    """T from its names.

    Args:
        transformations: ``crop``, ``flip``, ``resized-crop``, ``one-of`` (``members``, each a name with arguments, and
            their ``probabilities``), those of ``views/catalogue.py``, or classes of ``kornia.augmentation``, with their
            arguments.

    Raises:
        ValueError: an unknown name (with the nearest ones), arguments that the transformation does not take, or one
            that gives no gradient.
    """
    return EOT([_member(each.name, each.arguments) for each in transformations])


def _member(name: str, given: Mapping[str, Any]) -> nn.Module:
    if not isinstance(name, str) or not isinstance(given, Mapping):
        raise ValueError(f"a transformation has a name and a mapping of arguments, got {name!r} and {in_short(given)}")
    check_arguments(name, given)  # before anything is made of them
    arguments = dict(given)
    if name in WITHOUT_GRADIENT:
        raise ValueError(
            f"transformation {name!r} gives no gradient, so noise cannot be computed through it. "
            + ("Use 'bit-depth'." if name == "RandomPosterize" else "Leave it out.")
        )
    try:
        if name in _OWN:
            return _OWN[name](**arguments)
        # kornia is imported where one of its is asked for: 23 MB that who protects with the others needs not pay for
        import kornia.augmentation

        if name in kornia.augmentation.__all__:
            return _from_kornia(getattr(kornia.augmentation, name), arguments)
    except TypeError as error:
        raise ValueError(f"transformation {name!r} does not take {arguments}: {error}") from None
    raise ValueError(
        unknown("transformation", name, [*_OWN, *kornia.augmentation.__all__], all_in="kornia.augmentation.__all__")
    )


def _one_of(members: Sequence[Mapping[str, Any]], probabilities: Sequence[float]) -> OneOf:
    for each in members:
        if not isinstance(each, Mapping) or "name" not in each or each.keys() - {"name", "arguments"}:
            raise ValueError(f"a member of 'one-of' has a name and arguments, got {in_short(each)}")
    return OneOf([_member(each["name"], each.get("arguments", {})) for each in members], probabilities)


def _from_kornia(augmentation: Callable[..., Any], arguments: dict[str, Any]) -> Kornia:
    from kornia.augmentation import AugmentationBase3D

    alone = f"kornia.augmentation.{augmentation.__name__} is not an augmentation of single images"
    side = _SMALL
    try:
        built = augmentation(**arguments)
        known = hasattr(built, "forward_parameters") and hasattr(built, "p")
        if known:
            side = _try(built, arguments)
    except Exception as error:  # its own checks raise what they like
        raise ValueError(
            f"transformation {augmentation.__name__!r} does not take {in_short(arguments)}: {in_short(str(error))}"
        ) from error
    if not known or isinstance(built, AugmentationBase3D):
        raise ValueError(alone)
    try:
        _change_apart(built, side)
    except IndexError:
        raise ValueError(f"{alone}: what it draws names other images of its batch. Leave it out.") from None
    return Kornia(built)


def _try(augmentation: nn.Module, arguments: Mapping[str, Any]) -> int:
    """Let it change one image: some look at their arguments only then, which would be after the data are read.

    Returns:
        The side of that image, in pixels.

    Raises:
        Exception: it changes none, neither a small one, nor one that can be cut into so many pieces, nor a large one.
    """
    pieces = math.lcm(*(number for number in _numbers(list(arguments.values())) if 0 < number <= _SMALL))
    errors = []
    for side in (_SMALL, min(-(-_SMALL // pieces) * pieces, _LARGE), _LARGE):
        try:
            _change(augmentation, torch.Size((1, 3, side, side)))
            return side
        except Exception as error:
            errors.append(error)
    raise errors[0]


def _change(augmentation: nn.Module, shape: torch.Size) -> None:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        drawn: dict[str, Any] = augmentation.forward_parameters(shape)  # type: ignore[operator]
        drawn["batch_prob"] = torch.ones(1)  # it is changed, however rarely that is
        augmentation(torch.zeros(shape), params=drawn)


def _change_apart(augmentation: nn.Module, side: int) -> None:
    """Let it change two images, each by a draw that was made among many.

    Raises:
        IndexError: it mixes the images of a batch, and the draw names one of the many.
    """
    member = Kornia(augmentation)
    member.table_size = _DRAWS
    shape = (2, 3, side, side)
    drawn = member.draw(index_keys(torch.arange(2), 0), shape)
    with torch.no_grad():
        augmentation(torch.zeros(shape), params={**drawn, "batch_prob": torch.ones(2)})


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, int):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _numbers(each)


_SMALL, _LARGE = 64, 512  # px
_DRAWS = 64

# of the catalogue's and of kornia's
WITHOUT_GRADIENT = ("denoise", "RandomPosterize", "RandomEqualize", "RandomClahe")

_OWN: Mapping[str, Callable[..., nn.Module]] = {
    "crop": Crop,
    "flip": Flip,
    "resized-crop": ResizedCrop,
    "one-of": _one_of,
    **{name: partial(Fixed, function, name) for name, function in CHANGES.items() if name not in WITHOUT_GRADIENT},
    "jpeg": Jpeg,
    "bit-depth": BitDepth,
}

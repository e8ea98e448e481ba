"""T, the distribution of transformations that noise is computed against: batched, differentiable, one draw per image.

A member of T is a module with two methods: ``draw(keys, shape)`` turns per-image keys into parameters, and
``forward(images, parameters)`` applies them. kornia does the image work; only the paper's own two are ours. kornia's
crop costs 9 % of a gradient of the convnet and ours 4 % (``tests/benchmarks/``), and its flip asks the device at every
call whether any image is touched, which keeps an accelerator waiting for the host. Both are tested equal to kornia's.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import kornia.augmentation
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semtransforms.core.config import Transformation
from semtransforms.core.keys import fold_in, keyed_uniform
from semtransforms.views.catalogue import DISTORTIONS, build_distortion

Parameters = dict[str, Tensor]


class Crop(nn.Module):
    """Pad with black and cut out a window of the original size, at a uniform place per image.

    Args:
        padding: black pixels added on each side.
    """

    def __init__(self, padding: int) -> None:
        super().__init__()
        if padding < 0:
            raise ValueError(f"padding must be >= 0 pixels, got {padding}")
        self.padding = padding

    def draw(self, keys: Tensor, shape: Sequence[int]) -> Parameters:
        """Offsets int64 (N, 2) of the window in the padded image: row and column, 0..2 * padding."""
        places = 2 * self.padding + 1
        return {"offset": (keyed_uniform(keys, (2,)) * places).to(torch.int64)}

    def forward(self, images: Tensor, parameters: Parameters) -> Tensor:
        """Float (N, C, H, W) to the same shape."""
        cropped: Tensor = _CropFunction.apply(images, parameters["offset"], self.padding)
        return cropped

    def extra_repr(self) -> str:
        return f"padding={self.padding}"


def _window(images: Tensor, offset: Tensor, padding: int) -> Tensor:
    count, channels, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    rows = torch.arange(height, device=images.device) + offset[:, :1]
    columns = torch.arange(width, device=images.device) + offset[:, 1:]
    places = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
    flat = padded.reshape(count, channels, -1)
    return flat.gather(2, places.view(count, 1, -1).expand(-1, channels, -1)).view(images.shape)


class _CropFunction(torch.autograd.Function):
    # a pixel lands in one place at most, so the adjoint is a crop by the opposite offset: no scatter_add

    @staticmethod
    def forward(ctx: Any, images: Tensor, offset: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(offset)
        ctx.padding = padding
        return _window(images, offset, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (offset,) = ctx.saved_tensors
        return _window(gradients[0], 2 * ctx.padding - offset, ctx.padding), None, None


class Flip(nn.Module):
    """Mirror an image left to right, or leave it as it is.

    Args:
        p: how often it is mirrored, 0..1.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p must be in 0..1, got {p}")
        self.p = p

    def draw(self, keys: Tensor, shape: Sequence[int]) -> Parameters:
        """Whether to mirror, bool (N,)."""
        return {"mirrored": keyed_uniform(keys, ()) < self.p}

    def forward(self, images: Tensor, parameters: Parameters) -> Tensor:
        """Float (N, C, H, W) to the same shape."""
        column = torch.arange(images.shape[3], device=images.device)
        source = torch.where(parameters["mirrored"][:, None], column.flip(0), column)
        flipped: Tensor = _FlipFunction.apply(images, source[:, None, None, :])
        return flipped

    def extra_repr(self) -> str:
        return f"p={self.p:g}"


class _FlipFunction(torch.autograd.Function):
    # a gather is its own adjoint, and faster than where(mirrored, images.flip(-1), images); tests/benchmarks/eot.py

    @staticmethod
    def forward(ctx: Any, images: Tensor, source: Tensor) -> Tensor:
        ctx.save_for_backward(source)
        return images.gather(3, source.expand(images.shape))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (source,) = ctx.saved_tensors
        return gradients[0].gather(3, source.expand(gradients[0].shape)), None


class Kornia(nn.Module):
    """Any kornia augmentation as a member of T, with a draw per image.

    kornia draws a batch from one global random stream. Here it draws a fixed table of parameter sets once, and each
    image picks its row by its key; whether an image is touched at all (``p``) is drawn by key, exactly.

    Args:
        augmentation: an instance from ``kornia.augmentation`` that keeps the image size.
    """

    table_size = 4096

    augmentation: Any  # kornia is untyped

    def __init__(self, augmentation: nn.Module) -> None:
        super().__init__()
        self.augmentation = augmentation
        self._tables: dict[tuple[int, ...], Parameters] = {}

    def _table(self, shape: tuple[int, ...]) -> Parameters:
        if shape not in self._tables:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                self._tables[shape] = self.augmentation.forward_parameters(torch.Size((self.table_size, *shape)))
        return self._tables[shape]

    def draw(self, keys: Tensor, shape: Sequence[int]) -> Parameters:
        """kornia's parameters for these images, on their device."""
        probability, row = keyed_uniform(keys, (2,)).unbind(1)
        rows = (row * self.table_size).to(torch.int64)
        drawn: Parameters = {}
        for name, value in self._table(tuple(shape[1:])).items():
            value = value.to(keys.device)
            per_image = value.ndim > 0 and len(value) == self.table_size
            drawn[name] = value[rows] if per_image else value
        drawn["batch_prob"] = (probability < self.augmentation.p).float()
        drawn["forward_input_shape"] = torch.tensor(tuple(shape))
        return drawn

    def forward(self, images: Tensor, parameters: Parameters) -> Tensor:
        """Float (N, C, H, W) in [0, 1] to the same shape."""
        changed: Tensor = self.augmentation(images, params=parameters)
        if changed.shape != images.shape:
            raise ValueError(
                f"{self.augmentation} changes the image size from {tuple(images.shape[2:])} to "
                f"{tuple(changed.shape[2:])}. T must keep it: give that augmentation the size of the images."
            )
        return changed


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
            float (N, C, H, W), differentiable.
        """
        for number, member in enumerate(self.members):
            images = member(images, member.draw(fold_in(keys, number), images.shape))
        return images


class OneOf(nn.Module):
    """One member for each image, or none.

    On a CPU a member is computed for the images that drew it. On a device all are computed for all, since asking which
    images want which would keep it waiting.

    Args:
        members: as for :class:`EOT`.
        probabilities: of each; the rest of 1 leaves an image as it is.
    """

    members: Any

    def __init__(self, members: Sequence[nn.Module], probabilities: Sequence[float]) -> None:
        super().__init__()
        if len(members) != len(probabilities):
            raise ValueError(
                f"probabilities must be one for each member, got {len(probabilities)} for {len(members)} members"
            )
        if not (probabilities and all(p >= 0 for p in probabilities) and sum(probabilities) <= 1 + 1e-6):
            raise ValueError(f"probabilities must be >= 0 and sum to at most 1, got {list(probabilities)}")
        self.members, self.probabilities = nn.ModuleList(members), tuple(probabilities)

    def draw(self, keys: Tensor, shape: Sequence[int]) -> Parameters:
        """Which member, int64 (N,), and the draws of each for the images that it is computed for."""
        uniform = keyed_uniform(keys, ())
        chosen = torch.zeros_like(keys)
        for limit in accumulate(self.probabilities):  # numbers: a tensor of them would have to be copied to the device
            chosen += uniform >= limit
        drawn = {"chosen": chosen}
        for number, member in enumerate(self.members):
            own = keys[_computed(chosen == number)]
            parameters = member.draw(fold_in(own, number), (len(own), *shape[1:]))
            drawn |= {f"{number} {name}": value for name, value in parameters.items()}
        return drawn

    def forward(self, images: Tensor, parameters: Parameters) -> Tensor:
        """Float (N, C, H, W) to the same shape."""
        result = images
        for number, member in enumerate(self.members):
            own = {name.partition(" ")[2]: value for name, value in parameters.items() if name.startswith(f"{number} ")}
            chosen = parameters["chosen"] == number
            computed = _computed(chosen)
            if isinstance(computed, slice):
                chosen = chosen[:, None, None, None]
                # grey in the place of the others: where a derivative is infinite (gamma at black), their 0 would
                # become NaN
                result = torch.where(chosen, member(torch.where(chosen, images, 0.5), own), result)
            elif len(computed):
                changed = member(images[computed], own)
                dtype = torch.promote_types(result.dtype, changed.dtype)
                result = result.to(dtype).index_copy(0, computed, changed.to(dtype))
        return result

    def extra_repr(self) -> str:
        return f"probabilities={self.probabilities}"


def _computed(chosen: Tensor) -> Tensor | slice:
    """The images that a member is computed for: bool (N,) to the places of those that drew it, or everywhere."""
    return chosen.nonzero().flatten() if chosen.device.type == "cpu" else slice(None)


def build_eot(transformations: Sequence[Transformation]) -> EOT:
    """T from its names.

    Args:
        transformations: ``crop``, ``flip``, ``one-of`` (``members``, each a name with arguments, and their
            ``probabilities``), those of ``views/catalogue.py``, or classes of ``kornia.augmentation``, with their
            arguments.

    Raises:
        ValueError: an unknown name (with the nearest ones), arguments that the transformation does not take, or one
            that gives no gradient.
    """
    return EOT([_member(each.name, dict(each.arguments)) for each in transformations])


def _member(name: str, arguments: dict[str, Any]) -> nn.Module:
    try:
        if name == "one-of":
            return _one_of(**arguments)
        if name in _OWN:
            return _OWN[name](**arguments)
        if name in DISTORTIONS:
            return build_distortion(name, arguments)
        if name in kornia.augmentation.__all__:
            return _from_kornia(name, arguments)
    except TypeError as error:
        raise ValueError(f"transformation {name!r} does not take {arguments}: {error}") from None
    nearest = difflib.get_close_matches(name, [*_OWN, "one-of", *DISTORTIONS, *kornia.augmentation.__all__], n=3)
    raise ValueError(
        f"unknown transformation {name!r}"
        + (f", did you mean {' or '.join(map(repr, nearest))}?" if nearest else "; use crop or flip")
    )


_OWN: dict[str, type[nn.Module]] = {"crop": Crop, "flip": Flip}
WITHOUT_GRADIENT = ("RandomPosterize", "RandomEqualize", "RandomClahe", "RandomMosaic")  # of kornia's


def _one_of(members: Sequence[Mapping[str, Any]], probabilities: Sequence[float]) -> OneOf:
    for each in members:
        if "name" not in each or each.keys() - {"name", "arguments"}:
            raise ValueError(f"a member of 'one-of' has a name and arguments, got {dict(each)}")
    return OneOf([_member(each["name"], dict(each.get("arguments", {}))) for each in members], probabilities)


def _from_kornia(name: str, arguments: dict[str, Any]) -> Kornia:
    if name in WITHOUT_GRADIENT:
        raise ValueError(
            f"transformation {name!r} gives no gradient, so noise cannot be computed through it"
            + (". Use 'bit-depth'." if name == "RandomPosterize" else ". Leave it out.")
        )
    built: Any = getattr(kornia.augmentation, name)(**arguments)
    if not hasattr(built, "forward_parameters") or not hasattr(built, "p"):
        raise ValueError(f"kornia.augmentation.{name} is not an augmentation of single images")
    return Kornia(built)

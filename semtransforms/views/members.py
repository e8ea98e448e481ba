"""The members of T: modules with ``draw(keys, shape)``, from keys to parameters, and ``forward(images, parameters)``.

The paper's own two are ours: kornia's crop costs 9 % of a gradient of the convnet and ours 4 % (``tests/benchmarks/``),
and its flip asks the device at every call whether any image is touched, which keeps an accelerator waiting for the
host. Both are tested equal to kornia's. Other members change every image that they are given: how often, ``one-of``
says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semtransforms.core.checks import check_integer
from semtransforms.core.keys import fold_in, keyed_uniform
from semtransforms.views.catalogue import truncate
from semtransforms.views.jpeg import jpeg

Parameters = dict[str, Tensor]


class Crop(nn.Module):
    """Pad with black and cut out a window of the original size, at a uniform place per image.

    Args:
        padding: black pixels added on each side.
    """

    def __init__(self, padding: int) -> None:
        super().__init__()
        check_integer("padding", padding, low=0)
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


def _range(name: str, limits: Sequence[int], smallest: int, largest: int) -> tuple[int, int]:
    ends = tuple(limits)
    if len(ends) != 2 or any(isinstance(end, bool) or not isinstance(end, int) for end in ends):
        raise ValueError(f"{name} must be two whole numbers, lowest and highest, got {limits!r}")
    if not smallest <= ends[0] <= ends[1] <= largest:
        raise ValueError(f"{name} must rise within {smallest}..{largest}, got {limits!r}")
    return ends[0], ends[1]


def _whole(keys: Tensor, low: int, high: int) -> Tensor:
    return low + (keyed_uniform(keys, ()) * (high - low + 1)).to(torch.int64)


class Fixed(nn.Module):
    """The same function of every image, with nothing to draw.

    Args:
        function: float (N, 3, H, W) in [0, 1] to the same shape, image by image.
        name: for ``repr``.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], name: str) -> None:
        super().__init__()
        self.function, self.name = function, name

    def draw(self, keys: Tensor, shape: Sequence[int]) -> Parameters:
        """Nothing."""
        return {}

    def forward(self, images: Tensor, parameters: Parameters) -> Tensor:
        """Float (N, 3, H, W) to the same shape."""
        return self.function(images)

    def extra_repr(self) -> str:
        return self.name


class Jpeg(nn.Module):
    """JPEG of a quality drawn for each image, with the gradient of :func:`semtransforms.views.jpeg.jpeg`.

    Args:
        quality: lowest and highest, whole numbers 1..100.
    """

    def __init__(self, quality: Sequence[int]) -> None:
        super().__init__()
        self.low, self.high = _range("quality", quality, 1, 100)

    def draw(self, keys: Tensor, shape: Sequence[int]) -> Parameters:
        """The quality, int64 (N,)."""
        return {"quality": _whole(keys, self.low, self.high)}

    def forward(self, images: Tensor, parameters: Parameters) -> Tensor:
        """Float (N, 3, H, W) to the same shape."""
        return jpeg(images, parameters["quality"])

    def extra_repr(self) -> str:
        return f"quality=({self.low}, {self.high})"


class BitDepth(nn.Module):
    """The upper bits of each byte, truncated; the gradient passes straight through, as if nothing had been cut off.

    Args:
        bits: fewest and most, whole numbers 1..8, drawn for each image.
    """

    def __init__(self, bits: Sequence[int]) -> None:
        super().__init__()
        self.low, self.high = _range("bits", bits, 1, 8)

    def draw(self, keys: Tensor, shape: Sequence[int]) -> Parameters:
        """How many bits are kept, int64 (N,)."""
        return {"bits": _whole(keys, self.low, self.high)}

    def forward(self, images: Tensor, parameters: Parameters) -> Tensor:
        """Float (N, 3, H, W) to the same shape."""
        kept = truncate(images.detach(), parameters["bits"][:, None, None, None])
        return images + (kept - images).detach()

    def extra_repr(self) -> str:
        return f"bits=({self.low}, {self.high})"


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

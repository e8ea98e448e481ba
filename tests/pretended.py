"""A GPU for a machine that has none: finds code that leaves a tensor on the wrong device.

Tensors "on cuda:0" are CPU tensors whose memory is noted down. Python's calls of torch are watched: who asks such a
tensor where it lies is told ``cuda:0``, and tensors of two devices do not go into one call, by CUDA's own rules
(``tests/core/test_devices.py`` compares them with those of torch's FakeTensorMode). The numbers are real. So whole fits
run, and give the CPU's bytes; what differs on a real GPU, speed and the last bit of a sum, is not seen here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._C._functorch import get_unwrapped, is_functorch_wrapped_tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")

# memory that is "on the GPU"; the reference keeps its address from being given to another, and outlives the mode, since
# tensors do that wait in caches
_there: dict[int, StorageWeakRef] = {}


def where(tensor: Tensor) -> torch.device:
    """The device that a tensor is on, pretended or not."""
    return GPU if _storage(tensor)._cdata in _there else CPU


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    while is_functorch_wrapped_tensor(tensor):  # by vmap or grad
        tensor = get_unwrapped(tensor)
    return tensor.untyped_storage()


def _put(tensor: Any, device: torch.device) -> Any:
    if isinstance(tensor, Tensor) and device == GPU:
        storage = _storage(tensor)
        _there[storage._cdata] = StorageWeakRef(storage)
    return tensor


def _moved(tensor: Tensor, source: Tensor, device: torch.device) -> Tensor:
    """What came of a source, on a device; memory of its own where it was on another one."""
    if where(source) != device and _storage(tensor)._cdata == _storage(source)._cdata:
        tensor = tensor.clone()
    return _put(tensor, device)


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """Let torch find a GPU in this block."""
    found = {
        "is_available": True, "device_count": 1, "is_bf16_supported": False, "mem_get_info": (1 << 34, 1 << 34),
        "memory_reserved": 0, "memory_allocated": 0, "empty_cache": None, "manual_seed_all": None,
        "get_rng_state": torch.zeros(16, dtype=torch.uint8), "set_rng_state": None,
    }  # fmt: skip
    answers = {name: mock.Mock(return_value=value) for name, value in found.items()}
    with (
        mock.patch.multiple(torch.cuda, **answers),
        mock.patch.object(torch.optim.Optimizer, "_accelerator_graph_capture_health_check"),
        _Watching(),
    ):
        yield


class _Watching(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in _ANSWERS:
            return _ANSWERS[func](*args)
        name = getattr(func, "__name__", "")
        if func in (Tensor.data.__set__, Tensor.grad.__set__) or name in _ACROSS:
            return func(*args, **kwargs)
        wanted, args, kwargs = _take_device(name, args, kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if name in _MOVING and isinstance(args[0], Tensor):
            return _moved(func(*args, **kwargs), args[0], wanted or where(args[0]))
        device = wanted or _common(name, args, tensors)
        if name in _OF_NUMPY and device == GPU:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy it first.")
        if kwargs.get("generator") is not None and kwargs["generator"].device != device:
            raise RuntimeError(f"Expected a {device.type!r} device type for generator but found 'cpu'")
        made = func(*args, **kwargs)
        for leaf in tree_leaves(made):
            _put(leaf, device)
        return made


_ANSWERS: dict[Any, Callable[..., Any]] = {
    Tensor.device.__get__: where,
    Tensor.is_cuda.__get__: lambda tensor: where(tensor) == GPU,
    Tensor.is_cpu.__get__: lambda tensor: where(tensor) == CPU,
    Tensor.get_device: lambda tensor: 0 if where(tensor) == GPU else -1,
}
_ACROSS = {"copy_", "_has_compatible_shallow_copy_type"}  # for tensors of two devices
_MOVING = {"to", "cpu", "cuda", "as_tensor", "asarray"}
_WRITING = {"__iadd__", "__isub__", "__imul__", "__itruediv__"}
_OF_NUMPY = {"numpy", "__array__"}


def _take_device(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[torch.device | None, tuple[Any, ...], dict[str, Any]]:
    """The device that a call asks for, and the call without it."""
    asked: Any = {"cpu": "cpu", "cuda": "cuda"}.get(name)
    if kwargs.get("device") is not None:
        asked = kwargs["device"]
        kwargs = kwargs | {"device": "cpu"}
    elif name == "to":
        first = args[1] if len(args) > 1 else None
        if isinstance(first, Tensor):
            asked = where(first)
        elif isinstance(first, (str, torch.device)):
            asked, args = first, (args[0], "cpu", *args[2:])
    return None if asked is None else GPU if torch.device(asked).type == "cuda" else CPU, args, kwargs


def _common(name: str, args: tuple[Any, ...], tensors: list[Tensor]) -> torch.device:
    """The device that a call works on.

    Raises:
        RuntimeError: it is given tensors of two.
    """
    if name in ("__getitem__", "__setitem__", "index_put_"):  # an index may lie on the CPU wherever the tensor lies
        own = where(args[0])
        indices = [leaf for leaf in tree_leaves(args[1]) if isinstance(leaf, Tensor)]
        if any(where(index) not in (CPU, own) for index in indices):
            raise RuntimeError(f"indices should be either on cpu or on the same device as the indexed tensor ({own})")
        if name == "__setitem__" and not indices:  # into a slice a value is copied
            return own
        tensors = [args[0], *(leaf for leaf in tree_leaves(args[2:]) if isinstance(leaf, Tensor))]
    places = [where(tensor) for tensor in tensors]
    if GPU not in places:
        return CPU
    # numbers alone in a tensor may come from the CPU, unless one is what is written to
    writes = (name.endswith("_") and not name.endswith("__")) or name in _WRITING
    for number, (place, tensor) in enumerate(zip(places, tensors, strict=True)):
        if place == CPU and (tensor.ndim or (writes and number == 0)):
            raise RuntimeError(f"{name}: Expected all tensors to be on the same device, but found cuda:0 and cpu!")
    return GPU

"""What a step costs, counted where torch sends operations to a device."""

from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

# what an accelerator cannot go on from before the host has looked at the values, or has counted them
WAITS = {
    "_local_scalar_dense", "nonzero", "masked_select", "unique_consecutive", "_unique2", "unique_dim", "is_nonzero",
    "equal", "repeat_interleave",
}  # fmt: skip


class Work(TorchDispatchMode):
    """Counts what is sent to the device."""

    def __init__(self):
        super().__init__()
        self.operations, self.waits, self.bytes = [], [], 0
        self.input_gradients = self.weight_gradients = 0
        self.images_in = []  # of the first convolution, that of three channels

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        indexed_by_mask = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if name in WAITS or indexed_by_mask:
            self.waits.append(name)
        if name == "convolution" and args[0].shape[1] == 3:
            self.images_in.append(len(args[0]))
        if name == "convolution_backward":
            to_input, to_weight, _ = args[-1]
            self.input_gradients += to_input
            self.weight_gradients += to_weight
        result = function(*args, **(kwargs or {}))
        known = {tensor.untyped_storage().data_ptr() for tensor in args if isinstance(tensor, torch.Tensor)}
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in known:
                self.bytes += tensor.untyped_storage().nbytes()
        self.operations.append(name)
        return result


@contextmanager
def counted():
    # a backward pass runs in this thread on the CPU, so the mode sees it too. What copies to the host is no operation
    # there, and is caught by its name
    with Work() as work, pytest.MonkeyPatch.context() as patch:
        for name in ("cpu", "tolist", "numpy"):
            patch.setattr(torch.Tensor, name, _recorded(work, name))
        yield work


def _recorded(work, name):
    original = getattr(torch.Tensor, name)

    def call(tensor, *arguments, **options):
        work.waits.append(name)
        return original(tensor, *arguments, **options)

    return call

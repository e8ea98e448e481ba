"""Which device, which precision, how much memory."""

from __future__ import annotations

import ctypes
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch

from semtransforms import __version__

ACCELERATORS = ("cuda", "mps", "xpu")  # the last two were not tried: there was no such machine


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """The device asked for, or the best one here.

    Args:
        device: ``None`` for CUDA if present, else the CPU.

    Raises:
        ValueError: the device does not exist on this machine.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device must be like 'cpu', 'cuda' or 'cuda:1', got {device!r}") from None
    if chosen.type not in ("cpu", *ACCELERATORS):
        named = ", ".join(map(repr, ACCELERATORS))
        raise ValueError(f"device must be 'cpu' or one of {named}, got {str(device)!r}: others are not supported.")
    if chosen.type in ACCELERATORS:
        count = getattr(torch, chosen.type).device_count()
        if (chosen.index or 0) >= count:
            raise ValueError(
                f"device={device!r} was asked for, but torch finds {count} of {chosen.type!r} on this machine. "
                "Use 'cpu'."
            )
    return chosen


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The type to run the network in, ``None`` for plain fp32.

    Args:
        precision: ``"auto"``, ``"fp32"`` or ``"bf16"``. ``"auto"`` takes bf16 only where the hardware multiplies
            it natively: elsewhere it is emulated (14 times slower than fp32 on an AVX2 CPU, measured).
        device: where the network runs.
    """
    if precision == "bf16":
        return torch.bfloat16
    if precision == "fp32":
        return None
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return torch.bfloat16 if native else None


def describe_arithmetic(precision: str, device: torch.device) -> dict[str, str]:
    """What decides the last level of noise beside images, labels, seed and generator (``tests/reliability``).

    Args:
        precision: as for :func:`autocast_dtype`.
        device: where the network runs.

    Returns:
        ``precision`` (the type that is computed in, which ``"auto"`` leaves to the hardware), ``device``, ``torch``,
        and on a CPU ``instructions``.
    """
    kind = "fp32" if autocast_dtype(precision, device) is None else "bf16"
    instructions = {} if device.type == "cuda" else {"instructions": torch.backends.cpu.get_cpu_capability()}
    return {"precision": kind, "device": device.type, "torch": torch.__version__, **instructions}


def free_memory(device: torch.device) -> int:
    """Bytes that can be allocated on a device now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(psutil.virtual_memory().available)


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGE = 4 << 20  # bytes


def keep_freed_memory() -> None:
    """Let glibc keep what a step frees for the next step, until it is to be given back; elsewhere do nothing.

    By default it hands tens of megabytes back to the system at every step and takes them again page by page: 17,000
    page faults and a fifth of the time of a step on two CPU cores.
    """
    _call_glibc("mallopt", _TRIM_THRESHOLD, 1 << 30)
    _call_glibc("mallopt", _MMAP_THRESHOLD, 1 << 30)


def give_back_freed_memory() -> None:
    """Let glibc hand all that is free back to the system now, and what is large as soon as it is; elsewhere do nothing.

    What is large gets pages of its own again: the parts of a photograph of 12 megapixels, 16 to 48 MB each, leave holes
    in memory that is kept, and took 400 MB of it in the place of 180.
    """
    _call_glibc("mallopt", _MMAP_THRESHOLD, _LARGE)
    _call_glibc("malloc_trim", 0)


def _call_glibc(name: str, *arguments: int) -> None:
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library has none of these
            getattr(ctypes.CDLL("libc.so.6"), name)(*arguments)


def describe_machine(device: torch.device | None = None) -> dict[str, Any]:
    """What stands beside a measured figure: processor, threads, versions.

    Args:
        device: where it was measured; default: as :func:`pick_device` chooses.
    """
    on_gpu = (device or pick_device()).type == "cuda"
    return {
        "processor": torch.cuda.get_device_name(device) if on_gpu else _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "semtransforms": __version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return platform.processor()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"

"""Device, precision and memory."""

from pathlib import Path

import pytest
import torch

from semtransforms.core.hardware import autocast_dtype, describe_arithmetic, free_memory, pick_device


def test_the_device_asked_for_or_a_clear_error():
    """A device that is not there must be an error with the remedy, not a crash in the middle of a fit."""
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="'tpu9'"):
        pick_device("tpu9")
    with pytest.raises(ValueError, match=r"'cpu' or one of 'cuda', 'mps', 'xpu', got 'meta'"):
        pick_device("meta")
    with pytest.raises(ValueError, match=r"'cuda:99'.*Use 'cpu'"):
        pick_device("cuda:99")


@pytest.mark.parametrize("kind", ["mps", "xpu"])
def test_other_accelerators_are_taken_where_torch_finds_them(kind, monkeypatch):
    """The guide says that they are: refused, an owner of such a machine waits a hundred times as long for nothing."""
    monkeypatch.setattr(getattr(torch, kind), "device_count", lambda: 0)
    with pytest.raises(ValueError, match=rf"device='{kind}'.*finds 0 of '{kind}'.*Use 'cpu'"):
        pick_device(kind)
    monkeypatch.setattr(getattr(torch, kind), "device_count", lambda: 1)
    assert pick_device(kind) == torch.device(kind)
    with pytest.raises(ValueError, match=f"{kind}:1"):
        pick_device(f"{kind}:1")
    assert autocast_dtype("auto", torch.device(kind)) is None  # not known to gain by bf16
    assert describe_arithmetic("auto", torch.device(kind))["device"] == kind


@pytest.mark.parametrize("amx", [False, True])
def test_auto_takes_bf16_only_where_the_processor_multiplies_it(monkeypatch, amx):
    """Emulated bf16 is many times slower than fp32: 'auto' must not choose it."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    cpu = torch.device("cpu")
    assert autocast_dtype("auto", cpu) == (torch.bfloat16 if amx else None)
    assert autocast_dtype("fp32", cpu) is None
    assert autocast_dtype("bf16", cpu) is torch.bfloat16


def test_free_memory_is_the_machines():
    """Too large a figure runs out of memory, too small a one makes every batch one image."""
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text() if meminfo.exists() else ""
    if "MemAvailable" not in lines:
        pytest.skip("this system does not tell its free memory in /proc/meminfo")
    total = next(int(line.split()[1]) * 1024 for line in lines.splitlines() if line.startswith("MemTotal"))
    assert 1 << 26 < free_memory(torch.device("cpu")) <= total

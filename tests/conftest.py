"""What several files of tests share: one torch thread a process, and a Hub that is not the real one."""

import os
from pathlib import Path

# Before torch is imported, here and in the processes that tests start. Threads of several processes on few cores wait
# for each other: a test of seconds then takes minutes.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from hub_server import HubServer
from huggingface_hub import constants

torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes hours, unless ``-m`` speaks of it."""
    if "long" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def playwright_engine():
    """What browsers are driven by: a process can run one of it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as engine:
        yield engine


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The Hub as this process sees it, with an empty cache and no token. huggingface-hub reads the environment once."""
    with HubServer() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.endpoint)
        template = running.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the plain path: xet speaks to servers of its own
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield running


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HF_TOKEN", HubServer.token)
    return HubServer.token

"""Storages that lie elsewhere, each of them empty."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import storage
from storage import Storage


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    yield from storage.serving()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Storage:
    return storage.bucket(s3_server, monkeypatch)


@pytest.fixture
def memory() -> Iterator[Storage]:
    yield from storage.memory()


@pytest.fixture
def disk(tmp_path: Path) -> Storage:
    (tmp_path / "server").mkdir()
    return Storage(f"disk:/{tmp_path}/server")


def _fixture(name: str, request: pytest.FixtureRequest) -> Storage:
    return request.getfixturevalue({"s3": "bucket"}.get(name, name))


@pytest.fixture(params=["memory", "s3"])
def stored(request: pytest.FixtureRequest) -> Storage:
    """A bucket of each kind."""
    return _fixture(request.param, request)


@pytest.fixture(params=["disk", "s3"])
def lasting(request: pytest.FixtureRequest) -> Storage:
    """A storage that outlives a process."""
    return _fixture(request.param, request)


@pytest.fixture(params=["memory", "disk", "s3"])
def anywhere(request: pytest.FixtureRequest) -> Storage:
    """A storage of each kind."""
    return _fixture(request.param, request)

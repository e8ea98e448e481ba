"""Storages behind addresses for tests: fsspec's own in this process's memory, and an S3 server on this machine."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

LOGIN = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_DEFAULT_REGION": "us-east-1"}


class Disk(LocalFileSystem):
    """A storage with folders, which must be made, and files that a kill cuts: ``disk://tmp/a`` is ``/tmp/a``."""

    protocol = "disk"

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        return "/" + str(path).removeprefix("disk://").strip("/")


fsspec.register_implementation("disk", Disk, clobber=True)


class Storage:
    """An empty bucket.

    Args:
        address: of it, as a user gives it.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.system, self.place = fsspec.core.url_to_fs(address, use_listings_cache=False)

    def put(self, folder: Path, name: str) -> str:
        """Copy a folder of this machine, or a file; returns its address."""
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()] or [folder]
        for file in files:
            inner = f"{name}/{file.relative_to(folder).as_posix()}" if file != folder else name
            self.system.pipe_file(f"{self.place}/{inner}", file.read_bytes())
        return f"{self.address}/{name}"

    def tree(self, name: str) -> dict[str, bytes]:
        """Names and contents of all files below a folder."""
        root = f"{self.place}/{name}"
        found = self.system.find(root)
        return {path.removeprefix(f"{root}/"): self.system.cat_file(path) for path in found}


def memory() -> Iterator[Storage]:
    """In the memory of this process, which no other one sees."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield Storage("memory://bucket")
    system.store.clear()


def serving() -> Iterator[str]:
    """An S3 server of this machine for as long as it is used; gives its address."""
    pytest.importorskip("s3fs", reason="pip install 'semtransforms[s3]'")
    moto = pytest.importorskip("moto.server", reason="pip install 'moto[server]'")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """An empty bucket of it, and the login in the environment as a user has it."""
    import s3fs

    post(server, "reset")
    for name, value in {**LOGIN, "AWS_ENDPOINT_URL": server}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("bucket")
    return Storage("s3://bucket")


def post(server: str, action: str, data: bytes = b"") -> Any:
    """Have the server do something that no client asks for."""
    with urlopen(Request(f"{server}/moto-api/{action}", data, {"Content-Type": "text/plain"}, method="POST")) as answer:
        return answer.read()

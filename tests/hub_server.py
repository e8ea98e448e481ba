"""A Hub on loopback: the few endpoints that loading and publishing a generator need, and the ways they fail."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs

LARGE = ".safetensors"  # kept in the storage, as the Hub keeps what its .gitattributes name


@dataclass
class Repository:
    """Commits by hash, each a whole tree of files; branches and tags by name."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"0" * 40: {}})
    refs: dict[str, str] = field(default_factory=lambda: {"main": "0" * 40})

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        tree = {**self.commits[self.refs[branch]], **files}
        commit = hashlib.sha1(repr((sorted(tree.items()), len(self.commits))).encode()).hexdigest()
        self.commits[commit] = tree
        self.refs[branch] = commit
        return commit


class Request(NamedTuple):
    method: str
    host: str
    path: str
    token: str | None


class HubServer:
    """Serves while its ``with`` block runs.

    Attributes:
        endpoint: what HF_ENDPOINT is set to. The storage is the same server under another host name, as the Hub's is.
        token: the one that may read what is private and write; whoever sends another is refused.
        requests: what came in.
        send: what becomes of a large file's bytes on their way, and how many of them arrive before the line is cut.
        status: what every request is answered with, where set.
    """

    token = "hf_secretTokenOfTheTests"

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.storage: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.send: Callable[[bytes], tuple[bytes, int]] = lambda content: (content, len(content))
        self.status: int | None = None

    def __enter__(self) -> HubServer:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.port = self._server.server_port
        self.endpoint = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def add(self, repo_id: str, files: dict[str, bytes], **options: bool) -> str:
        """Put files into a repository, as a push would: the commit's hash."""
        repository = self.repositories.setdefault(repo_id, Repository(**options))
        self.storage |= {hashlib.sha256(each).hexdigest(): each for name, each in files.items() if name.endswith(LARGE)}
        return repository.commit(files)


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._route()

    do_GET = do_POST = do_PUT = do_HEAD

    def _route(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self._body = self.rfile.read(length)
        if len(self._body) < length:  # who asks was killed
            self.close_connection = True
            return None
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        path = self.path.partition("?")[0]
        self.hub.requests.append(Request(self.command, self.headers["Host"].partition(":")[0], path, token))
        if self.hub.status is not None:
            return self._answer(self.hub.status)
        if token not in (None, self.hub.token):
            return self._answer(401, {"error": "Invalid credentials in Authorization header"})
        self._known = token is not None
        for pattern, answer in ROUTES.items():
            if parts := re.fullmatch(pattern, f"{self.command} {path}"):
                return answer(self, *parts.groups())
        return self._answer(404, {"error": f"no such endpoint: {self.command} {path}"})

    def _answer(self, status: int, content: object = None, arrives: int | None = None, **headers: object) -> None:
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:arrives])
            if arrives is not None and arrives < len(content):
                self.close_connection = True

    def _read(self, repo_id: str, revision: str = "main") -> tuple[Repository, str] | None:
        """The repository and the commit, or None after a refusal."""
        repository = self.hub.repositories.get(repo_id)
        if repository is None or (repository.private and not self._known):
            return self._answer(404 if self._known else 401, {"error": "not found"}, X_Error_Code="RepoNotFound")
        if repository.gated:
            return self._answer(403 if self._known else 401, {"error": "gated"}, X_Error_Code="GatedRepo")
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            return self._answer(404, {"error": "no such revision"}, X_Error_Code="RevisionNotFound")
        return repository, commit

    def create(self) -> None:
        if not self._known:
            return self._answer(401, {"error": "log in"})
        asked = json.loads(self._body)
        repo_id = f"{asked['organization']}/{asked['name']}"
        address = {"url": f"{self.hub.endpoint}/{repo_id}"}
        if repo_id in self.hub.repositories:
            return self._answer(409, address)
        private = asked.get("private") or asked.get("visibility") == "private"  # 1.x; 2.x
        self.hub.repositories[repo_id] = Repository(private=private)
        return self._answer(200, address)

    def info(self, repo_id: str, revision: str | None) -> None:
        if found := self._read(repo_id, revision or "main"):
            repository, commit = found
            names = [{"rfilename": name} for name in repository.commits[commit]]
            self._answer(200, {"id": repo_id, "sha": commit, "private": repository.private, "gated": False,
                               "siblings": names, "tags": [], "downloads": 0, "likes": 0})  # fmt: skip

    def tree(self, repo_id: str, revision: str) -> None:
        if found := self._read(repo_id, revision):
            files = found[0].commits[found[1]]
            wanted = parse_qs(self._body.decode()).get("paths", files)  # all, where nothing was asked for
            self._answer(200, [_entry(name, files[name]) for name in wanted if name in files])

    def preupload(self, repo_id: str, revision: str) -> None:
        repository = self.hub.repositories[repo_id]
        there = repository.commits[repository.refs.get(revision, revision)]
        known = {name: _entry(name, content) for name, content in there.items()}
        files = [
            {"path": file["path"], "shouldIgnore": False,
             "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
             "oid": known.get(file["path"], {}).get("lfs", known.get(file["path"], {})).get("oid")}
            for file in json.loads(self._body)["files"]
        ]  # fmt: skip
        self._answer(200, {"files": files})

    def batch(self, repo_id: str) -> None:
        objects = [
            {**each, "actions": {"upload": {"href": f"http://localhost:{self.hub.port}/storage/{each['oid']}"}}}
            for each in json.loads(self._body)["objects"]
        ]
        self._answer(200, {"transfer": "basic", "objects": objects})

    def store(self, digest: str) -> None:
        right = hashlib.sha256(self._body).hexdigest() == digest
        if right:
            self.hub.storage[digest] = self._body
        self._answer(200 if right else 400)

    def commit(self, repo_id: str, revision: str) -> None:
        if not self._known:
            return self._answer(403, {"error": "you may not write here"})
        files = {}
        for line in self._body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.storage[value["oid"]]
        commit = self.hub.repositories[repo_id].commit(files, revision)
        address = f"{self.hub.endpoint}/{repo_id}/commit/{commit}"
        return self._answer(200, {"success": True, "commitOid": commit, "commitUrl": address, "hookOutput": ""})

    def resolve(self, repo_id: str, revision: str, name: str) -> None:
        if not (found := self._read(repo_id, revision)):
            return None
        repository, commit = found
        content = repository.commits[commit].get(name)
        if content is None:
            return self._answer(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        if not name.endswith(LARGE):
            return self._answer(200, content, ETag=f'"{_git_sha1(content)}"', X_Repo_Commit=commit)
        digest = hashlib.sha256(content).hexdigest()
        return self._answer(
            302, b"", X_Repo_Commit=commit, X_Linked_Etag=f'"{digest}"', X_Linked_Size=len(content),
            Location=f"http://localhost:{self.hub.port}/storage/{digest}",
        )  # fmt: skip

    def stored(self, digest: str) -> None:
        content, arrives = self.hub.send(self.hub.storage[digest])
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        headers = {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        part = content[start:]
        self._answer(206 if start else 200, part, max(0, arrives - start), ETag=f'"{digest}"', **headers)

    def fine(self) -> None:
        self._answer(200, {"errors": [], "warnings": []})


REPO = r"([\w.-]+/[\w.-]+)"
ROUTES = {
    r"POST /api/repos/create": _Handler.create,
    r"POST /api/validate-yaml": _Handler.fine,
    rf"GET /api/models/{REPO}(?:/revision/([^/]+))?": _Handler.info,
    rf"(?:GET|POST) /api/models/{REPO}/(?:tree|paths-info)/([^/]+)": _Handler.tree,
    rf"POST /api/models/{REPO}/preupload/([^/]+)": _Handler.preupload,
    rf"POST /{REPO}\.git/info/lfs/objects/batch": _Handler.batch,
    r"PUT /storage/(\w+)": _Handler.store,
    rf"POST /api/models/{REPO}/commit/([^/]+)": _Handler.commit,
    rf"(?:GET|HEAD) /{REPO}/resolve/([^/]+)/(.+)": _Handler.resolve,
    r"(?:GET|HEAD) /storage/(\w+)": _Handler.stored,
}


def _entry(name: str, content: bytes) -> dict[str, object]:
    entry = {"type": "file", "path": name, "size": len(content), "oid": _git_sha1(content)}
    if name.endswith(LARGE):
        digest = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": digest, "sha256": digest, "size": len(content), "pointerSize": 134}
    return entry


def _git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

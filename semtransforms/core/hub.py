"""A generator's repository on the Hugging Face Hub: what is fetched, what is pushed, what went wrong."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import (
    HfApi,
    constants,
    get_session,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)

# HTTPError is that of the HTTP client in use: httpx in 1.x, httpx2 in 2.x
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
MOST_BYTES = {CONFIG_FILE: 16 << 20, WEIGHTS_FILE: 4 << 30}  # of a generator's

COMMIT = re.compile(r"[0-9a-f]{40}")
# s, to connect, read, write and get a connection: a network that swallows packets must not cost more than a moment
PATIENCE = (2, 10, 10, 10)


def fetch(
    repo_id: str,
    revision: str = "main",
    *,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    what: str = "generator",
) -> Path:
    """Download a generator, or find it in huggingface-hub's cache; so too another network of the same two files.

    Args:
        repo_id: ``org/name``.
        revision: branch, tag or commit. A full commit that is in the cache needs no request.
        token, cache_dir: as for ``hf_hub_download``.
        local_files_only: take what is in the cache, make no request.
        what: it is, for messages.

    Returns:
        The folder in the cache with ``config.json`` and ``model.safetensors``, both of one commit.

    Raises:
        ValueError: no such repository or revision.
        FileNotFoundError: the repository holds no generator, or pickled weights only.
        OSError: the Hub cannot be reached and the files are not in the cache, or the Hub refuses them.
    """
    cached = _find(repo_id, revision, cache_dir)
    if cached is not None and (local_files_only or COMMIT.fullmatch(revision)):
        return cached
    with explaining(repo_id, revision, what=what):
        if local_files_only:
            raise LocalEntryNotFoundError("local_files_only is set")
        try:
            commit, size = _ask(hf_hub_url(repo_id, CONFIG_FILE, revision=revision), token)
        except (HTTPError, OfflineModeIsEnabled):
            if cached is None:
                raise
            return cached
        if commit is not None:
            if what == "generator":
                _, weights = _ask(hf_hub_url(repo_id, WEIGHTS_FILE, revision=commit), token)
                _check_sizes(repo_id, {CONFIG_FILE: size, WEIGHTS_FILE: weights})
            # the weights first: asked for by its name, the config moves the cache's note of where the branch is, and an
            # interruption behind that would hide the older generator that is whole
            hf_hub_download(repo_id, WEIGHTS_FILE, revision=commit, token=token, cache_dir=cache_dir)
        config = Path(hf_hub_download(repo_id, CONFIG_FILE, revision=revision, token=token, cache_dir=cache_dir))
        if config.parent.name != commit:
            # the cache names a folder by its commit: a branch that moves meanwhile must not mix two generators
            hf_hub_download(repo_id, WEIGHTS_FILE, revision=config.parent.name, token=token, cache_dir=cache_dir)
        return config.parent


def _find(repo_id: str, revision: str, cache_dir: str | Path | None) -> Path | None:
    """A generator's folder in the cache. hf_hub_download would make a request of its own before it looks there."""
    config = try_to_load_from_cache(repo_id, CONFIG_FILE, cache_dir, revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    return folder if isinstance(try_to_load_from_cache(repo_id, WEIGHTS_FILE, cache_dir, folder.name), str) else None


def _check_sizes(repo_id: str, sizes: Mapping[str, int]) -> None:
    """See that files are not larger than any generator's, before they fill the disk.

    Raises:
        ValueError: one is.
    """
    for name, size in sizes.items():
        if size > MOST_BYTES[name]:
            raise ValueError(
                f"generator {repo_id!r}: its {name} has {size:,} bytes, more than the {MOST_BYTES[name]:,} that any "
                "generator has. It is not fetched: look at the repository."
            )


def _ask(address: str, token: str | bool | None) -> tuple[str | None, int]:
    """Whether the Hub is there, asked once: hf_hub_download would ask six times in 23 s.

    Returns:
        The commit that the address is of, ``None`` where the answer does not say; and the file's bytes, 0 likewise.

    Raises:
        HTTPError: it is not, or has trouble. What it says of the repository is left to hf_hub_download.
        OfflineModeIsEnabled: HF_HUB_OFFLINE is set.
    """
    answer = get_session().head(address, timeout=PATIENCE, headers=build_hf_headers(token=token))
    if answer.status_code in (408, 429) or answer.status_code >= 500:
        answer.raise_for_status()
    commit = answer.headers.get(constants.HUGGINGFACE_HEADER_X_REPO_COMMIT)
    size = answer.headers.get(constants.HUGGINGFACE_HEADER_X_LINKED_SIZE) or answer.headers.get("Content-Length") or ""
    known = commit if answer.status_code < 400 and commit and COMMIT.fullmatch(commit) else None
    return known, int(size) if size.isdecimal() else 0


def push(
    repo_id: str,
    files: Mapping[str, bytes],
    *,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str = "Push model using huggingface_hub.",
    branch: str | None = None,
    create_pr: bool | None = None,
    allow_patterns: list[str] | str | None = None,
    ignore_patterns: list[str] | str | None = None,
    delete_patterns: list[str] | str | None = None,
) -> str:
    """Publish a generator in one commit.

    Args:
        repo_id: ``org/name``, made if missing.
        files: name to content.
        private: whether a repository that is made is private; ``None`` is the organisation's default.
        token: for the Hub; default: the one of ``hf auth login`` or ``HF_TOKEN``.
        commit_message: of the commit.
        branch: where to, a branch that is there; default: main.
        create_pr: propose the commit as a pull request.
        allow_patterns, ignore_patterns: which of the files are pushed.
        delete_patterns: which of the repository's files the commit removes.

    Returns:
        The commit's address.

    Raises:
        ValueError: ``private``, and the repository is there and public; no such branch; a token that is refused.
        OSError: the Hub cannot be reached, or refuses.
    """
    with explaining(repo_id, pushing=True):
        if private:
            _check_private(repo_id, token)
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            return api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message=commit_message,
                revision=branch,
                create_pr=create_pr,
                allow_patterns=allow_patterns,
                ignore_patterns=ignore_patterns,
                delete_patterns=delete_patterns,
            )


def _check_private(repo_id: str, token: str | None) -> None:
    """Refuse a repository that is there already and public: what is pushed as private would be read by everyone.

    Raises:
        ValueError: it is.
    """
    try:
        public = not HfApi(token=token).model_info(repo_id).private
    except GatedRepoError:  # derived from the next, and there
        raise
    except RepositoryNotFoundError:
        return  # it will be made
    if public:
        raise ValueError(f"private: {repo_id!r} is there and public. Make it private first, or choose another.")


@contextmanager
def explaining(
    repo_id: str, revision: str | None = None, *, what: str = "generator", pushing: bool = False
) -> Iterator[None]:
    """Turn what huggingface-hub raises into errors that name the repository and the remedy, and never a token.

    Args:
        repo_id, revision, what: for the messages.
        pushing: whether it is published; else it is loaded.
    """
    where = f"{what} {repo_id if revision in (None, 'main') else f'{repo_id}@{revision}'!r}"
    login = "Log in with `hf auth login`, set HF_TOKEN, or pass token=..."
    hub = re.sub(r"//[^/@]*@", "//", constants.ENDPOINT)  # a mirror's address may hold a password
    missing, by_hand = (
        " is not in the cache",
        (
            f"With a network: `hf download {repo_id} --local-dir FOLDER`; then give FOLDER in place of the name. "
            "A mirror is set with HF_ENDPOINT."
        ),
    )
    if pushing:
        missing, by_hand = " is not published", "It is as it was before."
    try:
        yield
    except GatedRepoError as error:
        raise PermissionError(f"{where} is gated. Ask for access at {hub}/{repo_id}. {login}") from error
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"unknown {where}: no such folder here, and no such repository at {hub} that you may read. Check the name. "
            f"If it is private: {login}"
        ) from error
    except RevisionNotFoundError as error:
        raise ValueError(f"{where}: no such branch, tag or commit. Leave the revision out for main.") from error
    except LocalEntryNotFoundError as error:
        raise OSError(f"{where}{missing}: {_first_line(error)}. {by_hand}") from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(
            f"{where} has no {CONFIG_FILE} or no {WEIGHTS_FILE}; pickled weights are never loaded."
            + (" Write it with NoiseGenerator.push_to_hub." if what == "generator" else "")
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        remedy = login if status in (401, 403) else "Try again later." if status >= 408 else "Check HF_ENDPOINT."
        raise OSError(f"{where}: {hub} answered {status}. {remedy}") from error
    except OfflineModeIsEnabled as error:
        raise OSError(f"{where}{missing}, and HF_HUB_OFFLINE is set. {by_hand}") from error
    except HTTPError as error:
        raise OSError(
            f"{where}{missing}: {hub} cannot be reached or broke off ({_first_line(error)}). Try again. {by_hand}"
        ) from error
    except (OSError, RuntimeError) as error:  # a file of another size than announced, a full disk; a broken upload
        raise OSError(f"{where}: {_first_line(error)}. Try again.") from error


def _first_line(error: Exception) -> str:
    return re.sub(r"//[^/@ ]*@", "//", str(error).partition("\n")[0].rstrip("."))

"""A generator's repository on the Hugging Face Hub: what is fetched, what is checked, what went wrong."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

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

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"

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
) -> Path:
    """Download a generator, or find it in huggingface-hub's cache.

    Args:
        repo_id: ``org/name``.
        revision: branch, tag or commit. A full commit that is in the cache needs no request.
        token, cache_dir, local_files_only: as for ``hf_hub_download``.

    Returns:
        The folder in the cache with ``config.json`` and ``model.safetensors``, both of one commit.

    Raises:
        ValueError: no such repository or revision, or a file is not what the Hub says it is.
        FileNotFoundError: the repository holds no generator, or pickled weights only.
        OSError: the Hub cannot be reached and the files are not in the cache, or the Hub refuses them.
    """
    download = partial(_download, repo_id, token=token, cache_dir=cache_dir)
    with explaining(repo_id, revision):
        if local_files_only:
            return download(revision, local_files_only=True)
        if COMMIT.fullmatch(revision):
            with suppress(LocalEntryNotFoundError):
                return download(revision, local_files_only=True)
        try:
            # asked once: hf_hub_download would ask an unreachable Hub six times in 23 s
            address = hf_hub_url(repo_id, CONFIG_FILE, revision=revision)
            get_hf_file_metadata(address, token=token, timeout=PATIENCE)  # type: ignore[arg-type]  # as httpx takes it
        except (HTTPError, OfflineModeIsEnabled) as error:
            if not _passes(error):
                raise
            with suppress(LocalEntryNotFoundError):
                return download(revision, local_files_only=True)
            raise
        return download(revision, local_files_only=False)


def _download(
    repo_id: str, revision: str, *, token: str | bool | None, cache_dir: str | Path | None, local_files_only: bool
) -> Path:
    def get(name: str, revision: str) -> Path:
        path = hf_hub_download(
            repo_id, name, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only
        )
        return Path(path)

    config = get(CONFIG_FILE, revision)
    # the cache names a folder by its commit: a branch that moves meanwhile must not mix two generators
    weights = get(WEIGHTS_FILE, config.parent.name)
    for path in (config, weights):
        _check_sum(path)
    return config.parent


def _check_sum(path: Path) -> None:
    """Compare a file with its checksum on the Hub, by which the cache names it: git's SHA-1, for large files SHA-256.

    A cache without symbolic links, or a mirror with names of its own, leaves nothing to compare with.
    """
    blob = path.resolve()
    content = blob.read_bytes()
    found = {
        40: lambda: hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
        64: lambda: hashlib.sha256(content).hexdigest(),
    }.get(len(blob.name) if re.fullmatch(r"[0-9a-f]+", blob.name) else 0)
    if found is not None and found() != blob.name:
        raise ValueError(f"{path.name} is damaged: its checksum is not the Hub's. Delete {blob} and load it again.")


def check_private(repo_id: str, token: str | None) -> None:
    """Refuse a repository that is there already and public: what is pushed as private would be read by everyone.

    Raises:
        ValueError: it is.
    """
    with suppress(RepositoryNotFoundError):  # it will be made
        if not HfApi(token=token).model_info(repo_id).private:
            raise ValueError(f"private: {repo_id!r} is there and public. Make it private first, or choose another.")


@contextmanager
def explaining(repo_id: str, revision: str | None = None) -> Iterator[None]:
    """Turn what huggingface-hub raises into errors that name the repository and the remedy, and never a token.

    Args:
        repo_id, revision: for the messages.
    """
    where = f"generator {repo_id if revision in (None, 'main') else f'{repo_id}@{revision}'!r}"
    login = "Log in with `hf auth login`, set HF_TOKEN, or pass token=..."
    try:
        yield
    except GatedRepoError as error:
        raise PermissionError(
            f"{where} is gated. Ask for access at {constants.ENDPOINT}/{repo_id}. {login}"
        ) from error
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"unknown {where}: no such folder here, and no such repository at {constants.ENDPOINT} that you may read. "
            f"Check the name. If it is private: {login}"
        ) from error
    except RevisionNotFoundError as error:
        raise ValueError(f"{where}: no such branch, tag or commit. Leave the revision out for main.") from error
    except LocalEntryNotFoundError as error:
        raise OSError(f"{where} is not in the cache, and no request was allowed. {_by_hand(repo_id)}") from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(
            f"{where} has no {CONFIG_FILE} or no {WEIGHTS_FILE}; pickled weights are never loaded. Write it with "
            "NoiseGenerator.push_to_hub."
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        remedy = login if status in (401, 403) else "Try again later."
        raise OSError(f"{where}: {constants.ENDPOINT} answered {status}. {remedy}") from error
    except OfflineModeIsEnabled as error:
        raise OSError(f"{where} is not in the cache, and HF_HUB_OFFLINE is set. {_by_hand(repo_id)}") from error
    except HTTPError as error:
        raise OSError(
            f"{where} is not in the cache, and {constants.ENDPOINT} cannot be reached or broke off ({error}). Try "
            f"again. {_by_hand(repo_id)}"
        ) from error
    except (OSError, RuntimeError) as error:  # a file of another size than announced, a full disk; a broken upload
        raise OSError(f"{where}: {str(error).partition(chr(10))[0]} Try again.") from error


def _by_hand(repo_id: str) -> str:
    return (
        f"With a network: `hf download {repo_id} --local-dir FOLDER`; then give FOLDER in place of the name. A mirror "
        "is set with HF_ENDPOINT."
    )


def _passes(error: Exception) -> bool:
    """Whether the Hub could not say anything about a repository: what is in the cache may serve."""
    return not isinstance(error, HfHubHTTPError) or error.response.status_code in (408, 429, 500, 502, 503, 504)

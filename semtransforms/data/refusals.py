"""What storages refuse, as errors of few kinds: each client of fsspec has its own."""

from __future__ import annotations

import errno
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

_DAMAGED = (zipfile.BadZipFile, zlib.error, tarfile.TarError, EOFError)


class StorageError(Exception):
    """A storage cannot be reached or used at all: that says nothing of the file which was asked for.

    None of the errors that a damaged image raises: it would be left out, and the next ones with it.
    """


@contextmanager
def storage_errors(place: str, doing: str = "read") -> Iterator[None]:
    """Errors of the system's kinds for those of all storages: not there, not allowed, or the storage itself.

    Args:
        place: the address of the file or folder.
        doing: what the block does with it.

    Raises:
        FileNotFoundError, PermissionError: this file or folder cannot be read, or what else is done with it.
        StorageError: the storage cannot be reached, so no file of it.
        ModuleNotFoundError: what opens such addresses is not installed.
        ValueError: nothing opens such addresses.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        told = str(error.strerror or "")
        bucket = f" ({told})" if "bucket" in told else ""
        raise FileNotFoundError(errno.ENOENT, f"it is not there{bucket}", place) from error
    except PermissionError as error:
        raise PermissionError(
            errno.EACCES,
            f"no permission to {doing} it ({error}). Log in as someone who may list and {doing} it",
            place,
        ) from error
    except NotImplementedError as error:
        raise OSError(errno.EROFS, f"nothing can {doing} what lies there", place) from error
    except ImportError as error:
        scheme = place.partition(":")[0]
        raise ModuleNotFoundError(
            f"{scheme}:// needs a package that is not installed. {_install(scheme, error)}"
        ) from error
    except ValueError as error:
        if "Protocol not known" not in str(error):
            raise
        raise ValueError(
            f"{place!r}: nothing opens {place.partition(':')[0]}://. Give s3://, gs://, or another kind of "
            "address that fsspec knows."
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):  # of this machine's disk
            raise
        raise _silent(place, error) from error
    except _DAMAGED as error:  # of an archive: this file of it, or its list
        raise OSError(errno.EIO, f"it is damaged in its archive ({error})", place) from error
    except StorageError:
        raise
    except Exception as error:  # botocore, aiohttp, gcsfs and others have their own
        raise _silent(place, error) from error


def _silent(place: str, error: Exception) -> StorageError:
    what = " ".join(str(error).split()) or type(error).__name__
    return StorageError(f"{place}: the storage does not answer as it should ({what})")


def _install(scheme: str, error: ImportError) -> str:
    from fsspec.registry import known_implementations

    if scheme in ("s3", "s3a"):
        return "pip install 'semtransforms[s3]'"
    package = str(known_implementations.get(scheme, {}).get("class", "fsspec")).partition(".")[0]
    return str(error) if package == "fsspec" else f"pip install {package}"

"""Where a protection may write: nowhere that changes what is read, or publishes what is private."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from semtransforms.core.ahead import ahead
from semtransforms.data.images import UNDECODABLE
from semtransforms.data.metadata import PROTECTION, record_above
from semtransforms.data.remote import AT_ONCE, Place, RemotePath, is_address, named
from semtransforms.data.sources import Source
from semtransforms.protect.formats import FORMATS, Format

# kinds of addresses that clients of fsspec would write to, each in its way, and none as is meant here
_NOT_WRITTEN = {
    "http": "would be sent to a web server",
    "https": "would be sent to a web server",
    "hf": "each file would be a commit of its own",
}


HALF_BLOCK = 2048  # bytes: disks give room in blocks of 4096


def check_places(source: Source, out: Place, private: Path) -> None:
    """Refuse places where writing would change what is read, or publish what is private.

    Args:
        source: its folder must not hold ``out``, nor lie in it.
        out: where the protected copies go.
        private: where the seed goes; must lie outside ``out``.

    Raises:
        ValueError: the places overlap, ``private`` lies on another machine, or ``out`` cannot be a folder.
    """
    if is_address(private):
        raise ValueError(
            f"--cache-dir {str(private)!r} must be a folder of this machine, and no address: what undoes the "
            "protection lies there."
        )
    if source.protected:
        raise ValueError(f"SOURCE {source.identity!r} is protected already: noise on noise. Give the original images.")
    if isinstance(out, RemotePath):
        _check_address(source, out)
        return
    if is_address(out):
        raise ValueError(f"OUT {str(out)!r}: a path has lost a slash of this address. Give it as text, to place_of.")
    target = out.resolve()
    if source.folder is not None:
        origin = source.folder.resolve()
        if record := record_above(origin):
            lies = "holds" if record.parent == origin else f"lies in {str(record.parent)!r}, which holds"
            raise ValueError(
                f"SOURCE {str(source.folder)!r} {lies} {PROTECTION}: it is protected already, and noise on noise is "
                "beyond rho_u. Give the original images."
            )
        if target == origin or origin in target.parents:
            raise ValueError(f"OUT {str(out)!r} lies inside SOURCE {str(source.folder)!r}. Choose a folder outside it.")
        if target in origin.parents:
            raise ValueError(f"SOURCE {str(source.folder)!r} lies inside OUT {str(out)!r}. Choose another OUT.")
    if target == private.resolve() or target in private.resolve().parents:
        raise ValueError(
            f"the private folder {str(private)!r} lies inside OUT {str(out)!r}, where its seed would be published. "
            "Choose another OUT or --cache-dir."
        )
    if os.path.isfile(out) and out.suffix != ".parquet":  # of that one, `refuse_finished` tells
        raise ValueError(f"OUT {str(out)!r} is a file. Choose another name, or remove it.")


def _check_address(source: Source, out: RemotePath) -> None:
    """Refuse addresses that nothing can be written below, or where it would be read as images of the source."""
    scheme, origin = out.head.partition("://")[0], source.address
    if out.tail or scheme in ("zip", "tar"):
        raise ValueError(f"OUT {str(out)!r} lies in an archive, which is only read. Give a folder outside of one.")
    if scheme in _NOT_WRITTEN:
        raise ValueError(f"OUT {str(out)!r}: {_NOT_WRITTEN[scheme]}. Give a bucket (s3://, gs://) or a folder.")
    with named("OUT", out):
        out.check_opens()
    if out.below and any(name in ("", ".", "..") for name in out.below.split("/")):
        raise ValueError(f"OUT {str(out)!r} has a name that no folder on a disk can have. Choose another one.")
    if origin is not None and origin.head == out.head and not origin.tail and origin in (out, *out.parents):
        raise ValueError(f"OUT {str(out)!r} lies inside SOURCE {str(origin)!r}. Choose a folder outside it.")
    for name in source.names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"SOURCE has {name!r}, which is no text in UTF-8, as names at an address must be. Rename it, or choose "
                "a folder of this machine as OUT."
            ) from None


def check_format(format: str, out: Place) -> None:
    """See that a format can be written to a place.

    Raises:
        ValueError: it is packed here or kept private, and the place is elsewhere.
    """
    if isinstance(out, RemotePath) and (FORMATS[format].packed or not FORMATS[format].published):
        raise ValueError(
            f"format (--format) must be png or jpeg where OUT is an address, got {format!r}: others are made whole "
            "on a disk. Give a folder as OUT, and copy it: aws s3 sync, or rclone."
        )


def check_room(source: Source, files: Place, todo: int, kind: Format, quality: int | None = None) -> None:
    """Find out before the work that the disk is too small, from the pixels of up to 1,024 images and the format.

    Elsewhere nobody tells how much room there is.

    Args:
        source: the clean images.
        files: folder on the disk that is asked for room.
        todo: how many images are to be written.
        kind: their format.
        quality: of that format.

    Raises:
        OSError: the disk has not enough room; the message has both numbers.
    """
    if isinstance(files, RemotePath):
        return
    copies = todo + (2 * len(source) if kind.packed else 0)  # `datasets` makes a copy of its own, and the packed one

    def size(index: int) -> float | None:
        with suppress(*UNDECODABLE), source.open(index) as image:
            return kind.room(image.width * image.height, quality) + HALF_BLOCK
        return None

    some = range(0, len(source) if copies else 0, (len(source) - 1) // 1024 + 1)
    sizes = [each for each in ahead(size, some, AT_ONCE if source.far else 0) if each is not None]
    needed = int(copies * sum(sizes) / max(len(sizes), 1))
    free = shutil.disk_usage(files).free
    if needed > free:
        raise OSError(
            f"OUT {str(files)!r} needs about {needed:,} bytes and its disk has {free:,} free. "
            "Free space there, or choose a folder on a larger disk."
        )

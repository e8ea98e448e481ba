"""Where a protection may write: nowhere that changes what is read, or publishes what is private."""

from __future__ import annotations

import os
from pathlib import Path

from semtransforms.data.metadata import PROTECTION, record_above
from semtransforms.data.remote import is_address
from semtransforms.data.sources import Source


def check_places(source: Source, out: Path, private: Path) -> None:
    """Refuse places where writing would change what is read, or publish what is private.

    Args:
        source: its folder must not hold ``out``, nor lie in it.
        out: where the protected copies go.
        private: where the seed goes; must lie outside ``out``.

    Raises:
        ValueError: the places overlap, lie on another machine, or ``out`` cannot be a folder.
    """
    for argument, place in (("OUT", out), ("--cache-dir", private)):
        if is_address(place):
            raise ValueError(
                f"{argument} {str(place)!r} must be a folder of this machine, and no address. Protect into one, then "
                "copy what is published: aws s3 sync OUT s3://BUCKET/FOLDER, or rclone."
            )
    target = out.resolve()
    if source.protected:
        raise ValueError(f"SOURCE {source.identity!r} is protected already: noise on noise. Give the original images.")
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

"""Tables that lie elsewhere, fetched: `datasets` opens those of this machine."""

from __future__ import annotations

import hashlib
from pathlib import Path

from semtransforms.core.files import explained, writing
from semtransforms.data.remote import RemotePath
from semtransforms.data.tables import is_saved


def fetch_table(place: RemotePath) -> Path:
    """Fetch a table into the cache of `datasets`, where it is not there in this version.

    Args:
        place: a folder of ``save_to_disk`` or of Parquet, a Parquet file, or a pattern of them.

    Returns:
        The same on this machine: a folder, a file, or a pattern.

    Raises:
        OSError: it cannot be read, or there is no room.
    """
    import datasets

    if place.is_dir():
        base, files = place, sorted(place.rglob("*" if is_saved(place) else "*.parquet"), key=str)
    else:
        base = place.parent
        files = [place.seen()] if place.exists() else sorted(base.glob(place.name), key=str)
    known = all(file.version for file in files)
    digest = hashlib.sha256(repr([(str(file), file.version) for file in files]).encode()).hexdigest()
    home = Path(datasets.config.HF_DATASETS_CACHE, f"semtransforms-{digest[:32]}-fetched")
    for file in files:
        here = home / file.relative_to(base)
        if not (known and here.is_file()):
            with explained("HF_DATASETS_CACHE", home):
                here.parent.mkdir(parents=True, exist_ok=True)
            with writing(here, mode=0o600) as temporary:
                file.download(temporary)
    return home if base is place else home / place.name

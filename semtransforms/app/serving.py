"""Starting the page: on this machine alone, or where others reach it."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from semtransforms.app import texts
from semtransforms.app.visitors import Visitors
from semtransforms.data.store import default_cache_dir

HERE = "127.0.0.1"
LOOPBACK = (HERE, "localhost", "::1")
WORKER = (sys.executable, "-m", "semtransforms.app.worker")
UPLOADS_OF_GRADIO = "1kb"  # files come another way, so nobody fills the disk by this one


def serve(
    *,
    host: str = HERE,
    port: int | None = None,
    share: bool = False,
    root: str | os.PathLike[str] | None = None,
    browser: bool = False,
    say: Callable[[str], Any] = print,
    worker: Sequence[str] = WORKER,
) -> None:
    """Show the page until Ctrl-C.

    Args:
        host: address to listen on. Beyond this machine all of a visitor's is deleted when they leave.
        port: ``None`` for the first free one from 7860 on.
        share: open a tunnel of Gradio's, so that the whole internet reaches it.
        root: private folder for what visitors bring and what is made of it; default: ``app`` where noise is kept.
        browser: open the page in one.
        say: told of the address, and of what listening beyond this machine means.
        worker: the command behind a protection, see :mod:`semtransforms.app.worker`.

    Raises:
        ValueError: another page uses ``root``.
        OSError: ``root`` cannot be written, or the port is taken.
        ModuleNotFoundError: Gradio is not installed.
    """
    is_public = share or host not in LOOPBACK
    if find_spec("gradio") is None:
        raise ModuleNotFoundError("the page needs Gradio, which is not installed: pip install 'semtransforms[app]'")
    folder = default_cache_dir() / "app" if root is None else Path(root).expanduser()
    visitors = Visitors(folder, keeps=not is_public, worker=worker)
    with visitors.open(), tempfile.TemporaryDirectory() as ours:
        # read when Gradio is imported: it counts who uses it, and keeps files, in a place of its own
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": ours, "HF_HUB_DISABLE_TELEMETRY": "1"}
        from semtransforms.app.page import Page, head, theme
        from semtransforms.app.routes import routes

        for meaning in [texts.SHARE_MEANS] * share + [texts.HOST_MEANS.format(host=host)] * (host not in LOOPBACK):
            say(meaning)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # what visitors brought is deleted then, too
        blocks = Page(visitors).blocks
        try:
            _, url, shared = blocks.launch(
                server_name=host, server_port=port, share=share, inbrowser=browser, prevent_thread_lock=True,
                quiet=True, max_file_size=UPLOADS_OF_GRADIO, ssr_mode=False, footer_links=[], theme=theme(),
                head=head(), app_kwargs={"routes": routes(visitors)},
            )  # fmt: skip
            blocks.share = False  # the tunnel stays; a shared page would take its script from Gradio's servers
            if share and not shared:
                say(texts.NO_TUNNEL)
            say(texts.LISTENING.format(url=shared or url))
            blocks.block_thread()
        finally:
            blocks.close()

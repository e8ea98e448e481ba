"""``semtransforms app``: the page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semtransforms.cli.errors import one_line_errors

HOST_HELP = "Address to listen on. Default: this machine alone. 0.0.0.0: whoever reaches it by network may use it."
SHARE_HELP = "Open a tunnel of Gradio's: whoever has the address may use the page, from the whole internet."
ROOT_HELP = "Private folder for what is brought and made. Default: app in the folder of caches."

Host = Annotated[str, typer.Option(help=HOST_HELP)]
Port = Annotated[int | None, typer.Option(help="Default: the first free one from 7860 on.")]
Share = Annotated[bool, typer.Option("--share", help=SHARE_HELP)]
CacheDir = Annotated[Path | None, typer.Option(help=ROOT_HELP)]
Browser = Annotated[bool, typer.Option(help="Open the page in the browser.")]


def app_command(
    host: Host = "127.0.0.1",
    port: Port = None,
    share: Share = False,
    cache_dir: CacheDir = None,
    browser: Browser = True,
) -> None:
    """Open a page that does what `protect` does with eyes on it: drop photographs in, look, protect, take the copy.

    It runs on this machine alone, and asks for nothing from elsewhere.
    """
    with one_line_errors("the page is closed"):
        from semtransforms.app.serving import serve

        serve(host=host, port=port, share=share, root=cache_dir, browser=browser, say=typer.echo)

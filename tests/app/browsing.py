"""A page that runs, and people who look at it in a headless Chromium."""

import io
import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from quick_page import MINUTES

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECONDS = 240_000  # milliseconds: what hangs, hangs so long; a machine that is busy with other work takes a minute
ELSEWHERE = "elsewhere.example"  # leads to this machine, in our browser


def needs_a_browser() -> None:
    """Skip a module where there is none."""
    pytest.importorskip("gradio", reason="needs gradio: pip install 'semtransforms[app]'")
    pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    if BROWSER is None:
        pytest.skip("needs chromium, chromium-browser or google-chrome", allow_module_level=True)


@dataclass
class Served:
    """A page that runs.

    Args:
        address: of it, as it says.
        root: its folder.
        process: in which it runs.
        said: lines it has printed.
    """

    address: str
    root: Path
    process: subprocess.Popen
    said: list[str] = field(default_factory=list)


@contextmanager
def serving(folder: Path, *words: str, behind: Sequence[str] = ()) -> Iterator[Served]:
    """A page with fits of seconds, which has a home of its own that must stay empty.

    Args:
        folder: gets its root, its home, and its place for what is temporary.
        words: for ``quick_page.py``.
        behind: a command that is given the page's own, such as ``unshare``.
    """
    root, home, passing = (folder / name for name in ("root", "home", "passing"))
    for place in (root, home, passing):
        place.mkdir(parents=True)
    command = [*behind, sys.executable, str(Path(__file__).with_name("quick_page.py")), str(root), *words]
    env = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    env |= {"PYTHONUNBUFFERED": "1", "HOME": str(home), "TMPDIR": str(passing)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        served = Served("", root, process)
        try:
            for line in process.stdout:
                served.said.append(line)
                if match := re.search(r"The page: (\S+) ", line):
                    served.address = match[1]
                    break
            assert served.address, served.said
            yield served
        finally:
            process.terminate()
            process.wait(60)
    # what was brought went with the page, and nothing lies elsewhere
    assert [path for path in root.rglob("*") if path.suffix == ".jpg"] == []
    assert [path for place in (home, passing) for path in place.rglob("*") if path.is_file()] == []
    assert sorted(path.name for path in folder.iterdir()) == ["home", "passing", "root"]


def visit(browser, address: str, **screen):
    """A page of a visitor of their own; what went wrong on it, and what it asked for elsewhere."""
    return enter(browser.new_context(accept_downloads=True, **screen), address)


def enter(context, address: str):
    """Another page of the same visitor."""
    page = context.new_page()
    page.set_default_timeout(SECONDS)
    page.wrong = []
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    own = (address, "data:", "blob:")
    page.on("request", lambda request: request.url.startswith(own) or page.wrong.append(request.url))
    page.goto(address)
    page.wait_for_selector("#drop")
    return page


def protect(page, minutes: float = MINUTES) -> None:
    page.fill("#minutes input", str(minutes))
    page.click("#start")


def download(page, selector: str) -> zipfile.ZipFile:
    with page.expect_download() as waiting:
        page.click(selector)
    return zipfile.ZipFile(io.BytesIO(Path(waiting.value.path()).read_bytes()))


def bomb_of_pixels(side: int) -> bytes:
    """A PNG whose header tells of a square of so many pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b""))
    parts = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)

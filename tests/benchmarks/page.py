"""How long the page takes and how much memory: ``python -m tests.benchmarks.page PHOTOGRAPHS MINUTES``.

A folder with class sub-folders is brought, looked at, planned, protected and judged in a headless Chromium.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import psutil
from playwright.sync_api import Page, sync_playwright

WAIT = 3_600_000  # milliseconds
ALL_DRAWN = "[...document.querySelectorAll('.compare img')].filter(e => e.complete && e.naturalWidth).length == 2"


class Watch:
    """The most memory that the page and its worker have had, each resident, and both with what they share once."""

    def __init__(self, number: int) -> None:
        self.page, self.peaks = psutil.Process(number), {"page": 0, "worker": 0, "both, shared once": 0}
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            time.sleep(0.25)
            try:
                workers = self.page.children(recursive=True)
                now = {
                    "page": self.page.memory_info().rss,
                    "worker": sum(each.memory_info().rss for each in workers),
                    "both, shared once": sum(each.memory_full_info().pss for each in (self.page, *workers)),
                }
            except psutil.Error:
                if not self.page.is_running():
                    return
                continue
            self.peaks = {name: max(value, now[name]) for name, value in self.peaks.items()}


def redrawn(page: Page, control: str, value: str) -> float:
    """Set a control; how many seconds the picture takes to change."""
    before, started = page.get_attribute(".compare img", "src"), time.perf_counter()
    page.fill(f"{control} input[type=number]", value)
    page.keyboard.press("Tab")
    page.wait_for_function(f"document.querySelector('.compare img')?.getAttribute('src') != '{before}' && {ALL_DRAWN}")
    return time.perf_counter() - started


def journey(page: Page, photographs: str, minutes: str) -> None:
    """From a drop to a verdict, with what each step took."""

    def told(what: str, seconds: float) -> None:
        print(f"{what} {seconds:.1f} s", flush=True)

    started = time.perf_counter()
    page.set_input_files("#pick-folder", photographs)
    page.wait_for_selector("text=Found:")
    told("drop to what was found", time.perf_counter() - started)
    page.wait_for_function(ALL_DRAWN)
    told("drop to preview", time.perf_counter() - started)
    told("other visibility", redrawn(page, "#visibility", "0.5"))
    told("other rho_u", redrawn(page, "#rho-u", "4"))
    told("the first rho_u", redrawn(page, "#rho-u", "8"))
    page.fill("#minutes input", minutes)
    started = time.perf_counter()
    page.click("#plan")
    page.wait_for_selector("text=Expected:")
    told("plan", time.perf_counter() - started)
    started = time.perf_counter()
    page.click("#start")
    page.wait_for_selector(".bars")
    told("start to verdict", time.perf_counter() - started)


def main(photographs: str, minutes: str) -> None:
    """Start the page, go through the journey, print."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    command = [sys.executable, "-m", "semtransforms", "app", "--no-browser", "--cache-dir"]
    given: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True, "env": {**os.environ, "PYTHONUNBUFFERED": "1"}}
    with tempfile.TemporaryDirectory() as root, subprocess.Popen([*command, root], **given) as served:
        try:
            url = re.search(r"http://\S+", next(line for line in served.stdout if "http" in line))[0]
            watch = Watch(served.pid)
            with (
                sync_playwright() as engine,
                engine.chromium.launch(executable_path=browser, args=["--no-sandbox"]) as chromium,
            ):
                page = chromium.new_page()
                page.set_default_timeout(WAIT)
                page.goto(url)
                page.wait_for_selector("#drop")
                journey(page, photographs, minutes)
            print("peaks in MiB:", {name: value >> 20 for name, value in watch.peaks.items()})
        finally:
            served.terminate()
            served.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""How long the page takes and how much memory: ``python -m tests.benchmarks.page PHOTOGRAPHS --minutes 1``.

A folder with class sub-folders is brought, looked at, planned, protected and judged in a headless Chromium. Linux only.
``--pictures FOLDER`` gets what it looked like in the end: whole, at 1280 and 360 px, light and dark, and the two parts
that README and the guide show. ``--json FILE`` gets the figures; those of the guide are in ``page-*.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import gradio
import psutil
from playwright.sync_api import Page, sync_playwright

from semtransforms.core.hardware import describe_machine

WAIT = 3_600_000  # milliseconds
LOOK_EVERY = 0.5  # seconds
SCREENS = ((1280, "light"), (360, "dark"), (1280, "dark"), (360, "light"))
ALL_DRAWN = "[...document.querySelectorAll('.compare img')].filter(e => e.complete && e.naturalWidth).length == 2"


class Watch:
    """The most memory that the page and its worker have had, in MiB.

    ``both`` is the plain sum of what is resident of each at one time, ``shared once`` the same with the libraries that
    both use counted once: what the machine gives away for them.
    """

    def __init__(self, number: int) -> None:
        self.page, self.peaks = psutil.Process(number), {"page": 0, "worker": 0, "both": 0, "shared once": 0}
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            time.sleep(LOOK_EVERY)
            try:
                workers = self.page.children(recursive=True)
                page, worker = self.page.memory_info().rss, sum(each.memory_info().rss for each in workers)
                shared_once = sum(each.memory_full_info().pss for each in (self.page, *workers))
            except psutil.Error:
                if not self.page.is_running():
                    return
                continue
            now = {"page": page, "worker": worker, "both": page + worker, "shared once": shared_once}
            self.peaks = {name: max(value, now[name] >> 20) for name, value in self.peaks.items()}


def redrawn(page: Page, control: str, value: str) -> float:
    """Set a control; how many seconds the picture takes to change."""
    before, started = page.get_attribute(".compare img", "src"), time.perf_counter()
    page.fill(f"{control} input[type=number]", value)
    page.keyboard.press("Tab")
    page.wait_for_function(f"document.querySelector('.compare img')?.getAttribute('src') != '{before}' && {ALL_DRAWN}")
    return time.perf_counter() - started


def journey(page: Page, photographs: Path, minutes: float) -> dict[str, dict[str, float]]:
    """From a drop to a verdict: the seconds of each step, and how many processes wanted a core meanwhile."""
    steps: dict[str, dict[str, float]] = {}

    def told(what: str, seconds: float) -> None:
        steps[what] = {"seconds": round(seconds, 2), "load": round(os.getloadavg()[0], 1)}
        print(what, steps[what], flush=True)

    dropped = time.perf_counter()
    page.set_input_files("#pick-folder", photographs)
    page.wait_for_selector("text=Found:")
    told("drop to what was found", time.perf_counter() - dropped)
    page.wait_for_function(ALL_DRAWN)
    told("drop to preview", time.perf_counter() - dropped)
    for what, control, value in (
        ("visibility", "#visibility", "0.5"),
        ("visibility again", "#visibility", "1"),
        ("rho_u", "#rho-u", "4"),
        ("rho_u again", "#rho-u", "8"),
    ):
        told(what, redrawn(page, control, value))
    page.fill("#minutes input", str(minutes))
    started = time.perf_counter()
    page.click("#plan")
    page.wait_for_selector("text=Expected:")
    told("plan", time.perf_counter() - started)
    started = time.perf_counter()
    page.click("#start")
    page.wait_for_selector(".bars")
    told("start to verdict", time.perf_counter() - started)
    told("drop to verdict", time.perf_counter() - dropped)
    return steps


def draw(page: Page, pictures: Path) -> None:
    """Take pictures of all of the page, and of what README and the guide show."""
    pictures.mkdir(parents=True, exist_ok=True)
    for width, scheme in SCREENS:
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(1000)
        page.screenshot(path=pictures / f"whole-{width}-{scheme}.png", full_page=True)
        if (width, scheme) == SCREENS[0]:
            page.locator(".html-container", has=page.locator(".compare")).screenshot(path=pictures / "page-look.png")
        if (width, scheme) == SCREENS[1]:
            page.locator("section[aria-labelledby=know-h]").screenshot(path=pictures / "page-verdict.png")


def main() -> None:
    """Start the page, go through the journey, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--minutes", type=float, default=1, help="for the fit")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of the page")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
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
                steps = journey(page, arguments.photographs, arguments.minutes)
                if arguments.pictures is not None:
                    draw(page, arguments.pictures)
                found = page.inner_text("text=Found:")
        finally:
            served.terminate()
            served.wait()
    print("peaks in MiB:", watch.peaks)
    about = {"found": found, "minutes": arguments.minutes, "gradio": gradio.__version__, **describe_machine()}
    if arguments.json is not None:
        record = {"about": about, "steps": steps, "peaks_mib": watch.peaks}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

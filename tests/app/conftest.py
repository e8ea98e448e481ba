"""One page and one browser for all tests of a process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import BROWSER, ELSEWHERE, Served, serving


@pytest.fixture(scope="session")
def served(tmp_path_factory) -> Iterator[Served]:
    """A page on this machine alone."""
    with serving(tmp_path_factory.mktemp("page")) as page:
        yield page


@pytest.fixture
def address(served: Served) -> str:
    """Where it is."""
    return served.address


@pytest.fixture
def root(served: Served) -> Path:
    """Its folder."""
    return served.root


@pytest.fixture(scope="session")
def browser(playwright_engine):
    """A headless Chromium."""
    rules = f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1"
    chromium = playwright_engine.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", rules])
    yield chromium
    chromium.close()

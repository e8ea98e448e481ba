"""The files of a Hugging Face Space: they start, and their header is what a Space reads."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
import yaml

SPACE = Path(__file__).parents[2] / "examples" / "space"


@pytest.mark.processes
def test_the_space_starts_as_a_public_page(tmp_path):
    """A Space that does not start, or that tells visitors that nothing leaves their machine."""
    pytest.importorskip("gradio", reason="needs gradio: pip install 'semtransforms[app]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "GRADIO_SERVER_PORT": str(port), "HOME": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen([sys.executable, SPACE / "app.py"], stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            lines: list[str] = []
            for line in iter(process.stdout.readline, ""):
                lines.append(line)
                if "The page" in line:
                    break
            assert "there is no password" in lines[0]
            socket.create_connection(("127.0.0.2", port), 5).close()  # reached by other addresses too
            told = json.dumps(json.load(urlopen(f"http://127.0.0.1:{port}/config")))
        finally:
            process.terminate()
            process.wait(60)
    assert "a machine that others reach too" in told
    assert "everything of yours is deleted after 10 minutes" in told
    assert "Nothing leaves it" not in told


def test_the_header_is_that_of_a_space():
    """Without it a Space shows a page of configuration errors."""
    header = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", (SPACE / "README.md").read_text(), flags=re.DOTALL)[1])
    assert (header["sdk"], header["license"]) == ("gradio", "apache-2.0")
    assert (SPACE / header["app_file"]).is_file()
    assert len(header["short_description"]) <= 60  # what Spaces take
    assert len((SPACE / "app.py").read_text().splitlines()) == 3

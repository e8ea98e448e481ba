"""The notebook of examples/ runs from top to bottom, and what it tells the reader is so."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "first_steps.ipynb"

# What the cells leave behind, as JSON in the last line.
LEFT = """
import json
left = [largest, picture.size, [[copy, way, share] for (copy, way), share in accuracy.items()]]
print(json.dumps(left))
"""


@pytest.mark.processes
def test_the_notebook_runs(tmp_path):
    """A newcomer's first minute ends in an error, or the text between the cells tells of other results.

    Its cells run in their order in one fresh process. That needs no Jupyter in the test environment, and the cells are
    plain Python.
    """
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    script = tmp_path / "cells.py"
    script.write_text("\n".join([*code, LEFT]), encoding="utf-8")
    environment = {**os.environ, "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, str(script)], env=environment, cwd=tmp_path, check=True, capture_output=True, text=True
    )
    largest, size, accuracy = json.loads(result.stdout.splitlines()[-1])
    assert 0 < largest <= 16
    assert size == [8 * 32, 3 * 32]
    learned = {(copy, way): share for copy, way, share in accuracy}
    assert len(learned) == 3
    assert learned["clean", "none"] > 0.9
    assert learned["protected", "none"] < 0.4  # guessing: 0.1
    assert learned["protected", "greyscale"] > 0.9

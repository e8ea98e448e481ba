"""The page with fits of a second: ``python quick_page.py FOLDER [public]``; with ``worker`` the process behind it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from owner import quicken

from semtransforms.app import visitors, worker
from semtransforms.app.serving import serve

SLOW_UPDATES = 300  # of a fit that can be stopped: at least some seconds

if __name__ == "__main__":
    quicken(setattr)
    if sys.argv[1] == "worker":
        worker.main()
    else:
        visitors.KEPT_MINUTES = 1 / 20
        root, *words = sys.argv[1:]
        serve(
            root=root,
            host="0.0.0.0" if "public" in words else "127.0.0.1",
            say=lambda line: print(line, flush=True),
            worker=(sys.executable, __file__, "worker"),
        )

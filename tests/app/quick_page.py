"""The page with fits of seconds: ``python quick_page.py FOLDER [URL]``; with ``worker`` the process behind it.

With a URL, ``--share`` is given, and it is what Gradio's server answers.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from owner import quicken

from semtransforms.app import visitors, worker
from semtransforms.app.serving import serve
from semtransforms.photographs import journey, look, plan

MINUTES = 0.05  # of a fit of six updates; any more is one that can be stopped

if __name__ == "__main__":
    quicken(setattr)
    plan.MOST_UPDATES, look.FEWEST_MEASURED = 60, 20
    plan.measure_passes = journey.measure_passes = lambda *_: 50.0
    if sys.argv[1] == "worker":
        worker.main()
    else:
        visitors.KEPT_MINUTES, visitors.SWEEP_SECONDS = 1 / 15, 0.5
        shared = sys.argv[2:]
        if shared:
            from gradio import networking

            networking.setup_tunnel = lambda **_: shared[0]
        serve(
            root=sys.argv[1],
            share=bool(shared),
            say=lambda line: print(line, flush=True),
            worker=(sys.executable, __file__, "worker"),
        )

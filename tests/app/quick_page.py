"""The page with fits of seconds: ``python quick_page.py FOLDER [URL]``; with ``worker`` the process behind it.

With a URL, ``--share`` is given, and it is what Gradio's server answers.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from owner import quicken

from semtransforms.app import visitors, worker
from semtransforms.app.serving import serve
from semtransforms.generators import fitting
from semtransforms.photographs import journey, look, plan

MINUTES = 0.05  # of a fit of six updates; any more is one that can be stopped
SECONDS = 0.2  # of an update at least: else a quick machine has ended the fit before anyone can stop it

train_step = fitting.train_step


def slow_step(*arguments, **named):
    time.sleep(SECONDS)
    return train_step(*arguments, **named)


if __name__ == "__main__":
    quicken(setattr)
    plan.MOST_UPDATES, look.FEWEST_MEASURED, plan.CHECKPOINT_SECONDS = 60, 20, 1
    fitting.train_step = slow_step
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

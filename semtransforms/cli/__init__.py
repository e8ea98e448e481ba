"""The command line. A command is a file beside this one and a row of ``COMMANDS``, in the order of the help.

What several commands take is in ``options.py``. Nothing heavy is imported before a command runs: whoever asks for help
waits for no torch.
"""

from __future__ import annotations

from collections.abc import Callable

import typer

from semtransforms.cli.app import app_command
from semtransforms.cli.check import check_command
from semtransforms.cli.demo import demo_command
from semtransforms.cli.evaluate import evaluate_command
from semtransforms.cli.fit import fit_command
from semtransforms.cli.list import list_command
from semtransforms.cli.protect import protect_command
from semtransforms.cli.push import push_command
from semtransforms.cli.show import show_command

COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo_command,
    "fit": fit_command,
    "protect": protect_command,
    "check": check_command,
    "evaluate": evaluate_command,
    "list": list_command,
    "show": show_command,
    "push": push_command,
    "app": app_command,
}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Make image datasets unlearnable with Stable Error-Minimizing noise.",
)
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)

"""What a user reads when something goes wrong: one line, and an exit code."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def one_line_errors(interrupted: str = "interrupted") -> Iterator[None]:
    """Turn the errors a user can mend into one line on stderr and exit code 2, warnings into one line each.

    Args:
        interrupted: what to say after Ctrl-C, whose exit code is 130.
    """
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: typer.echo(f"warning: {message}", err=True)
        try:
            yield
        except (ValueError, TypeError, OSError, ModuleNotFoundError, FloatingPointError) as error:
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(2) from error
        except Exception as error:
            from semtransforms.data.refusals import StorageError
            from semtransforms.data.shards import DamagedStoreError  # brings torch, which help need not wait for

            if isinstance(error, DamagedStoreError | StorageError):
                typer.echo(f"error: {' '.join(str(error).split())}", err=True)
                raise typer.Exit(2) from error
            # torch's word for what a device cannot do or hold; any other is a mistake of ours, and keeps its traceback
            if not isinstance(error, RuntimeError) or not re.search(
                r"CUDA|NVIDIA|out of memory|not linked with|backend", str(error)
            ):
                raise
            first = str(error).partition("\n")[0]
            typer.echo(f"error: --device: {first} Another device, such as --device cpu, may do.", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt:
            typer.echo(interrupted, err=True)
            raise typer.Exit(130) from None

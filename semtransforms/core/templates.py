"""Documents from templates that lie beside the code that fills them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def fill(template: Path, *, escape: bool, **values: Any) -> str:
    """Fill a Jinja template.

    Args:
        template: its file; what it includes lies in the same folder.
        escape: write every value so that HTML shows it letter by letter. ``False`` is for Markdown.
        values: what the template names.

    Returns:
        The document.

    Raises:
        jinja2.UndefinedError: the template names a value that is not given.
    """
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template.name).render(values)

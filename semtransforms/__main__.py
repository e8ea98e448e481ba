"""``python -m semtransforms``, where the script is not on the path."""

from semtransforms.cli import app

app(prog_name="semtransforms")

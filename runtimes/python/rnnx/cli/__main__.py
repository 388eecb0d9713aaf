"""`python -m rnnx.cli`, for where the `rnnx` script is not on the path."""

from rnnx.cli import app

app()

"""The `emjax` command: thin edges around the array functions."""

from emjax.cli.main import app, main

__all__ = ["app", "main"]

"""The `emjax` command: thin edges around the array functions."""

from emjax.cli.commands import app
from emjax.cli.entry import command, main

__all__ = ["app", "command", "main"]

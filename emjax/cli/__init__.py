"""The `emjax` command: thin edges around the array functions."""

from emjax.cli.entry import main
from emjax.cli.main import app

__all__ = ["app", "main"]

"""What is trained: a task draws its own measurements of the images it is given, and scores the network.

[task]
kind = "denoise"     # a name in TASKS
...                  # the fields of that class
"""

from emjax.training.tasks.base import Task
from emjax.training.tasks.block import Block
from emjax.training.tasks.denoise import Denoise
from emjax.training.tasks.scan import Scan
from emjax.training.tasks.vae import Generate

TASKS: dict[str, type[Task]] = {
    "block": Block,
    "denoise": Denoise,
    "scan": Scan,
    "vae": Generate,
}

__all__ = ["TASKS", "Block", "Denoise", "Generate", "Scan", "Task"]

"""Training of networks from recipes: `emjax train RECIPE`, or `train(load_recipe("denoise-phantom"), folder)`.

A recipe is a small TOML file: a network, a task (what is trained, on what loss), data, and how long. See `recipe`.
"""

from emjax.training.augment import Augmentation
from emjax.training.data import Images, read_images
from emjax.training.loop import Result, train
from emjax.training.recipe import Recipe, load_recipe, recipes
from emjax.training.tasks import TASKS, Task

__all__ = [
    "TASKS",
    "Augmentation",
    "Images",
    "Recipe",
    "Result",
    "Task",
    "load_recipe",
    "read_images",
    "recipes",
    "train",
]

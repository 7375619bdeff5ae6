"""`emjax.load(name)`: a reconstructor by its name, classical or learned."""

import dataclasses
import os
from typing import Any

from emjax.zoo import files
from emjax.zoo.parameters import read


def load(name: str | os.PathLike[str], /, **settings: Any) -> Any:
    """The reconstructor of that name with the given settings, e.g. `load("tv", weight=0.02)`.

    Classical methods come first, then the networks of the zoo; a path such as "./runs/mine" is one of your own. The
    settings are the fields of the reconstructor.
    Raises ValueError for an unknown name, listing those there are, and for files that cannot be used; TypeError for
    an unknown setting.
    """
    from emjax import reconstructors
    from emjax.reconstructors.wrappers import wrapper

    text = os.fspath(name)
    if text in reconstructors.METHODS:
        return reconstructors.load(text, **settings)
    if not files.is_path(text) and text not in files.names():
        raise ValueError(
            f"unknown method {text!r}; there are {', '.join(reconstructors.METHODS)}; and in the zoo "
            f"{', '.join(files.names()) or 'none'}. A network elsewhere takes its path, ./{text}"
        )
    known = files.entry(text)
    if known.reconstructor is None:
        raise ValueError(
            f"{text} is a network ({known.kind}) that recovers nothing by itself; emjax.zoo.network({text!r}) gives "
            "it, and emjax.denoisers.NetworkDenoiser makes a denoiser for plug-and-play of one that denoises"
        )
    try:
        cls = wrapper(known.reconstructor)
    except ValueError as error:
        raise ValueError(f"{files.beside(known.path, '.json')}: {error}") from None
    fields = [f.name for f in dataclasses.fields(cls) if f.name != "network"]
    if unknown := set(settings) - set(fields):
        raise TypeError(f"{text} has no setting {', '.join(sorted(unknown))}; it has {', '.join(fields) or 'none'}")
    return cls(network=read(known.path), **settings)

"""The zoo: trained networks by name, and `emjax.load(name)`, which finds classical methods and networks alike.

A network is three files: NAME.safetensors (its parameters, float16), NAME.json (how to build it, and the checksum of
the parameters) and NAME.md (the model card: data, training, figures, limits). They lie in the package, or in the
folder that the environment variable EMJAX_ZOO names, which comes first. Listing and cards need no JAX.
"""

from emjax.zoo.files import Entry, card, entry, is_path, names, table
from emjax.zoo.loading import load
from emjax.zoo.parameters import check_name, network, read, save

__all__ = ["Entry", "card", "check_name", "entry", "is_path", "load", "names", "network", "read", "save", "table"]

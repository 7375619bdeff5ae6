"""Which reconstructor stands around which network. They are imported when used, as networks need flax."""

import importlib
from typing import Any

# Class -> its module in this folder.
WRAPPERS = {
    "Generative": "generative",
    "Learned": "learned",
    "ScanRecovery": "scan_recovery",
}
# Kind of network -> its reconstructor, None for one that recovers nothing by itself. All others are inverting networks.
KINDS: dict[str, str | None] = {
    "dncnn": None,
    "scan": "ScanRecovery",
    "vae": "Generative",
}


def reconstructor_of(kind: str) -> str | None:
    """The name of the reconstructor for networks of that kind."""
    return KINDS.get(kind, "Learned")


def wrapper(name: str) -> Any:
    """The class of that name, a dataclass with a field `network`. Raises ValueError for an unknown one."""
    if name not in WRAPPERS:
        raise ValueError(
            f"this emjax has no reconstructor {name!r} for networks, only {', '.join(WRAPPERS)}; a newer one may"
        )
    return getattr(importlib.import_module(f"emjax.reconstructors.{WRAPPERS[name]}"), name)

"""`emjax zoo`: the trained networks, and their model cards. Loads no JAX."""

import dataclasses
import json
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from emjax import zoo
from emjax.cli.outputs import reporting


def list_networks(as_json: bool) -> None:
    """All networks: a table, or one JSON object."""
    rows = zoo.table()
    with reporting():
        if as_json:
            print(json.dumps({"networks": rows}))
        elif rows:
            Console(highlight=False).print(_table(rows))
        else:
            print("the zoo is empty; EMJAX_ZOO may name a folder of networks that emjax.zoo.save wrote")


def show_network(name: str, as_json: bool) -> None:
    """The model card of one, as it is for files and formatted for terminals, or its JSON with the card in it."""
    known, card = zoo.entry(name), zoo.card(name)
    with reporting():
        if as_json:
            values = dataclasses.asdict(known) | {"name": known.path.name, "path": str(known.path), "card": card}
            print(json.dumps(values))
            return
        console = Console(highlight=False)
        if console.is_terminal:
            console.print(Markdown(card))
        else:
            print(card.rstrip())


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("name", "kind", "parameters", "size", "description"):
        table.add_column(column, justify="right" if column in ("parameters", "size") else "left", overflow="fold")
    for row in rows:
        count = "" if row["parameters"] is None else f"{row['parameters']:,}"
        size = "" if row["bytes"] is None else f"{row['bytes'] / 1e6:.2f} MB"
        table.add_row(row["name"], row["kind"] or "", count, size, row["description"])
    return table

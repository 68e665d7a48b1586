"""`cmp-seg teachers`."""

import json
from enum import Enum
from typing import Annotated

import typer

from cmp_seg_ros.cli import options


class Action(str, Enum):
    """What to do."""

    list = "list"
    fetch = "fetch"


def teachers(
    action: Annotated[Action, typer.Argument(help="list, or fetch the weights of NAME.")] = Action.list,
    name: Annotated[str, typer.Argument(help="Name of the teacher to fetch.")] = "",
    as_json: options.Json = False,
) -> None:
    """List the image teachers with size, licence, classes and what is missing, or fetch weights. Fetching resumes."""
    from rich.table import Table

    from cmp_seg_ros.cli.progress import progress_bar
    from cmp_seg_ros.cli.tables import show
    from cmp_seg_ros.errors import UserError
    from cmp_seg_ros.teachers.base import FOLDER, cards, folder
    from cmp_seg_ros.teachers.download import fetch, missing

    known = cards()
    if action is Action.fetch:
        if name not in known:
            names = ", ".join(card.name for card in known.values() if card.files)
            raise UserError(f"no teacher '{name}' to fetch; known: {names}" if name else f"name a teacher: {names}")
        with progress_bar("megabytes", known[name].megabytes) as progress:
            where = fetch(known[name], lambda file, done, total: progress(done // 1_000_000))
        show(str(where))
        return
    rows = [
        {
            "name": card.name,
            "classes": card.label_space or None,
            "features": card.dimension or None,
            "megabytes": card.megabytes,
            "licence": card.licence,
            "path": str(folder() / card.file) if card.file else None,
            "missing": missing(card),
            "source": card.source,
        }
        for card in known.values()
    ]
    if as_json:
        print(json.dumps(rows))
        return
    columns = ("teacher", "classes", "features", "MB", "licence", "weights")
    table = Table(*columns, title=f"Teachers; weights in {folder()}")
    table.columns[0].no_wrap = True
    for card in known.values():
        lacking = missing(card)
        state = "here" if card.files else "none needed"
        if lacking:
            state = "missing" if len(lacking) == len(card.files) else f"missing: {', '.join(lacking)}"
        figures = (str(value or "-") for value in (card.label_space, card.dimension, card.megabytes))
        table.add_row(card.name, *figures, card.licence, state)
    show(table, f"cmp-seg teachers fetch NAME gets them; {FOLDER} names another folder")

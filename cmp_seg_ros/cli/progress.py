"""The progress bar of all commands, on stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar of `total` items with the remaining time; yields a function to call with the number done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def status_bar(what: str, disable: bool = False) -> Iterator[Callable[[float, str, bool], None]]:
    """Show the fraction done with a line of text; yields a function to call with both, and whether to keep the line."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn

    columns = ("{task.description}", BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=Console(stderr=True), disable=disable) as bar:
        task = bar.add_task(what, total=1)

        def update(fraction: float, line: str, keep: bool) -> None:
            bar.update(task, completed=fraction, description=line)
            if keep:
                bar.console.print(line, highlight=False)

        yield update

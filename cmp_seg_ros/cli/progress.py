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
def telling(what: str) -> Iterator[Callable[[float, str, bool], None]]:
    """Shows which fraction is done, and a line that says more; gives what is to be told both, and if the line stays."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn

    with Progress("{task.description}", BarColumn(), TaskProgressColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=1)

        def tell(fraction: float, line: str, stays: bool) -> None:
            bar.update(task, completed=fraction, description=line)
            if stays:
                bar.console.print(line, highlight=False)

        yield tell

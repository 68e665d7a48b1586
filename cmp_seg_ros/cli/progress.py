"""The progress of all commands, on stderr: a bar in a terminal, a plain line now and then in a file or a pipe."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic

STEP = 0.1  # of the work, after which a line is due
SOONEST, LATEST = 10, 60  # seconds from one line to the next, where so much is done and where not


@contextmanager
def progress_bar(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show how many of `total` items are done, with the remaining time; yields a function to call with the number."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        lines, of = _Lines(), f" of {total:,}" if total else ""
        yield lambda done: lines.show(f"{what}: {done:,}{of}, {lines.passed}", done / total if total else 0)
        return
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def status_bar(what: str, disable: bool = False) -> Iterator[Callable[[float, str, bool], None]]:
    """Show the fraction done with a line of text; yields a function to call with both, and whether to keep the line."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn

    console = Console(stderr=True)
    if disable or not console.is_terminal:
        lines = _Lines()
        yield lambda fraction, line, keep: None if disable else lines.show(line, fraction, keep)
        return
    columns = ("{task.description}", BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=1)

        def update(fraction: float, line: str, keep: bool) -> None:
            bar.update(task, completed=fraction, description=line)
            if keep:
                bar.console.print(line, highlight=False)

        yield update


class _Lines:
    """Plain lines, where a tenth more is done; at most every ten seconds, at least every minute."""

    def __init__(self) -> None:
        self._start = self._last = monotonic()
        self._fraction = 0.0

    @property
    def passed(self) -> timedelta:
        return timedelta(seconds=round(monotonic() - self._start))

    def show(self, line: str, fraction: float, at_once: bool = False) -> None:
        """Print the line to stderr if one is due, or at once."""
        now = monotonic()
        if at_once or now - self._last >= (SOONEST if fraction >= self._fraction + STEP else LATEST):
            print(line, file=sys.stderr, flush=True)
            self._last, self._fraction = now, fraction

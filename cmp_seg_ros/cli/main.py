"""`cmp-seg`: the command line. Each file beside this one holds a group of subcommands."""

import os
import signal
import sys
import threading
from importlib import import_module
from types import FrameType
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from cmp_seg_ros.errors import UserError

# Command -> module of cmp_seg_ros.cli; the function has the command's name.
COMMANDS = {
    "demo": "demo",
    "label": "label",
    "evaluate": "evaluate",
    "simulate": "simulate",
    "train": "train",
    "import-checkpoint": "import_checkpoint",
    "export": "export",
    "bench": "bench",
    "doctor": "doctor",
}

INTERRUPTED = 130  # exit status
COMPILING = "compiling"  # the thread that kernels.launch compiles in; not imported, for numba takes its time

app = typer.Typer(
    name="cmp-seg",
    help="Semantic labels for indoor lidar: run, evaluate, teach.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command, module in COMMANDS.items():
    function: Any = getattr(import_module(f"cmp_seg_ros.cli.{module}"), command.replace("-", "_"))
    app.command(command)(function)


def main() -> None:
    """Entry point. What a user can mend is one line on stderr and exit status 1."""
    status = _run()
    if any(thread.name == COMPILING for thread in threading.enumerate()):
        os._exit(status)  # LLVM in a thread does not outlive the end of a process, nor can it be broken off
    sys.exit(status)


def _run() -> int:
    interrupts = _count_interrupts()
    try:
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except UserError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {escape(str(error))}")
        return 1
    except Exception:
        if not interrupts:
            raise
        return INTERRUPTED  # numba makes another error of it
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _count_interrupts() -> list[int]:
    """Grows with each Ctrl-C, which is a KeyboardInterrupt as ever."""
    interrupts: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        interrupts.append(number)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored, as of a job in the background
        signal.signal(signal.SIGINT, interrupt)
    return interrupts


if __name__ == "__main__":
    main()

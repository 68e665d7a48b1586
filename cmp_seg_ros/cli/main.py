"""`cmp-seg`: the command line. Each other file in this folder implements subcommands."""

import os
import sys
import threading
from importlib import import_module
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from cmp_seg_ros import interrupts
from cmp_seg_ros.errors import UserError, describe_os_error
from cmp_seg_ros.kernels import COMPILING

COMMANDS = (
    *("demo", "label", "evaluate", "compare", "map", "annotate", "simulate", "convert", "pseudo-label"),
    *("calibration", "teachers", "train", "distill", "probe", "finetune", "adapt"),
    *("import-checkpoint", "export", "scenedino", "bench", "doctor"),
)
SHARED = dict.fromkeys(("distill", "probe", "finetune"), "train")  # commands of a file that has another name

app = typer.Typer(
    name="cmp-seg",
    help="Semantic labels for indoor lidar: label, evaluate, simulate, convert, train.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in COMMANDS:
    name = command.replace("-", "_")
    function: Any = getattr(import_module(f"cmp_seg_ros.cli.{SHARED.get(name, name)}"), name)
    if isinstance(function, typer.Typer):  # a group of commands
        app.add_typer(function, name=command)
    else:
        app.command(command)(function)


def main() -> None:
    """Entry point. Errors that a user can fix print one line on stderr and exit with status 1."""
    status = _run()
    # LLVM in a thread cannot be interrupted, and crashes on a normal exit; torch takes seconds for one.
    if status == interrupts.INTERRUPTED or any(thread.name == COMPILING for thread in threading.enumerate()):
        sys.stdout.flush()
        os._exit(status)
    sys.exit(status)


def _run() -> int:
    with interrupts.handled() as received:
        try:
            app()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 0
        except UserError as error:
            _print_error(str(error))
            return 1
        except KeyboardInterrupt:
            return interrupts.INTERRUPTED
        except Exception as error:
            if received:  # numba turns the KeyboardInterrupt into another error
                return interrupts.INTERRUPTED
            if not isinstance(error, OSError):
                raise
            _print_error(describe_os_error(error))
            return 1
    return 0


def _print_error(error: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {escape(error)}")


if __name__ == "__main__":
    main()

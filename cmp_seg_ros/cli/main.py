"""`cmp-seg`: the command line. Each file beside this one holds a group of subcommands."""

import sys
from importlib import import_module
from typing import Any

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
    try:
        app()
    except UserError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {escape(str(error))}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

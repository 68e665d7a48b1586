"""The one error that users see."""

from pydantic import ValidationError


class UserError(Exception):
    """Something the user can mend. The message names the thing (file, field, topic) and the remedy.

    The command line prints it without a traceback and exits with status 1; a node logs it, counts it and goes on.
    """


def one_line(error: ValidationError) -> str:
    """What pydantic found wrong, as `field: reason; field: reason`."""
    faults = (
        ".".join(map(str, fault["loc"])) + ": " + fault["msg"].removeprefix("Value error, ") for fault in error.errors()
    )
    return "; ".join(fault.removeprefix(": ") for fault in faults)

"""The one error that users see."""

from pydantic import ValidationError


class UserError(Exception):
    """Something the user can mend. The message names the thing (file, field, topic) and the remedy.

    The command line prints it without a traceback and exits with status 1; a node logs it, counts it and goes on.
    """


def of_system(error: OSError) -> str:
    """What the system refused, for a user: the file where one is known, and why."""
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename is not None else reason


def one_line(error: ValidationError) -> str:
    """What pydantic found wrong, as `field: reason; field: reason`."""
    faults = (
        ".".join(map(str, fault["loc"])) + ": " + fault["msg"].removeprefix("Value error, ") for fault in error.errors()
    )
    return "; ".join(fault.removeprefix(": ") for fault in faults)

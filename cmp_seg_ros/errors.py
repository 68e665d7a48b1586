"""The error class for users, and texts for errors of other libraries."""

from collections.abc import Iterable, Mapping

from pydantic import ValidationError


class UserError(Exception):
    """An error that the user can fix. The message names the file, field or topic, and the remedy.

    The command line prints it without a traceback and exits with status 1; a node logs it, counts it and continues.
    """


def describe(error: BaseException) -> str:
    """An error in words, with its type unless it is a UserError."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def describe_os_error(error: OSError) -> str:
    """The file, if known, and the reason of an OSError, as a message for users."""
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename is not None else reason


def describe_invalid(error: ValidationError) -> str:
    """The errors that pydantic found, in one line: `field: reason; field: reason`."""
    faults = (
        ".".join(map(str, fault["loc"])) + ": " + fault["msg"].removeprefix("Value error, ") for fault in error.errors()
    )
    return "; ".join(fault.removeprefix(": ") for fault in faults)


def require_fit(source: str, faults: Mapping[str, Iterable[str]]) -> None:
    """Raise UserError if there are weights at fault in the file `source`; `faults` names them by what is wrong."""
    if details := "; ".join(f"{what}: {', '.join(keys)}" for what, keys in faults.items() if keys):
        raise UserError(
            f"weights in {source} do not fit the network that is described beside them: {details}; the file is of "
            "another network, or its description was changed: give both as they were written together"
        )

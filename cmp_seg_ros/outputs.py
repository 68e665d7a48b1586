"""Output folders: checked before the work begins; files of other programs in them are never removed."""

import errno
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cmp_seg_ros.errors import UserError

REPORT = "report.json"
WRITE_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EIO,
)  # raised without a file name


def try_writing(folder: Path) -> None:
    """Check that a folder is writable by creating a temporary file in it; permission bits are not enough (root).

    Raises OSError if it is not.
    """
    with tempfile.TemporaryFile(dir=folder):
        pass


def require_writable(out: Path, command: str, replaced: Iterable[str] = (REPORT,), source: Path | None = None) -> None:
    """Check, before the work begins, that the command may write to `out`. Changes nothing.

    Args:
        out: output folder.
        command: subcommand of `cmp-seg`; its report in `out` shows that it made the files there.
        replaced: names of the files and folders in `out` that the command replaces.
        source: the command's input.

    Raises:
        UserError: `out` is not writable; a file to be replaced was made by another command; `source` is inside one.
    """
    there = [name for name in replaced if (out / name).exists()]
    for name in there:
        if source is not None and source.resolve().is_relative_to((out / name).resolve()):
            raise UserError(f"{source} is in {out / name}, which cmp-seg {command} would replace; give another --out")
    if there and made_by(out) != command:
        raise UserError(f"{out} already has {', '.join(there)}, not made by cmp-seg {command}; give another --out")
    try:
        try_writing(next(folder for folder in (out, *out.absolute().parents) if os.path.lexists(folder)))
    except OSError as error:
        raise _unwritable(out, error) from error


@contextmanager
def writing(out: Path, remedy: str = "give another --out") -> Iterator[None]:
    """Create `out`; an OSError about it inside the block (disk full, no permission) becomes a UserError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if not is_about(out, error):
            raise
        raise _unwritable(out, error, remedy) from error


def claim(out: Path, command: str, replaced: Iterable[str] = (REPORT,), source: Path | None = None) -> None:
    """Check as `require_writable`, then create `out` with a first report, so that a cut-off run may be repeated."""
    require_writable(out, command, replaced, source)
    with writing(out):
        write_report(out, {"command": command, "finished": False})


def write_report(out: Path, report: dict[str, Any]) -> None:
    """Write report.json; its key `command` holds the name of the command."""
    write_whole(out / REPORT, (json.dumps(report, indent=2) + "\n").encode())


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file atomically: the old content stays until the new one is complete. Raises OSError."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def remove_bag(bag: Path) -> None:
    """Remove a bag that we wrote, if it exists. Raises UserError if its folder has other files, and removes nothing."""
    if not bag.exists():
        return
    ours = [bag / "metadata.yaml", *bag.glob("*.mcap")]
    if others := sorted(path.name for path in bag.iterdir() if path not in ours):
        raise UserError(f"{bag} cannot be replaced: it also holds {', '.join(others[:5])}; move them elsewhere")
    for path in ours:
        path.unlink(missing_ok=True)
    bag.rmdir()


def made_by(out: Path) -> str | None:
    """The command of `cmp-seg` that wrote the report in a folder; None without a report."""
    try:
        return str(json.loads((out / REPORT).read_text())["command"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def is_about(folder: Path, error: OSError) -> bool:
    """Whether the error is about writing to the folder, and not about some other file."""
    if not isinstance(error.filename, str | bytes):
        return error.errno in WRITE_ERRORS
    folder, path = folder.absolute(), Path(os.fsdecode(error.filename)).absolute()
    return path.is_relative_to(folder) or folder.is_relative_to(path)


def _unwritable(out: Path, error: OSError, remedy: str = "give another --out") -> UserError:
    return UserError(f"{out} cannot be written: {error.strerror or error}; {remedy}")

"""Folders that results go to: tried before the work begins, and never emptied of what somebody else has put there."""

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
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)  # what writing says without a name of a file


def try_writing(folder: Path) -> None:
    """Write a file in a folder, which is gone at once, for permissions do not tell (root has them all).

    Raises OSError where that cannot be done.
    """
    with tempfile.TemporaryFile(dir=folder):
        pass


def require_writable(out: Path, command: str, replaced: Iterable[str] = (REPORT,), source: Path | None = None) -> None:
    """Before the work whose outcome goes to `out`: whether that can be written, and may. Leaves nothing there.

    Args:
        out: folder.
        command: of `cmp-seg`; a report names the command that made it.
        replaced: what the command would replace in `out`.
        source: what the command reads.

    Raises:
        UserError: `out` cannot be written; one of these is not that command's; `source` is in one of them.
    """
    there = [name for name in replaced if (out / name).exists()]
    for name in there:
        if source is not None and source.resolve().is_relative_to((out / name).resolve()):
            raise UserError(f"{source} is in {out / name}, which cmp-seg {command} would replace; give another --out")
    if there and made_by(out) != command:
        raise UserError(
            f"{out} holds {', '.join(there)} that cmp-seg {command} would replace but has not made; give another "
            "--out, or remove that"
        )
    try:
        try_writing(next(folder for folder in (out, *out.absolute().parents) if os.path.lexists(folder)))
    except OSError as error:
        raise _unwritable(out, error) from error


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Makes `out`; inside, what cannot be written (a full disk, a folder of somebody else) is a UserError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if not concerns(out, error):
            raise
        raise _unwritable(out, error) from error


def claim(out: Path, command: str, replaced: Iterable[str] = (REPORT,), source: Path | None = None) -> None:
    """As `require_writable`; then makes `out` and notes there whose it is, so that a run cut short can be repeated."""
    require_writable(out, command, replaced, source)
    with writing(out):
        write_report(out, {"command": command, "finished": False})


def write_report(out: Path, report: dict[str, Any]) -> None:
    """Write report.json, which names its command as `command`."""
    write_whole(out / REPORT, (json.dumps(report, indent=2) + "\n").encode())


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file, all or nothing: what stood there stays until it is done. Raises OSError."""
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def remove_bag(bag: Path) -> None:
    """Remove a bag of ours, where there is one. Raises UserError where its folder has something else, which stays."""
    if not bag.exists():
        return
    ours = [bag / "metadata.yaml", *bag.glob("*.mcap")]
    if others := sorted(path.name for path in bag.iterdir() if path not in ours):
        raise UserError(f"{bag} is to be replaced, but also holds {', '.join(others[:5])}; move that elsewhere")
    for path in ours:
        path.unlink(missing_ok=True)
    bag.rmdir()


def made_by(out: Path) -> str | None:
    """The command of `cmp-seg` whose report is in a folder; None where there is none."""
    try:
        return str(json.loads((out / REPORT).read_text())["command"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def concerns(folder: Path, error: OSError) -> bool:
    """Whether it is the folder that could not be written, and not something else that failed meanwhile."""
    if not isinstance(error.filename, str | bytes):
        return error.errno in FULL
    folder, path = folder.absolute(), Path(os.fsdecode(error.filename)).absolute()
    return path.is_relative_to(folder) or folder.is_relative_to(path)


def _unwritable(out: Path, error: OSError) -> UserError:
    return UserError(f"{out} cannot be written: {error.strerror or error}; give another --out")

"""Digests of what a kept result was made by: the result is made again when that changes."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def digest(paths: Iterable[Path], *versions: str) -> str:
    """8 hex digits that change with the content of the files, and with the versions."""
    parts = [*(path.read_bytes() for path in sorted(paths)), *(version.encode() for version in versions)]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:8]

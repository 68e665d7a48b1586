"""Digests of the files and versions that a cached result depends on."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def digest(paths: Iterable[Path], *versions: str) -> str:
    """8 hex digits of a hash of the files' contents and the versions."""
    parts = [*(path.read_bytes() for path in sorted(paths)), *(version.encode() for version in versions)]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:8]

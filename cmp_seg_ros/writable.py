"""Whether a folder can be written: asked by writing, for permissions do not tell (root has them all)."""

import tempfile
from pathlib import Path


def try_writing(folder: Path) -> None:
    """Write a file in a folder, which is gone at once. Raises OSError where that cannot be done."""
    with tempfile.TemporaryFile(dir=folder):
        pass

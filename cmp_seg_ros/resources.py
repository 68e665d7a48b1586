"""Locations of the package's data, models/ and config/: a checkout, or the installed share folder."""

import os
from pathlib import Path

from cmp_seg_ros.errors import UserError

PACKAGE = "cmp_seg_ros"


def share_folders() -> list[Path]:
    """Existing folders that may hold models/ and config/, in order of preference.

    A checkout comes before an installation, so that an editable install never uses a stale copy.
    """
    checkout = Path(__file__).resolve().parent.parent
    folders = [checkout] if (checkout / "package.xml").exists() else []
    prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    prefixes += Path(__file__).resolve().parents  # wherever pip put it: a venv, ~/.local, /usr/local
    folders += [prefix / "share" / PACKAGE for prefix in prefixes]
    return [folder for folder in folders if folder.is_dir()]


def resource(relative: str) -> Path:
    """The package's file or folder `relative`, such as `config/fastdds.xml`. Raises UserError if there is none."""
    for folder in share_folders():
        if (folder / relative).exists():
            return folder / relative
    searched = ", ".join(str(folder) for folder in share_folders()) or "no share folder"
    raise UserError(f"{relative} is not part of this installation (searched {searched}); reinstall {PACKAGE}")


def names(relative: str, suffix: str = "") -> list[str]:
    """Sorted names of the files in the folder `relative` that end in `suffix`, which is cut off; all share folders."""
    found = {
        path.name.removesuffix(suffix)
        for folder in share_folders()
        if (folder / relative).is_dir()
        for path in (folder / relative).iterdir()
        if path.name.endswith(suffix) and not path.name.startswith(".")
    }
    return sorted(found)

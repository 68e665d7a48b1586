"""Where the package's data lie: models/ and config/, in a checkout or in the installed share folder."""

import os
from pathlib import Path

from cmp_seg_ros.errors import UserError

PACKAGE = "cmp_seg_ros"


def share_folders() -> list[Path]:
    """Folders that may hold models/ and config/, best first.

    A checkout comes before anything installed, so that an editable install never serves a stale copy.
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
    """Names in the folder `relative` over all share folders, without `suffix`; only those that end in it."""
    found = {
        path.name.removesuffix(suffix)
        for folder in share_folders()
        if (folder / relative).is_dir()
        for path in (folder / relative).iterdir()
        if path.name.endswith(suffix) and not path.name.startswith(".")
    }
    return sorted(found)

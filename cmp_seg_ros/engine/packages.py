"""Packages that an engine needs and that may not be there."""

from importlib import import_module
from typing import Any

from cmp_seg_ros.errors import UserError


def find(name: str) -> tuple[Any, str]:
    """A package, or None and why there is none: it "is not installed", or "cannot be loaded: ..."."""
    try:
        return import_module(name), ""
    except ModuleNotFoundError as error:
        absent = error.name is not None and f"{name}.".startswith(f"{error.name}.")  # it, and not what it imports
        return None, "is not installed" if absent else f"cannot be loaded: {error}"
    except ImportError as error:
        return None, f"cannot be loaded: {error}"


def need(name: str, engine: str, install: str) -> Any:
    """A package. Raises UserError naming what installs it."""
    package, fault = find(name)
    if fault:
        raise UserError(f"engine '{engine}' needs the package {name}, which {fault}: {install}")
    return package

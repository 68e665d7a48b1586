"""Configuration files: found by name in a folder of config/ or by path, read as pydantic models."""

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from cmp_seg_ros import resources
from cmp_seg_ros.errors import UserError, one_line

Model = TypeVar("Model", bound=BaseModel)


def load(model: type[Model], folder: str, what: str, name_or_path: str | Path) -> Model:
    """What `folder` has by that name, or what a .yaml file has. Raises UserError, which calls it `what`."""
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        known = resources.names(folder, ".yaml")
        if str(name_or_path) not in known:
            raise UserError(f"no {what} '{name_or_path}'; known: {', '.join(known)}, or give a .yaml file")
        path = resources.resource(f"{folder}/{name_or_path}.yaml")
    return _read(model, f"{what} file", path, "is not YAML")


def load_file(model: type[Model], folder: str, what: str, name_or_path: str | Path) -> Model:
    """A file of any suffix, or else what `folder` has by that name. Raises UserError, which calls it `what`."""
    path = Path(name_or_path)
    if not path.is_file():
        known = resources.names(folder, ".yaml")
        if str(name_or_path) not in known:
            raise UserError(f"no {what} '{name_or_path}': neither a file nor one of {', '.join(known)}")
        path = resources.resource(f"{folder}/{name_or_path}.yaml")
    return _read(model, what, path, "cannot be read")


def _read(model: type[Model], what: str, path: Path, unparsable: str) -> Model:
    """The content of a YAML file. Raises UserError in one line, in which a file that is no YAML `unparsable`."""
    try:
        return model.model_validate(yaml.safe_load(path.read_text()))
    except ValidationError as error:
        raise UserError(f"{what} {path} is not valid: {one_line(error)}") from error
    except OSError as error:
        raise UserError(f"{what} {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{what} {path} {unparsable}: {' '.join(str(error).split())}") from error

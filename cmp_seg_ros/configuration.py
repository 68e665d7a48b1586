"""YAML files read into pydantic models, by path or by name in a folder of config/."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from cmp_seg_ros import resources
from cmp_seg_ros.errors import UserError, describe_invalid

Model = TypeVar("Model", bound=BaseModel)


def load(model: type[Model], folder: str, what: str, name_or_path: str | Path) -> Model:
    """Read the configuration of that name in `folder`, or else the file. Raises UserError, which calls it `what`."""
    known = resources.names(folder, ".yaml")
    path = Path(name_or_path)
    if str(name_or_path) in known:
        path = resources.resource(f"{folder}/{name_or_path}.yaml")
    elif not path.is_file():
        raise UserError(f"no {what} '{name_or_path}': neither a file nor one of {', '.join(known)}")
    return read(model, what, path)


def read(model: type[Model], what: str, path: str | Path, remedy: str = "") -> Model:
    """Read a YAML file. Raises UserError, which calls the file `what` and ends with the remedy."""
    try:
        return model.model_validate(read_yaml(what, path, remedy))
    except ValidationError as error:
        raise UserError(f"{what} {path} is not valid: {describe_invalid(error)}{remedy and '; '}{remedy}") from error


def read_yaml(what: str, path: str | Path, remedy: str = "") -> Any:
    """The content of a YAML file. Raises UserError as `read`."""
    try:
        return yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise UserError(f"{what} {path} cannot be read: {error.strerror}{remedy and '; '}{remedy}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{what} {path} is not YAML: {reason}{remedy and '; '}{remedy}") from error

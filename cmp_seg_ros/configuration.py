"""YAML files read into pydantic models, by path or by name in a folder of config/."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from cmp_seg_ros import resources
from cmp_seg_ros.errors import UserError, describe_invalid

Model = TypeVar("Model", bound=BaseModel)


class KnownFields(BaseModel):
    """A model for files written by hand: of a misspelt field it says which one may be meant, and which there are."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _are_known(cls, given: Any) -> Any:
        return cls.require_known(given)

    @classmethod
    def require_known(cls, given: Any) -> Any:
        """What was given; raises ValueError for a field that there is not."""
        fields = list(cls.model_fields)
        for name in given if isinstance(given, dict) else ():
            if name not in fields:
                close = get_close_matches(str(name), fields, 1)
                meant = f"; did you mean '{close[0]}'?" if close else "."
                raise ValueError(f"there is no field '{name}'{meant} The fields are {', '.join(fields)}")
        return given


class Strict(KnownFields):
    """The same, immutable and of finite numbers."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


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
    """Read a YAML file. Raises UserError, which calls the file `what`; if it is no YAML, with the remedy."""
    try:
        return model.model_validate(read_yaml(what, path, remedy))
    except ValidationError as error:
        raise UserError(f"{what} {path} is not valid: {describe_invalid(error)}") from error


def read_yaml(what: str, path: str | Path, remedy: str = "") -> Any:
    """The content of a YAML file. Raises UserError as `read`."""
    try:
        return yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise UserError(f"{what} {path} cannot be read: {error.strerror}{remedy and '; '}{remedy}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{what} {path} is not YAML: {reason}{remedy and '; '}{remedy}") from error

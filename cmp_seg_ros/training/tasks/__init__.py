"""Training tasks: one file per task with its `Config` and `Task`, found by name."""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from pydantic import BaseModel, ValidationError

from cmp_seg_ros import configuration
from cmp_seg_ros.errors import UserError, describe_invalid
from cmp_seg_ros.training.config import TrainConfig

FOLDER = "config/training"


class _Header(BaseModel):
    """The field of a configuration that selects its class."""

    task: str = TrainConfig.model_fields["task"].default


def names() -> list[str]:
    """Names of all tasks."""
    return [info.name for info in iter_modules(__path__) if info.name != "base"]


def module_of(task: str) -> Any:
    """The module of a task. Raises UserError for an unknown name."""
    if task not in names():
        raise UserError(f"no task '{task}'; known: {', '.join(names())}")
    return import_module(f"{__name__}.{task}")


def load_config(name_or_path: str | Path, **changes: Any) -> Any:
    """Read a configuration by its path, or its name in config/training/, as `Config` of its task.

    Args:
        changes: fields with other values than in the file.

    Raises:
        UserError: unknown name, or an invalid file or change.
    """
    header = configuration.load(_Header, FOLDER, "training configuration", name_or_path)
    config = module_of(header.task).Config
    found = configuration.load(config, FOLDER, "training configuration", name_or_path)
    if not changes:
        return found
    try:
        return config.model_validate({**found.model_dump(), **changes})
    except ValidationError as error:
        raise UserError(f"training configuration {name_or_path}: {describe_invalid(error)}") from error

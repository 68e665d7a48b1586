"""What a run can learn: one file a task, with its `Config` and its `Task`, found by its name."""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from pydantic import BaseModel

from cmp_seg_ros import configuration
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.training.config import TrainConfig

FOLDER = "config/training"


class _Header(BaseModel):
    """What is read of a configuration first."""

    task: str = TrainConfig.model_fields["task"].default


def names() -> list[str]:
    """Of all tasks."""
    return [info.name for info in iter_modules(__path__) if info.name != "base"]


def module_of(task: str) -> Any:
    """Raises UserError for a task that is none."""
    if task not in names():
        raise UserError(f"no task '{task}'; there is {', '.join(names())}")
    return import_module(f"{__name__}.{task}")


def load_config(name_or_path: str | Path) -> Any:
    """Read a configuration by its path, or by its name in config/training/: the `Config` of its task.

    Raises UserError.
    """
    header = configuration.load(_Header, FOLDER, "training configuration", name_or_path)
    return configuration.load(module_of(header.task).Config, FOLDER, "training configuration", name_or_path)

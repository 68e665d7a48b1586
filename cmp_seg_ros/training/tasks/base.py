"""The interface between the training loop and its tasks."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from cmp_seg_ros.bundle import Bundle, PointNetwork
from cmp_seg_ros.training.config import TrainConfig

Config = TypeVar("Config", bound=TrainConfig)
Batch = TypeVar("Batch")  # tensors in tuples, lists, dictionaries or dataclasses
Answer = TypeVar("Answer")


class Preparation(NamedTuple):
    """Work to do once, before training: its name, number of pieces, and an iterable that does a piece per step."""

    what: str
    total: int | None  # None: not known
    pieces: Iterable[object]


class Validation(NamedTuple):
    """Scores of the network by name, the main one first, and a function that draws its answers (path, title)."""

    scores: dict[str, float]
    draw: Callable[[Path, str], None]


def without_drop_path(points: PointNetwork) -> PointNetwork:
    """A network as a bundle describes it: paths are dropped in training alone."""
    return points.model_copy(update={"network": points.network.model_copy(update={"drop_path": 0.0})})


class Task(ABC, Generic[Config, Batch, Answer]):
    """Batches, loss and score of a run. The loop trains `network` and saves it in the checkpoint.

    Args:
        config: of the run; initial weights depend on its seed.
        folder: for data that `prepare` makes.

    Raises:
        UserError: the configuration or its inputs are wrong. Constructors are fast; slow work belongs to `prepare`.
    """

    network: nn.Module

    def __init__(self, config: Config, folder: Path) -> None:
        torch.manual_seed(config.seed)
        self.config, self.folder = config, folder

    def fixed(self) -> Any:
        """Further data that must be unchanged when a run is resumed, as JSON values."""
        return None

    def start(self) -> None:
        """Initialise the network of a new run; not called when a run is resumed. Raises UserError."""

    def prepare(self) -> Iterator[Preparation]:
        """Work to do before the first batch. Raises UserError."""
        return iter(())

    def limited(self, processes: int) -> Config:
        """The configuration, with `steps` as the prepared data demand. Raises UserError."""
        return self.config

    def freeze(self) -> None:
        """Put the parts of the network that do not learn into evaluation mode; called before each step."""

    def parameters(self) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser; a group's `scale` multiplies its learning rate.

        A group may have its own `weight_decay`.
        """
        return [{"params": list(self.network.parameters())}]

    @abstractmethod
    def batch(self, item: int) -> Batch:
        """Training batch number `item`, which depends on the configuration and `item` only. Raises UserError."""

    @abstractmethod
    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Scalar loss of a batch; `network` is the task's network, wrapped for device and precision."""

    @property
    @abstractmethod
    def validation(self) -> Sequence[Batch]:
        """The validation batches. Raises UserError."""

    @abstractmethod
    def answer(self, network: nn.Module, batch: Batch) -> Answer:
        """What `validate` needs to know of a validation batch; called without gradients."""

    @abstractmethod
    def validate(self, answers: Sequence[Answer]) -> Validation:
        """Score the answers to all validation batches, in order."""

    def _bundle(
        self, path: Path, weights: bytes, training: dict[str, Any], scores: dict[str, float], **about: Any
    ) -> Bundle:
        """Write a bundle with the configuration of the run and its scores; `about` as for `Bundle.write`."""
        # What the bundle's other fields say already.
        own = {"name", "label_space", "network", "preprocess", "intensity", "focal", "threshold"}
        return Bundle.write(
            path,
            weights,
            name=self.config.name,
            training={**training, "configuration": self.config.model_dump(mode="json", exclude=own)},
            measured={"validation": {name: round(value, 4) for name, value in scores.items()}},
            **about,
        )

    @abstractmethod
    def write(self, path: Path, training: dict[str, Any], scores: dict[str, float]) -> Bundle:
        """Write the trained network as a bundle; `training` tells how it was made."""

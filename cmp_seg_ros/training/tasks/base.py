"""What the loop asks of a task."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.training.config import TrainConfig

Config = TypeVar("Config", bound=TrainConfig)
Batch = TypeVar("Batch")  # tensors in tuples, lists, dictionaries or dataclasses
Answer = TypeVar("Answer")


class Preparation(NamedTuple):
    """Work that is done once, before the first batch, and kept: what, how many pieces, and doing them."""

    what: str
    total: int
    pieces: Iterable[object]


class Validation(NamedTuple):
    """How good the network is: scores by name, that which counts first; and what draws its answers, under a title."""

    scores: dict[str, float]
    draw: Callable[[Path, str], None]


class Task(ABC, Generic[Config, Batch, Answer]):
    """Batches, loss and score of a run. The loop trains `network`, and keeps its weights in the checkpoint.

    A constructor says at once what is wrong, with a UserError; whatever takes time belongs to `prepare`.

    Args:
        config: of the run. Weights are drawn from its seed.
        folder: keeps what `prepare` makes.
    """

    network: nn.Module

    def __init__(self, config: Config, folder: Path) -> None:
        torch.manual_seed(config.seed)
        self.config, self.folder = config, folder

    def fixed(self) -> Any:
        """What must be alike, besides the configuration, for a run to go on: as JSON takes it."""
        return None

    def start(self) -> None:
        """Fill the network of a run that begins, and does not go on. Raises UserError."""

    def prepare(self) -> Iterator[Preparation]:
        """What has to be made before the first batch. Raises UserError."""
        return iter(())

    def parameters(self) -> list[dict[str, Any]]:
        """Groups of parameters to optimise; `scale` of a group is a factor on its learning rate."""
        return [{"params": list(self.network.parameters())}]

    @abstractmethod
    def batch(self, item: int) -> Batch:
        """Batch `item` of training: a function of the configuration and that number. Raises UserError."""

    @abstractmethod
    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """The loss of a batch, a scalar; `network` is the task's, wrapped for the device and its precision."""

    @property
    @abstractmethod
    def validation(self) -> Sequence[Batch]:
        """The batches of each validation. Raises UserError."""

    @abstractmethod
    def answer(self, network: nn.Module, batch: Batch) -> Answer:
        """What is remembered of a validation batch, without gradients."""

    @abstractmethod
    def validate(self, answers: Sequence[Answer]) -> Validation:
        """Scores of the answers to all of `validation`, in order."""

    @abstractmethod
    def write(self, path: Path, training: dict[str, Any], scores: dict[str, float]) -> Bundle:
        """The bundle of the trained network; `training` is how it was made."""

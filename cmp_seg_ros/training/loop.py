"""The training loop: get batch, forward, backward, step, log, validate, save.

Lightning Fabric runs it on one or more processes or GPUs: each process runs the whole loop, the first writes files.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import Tensor

from cmp_seg_ros import interrupts, memory, outputs
from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.kernels.vector import HAS_BFLOAT16
from cmp_seg_ros.training.config import TrainConfig
from cmp_seg_ros.training.data import loading
from cmp_seg_ros.training.log import Log, title_of
from cmp_seg_ros.training.tasks.base import Task

T = TypeVar("T")

CHECKPOINT = "checkpoint.pt"
BUNDLE = "bundle"
PICTURE = "validation.png"
SAVE_EVERY = 300.0  # seconds of training
LOG_EVERY = 10  # steps
ENDLESS = 1 << 60


@dataclass
class Progress:
    """Progress of a run. The schedule depends on `fraction`: of the steps or of the hours, whichever is larger."""

    step: int = 0
    seconds: float = 0.0
    loss: float = float("nan")
    scores: dict[str, float] = field(default_factory=dict)  # of the last validation, the main one first
    scored: int = -1  # step of the last validation

    def fraction(self, config: TrainConfig) -> float:
        of_time = self.seconds / (3600 * config.hours) if config.hours else 0.0
        return min(1.0, max(self.step / config.steps, of_time))

    @property
    def score(self) -> float:
        """The main score of the last validation; NaN before the first."""
        return next(iter(self.scores.values()), float("nan"))

    @property
    def measure(self) -> str:
        """Name of `score`, as it is displayed."""
        return title_of(next(iter(self.scores), ""))

    def left(self, config: TrainConfig) -> float | None:
        """Remaining seconds of training at the average speed so far; None before the first step."""
        done = self.fraction(config)
        return self.seconds * (1 - done) / done if done else None


class Trainer:
    """Trains the network of a task. Resumes from the checkpoint in `out`, exactly as if it had never stopped.

    Runs of one configuration are identical (with `hours`, only on equally fast machines).

    Args:
        task: what is learned; its `prepare` may run after this.
        out: folder for checkpoint, log, picture and, at the end, the bundle.
        workers: processes that load batches, per device.

    Raises:
        UserError: the checkpoint, or the bundle to start with, is damaged or has another configuration.
    """

    def __init__(self, task: Task[Any, Any, Any], out: Path, workers: int = 1) -> None:
        self.task, self.config, self.out, self.workers = task, task.config, out, workers
        self.progress = Progress()
        self.saved = 0  # step of the checkpoint
        self.log: Log | None = None
        checkpoint = self._read_checkpoint()
        if checkpoint is None:
            task.start()
        self.fabric, self.precision = fabric_of(self.config)
        self.fabric.launch()
        if self.fabric.global_rank:
            torch.manual_seed(self.config.seed + self.fabric.global_rank)  # for different dropped paths in each process
        settings = self.config.optimiser
        optimiser = torch.optim.AdamW(
            task.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self.network, self.optimiser = self.fabric.setup(task.network, optimiser)
        if checkpoint is not None:
            self._resume(checkpoint)

    def run(
        self, report: Callable[[Progress], None] = lambda _: None, stop: Callable[[], bool] = lambda: False
    ) -> Bundle | None:
        """Train to the end, validate, and write the bundle.

        Args:
            report: called after each step.
            stop: checked after each step and validation batch; if true, or on Ctrl-C, save and return None.

        Raises:
            UserError: damaged data, a loss that is NaN or infinite, or `out` cannot be written.
        """
        memory.keep_freed()
        fabric = self.fabric
        self.config = config = self.task.limited(fabric.world_size)
        _ = self.task.validation  # find damaged data now, not after hours
        first = self.progress.step * config.accumulate * fabric.world_size + fabric.global_rank
        try:
            with (
                loading(self.task.batch, range(first, ENDLESS, fabric.world_size), self.workers) as batches,
                # After the workers are forked, since TensorBoard starts a thread.
                closing(Log(self.out, self.progress.step)) if fabric.is_global_zero else nullcontext() as self.log,
                interrupts.handled(defer=True) as received,
            ):
                return self._train(batches, report, lambda: fabric.broadcast(bool(received) or stop()))
        except OSError as error:
            if not outputs.is_about(self.out, error):
                raise
            raise UserError(
                f"{self.out} cannot be written: {error.strerror or error}; free some space, then the same command "
                f"resumes from {CHECKPOINT}, saved at step {self.saved}"
            ) from error

    def _train(
        self, batches: Iterator[Any], report: Callable[[Progress], None], stop: Callable[[], bool]
    ) -> Bundle | None:
        config, progress = self.config, self.progress
        saved = progress.seconds
        while True:
            done = progress.fraction(config) >= 1
            if (done or progress.step % config.validate_every == 0) and progress.step not in (0, progress.scored):
                self._validate(stop)
            if progress.step and self.fabric.is_global_zero:
                report(progress)
            stopped = stop()
            if stopped or done or progress.seconds - saved > SAVE_EVERY:
                self.save()
                saved = progress.seconds
            if stopped:
                return None
            if done:
                return self._write_bundle()
            started = time.monotonic()
            progress.loss = self._step(batches)
            progress.step += 1
            progress.seconds = self.fabric.broadcast(progress.seconds + time.monotonic() - started)
            if progress.step % LOG_EVERY == 0:
                self._note(loss=progress.loss)

    def _step(self, batches: Iterator[Any]) -> float:
        """Do one optimiser step; returns the mean loss."""
        config, fabric, step = self.config, self.fabric, self.progress.step
        self.network.train()
        self.task.freeze()
        factor = config.optimiser.factor(self.progress.fraction(config))
        for group in self.optimiser.param_groups:
            group["lr"] = config.optimiser.learning_rate * factor * group.get("scale", 1.0)
        self.optimiser.zero_grad()
        total = 0.0
        for number in range(config.accumulate):
            batch = fabric.to_device(next(batches))
            with fabric.no_backward_sync(self.network, enabled=number < config.accumulate - 1):
                loss = self.task.loss(self.network, batch) / config.accumulate
                fabric.backward(loss)
            total += loss.item()
        mean: float = fabric.all_reduce(torch.tensor(total, dtype=torch.float64)).item()  # type: ignore[union-attr]
        if not np.isfinite(mean):
            count = config.accumulate * fabric.world_size
            raise UserError(
                f"the loss became {mean} at step {step} (batches {step * count} to {(step + 1) * count - 1}); lower "
                f"optimiser.learning_rate, then the same command resumes from {self.out / CHECKPOINT}"
            )
        self.optimiser.step()
        return mean

    @torch.inference_mode()
    def answers(self, stop: Callable[[], bool] = lambda: False) -> list[Any] | None:
        """The answers to all validation batches; None if stopped."""
        self.network.eval()
        found = []
        for batch in self.task.validation:
            if stop():
                return None
            found.append(self.task.answer(self.network, self.fabric.to_device(batch)))
        return found

    def _validate(self, stop: Callable[[], bool]) -> None:
        """Score the network, log and draw the result, unless stopped."""
        answers = self.answers(stop)
        if answers is None:
            return
        progress = self.progress
        scores, draw = self.task.validate(answers)
        progress.scores = {name: float(score) for name, score in scores.items()}  # a checkpoint holds no numpy numbers
        progress.scored = progress.step
        if self.log is not None:
            self._note(**progress.scores)
            after = f"{self.config.name} after {progress.step} steps, {progress.seconds / 3600:.2f} hours"
            with suppress(KeyboardInterrupt), interrupts.handled():  # a picture takes seconds, and may be cut
                draw(self.out / PICTURE, f"{after}: {progress.measure} of all validation scans {progress.score:.1%}")
                self.log.add_picture(progress.step, "validation", self.out / PICTURE)

    def _note(self, **values: float) -> None:
        if self.log is not None:
            self.log.add(self.progress.step, self.progress.seconds, **values)

    def save(self) -> None:
        """Write the checkpoint atomically. Raises OSError."""
        state = {
            "config": self.config.model_dump(mode="json"),
            "fixed": self.task.fixed(),
            "progress": asdict(self.progress),
            "network": self.task.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "random": self._random_states(),
        }
        if self.fabric.is_global_zero:
            content = BytesIO()  # torch hides the OSError of a full disk
            torch.save(state, content)
            outputs.write_whole(self.out / CHECKPOINT, content.getbuffer())
        self.saved = self.progress.step

    def _random_states(self) -> dict[str, Tensor]:
        """(processes, bytes) states of torch's random generators, by device type."""
        states = {"cpu": torch.get_rng_state()}
        if self.fabric.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.fabric.device)
        gathered: Any = self.fabric.all_gather(states)
        return {name: state.reshape(self.fabric.world_size, -1).cpu() for name, state in gathered.items()}

    def _read_checkpoint(self) -> dict[str, Any] | None:
        """The checkpoint, or None if there is none. Raises UserError if it is damaged or of another run."""
        path = self.out / CHECKPOINT
        if not path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
            theirs, fixed = type(self.config).model_validate(state["config"]), state["fixed"]
            self.progress = Progress(**state["progress"])
        except (OSError, EOFError, RuntimeError, UnpicklingError, LookupError, TypeError, ValueError) as error:
            raise UserError(
                f"checkpoint {path} is damaged or from another version; remove it to start again"
            ) from error
        if _fixed(theirs) != _fixed(self.config) or fixed != self.task.fixed():
            raise UserError(f"{path} has another configuration; give another --out, or remove it to start again")
        self.saved = self.progress.step
        return state

    def _resume(self, state: dict[str, Any]) -> None:
        self.task.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        # Cloned: torch crashes when given a row of a larger tensor.
        random = {name: states[self.fabric.global_rank].clone() for name, states in state["random"].items()}
        torch.set_rng_state(random["cpu"])
        if self.fabric.device.type == "cuda" and "cuda" in random:
            torch.cuda.set_rng_state(random["cuda"], self.fabric.device)

    def _write_bundle(self) -> Bundle:
        path, progress = self.out / BUNDLE, self.progress
        training = {"steps": progress.step, "hours": round(progress.seconds / 3600, 2), "precision": self.precision}
        if self.fabric.is_global_zero:
            self.task.write(path, training, progress.scores)
        self.fabric.barrier()
        return Bundle(path)


class _Autocast(MixedPrecision):
    """Mixed precision with float32 inputs: in bfloat16 a point at 20 m would move by 6 cm."""

    def convert_input(self, data: Any) -> Any:
        return data


def fabric_of(config: TrainConfig) -> tuple[Fabric, str]:
    """Lightning Fabric for the devices of a run, and the name of the precision."""
    accelerator, precision = config.accelerator, config.precision
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise UserError("accelerator is cuda, but PyTorch finds no GPU; give accelerator: auto, or cpu")
    if precision == "auto":
        has_bfloat16 = torch.cuda.is_bf16_supported() if accelerator == "cuda" else HAS_BFLOAT16
        precision = "bf16-mixed" if has_bfloat16 else "32-true"
    where: dict[str, Any] = {"accelerator": accelerator, "devices": config.devices, "strategy": config.strategy}
    if precision == "bf16-mixed":
        return Fabric(plugins=_Autocast(precision, accelerator), **where), precision
    return Fabric(precision=precision, **where), precision


def _fixed(config: TrainConfig) -> dict[str, Any]:
    """The settings that must be unchanged when a run is resumed."""
    free = {"steps", "hours", "validate_every", "accelerator", "strategy"}
    return config.model_dump(exclude={**dict.fromkeys(free, True), "optimiser": {"learning_rate"}})

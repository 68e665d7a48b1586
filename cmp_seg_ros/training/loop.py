"""The one training loop: get batch, forward, backward, step, log, validate, save."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch

from cmp_seg_ros import outputs
from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation.metrics import Confusion
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, UInt8
from cmp_seg_ros.training.cache import ScanCache
from cmp_seg_ros.training.config import TrainConfig
from cmp_seg_ros.training.data import TrainingItem, training_batches, validation_batches
from cmp_seg_ros.training.log import Log, title_of
from cmp_seg_ros.training.losses import segmentation_loss
from cmp_seg_ros.training.pictures import ValidationPicture
from cmp_seg_ros.training.schedule import warmup_cosine
from cmp_seg_ros.training.start import start_with
from cmp_seg_ros.waffleiron import weights
from cmp_seg_ros.waffleiron.network import Segmenter

CHECKPOINT = "checkpoint.pt"
BUNDLE = "bundle"
PICTURE = "validation.png"
SAVE_EVERY = 300.0  # seconds
LOG_EVERY = 10  # steps
SCHEDULE_STEPS = 100_000  # resolution of the schedule, which runs over progress and not over steps


@dataclass
class Progress:
    """Where a run is. `fraction` drives the schedule: of the steps, or of the hours where those end first."""

    step: int = 0
    seconds: float = 0.0
    loss: float = float("nan")
    score: float = float("nan")  # primary mIoU of the last validation, or mIoU where the label space has no such
    scores: dict[str, float] = field(default_factory=dict)  # all of it
    scored: int = -1  # its step

    def fraction(self, config: TrainConfig) -> float:
        of_time = self.seconds / (3600 * config.hours) if config.hours else 0.0
        return min(1.0, max(self.step / config.steps, of_time))

    @property
    def measure(self) -> str:
        """What `score` is."""
        return title_of("primary_miou" if "primary_miou" in self.scores else "miou")

    def left(self, config: TrainConfig) -> float | None:
        """Seconds of training that are left, at the pace so far; None before the first step."""
        done = self.fraction(config)
        return self.seconds * (1 - done) / done if done else None


class Trainer:
    """Trains a network on cached scans; `out` holds checkpoint, log, picture and, at the end, the bundle.

    A run is repeatable with the same configuration; with `hours`, as far as the machine is equally fast. It is refused
    at once where checkpoint or start do not fit; the caches may still be empty then.

    Raises:
        UserError: checkpoint, or the bundle to start with, damaged or of another configuration.
    """

    def __init__(
        self, config: TrainConfig, cache: ScanCache, validation: ScanCache, out: Path, workers: int = 1
    ) -> None:
        self.config, self.out, self.workers = config, out, workers
        self.cache, self.validation_cache = cache, validation
        torch.manual_seed(config.seed)
        self.network = Segmenter(config.network)
        self.space = LabelSpace.load(config.label_space)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(),
            lr=config.optimiser.learning_rate,
            weight_decay=config.optimiser.weight_decay,
            fused=True,
        )
        self.bfloat16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
        self.progress = Progress()
        self.saved = 0  # step of the checkpoint
        if not self._resume() and config.start:
            start_with(self.network, Bundle.find(config.start), self.space)

    @cached_property
    def validation(self) -> list[TrainingItem]:
        return validation_batches(self.config, self.validation_cache)

    @cached_property
    def picture(self) -> ValidationPicture:
        return ValidationPicture(self.config, self.validation_cache)

    def run(
        self, report: Callable[[Progress], None] = lambda _: None, stop: Callable[[], bool] = lambda: False
    ) -> Bundle | None:
        """Train to the end (from the checkpoint, where there is one), validate, and write the bundle.

        Where `stop` says so after a step, save instead, and return None.

        Raises:
            UserError: a damaged scan, a loss that is no number, or a folder that cannot be written.
        """
        try:
            return self._run(report, stop)
        except OSError as error:
            if not outputs.is_about(self.out, error):
                raise
            raise UserError(
                f"{self.out} cannot be written: {error.strerror or error}; make room there, and the same command goes "
                f"on from {CHECKPOINT}, saved last at step {self.saved}"
            ) from error

    def _run(self, report: Callable[[Progress], None], stop: Callable[[], bool]) -> Bundle | None:
        _ = self.validation, self.picture  # a damaged scan is found now, not after hours
        batches = training_batches(self.config, self.cache, self.progress.step * self.config.accumulate, self.workers)
        with closing(Log(self.out, self.progress.step)) as self.log:  # after the workers: a thread of it forks badly
            return self._train(batches, report, stop)

    def _train(
        self, batches: Iterator[TrainingItem], report: Callable[[Progress], None], stop: Callable[[], bool]
    ) -> Bundle | None:
        saved = time.monotonic()
        while self.progress.fraction(self.config) < 1:
            started = time.monotonic()
            self.progress.loss = self._step(batches)
            self.progress.step += 1
            self.progress.seconds += time.monotonic() - started
            if self.progress.step % LOG_EVERY == 0:
                self.log.add(self.progress.step, self.progress.seconds, loss=self.progress.loss)
            if self.progress.step % self.config.validate_every == 0:
                self.validate()
            report(self.progress)
            stopping = stop()
            if stopping or time.monotonic() - saved > SAVE_EVERY:
                self.save()
                saved = time.monotonic()
            if stopping:
                return None
        if self.progress.scored != self.progress.step:
            self.validate()
        report(self.progress)
        self.save()
        return self._write_bundle(self.progress.scores)

    def _step(self, batches: Iterator[TrainingItem]) -> float:
        """One optimiser step; returns the mean loss."""
        self.network.train()
        optimiser = self.config.optimiser
        warmup = max(1, round(SCHEDULE_STEPS * optimiser.warmup))
        now = max(1, round(SCHEDULE_STEPS * self.progress.fraction(self.config)))
        factor = warmup_cosine(now, warmup, SCHEDULE_STEPS, optimiser.minimum)
        for group in self.optimiser.param_groups:
            group["lr"] = optimiser.learning_rate * factor
        self.optimiser.zero_grad()
        total = 0.0
        for _ in range(self.config.accumulate):
            batch, target = next(batches)
            with self._autocast():
                logits = self.network(batch)  # (M, C)
            loss = segmentation_loss(logits.float(), target, lovasz=optimiser.lovasz) / self.config.accumulate
            loss.backward()
            total += loss.item()
        if not np.isfinite(total):
            raise UserError(
                f"the loss became {total} at step {self.progress.step}; lower optimiser.learning_rate, and the same "
                f"command goes on from {self.out / CHECKPOINT}"
            )
        self.optimiser.step()
        return total

    @torch.inference_mode()
    def answers(self) -> list[UInt8]:
        """(M,) ids of the voxels of each validation scan."""
        self.network.eval()
        found = []
        for batch, _ in self.validation:
            with self._autocast():
                found.append(self.space.ids[self.network(batch).argmax(dim=1).numpy()])
        return found

    def validate(self) -> None:
        """Score, log and draw the voxels of the validation scans: IoU by class, mIoU, primary mIoU in structural4."""
        answers = self.answers()
        confusion = Confusion(self.space)
        for (_, target), answer in zip(self.validation, answers, strict=True):
            known = (target != UNLABELLED).numpy()
            confusion.add(self.space.ids[target.numpy()[known]], answer[known])
        scores = {"miou": confusion.miou(), **{f"iou_{name}": value for name, value in confusion.iou().items()}}
        if self.space.name == "structural6":
            scores["primary_miou"] = confusion.structural4("primary").miou()
        step = self.progress.step
        self.progress.score = scores.get("primary_miou", scores["miou"])
        self.progress.scores, self.progress.scored = scores, step
        self.log.add(step, self.progress.seconds, **scores)
        after = f"{self.config.name} after {step} steps, {self.progress.seconds / 3600:.2f} hours"
        score = f"{self.progress.measure} of all validation scans {self.progress.score:.1%}"
        errors = f"errors below count all {len(self.space.classes)} classes of {self.space.name}"
        self.picture.save(self.out / PICTURE, answers, f"{after}: {score}; {errors}")
        self.log.add_picture(step, "validation", self.out / PICTURE)

    def save(self) -> None:
        """Write the checkpoint, atomically."""
        state = {
            "config": self.config.model_dump(mode="json"),
            "classes": self.space.names,  # of a label space that may be a file
            "progress": asdict(self.progress),
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "random": torch.get_rng_state(),
        }
        content = BytesIO()  # what torch raises of a full disk does not say so
        torch.save(state, content)
        outputs.write_whole(self.out / CHECKPOINT, content.getbuffer())
        self.saved = self.progress.step

    def _resume(self) -> bool:
        """Go on from the checkpoint, where there is one. Raises UserError where it is not of this run."""
        path = self.out / CHECKPOINT
        if not path.exists():
            return False
        try:
            state = torch.load(path, weights_only=True)
            theirs, classes = TrainConfig.model_validate(state["config"]), state["classes"]
        except (OSError, EOFError, RuntimeError, UnpicklingError, LookupError, TypeError, ValueError) as error:
            raise UserError(
                f"checkpoint {path} is damaged, or not of this program; remove it to start again"
            ) from error
        if _fixed(theirs) != _fixed(self.config) or classes != self.space.names:
            raise UserError(f"{path} is of another configuration; give another --out, or remove it to start again")
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["random"])
        self.progress = Progress(**state["progress"])
        self.saved = self.progress.step
        return True

    def _write_bundle(self, scores: dict[str, float]) -> Bundle:
        config = self.config
        return Bundle.write(
            self.out / BUNDLE,
            weights.serialise(self.network),
            name=config.name,
            network=config.network.model_copy(update={"drop_path": 0.0}),
            preprocess=config.preprocess,
            intensity=config.intensity,
            label_space=self.space,
            training={
                "steps": self.progress.step,
                "hours": round(self.progress.seconds / 3600, 2),
                "precision": "bf16" if self.bfloat16 else "fp32",
                "configuration": config.model_dump(
                    mode="json", exclude={"network", "preprocess", "intensity", "label_space", "name"}
                ),
            },
            measured={"validation": {name: round(value, 4) for name, value in scores.items()}},
        )

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            yield


def _fixed(config: TrainConfig) -> dict[str, Any]:
    """What must not change when a run goes on."""
    free: dict[str, bool | set[str]] = {
        "steps": True,
        "hours": True,
        "validate_every": True,
        "optimiser": {"learning_rate"},
    }
    return config.model_dump(exclude=free)


def summary(config: TrainConfig, progress: Progress, scores: dict[str, Any]) -> dict[str, Any]:
    """The content of a run's report.json."""
    return {"name": config.name, "steps": progress.step, "hours": progress.seconds / 3600, "validation": scores}

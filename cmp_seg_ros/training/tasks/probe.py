"""Probing (ScaLR): a classifier alone learns classes from the features of a frozen network."""

from typing import Any, Literal

from pydantic import Field

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.training.config import OptimiserConfig
from cmp_seg_ros.training.tasks import finetune


class Config(finetune.Config):
    """Probing; hyperparameters are those of ScaLR (batches of 8 scans, 20 epochs)."""

    task: str = "probe"
    head: Literal["keep", "linear", "mlp"] = "linear"
    drop_path: float = Field(default=0.0, ge=0, le=0)
    layer_decay: float = Field(default=1.0, ge=1, le=1)
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=1e-3, weight_decay=3e-3, warmup=2 / 20, minimum=1e-2)
    epochs: float | None = Field(default=20, gt=0)


class Task(finetune.Task):
    """Learns as `finetune.Task`, but only the head."""

    def start(self) -> None:
        if self.bundle.points.intensity.mode == "raw":
            raise UserError(
                f"bundle {self.bundle.path} takes raw intensities, and runs normalise them: a frozen network would not "
                "know them; use `cmp-seg finetune`"
            )
        super().start()

    def parameters(self) -> list[dict[str, Any]]:
        self.network.requires_grad_(False)
        self.network.classif.requires_grad_(True)
        return [{"params": list(self.network.classif.parameters())}]

    def freeze(self) -> None:
        self.network.embed.eval()
        self.network.waffleiron.eval()

"""The log of a run: log.csv, and TensorBoard if it is installed."""

import csv
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CSV = "log.csv"
BOARD = "tensorboard"
COLUMNS = ("step", "seconds", "name", "value")


class Log:
    """Values over steps, in `out`/log.csv and `out`/tensorboard.

    Args:
        out: folder of the run.
        step: where the run continues; later rows are removed, since those steps are done again.
    """

    def __init__(self, out: Path, step: int = 0) -> None:
        self.path = out / CSV
        rows = [row for row in read(self.path) if int(row["step"]) <= step] if self.path.exists() else []
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        self._board: Any = None
        if has_tensorboard():
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(out / BOARD), purge_step=step + 1)

    def add(self, step: int, seconds: float, **values: float) -> None:
        """Log values by name, such as loss or iou_wall; written immediately."""
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            for name, value in values.items():
                writer.writerow([step, round(seconds, 1), name, round(value, 5)])
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"iou/{name[4:]}" if name.startswith("iou_") else name, value, step)
            self._board.flush()

    def add_picture(self, step: int, name: str, path: Path) -> None:
        """Show a .png in TensorBoard."""
        if self._board is not None:
            import numpy as np
            from PIL import Image

            self._board.add_image(name, np.asarray(Image.open(path).convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a log.csv: step, seconds, name, value; without an incomplete last line."""
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]


def title_of(name: str) -> str:
    """A logged value's name as it is displayed."""
    return {"miou": "mIoU", "primary_miou": "primary mIoU"}.get(name, name.removeprefix("iou_"))


def has_tensorboard() -> bool:
    """Whether TensorBoard is installed."""
    return find_spec("tensorboard") is not None

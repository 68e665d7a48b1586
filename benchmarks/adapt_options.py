"""What each option of the fine-tuning in `cmp-seg adapt` is worth, by truth that it never saw.

    python benchmarks/adapt_options.py OUT --steps 200         # OUT: folder of `cmp-seg adapt` of a simulated drive

Trains from the shipped bundle with the recipe, and once without each of its options, on the same pseudo-labels;
scores each on the held-back scans, and on two buildings of the suite `forgetting`. Resumes.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from adapt_study import SPACE, open_adaptation
from rich.table import Table

from cmp_seg_ros.adaptation.holding import HeldBack
from cmp_seg_ros.adaptation.run import SUITE, Adaptation
from cmp_seg_ros.cli.tables import percent, show
from cmp_seg_ros.cli.training_run import run as train
from cmp_seg_ros.datasets.frame import TRUTH, Frame
from cmp_seg_ros.evaluation.metrics import Confusion
from cmp_seg_ros.evaluation.pipeline import Model
from cmp_seg_ros.evaluation.suites.scans import Scans
from cmp_seg_ros.evaluation.suites.suite import Suite

CHANGES: dict[str, dict[str, Any]] = {
    "recipe": {},
    "labels-weigh-alike": {"confidence": False},
    "no-own-labels": {"own_labels": 0.0},
    "no-simulated-scans": {"simulated": 0.0},
    "norms-learn": {"freeze_norms": False},
    "one-learning-rate": {"layer_decay": 1.0},
}
BUILDINGS = 2


def score(model: Path, frames: Iterable[Frame]) -> Confusion:
    """Labels of a bundle against truth."""
    labeller, confusion = Model(model), Confusion(SPACE)
    for frame in frames:
        truth = frame.labels[TRUTH]
        confusion.add(SPACE.id_map(truth.space)[truth.label], labeller(frame).label)
    return confusion


def figures(model: Path, work: Adaptation) -> dict[str, float]:
    """Mean IoUs of a bundle where it was adapted, and in simulated buildings."""
    suite = Suite.load(SUITE)
    seeds = range(suite.buildings.first, suite.buildings.first + BUILDINGS)
    simulated = (frame for sensor in suite.sensors for frame in Scans(suite, suite.rows, sensor, seeds, None))
    there = score(model, HeldBack(work.data, work.stretches.held_back))
    return {
        "primary": there.structural4("primary").miou(),
        "structural6": there.miou(),
        "simulated": score(model, simulated).structural4("primary").miou(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    work = open_adaptation(arguments.out)
    table = Table("", "primary mIoU", "structural6", "simulated buildings", title=f"{arguments.steps} steps")
    found = {"shipped": figures(work.start.path, work)}
    for name, changes in CHANGES.items():
        folder = arguments.out / "options" / name
        limits = {"hours": None, "steps": arguments.steps, "validate_every": arguments.steps}
        settings = work.training().model_copy(update={**limits, **changes})
        if not (folder / "bundle" / "bundle.yaml").is_file():
            train("finetune", settings, folder, arguments.out / "options" / "scans", 1, as_json=False, quiet=True)
        found[name] = figures(folder / "bundle", work)
    for name, values in found.items():
        table.add_row(name, *map(percent, values.values()))
    (arguments.out / "options" / "report.json").write_text(json.dumps(found, indent=1) + "\n")
    show(table)


if __name__ == "__main__":
    main()

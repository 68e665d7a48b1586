"""Does distilling first help where labels are few? (config/study/distilled-v1.yaml, few_labels)

    python benchmarks/few_labels.py out/distilled --out out/few-labels [--steps 600]

Fine-tunes with the truth of 1 % of the scans (single ones) and of 10 % (every tenth drive), from the distilled features
and from random weights. Each run resumes. Then `cmp-seg evaluate --suite selection --buildings 4 --model RUN/bundle`
scores each bundle.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.cli.training_run import run
from cmp_seg_ros.datasets import unified
from cmp_seg_ros.training import tasks
from cmp_seg_ros.training.scans import SetConfig
from cmp_seg_ros.waffleiron import weights
from cmp_seg_ros.waffleiron.network import Segmenter

RECIPE = Path(__file__).parents[1] / "config" / "study" / "distilled-v1-finetune.yaml"
DRIVE = 8  # scans


def untrained(like: Bundle, path: Path) -> Bundle:
    """A bundle of features with random weights, and the network of another."""
    torch.manual_seed(0)
    network = Segmenter(like.points.network)
    return Bundle.write(path, weights.serialise(network), name="untrained", kind="features", features=like.points)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("distilled", type=Path, help="folder with buildings/ and features/bundle")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--only", nargs="*", help="such as distilled-1 untrained-10; by default all four")
    arguments = parser.parse_args()
    buildings = arguments.distilled / "buildings"
    features = Bundle(arguments.distilled / "features" / "bundle")
    starts = {"distilled": features, "untrained": untrained(features, arguments.out / "random")}
    count = len(unified.DataSet(buildings))
    singles = np.linspace(0, count - 1, round(0.01 * count)).round().astype(int).tolist()
    taken = {"1": [(n, n) for n in singles], "10": [(n, n + DRIVE - 1) for n in range(0, count, 10 * DRIVE)]}
    for name, ranges in taken.items():
        sets = [SetConfig(path=str(buildings), labels="truth", splits=None, first=a, last=b) for a, b in ranges]
        held = SetConfig(path=str(buildings), labels="truth", splits=("test",))  # a picture; chooses nothing
        for start, bundle in starts.items():
            if arguments.only and f"{start}-{name}" not in arguments.only:
                continue
            settings = tasks.load_config(
                RECIPE,
                name=f"{start}-{name}",
                start=str(bundle.path),
                sets=[one.model_dump() for one in sets],
                validation=[held.model_dump()],
                steps=arguments.steps,
                validate_every=arguments.steps,
            )
            run("train", settings, arguments.out / settings.name, arguments.out / "scans", 1, as_json=True)


if __name__ == "__main__":
    main()

"""Did an adaptation to a simulated recording help, by truth that it never saw? (config/study/adapt-v1.yaml)

    cmp-seg adapt DRIVE --recipe config/study/adapt-v1-training.yaml --out OUT
    python benchmarks/adapt_study.py OUT [--json]

Scores the shipped and the new bundle on the held-back scans of OUT against the truth of the recording, with the
interval of the difference; and pseudo-labels, shipped and new bundle on the points that have a pseudo-label.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from cmp_seg_ros.adaptation.holding import HeldBack
from cmp_seg_ros.adaptation.run import BUNDLE, SETTINGS, Adaptation, Settings
from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.cli.tables import percent, printed, show
from cmp_seg_ros.datasets.frame import PSEUDO, TRUTH
from cmp_seg_ros.evaluation.compare import Loaded, Section, compare
from cmp_seg_ros.evaluation.compare_page import table_of
from cmp_seg_ros.evaluation.metrics import PRIMARY, Confusion, readings
from cmp_seg_ros.evaluation.pipeline import Consumer, Model, Result, run
from cmp_seg_ros.evaluation.report import Report
from cmp_seg_ros.evaluation.scoring import Scores
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED

SPACE = LabelSpace.load("structural6")


class OnTaughtPoints(Consumer):
    """Confusion of labels, and of pseudo-labels, against truth, on the points that have a pseudo-label."""

    def __init__(self) -> None:
        self.student, self.teacher = Confusion(SPACE), Confusion(SPACE)

    def add(self, result: Result, report: Report) -> None:
        if result.labels is None or PSEUDO not in result.frame.labels:
            return
        truth, pseudo = (result.frame.labels[source] for source in (TRUTH, PSEUDO))
        true, told = (SPACE.id_map(one.space)[one.label] for one in (truth, pseudo))
        taught = told != UNLABELLED
        self.student.add(true[taught], result.labels.label[taught])
        self.teacher.add(true[taught], told[taught])


def open_adaptation(out: Path) -> Adaptation:
    """What `cmp-seg adapt` left in a folder."""
    return Adaptation(Settings(**json.loads((out / SETTINGS).read_text())), out)


def measure(out: Path) -> dict[str, Any]:
    work = open_adaptation(out)
    data = HeldBack(work.data, work.stretches.held_back)
    found: dict[str, Any] = {"scans": len(data)}
    for name, bundle in (("shipped", work.start), ("new", Bundle(out / BUNDLE))):
        model, taught = Model(bundle.path), OnTaughtPoints()
        scores = Scores(data.label_spaces[TRUTH], model.label_space)
        run(data, model, [scores, taught], Report.of("evaluate", data), out / "truth" / name, needs=(TRUTH,))
        found[f"{name} on taught points"] = readings(taught.student)["structural6"].report()
        found["pseudo-labels"] = readings(taught.teacher)["structural6"].report()
    comparison = compare(Loaded(out / "truth" / "shipped"), Loaded(out / "truth" / "new"))
    found["comparison"] = comparison.model_dump(mode="json")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of `cmp-seg adapt`")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    arguments = parser.parse_args()
    found = measure(arguments.out)
    if arguments.json:
        print(json.dumps(found))
        return
    for section in map(Section.model_validate, found["comparison"]["sections"]):
        if section.title in (PRIMARY, "structural6"):
            title = f"{section.title} on {found['scans']} held-back scans"
            show(printed(table_of(section.model_copy(update={"title": title}))))
    for name in ("pseudo-labels", "shipped on taught points", "new on taught points"):
        print(f"{name}: mIoU {percent(found[name]['miou'])}")


if __name__ == "__main__":
    main()

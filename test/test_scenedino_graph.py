"""The ONNX graphs that the command exports; test_scenedino_voxels.py compares them with the network."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
from fields import occupancy_bundle

from cmp_seg_ros.occupier import Occupier
from cmp_seg_ros.scenedino.graph import NAMES


def test_the_command_writes_graphs_that_run(run: Callable[..., SimpleNamespace], tmp_path: Path) -> None:
    bundle = occupancy_bundle(tmp_path / "o")
    said = run("scenedino", "export", bundle.path, "--out", tmp_path / "graphs")
    assert said.code == 0, said.err
    sessions = {}
    for name in NAMES:
        path = tmp_path / "graphs" / f"{name}.onnx"
        onnx.checker.check_model(str(path))
        sessions[name] = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (features,) = sessions["image"].run(None, {"image": np.zeros((1, 3, 64, 96), np.float32)})
    points = np.array([[0, 0, 1.5], [0, 0, 2.5], [0.1, 0, 2.2]], np.float32)  # before and behind 2 m
    feed = {"features": features, "points": points, "intrinsics": np.eye(3, dtype=np.float32)}
    (density,) = sessions["density"].run(None, feed)
    threshold = Occupier(bundle).section.threshold
    assert (density > threshold).tolist() == [False, True, True]
    assert sessions["classes"].run(["label"], feed)[0].tolist() == [7, 7, 7]

"""The ONNX graphs against the network as it is."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fields import occupancy_bundle
from test_scenedino_voxels import HEIGHTS, PUBLISHED, SMALL, random_field

from cmp_seg_ros.occupier import Occupier
from cmp_seg_ros.scenedino.config import FieldConfig
from cmp_seg_ros.scenedino.field import normalised_intrinsics
from cmp_seg_ros.scenedino.graph import NAMES, OnnxRuntime
from cmp_seg_ros.scenedino.voxels import Plain


@pytest.mark.parametrize("config", [PUBLISHED, SMALL, HEIGHTS], ids=["published", "small", "heights"])
def test_the_graphs_equal_the_network(config: FieldConfig) -> None:
    field = random_field(config)
    image = torch.rand(1, 3, *config.image) * 2 - 1
    xyz = torch.rand(3000, 3) * torch.tensor([8.0, 5.0, 6.0]) - torch.tensor([4.0, 2.5, 0.2])
    intrinsics, up = normalised_intrinsics((30, 30), (20, 11), config.image), torch.tensor([0.1, -0.9, 0.3, 1.2])
    rows = np.arange(0, 3000, 2)
    found = []
    for evaluation in (Plain(field), OnnxRuntime(field)):
        features, points = evaluation.look(image), evaluation.plan(xyz, intrinsics, up)
        one = evaluation.density(features, points), evaluation.classes(features, points, rows)
        found.append((*one, evaluation.point_features(features, points, rows)))
    (density, classes, features), (density2, classes2, features2) = found
    np.testing.assert_allclose(density2, density, rtol=1e-3, atol=1e-5)
    assert density.std() > 0.01 * density.mean()
    assert (classes2 == classes).mean() > 0.998 and len(np.unique(classes)) > 1  # ties
    np.testing.assert_allclose(features2, features, rtol=1e-3, atol=1e-4)


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

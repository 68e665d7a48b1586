"""The folded network as three ONNX graphs, for GPUs, and an engine that runs them with ONNX Runtime.

    image.onnx     image (1, 3, H, W) in [-1, 1]                       -> features (1, C, h, w)
    density.onnx   features, points (N, 3), intrinsics (3, 3), up (4,) -> density (N,), 1 / m
    classes.onnx   the same                                           -> label (N,) int64, point_features (N, F)

Points are in the camera's frame, metres, z along the optical axis; intrinsics are normalised (the image spans [-1, 1]
both ways); up gives a point's height above the floor as up . (x, y, z, 1), metres, and is an input only where the
network sees heights. Densities come first, classes only for the points that are then occupied. All float32, opset 18.
"""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cmp_seg_ros.engine.base import load_package
from cmp_seg_ros.kernels.launch import threads
from cmp_seg_ros.scenedino.field import NO_HEIGHT, FeatureField, project, sample
from cmp_seg_ros.scenedino.fold import FoldedDecoder, Phases, folded_head
from cmp_seg_ros.scenedino.head import ClusterHead
from cmp_seg_ros.scenedino.voxels import CHUNK, Float32, Int64, Plain, Points

NAMES = ("image", "density", "classes")
OPSET = 18
FEW = 64  # points of the example that is traced


class ImageGraph(nn.Module):
    """(1, 3, H, W) image -> (1, C, h, w): the first layer of the point MLP, without the code's part."""

    def __init__(self, field: FeatureField) -> None:
        super().__init__()
        first = field.mlp.lin_in.weight.detach()[:, : field.config.decoder.width]
        self.encoder = field.encoder
        self.decoder = FoldedDecoder(field.decoder, first, low=True).eval()  # convolutions as such, no Winograd

    def forward(self, image: Tensor) -> Tensor:
        found = self.decoder(self.encoder(image))
        if found.dim() == 4:
            found = Phases.interleaved(found)
        return found.permute(2, 0, 1)[None]


class PointGraph(nn.Module):
    """Density of points, or with `classes` their labels and features."""

    def __init__(self, field: FeatureField, classes: bool) -> None:
        super().__init__()
        self.field, self.classes = field, classes
        self.head = folded_head(field) if isinstance(field.head, ClusterHead) else None

    def forward(self, features: Tensor, points: Tensor, intrinsics: Tensor, up: Tensor) -> Any:
        mlp, width = self.field.mlp, self.field.config.decoder.width
        uv, _ = project(points[None], intrinsics[None])
        code = self.field.code(self.field.coordinates(points[None], uv, up[None]))
        part = functional.linear(code, mlp.lin_in.weight[:, width:], mlp.lin_in.bias)
        hidden = functional.relu(sample(features, uv) + part)[0]  # (N, H)
        weight, bias = mlp.lin_out.weight, mlp.lin_out.bias
        if not self.classes:
            return functional.softplus(hidden @ weight[0] + bias[0])
        found = functional.linear(hidden, weight[1:], bias[1:])
        scores = self.field.head(found) if self.head is None else self.head(hidden)
        assignment: Tensor = self.field.head.assignment
        return assignment[scores.argmax(dim=1)], found


def export(field: FeatureField) -> dict[str, bytes]:
    """The three graphs by their names."""
    field = field.eval()
    image = torch.zeros(1, 3, *field.config.image)
    network = ImageGraph(field)
    with torch.inference_mode():
        features = network(image)
    ahead = torch.rand(FEW, 3) + torch.tensor([0.0, 0.0, 1.0])
    points = features, ahead, torch.eye(3), torch.tensor(NO_HEIGHT)
    names = ["features", "points", "intrinsics", "up"]
    return {
        "image": _traced(network, (image,), ["image"], ["features"]),
        "density": _traced(PointGraph(field, False), points, names, ["density"]),
        "classes": _traced(PointGraph(field, True), points, names, ["label", "point_features"]),
    }


def write(field: FeatureField, folder: Path) -> list[Path]:
    """Write the graphs as files of these names. Raises OSError."""
    paths = []
    for name, graph in export(field).items():
        paths.append(folder / f"{name}.onnx")
        paths[-1].write_bytes(graph)
    return paths


def _traced(module: nn.Module, inputs: tuple[Tensor, ...], names: list[str], outputs: list[str]) -> bytes:
    load_package("onnx", "onnx")
    file: Any = io.BytesIO()
    axes: dict[str, dict[int, str]] = {
        name: {0: "N"} for name in ("points", "density", "label", "point_features") if name in names + outputs
    }
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # sizes become constants, as they should, and the exporter is an old one
        options: dict[str, Any] = {"opset_version": OPSET, "dynamic_axes": axes, "dynamo": False}
        torch.onnx.export(module.eval(), inputs, file, input_names=names, output_names=outputs, **options)
    return file.getvalue()


class OnnxRuntime(Plain):
    """The engine `onnxruntime`: the graphs, on a CUDA GPU where ONNX Runtime has one, else here.

    Raises:
        UserError: onnx or onnxruntime is not installed.
    """

    def __init__(self, field: FeatureField) -> None:
        super().__init__(field)
        package = load_package("onnxruntime", "onnxruntime")
        options = package.SessionOptions()
        options.intra_op_num_threads = threads()
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [name for name in wanted if name in package.get_available_providers()]
        self._sessions = {
            name: package.InferenceSession(graph, options, providers=providers) for name, graph in export(field).items()
        }

    def look(self, image: Tensor) -> Tensor:
        return torch.from_numpy(self._sessions["image"].run(None, {"image": image.numpy()})[0])

    def density(self, features: Tensor, points: Points) -> Float32:
        return self._run("density", features, points, np.arange(points.xyz.shape[1]))[0]

    def classes(self, features: Tensor, points: Points, rows: Int64) -> Int64:
        return self._run("classes", features, points, rows)[0]

    def point_features(self, features: Tensor, points: Points, rows: Int64) -> Float32:
        return self._run("classes", features, points, rows)[1]

    def _run(self, name: str, features: Tensor, points: Points, rows: Int64) -> Any:
        """Outputs of a graph at some points, CHUNK at a time."""
        session = self._sessions[name]
        up = torch.tensor(NO_HEIGHT) if points.up is None else points.up[0]
        feed = {"features": features.numpy(), "intrinsics": points.intrinsics[0].numpy(), "up": up.numpy()}
        feed = {node.name: feed[node.name] for node in session.get_inputs() if node.name in feed}
        xyz = points.xyz[0].numpy()
        chunks = np.array_split(rows, len(rows) // CHUNK + 1)
        found = [session.run(None, feed | {"points": xyz[chunk]}) for chunk in chunks]
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]

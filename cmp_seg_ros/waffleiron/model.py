"""The network of a bundle as engines take it: named arrays in, named arrays out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.scan import Arrays
from cmp_seg_ros.waffleiron import buckets, fold, layout, samples
from cmp_seg_ros.waffleiron.config import NetworkConfig, PreprocessConfig
from cmp_seg_ros.waffleiron.preprocess import VoxelInputs

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class WaffleIron:
    """The network of a bundle.

    Inputs are the fields of `VoxelInputs`, of the M > 0 voxels of a scan. The output is (M, outputs) float32.

    Args:
        name, hash: of the bundle.
        weights: the weights file.
        config, preprocess: architecture and preprocessing.
        raw_intensity: whether the network uses raw intensities of the lidar.
        output: name of the output: "logits", or "point_features".
    """

    name: str
    hash: str
    weights: Path
    config: NetworkConfig
    preprocess: PreprocessConfig
    raw_intensity: bool
    output: str

    @property
    def sources(self) -> list[Path]:
        """Source files of ours that a built engine depends on."""
        return [FOLDER / name for name in ("graph.py", "fold.py", "layout.py", "buckets.py")]

    @property
    def samples_version(self) -> str:
        """Changes when `samples` change."""
        return samples.version()

    def samples(self) -> list[dict[str, Arrays]]:
        """Sample inputs, by name, to check engines with; in groups that must each pass the check."""
        groups = samples.scans(self.preprocess, self.raw_intensity)
        return [{name: voxels.inputs._asdict() for name, voxels in group.items()} for group in groups]

    def plain(self) -> Callable[[Arrays], Arrays]:
        """The network in PyTorch, float32."""
        import torch

        from cmp_seg_ros.waffleiron import weights
        from cmp_seg_ros.waffleiron.batch import collate

        network = weights.load(self.weights, self.config)

        @torch.inference_mode()
        def run(inputs: Arrays) -> Arrays:
            return {self.output: network(collate([VoxelInputs(**inputs)], self.preprocess.grids)).float().numpy()}

        return run

    def graph(self, precision: str) -> bytes:
        """The serialised ONNX model, with casts for precision "fp32", "fp16" or "bf16". Raises UserError."""
        try:
            from cmp_seg_ros.waffleiron import graph
        except ModuleNotFoundError as error:
            raise UserError(f"exporting a bundle needs the package {error.name}: pip install {error.name}") from error
        folding, kind = fold.Folding(self.weights, self.config), cast(graph.Precision, precision)
        properties = {"bundle": self.hash, "precision": precision}
        made = graph.build(folding, self.preprocess, kind, output=self.output, name=self.name, properties=properties)
        return made.SerializeToString()

    def feed(self, inputs: Arrays, rounded: bool = False) -> layout.Feed:
        """The inputs of the graph; `rounded` pads them to few shapes. Raises UserError if the scan is too large."""
        voxels = VoxelInputs(**inputs)
        return layout.arrange(voxels, self.preprocess, buckets.shapes(voxels, self.preprocess) if rounded else None)

    def profile(self) -> dict[str, tuple[layout.Shape, layout.Shape, layout.Shape]]:
        """Minimum, typical and maximum shape of each input of the graph when `rounded`."""
        return buckets.profile(self.preprocess)

    def trim(self, outputs: Arrays, inputs: Arrays) -> Arrays:
        """The outputs without the rows of padding."""
        voxels = len(inputs["features"])
        return {name: values[:voxels] for name, values in outputs.items()}

"""What is measured: bundles of every width, and simulated scans with a given number of voxels."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cmp_seg_ros import resources
from cmp_seg_ros.bundle import FOLDER, Bundle
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages.point_cloud2 import decode, encode
from cmp_seg_ros.scan import Float32, Scan
from cmp_seg_ros.waffleiron.config import NetworkConfig, PreprocessConfig
from cmp_seg_ros.waffleiron.preprocess import Voxels, inside_fov, prepare, voxelise

DEPTH = 24
BUILDING = 3  # that of the demo; none of training
SPARSE, DENSE = "os1-16", "os0-128"  # sensors of few and of many points
FEW = 6000  # voxels that the sparse one reaches
FINEST, COARSEST = 0.002, 2.0  # metres, of voxels


class Case(NamedTuple):
    """One scan at one voxel size.

    Args:
        sensor: the simulated lidar.
        message: its scan as a PointCloud2 of the Ouster driver, 48 bytes a point.
        points: in the message.
        voxel_size: metres.
        voxels: that the scan has then.
        natural: whether that is the bundle's voxel size, and not one that gives a round number of voxels.
    """

    sensor: str
    message: Any
    points: int
    voxel_size: float
    voxels: int
    natural: bool = False


def bundle_of(width: int, folder: Path) -> Bundle:
    """The shipped bundle of DEPTH layers and that width, or an untrained one made in `folder`."""
    name = f"waffleiron{DEPTH}-{width}"
    return Bundle.find(name) if name in resources.names(FOLDER) else untrained(width, folder / name)


def untrained(width: int, path: Path) -> Bundle:
    """A bundle of random weights whose statistics and scales are those of a trained one in kind."""
    import torch

    from cmp_seg_ros.waffleiron import network, weights

    torch.manual_seed(0)
    config = NetworkConfig(width=width, depth=DEPTH, outputs=6)
    net = network.Segmenter(config)
    for name, buffer in net.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.3)
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    for module in net.modules():
        if isinstance(module, network.LayerScale):
            module.weight.data.mul_(0.2)
    return Bundle.write(
        path,
        weights.serialise(net),
        name=path.name,
        network=config,
        preprocess=Bundle.find("waffleiron24-128").points.preprocess,
        label_space=LabelSpace.load("structural6"),
    )


def case(voxels: int, preprocess: PreprocessConfig) -> Case:
    """A scan with just that many voxels. Raises UserError where no sensor has so many points."""
    sensor = SPARSE if voxels <= FEW else DENSE
    scan = simulated(sensor)
    xyz = scan.xyz[scan.valid()]
    size = voxel_size_for(voxels, xyz, preprocess)
    kept = np.zeros(len(scan), dtype=bool)
    kept[scan.valid()] = thinned(voxels, size, xyz, preprocess)
    thin = replace(scan, xyz=np.where(kept[:, None], scan.xyz, 0))
    return Case(sensor, message(thin), len(scan), size, count_voxels(size, xyz[kept[scan.valid()]], preprocess))


def natural_case(sensor: str, preprocess: PreprocessConfig) -> Case:
    """A scan of the sensor at the bundle's own voxel size."""
    scan, size = simulated(sensor), preprocess.voxel_size
    return Case(sensor, message(scan), len(scan), size, count_voxels(size, scan.xyz[scan.valid()], preprocess), True)


def count_voxels(size: float, xyz: Float32, preprocess: PreprocessConfig) -> int:
    """Voxels of (N, 3) points that the network would see."""
    return int(inside_fov(xyz[voxelise(xyz, size)], preprocess).sum())


def voxel_size_for(voxels: int, xyz: Float32, preprocess: PreprocessConfig) -> float:
    """About the largest voxel size in metres that leaves so many voxels. Raises UserError."""
    low, high = FINEST, COARSEST
    if (most := count_voxels(low, xyz, preprocess)) < voxels:
        raise UserError(f"no simulated scan has {voxels} voxels; the largest has {most}: ask for fewer with --voxels")
    while high / low > 1 + 1e-5:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if count_voxels(middle, xyz, preprocess) >= voxels else (low, middle)
    return low


def thinned(voxels: int, size: float, xyz: Float32, preprocess: PreprocessConfig) -> npt.NDArray[np.bool_]:
    """(N,) which of the points to keep so that `voxels` are left: those of a single point are taken out."""
    kept = np.ones(len(xyz), dtype=bool)
    surplus = count_voxels(size, xyz, preprocess) - voxels
    for point in np.random.default_rng(0).permutation(len(xyz)):
        if surplus <= 0:
            break
        kept[point] = False
        if count_voxels(size, xyz[kept], preprocess) == voxels + surplus - 1:
            surplus -= 1
        else:
            kept[point] = True
    return kept


def voxels_of(case: Case, preprocess: PreprocessConfig) -> Voxels:
    """The voxels of the scan, as the network takes them."""
    scan = decode(case.message)
    valid = scan.valid()
    assert scan.intensity is not None
    size = {"voxel_size": case.voxel_size}
    return prepare(scan.xyz[valid], scan.intensity[valid], preprocess.model_copy(update=size))[0]


@cache
def simulated(sensor: str) -> Scan:
    """The first scan of a drive, its intensities brought to mean 0 and deviation 1 as a calibration does it."""
    from cmp_seg_ros.simulation.rig import Rig, RigConfig

    scan = Rig(RigConfig(BUILDING, sensor, seconds=1.0)).scan(0).scan
    assert scan.intensity is not None
    known = scan.intensity[scan.valid()]
    return replace(scan, intensity=np.where(scan.valid(), (scan.intensity - known.mean()) / known.std(), 0))


def message(scan: Scan) -> Any:
    """The scan as the Ouster driver sends it."""
    assert scan.intensity is not None
    fields = {"x": scan.xyz[:, 0], "y": scan.xyz[:, 1], "z": scan.xyz[:, 2], "intensity": scan.intensity}
    cloud = encode(fields, scan.shape, {"x": 0, "y": 4, "z": 8, "intensity": 16}, 48)
    header = SimpleNamespace(stamp=SimpleNamespace(sec=0, nanosec=0), frame_id=scan.frame_id)
    return SimpleNamespace(header=header, **vars(cloud))

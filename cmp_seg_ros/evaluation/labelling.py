"""The consumer of `cmp-seg label`: writes label files, labelled clouds and pictures."""

from pathlib import Path

import numpy as np

from cmp_seg_ros import outputs
from cmp_seg_ros.datasets import ply
from cmp_seg_ros.datasets.base import DataSet, message_of
from cmp_seg_ros.datasets.frame import Frame
from cmp_seg_ros.datasets.labelled_bag import BAG, LabelledBagWriter
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation import plots
from cmp_seg_ros.evaluation.pipeline import Consumer, Result
from cmp_seg_ros.evaluation.report import Report
from cmp_seg_ros.evaluation.tally import name_of
from cmp_seg_ros.geometry.calibration import CalibratedCamera
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import Labels, UInt8

PICTURES = 5  # of scans, the overview included
OVERVIEW = "overview.png"
NUMBERED = {"scans": ".npz", "clouds": ".ply", "pictures": ".png"}  # folders with one file per scan, NNNNNN.*


class LabelFiles(Consumer):
    """Writes labels into the folder `out`.

    Writes scans/NNNNNN.npz, labelled/ (a bag), clouds/NNNNNN.ply if the input is files, overview.png and
    pictures/NNNNNN.png.

    Args:
        data: the input.
        space: of the labels.
        total: number of frames; None if unknown.
    """

    replaces = (*NUMBERED, BAG)

    def __init__(self, data: DataSet, space: LabelSpace, out: Path, total: int | None) -> None:
        self.data, self.space, self.out, self.total = data, space, out, total
        self.done = 0

    def begin(self) -> None:
        for folder, suffix in NUMBERED.items():
            for leftover in (self.out / folder).glob("[0-9]" * 6 + suffix):
                leftover.unlink()
        outputs.remove_bag(self.out / BAG)
        (self.out / "scans").mkdir(exist_ok=True)
        self.clouds = LabelledBagWriter(self.out / BAG, self.space)

    def add(self, result: Result, report: Report) -> None:
        frame, labels = result.frame, result.labels
        if labels is None:
            return
        self._write(frame, labels)
        if self._is_pictured():
            name = OVERVIEW if self.done == 0 else f"pictures/{frame.number:06d}.png"
            self._draw(self.out / name, frame, labels, report)
            report.files.append(name)
        self.done += 1

    def finish(self, report: Report) -> None:
        report.files += ["scans/", f"{BAG}/", *(["clouds/"] if self.data.one_file_each else [])]

    def close(self) -> None:
        self.clouds.close()

    def _write(self, frame: Frame, labels: Labels) -> None:
        self.clouds.write_scan(_message(frame), labels, frame.T_base_lidar, frame.T_world_lidar)
        name = f"{frame.number:06d}"
        np.savez_compressed(
            self.out / "scans" / f"{name}.npz",
            label=labels.label,
            confidence=labels.confidence,
            key=frame.key,
            stamp=frame.scan.stamp,
        )
        if self.data.one_file_each:
            (self.out / "clouds").mkdir(exist_ok=True)
            ply.write_labelled(self.out / "clouds" / f"{name}.ply", frame.scan, labels, self.space)

    def _is_pictured(self) -> bool:
        if self.total:
            return self.done % max(1, -(-self.total // PICTURES)) == 0
        return self.done & (self.done + 1) == 0 and self.done < 2**PICTURES  # 0, 1, 3, 7, 15

    def _draw(self, path: Path, frame: Frame, labels: Labels, report: Report) -> None:
        try:
            image, camera = image_to_draw(frame, self.data)
        except UserError as error:
            report.problems.append(str(error))
            image = camera = None
        height, width = frame.scan.shape
        size = f"{height} x {width} points" if height > 1 else f"{width:,} points"
        plots.overview(
            path,
            frame.scan,
            labels,
            self.space,
            image,
            camera,
            frame.T_base_lidar,
            title=f"{name_of(frame, Path(self.data.path.name))}: {size}, {frame.scan.valid().sum():,} returns",
        )


def image_to_draw(frame: Frame, data: DataSet) -> tuple[UInt8 | None, CalibratedCamera | None]:
    """The image of the only calibrated camera, and that camera; (None, None) if there is none.

    Raises UserError if the image cannot be read, or its size is not the calibrated one.
    """
    images = [image for image in frame.images.values() if image.camera is not None]
    if len(images) != 1:
        return None, None
    [image] = images
    camera, pixels = image.camera, image.rgb()
    assert camera is not None
    height, width = pixels.shape[:2]
    if (width, height) != (camera.width, camera.height):
        raise UserError(
            f"the image of {name_of(frame, data.path)} is {width} x {height} pixels, but {camera.width} x "
            f"{camera.height} in calibration {data.sensors.file}: not drawn; calibrate this camera at its size"
        )
    return pixels, camera


def _message(frame: Frame) -> object:
    """The scan as a PointCloud2."""
    if frame.message is not None:
        return frame.message
    columns = {axis: frame.scan.xyz[:, i] for i, axis in enumerate("xyz")}
    if frame.scan.intensity is not None:
        columns["intensity"] = frame.scan.intensity
    return message_of(columns, frame.scan.shape, frame.scan.stamp, frame.scan.frame_id or "lidar")

"""Records scans on which network and teacher disagree, with their images, as bags to teach from."""

import shutil
import time
from pathlib import Path

from cmp_seg_ros.errors import UserError, describe_os_error
from cmp_seg_ros.messages import cdr
from cmp_seg_ros.messages.bag_writer import BagWriter

POINTS = "/points"
SCANS = 32  # in a bag; then it is closed, and what it holds is safe
LEAST_APART = 1.0  # seconds between two scans: neighbours in time teach the same
CALIBRATION = "calibration.yaml"


class Disagreements:
    """Bags in a folder, of at most so many bytes together with those of earlier runs.

    Args:
        folder: made when the first scan comes.
        budget: bytes.
        image_topic: of the images in the bags; names the camera.
        image_type: of their messages.
        calibration_file: copied beside the bags, or empty.
    """

    def __init__(self, folder: Path, budget: int, image_topic: str, image_type: str, calibration_file: str) -> None:
        self.folder, self.budget = folder, budget
        self._topics = {POINTS: cdr.POINT_CLOUD2, image_topic: image_type}
        self._image_topic, self._calibration_file = image_topic, calibration_file
        self._used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        self._bag: BagWriter | None = None
        self._in_bag, self._last = 0, 0.0
        self.recorded = 0
        self.ended = ""  # why no more is recorded

    def add(self, stamp: int, cloud: bytes, image: bytes) -> None:
        """Record a scan, unless one was just recorded, or the budget or the disk is full."""
        now, size = time.monotonic(), len(cloud) + len(image)
        if self.ended or now - self._last < LEAST_APART:
            return
        if self._used + size > self.budget:
            self.close(f"{self.folder} holds {self._used / 1e6:.0f} MB; raise record_megabytes, or move its bags away")
            return
        try:
            bag = self._open()
            bag.write(POINTS, stamp, cloud)
            bag.write(self._image_topic, stamp, image)
            self._used, self._last = self._used + size, now
            self.recorded, self._in_bag = self.recorded + 1, self._in_bag + 1
            if self._in_bag >= SCANS:
                self._close()
        except OSError as error:
            self.close(describe_os_error(error))
        except UserError as error:
            self.close(str(error))

    def _open(self) -> BagWriter:
        if self._bag is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            if self._calibration_file and not (self.folder / CALIBRATION).exists():
                shutil.copy(self._calibration_file, self.folder / CALIBRATION)
            number = 1 + max((int(p.name) for p in self.folder.iterdir() if p.name.isdigit()), default=-1)
            self._bag, self._in_bag = BagWriter(self.folder / f"{number:04d}", self._topics), 0
        return self._bag

    def _close(self) -> None:
        if self._bag is not None:
            bag, self._bag = self._bag, None
            bag.close()

    def close(self, why: str = "the node has ended") -> None:
        """Finish the last bag; no more is recorded."""
        self.ended = self.ended or why
        try:
            self._close()
        except OSError as error:
            self.ended = describe_os_error(error)

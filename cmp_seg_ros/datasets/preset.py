"""Published data sets that are bags: recognised by their topics, with what is known of their sensors."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from cmp_seg_ros.datasets import bag
from cmp_seg_ros.geometry.calibration import Calibration
from cmp_seg_ros.geometry.sensor_set import SensorSet


class PublishedBag(bag.DataSet, ABC):
    """A bag of a published set. A calibration file that is given goes before the published calibration.

    Attributes:
        lidars: names of its lidars by their topics, the one to take first.
        signs: sets of topics; a bag that has all topics of one of them is of this data set.
    """

    is_general = False
    lidars: ClassVar[dict[str, str]]
    signs: ClassVar[Sequence[frozenset[str]]]

    def __init__(self, path: Path, topic: str = "", sensors: SensorSet | None = None) -> None:
        topics = bag.topics_at(path)
        topic = topic or next((name for name in self.lidars if name in topics), "")
        if sensors is None or sensors.file is None:
            sensors = SensorSet(calibration=self.calibration(self.lidars.get(topic, "")))
        super().__init__(path, topic, sensors)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        topics = bag.topics_at(path)
        return any(sign <= topics for sign in cls.signs)

    @classmethod
    @abstractmethod
    def calibration(cls, lidar: str) -> Calibration:
        """What is published, for the lidar of that name."""

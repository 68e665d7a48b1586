"""Simulated scans of random buildings, each by another unit of a lidar; made when they are asked for."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from cmp_seg_ros.datasets.base import DataSet as BaseDataSet
from cmp_seg_ros.datasets.frame import TRUTH, Frame, PointLabels
from cmp_seg_ros.geometry.calibration import Transform
from cmp_seg_ros.label_space import LabelSpace

if TYPE_CHECKING:
    from cmp_seg_ros.simulation.building import Building


class DataSet(BaseDataSet):
    """Scans at random places, in the order of buildings, places and mounts. Truth is in `indoor`.

    Args:
        seeds: of the buildings, in order.
        scans: places in a building.
        sensor: name of the lidar; None takes a random one for each place.
        mounts: T_base_lidar whose rotation each scan is taken with, at the same place and moment; None is a random one.
        thinned: whether lidars of many beams lose some at times, as for training.
    """

    def __init__(
        self,
        seeds: Iterable[int],
        scans: int,
        sensor: str | None = None,
        mounts: Sequence[Transform | None] = (None,),
        thinned: bool = True,
    ) -> None:
        super().__init__(Path("buildings"))
        self.seeds = list(seeds)
        self.scans, self.sensor, self.mounts, self.thinned = scans, sensor, mounts, thinned
        self.label_spaces = {TRUTH: LabelSpace.load("indoor")}
        self.count = len(self.seeds) * scans * len(mounts)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return False

    def building(self, seed: int) -> "Building":
        """What the scans of a seed are taken in."""
        from cmp_seg_ros.simulation.building import make_building

        return make_building(seed)

    def __iter__(self) -> Iterator[Frame]:
        for place in range(len(self.seeds)):
            yield from self._frames_in(place)

    def __getitem__(self, number: int) -> Frame:
        if not 0 <= number < len(self):
            raise IndexError(f"there are {len(self)} scans of {self.path}, none of number {number}")
        place, index = divmod(number, self.scans * len(self.mounts))
        return next(islice(self._frames_in(place), index, None))

    def parts(self) -> Iterator["DataSet"]:
        """A building each."""
        for seed in self.seeds:
            yield self._of([seed])

    def _of(self, seeds: list[int]) -> "DataSet":
        return DataSet(seeds, self.scans, self.sensor, self.mounts, self.thinned)

    def _frames_in(self, place: int) -> Iterator[Frame]:
        from cmp_seg_ros.simulation.generate import views_in

        seed = self.seeds[place]
        views = views_in(self.building(seed), self.scans, self.sensor, self.mounts, self.thinned)
        for index, taken in enumerate(views):
            for mount, (scan, label, T_base_lidar) in enumerate(taken):
                number = (place * self.scans + index) * len(self.mounts) + mount
                key = f"{seed}/{index}" + (f"/{mount}" if len(self.mounts) > 1 else "")
                yield Frame(
                    key,
                    scan,
                    number,
                    labels={TRUTH: PointLabels(self.label_spaces[TRUTH], label)},
                    T_base_lidar=T_base_lidar,
                    sequence=key,
                    group=str(seed),
                )

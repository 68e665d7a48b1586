"""Simulated scans of buildings, each by another unit of a lidar; made when they are asked for."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cmp_seg_ros.datasets.frame import TRUTH, Frame, PointLabels
from cmp_seg_ros.datasets.seeded import Seeded
from cmp_seg_ros.geometry.calibration import Transform


class DataSet(Seeded):
    """Scans at random places, in the order of buildings, places and mounts. Truth is in `indoor`.

    Args:
        seeds: of the buildings, or of the visits of the scene, with other places, people and lidars; in order.
        scans: places in a building.
        sensor: name of the lidar; None takes a random one for each place.
        mounts: T_base_lidar whose rotation each scan is taken with, at the same place and moment; None is a random one.
        thinned: whether lidars of many beams lose some at times, as for training.
        scene: folder of a third-party furnished scene (see docs/simulation.md) instead of generated buildings.
    """

    def __init__(
        self,
        seeds: Iterable[int],
        scans: int,
        sensor: str | None = None,
        mounts: Sequence[Transform | None] = (None,),
        thinned: bool = True,
        scene: Path | None = None,
    ) -> None:
        super().__init__(scene or Path("buildings"), seeds, scans * len(mounts))
        self.places, self.sensor, self.mounts, self.thinned, self.scene = scans, sensor, mounts, thinned, scene

    def frames_of(self, seed: int) -> Iterator[Frame]:
        from cmp_seg_ros.simulation.building import make_building
        from cmp_seg_ros.simulation.generate import views_in
        from cmp_seg_ros.simulation.scene_folder import load_scene

        building = load_scene(self.scene, seed) if self.scene else make_building(seed)
        views = views_in(building, self.places, self.sensor, self.mounts, self.thinned)
        for index, taken in enumerate(views):
            for mount, (scan, label, T_base_lidar) in enumerate(taken):
                key = f"{seed}/{index}" + (f"/{mount}" if len(self.mounts) > 1 else "")
                yield Frame(
                    key,
                    scan,
                    labels={TRUTH: PointLabels(self.label_spaces[TRUTH], label)},
                    T_base_lidar=T_base_lidar,
                    sequence=key,
                    group=str(seed),
                )

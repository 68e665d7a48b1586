"""Keeps the rate: voxels become coarser where the machine is too slow."""

import math
from typing import Any

from cmp_seg_ros.rate_keeper import RateKeeper, Timing
from cmp_seg_ros.ros.inputs import Arrival
from cmp_seg_ros.ros.parameters import Parameters
from cmp_seg_ros.ros.report import Report
from cmp_seg_ros.scan import Labels


class Rate:
    """The rate keeper of the node, with its log messages.

    Args:
        finest: the bundle's voxel size, metres.

    Attributes:
        values: its state, for /diagnostics.
        too_slow: the problem; empty while the rate is held, or if there is no target.
    """

    def __init__(self, finest: float, parameters: Parameters, report: Report) -> None:
        self._parameters, self._report = parameters, report
        self._keeper = RateKeeper(finest, parameters["target_rate_hz"])
        self.too_slow = ""
        self.values = self._describe()

    @property
    def voxel_size(self) -> float:
        """Metres, for the next scan."""
        self._keeper.target_rate_hz = self._parameters["target_rate_hz"]
        return self._keeper.voxel_size

    def add(self, arrival: Arrival, labels: Labels, busy: float) -> None:
        """Add the timing of a scan that kept the node busy for so many seconds."""
        keeper = self._keeper
        before = keeper.voxel_size
        network = 1e-3 * labels.stages_ms["network"]
        keeper.add(Timing(arrival.number, arrival.time, busy, network, labels.voxels, labels.voxel_size))
        milliseconds = f"of {1e3 * keeper.budget:.0f} ms for {keeper.target_rate_hz:g} scans a second"
        if keeper.voxel_size != before:
            self._report.inform(
                f"voxels are {keeper.voxel_size:g} m from now on, {before:g} m before: a scan took {1e3 * busy:.0f} "
                + milliseconds
            )
        self.too_slow = ""
        if keeper.too_slow:
            self.too_slow = (
                f"too slow: even with voxels of {keeper.voxel_size:g} m a scan takes "
                f"{1e3 * keeper.load * keeper.budget:.0f} {milliseconds}"
            )
            self._report.warn(f"{self.too_slow}; take a narrower model, or ask for less with target_rate_hz")
        self.values = self._describe()

    def _describe(self) -> dict[str, Any]:
        keeper = self._keeper
        return {
            "rate_keeper": keeper.state,
            "rate_keeper.target_hz": float(keeper.target_rate_hz),
            "rate_keeper.voxel_size": repr(float(keeper.voxel_size)),
            "rate_keeper.budget_ms": 1e3 * keeper.budget if math.isfinite(keeper.budget) else None,
            "rate_keeper.load": keeper.load if math.isfinite(keeper.load) else None,
            "rate_keeper.changes": keeper.changes,
        }

"""The run of `cmp-seg bench`: every engine, width and size of scan, beside the plain network and bare matrix products.

An engine's figures are of whole scans, from message to message through a `Segmenter`.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.engine import registry
from cmp_seg_ros.errors import UserError, describe
from cmp_seg_ros.kernels.launch import threads
from cmp_seg_ros.messages.point_cloud2 import decode, encode_labelled
from cmp_seg_ros.scan import UNLABELLED, Labels
from cmp_seg_ros.segmenter import Segmenter
from cmp_seg_ros.speed import alone, cases, clock
from cmp_seg_ros.speed.cases import Case

WIDTHS = (128, 256, 768)
VOXELS = (2000, 5000, 8000, 16000, 32000, 64000)
TIME_LIMIT = 60.0  # seconds
ALONE = 5000  # voxels of the scan that an engine labels in a process of its own
TRUTH, PLAIN = "reference-fp32", "plain"

Rivals = dict[str, Callable[[], Any]]


class Bench:
    """One run.

    Args:
        engines: names as for `engine:`, without a precision in all that they have; empty for all engines.
        widths: of the networks.
        voxels: of the scans.
        time_limit: seconds for one width and size of scan; what is not expected to fit in is left out.
        sensors: whether to measure scans at the bundle's own voxel size too.
        processes: widths at which each engine's start and memory are measured in a process of its own; None for all.
        progress: called with what is being measured.
        warn: called with what makes figures unreliable.

    Raises:
        UserError: an engine that does not exist.
    """

    def __init__(
        self,
        engines: Sequence[str] = (),
        widths: Sequence[int] = WIDTHS,
        voxels: Sequence[int] = VOXELS,
        time_limit: float = TIME_LIMIT,
        sensors: bool = True,
        processes: Sequence[int] | None = None,
        progress: Callable[[str], None] = print,
        warn: Callable[[str], None] = print,
    ) -> None:
        self.widths, self.voxels, self.time_limit, self.sensors = widths, voxels, time_limit, sensors
        self.processes = widths if processes is None else processes
        self.progress, self.warn = progress, warn
        self.skipped: dict[str, str] = {}  # why, by engine
        self.names = list(self._names(engines or registry.files()))
        self._measured: dict[tuple[int, str], tuple[int, float]] = {}  # (width, rival) -> last (voxels, milliseconds)

    def run(self) -> dict[str, Any]:
        """The report: machine and rows. Raises UserError where no engine can run."""
        if not self.names:
            raise self._nothing_runs()
        import torch

        torch.set_num_threads(threads())
        machine = clock.machine(
            threads(), {package for name in self.names for package in registry.find(name)[0].packages}
        )
        machine["busy_before"] = clock.share_of_others()
        self._warn_if_busy(machine["busy_before"], "before the first measurement")
        rows: list[dict[str, Any]] = []
        with tempfile.TemporaryDirectory() as folder, clock.watch() as taken:
            try:
                for width in self.widths:
                    for row in self._width(cases.bundle_of(width, Path(folder))):
                        rows.append(row)  # noqa: PERF402  one by one, so that none is lost
            except KeyboardInterrupt:
                if not rows:
                    raise
                self.warn("interrupted; what was measured until then is reported")
                machine["interrupted"] = True
            machine["busy_during"] = taken()
        self._warn_if_busy(machine["busy_during"], "during the measurements")
        if not rows:
            raise self._nothing_runs()
        return {"command": "bench", "machine": machine | {"skipped": self.skipped}, "rows": rows}

    def _nothing_runs(self) -> UserError:
        return UserError(f"no engine can run here. {'; '.join(f'{k}: {v}' for k, v in self.skipped.items())}")

    def _names(self, engines: Sequence[str]) -> Iterator[str]:
        """Engines with their precisions."""
        for asked in dict.fromkeys(engines):
            known, precision = registry.find_all(asked)
            for runtime in known:
                if reason := runtime.reason():
                    self.skipped[runtime.name] = reason
                else:
                    precisions = [precision] if precision else runtime.precisions()
                    yield from (f"{runtime.name}-{found}" for found in precisions)

    def _width(self, bundle: Bundle) -> Iterator[dict[str, Any]]:
        """Rows of one bundle."""
        width, preprocess = bundle.points.network.width, bundle.points.preprocess
        segmenters: dict[str, Segmenter] = {}
        for name in self.names:
            self.progress(f"width {width}: {name} loads")
            try:
                segmenters[name] = Segmenter(bundle, name, intensity_mean=0.0, intensity_std=1.0)
            except (ImportError, UserError) as error:
                self.skipped[name] = str(error)
        if not segmenters:
            return
        truth = segmenters.get(TRUTH) or Segmenter(bundle, TRUTH, intensity_mean=0.0, intensity_std=1.0)
        processes: dict[str, dict[str, Any]] = {}
        if width in self.processes:
            example = cases.case(ALONE, preprocess)
            for name, segmenter in segmenters.items():
                self.progress(f"width {width}: {name} in a process of its own")
                try:
                    EndToEnd(example, segmenter)()  # so that all is in the caches
                    processes[name] = alone.measure(bundle.path, name, example)
                except Exception as error:
                    self._skip(f"start and memory of {name}", width, example.voxels, error)
        for voxels in sorted(self.voxels):
            try:
                case = cases.case(voxels, preprocess)
            except UserError as error:
                self._skip("all engines", width, voxels, error)
                continue
            yield from self._case(bundle, case, segmenters, truth, processes)
        if self.sensors:
            default = self._default(bundle, segmenters)
            for sensor in (cases.SPARSE, cases.DENSE):
                scan = cases.natural_case(sensor, preprocess)
                yield from self._case(bundle, scan, {default: segmenters[default]}, truth, processes)

    def _default(self, bundle: Bundle, segmenters: Mapping[str, Segmenter]) -> str:
        """What `auto` stands for; of an untrained bundle the first of that engine, or the first of all."""
        chosen = Segmenter(bundle, "auto").engine if bundle.trained else registry.DEFAULT
        return next((name for name in segmenters if name.startswith(chosen)), next(iter(segmenters)))

    def _case(
        self,
        bundle: Bundle,
        case: Case,
        segmenters: Mapping[str, Segmenter],
        truth: Segmenter,
        processes: Mapping[str, dict[str, Any]],
    ) -> Iterator[dict[str, Any]]:
        """Rows of one scan, one for each engine. Engines, products and the plain network take turns."""
        width, trained = bundle.points.network.width, bundle.trained
        self.progress(f"width {width}: {case.voxels} voxels")
        engines = {name: EndToEnd(case, segmenter) for name, segmenter in segmenters.items()}
        exact = engines.get(TRUTH) or EndToEnd(case, truth)
        rivals = self._fitting(self._rivals(bundle, case, engines), width, case)
        runs = clock.race(rivals, self.time_limit, lambda name, error: self._skip(name, width, case.voxels, error))
        typical = {name: float(np.median([run.ms for run in found])) for name, found in runs.items()}
        self._measured |= {(width, name): (case.voxels, milliseconds) for name, milliseconds in typical.items()}
        slowest = typical.get(
            TRUTH, typical.get(PLAIN, np.inf)
        )  # without the reference, about the plain network's time
        answer = self._answer(exact, width) if self._is_short(slowest) else None
        for name in (name for name in engines if name in runs):
            engine, stages = engines[name], [run.result for run in runs[name]]
            matmuls = {key.split()[1]: took for key, took in typical.items() if key.startswith(f"{engine.products} ")}
            network = [took["network"] for took in stages]
            said = self._answer(engine, width) if answer and self._is_short(typical[name]) else None
            yield {
                "engine": engine.name,
                "precision": engine.precision,
                "width": width,
                "voxels": case.voxels,
                "network_ms": float(np.median(network)),
                "matmul_ms": min(matmuls.values(), default=None),
                "dense_ms": typical.get(PLAIN),
                "total_ms": typical[name],
                "agreement": agreement(said, answer) if said and answer and trained else None,
                "probability_difference": difference(said, answer) if said and answer else None,
                "trained": trained,
                "sensor": case.sensor,
                "points": case.points,
                "natural": case.natural,
                "voxel_size": round(case.voxel_size, 5),
                "stages_ms": {stage: float(np.median([took[stage] for took in stages])) for stage in stages[0]},
                "matmuls_ms": matmuls,
                "network_ms_quartiles": [float(value) for value in np.percentile(network, (25, 75))],
                "turns": len(stages),
                "process": processes.get(name),
            }

    def _rivals(
        self, bundle: Bundle, case: Case, engines: "Mapping[str, EndToEnd]"
    ) -> dict[str, Callable[[], Callable[[], Any]]]:
        """What prepares each rival, by name; bare products are named by `EndToEnd.products` and the library."""
        from cmp_seg_ros.speed import rivals

        network, preprocess = bundle.points.network, bundle.points.preprocess
        found: dict[str, Callable[[], Callable[[], Any]]] = {name: engine.ready for name, engine in engines.items()}
        products = rivals.products_of(network, preprocess.neighbours, case.voxels)
        for engine in {engine.products: engine for engine in engines.values()}.values():
            for library, ready in rivals.libraries(products, network.width, engine.precision, engine.on_gpu):
                found[f"{engine.products} {library}"] = ready
        found[PLAIN] = lambda: rivals.plain_network(bundle, cases.voxels_of(case, preprocess))
        return found

    def _fitting(self, ready: Mapping[str, Callable[[], Callable[[], Any]]], width: int, case: Case) -> Rivals:
        """The prepared rivals that one turn has time for, the fastest first. Time is taken to grow with the voxels."""
        expected = {}
        for name in ready:
            voxels, milliseconds = self._measured.get((width, name), (1, 0.0))
            expected[name] = milliseconds * case.voxels / voxels
        rivals: Rivals = {}
        left = 1e3 * self.time_limit
        for name in sorted(ready, key=lambda name: expected[name]):
            products, _, library = name.partition(" ")
            slower = any(other.startswith(f"{products} ") for other in rivals)  # there is a faster library
            if library and slower and expected[name] > clock.LONG:
                continue
            if expected[name] > left:
                reason = f"would take {1e-3 * expected[name]:.0f} s a turn, {1e-3 * left:.0f} s are left (--time-limit)"
                self.skipped[f"{name}, {_called(width, case.voxels)}"] = reason
                continue
            try:
                rivals[name] = ready[name]()
                left -= expected[name]
            except Exception as error:
                self._skip(name, width, case.voxels, error)
        return rivals

    def _skip(self, name: str, width: int, voxels: int, error: Exception) -> None:
        """Note why something is left out; the others go on."""
        if not isinstance(error, ImportError):  # a library of products that is not installed is not worth a line
            self.skipped[f"{name}, {_called(width, voxels)}"] = describe(error).splitlines()[0]

    def _answer(self, engine: "EndToEnd", width: int) -> Labels | None:
        try:
            return engine.answer()
        except Exception as error:
            self._skip(f"the labels of {engine.segmenter.engine}", width, engine.case.voxels, error)
            return None

    def _is_short(self, milliseconds: float) -> bool:
        """Whether there is time for one more such run."""
        return milliseconds < 1e3 * self.time_limit / 4

    def _warn_if_busy(self, share: float, when: str) -> None:
        if share > clock.BUSY:
            self.warn(
                f"{when}, other programs or other guests of the host used {share:.0%} of the processors: figures are "
                "unreliable; measure on a quiet machine"
            )


def _called(width: int, voxels: int) -> str:
    return f"width {width}, {voxels:,} voxels"


class EndToEnd:
    """A scan from message to message through one engine; a call gives milliseconds by stage."""

    def __init__(self, case: Case, segmenter: Segmenter) -> None:
        self.case, self.segmenter = case, segmenter
        self.name, _, self.precision = segmenter.engine.rpartition("-")

    @property
    def on_gpu(self) -> bool:
        return registry.find(self.name)[0].on_gpu

    @property
    def products(self) -> str:
        """The kind of bare products that it is compared with."""
        return f"gpu-{self.precision}" if self.on_gpu else self.precision

    def ready(self) -> "EndToEnd":
        return self

    def __call__(self) -> dict[str, float]:
        self.segmenter.voxel_size = self.case.voxel_size
        start = perf_counter()
        scan = decode(self.case.message)
        decoded = perf_counter()
        labels = self.segmenter(scan)
        labelled = perf_counter()
        encode_labelled(self.case.message, labels, self.segmenter.label_space)
        encoded = perf_counter()
        return {"decode": 1e3 * (decoded - start), **labels.stages_ms, "encode": 1e3 * (encoded - labelled)}

    def answer(self) -> Labels:
        """Labels, and the probability of every class."""
        self.segmenter.voxel_size = self.case.voxel_size
        self.segmenter.probabilities = True
        try:
            return self.segmenter(decode(self.case.message))
        finally:
            self.segmenter.probabilities = False


def agreement(labels: Labels, answer: Labels) -> float:
    """Share of the labelled points that have the same label in both."""
    labelled = answer.label != UNLABELLED
    return float((labels.label == answer.label)[labelled].mean())


def difference(labels: Labels, answer: Labels) -> float:
    """Mean absolute difference of the probabilities of all classes."""
    assert labels.probabilities is not None and answer.probabilities is not None
    labelled = answer.label != UNLABELLED
    return float(np.abs(labels.probabilities - answer.probabilities)[labelled].mean())


def by_engine(rows: list[dict[str, Any]]) -> dict[tuple[int, str, str], dict[int, float]]:
    """Milliseconds of the network by voxels, for each width, engine and precision; of round numbers of voxels alone."""
    found: dict[tuple[int, str, str], dict[int, float]] = {}
    for row in (row for row in rows if not row["natural"]):
        found.setdefault((row["width"], row["engine"], row["precision"]), {})[row["voxels"]] = row["network_ms"]
    return found

"""What is on this machine, what is missing, and what to do about it.

Neither PyTorch nor ROS is loaded into this process. An error keeps this machine from labelling scans; all else costs
speed or a part of the program.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import distributions, requires, version
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

from cmp_seg_ros import resources
from cmp_seg_ros.bundle import FOLDER, Bundle
from cmp_seg_ros.errors import UserError, describe
from cmp_seg_ros.ros import environment
from cmp_seg_ros.scan import Scan

TIMEOUT = 10.0  # seconds that another program gets to answer
GIB = 1 << 30  # bytes; what a cache of engines may want
PARTICIPANTS = 3  # of DDS on one machine: driver, node, reader
QUOTA = Path("/sys/fs/cgroup/cpu.max")
EXTRAS = "simulation", "tensorboard"  # of setup.py; those of engines and of ROS have lines of their own
NO_WHEEL = {"vision_msgs": "~/label_info", "tf2_ros": "extrinsics: tf", "launch_ros": "launch files"}
NODES = ("rclpy", "sensor_msgs", "std_msgs", "diagnostic_msgs", "geometry_msgs")
ROS_PARTS = dict.fromkeys(NODES, "nodes and demo") | {"nav_msgs": "bag_player"} | NO_WHEEL


@dataclass
class Check:
    """One line of the report: what was looked at, what there is, and what to do about it.

    Args:
        status: ok; absent: an option that is not installed; warning: works, but worse; error: scans cannot be labelled.
            By default a warning where there is a remedy.
        area: heading that it belongs under.
    """

    name: str
    found: str
    remedy: str = ""
    status: str = ""
    area: str = ""

    def __post_init__(self) -> None:
        self.status = self.status or ("warning" if self.remedy else "ok")


def examine(bundle: str, compile: bool = False) -> list[Check]:
    """Look at everything, which takes a few seconds; `compile` compiles the kernels first where they are not."""
    areas: dict[str, Callable[[], Iterator[Check]]] = {
        "Python": _python,
        "Processor": _processor,
        "Cache": _cache,
        "Engines": _engines,
        "Models": lambda: chain(_models(), _teachers(), _trial(bundle, compile)),
        "ROS 2": _ros,
        "Transport": _transport,
    }
    return [replace(one, area=area) for area, look in areas.items() for one in _safely(look, area == "Models")]


def _safely(look: Callable[[], Iterator[Check]], is_serious: bool) -> Iterator[Check]:
    """The lines of an area, the last one about what was raised: the other areas are checked all the same."""
    try:
        yield from look()
    except Exception as error:
        remedy = "fix what it says, or report it with the output of --json"
        if isinstance(error, ImportError) and error.name:
            remedy = f"pip install {error.name}"
        yield Check("fault", describe(error), remedy, "error" if is_serious else "")


def _python() -> Iterator[Check]:
    from packaging.requirements import Requirement

    yield Check("Python", f"{platform.python_version()}, {sys.executable}")
    there = [f"{resources.PACKAGE} {version(resources.PACKAGE)}"]
    for requirement in map(Requirement, requires(resources.PACKAGE) or []):
        extra = requirement.marker
        if extra is not None and not any(extra.evaluate({"extra": name}) for name in EXTRAS):
            continue
        found = next((one.version for one in distributions(name=requirement.name)), "")
        if found and requirement.specifier.contains(found, prereleases=True):
            there.append(f"{requirement.name} {found}")
        else:
            remedy = f"pip install '{requirement.name}{requirement.specifier}'"
            yield Check(requirement.name, found or "not installed", remedy, "absent" if extra else "")
    yield Check("packages", ", ".join(there))


def _processor() -> Iterator[Check]:
    from cmp_seg_ros.speed.clock import processor

    cores = len(os.sched_getaffinity(0))
    yield Check("cores", f"{cores} of {processor()}")
    share, _, period = QUOTA.read_text().partition(" ") if QUOTA.exists() else ("max", "", "")
    if share.isdigit() and int(share) < cores * int(period) and not os.environ.get("OMP_NUM_THREADS"):
        found = f"this container gets the time of {int(share) / int(period):g} of them; more threads wait in turn"
        yield Check("quota", found, f"export OMP_NUM_THREADS={max(1, int(share) // int(period))}")


def _cache() -> Iterator[Check]:
    from cmp_seg_ros.engine.cache import require_writable
    from cmp_seg_ros.kernels.launch import cache_folder

    kernels = cache_folder()
    try:
        for path in (kernels, kernels.with_name("engines")):
            require_writable(path)
    except UserError as error:
        yield Check("folder", "every start compiles and builds anew", str(error))
        return
    free = shutil.disk_usage(kernels).free
    remedy = f"make room for {_bytes(GIB)}" if free < GIB else ""
    yield Check("folder", f"{kernels.parent}, {_bytes(free)} free", remedy)


def _engines() -> Iterator[Check]:
    from cmp_seg_ros.engine import cuda, registry

    gpu = cuda.gpu()
    yield Check("GPU", str(gpu or "none with an NVIDIA driver"))
    for file in registry.files():
        for runtime in registry.find_all(file)[0]:
            if lacks := runtime.missing():
                what, remedy = ("; ".join(getattr(lack, part) for lack in lacks) for part in ("what", "remedy"))
                yield Check(runtime.name, what, remedy, "" if gpu and runtime.on_gpu else "absent")
            else:
                auto = "; the default" if file == registry.DEFAULT else ""
                yield Check(runtime.name, f"{runtime.version()}: {', '.join(runtime.precisions())}{auto}")


def _models() -> Iterator[Check]:
    for name in resources.names(FOLDER):
        try:
            bundle = Bundle.find(name)
        except UserError as error:
            yield Check(name, str(error), "copy or make it again")
            continue
        yield Check(name, f"{bundle.description.kind}, {bundle.path}")


def _teachers() -> Iterator[Check]:
    from cmp_seg_ros.teachers import base, download

    missing = {card.name: bool(download.missing(card)) for card in base.cards().values() if card.files}
    here, gone = (", ".join(name for name in missing if missing[name] is lacks) or "none" for lacks in (False, True))
    found = f"weights here: {here}; not here: {gone}"
    yield Check("teachers", found, "cmp-seg teachers fetch NAME", "absent" if here == "none" else "ok")


def _trial(bundle: str, compile: bool) -> Iterator[Check]:
    """Label a scan, unless that would compile for half a minute unasked. Raises what keeps it from that."""
    from cmp_seg_ros.kernels.launch import is_cached
    from cmp_seg_ros.kernels.network import evaluate
    from cmp_seg_ros.segmenter import Segmenter
    from cmp_seg_ros.waffleiron.samples import room

    found = Bundle.find(bundle)
    if not (compile or is_cached(evaluate)):
        remedy = "`cmp-seg doctor --compile` does it now, else the first start, in half a minute"
        yield Check("trial", "not tried: the kernels are not compiled", remedy)
        return
    segmenter = Segmenter(found)
    segmenter(Scan(room()))  # takes longer than all that follow
    labels = segmenter(Scan(room()))
    took = sum(labels.stages_ms.values())
    yield Check(
        "trial",
        f"engine {segmenter.engine} with {found.path.name} labels {len(labels.label):,} points in {took:.0f} ms",
    )


def _ros() -> Iterator[Check]:
    there = [name for name in ROS_PARTS if find_spec(name) is not None]
    distribution = os.environ.get("ROS_DISTRO", "")
    for name in sorted(ROS_PARTS.keys() - there):
        package = f"apt install ros-{distribution or 'DISTRIBUTION'}-{name.replace('_', '-')}"
        wheel = "" if distribution or name in NO_WHEEL else ", or pip install -e '.[ros]'"
        yield Check(name, "not installed", f"for {ROS_PARTS[name]}: {package}{wheel}", "absent")
    if "rclpy" in there:  # in a process of its own, which may not survive what it cannot load
        modules = ", ".join(name + ".msg" * name.endswith("_msgs") for name in there)
        code = f"import rclpy.utilities, {modules}; print(rclpy.utilities.get_rmw_implementation_identifier())"
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        if done.returncode:
            fault = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
            remedy = f"install ROS 2 for Python {platform.python_version()}, with the middleware of RMW_IMPLEMENTATION"
            yield Check("loading", fault, remedy)
        else:
            domain = os.environ.get("ROS_DOMAIN_ID", "0")
            yield Check("loading", f"{', '.join(there)}; {done.stdout.strip()}, domain {domain}")


def _transport() -> Iterator[Check]:
    """What large clouds need of Fast DDS and of the system."""
    ours, variable = resources.resource(environment.PROFILES), environment.variable()
    profile = Path(os.environ.get(variable) or ours)
    wanted = _most(ours, "segment_size")
    fits = _most(profile, "segment_size") >= wanted
    lacks = "" if fits else f" gives no shared memory of {_bytes(wanted)}, so that large clouds get lost"
    remedy = f"for a lidar driver: export {variable}={profile if fits else ours}"
    yield Check("Fast DDS profile", f"{profile}{lacks}", remedy, "ok" if fits else "warning")
    if environment.SHARED_MEMORY.is_dir():
        free, want = shutil.disk_usage(environment.SHARED_MEMORY).free, PARTICIPANTS * wanted
        remedy = f"{_bytes(want)} are wanted: docker run --shm-size=1g or --ipc=host" if free < want else ""
        yield Check("shared memory", f"{_bytes(free)} free", remedy)
    buffers = _most(ours, "receiveBufferSize")
    for setting in ("rmem_max", "wmem_max"):
        path = Path("/proc/sys/net/core") / setting
        if path.exists() and (limit := int(path.read_text())) < buffers:  # not shown in some containers
            remedy = f"matters between machines only: sysctl -w net.core.{setting}={buffers}"
            yield Check(f"UDP {setting}", _bytes(limit), remedy)


def _most(profile: Path, element: str) -> int:
    """Bytes that a Fast DDS profile asks for; 0 where it does not say."""
    text = profile.read_text(errors="replace") if profile.is_file() else ""
    return max(map(int, re.findall(rf"<{element}>\s*(\d+)", text)), default=0)


def _bytes(count: float) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / (1 << 20):.1f} MiB"

"""What is on this machine, what is missing, and what to do about it.

Neither PyTorch nor ROS is loaded into this process. An error keeps this machine from labelling scans; all else costs
speed or a part of the program.
"""

import os
import platform
import shutil
import subprocess
import sys
import xml.etree.ElementTree
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from cmp_seg_ros import resources
from cmp_seg_ros.bundle import FOLDER, Bundle
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.outputs import try_writing
from cmp_seg_ros.ros import environment
from cmp_seg_ros.scan import Scan

TIMEOUT = 10.0  # seconds that another program gets to answer
GIB = 1 << 30  # bytes; what a cache of engines may want
PARTICIPANTS = 3  # of DDS on one machine: driver, node, reader
QUOTA = Path("/sys/fs/cgroup/cpu.max")
EXTRAS = "simulation", "tensorboard"  # of setup.py; those of engines and of ROS have lines of their own
ROS_PARTS = {
    **dict.fromkeys(("rclpy", "sensor_msgs", "std_msgs", "diagnostic_msgs", "geometry_msgs"), "nodes and demo"),
    "nav_msgs": "bag_player",
    **(NO_WHEEL := {"vision_msgs": "~/label_info", "tf2_ros": "extrinsics: tf", "launch_ros": "launch files"}),
}


class Check(NamedTuple):
    """One line of the report.

    Args:
        name: what was looked at.
        status: ok; absent: an option that is not installed; warning: works, but worse; error: scans cannot be labelled.
        found: what there is.
        remedy: what to do, where there is something to do.
        area: heading that it belongs under.
    """

    name: str
    status: str
    found: str
    remedy: str = ""
    area: str = ""


def check(name: str, found: str, remedy: str = "", status: str = "") -> Check:
    """A line that is a warning where there is a remedy, unless it says otherwise."""
    return Check(name, status or ("warning" if remedy else "ok"), found, remedy)


def examine(bundle: str, compile: bool = False) -> list[Check]:
    """Look at everything, which takes a few seconds; `compile` compiles the kernels first where they are not."""
    areas: dict[str, Callable[[], Iterator[Check]]] = {
        "Python": _python,
        "Processor": _processor,
        "Cache": _cache,
        "Engines": _engines,
        "Models": lambda: _models(bundle, compile),
        "ROS 2": _ros,
        "Transport": _transport,
    }
    return [found._replace(area=area) for area, look in areas.items() for found in _safely(look)]


def works(checks: list[Check]) -> bool:
    """Whether this machine can label scans."""
    return all(found.status != "error" for found in checks)


def _safely(look: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    try:
        yield from look()
    except Exception as error:  # the other areas are checked all the same
        found = f"the check failed: {type(error).__name__}: {error}"
        yield check("fault", found, "mend what is said above, or report it with the output of --json")


def _python() -> Iterator[Check]:
    from packaging.requirements import Requirement

    yield check("Python", f"{platform.python_version()}, {sys.executable}")
    there = [f"{resources.PACKAGE} {version(resources.PACKAGE)}"]
    for requirement in map(Requirement, requires(resources.PACKAGE) or []):
        marker = requirement.marker
        if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in EXTRAS):
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            found = ""
        if found and requirement.specifier.contains(found, prereleases=True):
            there.append(f"{requirement.name} {found}")
        else:
            remedy = f"pip install '{requirement.name}{requirement.specifier}'"
            yield check(requirement.name, found or "not installed", remedy, "absent" if marker else "")
    yield check("packages", ", ".join(there))


def _processor() -> Iterator[Check]:
    from cmp_seg_ros.speed.clock import processor

    cores = len(os.sched_getaffinity(0))
    yield check("cores", f"{cores} of {processor()}")
    share, _, period = QUOTA.read_text().partition(" ") if QUOTA.exists() else ("max", "", "")
    if share.isdigit() and int(share) < cores * int(period) and not os.environ.get("OMP_NUM_THREADS"):
        found = (
            f"this container gets the time of {int(share) / int(period):g} of them; as many threads would wait in turn"
        )
        yield check("quota", found, f"export OMP_NUM_THREADS={max(1, int(share) // int(period))}")


def _cache() -> Iterator[Check]:
    from cmp_seg_ros.kernels.launch import cache_folder

    folder = cache_folder().parent
    above = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    try:
        for path in (above, *(inner for inner in (cache_folder(), folder / "engines") if os.path.lexists(inner))):
            try_writing(path)
    except OSError as error:
        found = f"{path} cannot be written ({error.strerror or error}): every start compiles and builds anew"
        yield check("folder", found, "set XDG_CACHE_HOME to a folder that can be written")
        return
    free = shutil.disk_usage(above).free
    yield check("folder", f"{folder}, {_bytes(free)} free", f"make room for {_bytes(GIB)}" if free < GIB else "")


def _engines() -> Iterator[Check]:
    from cmp_seg_ros.engine import cuda, registry

    gpu = cuda.gpu()
    yield check("GPU", gpu or "none with an NVIDIA driver")
    for file in registry.files():
        try:
            known, _ = registry.find_all(file)
        except ImportError as error:
            status = "error" if file == registry.DEFAULT else "absent"
            yield check(file, f"cannot be loaded: {error}", f"pip install {error.name}", status)
            continue
        for runtime in known:
            lacks = runtime.missing()
            for lack in lacks:
                yield check(runtime.name, lack.what, lack.remedy, "" if gpu and runtime.on_gpu else "absent")
            if not lacks:
                auto = "; the default" if file == registry.DEFAULT else ""
                yield check(runtime.name, f"{runtime.version()}: {', '.join(runtime.precisions())}{auto}")


def _models(chosen: str, compile: bool) -> Iterator[Check]:
    for name in dict.fromkeys((chosen, *resources.names(FOLDER))):
        try:
            bundle = Bundle.find(name)
        except UserError as error:
            yield check(name, str(error), "copy or make it again", "error" if name == chosen else "")
            continue
        yield check(name, f"{bundle.description.kind}, {bundle.path}")
        if name == chosen:
            yield _trial(bundle, compile)


def _trial(bundle: Bundle, compile: bool) -> Check:
    """Label a scan, unless that would compile for half a minute unasked."""
    try:
        from cmp_seg_ros.kernels.launch import is_cached
        from cmp_seg_ros.kernels.network import evaluate
        from cmp_seg_ros.segmenter import Segmenter
        from cmp_seg_ros.waffleiron.samples import room

        if not (compile or is_cached(evaluate)):
            remedy = "`cmp-seg doctor --compile` does it now, else the first start, in half a minute"
            return check("trial", "not tried: the kernels are not compiled", remedy)
        segmenter = Segmenter(bundle)
        segmenter(Scan(room()))  # takes longer than all that follow
        labels = segmenter(Scan(room()))
    except Exception as error:  # whatever it is, the user wants to know
        found = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        return check("trial", found, "mend what is said above, or report it with the output of --json", "error")
    took = sum(labels.stages_ms.values())
    return check("trial", f"engine {segmenter.engine} labels {len(labels.label):,} points in {took:.0f} ms")


def _ros() -> Iterator[Check]:
    there = [name for name in ROS_PARTS if find_spec(name) is not None]
    distribution = os.environ.get("ROS_DISTRO", "")
    for name in sorted(ROS_PARTS.keys() - there):
        package = f"apt install ros-{distribution or 'DISTRIBUTION'}-{name.replace('_', '-')}"
        wheel = "" if distribution or name in NO_WHEEL else ", or pip install -e '.[ros]'"
        yield check(name, "not installed", f"for {ROS_PARTS[name]}: {package}{wheel}", "absent")
    if "rclpy" in there:  # in a process of its own, which may not survive what it cannot load
        modules = ", ".join(name + ".msg" * name.endswith("_msgs") for name in there)
        code = f"import rclpy.utilities, {modules}; print(rclpy.utilities.get_rmw_implementation_identifier())"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
        fault = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1] if done.returncode else ""
        middleware = done.stdout.strip()
        remedy = f"install ROS 2 for Python {platform.python_version()}, with the middleware of RMW_IMPLEMENTATION"
        found = fault or f"{', '.join(there)}; {middleware}, domain {os.environ.get('ROS_DOMAIN_ID', '0')}"
        yield check("loading", found, remedy if fault else "")


def _transport() -> Iterator[Check]:
    """What large clouds need of Fast DDS and of the system."""
    ours, variable = resources.resource(environment.PROFILES), environment.variable()
    profile = Path(os.environ.get(variable) or ours)
    wanted = _most(ours, "segment_size")
    if _most(profile, "segment_size") < wanted:
        found = f"{profile} gives no shared memory of {_bytes(wanted)}, so that large clouds get lost"
        yield check("Fast DDS profile", found, f"export {variable}={ours}")
    else:
        yield check("Fast DDS profile", str(profile), f"for a lidar driver: export {variable}={profile}", "ok")
    if environment.SHARED_MEMORY.is_dir():
        free, want = shutil.disk_usage(environment.SHARED_MEMORY).free, PARTICIPANTS * wanted
        remedy = f"{_bytes(want)} are wanted: docker run --shm-size=1g or --ipc=host" if free < want else ""
        yield check("shared memory", f"{_bytes(free)} free", remedy)
    buffers = _most(ours, "receiveBufferSize")
    for setting in ("rmem_max", "wmem_max"):
        path = Path("/proc/sys/net/core") / setting
        if path.exists() and (limit := int(path.read_text())) < buffers:  # not shown in some containers
            remedy = f"matters between machines only: sysctl -w net.core.{setting}={buffers}"
            yield check(f"UDP {setting}", _bytes(limit), remedy)


def _most(profile: Path, element: str) -> int:
    """Bytes that a Fast DDS profile asks for; 0 where it does not say."""
    try:
        found = xml.etree.ElementTree.parse(profile).iterfind(f".//{{*}}{element}")
        return max((int(one.text or 0) for one in found), default=0)
    except (OSError, ValueError, xml.etree.ElementTree.ParseError):
        return 0


def _bytes(count: float) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / (1 << 20):.1f} MiB"

"""What is there on this machine, what is missing, and what to do about it.

Nothing here loads PyTorch or ROS into this process: packages are looked up by name, ROS is asked in a process of its
own. What is called an error keeps this machine from labelling scans; the rest costs speed or a part of the program.
"""

import importlib.util
import logging
import os
import platform
import shutil
import subprocess
import sys
import xml.etree.ElementTree
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

import numpy as np

from cmp_seg_ros import resources
from cmp_seg_ros.bundle import DEFAULT_BUNDLE, FOLDER, Bundle
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.outputs import try_writing
from cmp_seg_ros.ros import environment
from cmp_seg_ros.scan import Scan

Status = Literal["ok", "absent", "warning", "error"]

TIMEOUT = 4.0  # seconds that another program gets to answer
ROOM = 1 << 30  # bytes of free space that a cache of engines may want
PARTICIPANTS = 3  # of DDS on one machine: driver, node, reader

KERNEL_SETTINGS = Path("/proc/sys/net/core")
PROCESSOR = Path("/proc/cpuinfo")
QUOTA = Path("/sys/fs/cgroup/cpu.max")
BOARD = Path("/proc/device-tree/model")  # of a Jetson

NODE_MESSAGES = "sensor_msgs", "std_msgs", "diagnostic_msgs", "geometry_msgs", "rcl_interfaces", "rosgraph_msgs"
PLAYER_MESSAGES = ("nav_msgs",)
OPTIONAL_ROS = {
    "vision_msgs": "~/label_info",
    "tf2_ros": "extrinsics: tf",
    "launch_ros": "the launch file; nodes start without it",
}
# Printed by a process of its own: what rclpy cannot load it may not survive.
ASK_ROS = f"""
import importlib
print("python", __import__("rclpy").__file__)
for name in {(*NODE_MESSAGES, *PLAYER_MESSAGES)}:
    try: importlib.import_module(name + ".msg")
    except Exception as error: print("missing", name, type(error).__name__, error)
from rclpy.utilities import get_rmw_implementation_identifier
print("rmw", get_rmw_implementation_identifier())
"""
ASK_GPU = ["nvidia-smi", "--query-gpu=name,compute_cap,memory.total,driver_version", "--format=csv,noheader"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Args:
        area: heading it belongs under.
        name: what was looked at.
        status: ok; absent: an option that is not installed; warning: works, but worse; error: scans cannot be labelled.
        found: what there is.
        remedy: what to do, where there is something to do.
    """

    area: str
    name: str
    status: Status
    found: str
    remedy: str = ""


def examine(bundle: str = DEFAULT_BUNDLE, compile: bool = False) -> list[Check]:
    """Look at everything, which takes a few seconds.

    Args:
        bundle: the one that is tried out.
        compile: also where the kernels must be compiled for that, which takes half a minute.
    """
    ros = _Answer([sys.executable, "-c", ASK_ROS]) if _is_there("rclpy") else None
    gpu = _Answer(ASK_GPU) if shutil.which(ASK_GPU[0]) else None
    return [
        *_safely("Python", _packages()),
        *_safely("Processor", _processor()),
        *_safely("Cache", _cache()),
        *_safely("Models", _models()),
        *_safely("Engines", _engines()),
        *_safely("Trial", _trial(bundle, compile)),
        *_safely("GPU", _gpu(gpu)),
        *_safely("ROS 2", _ros(ros)),
        *_safely("Transport", _transport()),
    ]


def _safely(area: str, checks: Iterator[Check]) -> Iterator[Check]:
    """A doctor does not fall ill: what cannot be looked at is told."""
    try:
        yield from checks
    except Exception as error:
        found = f"cannot be looked at: {type(error).__name__}: {error}"
        yield Check(area, "fault", "warning", found, "mend what is told above, or report it with the output of --json")


def works(checks: list[Check]) -> bool:
    """Whether this machine can label scans."""
    return all(check.status != "error" for check in checks)


class _Answer:
    """What another program prints, asked for now and read later."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __call__(self) -> tuple[list[str], str]:
        """Its lines, and its last words if it failed."""
        try:
            out, errors = self._process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            return [], f"no answer within {TIMEOUT:.0f} s"
        last = (errors.strip().splitlines() or out.strip().splitlines() or [f"exit status {self._process.returncode}"])[
            -1
        ]
        return out.splitlines(), last if self._process.returncode else ""


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # a package above it is missing, or half imported
        return False


def _version(distribution: str) -> str:
    """Empty where it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _packages() -> Iterator[Check]:
    from packaging.requirements import Requirement

    area = "Python"
    found = f"{platform.python_version()}, {sys.executable}"
    yield Check(area, "Python", "ok", found)
    try:
        wanted = [Requirement(line) for line in requires(resources.PACKAGE) or []]
    except PackageNotFoundError:
        yield Check(
            area, resources.PACKAGE, "warning", "not installed: run from its folder", "pip install -e . in the checkout"
        )
        return
    yield Check(area, resources.PACKAGE, "ok", f"{_version(resources.PACKAGE)}, {resources.share_folders()[0]}")
    present, faulty = [], False
    for requirement in wanted:
        if requirement.marker is not None:  # of an extra
            continue
        has = _version(requirement.name)
        if has and requirement.specifier.contains(has, prereleases=True):
            present.append(f"{requirement.name} {has}")
            continue
        faulty = True
        yield Check(area, requirement.name, "warning", has or "not installed", f"pip install '{requirement}'")
    yield Check(area, "packages", "ok" if not faulty else "warning", ", ".join(present))
    for extra, purpose in (("simulation", "cmp-seg simulate, demo and train"),):
        missing = [
            requirement.name
            for requirement in wanted
            if requirement.marker is not None
            and requirement.marker.evaluate({"extra": extra})
            and not _version(requirement.name)
        ]
        remedy = f"for {purpose}: pip install {' '.join(missing)}" if missing else ""
        yield Check(area, extra, "absent" if missing else "ok", ", ".join(missing) or "installed", remedy)
    ouster = _version("ouster-sdk")
    remedy = "" if ouster else "for .pcap and .osf files: pip install --no-deps ouster-sdk"
    yield Check(area, "ouster-sdk", "ok" if ouster else "absent", ouster or "not installed", remedy)


def _processor() -> Iterator[Check]:
    area = "Processor"
    lines = PROCESSOR.read_text().splitlines() if PROCESSOR.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0))
    yield Check(area, "cores", "ok", f"{cores} of {names[0] if names else platform.machine()}")
    quota = _quota()
    if quota and quota < cores and not os.environ.get("OMP_NUM_THREADS"):
        yield Check(
            area,
            "quota",
            "warning",
            f"this container gets the time of {quota:g} cores, and {cores} threads would wait for each other",
            f"export OMP_NUM_THREADS={max(1, int(quota))}",
        )
    try:
        from cmp_seg_ros.engine.cpu import precisions
        from cmp_seg_ros.kernels.launch import is_cached
        from cmp_seg_ros.kernels.network import evaluate
    except ImportError as error:
        yield Check(area, "kernels", "error", f"cannot be loaded: {error}", "pip install numba safetensors")
        return
    known = precisions()
    remedy = "" if "bf16" in known or "int8" in known else "none; fp32 takes about twice as long as bf16 would"
    yield Check(area, "precisions", "ok", f"{', '.join(known)}, fastest first", remedy)
    cached = is_cached(evaluate)
    yield Check(
        area,
        "kernels",
        "ok" if cached else "warning",
        "compiled" if cached else "not compiled: the first start takes half a minute",
        "" if cached else "`cmp-seg doctor --compile` does it now",
    )


def _quota() -> float:
    """Cores whose time this container may use; 0 for no limit."""
    try:
        share, period = QUOTA.read_text().split()
        return int(share) / int(period)
    except (OSError, ValueError):
        return 0.0


def _cache() -> Iterator[Check]:
    area = "Cache"
    from cmp_seg_ros.kernels.launch import cache_folder

    folder = cache_folder().parent
    for wanted in (cache_folder(), folder / "engines"):
        above = wanted
        while not os.path.exists(above):  # noqa: PTH110  Path.exists raises behind a folder that may not be entered
            above = above.parent
        try:
            try_writing(above)
        except OSError as error:
            elsewhere = "set XDG_CACHE_HOME to a folder that can be written"
            own = above.is_dir() and above.is_relative_to(folder)
            yield Check(
                area,
                "folder",
                "warning",
                f"{wanted} cannot be written ({above}: {error.strerror or error}): every start compiles anew, and "
                "engines cannot be kept",
                f"chown -R $USER {above}, or {elsewhere}" if own else elsewhere,
            )
            return
    free = shutil.disk_usage(above).free
    yield Check(area, "folder", "ok", str(folder))
    yield Check(
        area,
        "free space",
        "ok" if free >= ROOM else "warning",
        _bytes(free),
        "" if free >= ROOM else f"make room for {_bytes(ROOM)}, or set XDG_CACHE_HOME to another disk",
    )


def _models() -> Iterator[Check]:
    area = "Models"
    names = resources.names(FOLDER)
    if not names:
        yield Check(area, "bundles", "error", "none", f"reinstall {resources.PACKAGE}, or `cmp-seg train`")
    for name in names:
        try:
            bundle = Bundle.find(name)
        except UserError as error:
            yield Check(
                area, name, "error" if name == DEFAULT_BUNDLE else "warning", str(error), "copy or make it again"
            )
            continue
        network = bundle.description.network
        space = bundle.description.label_space
        found = f"{network.depth} x {network.width}, {space.name} ({len(space.classes)} classes), {bundle.path}"
        yield Check(area, name, "ok", found)


def _engines() -> Iterator[Check]:
    area = "Engines"
    from cmp_seg_ros.engine import base

    yield Check(area, "auto", "ok", f"takes {base.module_of('auto')}")
    for name in base.ENGINES:
        if name in ("cpu", "tensorrt"):  # tried below; told with the GPU
            continue
        if name == "reference":  # whose module is not loaded here, since it loads PyTorch
            needed, told = ("torch",), "; needed to train and to compare with"
            remedy = "pip install torch (--index-url https://download.pytorch.org/whl/cpu without a GPU)"
        else:
            module = import_module(f"cmp_seg_ros.engine.{name}")
            needed, told, remedy = module.PACKAGES, "", module.INSTALL
        has = {package: _version(package) or _version(f"{package}-gpu") for package in needed}
        if all(has.values()):
            yield Check(area, name, "ok", ", ".join(f"{package} {found}" for package, found in has.items()))
        else:
            lacking = " and no ".join(package for package, found in has.items() if not found)
            yield Check(area, name, "absent", f"no {lacking}{told}", remedy)


def _trial(name: str, compile: bool) -> Iterator[Check]:
    """Label a scan, unless that would compile for half a minute unasked."""
    area = "Trial"
    try:
        bundle = Bundle.find(name)
    except UserError as error:
        known = ", ".join(resources.names(FOLDER)) or "none there"
        yield Check(area, name, "error", str(error), f"give --model the folder of a whole bundle, or a name: {known}")
        return
    try:
        from cmp_seg_ros.kernels.launch import is_cached
        from cmp_seg_ros.kernels.network import evaluate
        from cmp_seg_ros.segmenter import Segmenter
    except ImportError:
        return  # said above
    if not (compile or is_cached(evaluate)):
        yield Check(
            area, name, "warning", "not tried, since the kernels are not compiled", "`cmp-seg doctor --compile`"
        )
        return
    try:
        segmenter = Segmenter(bundle)
        segmenter(box_room())  # takes longer than all that follow
        labels = segmenter(box_room())
    except Exception as error:  # whatever it is, it is what somebody who asks the doctor wants to know
        found = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        yield Check(area, name, "error", found, "mend what is told above, or report it with the output of --json")
        return
    right = bool(np.isfinite(labels.confidence).all() and np.isin(labels.label, segmenter.label_space.ids).all())
    done = f"engine {segmenter.engine} labels {len(labels.label):,} points ({labels.voxels:,} voxels)"
    if right:
        yield Check(area, name, "ok", f"{done} in {sum(labels.stages_ms.values()):.0f} ms")
    else:
        remedy = "set engine to reference, and report it with the output of --json"
        yield Check(area, name, "error", f"{done}, but with what is no label", remedy)


def box_room(points: int = 8192) -> Scan:
    """A scan of a bare room of 8 x 6 x 2.6 m from its middle."""
    rng = np.random.default_rng(0)
    direction = rng.normal(size=(points, 3)) * (1, 1, 0.3)
    half = np.array([4.0, 3.0, 1.3])
    xyz = direction / np.abs(direction / half).max(axis=1, keepdims=True)
    return Scan(xyz.astype(np.float32), np.ones(points, np.float32))


def _gpu(gpu: _Answer | None) -> Iterator[Check]:
    area = "GPU"
    lines, fault = gpu() if gpu else ([], "")
    board = BOARD.read_text().strip("\0\n ") if BOARD.exists() else ""
    there = True
    if fault:
        remedy = "install the driver that matches the kernel module, and restart"
        yield Check(area, "driver", "warning", f"nvidia-smi: {fault}", remedy)
    elif lines:
        for line in lines:
            yield Check(area, "device", "ok", line)
    elif board.startswith("NVIDIA"):
        yield Check(area, "device", "ok", board)
    else:
        there = False
        remedy = "none needed: the default engine runs on the processor"
        yield Check(area, "device", "absent", "no NVIDIA GPU or driver", remedy)
    try:
        from cmp_seg_ros.engine import tensorrt
    except ImportError:
        return  # told with the kernels
    lacks = tensorrt.missing()
    for lack in lacks:
        yield Check(area, "engine tensorrt", "warning" if there else "absent", lack.what, lack.remedy)
    if not lacks:
        found = tensorrt.device()
        capability = ".".join(map(str, found.capability))
        yield Check(area, "engine tensorrt", "ok", f"TensorRT {tensorrt.release()}, {found.name} ({capability})")


def _ros(ros: _Answer | None) -> Iterator[Check]:
    area = "ROS 2"
    distribution = os.environ.get("ROS_DISTRO", "")
    remedy = "source /opt/ros/DISTRIBUTION/setup.bash, or pip install -e '.[ros]'"
    if ros is None:
        yield Check(area, "rclpy", "absent", "not installed: no nodes and no demo; label and evaluate work", remedy)
        return
    lines, fault = ros()
    told: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        key, _, rest = line.partition(" ")
        told[key].append(rest)
    if not told["python"]:
        hint = f"rclpy must be of this Python ({platform.python_version()}): {remedy}"
        yield Check(area, "rclpy", "warning", f"does not load: {fault}", hint)
        return
    wheel = _version("ros-rclpy") or _version("rclpy")
    source = f"distribution {distribution}" if distribution else "wheels"
    yield Check(area, "rclpy", "ok", f"{wheel}, {source}, {Path(told['python'][0]).parent}".removeprefix(", "))
    lacking = {entry.split()[0]: entry.partition(" ")[2] for entry in told["missing"]}
    for name in NODE_MESSAGES + PLAYER_MESSAGES:
        if name in lacking:
            used = "bag_player" if name in PLAYER_MESSAGES else "the nodes"
            install = (
                f"apt install ros-{distribution}-{name.replace('_', '-')}"
                if distribution
                else "pip install -e '.[ros]'"
            )
            yield Check(area, name, "warning", f"{lacking[name]}; {used} need it", install)
    loaded = [name for name in NODE_MESSAGES + PLAYER_MESSAGES if name not in lacking]
    yield Check(area, "messages", "warning" if lacking else "ok", ", ".join(loaded))
    for name, used in OPTIONAL_ROS.items():
        if _is_there(name):
            yield Check(area, name, "ok", "installed")
        else:
            install = f"apt install ros-{distribution or 'DISTRIBUTION'}-{name.replace('_', '-')}"
            yield Check(area, name, "absent", "not installed", f"for {used}: {install}; it has no wheel")
    if told["rmw"]:
        yield Check(area, "middleware", "ok", f"{told['rmw'][0]}, domain {os.environ.get('ROS_DOMAIN_ID', '0')}")
    else:
        asked = os.environ.get("RMW_IMPLEMENTATION", "")
        hint = f"install {asked}, or unset RMW_IMPLEMENTATION" if asked else "pip install -e '.[ros]'"
        yield Check(area, "middleware", "warning", f"does not load: {fault}", hint)


def _transport() -> Iterator[Check]:
    """What large clouds need of Fast DDS and of the system."""
    area = "Transport"
    given = os.environ.get(environment.variable(), "")
    ours = resources.resource(environment.PROFILES)
    if not given:
        yield Check(
            area,
            "Fast DDS profile",
            "ok",
            f"ours: {ours}; programs of other packages started here have none",
            f"for a lidar driver: export {environment.variable()}={ours}",
        )
    segment, _ = _sizes(Path(given) if given else ours)
    wanted, buffers = _sizes(ours)
    if given and segment >= wanted:
        yield Check(area, "Fast DDS profile", "ok", given)
    elif given:
        found = (
            f"{given} has no shared memory of {_bytes(wanted)}" if Path(given).is_file() else f"{given} is not a file"
        )
        yield Check(area, "Fast DDS profile", "warning", f"{found}: large clouds get lost", f"unset it, or take {ours}")
    if environment.SHARED_MEMORY.is_dir():
        memory, want = shutil.disk_usage(environment.SHARED_MEMORY), PARTICIPANTS * max(segment, wanted)
        found = f"{_bytes(memory.free)} of {_bytes(memory.total)} free in {environment.SHARED_MEMORY}"
        if memory.free >= want:
            yield Check(area, "shared memory", "ok", found)
        else:
            remedy = f"{PARTICIPANTS} programs want {_bytes(want)}: docker run --shm-size=1g or --ipc=host"
            yield Check(area, "shared memory", "warning", found, remedy)
    for name in ("rmem_max", "wmem_max"):
        try:
            limit = int((KERNEL_SETTINGS / name).read_text())
        except (OSError, ValueError):  # not shown in some containers
            continue
        enough = limit >= buffers
        remedy = "" if enough else f"matters between machines only: sysctl -w net.core.{name}={buffers}"
        yield Check(area, f"UDP {name}", "ok" if enough else "warning", _bytes(limit), remedy)


def _sizes(profile: Path) -> tuple[int, int]:
    """Bytes of shared memory and of UDP buffers that a Fast DDS profile asks for; 0 where it does not say."""
    try:
        root = xml.etree.ElementTree.parse(profile).getroot()
    except (OSError, xml.etree.ElementTree.ParseError):
        return 0, 0
    sizes = {"segment_size": 0, "receiveBufferSize": 0}
    for element in root.iter():
        name = element.tag.rpartition("}")[2]
        if name in sizes and (element.text or "").strip().isdigit():
            sizes[name] = max(sizes[name], int((element.text or "").strip()))
    return sizes["segment_size"], sizes["receiveBufferSize"]


def _bytes(count: float) -> str:
    """In words: 64 MiB."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"

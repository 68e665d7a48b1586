"""`cmp-seg doctor`: every line says what is there, and what to do where something is not."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_gpu import FakeGpu

from cmp_seg_ros import doctor, resources, segmenter
from cmp_seg_ros.doctor import Check
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.kernels import launch
from cmp_seg_ros.ros import environment

Run = Callable[..., SimpleNamespace]


@pytest.fixture
def run(run: Run) -> Run:
    """Run `cmp-seg doctor ARGS` in this process: code, out and err."""
    return partial(run, "doctor")


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def script(folder: Path, name: str, body: str) -> None:
    """A program `name` in a folder that PATH is to find."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_a_machine_that_labels_scans_is_well_and_everything_else_has_a_remedy() -> None:
    """As a user calls it, in a process of its own, which must stay without PyTorch and ROS."""
    code = (
        "import sys\nfrom cmp_seg_ros.cli import main\nsys.argv = ['cmp-seg', 'doctor', '--json', '--compile']\n"
        "try: main.main()\nfinally: print(sorted({'torch', 'rclpy', 'sensor_msgs'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    report, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    checks = [Check(**check) for check in json.loads(report)["checks"]]
    assert json.loads(report)["works"] is True
    trial = next(check for check in checks if check.area == "Trial")
    assert trial.status == "ok"
    assert "engine cpu-" in trial.found
    areas = {check.area for check in checks}
    assert {"Python", "Processor", "Cache", "Models", "Engines", "Trial", "GPU", "ROS 2", "Transport"} <= areas
    assert all(check.remedy for check in checks if check.status == "absent")


def test_the_table_shows_status_and_remedy_and_says_how_it_ends(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = [Check("A", "this", "ok", "there"), Check("B", "that", "warning", "gone", "fetch [it] from /a/path")]
    monkeypatch.setattr(doctor, "examine", lambda *_: checks)
    shown = run()
    assert shown.code == 0
    assert "fetch [it] from /a/path" in shown.out
    assert "this machine labels scans; 1 warning" in shown.out
    checks.append(Check("B", "other", "error", "broken [in two]", "mend it"))
    shown = run()
    assert shown.code == 1
    assert "this machine cannot label scans; other: broken [in two]" in shown.out
    assert json.loads(run("--json").out) == {"works": False, "checks": [vars(check) for check in checks]}


def test_a_bundle_that_does_not_load_is_an_error(tiny_bundle: Path, tmp_path: Path) -> None:
    assert by_name(list(doctor._trial(str(tiny_bundle), True)))[str(tiny_bundle)].status == "ok"
    for name in ("bundle.yaml", "weights.safetensors"):
        (tmp_path / name).write_bytes((tiny_bundle / name).read_bytes()[:-1])
    (check,) = doctor._trial(str(tmp_path), True)
    assert check.status == "error"
    assert str(tmp_path) in check.found
    (check,) = doctor._trial("no-such-bundle", True)
    assert check.status == "error"
    assert "no-such-bundle" in check.found
    assert "waffleiron24-128" in check.remedy and "above" not in check.remedy


@pytest.mark.parametrize("fault", [UserError("the model is ill"), RuntimeError("out of order")])
def test_whatever_breaks_the_trial_is_told(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    def broken(*_: Any) -> None:
        raise fault

    monkeypatch.setattr(segmenter, "Segmenter", broken)
    (check,) = doctor._trial("waffleiron24-128", True)
    assert check.status == "error"
    assert str(fault) in check.found
    assert not doctor.works([check])


@pytest.mark.parametrize("package", ["numba", "safetensors", "packaging"])
def test_a_doctor_does_not_fall_ill(package: str) -> None:
    """With a package missing, all else is looked at; without what the network needs, it is an error."""
    code = (
        f"import sys\nsys.modules['{package}'] = None\nfrom cmp_seg_ros.cli import main\n"
        "sys.argv = ['cmp-seg', 'doctor', '--json']\nmain.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    report = json.loads(done.stdout)
    needed = package != "packaging"
    assert report["works"] is not needed
    assert done.returncode == needed
    checks = [Check(**check) for check in report["checks"]]
    assert any(package in check.found and check.status == ("error" if needed else "warning") for check in checks)
    assert {"Models", "Transport"} <= {check.area for check in checks if check.status == "ok"}


def test_kernels_are_not_compiled_unasked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With an empty cache nothing is tried, in no time, and that is no error."""
    monkeypatch.setattr(launch, "cache_folder", lambda: tmp_path)
    (check,) = doctor._trial("waffleiron24-128", False)
    assert check.status == "warning"
    assert "--compile" in check.remedy
    assert not list(tmp_path.iterdir())
    assert by_name(list(doctor._processor()))["kernels"].status == "warning"


def test_packages_that_are_missing_or_too_old_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"numpy": "1.26.0", "pydantic": "1.10.2", resources.PACKAGE: "0.1.0"}

    def version(name: str) -> str:
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(
        doctor, "requires", lambda _: ["numpy", "pydantic>=2", "scipy", 'trimesh; extra == "simulation"']
    )
    monkeypatch.setattr(doctor, "version", version)
    checks = by_name(list(doctor._packages()))
    assert checks["pydantic"].status == checks["scipy"].status == checks["packages"].status == "warning"
    assert checks["pydantic"].remedy == "pip install 'pydantic>=2'"
    assert checks["scipy"].found == "not installed"
    assert checks["packages"].found == "numpy 1.26.0"
    assert (checks["simulation"].status, checks["simulation"].found) == ("absent", "trimesh")
    assert "pip install trimesh" in checks["simulation"].remedy


def test_without_rclpy_the_remedy_is_a_distribution_or_the_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    (check,) = doctor._ros(None)
    assert check.status == "absent"
    assert "setup.bash" in check.remedy
    assert "[ros]" in check.remedy


def test_a_ros_of_another_python_is_told_from_one_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after sourcing a distribution whose rclpy was compiled for the system's Python."""
    package = tmp_path / "rclpy"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('_rclpy_pybind11.cpython-310.so not found')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (check,) = doctor._ros(doctor._Answer([sys.executable, "-c", doctor.ASK_ROS]))
    assert check.status == "warning"
    assert "cpython-310" in check.found
    assert "of this Python" in check.remedy


def test_messages_and_middleware_that_do_not_load_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in doctor.NODE_MESSAGES:
        (tmp_path / name / "msg").mkdir(parents=True)
        (tmp_path / name / "__init__.py").touch()
        (tmp_path / name / "msg" / "__init__.py").touch()
    (tmp_path / "sensor_msgs" / "msg" / "__init__.py").write_text("raise ImportError('no libsensor_msgs.so')")
    (tmp_path / "nav_msgs").mkdir()
    (tmp_path / "nav_msgs" / "__init__.py").touch()
    (tmp_path / "rclpy").mkdir()
    (tmp_path / "rclpy" / "__init__.py").touch()
    (tmp_path / "rclpy" / "utilities.py").write_text(
        "def get_rmw_implementation_identifier(): raise RuntimeError('no librmw_zenoh_cpp.so')"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_zenoh_cpp")
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    checks = by_name(list(doctor._ros(doctor._Answer([sys.executable, "-c", doctor.ASK_ROS]))))
    assert checks["rclpy"].status == "ok"
    assert "distribution jazzy" in checks["rclpy"].found
    assert checks["sensor_msgs"].status == checks["nav_msgs"].status == checks["middleware"].status == "warning"
    assert "no libsensor_msgs.so" in checks["sensor_msgs"].found
    assert "apt install ros-jazzy-sensor-msgs" in checks["sensor_msgs"].remedy
    assert "bag_player" in checks["nav_msgs"].found
    assert "no librmw_zenoh_cpp.so" in checks["middleware"].found
    assert "unset RMW_IMPLEMENTATION" in checks["middleware"].remedy
    assert "sensor_msgs" not in checks["messages"].found.split(", ")


def test_a_program_that_hangs_does_not_hold_up_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "TIMEOUT", 0.2)
    check = by_name(list(doctor._gpu(doctor._Answer([sys.executable, "-c", "import time; time.sleep(60)"]))))["driver"]
    assert check.status == "warning"
    assert "no answer" in check.found


def test_gpus_are_listed_and_a_driver_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    script(
        tmp_path, "nvidia-smi", "echo 'NVIDIA A40, 8.6, 46068 MiB, 550.54'\necho 'NVIDIA A40, 8.6, 46068 MiB, 550.54'"
    )
    devices = [check for check in doctor._gpu(doctor._Answer(doctor.ASK_GPU)) if check.name == "device"]
    assert [device.status for device in devices] == ["ok", "ok"]
    assert devices[0].found.startswith("NVIDIA A40, 8.6")
    script(tmp_path, "nvidia-smi", "echo 'Driver/library version mismatch'; exit 18")
    check = by_name(list(doctor._gpu(doctor._Answer(doctor.ASK_GPU))))["driver"]
    assert check.status == "warning"
    assert "mismatch" in check.found


@pytest.mark.parametrize(
    ("absent", "status", "found"),
    [
        ((), "ok", "openvino 1.2, onnx 1.2"),
        (("onnx",), "absent", "no onnx"),
        (("openvino",), "absent", "no openvino"),
        (("openvino", "onnx"), "absent", "no openvino and no onnx"),
    ],
)
def test_an_engine_is_there_with_all_its_packages_alone(
    monkeypatch: pytest.MonkeyPatch, absent: tuple[str, ...], status: str, found: str
) -> None:
    def version(name: str) -> str:
        if name in (*absent, "onnxruntime") or name.startswith("torch") or name in ("onnx-gpu", "openvino-gpu"):
            raise PackageNotFoundError(name)
        return "1.2"

    monkeypatch.setattr(doctor, "version", version)
    checks = by_name(list(doctor._engines()))
    assert (checks["openvino"].status, checks["openvino"].found) == (status, found)
    assert checks["openvino"].remedy == ("pip install openvino onnx" if absent else "")
    assert checks["onnxruntime"].found.startswith("no onnx" if "onnx" in absent else "onnxruntime 1.2")  # -gpu is there
    assert checks["reference"].status == "absent" and "pip install torch" in checks["reference"].remedy


def test_what_engine_tensorrt_lacks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An option without a GPU; a warning with one, which is of no use then."""
    gpu = FakeGpu().install(monkeypatch)
    check = by_name(list(doctor._gpu(None)))["engine tensorrt"]
    assert (check.status, check.found) == ("ok", "TensorRT 10.13.0.35, NVIDIA A40 (8.6)")
    gpu.driver = 11080
    check = by_name(list(doctor._gpu(None)))["engine tensorrt"]
    assert check.status == "absent"
    assert "CUDA 11.8" in check.found
    answer = doctor._Answer([sys.executable, "-c", "print('NVIDIA A40, 8.6, 46068 MiB, 470.1')"])
    check = by_name(list(doctor._gpu(answer)))["engine tensorrt"]
    assert check.status == "warning"
    assert "update the driver" in check.remedy


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(above: Path) -> Check:
        monkeypatch.setattr(launch, "cache_folder", lambda: above / "cmp_seg_ros" / "kernels-0")
        return by_name(list(doctor._cache()))["folder"]

    assert check(tmp_path / "not" / "yet" / "there").status == "ok"
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    (tmp_path / "taken" / "cmp_seg_ros").mkdir(parents=True)
    (tmp_path / "taken" / "cmp_seg_ros" / "kernels-0").touch()
    for above in (tmp_path / "file", tmp_path / "taken", Path("/proc/nope")):  # also for root
        found = check(above)
        assert found.status == "warning" and "cannot be written" in found.found
        assert "set XDG_CACHE_HOME" in found.remedy and "chown" not in found.remedy


def test_a_cache_of_somebody_else_may_be_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    folder = tmp_path / "cmp_seg_ros"
    monkeypatch.setattr(launch, "cache_folder", lambda: folder / "kernels-0")
    monkeypatch.setattr(doctor, "try_writing", refuse)
    assert "chown" not in by_name(list(doctor._cache()))["folder"].remedy
    folder.mkdir()
    assert f"chown -R $USER {folder}, or" in by_name(list(doctor._cache()))["folder"].remedy


def test_a_relative_cache_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """As its specification says."""
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    assert launch.cache_folder.__wrapped__().is_relative_to(Path.home() / ".cache")


def test_little_room_in_the_cache_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(total=1 << 40, free=10 << 20))
    check = by_name(list(doctor._cache()))["free space"]
    assert (check.status, check.found) == ("warning", "10 MiB")
    assert "1.0 GiB" in check.remedy


def test_the_profile_of_fast_dds_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (environment.VARIABLE, environment.OLD_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    check = by_name(list(doctor._transport()))["Fast DDS profile"]
    assert check.status == "ok"
    assert f"export {environment.variable()}=" in check.remedy

    ours = resources.resource(environment.PROFILES)
    for content, status in ((ours.read_text(), "ok"), ("<dds/>", "warning"), ("no xml", "warning"), (None, "warning")):
        profile = tmp_path / "profile.xml"
        profile.unlink(missing_ok=True)
        if content is not None:
            profile.write_text(content)
        monkeypatch.setenv(environment.VARIABLE, str(profile))
        assert by_name(list(doctor._transport()))["Fast DDS profile"].status == status, content


def test_small_shared_memory_and_buffers_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Docker gives: 64 MiB, and the kernel's default for sockets."""
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(total=64 << 20, free=64 << 20))
    monkeypatch.setattr(environment, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(doctor, "KERNEL_SETTINGS", tmp_path)
    (tmp_path / "rmem_max").write_text("212992\n")
    (tmp_path / "wmem_max").write_text("8388608\n")
    checks = by_name(list(doctor._transport()))
    assert checks["shared memory"].status == "warning"
    assert "192 MiB" in checks["shared memory"].remedy
    assert "--shm-size" in checks["shared memory"].remedy
    assert checks["UDP rmem_max"].remedy.endswith("sysctl -w net.core.rmem_max=4194304")
    assert checks["UDP wmem_max"].status == "ok"


@pytest.mark.parametrize(
    ("content", "cores"), [("200000 100000\n", 2.0), ("50000 100000", 0.5), ("max 100000", 0.0), ("?", 0.0)]
)
def test_the_quota_of_a_container(content: str, cores: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "QUOTA", tmp_path / "cpu.max")
    (tmp_path / "cpu.max").write_text(content)
    assert doctor._quota() == cores


def test_more_threads_than_the_quota_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setattr(doctor, "_quota", lambda: 2.5)
    check = by_name(list(doctor._processor()))["quota"]
    assert check.status == "warning"
    assert check.remedy == "export OMP_NUM_THREADS=2"


def test_an_import_that_is_half_there_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def spec(name: str) -> None:
        raise ValueError("__spec__ is None")

    monkeypatch.setattr(importlib.util, "find_spec", spec)
    assert doctor._is_there("anything") is False

"""`cmp-seg doctor`: every line says what there is, and what to do where something is missing."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Run

from cmp_seg_ros import doctor
from cmp_seg_ros.kernels import launch
from cmp_seg_ros.ros import environment


def report(before: str = "", *options: str) -> dict[str, Any]:
    """Of the command in a process of its own, which must import neither PyTorch nor ROS."""
    code = f"""if True:
        import sys
        {before}
        from cmp_seg_ros.cli import main
        sys.argv = {["cmp-seg", "doctor", "--json", *options]}
        try: main.main()
        finally: print(sorted({{"torch", "rclpy", "sensor_msgs"}} & sys.modules.keys()))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    found, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    return json.loads(found) | {"code": done.returncode}


def test_a_machine_that_labels_scans() -> None:
    found = report("", "--compile")
    assert found["works"] and found["code"] == 0
    checks = [doctor.Check(**check) for check in found["checks"]]
    assert {check.area for check in checks} == {
        "Python", "Processor", "Cache", "Engines", "Models", "ROS 2", "Transport"
    }  # fmt: skip
    assert all(check.remedy for check in checks if check.status != "ok")
    assert next(check for check in checks if check.name == "trial").found.startswith("engine cpu-")
    names = [check.name for check in checks]
    assert {"cpu", "openvino", "reference", "tensorrt", "teachers"} <= set(names) and len(set(names)) == len(names)


@pytest.mark.parametrize(("package", "works"), [("numba", False), ("safetensors", False), ("packaging", True)])
def test_all_else_is_looked_at_where_a_package_is_missing(package: str, works: bool) -> None:
    found = report(f"sys.modules['{package}'] = None")
    assert found["works"] == works and found["code"] == (not works)
    assert any(package in check["found"] and check["status"] in ("error", "warning") for check in found["checks"])
    assert {"Models", "Transport"} <= {check["area"] for check in found["checks"] if check["status"] == "ok"}


def test_a_bundle_that_does_not_load_is_an_error(run: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    for name in ("bundle.yaml", "weights.safetensors"):
        (tmp_path / name).write_bytes((tiny_bundle / name).read_bytes()[:-1])
    done = run("doctor", "--model", tmp_path)
    assert done.code == 1 and f"this machine cannot label scans; fault: {tmp_path}" in done.out.replace("\n", "")


def status(name: str, checks: Any) -> str:
    return next(check.status for check in checks if check.name == name)


def test_what_costs_speed_or_a_part_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "cache_folder", lambda: tmp_path / "file" / "kernels-0")
    (tmp_path / "file").touch()
    assert status("folder", doctor._cache()) == "warning"
    monkeypatch.setattr(launch, "cache_folder", lambda: tmp_path / "cache" / "kernels-0")
    assert status("folder", doctor._cache()) == "ok"
    assert status("trial", doctor._trial("waffleiron24-128", False)) == "warning"  # compiles nothing unasked
    (tmp_path / "profile.xml").write_text("<dds/>")
    monkeypatch.setenv(environment.variable(), str(tmp_path / "profile.xml"))
    assert status("Fast DDS profile", doctor._transport()) == "warning"
    (tmp_path / "cpu.max").write_text("50000 100000")
    monkeypatch.setattr(doctor, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert status("quota", doctor._processor()) == "warning"
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    assert status("rclpy", doctor._ros()) == "absent"

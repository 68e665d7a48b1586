"""Installed as colcon installs an ament_python package: scripts where `ros2 run` looks, data in the share folder."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from cmp_seg_ros import resources
from cmp_seg_ros.errors import UserError

CHECKOUT = Path(__file__).resolve().parents[1]
CONTENT = ("cmp_seg_ros", "config", "launch", "models", "resource", "package.xml", "setup.py", "setup.cfg", "LICENSE")


def copy_source(target: Path, *others: str) -> None:
    for name in (*CONTENT, *others):
        path = CHECKOUT / name
        if path.is_dir():
            shutil.copytree(path, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif path.exists():
            shutil.copy(path, target)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package installed with the commands that colcon runs."""
    folder = tmp_path_factory.mktemp("colcon")
    source = folder / "source"
    source.mkdir()
    copy_source(source)
    where = ["--prefix", folder / "install", "--record", folder / "log", "--single-version-externally-managed"]
    command = [sys.executable, "-W", "ignore", "setup.py", "-q", "egg_info", "-e", folder, "build", "-b", folder / "b"]
    done = subprocess.run([*command, "install", *where], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "install"


def test_scripts_are_where_ros2_run_looks(prefix: Path) -> None:
    scripts = {path.name for path in (prefix / "lib" / "cmp_seg_ros").iterdir()}
    assert {
        "cmp-seg",
        "segmentation_node",
        "semantic_map_node",
        "occupancy_node",
        "pseudo_label_node",
        "bag_player",
    } <= scripts
    assert all(os.access(prefix / "lib" / "cmp_seg_ros" / name, os.X_OK) for name in scripts)


def test_the_resource_index_and_every_data_file_are_in_the_share_folder(prefix: Path) -> None:
    share = prefix / "share"
    assert (share / "ament_index" / "resource_index" / "packages" / "cmp_seg_ros").is_file()
    assert (share / "cmp_seg_ros" / "package.xml").is_file()
    for top in ("config", "launch", "models"):
        wanted = {path.relative_to(CHECKOUT) for path in (CHECKOUT / top).rglob("*") if path.is_file()}
        wanted = {path for path in wanted if "__pycache__" not in path.parts}
        found = {path.relative_to(share / "cmp_seg_ros") for path in (share / "cmp_seg_ros" / top).rglob("*")}
        assert wanted <= found


@pytest.mark.parametrize("ament", [True, False], ids=["sourced", "by_place"])
def test_the_installed_package_finds_its_data(prefix: Path, ament: bool) -> None:
    """By AMENT_PREFIX_PATH, as after sourcing setup.bash; and from where the package lies."""
    packages = next(prefix.rglob("cmp_seg_ros/resources.py")).parents[1]
    environment = {key: value for key, value in os.environ.items() if key != "AMENT_PREFIX_PATH"}
    environment["PYTHONPATH"] = str(packages)
    if ament:
        environment["AMENT_PREFIX_PATH"] = str(prefix)
    code = "from cmp_seg_ros import resources; print(resources.resource('config/label_spaces/structural6.yaml'))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=prefix, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(prefix / "share" / "cmp_seg_ros" / "config" / "label_spaces" / "structural6.yaml")


def test_every_requirement_states_the_oldest_version_that_works() -> None:
    """`make test-oldest` installs these."""
    text = (CHECKOUT / "setup.py").read_text()
    required = re.search(r"install_requires=\[(.*?)\]", text, re.DOTALL)
    assert required is not None
    names = re.findall(r'"([^"]+)"', required[1])
    assert len(names) > 10 and all(">=" in name for name in names)
    assert "numpy>=1.26" in names  # of ROS 2 Jazzy


def test_package_xml_agrees_with_setup(prefix: Path) -> None:
    package = ElementTree.parse(CHECKOUT / "package.xml").getroot()
    metadata = next(prefix.rglob("cmp_seg_ros-*.egg-info/PKG-INFO")).read_text()
    assert package.findtext("name") == "cmp_seg_ros"
    assert f"Version: {package.findtext('version')}\n" in metadata
    assert re.search(rf"^License(-Expression)?: {package.findtext('license')}$", metadata, re.MULTILINE)
    assert package.findtext("export/build_type") == "ament_python"


def test_colcon_test_runs_pytest(prefix: Path) -> None:
    """Which it does where the extra named test asks for it; else it runs no test, and says that all is well."""
    requirements = next(prefix.rglob("cmp_seg_ros-*.egg-info/requires.txt")).read_text()
    assert re.search(r"^\[test\]\n([^\[]+\n)?pytest$", requirements, re.MULTILINE)


@pytest.mark.skipif(importlib.util.find_spec("colcon_core") is None, reason="colcon is not installed")
def test_colcon_builds_and_tests(tmp_path: Path) -> None:
    """One test of ours, in a workspace of its own."""
    copy_source(tmp_path / "src" / "cmp_seg_ros", "test", "pyproject.toml")
    for verb in (["build"], ["test", "--pytest-args", " -k", "test_throttle_lets"]):
        subprocess.run([sys.executable, "-m", "colcon", *verb], cwd=tmp_path, capture_output=True, check=True)
    result = ElementTree.parse(tmp_path / "build" / "cmp_seg_ros" / "pytest.xml").getroot().find("testsuite")
    assert result is not None and (result.get("tests"), result.get("failures")) == ("1", "0")


def test_a_checkout_comes_before_an_installation(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(prefix))
    assert resources.share_folders()[:2] == [CHECKOUT, prefix / "share" / "cmp_seg_ros"]
    assert resources.resource("config/label_spaces") == CHECKOUT / "config" / "label_spaces"
    with pytest.raises(UserError, match=r"config/absent\.xml is not part of this installation \(searched .*reinstall"):
        resources.resource("config/absent.xml")

"""`cmp-seg convert --runner ray`, with a Ray cluster of two workers on this machine, which takes long to start."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from conftest import Run
from test_conversion import content, record
from test_workers import killed_once

from cmp_seg_ros.datasets import conversion
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.ray_cluster import ray_map

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    here = {"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}}  # for functions of this file
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error", runtime_env=here)
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_two_workers_make_the_same_set_as_one_process(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "PART", 10)
    record(tmp_path / "drive", "mcap", 40)
    for name, options in (("one", ("--processes", 1)), ("two", ("--runner", "ray"))):
        assert run("convert", tmp_path / "drive", "--out", tmp_path / name, *options).code == 0
    assert len(list((tmp_path / "two/shards").iterdir())) == 4
    assert content(tmp_path / "one") == content(tmp_path / "two")


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_the_work_of_a_killed_worker_is_taken_over(tmp_path: Path) -> None:
    assert sorted(ray_map(partial(killed_once, folder=tmp_path), range(6))) == [0, 1, 4, 9, 16, 25]
    assert (tmp_path / "killed").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_worker_without_the_data_says_so(tmp_path: Path) -> None:
    record(tmp_path / "drive", "mcap", 3)
    work = conversion.Conversion(conversion.sources_of([tmp_path / "drive"]), tmp_path / "out")
    (tmp_path / "drive").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"drive is not on this machine \("):
        list(work.run(runner="ray"))


def test_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    ray.shutdown()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(UserError, match=r"the Ray cluster at 127.0.0.1:1 cannot be reached"):
        list(ray_map(abs, [1]))

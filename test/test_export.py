"""`cmp-seg export`, as a user calls it."""

import json
from functools import partial
from pathlib import Path

import onnx
import pytest
from conftest import Run

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.engine import cache, loading, registry
from cmp_seg_ros.engine.loading import load_engine
from cmp_seg_ros.engine.runtimes.openvino import OpenVino
from cmp_seg_ros.waffleiron import samples


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cache, "folder", lambda: tmp_path / "engines")
    return tmp_path / "engines"


@pytest.fixture
def export(run: Run) -> Run:
    """Run `cmp-seg export ARGS`."""
    return partial(run, "export")


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_builds_checks_and_reports(export: Run, tiny_bundle: Path, tmp_path: Path, engine: str) -> None:
    said = export(tiny_bundle, "--engine", engine, "--precision", "fp32", "--out", tmp_path / "out", "--json")
    assert said.code == 0, said.err
    report = json.loads(said.out)
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    assert report["precision"] == "fp32" and report["built"] and report["refused"] == []
    assert report["hash"] == Bundle(tiny_bundle).hash and report["hash"] in report["file"]
    assert Path(report["file"]).stat().st_size > report["bytes"] > 10_000
    agreement = report["agreement"]
    assert agreement["exact"] == "reference-fp32"
    assert agreement["labels"] > 0.999 and agreement["probabilities"] < 1e-5
    assert {"room, 0.1 m", "corridor, 0.1 m", "hall, 0.2 m"} < set(agreement["scans"]) and len(agreement["scans"]) == 6
    graph = onnx.load(tmp_path / "out" / "tiny-fp32.onnx")
    assert {entry.key: entry.value for entry in graph.metadata_props}["bundle"] == report["hash"]

    again = export(tiny_bundle, "--engine", engine, "--precision", "fp32")
    assert again.code == 0 and "found in the cache" in again.err and "reference-fp32" in again.err


def test_what_was_exported_is_what_starts(export: Run, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node neither builds nor checks what was exported."""
    report = json.loads(export(tiny_bundle, "--engine", "openvino", "--json").out)
    monkeypatch.setattr(OpenVino, "build", lambda *_: pytest.fail("built again"))
    monkeypatch.setattr(loading, "agreement", lambda *_: pytest.fail("checked again"))
    assert load_engine(Bundle(tiny_bundle), "openvino").precision == report["precision"]


@pytest.mark.parametrize("engine", ["openvino", "auto"])
def test_build_only_runs_nothing(export: Run, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    monkeypatch.setattr(samples, "scans", lambda *_: pytest.fail("a scan was run"))
    said = export(tiny_bundle, "--engine", engine, "--build-only", "--json")
    report = json.loads(said.out)
    assert said.code == 0 and report["agreement"] is None
    assert (report["file"] is None) == (engine == "auto")
    assert report["built"] or engine == "auto"  # whose kernels may have been compiled before
    assert "warning" not in said.err
    again = export(tiny_bundle, "--engine", engine, "--build-only")
    assert again.code == 0 and "found in the cache" in again.err


def test_a_cache_that_cannot_be_written_is_an_error_here(export: Run, tiny_bundle: Path, folder: Path) -> None:
    folder.write_text("a file where the folder should be")
    said = export(tiny_bundle, "--engine", "onnxruntime")
    assert said.code == 1 and said.err.count("error:") == 1 and "set XDG_CACHE_HOME" in said.err


def test_nothing_is_compiled_where_kernels_cannot_be_kept(
    export: Run, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    cpu, _ = registry.find("cpu")
    monkeypatch.setattr(cpu, "compiled", tmp_path / "file" / "kernels")
    monkeypatch.setattr(cpu, "open", lambda *_: pytest.fail("compiled"))
    done = export(tiny_bundle, "--build-only")
    assert done.code == 1 and f"cache folder {tmp_path}/file/kernels is not writable" in done.err
    assert "set XDG_CACHE_HOME" in done.err and "built" not in done.err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--engine", "openvino", "--precision", "fp16"], "'openvino' has no precision 'fp16' on this machine; it has"),
        (["--engine", "openvino-fp32", "--precision", "int8"], "another precision than int8"),
    ],
)
def test_what_cannot_be(export: Run, tiny_bundle: Path, args: list[str], said: str) -> None:
    result = export(tiny_bundle, *args)
    assert result.code == 1 and said in result.err and "Traceback" not in result.err

"""An engine in a process of its own: when it is ready, and how much memory it needs.

python -m cmp_seg_ros.speed.alone BUNDLE ENGINE VOXEL_SIZE SCAN.npy STARTED
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from cmp_seg_ros import memory
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.messages.point_cloud2 import decode
from cmp_seg_ros.scan import Scan
from cmp_seg_ros.segmenter import Segmenter
from cmp_seg_ros.speed.cases import Case

SCANS = 5
PATIENCE = 900.0  # seconds


def measure(bundle: Path, engine: str, case: Case) -> dict[str, Any]:
    """Figures of an engine in a fresh process, which finds in the caches what the caller has put there.

    Returns:
        startup_s: from the start of the process until it is ready for the first scan, imports included; load_s: of
        these the engine's; first_scan_ms; resident_mb and peak_mb after a few scans; torch: whether it was imported.

    Raises:
        UserError: the process ended with an error, or not at all.
    """
    with tempfile.TemporaryDirectory() as folder:
        scan = Path(folder) / "scan.npy"
        np.save(scan, decode(case.message).xyz)
        arguments = [bundle, engine, case.voxel_size, scan, time.time()]
        return run_module(__name__, arguments, f"engine {engine} in a process of its own", PATIENCE)


def run_module(name: str, arguments: Iterable[object], what: str, patience: float) -> dict[str, Any]:
    """The JSON that a module prints at last in a process of its own. Raises UserError, which names `what` is run."""
    command = [sys.executable, "-m", name, *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience, check=False)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{what}: not ready after {patience:.0f} s") from error
    if done.returncode:
        words = done.stderr.strip().splitlines()
        raise UserError(f"{what}: {words[-1] if words else 'it was killed, probably out of memory'}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _run(bundle: str, engine: str, voxel_size: str, scan: str, started: str) -> dict[str, Any]:
    imported = time.time()
    segmenter = Segmenter.from_bundle(bundle, engine)
    segmenter.voxel_size = float(voxel_size)
    ready = time.time()
    points = Scan(np.load(scan))
    took = []
    for _ in range(SCANS):
        began = time.perf_counter()
        segmenter(points)
        took.append(1e3 * (time.perf_counter() - began))
    return {
        "startup_s": round(ready - float(started), 3),
        "load_s": round(ready - imported, 3),
        "first_scan_ms": round(took[0], 2),
        "resident_mb": round(memory.resident_mb(), 1),
        "peak_mb": round(memory.peak_mb(), 1),
        "torch": "torch" in sys.modules,
    }


if __name__ == "__main__":
    try:
        print(json.dumps(_run(*sys.argv[1:])))
    except UserError as error:
        sys.exit(str(error))

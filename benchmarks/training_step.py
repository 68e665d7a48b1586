"""How long does a training step take?

    OMP_NUM_THREADS=2 python benchmarks/training_step.py [--width 256] [--steps 3] [--plain] [--json]

One step of WaffleIron with 24 layers on two sample scans in float32: forward, cross-entropy + Lovasz, backward, AdamW.
Prints the fastest of some steps in seconds of the clock and of the processors, and the loss of the first.
--plain: as in the published code: whole grids, all tensors of the neighbour branch, memory returned at once.
"""

import argparse
import json
import time
from typing import Any

import numpy as np
import torch

from cmp_seg_ros import memory
from cmp_seg_ros.training.losses import segmentation_loss
from cmp_seg_ros.waffleiron import pooling, samples
from cmp_seg_ros.waffleiron.batch import PlaneCells, collate
from cmp_seg_ros.waffleiron.config import NetworkConfig, PreprocessConfig
from cmp_seg_ros.waffleiron.network import Segmenter
from cmp_seg_ros.waffleiron.preprocess import Voxels

PREPROCESS = PreprocessConfig(
    fov_min=(-38.4, -38.4, -4.8), fov_max=(38.4, 38.4, 9.6), grids=[(256, 256), (256, 48), (256, 48)]
)


def whole_grids(scans: list[Voxels]) -> list[PlaneCells]:
    """The planes of a batch of scans, not cropped to the occupied cells."""
    planes = []
    for number, grid in enumerate(PREPROCESS.grids):
        cell = np.concatenate([scan.cells[number] + i * grid[0] * grid[1] for i, scan in enumerate(scans)])
        planes.append(PlaneCells.of(cell, (len(scans), *grid)))
    return planes


def measure(width: int, steps: int, plain: bool) -> dict[str, Any]:
    known = samples.scans(PREPROCESS, False)[0]
    scans = [known["room, 0.1 m"], known["hall, 0.1 m"]]
    batch = collate(scans, PREPROCESS.grids)
    if plain:
        batch.planes = whole_grids(scans)
        pooling.applies = lambda x: False
    else:
        memory.keep_freed()
    torch.manual_seed(0)
    network = Segmenter(NetworkConfig(width=width, depth=24, outputs=6)).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    target = torch.randint(0, 6, (len(batch.features),))
    seconds, losses = [], []
    for _ in range(steps + 1):  # the first compiles
        clock, processor = time.perf_counter(), time.process_time()
        optimiser.zero_grad()
        loss = segmentation_loss(network(batch), target)
        loss.backward()
        optimiser.step()
        seconds.append((time.perf_counter() - clock, time.process_time() - processor))
        losses.append(loss.item())
    clock, processor = np.min(seconds[1:], axis=0).round(2).tolist()
    return {
        "width": width,
        "plain": plain,
        "threads": torch.get_num_threads(),
        "voxels": [len(scan) for scan in scans],
        "seconds": clock,
        "processor_seconds": processor,
        "losses": losses,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--plain", action="store_true", help="as in the published code")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    found = measure(arguments.width, arguments.steps, arguments.plain)
    if arguments.json:
        print(json.dumps(found))
        return
    print(f"width {found['width']}, {found['threads']} threads, scans of {found['voxels']} voxels")
    print(f"a step: {found['seconds']} s, {found['processor_seconds']} s of the processors")
    print(f"losses: {', '.join(f'{loss:.5f}' for loss in found['losses'])}")


if __name__ == "__main__":
    main()

"""The drives that models/waffleiron24-128-distilled learns from; config/study/distilled-v1.yaml has the other commands.

    CMP_SEG_FURNITURE=... python benchmarks/distilled_bundle.py --out out/distilled/drives

Robots with cameras in simulated buildings: eight scans each, one every two seconds, by each lidar in turn.
"""

import argparse
import random
from itertools import chain, islice
from pathlib import Path

from cmp_seg_ros.simulation.recorder import record
from cmp_seg_ros.simulation.rig import RigConfig
from cmp_seg_ros.simulation.rig_camera import RigCamera

COUNT = 193
SEEDS = islice(chain.from_iterable((72_000_000 + i, 172_000_000 + i, 172_000_150 + i) for i in range(100)), COUNT)
LIDARS = (
    *("os1-16", "os1-64", "os0-128", "os0-32", "vlp-16", "vlp-32c", "hdl-32e"),
    *("xt-32", "pandar40p", "qt64", "qt128", "rs-16", "airy", "mid-360"),
)
CAMERAS = (
    ("front=pinhole", "rear=pinhole,yaw=180,pitch=-15"),
    ("front=wide",),
    ("front=pinhole,pitch=-15", "rear=pinhole,yaw=180"),
)
MOTIONS = ("wheeled", "wheeled", "handheld", "flying")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for a recording of each building")
    out: Path = parser.parse_args().out
    for number, seed in enumerate(SEEDS):
        folder = out / str(seed)
        if (folder / "bag" / "metadata.yaml").is_file():  # written last
            continue
        config = RigConfig(
            seed,
            LIDARS[number % len(LIDARS)],
            seconds=16.0,
            rate=0.5,
            motion=random.Random(seed).choice(MOTIONS),
            cameras=tuple(map(RigCamera.parse, CAMERAS[number % len(CAMERAS)])),
        )
        for _ in record(config, folder):
            pass
        print(f"{folder}: {number + 1} of {COUNT}", flush=True)


if __name__ == "__main__":
    main()

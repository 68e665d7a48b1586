"""A ten-minute bag through `cmp-seg convert`: how fast, and whether its memory stays flat.

    python benchmarks/convert_bag.py OUT [--scans 6000] [--processes 2] [--kill]

The bag is made by repeating the scans and images of a short simulated recording (OS1-16, 16,384 points at 10 Hz; one
raw and one compressed camera of 640 x 480 at 10 Hz), each with a stamp of its own. `--kill` kills the conversion by
SIGKILL at five random moments, goes on each time, and compares all checksums with those of a run in one go.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

from cmp_seg_ros.cli.demo import simulate_once
from cmp_seg_ros.datasets.bag import Bag
from cmp_seg_ros.messages import cdr
from cmp_seg_ros.messages.bag_writer import BagWriter

SHORT = 2.0  # seconds of the recording that is repeated
RATE = 10.0  # scans per second
IMAGES = (cdr.IMAGE, cdr.COMPRESSED_IMAGE)


def repeat(short: Path, path: Path, scans: int) -> None:
    """A bag of `scans` scans from the messages of a short one."""
    bag = Bag(short)
    topics = [name for name, topic in bag.topics.items() if topic.type in (cdr.POINT_CLOUD2, *IMAGES)]
    topics = [name for name in topics if "truth" not in name]
    messages = list(bag.serialised(topics))
    start, length = messages[0].time, round(SHORT * 1e9)
    with BagWriter(path, {name: bag.topics[name].type for name in topics}) as writer:
        for turn in range(round(scans / (SHORT * RATE))):
            for raw in messages:
                if raw.time < start + length:
                    later = turn * length
                    data = cdr.with_stamp(bytes(raw.data), cdr.stamp_ns(raw.data) + later)
                    writer.write(raw.topic, raw.time + later, data)


def convert(bag: Path, out: Path, processes: int, kill_after: float | None = None) -> tuple[float, list[int]]:
    """Seconds of a run, and the memory of all its processes (bytes, each second)."""
    command = [sys.executable, "-m", "cmp_seg_ros.cli.main", "convert", str(bag), "--out", str(out)]
    command += ["--processes", str(processes)]
    start = time.monotonic()
    memory: list[int] = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        stop = threading.Event()
        watcher = threading.Thread(target=watch, args=(process.pid, memory, stop))
        watcher.start()
        try:
            process.wait(kill_after)
        except subprocess.TimeoutExpired:
            process.kill()
        stop.set()
        watcher.join()
    if kill_after is None and process.returncode:
        sys.exit("the conversion failed")
    return time.monotonic() - start, memory


def watch(pid: int, memory: list[int], stop: threading.Event) -> None:
    """Proportional set size, in which what processes share counts once."""
    while not stop.wait(1):
        total = 0
        try:
            for process in (parent := psutil.Process(pid), *parent.children(recursive=True)):
                total += process.memory_full_info().pss
        except psutil.Error:
            continue
        memory.append(total)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scans", type=int, default=6000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--kill", action="store_true")
    options = parser.parse_args()
    short, out = options.out / "short", options.out / f"set-{options.scans}"
    bag = options.out / f"bag-{options.scans}" / "drive"
    cameras = ["--camera", "raw=pinhole", "--camera", "packed=pinhole,compressed,yaw=180"]
    simulate_once(short, "--seconds", SHORT, *cameras)
    if not bag.exists():
        repeat(short / "bag", bag, options.scans)
        (bag / "calibration.yaml").write_text((short / "calibration.yaml").read_text())
    before = os.times()
    seconds, memory = convert(bag, out, options.processes)
    after = os.times()
    work = after.children_user + after.children_system - before.children_user - before.children_system
    report = json.loads((out / "report.json").read_text())
    half = len(memory) // 2
    print(f"{report['scans']} scans, {report['images']}, {report['bytes'] / 1e9:.2f} GB")
    speed = report["scans"] / RATE / seconds
    print(f"{seconds:.1f} s: {speed:.1f} x real time, {options.processes} processes, {work:.1f} s of processor time")
    first, second = max(memory[:half]) / 1e6, max(memory[half:]) / 1e6
    print(f"memory: at most {first:.0f} MB in the first half, {second:.0f} MB in the second")
    if options.kill:
        again = options.out / "set-killed"
        for _ in range(5):
            convert(bag, again, options.processes, random.uniform(3, seconds / 4))
        convert(bag, again, options.processes)
        same = (again / "index.jsonl").read_bytes() == (out / "index.jsonl").read_bytes()
        print(f"killed five times: the checksums are {'the same' if same else 'DIFFERENT'}")


if __name__ == "__main__":
    main()

"""Which scans are for training, which for validation, which for the test."""

from collections.abc import Sequence

import numpy as np

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
GAP = 10_000_000_000  # ns left out between two splits of a sequence
SHORTEST = 6  # gaps; a shorter sequence would be left out for a third of it, and goes to one split as a whole
FEWEST = 7  # scans of a sequence that is cut


def split(stamps: Sequence[Sequence[int]]) -> list[list[str]]:
    """The split of every scan of some sequences; nothing where it is left out.

    A sequence is cut into contiguous stretches, train, val and test, with ten seconds left out between them. One
    shorter than a minute, or of fewer than FEWEST scans, is not cut, and goes to whichever split lacks most. Without
    stamps a sequence is cut by its order, and nothing is left out.

    Args:
        stamps: of each scan of each sequence, in order, nanoseconds; 0 where it has none. Steps back count as none.
    """
    found: list[list[str]] = []
    wanted = dict.fromkeys(SHARES, 0.0)  # scans that each split lacks
    for sequence in stamps:
        splits = _cut(sequence)
        for name, share in SHARES.items():
            wanted[name] += share * len(sequence) - splits.count(name)
        if not splits:
            name = max(wanted, key=lambda name: (round(wanted[name], 6), SHARES[name]))
            splits = [name] * len(sequence)
            wanted[name] -= len(sequence)
        found.append(splits)
    return found


def _cut(stamps: Sequence[int]) -> list[str]:
    """The split of each scan; nothing at all where the sequence is too short to be cut."""
    if any(stamps):
        steps = np.diff(np.array(stamps, np.int64), prepend=stamps[0])
        time, gap = np.cumsum(np.maximum(steps, 0)).astype(np.float64), float(GAP)
    else:
        time, gap = np.arange(len(stamps), dtype=np.float64), 0.0
    if time[-1] < SHORTEST * gap or len(stamps) < FEWEST:
        return []
    splits = np.full(len(stamps), "", dtype=object)
    start = 0.0
    for name, share in SHARES.items():
        stop = start + share * (time[-1] - (len(SHARES) - 1) * gap)
        splits[(time >= start) & (time < stop)] = name
        start = stop + gap
    splits[-1] = name  # rounding aside, the last scan ends the last stretch
    found: list[str] = splits.tolist()
    return found

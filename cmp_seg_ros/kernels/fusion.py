"""Voxels of a map: a hash table from packed indices to dense arrays, and sums over the points in each voxel."""

from typing import Any

import numpy as np

from cmp_seg_ros.kernels.launch import inlined, kernel

EMPTY = -1
BITS = 21  # of a voxel's index along an axis
HALF = 1 << (BITS - 1)
OUTSIDE = -1  # key of a point that is not finite, or too far from the origin
GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # 2^64 / golden ratio, as int64: Knuth's multiplicative hash


@kernel
def pack(xyz: Any, voxel_size: Any) -> Any:
    """(N,) int64 keys of the voxels that contain (N, 3) float64 points; OUTSIDE if there is none."""
    keys = np.empty(len(xyz), np.int64)
    for i in range(len(xyz)):
        x, y, z = xyz[i, 0] / voxel_size, xyz[i, 1] / voxel_size, xyz[i, 2] / voxel_size
        if abs(x) < HALF - 1 and abs(y) < HALF - 1 and abs(z) < HALF - 1:  # false for NaN
            step0, step1, step2 = np.int64(np.floor(x)), np.int64(np.floor(y)), np.int64(np.floor(z))
            keys[i] = ((step0 + HALF) << 2 * BITS) | ((step1 + HALF) << BITS) | (step2 + HALF)
        else:
            keys[i] = OUTSIDE
    return keys


@inlined
def _slot(table: Any, keys: Any, key: Any) -> Any:
    """Slot of the table that holds a key, or the empty one where it belongs; linear probing."""
    mask = len(table) - 1
    slot = (key * GOLDEN >> 20) & mask
    while table[slot] != EMPTY and keys[table[slot]] != key:
        slot = (slot + 1) & mask
    return slot


@kernel
def find(table: Any, keys: Any, wanted: Any) -> Any:
    """(N,) int32 voxels of (N,) wanted keys; EMPTY if there is none.

    table: (S,) int32 voxels or EMPTY; S is a power of two. keys: (M,) int64 of the voxels.
    """
    voxel = np.empty(len(wanted), np.int32)
    for i in range(len(wanted)):
        voxel[i] = EMPTY if wanted[i] == OUTSIDE else table[_slot(table, keys, wanted[i])]
    return voxel


@kernel
def insert(table: Any, keys: Any, count: Any, wanted: Any) -> Any:
    """(N,) int32 voxels of (N,) wanted keys, and the new number of voxels; new keys are appended behind `count`.

    There must be room for N more keys, and the table must stay at least half empty. EMPTY for keys that are OUTSIDE.
    """
    voxel = np.empty(len(wanted), np.int32)
    for i in range(len(wanted)):
        if wanted[i] == OUTSIDE:
            voxel[i] = EMPTY
            continue
        slot = _slot(table, keys, wanted[i])
        if table[slot] == EMPTY:
            table[slot] = count
            keys[count] = wanted[i]
            count += 1
        voxel[i] = table[slot]
    return voxel, count


@kernel
def accumulate(
    voxel: Any,
    xyz: Any,
    weight: Any,
    evidence: Any,
    seen: Any,
    sums: Any,
    weights: Any,
    points: Any,
    scans: Any,
    mean: Any,
) -> None:
    """Add a scan to the sums of its voxels: one vote for each voxel, the mean over its points.

    Args:
        voxel, xyz, weight, evidence: (N,), (N, 3), (N,), (N, C) of the scan; a `voxel` of EMPTY is ignored.
        seen: (M,) int32 zeros, and again at the end.
        sums, weights: (M, C), (M,) of weight * evidence, and of weight.
        points, scans: (M,) number of each.
        mean: (M, 3) mean place of the points.
    """
    for i in range(len(voxel)):
        if voxel[i] != EMPTY:
            seen[voxel[i]] += 1
    for i in range(len(voxel)):
        v = voxel[i]
        if v == EMPTY:
            continue
        share = weight[i] / abs(seen[v])
        weights[v] += share
        for c in range(evidence.shape[1]):
            sums[v, c] += share * evidence[i, c]
        points[v] += 1
        for axis in range(3):
            mean[v, axis] += (xyz[i, axis] - mean[v, axis]) / points[v]
        if seen[v] > 0:
            scans[v] += 1
            seen[v] = -seen[v]
    for i in range(len(voxel)):
        if voxel[i] != EMPTY:
            seen[voxel[i]] = 0


@kernel
def seen_through(places: Any, R: Any, t: Any, image: Any, xyz: Any, near: Any, far: Any, miss: Any, margin: Any) -> Any:
    """(M,) bool: of the rays of the scan that pass through the place the nearest ends beyond it.

    Args:
        places: (M, 3) in the world.
        R, t: T_lidar_world.
        image: (rows, columns) int32, the nearest point in each direction (elevation, azimuth), or EMPTY.
        xyz: (N, 3) of the scan.
        near, far: least and greatest distance of a place, metres.
        miss: greatest distance between ray and place.
        margin: least distance from the place to the end of the ray.
    """
    rows, columns = image.shape
    passed = np.zeros(len(places), np.bool_)
    for k in range(len(places)):
        dx, dy, dz = places[k, 0], places[k, 1], places[k, 2]
        x = R[0, 0] * dx + R[0, 1] * dy + R[0, 2] * dz + t[0]
        y = R[1, 0] * dx + R[1, 1] * dy + R[1, 2] * dz + t[1]
        z = R[2, 0] * dx + R[2, 1] * dy + R[2, 2] * dz + t[2]
        square = x * x + y * y + z * z
        if square < near * near or square > far * far:
            continue
        row, column = _direction(x, y, z, rows, columns)
        nearest, beyond = miss * miss, False
        for step in range(9):  # the ray may lie in the next row or column
            near_row, near_column = row + step // 3 - 1, (column + step % 3 - 1) % columns
            if near_row < 0 or near_row >= rows:
                continue
            i = image[near_row, near_column]
            if i == EMPTY:
                continue
            px, py, pz = xyz[i, 0], xyz[i, 1], xyz[i, 2]
            length = np.sqrt(px * px + py * py + pz * pz)
            along = (x * px + y * py + z * pz) / length
            away = square - along * along
            if along > 0 and away <= nearest:
                nearest, beyond = away, length > along + margin
        passed[k] = beyond
    return passed


@kernel
def range_image(xyz: Any, rows: Any, columns: Any) -> Any:
    """(rows, columns) int32: the nearest of (N, 3) returns in each direction, or EMPTY."""
    image = np.full((rows, columns), EMPTY, np.int32)
    nearest = np.full((rows, columns), np.inf, np.float32)
    for i in range(len(xyz)):
        x, y, z = xyz[i, 0], xyz[i, 1], xyz[i, 2]
        square = x * x + y * y + z * z
        if not square > 0:
            continue
        row, column = _direction(x, y, z, rows, columns)
        if square < nearest[row, column]:
            nearest[row, column] = square
            image[row, column] = i
    return image


@inlined
def _direction(x: Any, y: Any, z: Any, rows: Any, columns: Any) -> Any:
    """Row (elevation) and column (azimuth) of a direction."""
    azimuth = (np.arctan2(y, x) / (2 * np.pi) + 0.5) * columns
    elevation = (np.arctan2(z, np.hypot(x, y)) / np.pi + 0.5) * rows
    return min(np.int64(elevation), rows - 1), min(np.int64(azimuth), columns - 1)

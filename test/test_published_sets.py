"""Published data sets, from stand-ins with their topics, types, frames and habits of time.

Nobody here has the originals. Each stand-in is written from a truth, which its loader must recover; and each is broken
in the way that the set is known for, which must be noticed.
"""

import csv
from pathlib import Path

import numpy as np
import pytest
from bags import Recording, jpeg
from conftest import Run
from PIL import Image

from cmp_seg_ros.datasets import itlp_campus, m2dgr, ntu_viral, open_input, panoradar, tiers
from cmp_seg_ros.datasets.base import DataSet
from cmp_seg_ros.datasets.ntu_viral import evenly_spaced
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.calibration import CalibratedCamera, Calibration
from cmp_seg_ros.geometry.sensor_set import SensorSet
from cmp_seg_ros.label_space import LabelSpace

SECOND, MS = 10**9, 10**6
START = 1_600_000_000 * SECOND
SCANS = 60
WRONG = 5 * MS  # that another image is nearer


def ouster(number: int, rows: int = 16, columns: int = 8) -> dict[str, np.ndarray]:
    """Fields as Ouster's driver for ROS 1 publishes them."""
    rng = np.random.default_rng(number)
    count = rows * columns
    xyz = rng.normal(size=(count, 3)).astype(np.float32)
    return {
        **dict(zip("xyz", xyz.T, strict=True)),
        "intensity": np.full(count, number, np.float32),
        "t": np.tile(np.linspace(0, 99_000_000, columns).astype(np.uint32), rows),
        "reflectivity": np.zeros(count, np.uint16),
        "ring": np.repeat(np.arange(rows), columns).astype(np.uint8),
        "noise": np.zeros(count, np.uint16),
        "range": (np.linalg.norm(xyz, axis=1) * 1000).astype(np.uint32),
    }


def velodyne(number: int) -> dict[str, np.ndarray]:
    fields = ouster(number)
    ring = fields["ring"].astype(np.uint16)
    return {name: fields[name] for name in ("x", "y", "z", "intensity")} | {
        "ring": ring,
        "time": (fields["t"] * 1e-9 - 0.099).astype(np.float32),
    }


def grey(number: int) -> np.ndarray:
    return np.full((480, 752), number % 256, np.uint8)


def picture(number: int) -> bytes:
    return jpeg(np.full((64, 80, 3), number % 256, np.uint8))


def check(
    data: DataSet, scans: np.ndarray, moments: np.ndarray, images: dict[str, np.ndarray], within: int = 0
) -> None:
    """Every scan there, stamped right (ns), and paired with the image nearest to its moment, by name and grey level."""
    frames = list(data)
    assert [frame.number for frame in frames] == list(range(len(scans)))
    for frame in frames:
        assert abs(frame.scan.stamp - scans[frame.number]) <= within
        np.testing.assert_array_equal(frame.scan.intensity, frame.number)
        assert frame.images.keys() == images.keys()
        for name, stamps in images.items():
            image, apart = frame.images[name], np.abs(stamps - moments[frame.number])
            assert abs(image.stamp - moments[frame.number]) <= apart.min() + WRONG
        if frame.number % 10 == 0:
            level = int(np.flatnonzero(stamps == image.stamp)[0]) % 256
            assert abs(int(image.rgb()[10, 10, 0]) - level) <= 2


def at(rate: float, count: int, start: int = START, jitter: int = 0, seed: int = 0) -> np.ndarray:
    """Stamps at a rate, with the camera's own jitter (ns)."""
    own = np.random.default_rng(seed).integers(-jitter, jitter + 1, count)
    return start + np.round(np.arange(count) / rate * SECOND).astype(np.int64) + own


def ntu(path: Path, jitter: float = 8.0, jump_at: int = 0) -> dict[str, np.ndarray]:
    """Scans stamped at the end of their sweep, with jitter (ms) on the stamps; some scans are dropped."""
    rng = np.random.default_rng(1)
    ends = np.delete(at(10, SCANS + 3), [20, 21, 40])
    if jump_at:
        ends[jump_at:] += 1_370 * MS
    stamps = ends + np.round(rng.normal(0, jitter / 3, SCANS).clip(-jitter / 1.5, jitter / 1.5) * MS).astype(np.int64)
    images = {name: at(10, SCANS + 10, START + 23 * MS, 3 * MS, seed) for seed, name in enumerate(("left", "right"))}
    with Recording(path, "ros1") as bag:
        for i, (end, stamp) in enumerate(zip(ends.tolist(), stamps.tolist(), strict=True)):
            bag.cloud("/os1_cloud_node1/points", stamp, ouster(i), "sensor1/os_sensor", end + 4 * MS, (16, 8))
            bag.cloud("/os1_cloud_node2/points", stamp, ouster(i), "sensor2/os_sensor", end + 5 * MS, (16, 8))
        for name, found in images.items():
            for i, stamp in enumerate(found.tolist()):
                bag.image(f"/{name}/image_raw", stamp, grey(i), "mono8", stamp + 9 * MS)
    return {"ends": ends, **images}


def test_ntu_viral(tmp_path: Path) -> None:
    truth = ntu(tmp_path / "nya_01.bag")
    data = open_input(tmp_path / "nya_01.bag")
    assert isinstance(data, ntu_viral.DataSet)
    starts = truth["ends"] - SECOND // 10
    check(data, truth["ends"], starts, {name: truth[name] for name in ("left", "right")}, within=2 * MS)
    assert any("jitter" in note for note in data.notes)
    frame = data[3]
    assert frame.scan.time is not None and frame.scan.time.min() == pytest.approx(-0.1)  # counted from the end
    # FAST-LIVO's Pcl for the left camera and the horizontal lidar, computed by others from the same numbers.
    camera = frame.images["left"].camera
    assert camera is not None
    T_camera_lidar = np.array(camera.T_camera_lidar)
    np.testing.assert_allclose(T_camera_lidar[:3, 3], (0.122993, 0.039864, -0.057710), atol=2e-6)
    up_in_image = T_camera_lidar[:3, :3] @ np.array([0, 0, -1])  # the lidar's z points down
    assert up_in_image[1] < -0.99
    assert frame.T_base_lidar is not None
    np.testing.assert_allclose(frame.T_base_lidar[:3, :3], np.diag([1, -1, -1]))


def test_ntu_virals_other_lidar(tmp_path: Path) -> None:
    ntu(tmp_path / "nya_01.bag")
    frame = open_input(tmp_path / "nya_01.bag", "/os1_cloud_node2/points")[0]
    one = np.array([0.3, -0.2, 5.0, 1])  # a point in front of the left camera
    camera = frame.images["left"].camera
    assert camera is not None
    body = np.array(ntu_viral.T_body_lidar["vertical"], float) @ np.linalg.inv(camera.T_camera_lidar) @ one
    np.testing.assert_allclose(body, np.array(ntu_viral.CAMERAS["left"][2]) @ one, atol=1e-5)


def test_a_jump_of_ntu_virals_clock_is_noticed(tmp_path: Path) -> None:
    truth = ntu(tmp_path / "nya_01.bag", jump_at=30)
    data = open_input(tmp_path / "nya_01.bag")
    stamps = np.array([frame.scan.stamp for frame in data])
    assert np.abs(stamps - truth["ends"]).max() < 2 * MS
    assert any("jumps at scan 000030" in note for note in data.notes)


def test_stamps_without_jitter_stay() -> None:
    stamps = at(10, 50)
    np.testing.assert_allclose(evenly_spaced(stamps)[0], stamps, atol=300)
    np.testing.assert_array_equal(evenly_spaced(stamps[:2])[0], stamps[:2])


def record_tiers(path: Path) -> dict[str, np.ndarray]:
    """Headers of the lidars count from when each was switched on; those of the camera are real."""
    scans, images = at(10, SCANS), at(30, 3 * SCANS + 9, START - 100 * MS, 2 * MS)
    with Recording(path, "ros1") as bag:
        for i, time in enumerate(scans.tolist()):
            bag.cloud("/velodyne_points", time - START + 753 * SECOND, velodyne(i), "velodyne", time)
            bag.cloud("/os_cloud_node/points", time - START + 764 * SECOND, ouster(i), "os_sensor", time + MS, (16, 8))
            bag.cloud("/os_cloud_nodee/points", time - START + 764 * SECOND, ouster(i), "os_sensor", time + MS, (16, 8))
        for i, time in enumerate(images.tolist()):
            bag.image(
                "/cam_1/color/image_raw", time - 11 * SECOND, np.full((12, 16, 3), i % 256, np.uint8), "rgb8", time
            )
            bag.image("/cam_1/depth/image_rect_raw", time, np.zeros((12, 16, 1), np.uint16), "16UC1", time)
    return {"scans": scans, "color": images}


def test_tiers(tmp_path: Path, run: Run) -> None:
    truth = record_tiers(tmp_path / "Indoor01.bag")
    failed = run("convert", tmp_path / "Indoor01.bag", "--out", tmp_path / "out")
    assert failed.code == 1 and "TIERS publishes no calibration" in failed.err and "--calibration" in failed.err
    camera = CalibratedCamera(
        model="pinhole", intrinsics=(10, 10, 8, 6), width=16, height=12, T_camera_lidar=np.eye(4).tolist()
    )
    Calibration(cameras={"color": camera}).save(tmp_path / "mine.yaml")
    data = open_input(tmp_path / "Indoor01.bag", sensors=SensorSet(tmp_path / "mine.yaml"))
    assert isinstance(data, tiers.DataSet)
    check(data, truth["scans"], truth["scans"], {"color": truth["color"]})
    assert any("switched on" in note for note in data.notes)


def test_tiers_lidars_stand_upright(tmp_path: Path) -> None:
    record_tiers(tmp_path / "Indoor01.bag")
    for topic in ("/velodyne_points", "/os_cloud_node/points", "/os_cloud_nodee/points"):
        T_base_lidar = open_input(tmp_path / "Indoor01.bag", topic)[0].T_base_lidar
        assert T_base_lidar is not None and T_base_lidar[2, 2] > 0.998


def record_m2dgr(path: Path) -> dict[str, np.ndarray]:
    scans = at(10, SCANS, jitter=2 * MS)
    cameras = ("left", "right", "third", "color")
    images = {name: at(15, 2 * SCANS, START - 40 * MS, 4 * MS, seed) for seed, name in enumerate(cameras)}
    with Recording(path, "ros1") as bag:
        for i, stamp in enumerate(scans.tolist()):
            bag.cloud("/velodyne_points", stamp, velodyne(i), "velodyne", stamp + 60 * MS)
        for name, found in images.items():
            for i, stamp in enumerate(found.tolist()):
                bag.jpeg(f"/camera/{name}/image_raw/compressed", stamp, picture(i), stamp + 20 * MS)
    return {"scans": scans, **{name: images[name] for name in ("left", "right", "color")}}


def test_m2dgr(tmp_path: Path) -> None:
    truth = record_m2dgr(tmp_path / "room_dark_01.bag")
    data = open_input(tmp_path / "room_dark_01.bag")
    assert isinstance(data, m2dgr.DataSet)
    scans = truth.pop("scans")
    check(data, scans, scans, truth)
    assert any("in the dark" in note for note in data.notes)
    for name, camera in data.sensors.calibration.cameras.items():
        ahead = np.linalg.inv(camera.T_camera_lidar) @ (0, 0, 1, 0)
        np.testing.assert_allclose(ahead, (1, 0, 0, 0), atol=1e-12)  # the printed matrices: all three look along +x
        assert camera.model == ("pinhole" if name == "color" else "equidistant")


def test_the_rotation_that_m2dgr_printed_is_refused(tmp_path: Path) -> None:
    record_m2dgr(tmp_path / "hall_01.bag")
    (tmp_path / "mine.yaml").write_text(
        "cameras: {third: {model: equidistant, intrinsics: [543, 542, 643, 504], width: 1280, height: 1024,\n"
        "  T_camera_lidar: [[0, -1, 0, 0], [0, 0, -1, 0], [-1, 0, 0, 0], [0, 0, 0, 1]]}}\n"
    )
    with pytest.raises(UserError, match=r"determinant -1 \(a reflection\)"):
        SensorSet(tmp_path / "mine.yaml")


def record_itc(folder: Path) -> dict[str, np.ndarray]:
    folder.mkdir()
    camera = CalibratedCamera(
        model="pinhole",
        intrinsics=(60, 60, 40, 32),
        width=80,
        height=64,
        T_camera_lidar=np.eye(4).tolist(),
        topic="/cam0/compressed",
    )
    Calibration(cameras={"front": camera}).save(folder / "calibration.yaml")
    (folder / "itc.yaml").write_text("points: /xt32/points\nspace: structural4\n")
    scans, images = at(10, SCANS), at(12, 2 * SCANS, START - 40 * MS, 4 * MS)
    for part, name in enumerate(("a.bag", "b.bag")):
        with Recording(folder / name, "ros1") as bag:
            for i in range(part * SCANS // 2, (part + 1) * SCANS // 2):
                bag.cloud("/xt32/points", int(scans[i]), velodyne(i))
                bag.cloud("/other/points", int(scans[i]), velodyne(0))
            for i, stamp in enumerate(images.tolist()):
                bag.jpeg("/cam0/compressed", stamp, picture(i))
                bag.jpeg("/cam1/compressed", stamp, picture(i + 1))
    (folder / "labels").mkdir()
    for i in (3, 40):
        np.save(folder / "labels" / f"{scans[i]}.npy", np.full(128, i % 4, np.uint8))
    return {"scans": scans, "front": images}


def test_itc(tmp_path: Path, run: Run) -> None:
    truth = record_itc(tmp_path / "itc")
    data = open_input(tmp_path / "itc")
    scans = truth.pop("scans")
    check(data, scans, scans, truth)
    assert [frame.number for frame in data if "hand" in frame.labels] == [3, 40]
    np.testing.assert_array_equal(data[40].labels["hand"].label, 0)
    assert [frame.number for frame in data.stretch(25, 35)] == list(range(25, 35))
    assert run("convert", tmp_path / "itc", "--out", tmp_path / "out").code == 0
    unified = open_input(tmp_path / "out")
    assert {frame.sequence for frame in unified} == {"itc-a", "itc-b"}
    np.testing.assert_array_equal(unified[3].labels["hand"].label, 3)


def test_itcs_faults_are_named(tmp_path: Path) -> None:
    truth = record_itc(tmp_path / "itc")
    np.save(tmp_path / "itc/labels" / f"{truth['scans'][5]}.npy", np.zeros(100, np.uint8))
    data = open_input(tmp_path / "itc")
    assert not data[5].labels and "its scan 128 points" in next(iter(data.problems))
    (tmp_path / "itc/itc.yaml").write_text("points: /hesai/pandar\n")
    with pytest.raises(UserError, match=r"/hesai/pandar of .*a.bag is not in the bag; these would do: /other/points"):
        open_input(tmp_path / "itc")
    (tmp_path / "itc/itc.yaml").write_text("points: /xt32/points\ncalibration: none.yaml\n")
    with pytest.raises(UserError, match=r"none.yaml cannot be read"):
        open_input(tmp_path / "itc")


def write_panoradar(folder: Path) -> np.ndarray:
    """A room 8 m wide, 6 m deep and 3 m high, whose walls, floor and ceiling the lidar sees from 1 m; the ranges."""
    elevation = np.linspace(np.pi / 4, -np.pi / 4, 64)[:, None]
    azimuth = 2 * np.pi - 2 * np.pi * (np.arange(512) + 0.625) / 512 + 0 * elevation  # clockwise
    directions = np.stack(
        [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation) + 0 * azimuth], -1
    )
    with np.errstate(divide="ignore"):
        hits = np.where(directions > 0, (4, 3, 2), (-4, -3, -1)) / directions  # the lidar stands 1 m above the floor
    surface, ranges = hits.argmin(-1), hits.min(-1)
    label = np.select([surface < 2, directions[..., 2] > 0], [9, 8], 10).astype(np.uint8)
    ranges[:, :10] = -100.0 * 10
    glass = np.zeros((64, 512), bool)
    glass[:, 20:30] = True
    for trajectory in ("DRL_moving/exp20230528-000", "moore_static/exp20230529-001"):
        for name, image in (("lidar_npy", ranges[None] / 10), ("seg_npy", label), ("glass_npy", glass)):
            (folder / trajectory / name).mkdir(parents=True, exist_ok=True)
            np.save(folder / trajectory / name / "00000.npy", image.astype(np.float32) if image.ndim == 3 else image)
    return ranges


def test_panoradar(tmp_path: Path) -> None:
    write_panoradar(tmp_path)
    data = open_input(tmp_path)
    assert isinstance(data, panoradar.DataSet)
    frames = list(data)
    assert [frame.key for frame in frames] == ["DRL_moving/exp20230528-000/00000", "moore_static/exp20230529-001/00000"]
    assert [frame.group for frame in frames] == ["DRL", "moore"] and frames[0].split == "test"
    returns, truth = frames[0].returns(), LabelSpace.load("panoradar")
    assert len(returns.xyz) == 64 * 502
    labelled = {name: returns.xyz[returns.label == truth.classes[truth.names.index(name)].id] for name in truth.names}
    np.testing.assert_allclose(labelled["floor"][:, 2], -1, atol=1e-3)
    np.testing.assert_allclose(labelled["ceiling"][:, 2], 2, atol=1e-3)
    walls = np.abs(np.abs(labelled["wall"][:, :2]) - (4, 3)).min(axis=1)
    np.testing.assert_allclose(walls, 0, atol=1e-3)
    assert (returns.label == 255).sum() == 640  # behind glass
    assert open_input(tmp_path / "DRL_moving")[0].key == "exp20230528-000/00000"
    LabelSpace.load("structural4").id_map(truth, "primary")  # every class has its place there


def test_panoradars_faults_are_named(tmp_path: Path) -> None:
    write_panoradar(tmp_path)
    folder = tmp_path / "DRL_moving/exp20230528-000"
    np.save(folder / "seg_npy/00000.npy", np.full((64, 512), 11, np.uint8))
    data = open_input(tmp_path)
    assert [frame.number for frame in data] == [1]
    assert "has class 11" in next(iter(data.problems))
    (folder / "glass_npy/00000.npy").unlink()
    np.save(folder / "seg_npy/00000.npy", np.zeros((64, 2048), np.uint8))
    with pytest.raises(UserError, match=r"is \(64, 2048\), not \(64, 512\)"):
        open_input(folder)[0]


def write_itlp(folder: Path) -> list[dict[str, str]]:
    rows = []
    for i, floor in enumerate("1122"):
        place = folder / "00_2023-10-25-night" / f"floor_{floor}"
        for name in ("lidar", "front_cam", "back_cam"):
            (place / name).mkdir(parents=True, exist_ok=True)
        stamps = [1_698_240_000_000 + i * 100 + late for late in (0, 13, 27)]  # milliseconds
        np.full((100, 4), i + 1, "<f4").tofile(place / "lidar" / f"{stamps[0]}.bin")
        for name, stamp in zip(("front_cam", "back_cam"), stamps[1:], strict=True):
            Image.fromarray(np.full((72, 128, 3), i, np.uint8)).save(place / name / f"{stamp}.png")
        row = dict(zip(("lidar_ts", "front_cam_ts", "back_cam_ts"), map(str, stamps), strict=True))
        pose = dict(zip(itlp_campus.POSE, map(str, (i, 2, 0, 0, 0, 0, 1)), strict=True))
        rows.append({"track": place.parent.name, "floor": floor} | row | pose)
    with (folder / "track.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return rows


def test_itlp_campus(tmp_path: Path) -> None:
    write_itlp(tmp_path)
    data = open_input(tmp_path)
    assert isinstance(data, itlp_campus.DataSet)
    frames = list(data)
    assert [frame.key for frame in frames][2] == "00_2023-10-25-night/floor_2/1698240000200"
    for i, frame in enumerate(frames):
        stamp = 1_698_240_000 * SECOND + i * 100 * MS
        assert frame.scan.stamp == stamp
        assert {name: image.stamp - stamp for name, image in frame.images.items()} == {
            "front_cam": 13 * MS,
            "back_cam": 27 * MS,
        }
        assert (frame.images["back_cam"].rgb() == i).all() and frame.scan.intensity is not None
        np.testing.assert_array_equal(frame.scan.intensity, i + 1)
        assert frame.T_world_lidar is not None and frame.T_world_lidar[0, 3] == i
    between = frames[1].locate(frames[1].scan.stamp - 50 * MS)
    assert between is not None and between[0, 3] == pytest.approx(0.5)
    assert {frame.sequence for frame in frames} == {str(tmp_path / f"00_2023-10-25-night/floor_{i}") for i in (1, 2)}
    for name, sign in (("front_cam", 1), ("back_cam", -1)):
        camera = data.sensors.calibration.cameras[name]
        ahead = np.linalg.inv(camera.T_camera_lidar) @ (0, 0, 1, 0)
        np.testing.assert_allclose(ahead[:3], (sign, 0, 0), atol=0.02)


def test_itlp_campuss_faults_are_named(tmp_path: Path) -> None:
    write_itlp(tmp_path)
    place = tmp_path / "00_2023-10-25-night/floor_1"
    next((place / "front_cam").iterdir()).unlink()
    lidar = place / "lidar/1698240000000.bin"
    lidar.write_bytes(lidar.read_bytes()[:-5])
    data = open_input(tmp_path)
    assert [frame.number for frame in data] == [1, 2, 3]
    assert any("is cut short" in problem for problem in data.problems)
    (tmp_path / "track.csv").write_text("lidar_ts,front_cam_ts,back_cam_ts,tx,ty,tz,qx,qy,qz,qw\n1,2,3,x,0,0,0,0,0,1\n")
    with pytest.raises(UserError, match="could not convert string to float"):
        open_input(tmp_path)

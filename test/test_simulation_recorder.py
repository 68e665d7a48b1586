"""`cmp-seg simulate`: the bag read back, its truth, and lidar against camera."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from scipy.ndimage import maximum_filter, minimum_filter

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.calibration import Calibration
from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.messages import camera_info, images, point_cloud2
from cmp_seg_ros.messages.transforms import matrix
from cmp_seg_ros.scan import UNLABELLED
from cmp_seg_ros.simulation.lidar import NO_NOISE, fixed_pose, sweep
from cmp_seg_ros.simulation.recorder import START, record, to_space
from cmp_seg_ros.simulation.rig import Rig, RigConfig
from cmp_seg_ros.simulation.rig_camera import RigCamera

SMALL = Camera(
    model="pinhole", intrinsics=(105, 105, 79.5, 59.5), distortion=[-0.06, 0.01, 0, 0], width=160, height=120
)
FISHEYE = Camera(model="equidistant", intrinsics=(50, 50, 59.5, 59.5), width=120, height=120)
WIDE = Camera(model="mei", intrinsics=(100, 100, 79.5, 59.5), xi=1.1, width=160, height=120)
CAMERAS = (
    RigCamera(camera=SMALL),
    RigCamera("rear", FISHEYE, mono=True, yaw=180),
    RigCamera("side", WIDE, compressed=True, yaw=90, pitch=0),
)
Messages = list[tuple[str, int, Any]]  # topic, time, message
CONFIG = RigConfig(3, seconds=0.3, cameras=CAMERAS)


def messages(bag: Path) -> Messages:
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    with AnyReader([bag], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
        return [(c.topic, t, reader.deserialize(raw, c.msgtype)) for c, t, raw in reader.messages()]


def in_topic(found: Messages, topic: str) -> list[Any]:
    return [message for name, _, message in found if name == topic]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated")
    assert list(record(CONFIG, out, processes=1)) == [1, 2, 3]
    return out


@pytest.fixture(scope="module")
def found(recording: Path) -> Messages:
    return messages(recording / "bag")


def bag_of(out: Path) -> bytes:
    return next((out / "bag").glob("*.mcap")).read_bytes()


def test_the_bag_has_every_topic_in_the_order_of_time(found: Messages) -> None:
    times = [time for _, time, _ in found]
    assert times == sorted(times)
    counts = Counter(topic for topic, _, _ in found)
    assert counts["/odom"] == counts.pop("/tf") and counts.pop("/odom") >= 15
    assert counts.pop("/tf_static") == 1
    truth = [f"/truth/{name}/{space}" for name in ("camera", "rear", "side") for space in ("structural6", "indoor")]
    infos = ["/camera/camera_info", "/rear/camera_info"]  # CameraInfo has no model for the wide camera
    topics = ["/lidar/points", "/truth/points", "/camera/image", "/rear/image", "/side/image/compressed"]
    assert counts == dict.fromkeys([*topics, *infos, *truth], 3)
    clouds = in_topic(found, "/lidar/points")
    assert [point_cloud2.stamp_ns(c.header) for c in clouds] == [START, START + 100_000_000, START + 200_000_000]
    assert {m.header.frame_id for topic, _, m in found if topic == "/odom"} == {"odom"}


def test_clouds_have_the_drivers_layout_and_the_rigs_points(found: Messages) -> None:
    rig = Rig(CONFIG)
    clouds = in_topic(found, "/lidar/points")
    truths = in_topic(found, "/truth/points")
    layout = {f.name: (f.offset, f.datatype) for f in clouds[0].fields}
    expected = {"x": (0, 7), "y": (4, 7), "z": (8, 7), "intensity": (16, 7), "t": (20, 6), "reflectivity": (24, 4)}
    assert layout == expected | {"ring": (26, 4), "ambient": (28, 4), "range": (32, 6)}
    assert (clouds[0].height, clouds[0].width, clouds[0].point_step) == (16, 1024, 48)
    for index, (cloud, truth) in enumerate(zip(clouds, truths, strict=True)):
        scan, sweep_ = point_cloud2.decode(cloud), rig.scan(index)
        np.testing.assert_array_equal(scan.xyz, sweep_.scan.xyz)
        assert scan.time is not None
        np.testing.assert_allclose(scan.time, sweep_.scan.time, atol=1e-7)
        assert (truth.height, truth.width, truth.header) == (16, 1024, cloud.header)
        label = point_cloud2.decode_labels(truth, "structural6").label
        np.testing.assert_array_equal(label, to_space("structural6")[sweep_.label])
        np.testing.assert_array_equal(point_cloud2.decode_labels(truth, "indoor").label, sweep_.label)
        assert (label[~scan.valid()] == UNLABELLED).all()
        ranges = point_cloud2.decode_fields(cloud, "range")["range"]
        np.testing.assert_allclose(ranges, 1000 * sweep_.range, atol=0.51)


@pytest.mark.parametrize("number", range(len(CAMERAS)))
def test_images_their_truth_and_calibration_fit(recording: Path, found: Messages, number: int) -> None:
    camera = CAMERAS[number]
    last = {topic: message for topic, _, message in found}
    rendered = Rig(CONFIG).image(2, number)
    image = last[f"/{camera.name}/image" + ("/compressed" if camera.compressed else "")]
    pixels = images.to_rgb(image)
    assert pixels.shape == rendered.rgb.shape
    expected = camera.pixels(rendered.rgb)
    difference = np.abs(pixels.astype(int) - (expected[:, :, None] if camera.mono else expected))
    assert difference.max() == 0 if not camera.compressed else difference.mean() < 5
    if camera.compressed:
        assert image.format == "rgb8; jpeg compressed bgr8"
    for space in ("structural6", "indoor"):
        truth = last[f"/truth/{camera.name}/{space}"]
        assert (truth.encoding, truth.header.frame_id, truth.header.stamp) == ("mono8", camera.name, image.header.stamp)
        np.testing.assert_array_equal(truth.data.reshape(rendered.label.shape), to_space(space)[rendered.label])
    if camera.camera.model != "mei":
        assert camera_info.decode(last[f"/{camera.name}/camera_info"]).intrinsics == camera.camera.intrinsics
    calibrated = Calibration.load(recording / "calibration.yaml").camera(camera.name)
    assert Camera.model_validate(calibrated.model_dump(include=set(Camera.model_fields))) == camera.camera
    assert calibrated.T_base_camera is not None
    ahead = np.array(calibrated.T_base_camera)[:2, 2]
    assert np.degrees(np.arctan2(ahead[1], ahead[0])) == pytest.approx(camera.yaw)


def test_calibration_and_report_name_what_was_recorded(recording: Path) -> None:
    calibration = Calibration.load(recording / "calibration.yaml")
    assert list(calibration.cameras) == ["camera", "rear", "side"]
    assert calibration.lidar().stamp == "start"
    assert (calibration.lidar().intensity_std or 0) > 0
    report = json.loads((recording / "report.json").read_text())
    assert (report["scans"], report["images"]) == (3, 9)
    assert (report["scene"], report["roll"], report["pitch"]) == (None, 0, 0)
    assert sum(report["class_shares"].values()) == pytest.approx(1, abs=1e-3)
    assert (recording / "preview.png").stat().st_size > 10_000


def test_the_bag_says_which_points_each_camera_sees(found: Messages) -> None:
    rig, index = Rig(CONFIG), 1
    truth = in_topic(found, "/truth/points")[index]
    result = rig.scan(index)
    for number, camera in enumerate(CAMERAS):
        visible = point_cloud2.decode_fields(truth, f"visible_{camera.name}")[f"visible_{camera.name}"]
        assert visible.dtype == np.uint8
        np.testing.assert_array_equal(visible, rig.visible(index, result, number))
        assert 0 < visible[result.scan.valid()].mean() < 0.8
        assert not visible[~result.scan.valid()].any()


@pytest.mark.parametrize("number", range(len(CAMERAS)))
def test_visible_points_are_those_whose_depth_the_image_has(number: int) -> None:
    """Against the depth of the rendered image, worked out pixel by pixel: another way to the same answer.

    The camera sits 0.6 m beside the lidar, so that they see past different edges. The robot moves by 7 cm at most while
    it turns its lidar, so edges of the images are left out.
    """
    rig, index, camera = Rig(replace(CONFIG, seed=9)), 1, CAMERAS[number]
    rig.T_base_cameras[number][:2, 3] += rig.T_base_cameras[number][:2, 0] * 0.6
    result, depth = rig.scan(index), rig.image(index, number).depth
    visible = rig.visible(index, result, number)
    T = np.array(rig.calibration().camera(camera.name).T_camera_lidar)
    points = result.scan.xyz @ T[:3, :3].T + T[:3, 3]
    uv, inside = camera.camera.project(points.astype(np.float32))
    inside &= result.scan.valid()
    assert visible[~inside].mean() < 0.02
    u, v = np.round(np.where(inside[:, None], uv, 0)).astype(int).T
    distance = np.linalg.norm(points, axis=1)
    near, far = minimum_filter(depth, 5)[v, u], maximum_filter(depth, 5)[v, u]
    seen = inside & (far - near < 0.2) & (np.abs(distance - depth[v, u]) < 0.05)
    hidden = inside & (distance - far > 0.6)
    assert seen.sum() > 800
    assert visible[seen].mean() > 0.98
    assert hidden.sum() > 300
    assert visible[hidden].mean() < 0.05


def test_two_processes_write_what_one_writes(recording: Path, tmp_path: Path) -> None:
    list(record(CONFIG, tmp_path, processes=2))
    assert bag_of(recording) == bag_of(tmp_path)


def test_a_recording_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "bag").mkdir()
    (tmp_path / "bag" / "drive.mcap").write_bytes(b"of the real robot")
    with pytest.raises(UserError, match=r"already has bag.*, not made by cmp-seg simulate; give another --out"):
        next(record(CONFIG, tmp_path))
    assert (tmp_path / "bag" / "drive.mcap").read_bytes() == b"of the real robot"
    shutil.rmtree(tmp_path / "bag")
    (tmp_path / "calibration.yaml").write_text("of the real robot")
    with pytest.raises(UserError, match=r"has calibration\.yaml"):
        next(record(CONFIG, tmp_path))


def test_what_was_cut_short_is_made_again(recording: Path, tmp_path: Path) -> None:
    begun = record(CONFIG, tmp_path, processes=1)
    next(begun)
    begun.close()
    (tmp_path / "bag" / "metadata.yaml").unlink()  # as SIGKILL leaves it
    list(record(CONFIG, tmp_path, processes=1))
    assert bag_of(recording) == bag_of(tmp_path)


def test_a_recording_with_other_arguments_is_replaced_only_if_asked(tmp_path: Path) -> None:
    config = RigConfig(5, "vlp-16", 0.1, cameras=())
    list(record(config, tmp_path, processes=1))
    list(record(config, tmp_path, processes=1))
    before = (tmp_path / "report.json").read_bytes()
    other = replace(config, seed=6, cameras=(RigCamera(camera=SMALL),))
    with pytest.raises(UserError, match=r"other settings \(seed, cameras\); give another --out, or --again"):
        next(record(other, tmp_path))
    assert (tmp_path / "report.json").read_bytes() == before
    begun = record(other, tmp_path, processes=1, again=True)
    next(begun)
    assert not (tmp_path / "preview.png").exists()  # of the old bag
    assert json.loads((tmp_path / "report.json").read_text())["finished"] is False
    begun.close()
    list(record(config, tmp_path, processes=1))  # what was not finished may be replaced


@pytest.mark.parametrize(("sensor", "step"), [("vlp-16", 22), ("xt-32", 26)])
def test_other_drivers_publish_returns_only(sensor: str, step: int, tmp_path: Path) -> None:
    list(record(RigConfig(5, sensor, 0.1, cameras=()), tmp_path, processes=1))
    found = messages(tmp_path / "bag")
    cloud, truth = (in_topic(found, topic)[0] for topic in ("/lidar/points", "/truth/points"))
    assert not any(topic.startswith("/camera") for topic, _, _ in found)
    assert (cloud.height, cloud.point_step) == (1, step)
    assert cloud.width == truth.width
    scan = point_cloud2.decode(cloud)
    assert scan.valid().all()
    assert scan.time is not None
    assert (np.diff(scan.time) >= -1e-6).all()
    assert scan.time.min() >= 0
    assert scan.time.max() < 0.1


@pytest.mark.parametrize("seed", [3, 12])
def test_lidar_and_camera_see_the_same_classes(seed: int) -> None:
    """Labelled points projected by the calibration meet the same class in the image, away from its edges."""
    rig = Rig(RigConfig(seed, "os1-64", 2.0))
    image = rig.image(4)
    still = fixed_pose(rig.trajectory.pose(np.array([rig.image_time(4)]))[0] @ rig.T_base_lidar)
    result = sweep(rig.lidar, rig.scenes(rig.image_time(4)), still, np.random.default_rng(0), NO_NOISE)
    calibrated = rig.calibration().camera()
    T = np.array(calibrated.T_camera_lidar)
    points = result.scan.xyz @ T[:3, :3].T + T[:3, 3]
    uv, inside = calibrated.project(points.astype(np.float32))
    inside &= result.scan.valid()
    u, v = np.round(np.where(inside[:, None], uv, 0)).astype(int).T
    # seen by both, not behind a nearer surface or a pane
    inside &= np.abs(image.depth[v, u] - np.linalg.norm(points, axis=1)) < 0.1
    truth = to_space("structural6")[image.label].astype(int)
    inside &= (minimum_filter(truth, 7) == maximum_filter(truth, 7))[v, u]
    assert inside.sum() > 1000
    assert (truth[v, u] == to_space("structural6")[result.label])[inside].mean() > 0.95


def test_a_lower_rate_leaves_out_scans_and_a_higher_one_turns_faster() -> None:
    slow, fast = (Rig(RigConfig(3, "vlp-16", 2.0, rate, cameras=())) for rate in (2.0, 20.0))
    assert (slow.frames, slow.lidar.rate, slow.scan_time(3)) == (4, 10.0, 1.5)
    assert (fast.frames, fast.lidar.rate, fast.scan_time(3)) == (40, 20.0, 0.15)


def test_a_mount_upside_down_still_has_its_floor_below() -> None:
    rig = Rig(RigConfig(3, "os1-16", 1.0, roll=180.0))
    result = rig.scan(0)
    floor = to_space("structural6")[result.label] == 1
    assert np.median(result.scan.xyz[floor, 2]) > 0
    assert np.median((result.scan.xyz[floor] @ rig.T_base_lidar[:3, :3].T)[:, 2]) < 0


def test_the_command_records_and_names_what_is_wrong(tmp_path: Path, run: Run) -> None:
    out = tmp_path / "run"
    done = run("simulate", "--out", out, "--seconds", 0.1, "--seed", 4, "--no-camera", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["sensor"] == "os1-16"
    assert {p.name for p in out.iterdir()} == {"bag", "calibration.yaml", "report.json", "preview.png"}
    for arguments, message in (
        (["--sensor", "os9"], "no sensor 'os9'"),
        (["--camera", "round"], "no camera 'round': neither a file nor one of equidistant, pinhole, wide"),
        (["--camera", "pinhole,grey"], "unknown option 'grey'"),
        (["--camera", "a b=pinhole"], "'a b' is reserved or not a valid topic name"),
        (["--camera", "pinhole", "--camera", "wide"], "two cameras are named 'camera'"),
        (["--camera", "pinhole", "--no-camera"], "exclude each other"),
        (["--motion", "flying", "--height", "1"], "no effect on a flying robot; leave it out"),
        (["--roll", "nan"], "--roll is nan; give a finite number"),
    ):
        done = run("simulate", "--out", out, *arguments)
        assert done.code == 1 and message in done.err
    assert [run("simulate", "--out", out, *one).code for one in (("--seconds", "inf"), ("--rate", "nan"))] == [2, 2]


def test_tf_agrees_with_odometry_and_calibration(recording: Path, found: Messages) -> None:
    poses = [m.pose.pose for m in in_topic(found, "/odom")]
    moves = [m.transforms for m in in_topic(found, "/tf")]
    for pose, (moved,) in zip(poses, moves, strict=True):
        p, q, t, r = pose.position, pose.orientation, moved.transform.translation, moved.transform.rotation
        assert (p.x, p.y, p.z) == (t.x, t.y, t.z) and (q.x, q.y, q.z, q.w) == (r.x, r.y, r.z, r.w)
        assert (moved.header.frame_id, moved.child_frame_id) == ("odom", "base_link")
    [static] = [m.transforms for m in in_topic(found, "/tf_static")]
    calibration = Calibration.load(recording / "calibration.yaml")
    expected = {"lidar": calibration.lidars["lidar"].T_base_lidar}
    expected |= {name: camera.T_base_camera for name, camera in calibration.cameras.items()}
    assert {t.child_frame_id for t in static} == set(expected)
    for mounted in static:
        np.testing.assert_allclose(matrix(mounted.transform), expected[mounted.child_frame_id], atol=1e-6)

"""Box rooms: rays end where the solids are, scans repeat, and intensities come as the named responses say."""

import numpy as np
import pytest

from cmp_seg_ros.datasets import boxes
from cmp_seg_ros.datasets.frame import TRUTH
from cmp_seg_ros.evaluation.suites.responses import RESPONSES, respond
from cmp_seg_ros.label_space import LabelSpace

INDOOR = LabelSpace.load("indoor")


def name_of(label: int) -> str:
    return INDOOR.names[INDOOR.index_of_id[label]]


def empty_room() -> boxes.Room:
    room = boxes.Room(np.random.default_rng(0), "plain")
    room.size, room.solids = np.array([6.0, 4.0, 3.0]), []
    return room


@pytest.mark.parametrize(
    ("direction", "distance", "label"),
    [((1, 0, 0), 5, "wall"), ((0, -1, 0), 2, "wall"), ((0, 0, -1), 1, "floor"), ((0, 0, 1), 2, "ceiling")],
)
def test_rays_end_at_the_room(direction: tuple[float, ...], distance: float, label: str) -> None:
    found, cosine, _, labels = empty_room()._cast(np.array([1.0, 2.0, 1.0]), np.array([direction], np.float64))
    assert found[0] == pytest.approx(distance) and cosine[0] == pytest.approx(1) and name_of(labels[0]) == label


def test_rays_end_at_solids_and_their_normals_are_right() -> None:
    room, place, ahead = empty_room(), np.array([1.0, 2.0, 1.0]), np.array([[1.0, 0, 0]])
    room._box((4, 2.1, 1), (1, 1, 1), "table", np.pi / 4)  # right beside its corner
    assert room._cast(place, ahead)[0][0] == pytest.approx(3 - np.sqrt(0.5) + 0.1)
    assert room._cast(place, ahead)[1][0] == pytest.approx(np.sqrt(0.5))
    room._rod((3, 2, 0), (3, 2, 2), 0.25, "clutter")
    found, cosine, _, label = room._cast(place, ahead)
    assert found[0] == pytest.approx(1.75) and cosine[0] == pytest.approx(1) and name_of(label[0]) == "clutter"
    slanted = np.array([[1.0, 0.1, 0]]) / np.hypot(1, 0.1)
    hit = place + room._cast(place, slanted)[0][0] * slanted[0]
    assert np.hypot(hit[0] - 3, hit[1] - 2) == pytest.approx(0.25)
    assert room._cast(place, np.array([[0.6, 0, 0.8]]))[3][0] == INDOOR.classes[INDOOR.names.index("ceiling")].id
    room._ball((2, 2, 1), (0.5, 0.1, 0.2), "person", np.pi / 2)  # turned: 0.1 deep as we see it
    assert room._cast(place, ahead)[0][0] == pytest.approx(0.9)
    down = np.array([[0.0, 0, -1]])
    room._rod((1, 2, 0.2), (1, 2, 0.5), 0.3, "bed")  # its flat end
    assert room._cast(place, down)[0][0] == pytest.approx(0.5) and room._cast(place, down)[1][0] == pytest.approx(1)


def test_scans_repeat_and_frames_are_found_by_number() -> None:
    data = boxes.DataSet([1, 2], 2, "rings-16", "things")
    frames = list(data)
    assert [frame.key for frame in frames] == ["1/0", "1/1", "2/0", "2/1"] and len(data) == 4
    np.testing.assert_array_equal(frames[2].scan.xyz, data[2].scan.xyz)
    assert [f.key for part in data.parts() for f in part] == [f.key for f in frames]
    with pytest.raises(IndexError):
        data[4]
    names = {name_of(i) for f in frames for i in np.unique(f.labels[TRUTH].label) if i != 255}
    assert {"wall", "floor", "person", "clutter"} <= names
    assert not np.array_equal(frames[0].scan.xyz, boxes.DataSet([1], 1, "rings-16", "plain")[0].scan.xyz)


def test_outdoors_there_are_no_walls_around_and_no_ceiling() -> None:
    frame = boxes.DataSet([3], 1, "rings-64", "outdoor")[0]
    upwards = frame.scan.xyz[frame.labels[TRUTH].label == INDOOR.classes[INDOOR.names.index("ceiling")].id]
    assert len(upwards) == 0 and frame.scan.valid().mean() < 0.9
    assert np.isfinite(frame.scan.xyz).all() and np.linalg.norm(frame.scan.xyz, axis=1).max() <= boxes.FARTHEST + 1


@pytest.mark.parametrize("name", RESPONSES)
def test_every_response_repeats_and_leaves_no_return_at_nothing(name: str) -> None:
    frame = boxes.DataSet([1], 1)[0]
    value = respond(name, frame, np.random.default_rng(1))
    if name == "absent":
        assert value is None
        return
    assert value is not None and np.isfinite(value).all() and not value[~frame.scan.valid()].any()
    np.testing.assert_array_equal(value, respond(name, frame, np.random.default_rng(1)))


def test_responses_do_what_their_names_say() -> None:
    frame = boxes.DataSet([1], 1)[0]
    valid, native = frame.scan.valid(), frame.scan.intensity
    assert native is not None

    def of(name: str) -> np.ndarray:
        value = respond(name, frame, np.random.default_rng(2))
        assert value is not None
        return value[valid]

    away = np.linalg.norm(frame.scan.xyz[valid], axis=1)
    assert len(np.unique(of("quantised-4"))) == 4 and 200 < len(np.unique(of("quantised-256"))) <= 256
    assert np.corrcoef(of("rise"), away)[0, 1] > 0.9 > 0 > np.corrcoef(of("fall-off"), away)[0, 1]
    assert np.mean(of("saturated") == of("saturated").max()) > 0.75
    order = np.argsort(native[valid], kind="stable")
    assert (np.diff(of("other-lidar")[order]) >= 0).all()
    corr = [np.corrcoef(of(f"noise-{name}"), native[valid])[0, 1] for name in ("weak", "medium", "strong")]
    assert (
        corr[0] > 0.9 > corr[1] > 0.6 > corr[2] > 0.2
        and abs(np.corrcoef(of("white-noise"), native[valid])[0, 1]) < 0.05
    )
    ratio = of("ring-gains") / np.maximum(native[valid], 1e-3)
    ring = frame.ring[valid]
    bright = native[valid] > 1
    assert all(np.ptp(ratio[bright & (ring == r)]) < 1e-3 for r in (3, 9)) and np.ptp(ratio[bright]) > 0.3

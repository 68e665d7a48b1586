"""Pseudo-labels: copies of an image, each refinement, agreement over time, and teachers on a simulated drive."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from painted import Painted

from cmp_seg_ros.datasets import drives
from cmp_seg_ros.datasets.frame import TRUTH, Frame, PointLabels
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.planes import Plane, Planes, find_planes
from cmp_seg_ros.geometry.projection import upright
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.mapping.odometry import Motion
from cmp_seg_ros.pseudo_labels import over_time, refine
from cmp_seg_ros.pseudo_labels.copies import consensus
from cmp_seg_ros.pseudo_labels.labeller import PseudoLabeller, Refinements
from cmp_seg_ros.pseudo_labels.surfaces import Surface, surface_table, surfaces, with_geometry
from cmp_seg_ros.scan import UNLABELLED, Scan
from cmp_seg_ros.teachers import simulated

CAMERA = "{model: pinhole, intrinsics: [105, 105, 79.5, 59.5], width: 160, height: 120}"
INDOOR, STRUCTURAL6 = LabelSpace.load("indoor"), LabelSpace.load("structural6")


class Drive(drives.DataSet):
    """Knows the truth of the image that it gave last."""

    def picture(self, *place) -> np.ndarray:
        rig, index, camera = place
        self.shown = rig.image(index, camera)
        return self.shown.rgb

    def truth_of(self, rgb: np.ndarray) -> np.ndarray:
        assert rgb is self.shown.rgb
        return self.shown.label


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Drive:
    """A drive of three scans with small images, and a still shorter way to ask for their truth."""
    camera = tmp_path_factory.mktemp("camera") / "small.yaml"
    camera.write_text(CAMERA)
    return Drive([60_000_003], 3, rate=4.0, cameras=[f"camera={camera}"])


@pytest.fixture(scope="module")
def frames(drive: Drive) -> list[Frame]:
    return list(drive)


def truth_of(frame: Frame) -> np.ndarray:
    return STRUCTURAL6.id_map(INDOOR)[frame.labels[TRUTH].label]


# Copies of the image


def test_copies_show_every_point_where_it_is() -> None:
    """A teacher that goes by colour says the same of every copy, wherever a point is in it; one that goes by place does
    not."""
    rng = np.random.default_rng(0)
    rgb = np.repeat(np.kron(rng.integers(0, 20, (12, 16)), np.ones((10, 10))).astype(np.uint8)[..., None], 3, axis=2)
    uv = rng.uniform(0, [159, 119], (500, 2)).astype(np.float32)
    column, row = np.rint(uv).astype(int).T
    found = consensus(Painted(lambda rgb: rgb[..., 0]), rgb, uv, np.eye(20, dtype=np.float32), augmented=True)
    assert (found.agreement == 1).all()
    np.testing.assert_array_equal(found.probabilities.argmax(axis=1), rgb[row, column, 0])
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-5)

    def left(rgb: np.ndarray) -> np.ndarray:
        return np.repeat(np.arange(rgb.shape[1])[None] < rgb.shape[1] / 2, len(rgb), axis=0)

    assert consensus(Painted(left), rgb, uv, np.eye(20, dtype=np.float32), augmented=True).agreement.mean() < 0.9
    assert (consensus(Painted(left), rgb, uv, np.eye(20, dtype=np.float32), augmented=False).agreement == 1).all()


# Refinements


def test_points_near_borders_of_a_mask_are_found() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[:, 50:] = 1
    uv = np.array([[40, 50], [47, 50], [52, 3], [60, 99], [0, 0]], np.float32)
    assert refine.near_border(mask, uv, 4).tolist() == [False, True, True, False, False]


def test_what_is_ignored_has_no_label() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2], [0.3, 0.1, 0.0], [0.0, 0.0, 0.0], [0.1, 0.5, 0.0]], np.float32)
    label, confidence = refine.decide(probabilities, np.array([4, 5, 6], np.uint8))
    assert label.tolist() == [4, UNLABELLED, UNLABELLED, 5]
    np.testing.assert_allclose(confidence, [0.5, 0, 0, 0.5])


def test_ranks_are_within_each_class() -> None:
    label, score = np.array([0, 0, 7, 0, 7, 0], np.uint8), np.array([0.9, 0.8, 0.2, 0.7, 0.1, 0.6], np.float32)
    rank = refine.rank_in_class(label, score)
    assert (rank >= 0.5).tolist() == [True, True, True, False, False, False]


def test_points_lie_on_the_surfaces_of_their_classes(frames: list[Frame]) -> None:
    for frame in frames[:1]:
        found = surfaces(find_planes(upright(frame.scan.xyz, frame.T_base_lidar)))
        truth = truth_of(frame)
        floor, wall = (truth == STRUCTURAL6.names.index(name) for name in ("floor", "wall"))
        assert (found[floor] == Surface.floor).mean() > 0.5
        assert (found[wall] == Surface.wall).mean() > 0.4
        assert (found[wall] == Surface.floor).mean() < 0.05 and (found[floor] == Surface.wall).mean() < 0.05


def test_a_beam_is_no_ceiling() -> None:
    up = np.array([0.0, 0.0, 1.0])
    floor, beam, ceiling = (Plane(up, height) for height in (-1.0, 1.5, 2.0))
    xyz = np.array([[1, 0, -1], [1, 0, 1.5], [1, 0, 2]], np.float32)
    planes = Planes([floor], [ceiling], [], [ceiling, beam], up, xyz, np.tile(up, (3, 1)))
    assert surfaces(planes).tolist() == [Surface.floor, Surface.overhead, Surface.ceiling]
    said = np.tile(np.array([0.9, 0, 0.1, 0, 0, 0], np.float32), (3, 1))  # wall
    assert with_geometry(said, surfaces(planes), STRUCTURAL6)[1].argmax() == 0


def test_geometry_decides_where_the_image_does_not_and_keeps_what_is_ignored() -> None:
    even = np.zeros((2, 6), np.float32)
    even[:, :3] = 0.2  # wall, floor, ceiling; 0.4 are ignored
    found = with_geometry(even, np.array([Surface.floor, Surface.ceiling]), STRUCTURAL6)
    assert found.argmax(axis=1).tolist() == [1, 2]
    np.testing.assert_allclose(found.sum(axis=1), 0.6, atol=1e-5)
    sure = np.array([[0.0, 0.0, 0.0, 0.0, 1.0, 0.0]], np.float32)
    np.testing.assert_allclose(with_geometry(sure, np.array([Surface.floor]), STRUCTURAL6), sure, atol=1e-6)
    four = with_geometry(np.full((1, 4), 0.25, np.float32), np.array([Surface.wall]), LabelSpace.load("structural4"))
    assert four.argmax(axis=1).tolist() == [0]
    indoor = with_geometry(np.full((1, 20), 0.05, np.float32), np.array([Surface.floor]), INDOOR)
    assert INDOOR.names[int(indoor.argmax())] == "floor"


def test_a_wall_on_no_walls_plane_is_furniture_however_sure_the_image_is() -> None:
    sure = np.zeros((3, 6), np.float32)
    sure[:, STRUCTURAL6.names.index("wall")] = 1
    on = np.array([Surface.wall, Surface.unclear, Surface.level])
    found = with_geometry(sure, on, STRUCTURAL6)
    assert [STRUCTURAL6.names[i] for i in found.argmax(axis=1)] == ["wall", "object", "object"]
    sure = np.zeros((1, 20), np.float32)
    sure[:, INDOOR.names.index("wall")] = 1
    furniture = with_geometry(sure, on[1:2], INDOOR)[0]
    objects = STRUCTURAL6.merge_matrix(INDOOR)[:, STRUCTURAL6.names.index("object")] > 0
    np.testing.assert_allclose(furniture[objects], furniture[objects].mean(), rtol=1e-5)  # none is likelier
    assert furniture[objects].sum() > furniture[INDOOR.names.index("wall")]


def test_doubts_take_nothing_away() -> None:
    for name in ("structural6", "structural4", "indoor", "mosaic32"):
        moved = surface_table().transition(LabelSpace.load(name))
        np.testing.assert_allclose(moved.sum(axis=1), 1, atol=1e-6)
        assert (moved >= 0).all() and (np.diag(moved) > 0.5).all()


# Agreement over time


def test_outvoted_labels_are_rejected_and_unseen_points_get_the_votes_of_others() -> None:
    place = np.array([[2.05, 0.05, 0.05], [3.05, 1.05, 0.05]], np.float32)
    frames = [Frame(str(i), Scan(place - np.array([i, 0, 0], np.float32), stamp=i + 1)) for i in range(3)]
    motions = [
        Motion(np.array([[1, 0, 0, i], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), np.zeros(6)) for i in range(3)
    ]
    said = np.full((2, 6), 0.02, np.float32)
    wall, floor = said.copy(), said.copy()
    wall[:, 0], floor[:, 1] = 0.9, 0.9
    seen = np.array([[True, True], [True, False], [True, False]])
    labels = [
        PointLabels(STRUCTURAL6, np.where(s, p.argmax(1), UNLABELLED).astype(np.uint8), np.float32(0.9) * s)
        for s, p in zip(seen, (floor, wall, wall), strict=True)
    ]
    found = over_time.fused(frames, motions, labels, [floor, wall, wall], STRUCTURAL6)
    assert [one.label.tolist() for one in found] == [[UNLABELLED, 1], [0, 1], [0, 1]]
    confidence = np.array([one.confidence for one in found])
    np.testing.assert_allclose(confidence, [[0, 0.9], [0.9, 0.86], [0.9, 0.86]], atol=0.01)  # a vote from 3 m away


# The labeller


def test_a_perfect_teacher_labels_what_the_camera_sees_as_it_is(drive: Drive, frames: list[Frame]) -> None:
    labeller = PseudoLabeller(Painted(drive.truth_of), STRUCTURAL6, refinements=Refinements.none())
    frame = frames[0]
    evidence = labeller.look(frame)
    labels = labeller.confident(labeller.decide(evidence))
    assert ((labels.label != UNLABELLED) <= evidence.seen).all()
    assert 0.05 < evidence.seen.mean() < 0.4
    known = (labels.label != UNLABELLED) & (truth_of(frame) != UNLABELLED)
    raw = (labels.label == truth_of(frame))[known].mean()
    careful = PseudoLabeller(
        Painted(drive.truth_of), STRUCTURAL6, refinements=Refinements.none().model_copy(update={"borders": 0.02})
    )
    kept = careful.decide(careful.look(frame)).label
    known &= kept != UNLABELLED
    assert raw > 0.95 and (kept == truth_of(frame))[known].mean() > raw


def test_refinements_improve_a_teacher_with_errors(drive: Drive, frames: list[Frame]) -> None:
    teacher = simulated.Teacher(drive.truth_of)
    right = {}
    for name, refinements in (
        ("raw", Refinements.none()),
        ("refined", Refinements(agreement=0, time=False, keep=0.5)),
    ):
        labeller = PseudoLabeller(teacher, STRUCTURAL6, refinements=refinements)
        found = labeller.balanced([labeller.decide(labeller.look(frame)) for frame in frames])
        label, truth = np.concatenate([one.label for one in found]), np.concatenate([truth_of(one) for one in frames])
        right[name] = (label == truth)[(label != UNLABELLED) & (truth != UNLABELLED)].mean()
    assert 0.3 < right["raw"] < 0.95
    assert right["refined"] > right["raw"] + 0.1


def test_the_simulated_teacher_repeats_itself_and_confuses_as_often_as_measured() -> None:
    truth = np.zeros((240, 320), np.uint8)
    truth[120:] = INDOOR.ids[INDOOR.names.index("floor")]
    teacher = simulated.Teacher(lambda rgb: truth)
    images = np.random.default_rng(0).integers(0, 256, (30, 240, 320, 3), dtype=np.uint8)
    masks = [teacher.masks(rgb) for rgb in images]
    np.testing.assert_array_equal(masks[0].label, teacher.masks(images[0]).label)
    space, matrix = teacher.label_space, simulated.ErrorModel.load("mosaic").matrix()
    assert space is not None
    for name, rows in (("wall", slice(0, 110)), ("floor", slice(130, 240))):
        answers = np.concatenate([found.label[rows].ravel() for found in masks])
        share = np.bincount(space.index_of_id[answers], minlength=len(space.classes)) / answers.size
        np.testing.assert_allclose(share, matrix[INDOOR.names.index(name)], atol=0.1)


# Bad input


def test_images_of_another_size_and_cameras_without_calibration_are_named(frames: list[Frame]) -> None:
    labeller = PseudoLabeller(Painted(lambda rgb: rgb[..., 0] * 0), STRUCTURAL6, refinements=Refinements.none())
    [(name, image)] = frames[0].images.items()
    small = replace(frames[0], images={name: replace(image, rgb=lambda: np.zeros((60, 80, 3), np.uint8))})
    with pytest.raises(UserError, match="80 x 60 pixels, its calibration is for 160 x 120"):
        labeller.look(small)
    with pytest.raises(UserError, match="is not calibrated; give its intrinsics"):
        labeller.look(replace(frames[0], images={name: replace(image, camera=None)}))
    with pytest.raises(UserError, match="no image of a calibrated camera"):
        labeller.look(replace(frames[0], images={}))


def test_a_label_space_that_misses_a_class_of_the_teacher_is_named(tmp_path: Path) -> None:
    data = STRUCTURAL6.model_dump()
    del data["mappings"]["indoor"]["sofa"]
    with pytest.raises(UserError, match="lacks sofa; map or ignore"):
        PseudoLabeller(Painted(lambda rgb: rgb), LabelSpace.model_validate(data))


def test_a_teacher_without_masks_is_refused() -> None:
    teacher = Painted(lambda rgb: rgb)
    teacher.label_space = None  # type: ignore[assignment]
    with pytest.raises(UserError, match="gives features, but no masks"):
        PseudoLabeller(teacher, STRUCTURAL6)

"""The second world: models from catalogues, what it has that the first has not, and that it does without catalogues."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cmp_seg_ros.simulation import goods, models
from cmp_seg_ros.simulation.building import SECOND_WORLD, make_building
from cmp_seg_ros.simulation.generate import scans_in
from cmp_seg_ros.simulation.lidar import FIRST_SENSORS, Lidar, sensor_names
from cmp_seg_ros.simulation.mesh import Shape, class_id
from cmp_seg_ros.simulation.people import Person, people_mesh
from cmp_seg_ros.simulation.version import simulator_version

# A wedge, y up, its high edge at z = 0 and its low edge towards z = 1; a face with four corners and negative numbers.
WEDGE = """
v 0 0 0
v 2 0 0
v 2 0 1
v 0 0 1
v 0 1 0
v 2 1 0
usemtl wood
f 1/1 2/2 3/3 4/4
usemtl steel
f -6//1 -5//1 -1//1 -2//1
f 4 3 6 5
f 1 4 5
f 2 6 3
"""


def entry(number: int, name: str, size: tuple[int, int, int], **more: str) -> str:
    values = dict(zip(("width", "depth", "height"), map(str, size), strict=True))
    values |= {"name": name, "model": f"/m{number}/m.obj", **more}
    return "".join(f"{key}#{number}={value}\n" for key, value in values.items())


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A catalogue of five wedges."""
    folder = tmp_path / "furniture"
    folder.mkdir()
    table = entry(1, "Kitchen chair", (50, 60, 90)) + entry(2, "Wall lamp", (20, 10, 30), elevation="150")
    table += entry(3, "Male", (60, 40, 180)) + entry(4, "Oriental rug", (200, 100, 40)) + entry(5, "Cup", (10, 10, 10))
    with zipfile.ZipFile(folder / "some.sh3f", "w") as file:
        file.writestr("PluginFurnitureCatalog.properties", table)
        for number in range(1, 6):
            file.writestr(f"m{number}/m.obj", WEDGE)
    monkeypatch.setenv(models.VARIABLE, str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield from fresh()


@pytest.fixture
def no_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(models.VARIABLE, str(tmp_path))
    yield from fresh()


def fresh() -> Iterator[None]:
    """What is kept of catalogues is that of this test."""
    for kept in (models.models, models.of_kind, simulator_version):
        kept.cache_clear()
    yield
    for kept in (models.models, models.of_kind, simulator_version):
        kept.cache_clear()


def test_models_get_their_class_size_and_axes(catalogue: None) -> None:
    found = {model.name: model for model in models.models()}
    assert {name: model.label for name, model in found.items()} == {
        "Kitchen chair": "chair",
        "Wall lamp": "lamp",
        "Male": "person",
        "Cup": "clutter",
    }
    chair = found["Kitchen chair"]
    np.testing.assert_allclose(chair.size, [0.5, 0.6, 0.9], atol=models.CELL)
    corners = chair.triangles.reshape(-1, 3)
    assert corners[:, 2].min() == pytest.approx(0, abs=models.CELL)
    assert corners[corners[:, 2] > 0.8, 1].max() < -0.25  # its high edge is its back
    assert sorted(set(chair.piece.tolist())) == [1, 2]
    kinds = {kind: [model.name for model in models.of_kind(kind)] for kind in ("floor", "small", "hung", "people")}
    assert kinds == {"floor": ["Kitchen chair"], "small": ["Cup"], "hung": ["Wall lamp"], "people": ["Male"]}
    models.models.cache_clear()
    assert [model.name for model in models.models()] == list(found)  # from the file that was kept
    np.testing.assert_array_equal(models.models()[0].triangles, chair.triangles)


def test_people_may_be_of_the_catalogue_and_carry_things(catalogue: None) -> None:
    person = Person(1, "stand", (2.0, 3.0), (2.0, 3.0), modelled=True, carries="trolley")
    mesh = people_mesh([person], 0.0)
    body = mesh.triangles[mesh.label == class_id("person")].reshape(-1, 3)
    assert len(body) == 3 * len(models.of_kind("people")[0].triangles)
    np.testing.assert_allclose(body[:, :2].mean(axis=0), [2, 3], atol=0.3)
    carried = mesh.triangles[mesh.label == class_id("clutter")].reshape(-1, 3)
    assert len(carried) and carried[:, 2].min() < 0.2


def test_scans_of_another_catalogue_are_another_simulators(catalogue: None, monkeypatch: pytest.MonkeyPatch) -> None:
    version = simulator_version()
    monkeypatch.setattr(models, "catalogues", list)
    simulator_version.cache_clear()
    assert simulator_version() != version


def test_without_catalogues_there_are_boxes(no_catalogue: None) -> None:
    rng = np.random.default_rng(0)
    names = ("model", "seat", "desk", "car", "bar", "workbench", "thin", "gondola")
    for maker in (getattr(goods, name) for name in names):
        shape: Shape = maker(rng)
        low, high = shape.bounds()
        assert low[2] > -0.1 and high[2] > (0 if maker is goods.model else 0.3), maker
    assert goods.hung(rng) is None


def test_the_second_world_has_what_the_first_has_not(no_catalogue: None) -> None:
    seeds = range(10)
    second = [make_building(SECOND_WORLD + seed) for seed in seeds]
    first = [make_building(SECOND_WORLD - 100 + seed) for seed in seeds]
    kinds = [{room.kind for building in world for room in building.plan.rooms} for world in (first, second)]
    assert not kinds[0] & {"shop", "storehouse", "workshop", "garage"} and len(kinds[1] - kinds[0]) >= 2
    assert max(room.height for building in second for room in building.plan.rooms) > 6
    assert any(person.carries for building in second for person in building.people)
    assert not any(person.carries or person.modelled for building in first for person in building.people)
    assert all(len(list(scans_in(building, 1, "mid-360"))) == 1 for building in second[:2])


def test_a_rosette_covers_its_field_and_its_lines_are_no_rings() -> None:
    lidar = Lidar.load("mid-360")
    altitude = np.degrees(np.arcsin(lidar.directions[..., 2]))
    assert altitude.min() < -6 and altitude.max() > 51 and np.ptp(altitude, axis=1).min() > 50
    azimuth = np.degrees(np.arctan2(lidar.directions[..., 1], lidar.directions[..., 0])).ravel()
    cells = np.histogram2d(azimuth, altitude.ravel(), bins=(36, 8), range=((-180, 180), (-7, 53)))[0]
    assert (cells > 0).mean() > 0.95
    assert set(FIRST_SENSORS) < set(sensor_names())

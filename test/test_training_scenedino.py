"""Training of an occupancy bundle: views, batches, a few steps, and the bundle that comes of them."""

from pathlib import Path

import numpy as np
import torch
from fields import SMALL

from cmp_seg_ros.occupancy.grid import FREE, UNKNOWN
from cmp_seg_ros.occupier import Occupier
from cmp_seg_ros.training.loop import Trainer
from cmp_seg_ros.training.tasks.scenedino import Config, Task, ViewConfig

NETWORK = SMALL.model_copy(update={"heights": True, "decoder": SMALL.decoder.model_copy(update={"width": 8})})
DATA = ViewConfig(
    first_of_second_world=30_000_000,
    first_validation_building=30_000_000,
    buildings=1,
    validation_buildings=1,
    views_per_building=1,
)  # one view for everything


def test_a_run_renders_views_trains_and_writes_a_bundle_that_labels(tmp_path: Path) -> None:
    config = Config(
        name="tiny",
        steps=2,
        data=DATA,
        network=NETWORK,
        focal=72,
        pretrained=False,
        batch=2,
        voxels=64,
        rays=16,
        rendered=8,
    )
    task = Task(config, tmp_path / "views")
    task.views.folder.mkdir(parents=True)
    task.views.make_file(30_000_000)  # here, since processes would take longer to start
    view = task.views[0]
    there = view.occupancy < FREE
    assert there.any() and (view.occupancy == FREE).any() and (view.occupancy == UNKNOWN).any()
    batch, again = task.batch(5), task.batch(5)
    assert all(torch.equal(a, b) for a, b in zip(batch, again, strict=True))
    # Points right behind visible surfaces are occupied, and those on the rays before them are free.
    surfaces, before = batch.occupied[:, 64:80], batch.occupied[:, 80 : 80 + 3 * 16]
    assert (surfaces == 1).all() and (before == 0).all()
    height = batch.points @ batch.up[:, :3, None] + batch.up[:, None, 3:]
    assert height.min() < 0.2 and np.isfinite(height.numpy()).all()
    (tmp_path / "run").mkdir()
    bundle = Trainer(task, tmp_path / "run", workers=0).run()
    assert bundle is not None and bundle.description.kind == "occupancy"
    assert "occupancy_iou" in bundle.description.measured["validation"]
    occupier = Occupier(bundle)
    seen = occupier.look(view.rgb, config.camera, view.T_base_camera)
    assert occupier.render(seen).depth.shape == (48, 80)

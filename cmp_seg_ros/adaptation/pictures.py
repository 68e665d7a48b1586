"""Pictures of the held-back scans whose labels changed most."""

from pathlib import Path
from typing import NamedTuple

from cmp_seg_ros.datasets.frame import Frame
from cmp_seg_ros.evaluation import plots
from cmp_seg_ros.geometry.projection import upright
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, UInt8


class Changed(NamedTuple):
    """A scan with (N,) labels of the teacher, of the shipped bundle and of the new one; `share` of points changed."""

    frame: Frame
    teacher: UInt8
    old: UInt8
    new: UInt8

    @property
    def share(self) -> float:
        known = (self.old != UNLABELLED) & (self.new != UNLABELLED)
        return float((self.old != self.new)[known].mean()) if known.any() else 0.0


def draw(path: Path, changed: Changed, space: LabelSpace) -> None:
    """Teacher, shipped bundle and new bundle: from above, from the side, and over the image of a camera."""
    frame = changed.frame
    xyz = upright(frame.scan.xyz, frame.T_base_lidar)
    named = {"the teacher": changed.teacher, "shipped bundle": changed.old, "new bundle": changed.new}
    image = next((image for image in frame.images.values() if image.camera is not None), None)
    ratios = (5.2, 2.0, 3.6) if image else (5.2, 2.0)
    height = sum(ratios)
    figure = plots.new_figure(16, height + 1.6, f"{frame.key}: {changed.share:.1%} of the points changed")
    places = figure.add_gridspec(
        len(ratios), 3, height_ratios=ratios, left=0.05, right=0.985, top=0.93, bottom=1.0 / (height + 1.6), hspace=0.22
    )
    views = []
    for column, (name, label) in enumerate(named.items()):
        known = (label != UNLABELLED) & frame.scan.valid()
        above, side = (figure.add_subplot(places[row, column]) for row in range(2))
        plots.draw_bird(above, xyz[known], label[known], space, f"From above: {name}")
        plots.draw_side(side, xyz[known], space.palette[label[known]])
        side.set_title(f"From the side: {name}", fontsize=10)
        views.append((above, side))
        if image and image.camera:
            axes = figure.add_subplot(places[2, column])
            plots.draw_camera(axes, image.rgb(), frame.scan, label, space, image.camera)
            axes.set_title(f"In the image: {name}", fontsize=10)
    (above, side), *_, (new_above, new_side) = views
    above.set(xlim=new_above.get_xlim(), ylim=new_above.get_ylim())  # the teacher sees less, but at the same scale
    side.set_xlim(new_side.get_xlim())
    legend = figure.add_axes((0.05, 0, 0.93, 0.6 / height))
    labels = changed.new[changed.new != UNLABELLED]
    plots.draw_legend(legend, labels, space, "share of the new bundle's labels", columns=len(space.classes))
    plots.save(figure, path)

"""The network of a bundle."""

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.waffleiron.model import WaffleIron


def network_of(bundle: Bundle) -> WaffleIron:
    """The network of a bundle. Raises UserError for a kind that no engine runs."""
    points = bundle.points
    return WaffleIron(
        name=bundle.description.name,
        hash=bundle.hash,
        weights=bundle.weights_path,
        config=points.network,
        preprocess=points.preprocess,
        raw_intensity=points.intensity.mode == "raw",
        output="logits" if bundle.description.kind == "segmentation" else "point_features",
    )

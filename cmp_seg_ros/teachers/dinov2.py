"""DINOv2 (Oquab et al. 2023): features only; a ViT that was trained without labels, as ScaLR distils it."""

from functools import partial
from pathlib import Path

from cmp_seg_ros.scan import UInt8
from cmp_seg_ros.teachers import pretrained
from cmp_seg_ros.teachers.base import Card, Features, hub_files

SIDE = 518  # pixels of the shorter side: what the network saw last in its training
MODEL = "dinov2"


class Teacher(pretrained.Pretrained):
    """Features of the last block before the final norm (`x_pre_norm` of ScaLR), a cell for each patch."""

    model_type = MODEL
    label_space = None

    def __init__(self, path: Path, name: str = MODEL) -> None:
        super().__init__(path, name, "Dinov2Model")
        self.dimension = self.network.config.hidden_size
        self._patch = self.network.config.patch_size

    def features(self, rgb: UInt8) -> Features:
        height, width = pretrained.fitted(rgb.shape[:2], SIDE, self._patch)
        found = self.network(self.pixels(rgb, (height, width)), output_hidden_states=True).hidden_states[-1]
        cells = found[0, 1:].reshape(height // self._patch, width // self._patch, -1)  # without the class token
        return Features(cells.float().cpu().numpy(), (rgb.shape[0], rgb.shape[1]))


CARDS = tuple(
    Card(
        name=f"{MODEL}-{size}",
        file=f"{MODEL}-{size}",
        source=f"huggingface.co/facebook/dinov2-{long} (cmp-seg teachers fetch {MODEL}-{size})",
        licence="Apache-2.0",
        load=partial(Teacher, name=f"{MODEL}-{size}"),
        recognises=partial(pretrained.recognises, model_type=MODEL),
        files=hub_files(f"facebook/dinov2-{long}"),
        megabytes=megabytes,
        dimension=dimension,
    )
    for size, long, megabytes, dimension in (
        ("s", "small", 88, 384),
        ("b", "base", 346, 768),
        ("l", "large", 1218, 1024),
    )
)

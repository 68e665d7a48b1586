"""Fine-tuning (ScaLR): the whole network learns classes, starting from a bundle; the first layers learn slowest.

Labels come from any source: pseudo-labels of a camera, weighted by their confidence, truth, hand. A share of simulated
scans keeps what the bundle knows.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from cmp_seg_ros.bundle import DEFAULT_BUNDLE, Bundle, IntensityConfig, PointNetwork
from cmp_seg_ros.datasets.frame import TRUTH, Frame, PointLabels, Returns
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import Float32
from cmp_seg_ros.training import pictures, start
from cmp_seg_ros.training.augment import augmented_voxels, voxels_of
from cmp_seg_ros.training.config import AugmentConfig, DataConfig, OptimiserConfig
from cmp_seg_ros.training.labelling import Item, LabellingTask
from cmp_seg_ros.training.losses import segmentation_loss
from cmp_seg_ros.training.scans import KeptScans, Labels, SetsConfig, labelled
from cmp_seg_ros.training.tasks import base
from cmp_seg_ros.waffleiron.config import PreprocessConfig


class Config(SetsConfig):
    """Fine-tuning; hyperparameters are those of ScaLR with all labels (batches of 8 scans, 25 epochs)."""

    task: str = "finetune"
    start: str = DEFAULT_BUNDLE  # bundle of classes, or of features, by name or path
    label_space: str | None = None  # None: that of the bundle, structural6 for one of features
    head: Literal["keep", "linear", "mlp"] = "keep"  # linear: batch norm and one layer, from zero; mlp: two layers
    head_hidden: int = Field(default=256, gt=0)  # width of the mlp
    preprocess: PreprocessConfig | None = None  # None: that of the bundle
    simulated: float = Field(default=0.0, ge=0, lt=1)  # share of simulated scans among those of training
    simulation: DataConfig = DataConfig(buildings=24)
    confidence: bool = True  # whether a label weighs as much as its confidence
    own_labels: float = Field(default=0.0, ge=0, le=1)  # weight of the bundle's own labels where the source has none
    drop_path: float = Field(default=0.2, ge=0, lt=1)
    layer_decay: float = Field(default=0.99, gt=0, le=1)
    freeze_norms: bool = False  # keep the statistics of batch norms: for few scans, of one place
    augment: AugmentConfig = AugmentConfig(tilt=0.0, mirror=2 / 3, scale=0.1, jitter=0.0, max_voxels=20_000)
    lovasz: float = Field(default=1.0, ge=0)
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=2e-3, weight_decay=0.0, warmup=2 / 25, minimum=0.0)
    steps: int = Field(default=1_000_000, gt=0)


class Task(LabellingTask[Config]):
    """Learns the labels of the frames in `config.sets`, kept in `folder`."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.bundle = Bundle.find(config.start)
        classes = self.bundle.description.classes
        default = classes.name if classes is not None else "structural6"
        space = classes if config.label_space is None and classes is not None else None
        space = space or LabelSpace.load(config.label_space or default)
        super().__init__(config, folder, _points(config, self.bundle, space), space)
        own = self._own_labels if config.own_labels else None
        labels = Labels(space, config.confidence, own, config.own_labels)
        key = [space.model_dump(mode="json"), config.confidence, config.own_labels, own and self.bundle.hash]
        self.scans = KeptScans(folder, config.sets, labels, key, "labelled scans")
        self.held_back = KeptScans(folder, config.held_back, Labels(space), space.names, "held-back scans")
        self.simulated = list(config.simulation.training(folder).parts()) if config.simulated else []
        if not config.sets:
            raise UserError("there is no data to fine-tune on; give a data set with labels")

    def start(self) -> None:
        if self.config.head == "keep":
            start.start_with(self.network, self.bundle, self.space)
        else:
            start.start_backbone(self.network, self.bundle)

    def prepare(self) -> Iterator[base.Preparation]:
        yield base.Preparation("reading held-back scans", None, self.held_back.fill())
        yield base.Preparation("reading labelled scans", None, self.scans.fill())
        if self.simulated:
            simulation = self.config.simulation.training(self.folder)
            yield base.Preparation("simulating buildings", len(simulation.seeds), simulation.fill())

    def limited(self, processes: int) -> Config:
        self.config = self.config.limited(len(self.scans), processes, 1 - self.config.simulated)
        return self.config

    def parameters(self) -> list[dict[str, Any]]:
        """ScaLR's layer decay: layer d of L learns decay^(L - d) times as fast as the head, the embedding decay^(L+1).

        One-dimensional parameters, except layer scales, have no weight decay.
        """
        groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
        head = self.points.network.depth + 1
        for name, value in self.network.named_parameters():
            parts = name.split(".")
            layer = 0 if parts[0] == "embed" else head if parts[0] == "classif" else int(parts[2]) + 1
            groups.setdefault((layer, value.ndim > 1 or "scale" in parts), []).append(value)
        decay = {True: self.config.optimiser.weight_decay, False: 0.0}
        return [
            {"params": values, "scale": self.config.layer_decay ** (head - layer), "weight_decay": decay[decays]}
            for (layer, decays), values in groups.items()
        ]

    def freeze(self) -> None:
        if self.config.freeze_norms:
            for module in self.network.modules():
                if isinstance(module, nn.BatchNorm1d):
                    module.eval()

    def batch(self, item: int) -> Item:
        config, points, scans, weights = self.config, self.points, [], []
        rng = np.random.default_rng([config.seed, item])
        for _ in range(config.batch):
            scan, weight = self._draw_scan(rng)
            voxels, rows = augmented_voxels(scan, points.preprocess, points.intensity.limit, config.augment, rng)
            scans.append((voxels, scan.label[rows]))
            weights.append(weight[rows])
        return self.item(scans, weights)

    def loss(self, network: nn.Module, batch: Item) -> Tensor:
        return segmentation_loss(network(batch.batch), batch.target, lovasz=self.config.lovasz, weight=batch.weight)

    @cached_property
    def validation(self) -> list[Item]:
        """One scan per batch, not augmented."""
        points, items = self.points, []
        for number in pictures.some_of(range(len(self.held_back)), self.config.validation_scans):
            scan, _ = labelled(self.held_back[number])
            voxels, rows = voxels_of(scan, points.preprocess, points.intensity.limit)
            items.append(self.item([(voxels, scan.label[rows])]))
        return items

    def write(self, path: Path, training: dict[str, Any], scores: dict[str, float], **about: Any) -> Bundle:
        """With temperature and familiarity of the start where its head was kept."""
        if self.config.head == "keep":
            start = self.bundle.description
            about |= {"temperature": start.temperature, "familiarity": start.familiarity}
        return super().write(path, {**training, "start": self.bundle.hash}, scores, **about)

    def _draw_scan(self, rng: np.random.Generator) -> tuple[Returns, Float32]:
        if self.simulated and rng.random() < self.config.simulated:
            part = self.simulated[int(rng.integers(len(self.simulated)))]
            frame = part[int(rng.integers(len(part)))]
            scan = frame.returns(TRUTH)
            scan = scan._replace(label=self.space.id_map(frame.labels[TRUTH].space)[scan.label])
            return scan, np.ones(len(scan.xyz), np.float32)
        return labelled(self.scans[int(rng.integers(len(self.scans)))])

    @cached_property
    def _model(self) -> Any:
        from cmp_seg_ros.evaluation.pipeline import Model

        return Model(self.bundle.path)

    def _own_labels(self, frame: Frame) -> PointLabels:
        """What the bundle of the start says."""
        labels = self._model(frame)
        table = self.space.id_map(self._model.label_space)
        return PointLabels(self.space, table[labels.label], labels.confidence)


def _points(config: Config, bundle: Bundle, space: LabelSpace) -> PointNetwork:
    """The network of the bundle with the head of the run; intensities of each scan have mean 0 and deviation 1."""
    theirs = bundle.points
    head: dict[str, Any] = {"outputs": len(space.classes)}
    if config.head != "keep":
        head |= {"head": "probe" if config.head == "linear" else "mlp", "head_hidden": config.head_hidden}
    elif bundle.description.classes is None:
        raise UserError(f"bundle {bundle.path} gives features, no classes; give `head: linear` or `head: mlp`")
    network = theirs.network.model_copy(update={**head, "drop_path": config.drop_path})
    preprocess = config.preprocess or theirs.preprocess
    if preprocess.inputs != theirs.preprocess.inputs or len(preprocess.planes) != len(theirs.preprocess.planes):
        raise UserError(f"`preprocess` has other input channels or planes than bundle {bundle.path}; use the same")
    return PointNetwork(network=network, preprocess=preprocess, intensity=IntensityConfig(limit=theirs.intensity.limit))

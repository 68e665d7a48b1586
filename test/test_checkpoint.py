"""Published checkpoints become bundles: every variant, every way in which files can be wrong."""

import json
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import published
import pytest
import torch
import typer
import yaml
from conftest import Run, change
from engines import truth
from torch import Tensor
from typer.testing import CliRunner

from cmp_seg_ros import Scan, Segmenter
from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.cli.import_checkpoint import import_checkpoint
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.waffleiron import checkpoint
from cmp_seg_ros.waffleiron.network import Segmenter as Network
from cmp_seg_ros.waffleiron.preprocess import prepare

FOV = [[-10, -10, -3], [10, 10, 3]]
GRIDS = [[20, 20], [20, 6], [20, 6]]
STATISTICS = {"intensity_mean": 18.742355, "intensity_std": 22.04632}


def waffleiron_yaml(**changes: Any) -> dict[str, Any]:
    """A configuration with the fields of WaffleIron's."""
    data = {
        "waffleiron": {"nb_channels": 8, "depth": 4, "fov_xyz": FOV, "dim_proj": [2, 1, 0], "grids_size": GRIDS},
        "classif": {"nb_class": 5},
        "embedding": {"input_feat": ["intensity", "xyz", "radius"], "size_input": 5, "neighbors": 6, "voxel_size": 0.1},
        "dataloader": {"batch_size": 4, "num_workers": 12, "max_points": 20000},
        "augmentations": {"rotation": [[2, 6]], "flip_xy": None, "scale": [[4, 5, 6, 7], 0.1]},
        "optim": {"lr": 0.001, "weight_decay": 0.003},
    }
    return change(data, {"waffleiron__drop": 0.2} | changes)


def scalr_yaml(plus: bool = False, **changes: Any) -> dict[str, Any]:
    """A configuration with the fields of ScaLR's pre-training."""
    backbone: dict[str, Any] = {
        "size_input": 5,
        "input_features": ["intensity", "xyz", "radius"],
        "nb_channels": 8,
        "nb_class": 16,
        "depth": 4,
        "dim_proj": [2, 1, 0],
        "grid_shape": GRIDS,
        "fov": FOV,
        "num_neighbors": 6,
        "voxel_size": 0.1,
        "max_points": 20000,
    }
    own = {"drop_path": 0.2, "mlp_classif": True, "gelu": True, "hidden": 12, "checkpointing": True}
    backbone |= own if plus else {"layernorm": True}
    return change({"point_backbone": backbone, "image_backbone": {"feat": "x_pre_norm"}, "optim": {}}, changes)


def downstream_yaml(**changes: Any) -> dict[str, Any]:
    """A configuration with the fields of ScaLR's probing and fine-tuning."""
    data = {
        "waffleiron": {"drop_path": 0.1},
        "classif": {"nb_class": 5},
        "dataloader": {"batch_size": 8, "max_points": 20000},
        "loss": {"lovasz": 1.0},
    }
    return change(data, changes)


class Files:
    """Checkpoint and configuration files in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def yaml(self, name: str, data: Any) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
        return path

    def weights(self, state: dict[str, Any], key: str = "net", prefix: str = "module.", **others: Any) -> Path:
        """A file like the published ones, with the state of the optimiser and numpy's numbers in it."""
        moments = {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(4)}}
        content = {
            "epoch": 44,
            key: {prefix + name: value for name, value in state.items()},
            "optim": {"state": moments, "param_groups": [{"lr": np.float64(1e-5), "betas": (0.9, 0.999)}]},
            "scheduler": {"_last_lr": [np.float64(1e-5)], "last_epoch": np.int64(7), "lr_lambdas": [None]},
            "scaler": {},
            "best_miou": np.float64(77.6),
        } | others
        path = self.folder / "ckpt_last.pth"
        torch.save(content, path)
        return path


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def imported(*arguments: str | Path | float, **options: Any) -> str:
    """`cmp-seg import-checkpoint`; its standard output."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(import_checkpoint)
    given = [str(part) for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    result = CliRunner().invoke(app, [*map(str, arguments), *given], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def cloud(points: int = 600) -> Scan:
    random = np.random.default_rng(1)
    xyz = random.uniform([-9, -9, -2], [9, 9, 2], (points, 3))
    return Scan(xyz.astype(np.float32), random.uniform(0, 40, points).astype(np.float32))


def assert_answers_as_published(bundle: Bundle, state: published.State, mean: float = 0, std: float = 1) -> None:
    """The bundle's reference engine against the independent forward pass on full grids; every point gets a label."""
    scan, points = cloud(), bundle.points
    assert scan.intensity is not None
    voxels, _ = prepare(scan.xyz, ((scan.intensity - mean) / std).astype(np.float32), points.preprocess)
    batch = published.padded([voxels])
    expected = published.logits(state, batch, points.preprocess.grids, points.network.activation)
    np.testing.assert_allclose(truth(bundle, voxels), expected[0].T, atol=1e-4)
    labels = Segmenter(bundle, "reference")(scan)
    ids = expected[0].argmax(0).numpy()
    assert (labels.label[voxels.points] == ids).mean() > 0.99  # equal but for ties
    assert (labels.label < points.network.outputs).all()


# Every variant

LAYERNORM_PROBE = {"norm": "layernorm", "head": "probe"}
DOWNSTREAM_GRIDS = {
    "dataloader__new_grid_shape": [[40, 40], [40, 12], [40, 12]],
    "dataloader__new_fov": [[-20, -20, -6], [20, 20, 6]],
}
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None, dict[str, Any]]] = {
    # weights, configuration, downstream configuration, what the bundle then has
    "waffleiron": (
        {},
        waffleiron_yaml(),
        None,
        {"variant": "WaffleIron", "width": 8, "depth": 4, "outputs": 5, "drop_path": 0.2, "mode": "raw"}
        | {"norm": "batchnorm", "activation": "relu", "head": "linear", "neighbours": 6, "voxel_size": 0.1}
        | {"planes": ["xy", "xz", "yz"], "grids": [(20, 20), (20, 6), (20, 6)]}
        | {"fov_min": (-10, -10, -3), "fov_max": (10, 10, 3)},
    ),
    # Three inputs, one plane, no drop path; LayerScale after the gathering, which is the same, being per channel.
    "waffleiron before version 0.2": (
        {"inputs": 3},
        waffleiron_yaml(
            waffleiron__dim_proj=[2],
            waffleiron__grids_size=[[20, 20]],
            waffleiron__drop=None,
            embedding__input_feat=["intensity", "height", "radius"],
            embedding__size_input=3,
        ),
        None,
        {"features": ["intensity", "height", "radius"], "planes": ["xy"], "drop_path": 0.0},
    ),
    "planes in the order of the file": (
        {},
        waffleiron_yaml(waffleiron__dim_proj=[0, 2], waffleiron__grids_size=[[20, 6], [20, 20]]),
        None,
        {"planes": ["yz", "xy"]},
    ),
    # In float32: running variances beyond float16 survive.
    "full size": (
        {"width": 256, "depth": 24, "outputs": 16},
        waffleiron_yaml(waffleiron__nb_channels=256, waffleiron__depth=24, classif__nb_class=16),
        None,
        {"parameters": 3_522_084},
    ),
    **{
        name: (
            LAYERNORM_PROBE,
            scalr_yaml(name == "ScaLR+"),
            downstream_yaml(**DOWNSTREAM_GRIDS),
            LAYERNORM_PROBE
            | {"variant": name, "activation": activation, "outputs": 5, "drop_path": 0.1}
            | {"grids": [(40, 40), (40, 12), (40, 12)], "fov_max": (20, 20, 6)}
            | {"mode": "fixed", "mean": 18.742355, "std": 22.04632},
        )
        for name, activation in (("ScaLR", "relu"), ("ScaLR+", "gelu"))
    },
    # Head and classes show in the weights; grids and view are those of the pre-training.
    "ScaLR without its downstream configuration": (
        LAYERNORM_PROBE | {"outputs": 7},
        scalr_yaml(),
        None,
        {"outputs": 7, "grids": [(20, 20), (20, 6), (20, 6)]},
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_answers_as_published(files: Files, name: str) -> None:
    fields, config, downstream, expected = VARIANTS[name]
    state, out = published.state(**fields), files.folder / "out"
    if name == "full size":
        for key in state:
            if key.endswith("weight") and state[key].ndim > 1:
                state[key] /= state[key][0].numel() ** 0.5
        state["embed.norm.running_var"][0] = 3e6
    options = STATISTICS if "point_backbone" in config else {}
    if downstream is not None:
        options = options | {"downstream": files.yaml("downstream", downstream)}
    prefix = "" if "before" in name else "module."
    path = files.weights(state, prefix=prefix)
    report = json.loads(imported(path, "--json", config=files.yaml("c", config), out=out, **options))
    bundle, points = Bundle(out), Bundle(out).points
    found = points.network.model_dump() | points.preprocess.model_dump() | points.intensity.model_dump()
    found |= bundle.description.training
    assert expected.items() <= found.items()
    assert found["imported_from"] == "ckpt_last.pth"
    names = [str(number) for number in range(points.network.outputs)]
    assert bundle.description.label_space.names == report["classes"] == names
    assert report == json.loads((out / "report.json").read_text()) and report["variant"] == found["variant"]
    assert_answers_as_published(bundle, state, points.intensity.mean, points.intensity.std)


@pytest.mark.parametrize("key", ["model_point", "model_points"])
@pytest.mark.parametrize("plus", [False, True], ids=["scalr", "scalr_plus"])
def test_distilled_networks_become_bundles_of_features(files: Files, key: str, plus: bool) -> None:
    state = published.state(norm="layernorm", head="mlp" if plus else "linear", outputs=16)
    path, config = files.weights(state, key), files.yaml("c", scalr_yaml(plus))
    read = checkpoint.read(path, config, files.yaml("d", downstream_yaml()))  # nothing downstream is in it yet
    assert read.distilled and read.standardised
    assert (read.network.config.head, read.network.config.outputs) == ("mlp" if plus else "linear", 16)
    assert read.network.config.activation == ("gelu" if plus else "relu")
    imported(path, config=config, out=files.folder / "b", **STATISTICS)
    bundle = Bundle(files.folder / "b")
    assert bundle.description.kind == "features" and bundle.points.network == read.network.config
    with pytest.raises(UserError, match="is of kind features and has no classes"):
        Segmenter(bundle)
    with pytest.raises(UserError, match="leave --label-space out"):
        imported(path, config=config, out=files.folder / "other", label_space="structural6", **STATISTICS)


def test_label_space_gives_the_names(files: Files) -> None:
    out = files.folder / "b"
    path = files.weights(published.state(outputs=4))
    config = files.yaml("c", waffleiron_yaml(classif__nb_class=4))
    imported(path, config=config, out=out, label_space="structural4")
    assert Bundle(out).description.label_space.names == ["wall", "floor", "ceiling", "non-structural"]
    with pytest.raises(UserError, match=r"'structural6' has 6 classes.*has 4"):
        imported(path, config=config, out=out, label_space="structural6")


LISTS = {
    "waffleiron_256x24_batchnorm_cls16": ("batchnorm", "linear", 256, 24, 16),
    "waffleiron_768x24_layernorm_dist1024": ("layernorm", "linear", 768, 24, 1024),
    "waffleiron_768x48_layernorm_dist1024_scalr_pretrained": ("layernorm", "linear", 768, 48, 1024),
    "scalr_plus_768x48": ("layernorm", "mlp", 768, 48, 1024),
}


@pytest.mark.parametrize("name", LISTS)
def test_published_keys_and_shapes(shared_data: Path, name: str) -> None:
    """Every key of the published networks has its place in ours, at full size (on the meta device: no memory)."""
    path = shared_data.parent / "facts" / f"state_dict_{name}.txt"
    if not path.is_file():
        pytest.skip(f"needs {path.name} beside the shared data")
    lines = [line.split("\t") for line in path.read_text().splitlines() if line and not line.startswith("#")]
    shapes = {key: tuple(map(int, re.findall(r"\d+", shape))) for key, shape, _ in lines}
    state: dict[str, Tensor] = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    seen = checkpoint._visible(state)
    norm, head, width, depth, outputs = LISTS[name]
    hidden = {"head_hidden": 2048} if head == "mlp" else {}
    fields = {"norm": norm, "head": head, "width": width, "depth": depth, "outputs": outputs, "inputs": 5}
    assert seen == fields | hidden
    with torch.device("meta"):
        own = Network(checkpoint.NetworkConfig(**seen)).state_dict()
    assert own.keys() == state.keys()
    for key, value in own.items():
        assert value.numel() == state[key].numel(), key
        assert [size for size in value.shape if size > 1] == [size for size in state[key].shape if size > 1], key


# What a checkpoint file may hold


@pytest.mark.parametrize("core", ["core", "_core"])
def test_numbers_of_numpy_1_and_2_are_read(files: Files, core: str) -> None:
    """Scores and learning rates in published files are numpy scalars, pickled under the name of their day."""
    path = files.weights(published.state())
    content = path.read_bytes()
    ours = b"numpy._core.multiarray" if b"numpy._core.multiarray" in content else b"numpy.core.multiarray"
    new = f"numpy.{core}.multiarray".encode()
    assert ours in content
    again = files.folder / "again.pth"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(again, "w") as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry).replace(ours, new))
    state, distilled = checkpoint.read_state(again)
    assert not distilled and state.keys() == published.state().keys()


def test_files_of_old_pytorch_are_read(files: Files) -> None:
    path = files.folder / "old.pth"
    torch.save({"net": published.state()}, path, _use_new_zipfile_serialization=False)
    assert checkpoint.read_state(path)[0].keys() == published.state().keys()


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_not_run(files: Files, zipped: bool) -> None:
    target = files.folder / "harmed"
    path = files.weights(published.state(), extra=Bomb(target))
    if not zipped:
        path.write_bytes(pickle.dumps({"net": {}, "extra": Bomb(target)}, protocol=2))
    with pytest.raises(UserError, match=r"only tensors and numbers.*posix\.mkdir"):
        checkpoint.read_state(path)
    assert not target.exists()


@pytest.mark.parametrize("share", [0, 0.5])
def test_a_damaged_file_is_named(files: Files, share: float) -> None:
    path = files.weights(published.state())
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match=r"checkpoint .*ckpt_last\.pth") as error:
        checkpoint.read_state(path)
    assert "\n" not in str(error.value)


def test_what_is_no_file_is_named(files: Files) -> None:
    for path in (files.folder, files.folder / "absent.pth"):
        with pytest.raises(UserError, match=f"{path} cannot be read"):
            checkpoint.read_state(path)


def changed_state(drop: str = "", nan: str = "", **fields: Any) -> published.State:
    state = published.state(**fields)
    state.pop(drop, None)
    if nan:
        state[nan][2] = float("nan")
    return state


DISTILLED = {"norm": "layernorm", "head": "mlp", "outputs": 16}


@pytest.mark.parametrize(
    ("content", "config", "message"),
    [
        (
            {"state_dict": {}, "epoch": 3},
            waffleiron_yaml(),
            "has none of the keys 'net', 'model_point', 'model_points'.*it has: state_dict, epoch",
        ),
        ([1, 2], waffleiron_yaml(), "has none of .*it has: list"),
        ({"net": [1, 2]}, waffleiron_yaml(), "'net' in .*is not a dict of tensors"),
        ({"net": {"a": 3}}, waffleiron_yaml(), "'net' in .*is not a dict of tensors"),
        ({"net": {}}, waffleiron_yaml(), "missing: classif.bias, classif.weight, embed.conv1.bias"),
        # Of keys that tell the architecture, too.
        ({"net": changed_state(drop="classif.weight")}, waffleiron_yaml(), "missing: classif.weight"),
        ({"net": changed_state(drop="embed.conv1.weight")}, waffleiron_yaml(), "missing: embed.conv1.weight"),
        ({"net": changed_state(nan="embed.final.bias")}, waffleiron_yaml(), r"not finite: embed\.final\.bias"),
        *(
            ({"net": published.state(**fields)}, config, rf"does not match configuration .*c\.yaml: it has .*{message}")
            for fields, config, message in (
                ({}, waffleiron_yaml(waffleiron__nb_channels=16), "width 8, not 16"),
                ({"depth": 3}, waffleiron_yaml(), "depth 3, not 4"),
                ({"norm": "layernorm"}, waffleiron_yaml(), "norm layernorm, not batchnorm"),
                ({"width": 4, "depth": 2}, waffleiron_yaml(), "width 4, not 8; depth 2, not 4"),
                (DISTILLED, scalr_yaml(), "head mlp, not linear"),
                (DISTILLED | {"hidden": 9}, scalr_yaml(plus=True), "head_hidden 9, not"),
            )
        ),
    ],
)
def test_weights_that_do_not_fit_are_explained(files: Files, content: Any, config: Any, message: str) -> None:
    path = files.folder / "ckpt_last.pth"
    torch.save(content, path)
    with pytest.raises(UserError, match=message) as error:
        checkpoint.read(path, files.yaml("c", config))
    assert str(path) in str(error.value)


def test_the_wrong_downstream_configuration_is_told(files: Files) -> None:
    path, pretrain = files.weights(published.state(**LAYERNORM_PROBE)), files.yaml("p", scalr_yaml())
    with pytest.raises(UserError, match="outputs 5, not 19"):
        checkpoint.read(path, pretrain, files.yaml("d", downstream_yaml(classif__nb_class=19)))


# What a configuration may hold


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("", "has no fields"),
        ("a: [1, 2", "is not YAML"),
        ("a: !!python/object/apply:os.getcwd []", "is not YAML"),
        ("a: 1", r"embedding\.size_input: Field required.*waffleiron\.nb_channels: Field required"),
        (downstream_yaml(), "downstream configuration of ScaLR; give it with --downstream"),
        (waffleiron_yaml(waffleiron__depth="deep"), r"waffleiron\.depth: .*integer"),
        (waffleiron_yaml(waffleiron__dim_proj=[3, 1, 0]), r"waffleiron\.dim_proj\.0"),
        (waffleiron_yaml(waffleiron__grids_size=[[20, 20]]), "3 planes but 1 grids"),
        (waffleiron_yaml(waffleiron__fov_xyz=[[10, -10, -3], [-10, 10, 3]]), "fov_min must be below fov_max"),
        (waffleiron_yaml(embedding__size_input=4), "size_input is 4, but intensity, xyz, radius are 5 channels"),
        (waffleiron_yaml(embedding__input_feat=["colour"]), r"embedding\.input_feat\.0: .*'intensity'"),
        (scalr_yaml(point_backbone__grid_shape=None), r"point_backbone\.grid_shape: Field required"),
    ],
)
def test_a_configuration_that_makes_no_sense(files: Files, config: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        checkpoint.read_config(files.yaml("c", config))
    assert "c.yaml" in str(error.value) and "\n" not in str(error.value)


def test_configurations_in_each_others_place(files: Files) -> None:
    pretrain, downstream = files.yaml("p", scalr_yaml()), files.yaml("d", downstream_yaml())
    waffleiron = files.yaml("w", waffleiron_yaml())
    with pytest.raises(UserError, match=r"d\.yaml is a downstream configuration.*--downstream"):
        checkpoint.read_config(downstream, pretrain)
    with pytest.raises(UserError, match=r"--downstream needs .*ScaLR's pre-training, but .*w\.yaml is not one"):
        checkpoint.read_config(waffleiron, downstream)
    for other in (pretrain, waffleiron):
        with pytest.raises(UserError, match="this is a complete configuration; give it with --config"):
            checkpoint.read_config(pretrain, other)
    with pytest.raises(UserError, match=r"absent\.yaml cannot be read"):
        checkpoint.read_config(files.folder / "absent.yaml")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"intensity_mean": 1.0},
        {"intensity_mean": 1.0, "intensity_std": 0.0},
        {"intensity_mean": "inf", "intensity_std": 1.0},
    ],
)
def test_scalr_needs_the_statistics_of_its_data(files: Files, options: dict[str, Any]) -> None:
    path = files.weights(published.state(norm="layernorm", head="probe"))
    config, downstream = files.yaml("p", scalr_yaml()), files.yaml("d", downstream_yaml())
    with pytest.raises(UserError, match=r"--intensity-mean.*nuScenes 18\.742355 and 22\.04632; SemanticKITTI"):
        imported(path, config=config, downstream=downstream, out=files.folder / "b", **options)


def test_waffleiron_takes_raw_intensities(files: Files) -> None:
    with pytest.raises(UserError, match="raw intensities"):
        path = files.weights(published.state())
        imported(path, config=files.yaml("c", waffleiron_yaml()), out=files.folder / "b", **STATISTICS)


def test_the_command_line_says_it_in_one_line(files: Files, run: Run) -> None:
    """No traceback, status 1, and what looks like markup in a name is left alone."""
    absent, config = files.folder / "[red]absent.pth", files.yaml("c", waffleiron_yaml())
    done = run("import-checkpoint", absent, "--config", config, "--out", files.folder / "b")
    said = f"error: checkpoint {absent} cannot be read: No such file or directory; give the published .pth, unpacked\n"
    assert (done.code, done.out, done.err) == (1, "", said)

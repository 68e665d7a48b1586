"""`cmp-seg import-checkpoint`."""

from math import inf, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmp_seg_ros.bundle import IntensityConfig
from cmp_seg_ros.cli import options
from cmp_seg_ros.errors import UserError

if TYPE_CHECKING:
    from cmp_seg_ros.label_space import LabelSpace

# Mean and standard deviation of the intensities in ScaLR's training data (from its data loaders).
SCALR_INTENSITY = {
    "nuScenes": (18.742355, 22.04632),
    "SemanticKITTI": (0.28613698, 0.14090556),
    "PandaSet Pandar64": (18.23640649, 25.86983417),
    "PandaSet PandarGT": (23.06113565, 16.76273235),
}


def import_checkpoint(
    checkpoint: Annotated[
        Path, typer.Argument(help="The file ckpt_last.pth or model.pth of WaffleIron, ScaLR or ScaLR+.")
    ],
    config: Annotated[Path, typer.Option(help="Its published YAML; for ScaLR, that of the pre-training.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle to write.")],
    downstream: Annotated[Path | None, typer.Option(help="ScaLR's YAML of linear probing or fine-tuning.")] = None,
    intensity_mean: Annotated[float | None, typer.Option(help="Mean intensity of the training data (ScaLR).")] = None,
    intensity_std: Annotated[float | None, typer.Option(help="Standard deviation of the intensity (ScaLR).")] = None,
    label_space: Annotated[
        str | None, typer.Option(help="YAML file or name; by default, classes are numbered.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Convert a published checkpoint to a bundle."""
    import hashlib
    import json

    from rich.console import Console

    from cmp_seg_ros.bundle import DESCRIPTION, WEIGHTS, Bundle, Kind, PointNetwork
    from cmp_seg_ros.outputs import REPORT, claim, require_writable, write_report
    from cmp_seg_ros.scan import UNLABELLED
    from cmp_seg_ros.waffleiron import checkpoint as published
    from cmp_seg_ros.waffleiron import weights

    require_writable(out, "import-checkpoint", (REPORT, DESCRIPTION, WEIGHTS))
    read = published.read(checkpoint, config, downstream)
    network = read.network.config
    if network.outputs > UNLABELLED and not read.distilled:
        raise UserError(f"checkpoint {checkpoint} has {network.outputs} classes; at most {UNLABELLED} are supported")
    intensity = _intensity(read.standardised, intensity_mean, intensity_std)
    space = _space(label_space, network.outputs, read.distilled, checkpoint)

    console = Console(stderr=True, soft_wrap=True, markup=False)
    if network.head == "probe" and downstream is None:
        console.print(
            "warning: without --downstream, grids and field of view are taken from the pre-training; "
            "PandaSet's checkpoints use different ones"
        )
    report: dict[str, Any] = {
        "imported_from": checkpoint.name,
        "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "variant": read.variant,
        "config": config.name,
        "downstream": downstream and downstream.name,
        "parameters": sum(parameter.numel() for parameter in read.network.parameters()),
    }
    claim(out, "import-checkpoint", (REPORT, DESCRIPTION, WEIGHTS))
    # float32: published running variances of raw intensities can exceed what float16 holds, and parity is to 1e-4.
    kind: Kind = "features" if read.distilled else "segmentation"
    bundle = Bundle.write(
        out,
        weights.serialise(read.network, half=False),
        name=out.resolve().name,
        kind=kind,
        label_space=space,
        training=report,
        **{kind: PointNetwork(network=network, preprocess=read.preprocess, intensity=intensity)},
    )
    report = {"command": "import-checkpoint", **report, "bundle": str(bundle.path), "kind": kind}
    report["classes"] = [] if space is None else space.names
    report |= network.model_dump(mode="json")
    write_report(out, report)
    if as_json:
        typer.echo(json.dumps(report))
    else:
        size = f"{network.width} x {network.depth}, {report['parameters'] / 1e6:.1f} M parameters"
        outputs = "features; gives no labels until it is probed or fine-tuned" if read.distilled else "classes"
        console.print(f"bundle in {bundle.path}: {read.variant} {size}, {network.outputs} {outputs}")


def _space(name: str | None, outputs: int, distilled: bool, checkpoint: Path) -> "LabelSpace | None":
    """The bundle's label space; None for a distilled network, whose outputs are features. Raises UserError."""
    from cmp_seg_ros.label_space import LabelSpace

    if distilled:
        if name is not None:
            raise UserError(f"checkpoint {checkpoint} is distilled and has no classes; leave --label-space out")
        return None
    space = LabelSpace.numbered(outputs) if name is None else LabelSpace.load(name)
    if len(space.classes) != outputs:
        raise UserError(
            f"label space '{space.name}' has {len(space.classes)} classes, checkpoint {checkpoint} has {outputs}; give "
            "a label space with the checkpoint's classes in the same order"
        )
    return space


def _intensity(standardised: bool, mean: float | None, std: float | None) -> IntensityConfig:
    if not standardised:
        if mean is not None or std is not None:
            raise UserError("WaffleIron uses raw intensities; leave --intensity-mean and --intensity-std out")
        return IntensityConfig(mode="raw")
    if mean is None or std is None or not isfinite(mean) or not 0 < std < inf:
        known = "; ".join(f"{name} {m} and {s}" for name, (m, s) in SCALR_INTENSITY.items())
        raise UserError(
            "ScaLR standardises intensities; give --intensity-mean and a positive --intensity-std of the checkpoint's "
            f"training data ({known})"
        )
    return IntensityConfig(mode="fixed", mean=mean, std=std)

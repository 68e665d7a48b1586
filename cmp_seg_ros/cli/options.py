"""Options that several commands share; each command gives the default."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str, typer.Option(help="A bundle: a folder, or a name in models/.")]
Occupancy = Annotated[str, typer.Option(help="A bundle of kind occupancy: a folder, or a name in models/.")]
Engine = Annotated[str, typer.Option(help="auto, or the name of an engine; reference is PyTorch in float32.")]
FieldEngine = Annotated[str, typer.Option(help="folded, reference, or onnxruntime.")]
LabelSpace = Annotated[
    str | None, typer.Option(help="Output label space (such as structural4, or a file) instead of the model's.")
]
Topic = Annotated[str, typer.Option(help="PointCloud2 topic, if a bag has several.")]
Columns = Annotated[
    str, typer.Option(help="Columns of a .bin or .npy other than x,y,z,i: e.g. x,y,z,i,r or x:f8,y:f8,z:f8.")
]
Calibration = Annotated[
    Path | None, typer.Option(help="Calibration file; by default calibration.yaml in or beside the input, if any.")
]
Lidar = Annotated[str, typer.Option(help="Name of the lidar, if the calibration has several.")]
MaxScans = Annotated[int | None, typer.Option(help="Stop after this many scans.", min=1)]
Recipe = Annotated[str, typer.Option(help="A YAML file, or a name in config/training/.")]
Run = Annotated[Path, typer.Option(help="Folder of the run: checkpoint, log, pictures, bundle. A run resumes here.")]
Hours = Annotated[float | None, typer.Option(help="Time budget; the schedule ends with it.", min=0.001, max=8760)]
Devices = Annotated[int | None, typer.Option(help="Number of GPUs, or of processes; default 1.", min=1)]
Cache = Annotated[Path | None, typer.Option(help="Folder of prepared scans; by default OUT/scans.")]
Workers = Annotated[int, typer.Option(help="Processes that prepare batches, for each device.", min=0)]
Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]

"""`cmp-seg compare`."""

from pathlib import Path
from typing import Annotated

import typer

from cmp_seg_ros.cli import options
from cmp_seg_ros.cli.tables import printed, show

PICTURE, RELIABILITY = "compare.png", "reliability.png"


def compare(
    a: Annotated[
        Path,
        typer.Argument(
            metavar="A",
            help="A report.json of `cmp-seg evaluate` with truth or --suite, or the folder that holds it.",
            show_default=False,
        ),
    ],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another, likewise.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Folder for page.html, report.md, report.json and pictures.")] = None,
    as_json: options.Json = False,
) -> None:
    """Put two reports side by side, and say which differences are more than noise."""
    from cmp_seg_ros.evaluation import compare as comparing
    from cmp_seg_ros.evaluation import reliability
    from cmp_seg_ros.evaluation.compare_page import draw, page_of, table_of
    from cmp_seg_ros.evaluation.page import HTML, MARKDOWN, Picture
    from cmp_seg_ros.outputs import REPORT, require_writable, write_report, writing

    if out is not None:
        require_writable(out, "compare", (REPORT, HTML, MARKDOWN, PICTURE, RELIABILITY))
    sources = comparing.Loaded(a), comparing.Loaded(b)
    comparison = comparing.compare(*sources)
    if out is not None:
        with writing(out):
            for picture in (PICTURE, RELIABILITY):  # of an earlier run
                (out / picture).unlink(missing_ok=True)
            write_report(out, comparison.model_dump(mode="json"))
            draw(out / PICTURE, comparison)
            curves = {
                name: source.accuracy.reliability
                for name, source in zip("AB", sources, strict=True)
                if source.accuracy is not None and source.accuracy.reliability is not None
            }
            if curves:
                reliability.plot(out / RELIABILITY, curves, "Calibration of confidences")
            captions = {
                PICTURE: "Differences, B minus A, with their intervals.",
                RELIABILITY: "Share of right points over confidence, and share of points by confidence.",
            }
            found = [Picture(out / name, text) for name, text in captions.items() if (out / name).exists()]
            page_of(comparison, found).write(out)
    if as_json:
        print(comparison.model_dump_json())
        return
    show(f"A: {comparison.a.path}\nB: {comparison.b.path}")
    show(*(printed(table_of(section)) for section in comparison.sections if not section.detail))
    level = comparison.bootstrap.level
    show(
        f"Differences are in percentage points, with {level:.0%} intervals: one in {1 / (1 - level):.0f} excludes 0 by "
        "chance alone. Precision and recall are in --json and --out.\n"
    )
    show(*comparison.summary, *(f"note: {line}" for line in comparison.notes))

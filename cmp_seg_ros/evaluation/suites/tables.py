"""The report of a benchmark suite as tables, for a terminal and for Markdown; an empty row is a rule."""

from collections.abc import Callable
from typing import Any

from cmp_seg_ros.cli.tables import counted
from cmp_seg_ros.evaluation import page
from cmp_seg_ros.evaluation.page import Table
from cmp_seg_ros.evaluation.suites.scores import MEAN


def heading(report: dict[str, Any]) -> str:
    """What was measured, in a sentence."""
    part = "" if report["whole"] else " (a part of it)"
    places = []
    if report["rows"]:
        places = [f"{_places(report)}, {counted(report['scans_per_building'], 'scan')} of each with every sensor"]
    if report["recordings"]:
        places.append(counted(sum(row["scans"] for row in report["recordings"].values()), "real scan"))
    return (
        f"{report['model']} with {report['engine']}, voxels of {report['voxel_size']:g} m, "
        f"on {report['suite']}{part}: {'; '.join(places)}"
    )


def _places(report: dict[str, Any]) -> str:
    """Buildings, and of rows in a furnished scene the visits to it, which take their place."""
    count, rows = report["buildings"], report["rows"]
    scenes = [name for name in in_detail(report) if rows[name].get("scene")]
    boxes = list(dict.fromkeys(row["boxes"] for row in rows.values() if row.get("boxes")))
    visits = f"{counted(count, 'visit')} in {', '.join(scenes)}"
    if boxes:
        rooms = f"{counted(count, 'box room')} each of {', '.join(boxes)}"
        visits = f"{visits} and {rooms}" if scenes else rooms
    if all(row.get("scene") or row.get("boxes") for row in rows.values()):
        return visits
    buildings = f"{counted(count, 'building')} from seed {report['first_building']:,}"
    return f"{buildings} ({visits})" if scenes or boxes else buildings


def in_detail(report: dict[str, Any]) -> list[str]:
    """Rows that stand for themselves: scans as the sensor gives them, in the mounts that come with them."""
    rows = report["rows"]
    changed = ("mount", "response", "statistics")
    bare = {name: row for name, row in rows.items() if not any(row.get(key) for key in changed)}
    found = [name for name, row in bare.items() if row.get("intensity", True)]
    return found or list(rows)[:1]


def sheets(report: dict[str, Any]) -> list[Table]:
    """All rows by sensor, some in detail, and the musts."""
    found = [_overview(report), *(_details(report, name) for name in in_detail(report))] if report["rows"] else []
    if report["recordings"]:
        found += [_planes_sheet(report["recordings"]), _teacher_sheet(report["recordings"])]
    return [*found, _must_sheet(report)] if report["musts"] else found


def _overview(report: dict[str, Any]) -> Table:
    sensors = list(dict.fromkeys(sensor for row in report["rows"].values() for sensor in row["sensors"]))
    lines = []
    for name, row in report["rows"].items():
        difference = row.get("difference")
        against = ""
        if difference:
            against = f"{row['against']}: {points(difference[MEAN])} ({_span(difference['interval'], points)})"
        by_sensor = (percent(row["sensors"].get(sensor, {}).get("primary")) for sensor in sensors)
        mean = row[MEAN]
        others = percent(mean["ece"]), percent(mean["false_person"], 2)
        lines.append([name, *by_sensor, percent(mean["primary"]), _span(mean["interval"]), *others, against])
    lines += [[name, *[""] * (len(sensors) + 4), "not run"] for name in report["skipped"]]
    level = f"{report['bootstrap']['level']:.0%}"
    header = ["", *sensors, "mean", level, "ECE", "false person", f"difference ({level})"]
    return Table(header, lines, "Primary mIoU, calibration error, points wrongly called person, in per cent")


def _details(report: dict[str, Any], name: str) -> Table:
    row = report["rows"][name]
    sensors = row["sensors"]
    columns = list(sensors.values())
    every = [*columns, row[MEAN]]
    lines = [
        ["mIoU, primary", *(percent(column["primary"]) for column in every)],
        [f"{report['bootstrap']['level']:.0%} interval", *(_span(column["interval"]) for column in every)],
        ["mIoU, strict", *(percent(column["strict"]) for column in every)],
        [],
        *([c, *(percent(column["iou"][c]) for column in every)] for c in columns[0]["iou"]),
    ]
    spaces = [key for key, value in columns[0].items() if isinstance(value, dict) and "miou" in value]
    for space in spaces:
        lines += [[], [f"mIoU, {space}", *(percent(column[space]["miou"]) for column in columns), ""]]
        lines += [[c, *(percent(column[space]["iou"][c]) for column in columns), ""] for c in columns[0][space]["iou"]]
    lines.append([])
    edges = report["range_bins"]
    for i, low in enumerate(edges):
        label = f"{low:g}-{edges[i + 1]:g} m" if i + 1 < len(edges) else f"from {low:g} m"
        lines.append([f"primary, {label}", *(percent(column["by_range"][i]["primary"]) for column in columns), ""])
    lines += [[], ["points", *(f"{column['points']:,}" for column in columns), ""]]
    lines.append(["voxels a scan", *(f"{column['voxels_per_scan']:,.0f}" for column in columns), ""])
    return Table(["", *sensors, "mean"], lines, f"{name}: IoU in per cent")


def _planes_sheet(recordings: dict[str, Any]) -> Table:
    """Real scans against their planes: medians over the scans."""
    lines = []
    for name, row in recordings.items():
        floor, ceiling, wall = (row["planes"][surface] for surface in ("floor", "ceiling", "wall"))
        level = (percent(surface[figure]) for surface in (floor, ceiling) for figure in ("recall", "precision"))
        person = percent(row["share"].get("person"), 2) + ("" if row["people"] else " (nobody there)")
        unlike = "-" if row["unlikeness"] is None else f"{row['unlikeness']:.2f}"
        lines.append([name, str(row["scans"]), *level, percent(wall["recall"]), person, unlike])
    header = ["", "scans", "floor recall", "precision", "ceiling recall", "precision", "wall recall"]
    return Table([*header, "person", "unlikeness"], lines, "Real scans against their planes, in per cent")


def _teacher_sheet(recordings: dict[str, Any]) -> Table:
    """Real scans against what the teacher sees in their images."""
    looked = {name: row["agreement"] for name, row in recordings.items() if row["agreement"]}
    names = list(next(iter(looked.values()), {}))
    lines = [
        [name, *(f"{percent(row[c]['agrees'])} of {row[c]['points']:,}" for c in names)] for name, row in looked.items()
    ]
    return Table(["", *names], lines, "Labels that agree with the teacher where it is sure, in per cent of points")


def _must_sheet(report: dict[str, Any]) -> Table:
    lines = []
    for must in report["musts"]:
        said = {True: "met", False: "MISSED", None: "not measured"}[must["met"]]
        shown = points if (must["limit"] or 0) < 0 else percent
        limit = f"{must['bound']} {shown(must['limit'])}"
        lines.append([must["row"], must["what"], limit, shown(must["measured"]), said])
    return Table(["row", "of", "must be", "measured", ""], lines, "Musts, each at its worst")


def markdown(report: dict[str, Any]) -> str:
    """The sheets as a page."""
    text = [f"# {report['suite']}", f"{heading(report)}.", f"{report['description']}.", "## Results"]
    text += map(page.markdown, sheets(report))
    text += [f"Not run: {name}: {reason}." for name, reason in report["skipped"].items()]
    return "\n\n".join(text) + "\n"


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction for people; a dash where there is none."""
    return "-" if value is None else f"{100 * value:.{digits}f}"


def points(value: float | None) -> str:
    """A difference of fractions in points, with its sign."""
    return "-" if value is None else f"{100 * value:+.1f}"


def _span(interval: list[float] | None, shown: Callable[[float], str] = percent) -> str:
    return "-" if interval is None else f"{shown(interval[0])} to {shown(interval[1])}"

"""Readers of scans: what goes in comes out, and what is broken is said in one line."""

import struct
from pathlib import Path

import numpy as np
import pytest

from cmp_seg_ros.datasets import bare, open_input
from cmp_seg_ros.datasets.frame import Frame
from cmp_seg_ros.datasets.pcd import lzf_decompress
from cmp_seg_ros.datasets.ply import write_labelled
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import Labels, Scan

RNG = np.random.default_rng(0)
XYZ = RNG.normal(size=(57, 3)).astype(np.float32)
INTENSITY = RNG.uniform(0, 255, 57).astype(np.float32)


def read(path: Path) -> Frame:
    (sample,) = open_input(path)
    return sample


def pcd(encoding: str, fields: dict[str, np.ndarray], order: list[str], **header: str) -> bytes:
    """A .pcd of `fields` in some order."""
    kinds = {"f": "F", "i": "I", "u": "U"}
    columns = {name: fields[name] for name in order}
    count = len(next(iter(columns.values())))
    lines = {
        "VERSION": "0.7",
        "FIELDS": " ".join(order),
        "SIZE": " ".join(str(values.dtype.itemsize) for values in columns.values()),
        "TYPE": " ".join(kinds[values.dtype.kind] for values in columns.values()),
        "COUNT": " ".join("1" for _ in columns),
        "WIDTH": str(count),
        "HEIGHT": "1",
        "VIEWPOINT": "0 0 0 1 0 0 0",
        "POINTS": str(count),
        "DATA": encoding,
        **header,
    }
    text = "# .PCD v0.7 - Point Cloud Data file format\n" + "".join(f"{k} {v}\n" for k, v in lines.items())
    table = np.zeros(count, [(name, values.dtype) for name, values in columns.items()])
    for name, values in columns.items():
        table[name] = values
    if encoding == "ascii":
        body = "".join(" ".join(repr(value.item()) for value in row) + "\n" for row in table).encode()
    elif encoding == "binary":
        body = table.tobytes()
    else:
        plain = b"".join(np.ascontiguousarray(values).tobytes() for values in columns.values())
        packed = lzf_literals(plain)
        body = struct.pack("<II", len(packed), len(plain)) + packed
    return text.encode() + body


def lzf_literals(data: bytes) -> bytes:
    """LZF that compresses nothing."""
    return b"".join(bytes([len(data[i : i + 32]) - 1]) + data[i : i + 32] for i in range(0, len(data), 32))


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
@pytest.mark.parametrize("order", [["x", "y", "z"], ["intensity", "z", "ring", "x", "stamp", "y"]])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_pcd(tmp_path: Path, encoding: str, order: list[str], kind: type) -> None:
    fields = {axis: XYZ[:, i].astype(kind) for i, axis in enumerate("xyz")}
    fields |= {"intensity": INTENSITY.astype(np.uint8), "ring": np.arange(57, dtype=np.uint16)}
    fields["stamp"] = np.arange(57, dtype=np.int64)
    (tmp_path / "scan.pcd").write_bytes(pcd(encoding, fields, order))
    sample = read(tmp_path / "scan.pcd")
    np.testing.assert_allclose(sample.scan.xyz, XYZ, rtol=1e-6)
    assert sample.key == "scan"
    if "intensity" in order:
        np.testing.assert_array_equal(sample.scan.intensity, fields["intensity"])
    else:
        assert sample.scan.intensity is None
    assert [field.name for field in sample.message.fields] == order


XYZI = {**dict(zip("xyz", XYZ.T, strict=True)), "intensity": INTENSITY}
PCD_HEADERS = {
    "no version": lambda text: text.replace("VERSION 0.7\n", ""),
    "no first line": lambda text: text.split("\n", 1)[1],
    "neither": lambda text: text.split("\n", 1)[1].replace("VERSION 0.7\n", ""),
    "COLUMNS": lambda text: text.replace("FIELDS", "COLUMNS").replace("VERSION 0.7\n", "VERSION .5\n"),
    "long comment": lambda text: "# " + "-" * 5000 + "\n" + text,
    "comments between": lambda text: text.replace("WIDTH", "# made by hand\n\n#\nWIDTH"),
    "no sizes, types and counts": lambda text: "".join(
        line + "\n" for line in text.splitlines() if line.split()[0] not in ("SIZE", "TYPE", "COUNT")
    ),
    "points alone": lambda text: text.replace("WIDTH 57\nHEIGHT 1\n", ""),
    "carriage returns, tabs": lambda text: text.replace("\n", "\r\n").replace("FIELDS ", "\tFIELDS\t"),
    "small letters": lambda text: text.replace("DATA binary", "DATA BINARY").replace("F F F F", "f f f f"),
}


@pytest.mark.parametrize("name", PCD_HEADERS)
def test_pcd_headers_as_pcl_takes_them(tmp_path: Path, name: str) -> None:
    content = pcd("binary", XYZI, list(XYZI))
    end = content.index(b"DATA binary\n") + len(b"DATA binary\n")
    header = PCD_HEADERS[name](content[:end].decode())
    for file in ("scan.pcd", "scan.txt"):
        (tmp_path / file).write_bytes(header.encode() + content[end:])
        scan = read(tmp_path / file).scan
        np.testing.assert_array_equal(scan.xyz, XYZ)
        np.testing.assert_array_equal(scan.intensity, INTENSITY)


def test_pcd_keeps_its_shape_and_takes_fields_of_several_values(tmp_path: Path) -> None:
    table = np.zeros(6, [("x", "<f4"), ("normal", "<f4", 3), ("y", "<f4"), ("z", "<f4"), ("_", "u1"), ("_2", "u1")])
    table["y"] = np.arange(6)
    header = (
        "VERSION .7\nFIELDS x normal y z _ _\nSIZE 4 4 4 4 1 1\nTYPE F F F F U U\nCOUNT 1 3 1 1 1 1\n"
        "WIDTH 3\nHEIGHT 2\nPOINTS 6\nDATA binary\n"
    )
    (tmp_path / "organised").write_bytes(header.encode() + table.tobytes())
    scan = read(tmp_path / "organised").scan
    assert scan.shape == (2, 3)
    np.testing.assert_array_equal(scan.xyz[:, 1], np.arange(6))


def test_lzf_unpacks_references() -> None:
    # "abcabcabcabc!": a literal run of 3, a reference 3 back of 9 (overlapping), a literal.
    packed = bytes([2]) + b"abc" + bytes([7 << 5, 0, 2]) + bytes([0]) + b"!"
    assert lzf_decompress(packed, 13) == b"abcabcabcabc!"
    with pytest.raises(ValueError, match="before the start"):
        lzf_decompress(bytes([1 << 5, 9]), 3)


VERTEX = "element vertex 57\nproperty float x\nproperty float y\nproperty float z\nproperty float intensity\n"
CAMERA = "element camera 2\nproperty float view_px\nproperty uchar on\n"
FACES = "element face 2\nproperty list uchar int vertex_indices\nproperty uchar flag\n"
PLY_HEADERS = {
    "plain": VERTEX,
    "a list of each vertex": VERTEX + "property list uchar int view\n",
    "a list in the middle": VERTEX.replace("property float y", "property list uchar int view\nproperty float y"),
    "a camera before": CAMERA + VERTEX,
    "faces before": FACES + VERTEX,
    "faces behind": VERTEX + FACES,
    "end_header in a comment": "comment before the end_header line\nobj_info end_header\n" + VERTEX,
    "other types": VERTEX.replace("float y", "double y").replace("float int", "uint8 int"),
    "CloudCompare": VERTEX.replace("float intensity", "float scalar_intensity"),
    "CloudCompare's newer": VERTEX.replace("float intensity", "float scalar_Intensity"),
}


def ply(encoding: str, elements: str) -> bytes:
    """A .ply whose elements are as described: vertices of XYZI, lists of growing length, other numbers 1."""
    order = ">" if "big" in encoding else "<"
    rows: list[list[tuple[str, float]]] = []
    described: list[tuple[str, int, list[list[str]]]] = []
    for line in elements.splitlines():
        match line.split():
            case ["element", name, count]:
                described.append((name, int(count), []))
            case ["property", *words]:
                described[-1][2].append(words)
    letters = {"float": "f", "double": "d", "uchar": "B", "uint8": "B", "int": "i"}
    for name, count, properties in described:
        for i in range(count):
            row: list[tuple[str, float]] = []
            for words in properties:
                if words[0] == "list":
                    row += [(letters[words[1]], i % 4), *[(letters[words[2]], 7)] * (i % 4)]
                else:
                    column = words[1].removeprefix("scalar_").lower()
                    value = XYZI[column][i] if name == "vertex" else 1
                    row.append((letters[words[0]], value if letters[words[0]] in "fd" else int(value)))
            rows.append(row)
    text = f"ply\nformat {encoding} 1.0\n{elements}end_header\n".encode()
    if encoding == "ascii":
        return (
            text
            + "".join(
                " ".join(repr(type(v)(v)) if k not in "fd" else repr(float(v)) for k, v in row) + "\n" for row in rows
            ).encode()
        )
    return text + b"".join(struct.pack(order + "".join(k for k, _ in row), *(v for _, v in row)) for row in rows)


@pytest.mark.parametrize("encoding", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("name", PLY_HEADERS)
def test_ply_as_the_format_allows(tmp_path: Path, encoding: str, name: str) -> None:
    content = ply(encoding, PLY_HEADERS[name])
    (tmp_path / "a.ply").write_bytes(content)
    frame = read(tmp_path / "a.ply")
    np.testing.assert_allclose(frame.scan.xyz, XYZ, rtol=1e-6)
    expected = np.floor(INTENSITY) if "uint8" in PLY_HEADERS[name] else INTENSITY
    np.testing.assert_allclose(frame.scan.intensity, expected, rtol=1e-6)
    assert not any("scalar" in field.name for field in frame.message.fields)
    if "behind" not in name:
        (tmp_path / "a.ply").write_bytes(content[: len(content) * 9 // 10])
        with pytest.raises(UserError, match=r"cut short|does not fit"):
            list(open_input(tmp_path / "a.ply"))


PLY_OTHERS = {  # what other programs write; from the file as we write it
    "carriage returns alone": lambda content: content.replace(b"\n", b"\r"),
    "carriage returns, too": lambda content: content.replace(b"\n", b"\r\n"),
    "blank lines of an element without properties": lambda content: content.replace(
        b"element vertex", b"element nothing 2\nelement vertex"
    ).replace(b"end_header\n", b"end_header\n\n\n"),
    "format last": lambda content: content.replace(b"format ascii 1.0\n", b"").replace(
        b"end_header", b"format ascii 1.0\nend_header"
    ),
}


@pytest.mark.parametrize("name", PLY_OTHERS)
def test_ply_of_other_programs(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.ply").write_bytes(PLY_OTHERS[name](ply("ascii", VERTEX)))
    np.testing.assert_allclose(read(tmp_path / "a.ply").scan.intensity, INTENSITY, rtol=1e-6)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_binary_ply_whose_format_stands_last(tmp_path: Path, line_end: bytes) -> None:
    header, body = ply("binary_big_endian", VERTEX).split(b"end_header\n")
    first, said, *elements = header.splitlines()
    header = line_end.join([first, *elements, said, b"end_header", b""])
    (tmp_path / "a.ply").write_bytes(header + body)
    np.testing.assert_array_equal(read(tmp_path / "a.ply").scan.xyz, XYZ)


def test_a_scalar_field_without_a_name_is_the_intensity_where_there_is_no_other(tmp_path: Path) -> None:
    unnamed = VERTEX.replace("float intensity", "float scalar_Scalar_field")
    content = ply("ascii", VERTEX).replace(VERTEX.encode(), unnamed.encode())
    (tmp_path / "a.ply").write_bytes(content)
    reader = open_input(tmp_path / "a.ply")
    (frame,) = reader
    np.testing.assert_allclose(frame.scan.intensity, INTENSITY, rtol=1e-6)
    assert "taken as intensity" in next(iter(reader.notes))
    (tmp_path / "a.ply").write_bytes(content.replace(b"float z", b"float Reflectance"))
    reader = open_input(tmp_path / "a.ply")
    with pytest.raises(
        UserError, match=r"no field z; its fields are x, y, Reflectance, Scalar_field\. Give a cloud whose"
    ):
        list(reader)
    assert not reader.notes


def test_labelled_ply_reads_back(tmp_path: Path) -> None:
    space = LabelSpace.load("structural6")
    labels = Labels((np.arange(57) % 7).astype(np.uint8), np.linspace(0, 1, 57, dtype=np.float32))
    write_labelled(tmp_path / "a.ply", Scan(XYZ, INTENSITY), labels, space)
    sample = read(tmp_path / "a.ply")
    np.testing.assert_array_equal(sample.scan.xyz, XYZ)
    np.testing.assert_array_equal(sample.scan.intensity, INTENSITY)
    from cmp_seg_ros.messages.point_cloud2 import decode_labels

    np.testing.assert_array_equal(decode_labels(sample.message).label, labels.label)
    np.testing.assert_array_equal(decode_labels(sample.message).confidence, labels.confidence)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16])
def test_npy(tmp_path: Path, kind: type) -> None:
    points = (100 * np.column_stack([XYZ, INTENSITY])).astype(kind)
    np.save(tmp_path / "four.npy", points)
    np.save(tmp_path / "three.npy", np.asfortranarray(points[:, :3]))
    np.save(tmp_path / "image.npy", points[:56].reshape(7, 8, 4))
    np.testing.assert_allclose(read(tmp_path / "four.npy").scan.xyz, points[:, :3].astype(np.float32))
    np.testing.assert_allclose(read(tmp_path / "four.npy").scan.intensity, points[:, 3].astype(np.float32))
    np.testing.assert_allclose(read(tmp_path / "three.npy").scan.xyz, points[:, :3].astype(np.float32))
    assert read(tmp_path / "three.npy").scan.intensity is None
    assert read(tmp_path / "image.npy").scan.shape == (7, 8)


def test_npy_with_names(tmp_path: Path) -> None:
    table = np.zeros((3, 4), [("intensity", "u2"), ("x", "f4"), ("y", "f4"), ("z", "f4")])
    table["intensity"] = 7
    np.save(tmp_path / "named.npy", table)
    scan = read(tmp_path / "named.npy").scan
    assert scan.shape == (3, 4)
    assert (scan.intensity == 7).all()


def wall_scan(points: int = 2000) -> np.ndarray:
    """x, y, z, intensity and ring of a small scan in the order of its firings."""
    firing = np.arange(points)
    azimuth, ring = 2 * np.pi * firing / points, firing % 16
    flat = 4 + np.sin(3 * azimuth)
    z = flat * np.tan(np.radians(2 * ring - 15))
    return np.column_stack([flat * np.cos(azimuth), flat * np.sin(azimuth), z, 40 + 20 * np.cos(azimuth), ring])


BARE = {  # which column of the scan below stands where, and what it is called
    "x,y,z,i,r": ((0, 1, 2, 3, 4), "looks like .*nuScenes.*"),
    "x,y,z": ((0, 1, 2), "looks like .*x, y and z alone.*"),
    "x:f8,y:f8,z:f8,i:f8": ((0, 1, 2, 3), "looks like .*intensity as float64.*"),
    "x:f8,y:f8,z:f8": ((0, 1, 2), "looks like .*x, y and z as float64.*"),
    "x,y,z,i,r:u2": ((0, 1, 2, 3, 4), "looks like .*a ring as uint16.*"),
    # These must not be taken for two points in one.
    "x:f8,y:f8,z:f8,i:f8,_:f8,_:f8": ((0, 1, 2, 3, 4, 5), ""),
    "x,y,z,i,_,_,_,_": ((0, 1, 2, 3, 5, 4, 4, 4), ""),
    "x,y,z,_,i,_,_,_": ((0, 1, 2, 7, 3, 6, 6, 6), ""),
    "x,y,z,i:u1": ((0, 1, 2, 3), ""),
    "x,y,z,i:u1,r:u1": ((0, 1, 2, 3, 4), ""),
    "x,y,z,i,t:u4,r:u2,_:u2": ((0, 1, 2, 3, 5, 4, 6), ""),
}


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize(
    ("layout", "whole"), [(layout, whole) for layout in BARE for whole in {False, BARE[layout][1] != ""}]
)
def test_bare_numbers_of_another_layout_are_refused_and_can_be_told(
    tmp_path: Path, layout: str, whole: bool, shuffled: bool
) -> None:
    columns, called = BARE[layout]
    scan = wall_scan(20_000 if shuffled and called else 2000)
    scan = np.rint(scan) if whole else scan
    time = 1e5 * np.arange(len(scan))
    scan = np.column_stack([scan, time if ":u4" in layout else time * 1e-9, np.zeros(len(scan)), np.ones(len(scan))])
    scan = np.random.default_rng(2).permutation(scan) if shuffled else scan
    table = np.zeros(len(scan), bare.parse(layout))
    for name, column in zip(table.dtype.names or (), columns, strict=True):
        table[name] = scan[:, column]
    table.tofile(tmp_path / "a.bin")
    with pytest.raises(UserError, match=f"{called}say so with --columns {layout}, or"):
        list(open_input(tmp_path / "a.bin"))
    (frame,) = open_input(tmp_path / "a.bin", columns=layout)
    np.testing.assert_array_equal(frame.scan.xyz, scan[:, :3].astype(np.float32))
    assert (frame.scan.intensity is not None) == (",i" in layout)


def test_bare_numbers_that_are_cut_short_are_not_taken_for_another_layout(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(wall_scan().astype("<f4").tobytes()[:32_016])  # a multiple of 12 and 16, not of 20
    with pytest.raises(UserError, match=r"no multiple of the 20 that its likeliest layout .*nuScenes"):
        list(open_input(tmp_path / "a.bin"))


@pytest.mark.parametrize("kind", [">f4", "<f2", "<i2", "<i4", "bytes", "text"])
def test_bare_numbers_that_fit_no_layout_are_refused(tmp_path: Path, kind: str) -> None:
    scan = wall_scan()[:, :4]
    if kind == "bytes":
        content = np.random.default_rng(4).bytes(32_000)
    elif kind == "text":
        content = b"".join(b"%.4f %.4f %.4f %3d\n" % tuple(row) for row in scan)
        content = content[: len(content) // 16 * 16]
    else:
        content = (scan * {"<i2": 100, "<i4": 1000}.get(kind, 1)).astype(kind).tobytes()
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(UserError, match="is text" if kind == "text" else "no known layout fits.*--columns"):
        list(open_input(tmp_path / "a.bin"))


def some(count: int, random: np.random.Generator) -> np.ndarray:
    return random.random((count, 1)) < 0.6


KITTIS = {  # (N, 4) float32 of an (N, 4) scan
    "whole": lambda scan, random: scan,
    "shuffled": lambda scan, random: random.permutation(scan),
    "flat": lambda scan, random: scan * [1, 1, 0, 1],
    "black": lambda scan, random: scan * [1, 1, 1, 0],
    "all at one place": lambda scan, random: np.ones_like(scan),
    "no returns": lambda scan, random: np.where(some(len(scan), random), [np.nan, np.nan, np.nan, 7], scan),
    "noise": lambda scan, random: random.normal(size=scan.shape),
    "huge for none": lambda scan, random: np.where(some(len(scan), random), np.finfo(np.float32).max, scan),
    "millimetres": lambda scan, random: scan * [1000, 1000, 1000, 1] + [5e6, 5e6, 5e6, 0],
    "packed colours": lambda scan, random: np.column_stack(  # tiny as numbers
        [scan[:, :3], random.integers(1 << 24, size=len(scan), dtype=np.uint32).view(np.float32)]
    ),
}


@pytest.mark.parametrize("points", [2000, 2005, 300, 20, 3])
@pytest.mark.parametrize("change", KITTIS)
def test_kittis_bare_numbers_are_taken(tmp_path: Path, points: int, change: str) -> None:
    scan = KITTIS[change](wall_scan(points)[:, :4], np.random.default_rng(3)).astype("<f4")
    scan.tofile(tmp_path / "a.bin")
    found = read(tmp_path / "a.bin").scan
    np.testing.assert_array_equal(np.column_stack([found.xyz, found.intensity]), scan)
    (tmp_path / "a.bin").write_bytes(scan.tobytes()[:-4])
    with pytest.raises(UserError, match="no multiple of the 16 that"):
        list(open_input(tmp_path / "a.bin"))


def test_columns(tmp_path: Path) -> None:
    np.save(tmp_path / "five.npy", wall_scan())
    (frame,) = open_input(tmp_path / "five.npy", columns="y, x, z, _, i")
    np.testing.assert_allclose(frame.scan.xyz[:, 0], wall_scan()[:, 1], rtol=1e-6)
    np.testing.assert_array_equal(frame.scan.intensity, wall_scan()[:, 4])
    np.save(tmp_path / "named.npy", np.zeros(3, [(axis, "f4") for axis in "xyz"]))
    (tmp_path / "a.ply").write_bytes(ply("ascii", VERTEX))
    for name, columns, says in (
        ("five.npy", "x,y", "lacks z"),
        ("five.npy", "x,y,z,i", r"shape \(2000, 5\)"),
        ("five.npy", "x,x,y,z,i", "names a column twice"),
        ("five.npy", "x:f2,y,z,i,r", "'x:f2' must be a name, or name:type"),
        ("five.npy", ",y,z", "'' must be a name"),
        ("a.ply", "x,y,z", "leave out --columns"),
    ):
        with pytest.raises(UserError, match=says):
            list(open_input(tmp_path / name, columns=columns))
    folder = open_input(tmp_path, columns="x,y,z,i,r")
    assert [frame.key for frame in folder] == ["a", "five", "named"] and not folder.problems


def test_folder(tmp_path: Path) -> None:
    for name, points in (("10.npy", XYZ[:10]), ("2.npy", XYZ[:2]), ("1.npy", XYZ[:1])):
        np.save(tmp_path / name, points)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "3.bin").write_bytes(b"short")
    reader = open_input(tmp_path)
    samples = list(reader)
    assert [(s.number, s.key, len(s.scan)) for s in samples] == [(0, "1", 1), (1, "2", 2), (3, "10", 10)]
    assert len(reader.problems) == 1
    assert "3.bin has 5 bytes" in next(iter(reader.problems))


def test_a_folder_names_all_that_cannot_be_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", XYZ)
    (tmp_path / "b.pcd").write_bytes(b"# .PCD v0.7\nFIELDS x y z\n")
    (tmp_path / "c.pcd").touch()
    (tmp_path / "d.pcd").write_bytes(b"nonsense" * 100)
    for other in ("e.jpg", "config.json", "._a.pcd"):
        (tmp_path / other).write_bytes(b"nonsense")
    reader = open_input(tmp_path)
    assert reader.count == 4 and [sample.key for sample in reader] == ["a"]
    damaged, empty, unknown = reader.problems
    assert "b.pcd has no line DATA" in damaged and "c.pcd is empty" in empty
    assert "d.pcd is not a .pcd file" in unknown
    (tmp_path / "a.npy").unlink()
    with pytest.raises(UserError, match=r"b\.pcd .*c\.pcd .*d\.pcd"):
        list(open_input(tmp_path))


@pytest.mark.parametrize(
    "name, content, says",
    [
        ("a.pcd", b"", "is empty"),
        ("a.txt", b"hello", "not a known kind of input"),
        ("a.npy", b"\x93NUMPY\x01\x00", "not a whole .npy"),
        ("a.bin", b"", "is empty"),
        ("a.bin", bytes(30), "30 bytes, which is no multiple of the 16"),
        ("a.pcd", b"# .PCD v0.7\nFIELDS x y z\n", "no line DATA"),
        ("a.pcd", b"# .PCD v0.7\nFIELDS x y z\nDATA ascii\n", "header"),
        ("a.pcd", pcd("binary", {"x": XYZ[:, 0]}, ["x"]), "no field y, z"),
        ("a.pcd", pcd("zip", {"x": XYZ[:, 0]}, ["x"]), "DATA zip"),
        ("a.pcd", pcd("binary", dict(zip("xyz", XYZ.T, strict=True)), ["x", "y", "z"])[:-5], "cut short"),
        ("a.pcd", pcd("binary_compressed", dict(zip("xyz", XYZ.T, strict=True)), ["x", "y", "z"])[:-5], "cut short"),
        ("a.pcd", pcd("ascii", dict(zip("xyz", XYZ.T, strict=True)), ["x", "y", "z"])[:-30], "does not fit|cut short"),
        ("a.pcd", pcd("binary", dict(zip("xyz", XYZ[:0].T, strict=True)), ["x", "y", "z"]), "no points"),
        ("a.pcd", pcd("binary", XYZI, list(XYZI), SIZE="4 4 3 4"), "SIZE 3 of field z is none of 2, 4, 8"),
        ("a.pcd", pcd("binary", XYZI, list(XYZI), TYPE="F F X F"), "TYPE X of field z is none of F, I, U"),
        ("a.pcd", pcd("binary", XYZI, list(XYZI), SIZE="4 4 4"), "SIZE has 3 values for 4 FIELDS"),
        (
            "a.pcd",
            pcd("ascii", XYZI | {"y": XYZI["y"] + 300}, list(XYZI), TYPE="F U F F", SIZE="4 1 4 4"),
            "no uint8 can be",
        ),
        ("a.ply", b"ply\nformat ascii 1.0\n", "no end_header"),
        ("a.ply", ply("ascii", VERTEX).replace(b"float y", b"float16 y"), "property y is of the unknown type float16"),
        ("a.ply", ply("ascii", VERTEX).replace(b"vertex 57", b"vertex many"), "element vertex has the number many"),
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nend_header\n1\n", "cut short"),
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\none\n", "does not fit"),
        ("a.pcap", b"\xd4\xc3\xb2\xa1" + bytes(60), "Ouster|ouster"),
    ],
)
def test_broken_files_are_one_clear_error(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=says) as error:
        list(open_input(tmp_path / name))
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "array", [np.zeros(5), np.zeros((5, 7)), np.zeros((2, 3, 4, 4)), np.zeros((0, 3)), np.array(["a"])]
)
def test_arrays_of_another_shape_are_one_clear_error(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UserError, match=r"shape|no points"):
        list(open_input(tmp_path / "a.npy"))


def test_what_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        open_input(tmp_path / "nothing.bag")
    with pytest.raises(UserError, match="holds no known kind of input"):
        open_input(tmp_path)


def test_real_scans(shared_data: Path) -> None:
    counts = {
        "plycal": [26644, 26688, 26708, 26364],
        "nebula_xt32/scan.pcd": [63021],
        "nebula_vlp16/scan.pcd": [14831],
    }
    for name, expected in counts.items():
        assert [len(sample.scan) for sample in open_input(shared_data / "real" / name)] == expected
    vlp16 = read(shared_data / "real/nebula_vlp16/scan.pcd").scan
    assert vlp16.intensity is not None
    assert 0.0 <= vlp16.time.min() < vlp16.time.max() < 0.2


@pytest.fixture
def ouster(shared_data: Path) -> Path:
    pytest.importorskip("ouster.sdk", reason="needs ouster-sdk")
    return shared_data / "real/ouster"


def test_ouster_pcap_and_bag(ouster: Path) -> None:
    (pcap,) = open_input(ouster / "OS-1-64_1024x10_fw20.pcap")
    assert pcap.scan.shape == (64, 1024)
    ranges = np.linalg.norm(pcap.scan.xyz[pcap.scan.valid()], axis=1)
    assert len(ranges) == 16749
    assert np.median(ranges) == pytest.approx(2.1, abs=0.05)
    assert pcap.scan.time.max() == pytest.approx(0.1, abs=0.001)
    # Destaggered: each column of the image looks one way (within the beams' offsets), from left to right.
    azimuth = np.unwrap(np.arctan2(*np.flip(pcap.scan.xyz[:, :2].astype(float), axis=1).T).reshape(64, 1024)[32])
    assert np.corrcoef(azimuth[np.abs(azimuth) > 0], np.arange(1024)[np.abs(azimuth) > 0])[0, 1] < -0.9
    (bag,) = open_input(ouster / "512x10_raw.bag")
    assert bag.scan.shape == (128, 512)


def test_ouster_without_its_sdk_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ouster.sdk", None)
    (tmp_path / "a.pcap").write_bytes(b"\xd4\xc3\xb2\xa1" + bytes(60))
    with pytest.raises(UserError, match="pip install"):
        list(open_input(tmp_path / "a.pcap"))

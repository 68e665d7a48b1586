"""Pages of results: self-contained HTML, and the same as Markdown."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cmp_seg_ros.evaluation.page import Cell, Notes, Page, Picture, Section, Table, facts, percent


class Found(HTMLParser):
    """Tags with their attributes, and the text; unclosed and wrongly nested tags are errors."""

    VOID = ("meta", "img")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def page(tmp_path: Path) -> Page:
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / "dot.png")
    table = Table(["a|b", "share"], [["<wall>", percent(0.931, bar=True)], ["c", Cell("x", shade=0.5)]], "A table", "*")
    hidden = Table(["ring", "mIoU"], [["0", percent(None)]], "By ring", folded=True)
    return Page(
        "Of <drive>",
        [
            Section("First", ["Some & text.", table, hidden, Picture(tmp_path / "dot.png", "A dot.")]),
            Section("Facts", [facts([("model", "m"), ("engine", ""), ("scans", 0)])]),
            Section("Empty", []),
        ],
        [("mIoU", "93.1%")],
        [Notes(["Partial."], serious=True), Notes([])],
    )


def test_html_needs_nothing_else(page: Page) -> None:
    html = page.html()
    found = Found(html)
    assert not found.all("link") and not found.all("script") and "@import" not in html and "url(" not in html
    [image] = found.all("img")
    assert str(image["src"]).startswith("data:image/png;base64,") and image["alt"] == "A dot."
    for text in ("Of <drive>", "Some & text.", "<wall>", "93.1%", "A dot.", "Partial.", "scans"):
        assert text in found.text
    assert "engine" not in found.text and "Empty" not in found.text
    styles = [(cell["class"], cell["style"]) for cell in found.all("td") if "style" in cell]
    assert styles == [("bar", "--v:0.931"), ("shade", "--v:0.5")]
    assert len(found.all("details")) == 1 and len(found.all("table")) == 3
    assert [tag["class"] for tag in found.all("ul")] == ["notes serious"]


def test_markdown_has_the_same(page: Page, tmp_path: Path) -> None:
    page.write(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "| a\\|b | share |\n|---|---:|\n| <wall> | 93.1% |\n| c | x |" in text
    assert "![A dot.](dot.png)" in text and "| scans | 0 |" in text and "- Partial." in text and "| 0 | - |" in text
    assert (tmp_path / "page.html").read_text() == page.html()


def test_a_missing_picture_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Page("Page", [Section("One", [Picture(tmp_path / "none.png", "None")])]).html()

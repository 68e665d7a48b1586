"""Pages of results: sections of text, tables and pictures, as one HTML file that needs no network, and as Markdown.

page = Page("Evaluation of drive", [Section("Accuracy", [Table(["class", "IoU"], [["wall", percent(0.93)]])])])
page.write(out)    # page.html, report.md
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeAlias

HTML, MARKDOWN = "page.html", "report.md"
TEMPLATE = "page.html.j2"
NONE = "-"  # in place of a figure that does not exist
TYPES = {".png": "image/png", ".webp": "image/webp", ".gif": "image/gif", ".svg": "image/svg+xml"}


class Cell(NamedTuple):
    """A cell of a table. The HTML page draws `bar`, 0..1, as a bar behind the text, or else `shade`, 0..1, as a shade.

    mark: "good" or "bad" for green or red text.
    """

    text: str
    bar: float | None = None
    shade: float | None = None
    mark: str = ""


Row: TypeAlias = Sequence[str | Cell]


@dataclass(frozen=True)
class Table:
    """Rows of texts and cells; the first column is left-aligned, the others right-aligned. An empty row is a rule where
    the table is printed, and nothing on a page.

    Args:
        header: may be empty.
        title: above the table.
        note: below the table.
        folded: whether the HTML page shows it only on a click on its title.
    """

    header: Sequence[str]
    rows: Sequence[Row]
    title: str = ""
    note: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Picture:
    """A picture or animation. The HTML page contains it, the Markdown refers to it by a path from its own folder."""

    path: Path
    caption: str

    @property
    def data_url(self) -> str:
        content = base64.b64encode(self.path.read_bytes()).decode()
        return f"data:{TYPES[self.path.suffix]};base64,{content}"


@dataclass(frozen=True)
class Notes:
    """A list of sentences, highlighted. `serious`: they say that something is wrong."""

    lines: Sequence[str]
    serious: bool = False


Block: TypeAlias = str | Table | Picture | Notes  # a string is a paragraph


@dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A page.

    Args:
        title: its heading.
        sections: those without blocks are left out.
        figures: the most important ones, as (name, value), shown large at the top.
        notes: below the heading.
    """

    title: str
    sections: Sequence[Section]
    figures: Sequence[tuple[str, str]] = ()
    notes: Sequence[Notes] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write page.html and report.md. Raises OSError."""
        (folder / HTML).write_text(self.html())
        (folder / MARKDOWN).write_text(self.markdown(folder))

    def html(self) -> str:
        """The page as one file, pictures included. Raises OSError if a picture cannot be read."""
        from jinja2 import Environment, PackageLoader, StrictUndefined

        environment = Environment(
            loader=PackageLoader("cmp_seg_ros.evaluation", ""),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.globals["kind"] = lambda block: type(block).__name__
        return environment.get_template(TEMPLATE).render(page=self, sections=self._filled())

    def markdown(self, folder: Path) -> str:
        """The page as Markdown; pictures are referred to by paths relative to `folder`."""
        text = [f"# {self.title}"]
        text += [markdown(Notes([f"{name}: **{value}**" for name, value in self.figures]), folder)]
        text += [markdown(notes, folder) for notes in self.notes]
        for section in self._filled():
            text += [f"## {section.title}", *(markdown(block, folder) for block in section.blocks)]
        return "\n\n".join(part for part in text if part) + "\n"

    def _filled(self) -> list[Section]:
        return [section for section in self.sections if section.blocks]


def percent(value: float | None, bar: bool = False) -> Cell:
    """A fraction in per cent, with a bar if wanted; a dash for None."""
    return Cell(NONE if value is None else f"{value:.1%}", value if bar else None)


def facts(pairs: Sequence[tuple[str, object]], title: str = "") -> Table:
    """Names and values; empty values are left out."""
    return Table([], [[name, str(value)] for name, value in pairs if value not in (None, "")], title)


def markdown(block: Block, folder: Path = Path()) -> str:
    """A block as Markdown; `folder`: of the page, for the paths of pictures."""
    match block:
        case Notes(lines):
            return "\n".join(f"- {line}" for line in lines)
        case Picture(path, caption):
            return f"![{caption}]({path.relative_to(folder).as_posix()})"
        case Table(header, rows, title, note):
            width = max(map(len, [header, *rows]))
            cells = [[*header, *[""] * (width - len(header))], *([_text(cell) for cell in row] for row in rows if row)]
            first, *rest = (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells)
            rule = f"|---|{'---:|' * (width - 1)}"
            return "\n\n".join(filter(None, [title and f"### {title}", "\n".join([first, rule, *rest]), note]))
        case _:
            return block


def _text(cell: str | Cell) -> str:
    return cell if isinstance(cell, str) else cell.text

"""The page at the end of an adaptation: one HTML file with its pictures inside."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from cmp_seg_ros.adaptation.verdict import Difference, Verdict

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .8rem;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}img{max-width:100%}
.take{border-left:.5rem solid #3a3}.keep{border-left:.5rem solid #c33}.unsure{border-left:.5rem solid #da3}
.verdict{padding:.5rem 1rem;background:#f6f6f6}figure{margin:1.5rem 0}figcaption{color:#555}
"""


class Page:
    """An HTML page, built from the top."""

    def __init__(self, title: str) -> None:
        self._parts = [f"<h1>{escape(title)}</h1>"]
        self._title = title

    def verdict(self, verdict: Verdict) -> None:
        reasons = "".join(f"<li>{escape(reason)}</li>" for reason in verdict.reasons)
        self._parts.append(
            f'<div class="verdict {verdict.advice}"><h2>{escape(verdict.title)}</h2><ul>{reasons}</ul></div>'
        )

    def heading(self, text: str) -> None:
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def text(self, text: str) -> None:
        self._parts.append(f"<p>{escape(text)}</p>")

    def differences(self, rows: Iterable[Difference]) -> None:
        """A table of scores of both bundles, per cent."""
        self.table(
            ["", "shipped", "new", "difference, points", "95 % interval"],
            [
                [
                    row.name,
                    *(_percent(value) for value in (row.old, row.new)),
                    "" if row.old is None or row.new is None else f"{100 * row.change:+.1f}",
                    "" if row.interval is None else f"{100 * row.interval[0]:+.1f} to {100 * row.interval[1]:+.1f}",
                ]
                for row in rows
            ],
        )

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        self._parts.append(f"<table><tr>{head}</tr>{body}</table>")

    def picture(self, path: Path, caption: str) -> None:
        """A .png; nothing where it is missing."""
        if path.is_file():
            data = base64.b64encode(path.read_bytes()).decode()
            image = f'<img src="data:image/png;base64,{data}" alt="{escape(caption)}">'
            self._parts.append(f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>")

    def write(self, path: Path) -> None:
        """Raises OSError."""
        head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        body = "\n".join(self._parts)
        head += f"<title>{escape(self._title)}</title><style>{STYLE}</style>"
        path.write_text(f"<!DOCTYPE html><html lang=en><head>{head}</head><body>{body}</body></html>\n")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"

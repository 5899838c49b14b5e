"""A page of sections, each a table, a picture or a text; everything in it is escaped."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment

_PAGE = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #222; }
body { max-width: 85rem; margin: 2rem auto; padding: 0 1rem; }
p { max-width: 60rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; }
td { vertical-align: top; }
td:not(:last-child) { white-space: nowrap; }
th, td { text-align: left; padding: .3rem 1rem .3rem 0; border-bottom: 1px solid #ccc; }
img { max-width: min(100%, 60rem); }
pre { font-size: 13px; overflow-x: auto; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
{% for section in sections %}
{% if section.heading %}
<h2>{{ section.heading }}</h2>
{% endif %}
{% if section.note %}
<p>{{ section.note }}</p>
{% endif %}
{% if section.rows %}
<div class="table"><table>
<tr>{% for cell in section.rows[0] %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in section.rows[1:] %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
{% endif %}
{% if section.picture %}
<img alt="{{ section.heading }}" src="data:image/png;base64,{{ encoded(section.picture) }}">
{% endif %}
{% if section.text %}
<pre>{{ section.text }}</pre>
{% endif %}
{% endfor %}
</body>
</html>
""")


@dataclass(frozen=True)
class Section:
    """A part of a page: a note, a table (a header, then rows), a picture (a PNG file), a text."""

    heading: str = ""
    note: str = ""
    rows: Sequence[Sequence[str]] = ()
    picture: Path | None = None
    text: str = ""


def write(file: Path, title: str, sections: Sequence[Section]) -> Path:
    """Writes the page; its file."""
    file.write_text(_PAGE.render(title=title, sections=sections, encoded=_encoded), encoding="utf-8")
    return file


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """A table in columns, for a terminal or a log."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _encoded(picture: Path) -> str:
    return base64.b64encode(picture.read_bytes()).decode()

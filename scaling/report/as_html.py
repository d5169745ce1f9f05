"""A table as HTML: a caption, a table, and the notes as a list."""

from __future__ import annotations

import html as entities
from collections.abc import Sequence

from scaling.report.as_text import Cell, plain


def html(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], notes: Sequence[str]
) -> str:
    """One table element and one list, every text escaped."""
    head = _cells("th", columns)
    body = "".join(_cells("td", [plain(c) for c in row]) for row in rows)
    listed = "".join(f"<li>{entities.escape(note)}</li>" for note in notes)
    return (
        f"<table><caption>{entities.escape(title)}</caption><thead>{head}</thead>"
        f"<tbody>{body}</tbody></table><ul>{listed}</ul>"
    )


def _cells(tag: str, values: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{entities.escape(v)}</{tag}>" for v in values) + "</tr>"

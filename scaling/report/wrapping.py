"""Text in a hundred columns: prose, rules with their named parts, tables, and numbered lines.

wrapped     a text, later lines further in
titled      a heading that ends in a rule: each named part on a line of its own
grid        a table, cells on several lines where it would be too wide
listing     numbered lines of unequal length, remarks below each
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from scaling.rules.named_parts import WHERE, split

WIDTH = 100
"""No line of a report as text is wider."""
_NARROWEST, _SUBJECT, _CELL, _NUMBER = 8, 40, 26, 5


def wrapped(text: str, width: int = WIDTH, indent: str = "", hang: str = "  ") -> list[str]:
    """The lines of a text; a word that is wider than a line is cut."""
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent + hang,
        break_on_hyphens=False, drop_whitespace=True,
    ) or [indent]  # fmt: skip


def titled(title: str, width: int = WIDTH) -> list[str]:
    """The lines of a heading; named parts stand below each other.

    >>> titled("rule: dW = P/norm(P) where P = G @ A")
    ['rule: dW = P/norm(P)', '  where P = G @ A']
    """
    head, parts = split(title)
    if not parts or not all(part.name for part in parts):
        return wrapped(title, width, hang="    ")
    lines = wrapped(head.text.strip(), width, hang="    ")
    for i, part in enumerate(parts):
        start = f"  {WHERE if i == 0 else ' ' * len(WHERE)} "
        below = wrapped(str(part), width - len(start), hang=" " * (len(part.name) + 3))
        lines += [(start if j == 0 else " " * len(start)) + line for j, line in enumerate(below)]
    return lines


def grid(head: Sequence[str], rows: Sequence[Sequence[str]], width: int = WIDTH) -> list[str]:
    """A table: the head, a rule, and rows, which take several lines where one is too narrow."""
    widths = _widths([head, *rows], width)

    def lines(cells: Sequence[str]) -> list[str]:
        columns = [_cell(c, w) for c, w in zip(cells, widths, strict=True)]
        deep = max(map(len, columns), default=0)
        padded = ([*column, *[""] * (deep - len(column))] for column in columns)
        return [
            "  ".join(x.ljust(w) for x, w in zip(line, widths, strict=True)).rstrip()
            for line in zip(*padded, strict=True)
        ]

    body = [line for row in rows for line in lines(row)]
    return [*lines(head), "  ".join("-" * w for w in widths), *body]


def _cell(text: str, width: int) -> list[str]:
    """The lines of a cell; a dotted name that is wider breaks after dots, and not within a part.

    >>> _cell("encoder.block.0.attention.q.weight", 18)
    ['encoder.block.0.', 'attention.q.weight']
    """
    if all(len(word) <= width for word in text.split()):
        return wrapped(text, width, hang="")
    lines = [""]
    for piece in re.findall(r"\s+|[^\s.]+\.?|\.", text):
        if len((lines[-1] + piece).rstrip()) > width:
            piece = piece.strip()
            lines += [piece[i : i + width] for i in range(0, len(piece), width)]
        else:
            lines[-1] += piece
    return [line.strip() for line in lines if line.strip()]


def _widths(cells: Sequence[Sequence[str]], width: int) -> list[int]:
    """The width of each column: what it needs, or less in the widest if all do not fit."""
    columns = list(zip(*cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    words = [
        max((len(w) for cell in column for w in cell.split()), default=0) for column in columns
    ]
    for least in (words, [_NARROWEST] * len(widths)):
        while sum(widths) + 2 * (len(widths) - 1) > width:
            wider = [i for i, w in enumerate(widths) if w > max(least[i], _NARROWEST)]
            if not wider:
                break
            widths[max(wider, key=lambda i: widths[i])] -= 1
    return widths


@dataclass(frozen=True)
class Entry:
    """A numbered line: what it is about, its other cells, and remarks that stand below it."""

    subject: str
    cells: tuple[str, ...]
    remarks: tuple[str, ...] = ()


def listing(
    entries: Sequence[Entry], head: Entry | None = None, subject: int = _SUBJECT
) -> list[str]:
    """Entries under each other, numbered from 1, none wider than `WIDTH`."""
    all_ = [*([] if head is None else [head]), *entries]
    first = min(max(len(x.subject) for x in all_), subject)
    columns = zip(*(x.cells for x in all_), strict=True)
    widths = [min(max(map(len, column)), _CELL) for column in columns]
    lines = [] if head is None else [*_entry("", head, first, widths), ""]
    for number, entry in enumerate(entries, 1):
        lines += _entry(str(number), entry, first, widths)
    return lines


def _entry(number: str, entry: Entry, first: int, widths: Sequence[int]) -> list[str]:
    margin, start = " " * (_NUMBER + first + 2), f"{number:>3}  "
    rest = "  ".join(x.ljust(w) for x, w in zip(entry.cells, widths, strict=True)).rstrip()
    if len(entry.subject) <= first:
        lines = [f"{start}{entry.subject:<{first}}  "]
    else:
        below = wrapped(entry.subject, WIDTH - _NUMBER)
        lines = [(start if i == 0 else " " * _NUMBER) + line for i, line in enumerate(below)]
        lines.append(margin)
    if len(lines[-1] + rest) <= WIDTH:
        lines[-1] = (lines[-1] + rest).rstrip()
    else:
        lines = [*lines[:-1], *_spread([x for x in entry.cells if x], lines[-1], margin)]
    for remark in entry.remarks:
        lines += wrapped(remark, indent=margin)
    return lines


def _spread(cells: Sequence[str], line: str, margin: str) -> list[str]:
    """Cells one after another, on lines of their own where they do not fit."""
    lines = [line]
    for cell in cells:
        gap = "" if len(lines[-1]) <= len(margin) else "  "
        if len(lines[-1] + gap + cell) <= WIDTH:
            lines[-1] += gap + cell
        else:
            place = margin if len(margin + cell) <= WIDTH else " " * (_NUMBER + 4)
            lines += wrapped(cell, indent=place)
    return [x.rstrip() for x in lines if x.strip()]

"""The page of a run on a GPU, in Markdown, from the files that its parts have left so far.

Written after every part (gpu_parts.py): it says of each whether it was finished, cut off with what
was found until then, or not reached.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

CUT_OFF = "124"
"""The exit code of a part whose seconds were over."""
VERDICTS = "0", "1", "3", CUT_OFF
"""Exit codes after which nothing has to be said: three are those of verdicts."""


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def printed(folder: Path, number: int) -> str:
    """What a part printed."""
    path = folder / f"{number}.txt"
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def tests(folder: Path) -> str:
    """The last line of pytest."""
    lines = printed(folder, 1).splitlines()
    return f"`{lines[-1].strip('= ')}`" if lines else ""


def dense(folder: Path) -> str:
    """The tables of `scaling verify`, or how many networks are measured so far."""
    found, records = printed(folder, 2), folder / "dense" / "records.jsonl"
    if found or not records.exists():
        return found
    widths = [json.loads(line)["width"] for line in records.read_text().splitlines()[:-1]]
    most = f", the widest of width {max(widths):,}" if widths else ""
    return f"{len(widths)} networks measured so far{most}."


def wide(folder: Path) -> str:
    """One row a step; see gpu_wide.py."""
    path = folder / "wide.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    shown = [[_wide(row, key) for key in WIDE] for row in rows]
    return table(list(WIDE), shown) if shown else ""


def _wide(row: Mapping[str, Any], column: str) -> str:
    return WIDE[column](row)


WIDE: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "rule": lambda row: str(row["rule"]),
    "width": lambda row: f"{row['width']:,}",
    "measured": lambda row: str(row["quantity"]),
    "seconds": lambda row: f"{row['seconds']:.2f}" if "seconds" in row else str(row["skipped"]),
    "memory (GiB)": lambda row: f"{row['gib']:.2f}" if "gib" in row else "",
    "against the device's own normals": lambda row: f"{row['ratio']:.1f}" if "ratio" in row else "",
}


def claims(folder: Path) -> str:
    """The summary of the claims that are finished, and how many cells there are."""
    summary, cells = folder / "claims" / "summary.md", folder / "claims" / "cells.jsonl"
    parts = [summary.read_text(encoding="utf-8").strip()] if summary.exists() else []
    if cells.exists():
        widths = [json.loads(line)["width"] for line in cells.read_text().splitlines()[:-1]]
        most = f", the widest of width {max(widths):,}" if widths else ""
        parts.append(f"{len(widths)} cells of training finished{most}; another run goes on there.")
    return "\n\n".join(parts)


def model(folder: Path) -> str:
    """The tables of `scaling verify --model`."""
    return printed(folder, 5)


PARTS: Mapping[int, tuple[str, Callable[[Path], str]]] = {
    1: ("Tests that need a GPU", tests),
    2: ("Dense networks", dense),
    3: ("Steps of any width", wide),
    4: ("Claims of the paper, in its own tier", claims),
    5: ("A GPT, node by node", model),
}


def text_of(folder: Path) -> str:
    """The page."""
    lines = [(folder / "machine.txt").read_text(encoding="utf-8").strip()]
    for number, (title, shown) in PARTS.items():
        path = folder / f"{number}.part"
        lines.append(f"### {number}. {title}")
        if not path.exists():
            lines.append("Not reached yet.")
            continue
        _, code, seconds, words = path.read_text(encoding="utf-8").rstrip("\n").split("\t")
        how = f"{seconds} s, exit code {code}"
        if code == CUT_OFF:
            how = f"cut off after {seconds} s, with what was found until then"
        if code == "skipped":
            how = "no time was left"
        lines.append(f"`python {words}`: {how}.")
        lines.append(shown(folder))
        errors = folder / f"{number}.err"
        said = errors.read_text(encoding="utf-8").strip() if errors.exists() else ""
        if said and code not in VERDICTS:
            lines.append("```text\n" + "\n".join(said.splitlines()[-3:]) + "\n```")
    return "\n\n".join(line for line in lines if line) + "\n"

"""Findings as text, Markdown, LaTeX, HTML, JSON, and as files.

`summary` has one row a claim, in twelve groups; `details` shows the evidence of each. `write`
leaves claims.json (the interface), claims.md (everything), summary.md (what docs/claims.md shows),
figures.json and the figures in a folder, beside the records and cells that the next run takes up.
A run writes the tables after every claim, so that one that is cut off leaves what it found.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from empirical.claims import figures
from empirical.claims.claim import Claim, Evidence, Result
from empirical.claims.registry import groups
from empirical.fit.verdict import Verdict, overall
from empirical.measure.store import prepare_folder, refuse_foreign_reports, write_atomically
from scaling.report.as_json import to_json
from scaling.report.tables import Format, Table
from scaling.report.tables import render as render_table


def listing(chosen: Sequence[Claim]) -> Table:
    """Claims, nothing run."""
    titles = {group.number: group.title for group in groups()}
    rows = tuple((claim.id, titles[claim.group], claim.title, claim.reference) for claim in chosen)
    return Table("claims of arXiv 2312.12226", ("id", "group", "claim", "reference"), rows)


def summary(results: Sequence[Result], about: str, timed: bool = True) -> Table:
    """One row a claim; the reasons of all that do not agree below, and the time if ``timed``."""
    titles = {group.number: group.title for group in groups()}
    rows, notes = [], [about]
    for r in results:
        rows.append(
            (r.claim.id, titles[r.claim.group], r.claim.title, str(r.verdict), r.control_text)
        )
        if r.reason:
            notes.append(f"{r.claim.id}, {r.verdict}: {r.reason}")
    verdicts = [r.verdict for r in results]
    count = ", ".join(f"{verdicts.count(v)} {v}" for v in Verdict if v in verdicts)
    seconds = f"; {sum(r.seconds for r in results):.0f} s" if timed else ""
    notes.insert(0, f"verdict: {overall(verdicts)} ({count}){seconds}")
    columns = ("id", "group", "claim", "verdict", "control")
    return Table("claims of arXiv 2312.12226", columns, tuple(rows), tuple(notes))


def details(results: Sequence[Result], style: Format) -> str:
    """The evidence of every claim."""
    parts = []
    for r in results:
        title = f"{r.claim.id}. {r.claim.title}: {r.verdict} (control: {r.control_text})"
        parts.append(render_table(r.evidence.table_titled(title), style))
        parts += [render_table(table, style) for table in r.evidence.tables]
    return "\n\n".join(parts)


def render(results: Sequence[Result], about: str, style: str, full: bool) -> str:
    """The summary, with the evidence before it if ``full``."""
    shape = Format(style)
    if shape is Format.JSON:
        return to_json(as_json(results, about))
    table = render_table(summary(results, about), shape)
    return f"{details(results, shape)}\n\n{table}" if full else table


def as_json(results: Sequence[Result], about: str) -> dict[str, Any]:
    """The ``claims`` interface; exponents are strings."""
    return {
        "verdict": str(overall(r.verdict for r in results)),
        "about": about,
        "claims": [
            {
                **claim_json(r.claim),
                "verdict": str(r.verdict),
                "reason": r.reason,
                "seconds": r.seconds,
                "evidence": _evidence(r.evidence),
                "control": {"refused": r.control.refutes_all, **_evidence(r.control)},
            }
            for r in results
        ],
    }


def claim_json(claim: Claim) -> dict[str, Any]:
    """A claim that was not run."""
    return {
        "id": claim.id,
        "group": claim.group,
        "title": claim.title,
        "statement": claim.statement,
        "reference": claim.reference,
    }


def _evidence(evidence: Evidence) -> dict[str, Any]:
    findings = [
        {
            "subject": f.subject,
            "predicted": str(f.predicted),
            "measured": f.measured,
            "interval": f.interval,
            "verdict": str(f.verdict),
            "note": f.note,
        }
        for f in evidence.findings
    ]
    tables = [
        {"title": t.title, "columns": t.columns, "rows": [[str(x) for x in r] for r in t.rows]}
        for t in evidence.tables
    ]
    return {"findings": findings, "tables": tables, "notes": list(evidence.notes)}


def require_own(folder: Path) -> None:
    """Refuse a folder in which `write` would replace files of someone else's."""
    keys = {"verdict", "about", "claims"}
    refuse_foreign_reports(folder, "claims.json", keys, ("claims.md", "summary.md"))


def write(results: Sequence[Result], about: str, folder: Path) -> None:
    """Write claims.json, claims.md, summary.md, figures.json and the figures into a folder."""
    write_tables(results, about, folder)
    figures.write([figure for r in results for figure in r.evidence.figures], folder)


def write_tables(results: Sequence[Result], about: str, folder: Path) -> None:
    """The same without figures, which take a while: after every claim of a run that goes on."""
    require_own(prepare_folder(folder))
    write_atomically(folder / "claims.json", (to_json(as_json(results, about)) + "\n").encode())
    text = render(results, about, Format.MARKDOWN, full=True) + "\n"
    write_atomically(folder / "claims.md", text.encode())
    short = render_table(summary(results, about, timed=False), Format.MARKDOWN) + "\n"
    write_atomically(folder / "summary.md", short.encode())

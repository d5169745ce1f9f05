"""A claim: a statement of the paper, the check that may fail it, and a falsehood that must fail.

    Finding     one line: what was asked, what is predicted, what was found, and the verdict
    Evidence    the findings of one check, with notes and what its figures show
    Claim       statement, reference, ``check`` and ``control``
    Group       the claims under one heading, as numbered in the issue that asked for them

Claim.  A claim is defined once and run three ways (command line, tests, notebook). ``check`` gives
the gravest verdict of its findings. ``control`` plants falsehoods in the same measurement (a wrong
exponent, a wrong formula, a missing ingredient): if any of them is agreed to, the check is void,
and the claim is reported as inconclusive at best.

Not covered: what the paper argues by citation, and its accuracies on data sets that do not ship.
"""

from __future__ import annotations

import html
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from empirical.claims.figures import Figure
from empirical.fit.verdict import Verdict, overall
from scaling.report.tables import Format, Table, render
from scaling.sizes.errors import InvalidInput

if TYPE_CHECKING:
    from empirical.claims.environment import Environment

PAPER = "arXiv 2312.12226"


@dataclass(frozen=True)
class Finding:
    """Predicted | measured [interval] | verdict; symbolic results leave the interval empty."""

    subject: str
    predicted: Any
    """A sympy expression or text."""
    measured: str
    interval: str
    verdict: Verdict
    note: str = ""


@dataclass(frozen=True)
class Evidence:
    """The finding of a check."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """Contradict beats crossover beats inconclusive beats agree."""
        return overall(finding.verdict for finding in self.findings)

    @property
    def refutes_all(self) -> bool:
        """Whether no finding was agreed to: what a negative control must show."""
        return all(finding.verdict is not Verdict.agree for finding in self.findings)

    @property
    def table(self) -> Table:
        """All findings as a table."""
        return self.table_titled("evidence")

    def table_titled(self, title: str) -> Table:
        """All findings as a table under a title; reasons of verdicts are notes."""
        rows = tuple(
            (f.subject, f.predicted, f.measured, f.interval, str(f.verdict)) for f in self.findings
        )
        reasons = (f"{f.verdict}, {f.subject}: {f.note}" for f in self.findings if f.note)
        columns = ("", "predicted", "measured", "interval", "verdict")
        return Table(title, columns, rows, (*dict.fromkeys(reasons), *self.notes))

    def _repr_html_(self) -> str:
        return "".join(render(table, Format.HTML) for table in (self.table, *self.tables))

    def _repr_markdown_(self) -> str:
        tables = (self.table, *self.tables)
        return "\n\n".join(render(table, Format.MARKDOWN) for table in tables)

    def __str__(self) -> str:
        return "\n\n".join(str(table) for table in (self.table, *self.tables))


@dataclass(frozen=True)
class Claim:
    """A statement of the paper.

    Args:
        id: the number of its group and a letter, "4b".
        title: one line.
        statement: what the paper says, in our words.
        reference: where it says so; "text not read" where only code, captions or secondary
            sources could be.
        check: derives and measures.
        control: the same measurement with planted falsehoods, none of which may be agreed to.
        package: that it needs beside those of all claims, and the extra that brings it.
    """

    id: str
    title: str
    statement: str
    reference: str
    check: Callable[[Environment], Evidence]
    control: Callable[[Environment], Evidence]
    package: tuple[str, str] | None = None

    @property
    def missing(self) -> InvalidInput | None:
        """The refusal of a claim whose package is not installed, or None."""
        if self.package is None or find_spec(self.package[0]) is not None:
            return None
        name, extra = self.package
        return InvalidInput(
            f"no package '{name}', which claim {self.id} needs",
            f"the extra '{extra}' of this package",
            f"pip install 'scaling[{extra}]', or run other claims: scaling claims --list",
        )

    @property
    def group(self) -> int:
        """The number of its group."""
        return int(self.id.rstrip("abcdefghijklmnopqrstuvwxyz"))

    def run(self, context: Environment) -> Result:
        """Check and control."""
        start = time.perf_counter()
        evidence, control = self.check(context), self.control(context)
        return Result(self, evidence, control, time.perf_counter() - start)

    def _repr_markdown_(self) -> str:
        return f"**{self.id}. {self.title}.** {self.statement} ({self.reference})"

    def _repr_html_(self) -> str:
        head = html.escape(f"{self.id}. {self.title}.")
        return f"<p><b>{head}</b> {html.escape(f'{self.statement} ({self.reference})')}</p>"


@dataclass(frozen=True)
class Result:
    """A claim that was run."""

    claim: Claim
    evidence: Evidence
    control: Evidence
    seconds: float

    @property
    def verdict(self) -> Verdict:
        """That of the evidence; without a control that fails, no verdict better than open."""
        if self.control.refutes_all:
            return self.evidence.verdict
        return overall([self.evidence.verdict, Verdict.inconclusive])

    @property
    def control_text(self) -> str:
        """How many of the planted falsehoods were refused."""
        findings = self.control.findings
        refused = sum(f.verdict is not Verdict.agree for f in findings)
        return f"{refused} of {len(findings)} refused"

    @property
    def reason(self) -> str:
        """Why the verdict is not agree, in one line; empty if it is."""
        if not self.control.refutes_all:
            agreed = next(f for f in self.control.findings if f.verdict is Verdict.agree)
            return f"the control agreed to {agreed.subject}: {agreed.predicted}"
        grave = [f for f in self.evidence.findings if f.verdict is self.verdict]
        if self.verdict is Verdict.agree:
            return ""
        first, more = grave[0], len(grave) - 1
        found = f"{first.subject}: predicted {first.predicted}, measured {first.measured}"
        found += f" {first.interval}" if first.interval else ""
        found += f" ({first.note})" if first.note else ""
        return found + (f"; and {more} more" if more else "")

    def _repr_html_(self) -> str:
        title = f"{self.claim.id}. {self.claim.title}: {self.verdict}"
        shown = (self.evidence.table_titled(title), *self.evidence.tables)
        control = self.control.table_titled("negative control: must not be agreed to")
        return (
            self.claim._repr_html_()
            + "".join(render(table, Format.HTML) for table in shown)
            + f"<details><summary>control: {self.control_text}</summary>"
            + render(control, Format.HTML)
            + "</details>"
        )

    def _ipython_display_(self) -> None:
        """Tables as HTML, figures as pictures of their own, which all pages of notebooks show."""
        from IPython.display import display

        shown = {
            "text/html": self._repr_html_(),
            "text/markdown": self._repr_markdown_(),
            "text/plain": f"{self.claim.id}: {self.verdict}\n\n{self.evidence}",
        }
        display(shown, raw=True)  # type: ignore[no-untyped-call]
        for figure in self.evidence.figures:
            picture = {"image/png": figure._repr_png_(), "text/plain": figure.title}
            display(picture, raw=True)  # type: ignore[no-untyped-call]

    def _repr_markdown_(self) -> str:
        title = f"{self.claim.id}: {self.verdict}; control: {self.control_text}"
        shown = (self.evidence.table_titled(title), *self.evidence.tables)
        tables = "\n\n".join(render(table, Format.MARKDOWN) for table in shown)
        return f"{self.claim._repr_markdown_()}\n\n{tables}"


@dataclass(frozen=True)
class Group:
    """Claims under one heading."""

    number: int
    title: str
    claims: tuple[Claim, ...]

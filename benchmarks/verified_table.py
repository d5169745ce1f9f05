"""`scaling verify --all`, rule by rule, into docs/verified.md.

    python benchmarks/verified_table.py [NAME ...]   measures what docs/verified.json lacks, or NAME

Each rule is measured as `scaling verify NAME` does it: in wide mode beside dense networks, or dense
alone, with more seeds while noise leaves a verdict open. Rules share the cores, one thread each. A
record is kept as soon as a rule is whole, so that a run is taken up where it was interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import groupby

from records import Record, Records

from derivations.catalogue import catalogue, find
from empirical.data.sources import load
from empirical.report.measured_tables import as_json
from empirical.verify.campaign import RunRequest, plan
from empirical.verify.verification import verify_all
from empirical.wide.method import Path, path_of
from scaling.cli.requests import problem_of, subject_of
from scaling.sizes.errors import InvalidInput, NotCovered

DIGITS = 4
_NARROW = (
    "narrow networks: with the same 4 samples in wide mode own updates of the hidden layer end at "
    "0.1475 at width 65536, and their limit from the kernels is 0.1474"
)
_SPECTRAL = (
    "specnorm(W) of the input layer is sqrt(M) + sqrt(64): over 1 + 8/sqrt(M), own updates are "
    "0.049 to 0.050 and feature changes 0.041 to 0.043 at each width from 64 to 2048 (3 seeds)"
)
EXPLAINED: Mapping[tuple[str, ...], str] = {
    ("muon_polar_express", "dense", "own", "hidden"): _NARROW,
    ("sso", "dense", "own", "input"): _SPECTRAL,
    ("sso", "dense", "feature", "input"): _SPECTRAL,
}
"""By rule, mode, quantity and layer: why a line parts, where its note does not say it."""


def names() -> list[str]:
    """The rules of the catalogue: made of a few columns first, then entry by entry, then dense."""
    ways = [Path.CORE, Path.ROWS, None]
    return sorted(catalogue(), key=lambda x: ways.index(path_of(find(x).rule)))


def measured(name: str) -> Record:
    """All checks of a rule, or why there are none."""
    data = load("digits", samples=16)
    try:
        subject = subject_of(name, problem_of(name, None, practice=True, numbers=data.numbers))
        found = as_json(verify_all(plan([subject], RunRequest(data, threads=1))))
    except (InvalidInput, NotCovered) as error:
        return {"checks": [], "series": [], "left_out": str(error.found)}
    kept = ("mode", "layer", "quantity", "predicted", "measured", "low", "high", "verdict", "note")
    checks = [
        {k: round(x, DIGITS) if isinstance(x := check[k], float) else x for k in kept}
        for check in found["checks"]
    ]
    series = [
        {"mode": x["mode"], "widths": [x["widths"][0], x["widths"][-1]], "seeds": x["seeds"]}
        for x in found["series"]
    ]
    return {"checks": checks, "series": series, "left_out": ""}


def page(records: Mapping[str, Record]) -> str:
    """The page, from records alone."""
    checks = [x for record in records.values() for x in record["checks"]]
    counts = {k: sum(x["verdict"] == k for x in checks) for k in ("agree", "contradict")}
    known = [x for x in catalogue() if records.get(x, {}).get("checks")]
    whole = sum(all(x["verdict"] == "agree" for x in records[name]["checks"]) for name in known)
    lines = [
        _HEAD.format(
            rules=len(known), whole=whole, checks=len(checks),
            open=len(checks) - sum(counts.values()), **counts,
        ),
        "| rule | mode | widths | seeds | agree | does not agree |",
        "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    lines += [_line(name, x, records[name]) for name in known for x in records[name]["series"]]
    lines += ["", "## Lines that do not agree", ""]
    lines += [f"* **{name}**: {why}" for name in known for why in _parted(name, records[name])]
    refused = {k: x["left_out"] for k, x in records.items() if x["left_out"]}
    if refused:
        lines += ["", "## Not measured", "", *(f"* {name}: {why}" for name, why in refused.items())]
    missing = [x for x in catalogue() if x not in records]
    if missing:
        lines += ["", "## Not measured yet", "", f"In this way: {', '.join(missing)}."]
    return "\n".join(lines) + "\n"


def _line(name: str, series: Record, record: Record) -> str:
    checks = [x for x in record["checks"] if x["mode"] == series["mode"]]
    agree = sum(x["verdict"] == "agree" for x in checks)
    apart = [x for x in checks if x["verdict"] != "agree"]
    others = [f"{x['quantity']} {x['layer']} ({x['verdict']})" for x in apart]
    across = " to ".join(f"{x:,}" for x in series["widths"])
    return (
        f"| {name} | {series['mode']} | {across} | {series['seeds']} | {agree} of {len(checks)} "
        f"| {', '.join(others)} |"
    )


def _parted(name: str, record: Record) -> list[str]:
    """Lines of a rule that do not agree, those of one reason together."""

    def why(x: Record) -> str:
        line = name, x["mode"], x["quantity"], x["layer"]
        return EXPLAINED.get(line, x["note"] or "not explained: a known limit")

    apart = sorted((x for x in record["checks"] if x["verdict"] != "agree"), key=why)
    return [f"{'; '.join(map(_told, lines))}: {reason}" for reason, lines in groupby(apart, why)]


def _told(x: Record) -> str:
    return (
        f"{x['mode']}, {x['quantity']} {x['layer']}, `{x['predicted']}` derived, "
        f"{_signed(x['measured'])} [{_signed(x['low'])}, {_signed(x['high'])}]"
    )


def _signed(x: float | str) -> str:
    return x if isinstance(x, str) else f"{x:+.3f}"


def main(words: Sequence[str] = ()) -> None:
    """Measure what has no record (or is named), and write both files."""
    Records("verified", page).measure(words, names(), measured, _verdicts)


def _verdicts(record: Record) -> str:
    return ", ".join(sorted({x["verdict"] for x in record["checks"]}))


_HEAD = """# The catalogue, verified

What `scaling verify NAME` says of every rule at its usual sizes ([measuring.md](measuring.md)):
{rules} rules, {checks} lines, of which {agree} agree, {open} are open and {contradict} are
contradicted; {whole} rules agree in all lines. Made by `make verified`, which measures what
`docs/verified.json` lacks.

* A line is the exponent of one size of one layer: of the start, of the layer's own update, of its
  feature change, of the decay of its weights, of a perturbation.
* *wide*: exactly in law at any width, margin 0.02, 16 samples; *dense*: all matrices in memory,
  margin 0.05, with 4 samples beside wide mode and 16 without it.
* seeds are added while noise leaves a verdict open, up to four times the usual number.
"""

if __name__ == "__main__":
    main(sys.argv[1:])

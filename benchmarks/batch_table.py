"""Powers of the batch of every rule of the catalogue, derived and measured, into docs/batch.md.

    python benchmarks/batch_table.py [NAME ...]   measures what docs/batch.json lacks, or NAME again

Each rule is measured as `scaling verify NAME --axis batch=8:64` does it (empirical/verify/
batch_sweep.py): own updates in wide mode, exactly in law, at one width beyond 10^5, on samples that
are independent and that agree, with twice as many seeds while noise leaves a verdict open, up to
`most_seeds`. Its record is kept once it is whole, so that a run is taken up where it was
interrupted. Rules that are made of a few columns go first, and may take more seeds: they cost
seconds each. Rules share the cores, one thread each.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction

from records import Record, Records

from derivations.catalogue import catalogue, find
from empirical.report.batch_checks import as_json
from empirical.verify.batch_sweep import BATCHES, MARGIN, MOST_SEEDS, SEEDS, WIDTH, sweep
from empirical.wide import Streaming
from empirical.wide.method import Path as Way
from empirical.wide.method import path_of
from scaling.cli.requests import problem_of, subject_of

MOST_BY_ENTRY = 8
LAYERS, SAMPLES = ("input", "hidden", "output"), ("independent", "aligned")
_NOISE = "the interval holds what is derived, and is wider than the margin at so many seeds"
_WEAK = (
    "weak directions of single samples, whose eigenvalues fall as 1/n, are felt beside a damping "
    "as large as the largest eigenvalue up to hundreds of samples"
)
_RELATIVE = (
    "a crossover: its dampings follow the largest eigenvalue, which of n samples in r directions "
    "is (1 + sqrt(r/n))^2 of its limit and falls up to hundreds of samples; for n = 64 to 512 at "
    "width 32768, 4 seeds, -0.38, -0.39, -0.34 are measured (open), none contradicted"
)
_ASLEEP = (
    "a crossover: nothing damps a factored second moment, so that neurons that few samples wake "
    "move as much as others, and fewer neurons are such as n grows. Of aligned samples own updates "
    "of the hidden layer follow, at width 32768, {slope} for n = 32 to 256 (2 seeds), which agrees"
)
_TANH = (
    "; for n = 8 to 64 (4 seeds) -0.19 [-0.35, -0.03], and under tanh, which wakes every neuron, "
    "+0.05 [-0.03, +0.13]. The interval of the output layer is wider than the margin"
)
EXPLAINED: Mapping[str, str] = {
    **dict.fromkeys(
        ("kfac", "kfac_trace", "kfac_mean", "kfac_clipped", "kfac_left_only", "tkfac"), _WEAK
    ),
    "kfac_relative": _RELATIVE,
    "adalomo": _ASLEEP.format(slope="-0.02 [-0.09, +0.05]") + _TANH,
    "came": _ASLEEP.format(slope="-0.02 [-0.09, +0.06]"),
}
"""By rule: why lines of it do not agree."""


def names() -> list[str]:
    """The rules of the catalogue, the cheap ones first."""
    return sorted(catalogue(), key=lambda x: path_of(find(x).rule, own_only=True) is not Way.CORE)


def most_seeds(name: str) -> int:
    """Seeds at which a verdict that noise leaves open stays open."""
    return MOST_SEEDS if path_of(find(name).rule, own_only=True) is Way.CORE else MOST_BY_ENTRY


def measured(name: str) -> Record:
    """All checks of a rule, or why there are none."""
    subject = subject_of(name, problem_of(name, None, practice=True))
    most = most_seeds(name)
    found = sweep([subject], BATCHES, WIDTH, SEEDS, MARGIN, Streaming(workers=1), most=most)
    kept = as_json(found)
    checks = [
        {k: round(x, 4) if isinstance(x, float) else x for k, x in check.items()}
        for check in kept["checks"]
    ]
    return {"checks": checks, "left_out": kept["not_measured"].get(name, "")}


def page(records: Mapping[str, Record]) -> str:
    """The page, from records alone."""
    checks = [x for record in records.values() for x in record["checks"]]
    rules = {x["rule"] for x in checks}
    counts = {k: sum(x["verdict"] == k for x in checks) for k in ("agree", "contradict")}
    lines = [
        _HEAD.format(
            rules=len(rules), checks=len(checks), width=f"{WIDTH:,}", margin=MARGIN, seeds=SEEDS,
            most=MOST_SEEDS, by_entry=MOST_BY_ENTRY, batches=", ".join(map(str, BATCHES)),
            open=len(checks) - sum(counts.values()), **counts,
        ),
        "| rule | samples | derived | input | hidden | output |",
        "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    lines += [
        _line(x, growth, records[x]["checks"]) for x in rules_in(records) for growth in SAMPLES
    ]
    lines += ["", "## Lines that do not agree", ""]
    lines += [f"* **{name}**: {why}" for name, why in parted(records).items()]
    refused = {k: x["left_out"] for k, x in records.items() if x["left_out"]}
    lines += ["", "## Not covered", "", *(f"* {name}: {why}" for name, why in refused.items())]
    missing = [x for x in names() if x not in records]
    if missing:
        told = ", ".join(missing)
        lines += ["", "## Not measured yet", "", f"Derived, and not measured in this way: {told}."]
    return "\n".join(lines) + "\n"


def rules_in(records: Mapping[str, Record]) -> list[str]:
    """Rules with checks, in the order of the catalogue."""
    return [x for x in catalogue() if records.get(x, {}).get("checks")]


def parted(records: Mapping[str, Record]) -> dict[str, str]:
    """Rules with a line that does not agree, and why."""
    found = {}
    for name in rules_in(records):
        apart = [x for x in records[name]["checks"] if x["verdict"] != "agree"]
        if apart:
            why = _NOISE if all(map(_holds, apart)) else "not explained: a known limit"
            found[name] = EXPLAINED.get(name, why)
    return found


def _holds(x: Record) -> bool:
    """Whether an open line is open for want of seeds alone: the interval holds what is derived."""
    try:
        derived = float(Fraction(x["own"]))
    except ValueError:  # a formula
        return False
    return x["low"] <= derived <= x["high"] and x["verdict"] != "contradict"


def main(words: Sequence[str] = ()) -> None:
    """Measure what has no record (or is named), and write both files."""
    Records("batch", page).measure(words, names(), measured, lambda record: "measured")


def _line(name: str, growth: str, checks: Sequence[Record]) -> str:
    found = {x["layer"]: x for x in checks if x["samples"] == growth}
    powers = dict.fromkeys(found[layer]["own"] for layer in LAYERS)
    derived = ", ".join(f"`{x}`" for x in (powers if len(powers) == 1 else _each(found)))
    cells = (_cell(found[layer]) for layer in LAYERS)
    return f"| {name} | {growth} | {derived} | {' | '.join(cells)} |"


def _each(found: Mapping[str, Record]) -> list[str]:
    return [found[layer]["own"] for layer in LAYERS]


def _cell(x: Record) -> str:
    verdict = {"agree": "", "contradict": ", **contradicted**"}.get(x["verdict"], ", open")
    return f"{x['measured']:+.2f} [{x['low']:+.2f}, {x['high']:+.2f}]{verdict}"


_HEAD = """# Powers of the batch

Own updates RMS(dW h) ~ n^x at one learning rate, derived as by
`scaling derive sgd --axis batch`, measured as by `scaling verify sgd --axis batch=8:64`:
{rules} rules, {checks} lines, of which {agree} agree, {open} are open and {contradict} are
contradicted. Made by `make batch`, which measures what `docs/batch.json` lacks.

* Networks of {width} neurons, measured exactly in law; batches {batches}; {seeds} seeds, doubled
  while noise leaves a verdict open, up to {most}, or {by_entry} of rules that look at single
  entries; an interval is to lie within {margin} of what is derived.
* **independent**: targets are signs drawn for every sample; **aligned**: they are 1 for all.
* Dampings are as large as what they are added to, at the middle batch, and follow the powers
  that are derived.
"""

if __name__ == "__main__":
    main(sys.argv[1:])

"""The atlas: own updates of many optimizers, measured in their default settings, beside the theory.

    python -m empirical.black_box.atlas        measures what docs/atlas.json lacks, writes the page

For each optimizer of atlas_rows.py a probe measures the exponents of RMS(dW h) in input, hidden and
output layers. Beside them stand the exponents derived for its rule as written, where every damping
follows the width, and with these constants, where those of the class stay what they are. A role

    agrees       its interval, widened by MARGIN, holds the exponent of the rule as written
    constant     it holds that of the rule with these constants alone
    parts        it holds neither: a remark says why

Records are kept after every probe, so that a run is taken up where it was interrupted; a library
that is not installed keeps the record that it has.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from derivations.catalogue import catalogue, rule_of
from empirical.black_box.atlas_rows import ROWS, AtlasRow
from empirical.black_box.own_updates import ROLES
from empirical.black_box.probed_optimizer import probe
from scaling.models.chain import Setting
from scaling.models.settings import read_settings
from scaling.rules.parser import parse
from scaling.sizes.errors import NotCovered, ScalingError
from scaling.solve.derive import derive

FOLDER = Path(__file__).parents[2] / "docs"
WIDTHS, SEEDS, MARGIN = (32, 64, 128, 256), 4, 0.05
Triple = tuple[float, float, float]
"""By role: input, hidden, output."""


@dataclass(frozen=True)
class Judged:
    """A row of the page: what was measured, both derivations, and a verdict for each role."""

    row: AtlasRow
    measured: tuple[Mapping[str, Any], ...]
    written: tuple[str, ...]
    constant: tuple[str, ...]
    verdicts: tuple[str, ...]
    equals: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """The worst of its roles."""
        return max(self.verdicts, key=("agrees", "constant", "parts").index)


def exponents(row: AtlasRow, constant: bool) -> tuple[str, ...]:
    """The c of each role of the rule as written, or with the dampings of the row fixed.

    Raises:
        NotCovered: where no exponent is derived.
    """
    return _derived(row.rule, row.constants if constant else ())


@cache
def _derived(name: str, constants: tuple[str, ...]) -> tuple[str, ...]:
    rule, setting = rule_of(name), Setting()
    settled = [f"d_{x}=0" for x in constants if x in rule.scaled]
    settled += [f"{x}=0" for x in rule.decays]  # as the probe has it
    settings = read_settings([*settled, *_powers(name)], rule, setting.layers)
    found = derive(rule, settings, setting).exponents.c
    return tuple(str(found[role]) for role in ROLES)


def judged(row: AtlasRow, record: Mapping[str, Any]) -> Judged:
    """A record beside the theory."""
    written, constant = (_exponents_or_refused(row, x) for x in (False, True))
    measured = tuple(record["layers"][role] for role in ROLES)

    def verdict(x: Mapping[str, Any], derived: str, other: str) -> str:
        held = [_holds(x, derived), _holds(x, other)]
        return "agrees" if held[0] else "constant" if held[1] else "parts"

    verdicts = tuple(map(verdict, measured, written, constant))
    equals, notes = tuple(record["equals"]), tuple(record["notes"])
    return Judged(row, measured, written, constant, verdicts, equals, notes)


def _exponents_or_refused(row: AtlasRow, constant: bool) -> tuple[str, ...]:
    try:
        return exponents(row, constant)
    except NotCovered:
        return ("refused",) * len(ROLES)


def measured(row: AtlasRow) -> dict[str, Any]:
    """The probe of an optimizer as a record, or why there is none."""
    try:
        found = probe(row.place, dict(row.kwargs), row.widths or WIDTHS, SEEDS).as_json()
    except ScalingError as error:
        return {"refused": error.found}
    for x in found["layers"].values():
        x.update({k: round(float(x[k]), 4) for k in ("measured", "low", "high")})
    return {k: x for k, x in found.items() if k != "seconds"}


def page(records: Mapping[str, Mapping[str, Any]]) -> str:
    """The page, from records alone."""
    rows = [judged(row, records[key]) for key, row in keyed() if "layers" in records.get(key, {})]
    counts = {k: sum(x.verdict == k for x in rows) for k in ("agrees", "constant", "parts")}
    refused = [
        (row, records[k]["refused"]) for k, row in keyed() if "refused" in records.get(k, {})
    ]
    lines = [
        _HEAD.format(
            optimizers=len({x.row.place for x in rows}), rows=len(rows), seeds=SEEDS, margin=MARGIN,
            widths=f"{WIDTHS[0]} to {WIDTHS[-1]}", **counts,
        ),
        "| optimizer | measured: input, hidden, output | as written | these constants | rule | |",
        "| --- | --- | --- | --- | --- | --- |",
        *map(_line, rows),
        "",
        "## Where they part",
        "",
    ]  # fmt: skip
    for one in (x for x in rows if x.verdict != "agrees" or x.row.remark):
        told = one.row.remark or "not explained: filed as a known limit of the atlas"
        lines.append(f"* **{one.row.place}** ({one.verdict}): {told}")
    lines += ["", "## Not measured", ""]
    lines += [f"* {row.place}: {why}" for row, why in refused]
    return "\n".join(lines) + "\n"


def keyed() -> list[tuple[str, AtlasRow]]:
    """Rows by what they are called in the records."""
    return [(f"{x.place}{json.dumps(dict(x.kwargs)) if x.kwargs else ''}", x) for x in ROWS]


def main(words: Sequence[str] = ()) -> None:
    """Measure what has no record (or is named), and write both files."""
    kept = FOLDER / "atlas.json"
    records = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    for key, row in keyed():
        if key not in records or any(word in key for word in words):
            found = measured(row)
            if "no module" not in found.get("refused", ""):
                records[key] = found
                kept.write_text(json.dumps(records, indent=1) + "\n", "utf-8")
            print(key, found.get("refused", "measured"), flush=True)
    (FOLDER / "atlas.md").write_text(page(records), "utf-8")


def _powers(name: str) -> list[str]:
    known = catalogue().get(name)
    return [f"{k}={x}" for k, x in known.exponents.items()] if known else []


def _holds(x: Mapping[str, Any], derived: str) -> bool:
    if derived == "refused":
        return False
    value = float(parse_number(derived))
    return bool(x["low"] - MARGIN <= value <= x["high"] + MARGIN)


def parse_number(text: str) -> float:
    """A derived exponent as a number.

    >>> parse_number("-1/2")
    -0.5
    """
    top, _, bottom = text.partition("/")
    return int(top) / int(bottom or 1)


def _line(one: Judged) -> str:
    shown = ", ".join(f"{x['measured']:+.2f}" for x in one.measured)
    if one.row.kwargs:
        name = f"{one.row.place}({', '.join(f'{k}={x!r}' for k, x in one.row.kwargs.items())})"
    else:
        name = one.row.place
    written, constant = ", ".join(one.written), ", ".join(one.constant)
    rule = one.row.rule if " " not in one.row.rule else str(parse(one.row.rule).written)
    equal = f"; equals {', '.join(one.equals)}" if one.equals else ""
    if one.row.widths:
        name += f", widths {one.row.widths[0]} to {one.row.widths[-1]}"
    same = "the same" if constant == written else constant
    return f"| {name} | {shown} | {written} | {same} | {rule}{equal} | {one.verdict} |"


_HEAD = """# Atlas

Own updates of {optimizers} optimizers of libraries, measured in their default settings (but for the
decay of the weights, which is zero), and some with other constants, beside what is derived: {rows}
rows. Made by `make atlas`, which measures what `docs/atlas.json` lacks.

* **measured**: x of RMS(dW h) ~ M^x at one learning rate for widths {widths}, if no others are
  named, {seeds} seeds, on the chain of `scaling probe torch.optim:SGD`; with a rate M^-x the
  layer's own update is as large at any width
* **as written**: c of the rule, where every damping follows the width
* **these constants**: c of the rule where its dampings stay what they are, at infinite width
* **agrees**: the intervals, widened by {margin}, hold what is derived as written ({agrees});
  **constant**: what is derived with these constants alone ({constant}); **parts**:
  neither ({parts})

Libraries of curvature take a model and data in the place of tensors: classes of
`empirical/black_box/` hand them the batch that a gradient came from (`through_asdl` for
asdfghjkl, `through_curvlinops` for curvlinops, whose K-FAC is used as a preconditioner), with
the Fisher matrix of the gradients themselves. Distributed Shampoo (facebookresearch/optimizers)
is not on the package index, so that `make atlas` cannot install it: its first two steps are
recorded in `tests/recorded_steps/`, and the recipes `distributed_shampoo_*` are held against them.

A tiny constant damping is not felt at the widths that are measured: there the exponents are those
of the rule as written, and those of the other column set in where the damping meets what it is
added to.
"""

if __name__ == "__main__":
    main(sys.argv[1:])

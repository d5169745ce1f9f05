"""Regimes over two exponents in words: boundaries as formulas, regions by a place inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scaling.report.tables import Table, heading
from scaling.sizes.plane import Point
from scaling.solve.phases import AT_START, REGIMES, WHOLE, PhaseDiagram

MEANINGS = {
    AT_START: "h or f grows with the width before any step",
    "unstable": "something grows in a step",
    "maximal": "own updates of {all} move {its} by Theta(1)",
    "sub-maximal": "features move by Theta(1), but not through the own updates of {all}",
    "lazy": "features stand still, the output moves",
    "frozen": "nothing moves",
}
_WHOLE = {"all": "all layers", "its": "their outputs"}
_ONE = {"all": "this layer", "its": "its output"}


def phase_table(
    diagram: PhaseDiagram, verdicts: Mapping[Point, str] | None = None, reasons: Sequence[str] = ()
) -> Table:
    """Every region, boundary and corner, with the verdicts of measurements at places of them.

    ``reasons``: where was measured, and why a place does not agree.
    """
    x, y = diagram.x, diagram.y
    count = len(diagram.regions)
    rows: list[tuple[str, ...]] = [
        ("region", f"holds {_place(at)}", name, "") for name, at in diagram.places[:count]
    ]
    for b in diagram.boundaries:
        below, above = ("left", "right") if b.equation.startswith(f"{x} = ") else ("below", "above")
        beside = f"{b.below} {below}, {b.above} {above}"
        rows.append((b.equation, f"{_place(b.start)} to {_place(b.end)}", b.on, beside))
    rows += [("corner", _place(at), regime, "") for at, regime in diagram.corners]
    columns: tuple[str, ...] = ("where", f"({x}, {y})", "regime", "beside it")
    if verdicts is not None:
        told = [verdicts.get(at, "") for _, at in diagram.places]
        told += [""] * (len(rows) - len(told))
        columns = (*columns, "measured")
        rows = [(*row, found) for row, found in zip(rows, told, strict=True)]
    (left, low), (right, high) = diagram.window[0], diagram.window[2]
    words = _WHOLE if diagram.layer == WHOLE else _ONE
    whose = "the network" if diagram.layer == WHOLE else f"the {diagram.layer} layer"
    seen = [name for name in REGIMES if any(name == row[2] for row in rows)]
    notes = (
        f"regimes of {whose}, {x} from {left} to {right} and {y} from {low} to {high}; other "
        "exponents are the derived ones, or as they are set",
        *(f"{name}: {MEANINGS[name].format(**words)}" for name in seen),
        *reasons,
        *(f"assumed: {text}" for text in diagram.prediction.assumptions),
    )
    return Table(heading(diagram.prediction.problem), columns, tuple(rows), notes)


def _place(at: Point) -> str:
    return f"({at[0]}, {at[1]})"


def phase_json(
    diagram: PhaseDiagram, verdicts: Mapping[Point, str] | None = None, reasons: Sequence[str] = ()
) -> dict[str, Any]:
    """The same as data: rationals are strings."""
    told = verdicts or {}

    def place(at: Point) -> list[str]:
        return [str(value) for value in at]

    return {
        "rule": str(diagram.prediction.problem.rule),
        "name": diagram.prediction.problem.rule.name,
        "x": diagram.x,
        "y": diagram.y,
        "layer": diagram.layer,
        "window": [place(corner) for corner in diagram.window],
        "regions": [
            {"regime": regime, "polygons": [[place(p) for p in cell] for cell in cells]}
            for regime, cells in diagram.regions
        ],
        "boundaries": [
            {
                "equation": b.equation, "from": place(b.start), "to": place(b.end), "regime": b.on,
                "below": b.below, "above": b.above,
            }
            for b in diagram.boundaries
        ],
        "corners": [{"at": place(at), "regime": regime} for at, regime in diagram.corners],
        "places": [
            {"at": place(at), "regime": regime, "measured": told.get(at)}
            for regime, at in diagram.places
        ],
        "notes": list(reasons),
        "assumptions": list(diagram.prediction.assumptions),
        "convention": diagram.prediction.convention,
    }  # fmt: skip

"""The regime of a step over two exponents: exact regions, boundaries and corners.

`predict` answers with symbols in the place of the two, as functions that are linear between lines
(plane.py). On each face of these lines every sign is fixed, and with the signs the regime:

    grows at start   h, or f, grows with the width before any step
    unstable         something grows in the step
    maximal          every layer's own update moves its output by Theta(1)
    sub-maximal      features move by Theta(1) in some hidden layer, but not through all layers
    lazy             no features move, the output does
    frozen           nothing moves

Of one layer the regime is the one that `predict` names. Maximal and sub-maximal are lines or
points where an exponent is exactly zero; a region is theirs where no exponent in question depends
on the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sympy import Expr, S, Symbol

from scaling.sizes.errors import InvalidInput, unknown
from scaling.sizes.in_notebook import InNotebook
from scaling.sizes.plane import (
    Arrangement,
    Line,
    Point,
    Polygon,
    area,
    lines_of,
    middle,
    rectangle,
    value,
    written,
)
from scaling.sizes.scale import Bounds, Order
from scaling.solve.predict import LayerPrediction, LayerRegime, Prediction, regime_of

AT_START = "grows at start"
REGIMES = (AT_START, "unstable", "maximal", "sub-maximal", "lazy", "frozen")
X, Y = Symbol("x"), Symbol("y")
"""Symbols of the two exponents in a prediction."""
WHOLE = "network"
"""The regime of all layers together, beside those of single ones."""


@dataclass(frozen=True)
class Boundary:
    """A segment of a line between two places, and the regimes on it and beside it.

    ``below`` is where the second exponent is smaller (on a vertical line, the first).
    """

    equation: str
    start: Point
    end: Point
    on: str
    below: str
    above: str


@dataclass(frozen=True)
class PhaseDiagram(InNotebook):
    """The regimes of a window of two exponents.

    Args:
        prediction: sizes as functions of the two.
        x, y: the keys of the exponents, as in ``--set``.
        layer: whose regime, or `WHOLE`.
        window: the rectangle.
        regions: connected parts of the plane with their regime, each as convex polygons.
        boundaries: where regimes change, or another one holds on the line.
        corners: places whose regime is that of no region or boundary beside them.
    """

    prediction: Prediction
    x: str
    y: str
    layer: str
    window: Polygon
    regions: tuple[tuple[str, tuple[Polygon, ...]], ...]
    boundaries: tuple[Boundary, ...]
    corners: tuple[tuple[Point, str], ...]

    def regime(self, at: Point) -> str:
        """The regime at a place of the window."""
        return regime_at(self.prediction, self.layer, at)

    @property
    def places(self) -> tuple[tuple[str, Point], ...]:
        """Inside of every region, and on every boundary: its regime, and a place."""
        inside = [(r, middle(max(cells, key=area))) for r, cells in self.regions]
        return (*inside, *((b.on, middle((b.start, b.end))) for b in self.boundaries))


def phases(
    prediction: Prediction,
    x: str,
    y: str,
    window: Sequence[str],
    layer: str = WHOLE,
    bounds: Bounds | None = None,
) -> PhaseDiagram:
    """The diagram of a prediction in which two exponents are the symbols `X` and `Y`.

    Args:
        prediction: of `predict`.
        x: the key of the first exponent, such as d_rho_A.
        y: that of the second.
        window: from and to of x, from and to of y, as rationals in text.
        layer: whose regime is shown; by default that of all layers together.
        bounds: of what the prediction takes the symbols to be; the window has to be within.

    Raises:
        NotCovered: for sizes that are not piecewise linear in the two.
        InvalidInput: for an unknown layer, or a window without area.
    """
    if layer != WHOLE and layer not in prediction.layers:
        raise unknown("layer", layer, (WHOLE, *prediction.layers))
    corners = _rectangle(window)
    for key, symbol, i in ((x, X, 0), (y, Y, 1)):
        low, high = (bounds or Bounds()).range(symbol)
        if corners[0][i] < low or corners[2][i] > high:
            raise InvalidInput(
                f"a window with {key} from {corners[0][i]} to {corners[2][i]}",
                f"values between {low} and {high}, for which sizes were derived",
                "take a smaller window",
            )
    lines: dict[Line, None] = {}
    for found in prediction.layers.values():
        for size in _sizes(found):
            lines.update(dict.fromkeys(lines_of(size, X, Y, corners)))
    cut = Arrangement.of(corners, list(lines))
    told = {at: regime_at(prediction, layer, at) for at in cut.faces}
    regions = tuple(_regions(cut, told))
    drawn = _boundaries(cut, told, x, y)
    beside: dict[Point, set[str]] = {}
    for edge, (_, low, high) in cut.edges.items():
        for end in edge:
            beside.setdefault(end, set()).update((told[middle(edge)], told[low], told[high]))
    alone = tuple((at, told[at]) for at in cut.corners if told[at] not in beside[at])
    return PhaseDiagram(prediction, x, y, layer, corners, regions, drawn, alone)


def _rectangle(window: Sequence[str]) -> Polygon:
    try:
        corners = rectangle(*window)
    except (TypeError, ValueError, ZeroDivisionError):
        raise InvalidInput(
            f"the window {', '.join(map(str, window))}",
            "four rational numbers: from and to of both exponents",
            "write for example 0:2,-1:3/2",
        ) from None
    if not (corners[0][0] < corners[2][0] and corners[0][1] < corners[2][1]):
        raise InvalidInput(
            f"the window {', '.join(map(str, window))}, which ends before it starts",
            "from < to, for both exponents",
            "write for example 0:2,-1:3/2",
        )
    return corners


def regime_at(prediction: Prediction, layer: str, at: Point) -> str:
    """The regime of a layer, or of the network, at one place."""

    def order(size: Expr | None) -> Order:
        if size is None:
            return Order.GREATER  # above a layer that is unstable
        if size.is_infinite:
            return Order.GREATER if size > 0 else Order.LESS
        found = value(size, X, Y, at)
        return Order.EQUAL if found == 0 else Order.GREATER if found > 0 else Order.LESS

    layers, setting = prediction.layers, prediction.problem.setting
    if layer == WHOLE and any(order(x.init) is Order.GREATER for x in layers.values()):
        return AT_START
    grown = [  # above these, changes of features are unknown, as in `predict`
        x.position
        for x in setting.layers
        if x.position < setting.depth and _outgrows(layers[x.name], order)
    ]
    silent = min(grown, default=setting.depth)
    output = layers[setting.layers[-1].name].feature if silent == setting.depth else None
    regimes = {
        x.name: str(
            LayerRegime.UNSTABLE
            if x.position > silent
            else _regime(
                layers[x.name], None if x.position == setting.depth else order(output), order
            )
        )
        for x in setting.layers
    }
    return regimes[layer] if layer != WHOLE else _together(regimes)


def _outgrows(found: LayerPrediction, order: Callable[[Expr | None], Order]) -> bool:
    """Whether the features change by more than order one, or by more than they are."""
    if order(found.feature) is Order.GREATER:
        return True
    finite = found.feature is not None and not (found.feature - found.init).has(S.Infinity, S.NaN)
    grown = finite and not found.init.is_infinite
    return grown and order(found.feature - found.init) is Order.GREATER


def _regime(
    found: LayerPrediction, output: Order | None, order: Callable[[Expr | None], Order]
) -> LayerRegime:
    """As `predict` names it; ``output``: the order of df, where it is not the layer's feature."""
    if found.shrink is not None and order(found.shrink) is Order.GREATER:
        return LayerRegime.UNSTABLE
    orders = [order(found.own), order(found.feature), *([] if output is None else [output])]
    still = found.own is S.NegativeInfinity and found.feature is S.NegativeInfinity
    return regime_of(orders, still)


def _together(regimes: Mapping[str, str]) -> str:
    found = set(regimes.values())
    if "unstable" in found:
        return "unstable"
    if found == {"maximal"}:
        return "maximal"
    *hidden, last = regimes.values()
    if {"maximal", "sub-maximal"} & set(hidden):
        return "sub-maximal"
    return "frozen" if last == "frozen" else "lazy"


def _sizes(found: LayerPrediction) -> list[Expr]:
    """The exponents whose signs decide."""
    sizes = [found.init, found.own, found.feature, found.shrink]
    if found.feature is not None:
        sizes.append(found.feature - found.init)
    return [size for size in sizes if size is not None and not size.has(S.Infinity, S.NaN)]


def _regions(cut: Arrangement, told: Mapping[Point, str]) -> list[tuple[str, tuple[Polygon, ...]]]:
    """Cells of one regime, joined across edges that have it too."""
    places = {middle(cell): cell for cell in cut.cells}
    joined = {at: {at} for at in places}
    for edge, (_, low, high) in cut.edges.items():
        if told[middle(edge)] == told[low] == told[high] and joined[low] is not joined[high]:
            joined[low] |= joined[high]
            joined.update(dict.fromkeys(joined[low], joined[low]))
    parts = {id(part): part for part in joined.values()}.values()
    found = [(told[min(part)], tuple(places[at] for at in sorted(part))) for part in parts]
    return sorted(found, key=lambda region: (REGIMES.index(region[0]), region[1]))


def _boundaries(
    cut: Arrangement, told: Mapping[Point, str], x: str, y: str
) -> tuple[Boundary, ...]:
    """The edges where something changes; those that follow one another on a line are one."""
    rows: dict[tuple[Line, str, str, str], list[tuple[Point, Point]]] = {}
    for edge, (line, low, high) in sorted(cut.edges.items()):
        on, below, above = told[middle(edge)], told[low], told[high]
        if line[1] < 0 or (line[1] == 0 and line[0] < 0):
            below, above = above, below
        if not on == below == above:
            rows.setdefault((line, on, below, above), []).append(edge)
    found = []
    for (line, on, below, above), edges in rows.items():
        joined = [edges[0]]
        for start, end in edges[1:]:
            if start == joined[-1][1]:
                joined[-1] = (joined[-1][0], end)
            else:
                joined.append((start, end))
        equation = written(line, x, y)
        found += [Boundary(equation, *segment, on, below, above) for segment in joined]
    return tuple(sorted(found, key=lambda b: (REGIMES.index(b.on), b.start, b.end)))

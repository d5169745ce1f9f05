"""The abc symmetry: when two tables of exponents describe the same training.

Moving a factor M^t from the initial scale into the multiplier (a -> a + t, b -> b - t) leaves the
function unchanged; the learning rate and the dampings must follow, c -> c + gamma t and
d -> d + kappa t. The rates gamma and kappa belong to the rule (SGD: gamma = -2, sign: -1) and are
not written down: they are what `derive` answers for the moved network, minus what it answers for
the original one. A decay of the weights follows the learning rate, d -> d - gamma t, so that a step
takes the same fraction of them away.

`compare` brings both tables to a = 0 and then asks for equality. A rule that is not homogeneous
in the layer's input (such as G + 8 W, whose multiple of W cannot follow) has no such symmetry
and is refused.

Source: arXiv 2011.14522, Sec. 3 (SGD); arXiv 2308.01814 (Adam).

>>> from scaling.rules.parser import parse
>>> shift(parse("G"), t="1/2").c["hidden"], shift(parse("sign(G)"), t="1/2").c["hidden"]
(-1, -1/2)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sympy
from sympy import Expr, S

from scaling.calculus.context import Regime
from scaling.models.chain import Setting
from scaling.models.settings import Settings
from scaling.rules.like_terms import is_damping
from scaling.rules.operators import FUNCTIONS, OfEntries
from scaling.rules.rule import Rule
from scaling.rules.tree import Call
from scaling.sizes.errors import NotCovered
from scaling.sizes.in_notebook import InNotebook
from scaling.sizes.scale import ExponentLike, exponent
from scaling.solve.derive import Derived, derive
from scaling.states.problem import CONVENTION, Exponents, Problem


def shift(
    rule: Rule,
    setting: Setting | None = None,
    t: ExponentLike | Mapping[str, Expr] = 1,
    exponents: Mapping[str, Expr] | None = None,
) -> Exponents:
    """How a, b, c, d change when M^t moves from the initial scale into the multiplier.

    Args:
        rule: the update rule.
        setting: the network.
        t: one exponent for all layers, or one by layer name.
        exponents: values of the rule's exponent symbols.

    Raises:
        NotCovered: if the rule is not homogeneous in the layer's input.

    >>> from scaling.rules.parser import parse
    >>> shift(parse("G")).c["hidden"]  # a multiplier M^(-1) on a weight of size M: c - 2
    -2
    """
    setting = setting or Setting()
    names = [layer.name for layer in setting.layers]
    moved = {name: t[name] if isinstance(t, Mapping) else exponent(t) for name in names}
    fixed = exponents or {}
    before = derive(rule, Settings(exponents=fixed), setting)
    after = derive(rule, Settings(a=moved, exponents=fixed), setting)
    _check_homogeneous(before, after)
    return difference(after.exponents, before.exponents)


def difference(y: Exponents, x: Exponents) -> Exponents:
    """The difference that leads from the exponents x to y."""
    return Exponents(
        _difference(y.a, x.a),
        _difference(y.b, x.b),
        _difference(y.c, x.c),
        {name: _difference(y.d[name], x.d[name]) for name in x.d},
    )


def move(table: Exponents, by: Exponents) -> Exponents:
    """A table of exponents, moved along the symmetry by a `shift`."""
    return Exponents(
        _total(table.a, by.a),
        _total(table.b, by.b),
        _total(table.c, by.c),
        {name: _total(table.d[name], by.d[name]) for name in table.d},
    )


def canonical(problem: Problem, table: Exponents) -> Exponents:
    """The equivalent table with a = 0 in every layer."""
    if all(a == 0 for a in table.a.values()):
        return table
    back = {name: -a for name, a in table.a.items()}
    by = shift(problem.rule, problem.setting, back, problem.settings.exponents)
    return move(table, by)


@dataclass(frozen=True)
class Difference:
    """An exponent in which two tables differ after the symmetry is taken out."""

    layer: str
    name: str
    left: Expr | None
    right: Expr | None


@dataclass(frozen=True)
class Comparison(InNotebook):
    """Two tables at a = 0, the shifts that brought them there, and where they differ."""

    left: Exponents
    right: Exponents
    shifts: tuple[Mapping[str, Expr], Mapping[str, Expr]]
    differences: tuple[Difference, ...]
    assumptions: tuple[str, ...] = ()
    """Readings of the numbers and names of either rule."""
    convention: str = CONVENTION

    @property
    def equivalent(self) -> bool:
        """Whether the two tables describe the same training."""
        return not self.differences


def compare(x: Problem, left: Exponents, y: Problem, right: Exponents) -> Comparison:
    """Compare two tables modulo the abc symmetry of their rules.

    Tables of different rules are compared by their numbers: equal exponents then mean that both
    learning rates scale alike, in each rule's own units.

    >>> from scaling.solve.derive import derive
    >>> one, other = derive("G"), derive("G + G")
    >>> compare(one.problem, one.exponents, other.problem, other.exponents).equivalent
    True
    """
    one, two = canonical(x, left), canonical(y, right)
    differences = []
    for layer in one.b:
        rows = [("b", one.b, two.b), ("c", one.c, two.c)]
        rows.append(("d", one.d[layer], two.d.get(layer, {})))
        for name, p, q in rows:
            keys = [layer] if name != "d" else dict.fromkeys([*p, *q])
            for key in keys:
                u, v = p.get(key), q.get(key)
                if u is None or v is None:
                    if x.rule == y.rule:
                        differences.append(Difference(layer, f"d_{key}", u, v))
                elif u != v and sympy.expand(u - v) != 0:
                    label = name if name != "d" else f"d_{key}"
                    differences.append(Difference(layer, label, u, v))
    shifts = ({k: -a for k, a in left.a.items()}, {k: -a for k, a in right.a.items()})
    assumptions = tuple(dict.fromkeys((*x.assumptions, *y.assumptions)))
    return Comparison(one, two, shifts, tuple(differences), assumptions)


def _check_homogeneous(before: Derived, after: Derived) -> None:
    """Every sum and every bound that is not a damping must keep the ratio of its terms."""
    for name, regimes in before.regimes.items():
        for x, y in zip(regimes, after.regimes[name], strict=True):
            if _follows(x):
                continue
            gap = (x.left_size.width - x.right_size.width) - (
                y.left_size.width - y.right_size.width
            )
            if sympy.expand(gap) != 0:
                raise _no_symmetry(str(x.node))
    for old, new in zip(before.shrinkages, after.shrinkages, strict=True):
        if sympy.expand(old.fraction.width - new.fraction.width) != 0:
            raise _no_symmetry("a multiple of W added to the gradient")


def _follows(regime: Regime) -> bool:
    """Whether one of two terms is a damping, whose exponent moves with the other term."""
    if isinstance(regime.node, Call) and _bounds(regime.node):
        return is_damping(regime.right) and not is_damping(regime.left)
    return is_damping(regime.left) != is_damping(regime.right)


def _bounds(node: Call) -> bool:
    return isinstance(FUNCTIONS[node.function].reading, OfEntries)


def _no_symmetry(found: str) -> NotCovered:
    return NotCovered(
        f"{found}, whose terms scale differently when M^t moves into the multiplier",
        "a rule that is homogeneous in the layer's input",
        "compare tables with the same a, or leave that term out",
    )


def _difference(y: Mapping[str, Expr], x: Mapping[str, Expr]) -> dict[str, Expr]:
    return {k: S.Zero if y[k] == x[k] else sympy.expand(y[k] - x[k]) for k in x}


def _total(x: Mapping[str, Expr], y: Mapping[str, Expr]) -> dict[str, Expr]:
    return {k: x[k] if y[k] == 0 else sympy.expand(x[k] + y[k]) for k in x}

"""Rewrites: nodes that could stand in the place of one that no rule of inference covers.

Each function makes candidates from the node in question, the nearest first. Whether one of them is
covered is decided by deriving it (solve/offers.py): a refusal offers a rule that was accepted.

    damped     a damping in each divisor and each inverse
    decays_outside  decays beside the whole rule
    positive   absolute values where there are both signs, a sum in the place of a difference
    apart      one operand alone
    decoupled  the decay outside of the function
    of_gradient  a function of entries left out within another function
    odd        the node made odd in the gradient
    simpler    one part of it as plain as can be
    plain      the simplest thing of its shape
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import reduce
from itertools import chain, islice
from typing import TypeAlias

from scaling.rules.operators import FUNCTIONS
from scaling.rules.rewrites import rebuilt, substitute
from scaling.rules.shapes import UPDATE
from scaling.rules.symbols import SymbolKind, kind_of
from scaling.rules.tree import (
    Add,
    Call,
    Divide,
    Matrix,
    Multiply,
    Negate,
    Node,
    Number,
    Power,
    Subtract,
    Symbol,
    Transpose,
)
from scaling.sizes.errors import RuleError

MOST = 8
"""Candidates of one kind: a long node has many parts."""
Rewrite: TypeAlias = Callable[[Node], Iterator[Node]]
_G, _W, _I, _TWO = Matrix("G"), Matrix("W"), Matrix("I"), Number(Fraction(2))


def candidates(node: Node, first: Rewrite) -> tuple[Node, ...]:
    """Everything to try in the place of a node, each once, what is meant first.

    >>> from scaling.rules.language import G, sqrt
    >>> [str(x) for x in candidates(1 / (G * G), damped)][:2]
    ['1/(G*G + eps)', 'norm(G)/(G*G)']
    """
    rewrites = (first, simpler, apart, plain)
    found = chain.from_iterable(islice(_tried(rewrite(node)), MOST) for rewrite in rewrites)
    return tuple(x for x in dict.fromkeys(found) if x != node and x.shape == node.shape)


def _tried(nodes: Iterator[Node]) -> Iterator[Node]:
    """The candidates up to the first whose operands do not fit."""
    try:
        yield from nodes
    except RuleError:
        return


def damped(node: Node) -> Iterator[Node]:
    """A damping in the divisor, or in the inverse."""
    match node:
        case Divide(x, y):
            yield Divide(x, Add(y if _is_positive(y) else Call("abs", y), Symbol("eps")))
        case Call("sign", x) if x.shape.is_rotated:
            yield Divide(x, Add(Call("abs", x), Symbol("eps")))
        case Power(base, power) if base.shape.is_square:
            yield Power(Add(base, Multiply(Symbol("rho"), _I)), power)
        case Power(base, power):
            yield Power(
                Add(base if _is_positive(base) else Call("abs", base), Symbol("eps")), power
            )
    for child in node.children:
        for better in damped(child):
            yield _with(node, child, better)


def all_damped(node: Node) -> Node:
    """The same with a damping in each inverse and in each sign in an eigenbasis.

    >>> from scaling.rules.language import A, B, G
    >>> str(all_damped(B**-1 @ G @ A**-1))
    '(B + rho*I)**(-1) @ G @ (A + rho*I)**(-1)'
    """
    changed = rebuilt(node, all_damped)
    match changed:
        case Power(base, power) if base.shape.is_square and _is_inverse(power):
            return changed if isinstance(base, Add) else next(damped(changed))
        case Call("sign", argument) if argument.shape.is_rotated:
            return next(damped(changed))
    return changed


def positive(node: Node) -> Iterator[Node]:
    """Absolute values, or a sum in the place of a difference."""
    match node:
        case Divide():
            yield from damped(node)
        case Subtract(x, y):
            yield Add(x, y)
        case Negate(x):
            yield x
        case Power(base, power) if not base.shape.is_square:
            yield Multiply(Call("sign", base), Power(Call("abs", base), power))
            yield Power(Call("abs", base), power)
        case Call("inner", x):
            yield Call("inner", x, x)
        case Call():
            x = node.argument
            if not x.shape.is_square:
                yield _with(node, x, Call("abs", x))
                yield _with(node, x, Multiply(x, x))
    for child in node.children:
        for better in positive(child):
            yield _with(node, child, better)


def decoupled(node: Node) -> Iterator[Node]:
    """A function of X + decay*W as the function of X, with the multiple of W beside it."""
    for call in node.walk():
        if isinstance(call, Call) and isinstance(call.argument, Add):
            x, y = call.argument.left, call.argument.right
            if _W not in set(x.walk()) and y.shape == node.shape:
                yield Add(_with(call, call.argument, x), y)
    yield from apart(node)


def without_decay(node: Node) -> Node:
    """The same without what is a decay times W, added to something.

    >>> from scaling.rules.language import G, W, sign, symbol
    >>> str(without_decay(sign(G + symbol("decay") * W)))
    'sign(G)'
    """
    match node:
        case Add(x, Multiply(Symbol(name), y)) if y == _W and kind_of(name) is SymbolKind.DECAY:
            return without_decay(x)
        case Add(Multiply(Symbol(name), y), x) if y == _W and kind_of(name) is SymbolKind.DECAY:
            return without_decay(x)
    return rebuilt(node, without_decay)


def without_weights(node: Node) -> Node:
    """The same without terms that are a multiple of W.

    >>> from scaling.rules.language import G, W, inner, norm
    >>> str(without_weights(norm(G) * (G - inner(W, G) / norm(W) ** 2 * W)))
    'norm(G)*G'
    """
    match node:
        case Add(x, y) | Subtract(x, y) if _is_multiple_of_weights(y):
            return without_weights(x)
        case Add(y, x) if _is_multiple_of_weights(y):
            return without_weights(x)
    return rebuilt(node, without_weights)


def _is_multiple_of_weights(node: Node) -> bool:
    match node:
        case Multiply(x, y) if x.shape.is_scalar:
            return _is_multiple_of_weights(y)
        case Multiply(x, y) | Divide(x, y) if y.shape.is_scalar:
            return _is_multiple_of_weights(x)
    return node == _W


def decays_outside(node: Node) -> Iterator[Node]:
    """A rule whose decays stand in functions, with them beside it: Adam with a penalty as AdamW.

    Or named as dampings, each as large as what it is added to.

    >>> from scaling.rules.language import G, W, sign, symbol
    >>> [str(x) for x in decays_outside(sign(G + symbol("decay") * W))]
    ['sign(G) + decay*W', 'sign(G + rho*W)']
    """
    names = dict.fromkeys(
        x for x in node.walk() if isinstance(x, Symbol) and kind_of(x.name) is SymbolKind.DECAY
    )
    outside = without_decay(node)
    if outside != node and node.shape == UPDATE:
        yield reduce(lambda rule, name: Add(rule, Multiply(name, _W)), names, outside)
    yield substitute(node, {name: Symbol(name.name.replace("decay", "rho", 1)) for name in names})


def of_gradient(node: Node) -> Iterator[Node]:
    """A function of a function, as one of what that is of: orth(G) of orth(sign(G))."""
    if isinstance(node, Call) and isinstance(node.argument, Call):
        yield _with(node, node.argument, node.argument.argument)


def odd(node: Node) -> Iterator[Node]:
    """The node times the sign of the gradient, if it is an update."""
    if node.shape == UPDATE:
        yield Multiply(Call("sign", _G), node)


def apart(node: Node) -> Iterator[Node]:
    """Each operand alone, the first one first; without W where something else is left."""
    for child in sorted(node.children, key=lambda x: _W in set(x.walk())):
        if child.shape == node.shape:
            yield child


def simpler(node: Node) -> Iterator[Node]:
    """The node with one operand made plain, or an operand of that."""
    for simplified in (plain, simpler):
        for child in node.children:
            for better in simplified(child):
                yield _with(node, child, better)


def plain(node: Node) -> Iterator[Node]:
    """The simplest things of the shape of a node, of what the node is made of where it can be."""
    inside = {x for x in node.walk() if isinstance(x, Matrix)}
    squares = [Matrix(name) for name in ("B", "L", "A", "R")]
    simple: list[Node] = [_G, Transpose(_G)]
    simple += sorted(squares, key=lambda x: x not in inside)
    simple += [Call("norm", _G), Number(Fraction(1))]
    means = [
        Call(row.name, Multiply(_G, _G)) for row in FUNCTIONS.values() if row.mean and row.linear
    ]
    simple += [*means, *map(Transpose, means)]
    yield from (x for x in simple if x.shape == node.shape)


def _with(node: Node, old: Node, new: Node) -> Node:
    """The node with one of its operands replaced."""
    return rebuilt(node, lambda x: new if x == old else x)


def _is_inverse(power: Node) -> bool:
    return isinstance(power, Negate) or (isinstance(power, Number) and power.value < 0)


def _is_positive(node: Node) -> bool:
    """Whether a node is written so that it cannot be negative."""
    match node:
        case Call(function):
            return FUNCTIONS[function].never_negative
        case Multiply(x, y):
            return x == y
        case Add(x, y):
            return _is_positive(x) and (_is_positive(y) or isinstance(y, Symbol))
        case Power(_, power):
            return power == _TWO
    return False

"""Cancellation in a sum: its terms as functions of eigenvalues, in canonical form, before sizes.

The claim. Functions of one symmetric matrix form a commutative algebra, and f(L) G = G f(R). So
terms that differ by such functions only are one function of an eigenvalue x, and sympy's arithmetic
finds what cancels in it:

    G - G @ A @ (A + rho*I)**(-1)      1 - x/(x + rho) = rho/(x + rho)
    G - L**(1/2) @ orth(G)             1 - x^(1/2) x^(-1/2) = 0
    ema(G, beta) - (1 - beta)*G        zero at the first step
    sign(ema(G, beta)) - sign(G)       zero: positive factors leave homogeneous functions

In canonical form no two monomials are the same, and the eigenvalues on the data's span are several
and generic, so what is left does not cancel: the sum is read in that form. ema(X, beta) at the
second step is (1 - beta) (X + beta X_1), with X_1 of the step before as something of its own.

Not covered: a bare inverse on a side that is not within the data's span (A @ A**(-1) is no I), and
spans of one direction, where norms are eigenvalues too. sums.py refuses what may still cancel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import reduce

import sympy
from sympy import Expr, Rational, S

from scaling.calculus.context import Context
from scaling.rules.operators import FUNCTIONS, OfEntries, StepWeights, Symmetry
from scaling.rules.parser import parse_formula
from scaling.rules.rewrites import substitute
from scaling.rules.rule import evaluate_power
from scaling.rules.symbols import SymbolKind
from scaling.rules.tree import (
    Add,
    Call,
    Divide,
    MatMul,
    Matrix,
    Multiply,
    Negate,
    Node,
    Number,
    Power,
    Subtract,
    Symbol,
    Transpose,
    is_average,
)

G, I, L, R = (Matrix(name) for name in "GILR")
BEFORE = "before"
Factor = tuple[str, Expr]
"""The name of a square matrix and a function of its eigenvalue."""


@dataclass(frozen=True)
class Word:
    """A term: coefficient x left @ f(L) @ core @ right; without a core it is a square matrix.

    ``left`` and ``right`` are read from the core outwards, ``middle`` is f(L), which is f(R) on the
    other side. ``before``: of the step before.
    """

    coefficient: Expr
    core: Node | None = None
    left: tuple[Factor, ...] = ()
    middle: Expr = S.One
    right: tuple[Factor, ...] = ()
    before: bool = False

    @property
    def key(self) -> tuple[object, ...]:
        """The key that two terms must share for their functions to commute."""
        return self.core, self.before

    @property
    def function(self) -> Expr:
        """The term as a function of eigenvalues."""
        parts = [f for _, f in (*self.left, *self.right)]
        return sympy.prod([self.coefficient, self.middle, *parts])

    def beside(self, factor: Factor, on_left: bool) -> Word:
        """With one more square matrix on a side."""
        name, f = factor
        if not name:
            return replace(self, coefficient=self.coefficient * f)
        side = self.left if on_left else self.right
        if self.core == G and not side and name == ("L" if on_left else "R"):
            return replace(self, middle=self.middle * f.subs(_eigenvalue(R), _eigenvalue(L)))
        if side and side[-1][0] == name:
            side = (*side[:-1], (name, side[-1][1] * f))
        else:
            side = (*side, factor)
        return replace(self, left=side) if on_left else replace(self, right=side)


def _weights(node: Call) -> StepWeights:
    weights = FUNCTIONS[node.function].weights
    assert weights is not None, "what sums over steps has weights"
    return weights


def _degree(function: str) -> Expr | None:
    """The p of f(c X) = c^p f(X) for numbers c > 0, from the row of f."""
    p = FUNCTIONS[function].degree
    return None if p is None else Rational(p.numerator, p.denominator)


def _is_root(function: str) -> bool:
    reading = FUNCTIONS[function].reading
    return isinstance(reading, OfEntries) and reading.symmetry is Symmetry.NONE


def _eigenvalue(matrix: Node) -> sympy.Symbol:
    return sympy.Symbol(f"x:{matrix}", positive=True)


class _UnwrittenError(Exception):
    """An expression that no rule can write."""


@dataclass
class Reader:
    """Reads nodes as words, and writes words as nodes."""

    context: Context
    nodes: dict[Expr, Node] = field(default_factory=lambda: {_eigenvalue(L): L})
    """The node behind each symbol: a scalar, or a square matrix by its eigenvalue."""
    at_first: bool = False
    """Whether nodes are read as they were at the first step."""

    def _scalar_symbol(self, node: Node, positive: bool) -> Expr:
        symbol = sympy.Symbol(f"s:{node}", positive=True if positive else None)
        self.nodes[symbol] = node
        return symbol

    def _matrix_symbol(self, node: Node) -> Expr:
        symbol = _eigenvalue(node)
        self.nodes[symbol] = node
        return symbol

    def _power(self, power: Node) -> Expr:
        def rational(x: Fraction) -> Expr:
            return Rational(x.numerator, x.denominator)

        return evaluate_power(power, rational, self.context.exponent)

    @property
    def _first(self) -> bool:
        return self.context.step == 1 or self.at_first

    def scalar(self, node: Node) -> Expr:
        """A scalar as an expression in what it is made of."""
        match node:
            case Number(value):
                return Rational(value.numerator, value.denominator)
            case Symbol(name) if name in self.context.averages:
                weight = 1 - node
                return 1 - self._scalar_symbol(weight, True)
            case Symbol():
                return self._scalar_symbol(node, True)
            case Negate(x):
                return -self.scalar(x)
            case Add(x, y):
                return self.scalar(x) + self.scalar(y)
            case Subtract(x, y):
                return self.scalar(x) - self.scalar(y)
            case Multiply(x, y):
                return self.scalar(x) * self.scalar(y)
            case Divide(x, y):
                return self.scalar(x) / self.scalar(y)
            case Power(x, p):
                return self.scalar(x) ** self._power(p)
            case Call(name, x) if x.shape.is_scalar and _is_root(name):
                return self.scalar(x) ** _degree(name)
            case Call(name, x, option) if _degree(name) is not None and not x.shape.is_scalar:
                factor, rest = self.factored(x)
                row = FUNCTIONS[name]
                known = row.never_negative or (isinstance(rest, Matrix) and rest.shape.is_square)
                size = factor if row.linear else sympy.Abs(factor) ** _degree(name)
                return size * self._scalar_symbol(Call(name, rest, option), known)
            case Call() if is_average(node):
                if self._first:
                    return self._weight(node) * self.scalar(node.argument)
                now, before = self._late_weights(node)
                old = sympy.Symbol(f"s:{BEFORE} {node.argument}")
                self.nodes[old] = node
                return now * self.scalar(node.argument) + before * old
        return self._scalar_symbol(node, False)

    def _weight(self, node: Call) -> Expr:
        """The weight of this step in an average at the first step."""
        return self._weighed(node, _weights(node).first)

    def _late_weights(self, node: Call) -> tuple[Expr, Expr]:
        """Of an average at the second step, the weights of X and of X_1."""
        weights = _weights(node)
        return self._weighed(node, weights.now), self._weighed(node, weights.before)

    def _weighed(self, node: Call, formula: str) -> Expr:
        beta: dict[Node, Node] = {} if node.option is None else {Symbol("beta"): node.option}
        return self.scalar(substitute(parse_formula(formula), beta))

    def factored(self, node: Node) -> tuple[Expr, Node]:
        """A factor and what it multiplies, through homogeneous functions."""
        match node:
            case Negate(x):
                factor, rest = self.factored(x)
                return -factor, rest
            case Multiply(x, y) if x.shape.is_scalar or y.shape.is_scalar:
                scalar, matrix = (x, y) if x.shape.is_scalar else (y, x)
                factor, rest = self.factored(matrix)
                return factor * self.scalar(scalar), rest
            case Divide(x, y) if y.shape.is_scalar:
                factor, rest = self.factored(x)
                return factor / self.scalar(y), rest
            case Multiply(x, y) | MatMul(x, y):
                (a, one), (b, two) = self.factored(x), self.factored(y)
                return a * b, replace(node, left=one, right=two)
            case Divide(x, y) if not x.shape.is_scalar:
                (a, one), (b, two) = self.factored(x), self.factored(y)
                return a / b, replace(node, left=one, right=two)
            case Transpose(x):
                factor, rest = self.factored(x)
                return factor, Transpose(rest)
            case Power(x, p):
                factor, rest = self.factored(x)
                if factor.is_positive:
                    return factor ** self._power(p), Power(rest, p)
            case Call() if is_average(node) and self._first:
                factor, rest = self.factored(node.argument)
                return factor * self._weight(node), rest
            case Call(name, x, option) if _degree(name) is not None:
                factor, rest = self.factored(x)
                if factor.is_positive:
                    return factor ** _degree(name), Call(name, rest, option)
        return S.One, node

    def square(self, node: Node) -> Factor:
        """A square matrix as a function of one eigenvalue, with the name of its matrix."""
        match node:
            case Matrix("I"):
                return "", S.One
            case Matrix(name):
                return name, self._matrix_symbol(node)
            case Negate(x):
                name, f = self.square(x)
                return name, -f
            case MatMul(x, y) if {x, y} == {G, Transpose(G)}:
                own = L if x == G else R
                return own.name, self._matrix_symbol(own)
            case Add(x, y) | Subtract(x, y) | MatMul(x, y) if x.shape.is_square:
                (name, f), (other, g) = self.square(x), self.square(y)
                if not name or not other or name == other:
                    total = {Add: f + g, Subtract: f - g, MatMul: f * g}[type(node)]
                    return name or other, total
            case Multiply(x, y) | Divide(x, y):
                scalar, matrix = (x, y) if x.shape.is_scalar else (y, x)
                (name, f), size = self.square(matrix), self.scalar(scalar)
                return name, f * size if isinstance(node, Multiply) else f / size
            case Power(x, p):
                name, f = self.square(x)
                return name, f ** self._power(p)
            case Transpose(x):
                return self.square(x)
            case Call() if is_average(node) and self._first:
                name, f = self.square(node.argument)
                return name, f * self._weight(node)
        factor, rest = self.factored(node)
        return str(rest), factor * self._matrix_symbol(rest)

    def words(self, node: Node) -> list[Word]:
        """The terms of a matrix."""
        if node.shape.is_square and not isinstance(node, Add | Subtract | Negate):
            name, f = self.square(node)
            return [Word(S.One, left=((name, f),)) if name else Word(f)]
        match node:
            case Add(x, y):
                return [*self._terms(x, node), *self._terms(y, node)]
            case Subtract(x, y):
                return [*self._terms(x, node), *_scaled(self._terms(y, node), -S.One)]
            case Negate(x):
                return _scaled(self.words(x), -S.One)
            case Multiply(x, y) if x.shape.is_scalar or y.shape.is_scalar:
                scalar, rest = (x, y) if x.shape.is_scalar else (y, x)
                return _scaled(self.words(rest), self.scalar(scalar))
            case Divide(x, y) if y.shape.is_scalar and not x.shape.is_scalar:
                return _scaled(self.words(x), 1 / self.scalar(y))
            case Call(_, x) if is_average(node):
                now = self.words(x)
                if self._first:
                    return _scaled(now, self._weight(node))
                weight, before = self._late_weights(node)
                first = replace(self, at_first=True).words(x)
                old = [replace(word, before=True) for word in _scaled(first, before)]
                return [*(_scaled(now, weight) if weight != 0 else ()), *old]
            case Call("orth", x) if self.words(x) in ([Word(S.One, G)], [Word(self._sign(x), G)]):
                return [Word(S.One, G, middle=self._matrix_symbol(L) ** Rational(-1, 2))]
            case MatMul(x, y) if x.shape.is_square:
                factor = self.square(x)
                return [word.beside(factor, True) for word in self.words(y)]
            case MatMul(x, y) if y.shape.is_square:
                factor = self.square(y)
                return [word.beside(factor, False) for word in self.words(x)]
        factor, rest = self.factored(node)
        return [Word(factor, rest)]

    def _terms(self, node: Node, whole: Node) -> list[Word]:
        if (
            node.shape != whole.shape and not node.shape.is_square
        ):  # a number or a vector that is spread over a matrix
            factor, rest = (self.scalar(node), Number(Fraction(1))) if node.shape.is_scalar else (
                self.factored(node))  # fmt: skip
            return [Word(factor, rest)]
        return self.words(node)

    def _sign(self, node: Node) -> Expr:
        factor, rest = self.factored(node)
        return factor if rest == G and factor.is_positive else S.One

    # --- back into a tree ---

    def number(self, x: Expr) -> Node:
        """A scalar expression as a node."""
        if x in self.nodes:
            return self.nodes[x]
        if x.is_Rational:
            size = Number(abs(Fraction(int(x.p), int(x.q))))
            return Negate(size) if x < 0 else size
        if x.is_Add:
            return reduce(Add, map(self.number, x.args))
        if x.is_Mul:
            return reduce(Multiply, map(self.number, x.args))
        if not x.is_Pow:
            raise _UnwrittenError(x)
        return Power(self.number(x.base), self._exponent(x.exp))

    def matrix(self, x: Expr) -> Node:
        """A function of one eigenvalue as a square matrix."""
        if not _eigenvalues(x):
            return I if x == 1 else Multiply(self.number(x), I)
        if x in self.nodes:
            return self.nodes[x]
        if x.is_Add:
            return reduce(Add, map(self.matrix, x.args))
        if x.is_Mul:
            scalars, others = sympy.sift(x.args, lambda y: not _eigenvalues(y), binary=True)
            product = reduce(MatMul, map(self.matrix, others))
            return Multiply(self.number(sympy.prod(scalars)), product) if scalars else product
        if not x.is_Pow:
            raise _UnwrittenError(x)
        return Power(self.matrix(x.base), self._exponent(x.exp))

    def _exponent(self, x: Expr) -> Node:
        for symbol in x.free_symbols:
            self.nodes.setdefault(symbol, Symbol(symbol.name))
        return self.number(x)

    def term(self, function: Expr, word: Word) -> Node | None:
        """A product of functions of one eigenvalue each as a node; None if it is not one."""
        places: dict[Expr, list[Expr]] = {}
        scalars = []
        for part in sympy.Mul.make_args(function):
            found = _eigenvalues(part)
            if len(found) > 1:
                return None
            if found:
                places.setdefault(next(iter(found)), []).append(part)
            else:
                scalars.append(part)
        node = word.core
        if len(word.left) > 1 or len(word.right) > 1:  # their order would be lost
            return None
        if node == G and _eigenvalue(L) in places:
            node = MatMul(self.matrix(sympy.prod(places.pop(_eigenvalue(L)))), G)
        for parts in places.values():
            square = self.matrix(sympy.prod(parts))
            if node is None:
                node = square
            else:
                node = MatMul(square, node) if _fits_left(square, node) else MatMul(node, square)
        size = sympy.prod(scalars)
        if size == 1 and node is not None:
            return node
        node = I if node is None else node
        negative = size.could_extract_minus_sign()
        size = -size if negative else size
        scaled = node if size == 1 else Multiply(self.number(size), node)
        return Negate(scaled) if negative else scaled


def _fits_left(square: Node, node: Node) -> bool:
    return square.shape.cols == node.shape.rows


def _eigenvalues(x: Expr) -> set[Expr]:
    return {s for s in x.free_symbols if s.name.startswith("x:")}


def _scaled(words: Iterable[Word], factor: Expr) -> list[Word]:
    return [replace(word, coefficient=word.coefficient * factor) for word in words]


@dataclass(frozen=True)
class Canonical:
    """A difference in canonical form: ``terms``, or None where it may be read as it stands.

    ``kinds``: how many kinds of terms there are, whose functions do not commute with each other's.
    """

    terms: tuple[Node, ...] | None
    kinds: int


def canonical(context: Context, node: Node) -> Canonical | None:
    """A difference once functions of one matrix are collected.

    None where what may cancel cannot be told, or where what is left cannot be written as a rule.
    """
    reader = Reader(context)
    if node.shape.is_scalar:
        words = [Word(reader.scalar(term)) for term in _plain(node)]
        made_of = {
            frozenset(
                s for s in w.coefficient.free_symbols
                if BEFORE not in s.name and not _is_free(reader, s)
            ) for w in words
        }  # fmt: skip
        groups, others = [words], len(made_of - {frozenset()})
    else:
        found: dict[tuple[object, ...], list[Word]] = {}
        for word in reader.words(node):
            found.setdefault(word.key, []).append(word)
        found = {key: _weighed_once(reader, words) for key, words in found.items()}
        groups = [alike for words in found.values() for alike in _commuting(words)]
        others = len({(words[0].core, _names(words)) for words in groups})
    left = [(words, _left(words)) for words in groups]
    if all(functions is None for _, functions in left):
        return Canonical(None, others)
    terms: list[Node] = []
    for words, functions in left:
        if functions is not None and _has_bare_inverse(context, words):
            return None
        if functions is None:
            functions = [word.function for word in words]
        late = any(BEFORE in s.name for f in functions for s in f.free_symbols)
        if functions and (words[0].before or late):
            return None
        try:
            if node.shape.is_scalar:
                terms += [reader.number(f) for f in functions]
                continue
            written = [reader.term(f, words[0]) for f in functions]
        except _UnwrittenError:
            return None
        if any(term is None for term in written):
            return None
        terms += [term for term in written if term is not None]
    return Canonical(tuple(terms), others)


def _weighed_once(reader: Reader, words: list[Word]) -> list[Word]:
    """Words of the step before as one, where they differ by numbers that do not add up to zero.

    What is left of them after a cancellation cannot be written as a rule of this step.
    """
    alike = {(word.left, word.middle, word.right) for word in words}
    symbols = {s for word in words for s in word.coefficient.free_symbols}
    if (
        not words[0].before
        or len(alike) > 1
        or not all(_is_of_order_one(reader, s) for s in symbols)
    ):
        return words
    total = sympy.expand(sum(word.coefficient for word in words))
    return words if total == 0 else [replace(words[0], coefficient=total)]


def _is_of_order_one(reader: Reader, symbol: Expr) -> bool:
    """Whether a scalar is made of numbers of order one alone."""
    inside = [n for n in reader.nodes[symbol].walk() if not n.children]
    return all(
        isinstance(n, Number)
        or (isinstance(n, Symbol) and n.kind is SymbolKind.CONSTANT and not n.is_fan)
        for n in inside
    )


def _is_free(reader: Reader, symbol: Expr) -> bool:
    """Whether a scalar is a number of the rule, and no size of a matrix."""
    return not any(isinstance(n, Matrix) for n in reader.nodes[symbol].walk())


def is_positive(context: Context, node: Node) -> bool:
    """Whether a difference is 1 - beta, for the decay beta of an average."""
    match node:
        case Subtract(Number(value), Symbol(name)):
            return value == 1 and name in context.averages
    return False


def _names(words: list[Word]) -> tuple[frozenset[str], ...]:
    """The matrices on both sides: terms of both steps that share them are of one kind."""
    left = frozenset(name for word in words for name, _ in word.left)
    return left, frozenset(name for word in words for name, _ in word.right)


def _plain(node: Node) -> list[Node]:
    match node:
        case Add(x, y):
            return [*_plain(x), *_plain(y)]
        case Subtract(x, y):
            return [*_plain(x), *(Negate(z) for z in _plain(y))]
    return [node]


def _commuting(words: list[Word]) -> list[list[Word]]:
    """Words whose functions commute: one matrix at most on each side, the same in all."""
    by_names: dict[tuple[object, ...], list[Word]] = {}
    sides = [[tuple(name for name, _ in side) for side in (w.left, w.right)] for w in words]
    alike = all(len({names[i] for names in sides if names[i]}) <= 1 for i in (0, 1))
    if alike and all(len(side) <= 1 for names in sides for side in names):
        return [words]
    for word, names in zip(words, sides, strict=True):
        by_names.setdefault(tuple(names), []).append(word)
    return list(by_names.values())


def _left(words: list[Word]) -> list[Expr] | None:
    """The rest of words whose functions commute; None if nothing cancels."""
    functions = [word.function for word in words]
    if len(words) == 1:
        return [] if functions[0] == 0 else None
    top, bottom = sympy.fraction(sympy.together(sum(functions)))
    top = sympy.expand(top)
    kept = [] if top == 0 else sorted(sympy.Add.make_args(top), key=str)
    before: set[Expr] = set()
    for f in functions:
        own_top, own_bottom = sympy.fraction(sympy.together(f))
        whole = sympy.expand(own_top * sympy.cancel(bottom / own_bottom))
        before |= {_bare(m) for m in sympy.Add.make_args(whole)}
    if len({_bare(m) for m in kept}) == len(before):
        return None
    return [m / bottom for m in kept]


def _bare(monomial: Expr) -> Expr:
    """A monomial without its number."""
    return monomial.as_coeff_Mul()[1]


def _has_bare_inverse(context: Context, words: Iterable[Word]) -> bool:
    """Whether A @ A**(-1) may differ from I there: off the span of the data."""

    def inverts(f: Expr, name: str) -> bool:
        sampled = name == "B" and context.sampled_fisher
        return any(
            p.base.is_Symbol and p.base.name.startswith("x:") and not p.exp.is_nonnegative
            for p in f.atoms(sympy.Pow)
        ) and (sampled or not within)  # fmt: skip

    for word in words:
        within = word.core == G
        if any(inverts(f, name) for name, f in (*word.left, *word.right)):
            return True
    return False

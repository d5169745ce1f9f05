"""The size of a value as a sum of terms, and how its entries add up along each axis.

    |sum_i x_i y_i| = n^(1/2) |x| |y|    where a random sign makes the terms of the sum independent
                    = n |x| |y|          where both have a mean, or share their random signs

Which of the two it is follows from where random signs come from. A *source* (W, k) is the fresh
tensor W cut into slices along its axis k: exchanging the sign of the slice i changes nothing in
law. Along an axis, a term is known by

    odd    sources whose slice i flips the sign of the entry i, when all of them flip
    seen   sources whose slice i the entry i depends on, other than by its sign's square, each with
           the exponent of the correlation: W x depends on an entry of W by n^(-1/2) only, as n of
           them share it. An even function of an odd term no longer sees the source
    weak   where nothing is odd: the mean over the axis is smaller than an entry by M^(-weak)
    few    where only M^few of the entries are not zero, or None: rows of a table that occur, the
           class of a target among many. Sizes are those of the entries that are not

so q_d = (W_q x)_d is odd in (W_q, 0), relu(q_d) has seen it only, and q.k is a sum with random
signs (CLT) at the start, while q.q is not (LLN). What an update adds to a weight follows the data
and the cotangents that it was made of: it is one more term of the weight, with their states.

Upper bounds throughout: where two terms cannot be kept apart they are merged into one with a mean.

>>> w = drawn("W", (S.One, S.One), -HALF)
>>> x = GraphValue((S.Zero, S.One), (Term(S.Zero, (PLAIN, PLAIN)),))
>>> y = contract([(x, "bi"), (w, "oi")], "bo")
>>> y.size, sorted(y.terms[0].along[1].odd)
(0, [('W', 0)])
>>> contract([(y, "bo"), (y, "bo")], "b").size
1
>>> contract([(y, "bo"), (drawn("V", (S.One,), S.Zero), "o")], "b").size
1/2
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, cmp_to_key, lru_cache, reduce
from itertools import product
from typing import TypeAlias

from sympy import Expr, Rational, S

from scaling.sizes.scale import HALF

Source: TypeAlias = tuple[str, int]
MOST_TERMS = 6


def _at_least(x: Expr, y: Expr) -> bool:
    """Whether x >= y, of exact numbers or infinities: sympy's own comparison is slow."""
    if x is y or x is S.Infinity or y is S.NegativeInfinity:
        return True
    if x is S.NegativeInfinity or y is S.Infinity:
        return False
    if isinstance(x, Rational) and isinstance(y, Rational):
        return bool(x.p * y.q >= y.p * x.q)
    return bool(x >= y)


def larger(*xs: Expr) -> Expr:
    """The largest exponent; -oo of none."""
    most: Expr = S.NegativeInfinity
    for x in xs:
        if x is not most and _at_least(x, most):
            most = x
    return most


def smaller(*xs: Expr) -> Expr:
    """The smallest exponent; oo of none."""
    least: Expr = S.Infinity
    for x in xs:
        if x is not least and _at_least(least, x):
            least = x
    return least


@dataclass(frozen=True, eq=False)
class Seen:
    """A source that entries depend on, by M^(-share) of them each.

    There is one object for each (`seen`), so that sets of many are compared by identity.
    """

    source: Source
    share: Expr

    def least(self, other: Seen) -> Seen:
        """The stronger one of two dependences on the same source."""
        return self if other is self or _at_least(other.share, self.share) else other


@cache
def seen(source: Source, share: Expr = S.Zero) -> Seen:
    """The dependence of that kind."""
    return Seen(source, share)


@dataclass(frozen=True, eq=False)
class AxisState:
    """How the entries of a term behave along one axis; see the module.

    There is one object for each state (`axis_state`), so that states are compared by identity.
    """

    odd: frozenset[Source]
    seen: frozenset[Seen]
    weak: Expr
    few: Expr | None = None

    @cached_property
    def sources(self) -> Mapping[Source, Seen]:
        """``seen`` by source."""
        return {x.source: x for x in self.seen}

    @cached_property
    def tensors(self) -> frozenset[str]:
        """The tensors that are its sources."""
        return frozenset(x.source[0] for x in self.seen)

    def weaker(self, by: Expr, tensors: frozenset[str]) -> AxisState:
        """This axis where each entry is a sum of so many entries of those of its sources."""
        return _weaker(self, by, tensors) if by is not S.Zero and tensors & self.tensors else self


@cache
def axis_state(
    odd: frozenset[Source] = frozenset(),
    seen: frozenset[Seen] = frozenset(),
    weak: Expr = S.Zero,
    few: Expr | None = None,
) -> AxisState:
    """The state of that kind."""
    return AxisState(odd, seen, weak, few)


@lru_cache(maxsize=65536)
def _weaker(state: AxisState, by: Expr, tensors: frozenset[str]) -> AxisState:
    weaker = frozenset(
        seen(x.source, x.share + by) if x.source[0] in tensors else x for x in state.seen
    )
    return axis_state(state.odd, weaker, state.weak, state.few)


PLAIN = axis_state()
"""A mean along the axis, and no source."""


@dataclass(frozen=True)
class Term:
    """One term: the exponent of a typical entry, and its state along each axis."""

    size: Expr
    along: tuple[AxisState, ...]


@dataclass(frozen=True)
class GraphValue:
    """A tensor, by the exponents of its axes and the terms that it is the sum of; none: zero."""

    axes: tuple[Expr, ...]
    terms: tuple[Term, ...]

    @cached_property
    def size(self) -> Expr:
        """The exponent of a typical entry; -oo for an exact zero."""
        return larger(*(term.size for term in self.terms))

    @property
    def is_zero(self) -> bool:
        """Whether it is exactly zero."""
        return not self.terms

    def times(self, x: Expr) -> GraphValue:
        """M^x times it."""
        if x is S.NegativeInfinity:
            return replace(self, terms=())
        if x is S.Zero:
            return self
        return GraphValue(self.axes, tuple(Term(t.size + x, t.along) for t in self.terms))

    def mean(self, axis: int) -> Expr:
        """The exponent of its mean over an axis."""
        n = self.axes[axis]
        return larger(*(t.size + _sum(n, t.along[axis]) - n for t in self.terms))

    @property
    def count(self) -> Expr:
        """The exponent of the number of entries that make up its norm, if each has its size."""
        squares = (
            2 * t.size
            + sum((_length(n, s) for n, s in zip(self.axes, t.along, strict=True)), S.Zero)
            for t in self.terms
        )
        return larger(*squares) - 2 * self.size

    @property
    def rms(self) -> Expr:
        """The exponent of the root mean square of all entries, those that are zero included."""
        if self.is_zero:
            return S.NegativeInfinity
        return self.size + (self.count - sum(self.axes, S.Zero)) / 2

    def leading(self) -> tuple[Term, ...]:
        """The terms that set the size."""
        return tuple(term for term in self.terms if term.size == self.size)


def zero(axes: tuple[Expr, ...]) -> GraphValue:
    """Exactly zero."""
    return GraphValue(axes, ())


def constant(axes: tuple[Expr, ...], size: Expr = S.Zero) -> GraphValue:
    """Entries of that size, with a mean along every axis."""
    return GraphValue(axes, (Term(size, (PLAIN,) * len(axes)),))


def drawn(name: str, axes: tuple[Expr, ...], size: Expr) -> GraphValue:
    """Independent entries of zero mean, the source of their own signs."""
    along = tuple(
        axis_state(frozenset({(name, k)}), frozenset({seen((name, k))})) for k in range(len(axes))
    )
    return GraphValue(axes, (Term(size, along),))


def add(axes: tuple[Expr, ...], values: Iterable[GraphValue]) -> GraphValue:
    """A sum of values with the same axes, if they do not cancel."""
    return GraphValue(axes, merged([term for value in values for term in value.terms]))


def contract(operands: Sequence[tuple[GraphValue, str]], out: str) -> GraphValue:
    """A product, summed over the letters that ``out`` lacks; letters name the axes of each operand.

    A letter of ``out`` that no operand has is an axis along which the product is repeated; its
    exponent is then taken to be 0 (use `spread`).
    """
    lengths = {
        c: n for value, letters in operands for c, n in zip(letters, value.axes, strict=True)
    }
    known = _contracted(tuple(x for _, x in operands), out, tuple(lengths.items()))
    found = []
    for terms in product(*(value.terms for value, _ in operands)):
        states = tuple([term.along for term in terms])
        if states not in known:
            known[states] = _contract_states(states, [x for _, x in operands], lengths, out)
        size, along = known[states]
        for term in terms:
            if term.size is not S.Zero:  # an addition of sympy's takes its time
                size += term.size
        found.append(Term(size, along))
    return GraphValue(tuple(lengths.get(c, S.Zero) for c in out), merged(found))


_Along: TypeAlias = tuple[AxisState, ...]
"""The states of a term along its axes."""


@lru_cache(maxsize=4096)
def _contracted(
    letters: tuple[str, ...], out: str, lengths: tuple[tuple[str, Expr], ...]
) -> dict[tuple[_Along, ...], tuple[Expr, _Along]]:
    """Results of one contraction that are known: `_contract_states`, by the states of its terms."""
    return {}


def _contract_states(
    states: tuple[_Along, ...], letters: Sequence[str], lengths: Mapping[str, Expr], out: str
) -> tuple[Expr, _Along]:
    """By how much a sum is larger than its terms, and its state along each axis of the result.

    A sum over one axis of a tensor is one of many entries of each of its other slices. That of an
    outer product is not: what it sums, k_i v_j over j, is k_i as it was, times a number.
    """
    places = {c: [(k, x.index(c)) for k, x in enumerate(letters) if c in x] for c in lengths}
    size = S.Zero
    shares: list[list[tuple[Expr, frozenset[str]]]] = [[] for _ in states]
    for c, n in lengths.items():
        if c not in out and n is not S.Zero:
            grows = _sum(n, reduce(meet, [states[k][i] for k, i in places[c]]))
            size += grows
            for k, i in places[c]:
                shares[k].append((n - grows, states[k][i].tensors))

    def left(k: int, i: int) -> AxisState:
        return reduce(lambda state, share: state.weaker(*share), shares[k], states[k][i])

    along = tuple(
        reduce(meet, [left(k, i) for k, i in places[c]]) if c in places else PLAIN for c in out
    )
    return size, along


def spread(value: GraphValue, axes: tuple[Expr, ...]) -> GraphValue:
    """Broadcast to more or longer axes, from the right: repeated entries have a mean there."""
    missing = len(axes) - len(value.axes)
    old = (S.Zero,) * missing + value.axes

    def along(term: Term) -> tuple[AxisState, ...]:
        states = (PLAIN,) * missing + term.along
        return tuple(s if n == m else PLAIN for s, n, m in zip(states, old, axes, strict=True))

    if axes == value.axes:
        return value
    return GraphValue(axes, tuple(Term(term.size, along(term)) for term in value.terms))


@lru_cache(maxsize=65536)
def meet(x: AxisState, y: AxisState) -> AxisState:
    """The state of a product, entry by entry."""
    if x is y is PLAIN:
        return PLAIN
    few = y.few if x.few is None else x.few if y.few is None else smaller(x.few, y.few)
    before, after = x.sources, y.sources
    if x.seen <= y.seen or y.seen <= x.seen:
        both = max(x.seen, y.seen, key=len)
    else:
        nearest = {**before, **after}
        for source in before.keys() & after.keys():
            nearest[source] = before[source].least(after[source])
        both = frozenset(nearest.values())
    for odd, other in ((x.odd, after), (y.odd, before)):
        if odd and not odd & other.keys():
            return axis_state(odd, both, few=few)
    if x.odd == y.odd and len(x.odd) == 1:  # a product of both does not change its sign
        both = frozenset(one for one in both if one.source not in x.odd)
    shared = (x.odd & after.keys()) | (y.odd & before.keys())
    if shared:
        weak = smaller(*(abs(before[s].share - after[s].share) for s in shared))
    else:
        weak = S.Zero if before.keys() & after.keys() else x.weak + y.weak
    return axis_state(frozenset(), both, weak, few)


@lru_cache(maxsize=65536)
def joined(states: tuple[AxisState, ...]) -> AxisState:
    """The state of a sum of terms of one size, or of a function of it: odd where all flip alike."""
    nearest: dict[Source, Seen] = {}
    for state in dict.fromkeys(states):
        for source, x in state.sources.items():
            old = nearest.setdefault(source, x)
            if old is not x:
                nearest[source] = x.least(old)
    odd = frozenset[Source]().union(*(state.odd for state in states))
    flips = all(s.odd and not (odd - s.odd) & s.sources.keys() for s in states)
    weak = smaller(*(s.weak for s in states if not s.odd))
    return axis_state(
        odd if flips else frozenset(),
        frozenset(nearest.values()),
        S.Zero if flips or weak is S.Infinity else weak,
        None if any(s.few is None for s in states) else larger(*(s.few for s in states)),
    )


def even(state: AxisState) -> AxisState:
    """The state of an even function: what flips its argument leaves it as it is."""
    kept = state.seen
    if len(state.odd) == 1:
        kept = frozenset(x for x in kept if x.source not in state.odd)
    return axis_state(frozenset(), kept, few=state.few)


def mixed(state: AxisState) -> AxisState:
    """The state of a function neither odd nor even, which has a mean."""
    return axis_state(frozenset(), state.seen, few=state.few)


def part_of(value: GraphValue, axis: int, part: str) -> GraphValue:
    """A part of an axis: its entries come from slices of their own of each source."""

    def renamed(term: Term) -> Term:
        cut = term.along[axis]
        drawn_there = {tensor for tensor, _ in cut.odd}  # its parts are independent in all entries
        own = set(cut.sources)
        for state in term.along:
            own |= {source for source in state.sources if source[0] in drawn_there}
        names = {source: (f"{source[0]}[{part}]", source[1]) for source in own}
        along = tuple(
            axis_state(
                frozenset(names.get(source, source) for source in state.odd),
                frozenset(seen(names.get(x.source, x.source), x.share) for x in state.seen),
                state.weak,
                state.few,
            )
            for state in term.along
        )
        return Term(term.size, along)

    return replace(value, terms=tuple(map(renamed, value.terms)))


def merged(terms: Sequence[Term]) -> tuple[Term, ...]:
    """Fewer terms with the same sum: those of one size and one kind together."""
    by_state: dict[tuple[AxisState, ...], Expr] = {}
    for term in terms:
        if term.size is not S.NegativeInfinity:
            old = by_state.get(term.along)
            by_state[term.along] = term.size if old is None else larger(old, term.size)
    groups: dict[tuple[Expr, tuple[tuple[bool, Expr | None], ...]], list[Term]] = {}
    if len(by_state) < 2:
        return tuple(Term(size, along) for along, size in by_state.items())
    for along, size in by_state.items():
        groups.setdefault((size, _kinds(along)), []).append(Term(size, along))
    found = []
    for (size, kind), group in groups.items():
        if len(group) == 1:
            found += group
            continue
        states = tuple(map(joined, zip(*(t.along for t in group), strict=True)))
        if _kinds(states) == kind:
            found.append(Term(size, states))
        else:
            found += group
    if len(found) > 1:
        found.sort(key=cmp_to_key(_by_size))
    if len(found) > MOST_TERMS:  # the rest as one term with a mean: an upper bound
        kept, rest = found[: MOST_TERMS - 1], found[MOST_TERMS - 1 :]
        along = tuple(
            mixed(joined(states)) for states in zip(*(t.along for t in rest), strict=True)
        )
        found = [*kept, Term(rest[0].size, along)]
    return tuple(found)


@lru_cache(maxsize=65536)
def _kinds(along: _Along) -> tuple[tuple[bool, Expr | None], ...]:
    """The common part of terms that are merged, axis by axis."""
    return tuple((bool(state.odd), state.few) for state in along)


def _by_size(x: Term, y: Term) -> int:
    at_least = _at_least(x.size, y.size)
    return (0 if _at_least(y.size, x.size) else -1) if at_least else 1


@lru_cache(maxsize=65536)
def _sum(n: Expr, state: AxisState) -> Expr:
    """The exponent by which a sum over an axis of length M^n is larger than its terms."""
    n = _length(n, state)
    return n * HALF if state.odd else larger(n * HALF, n - state.weak)


def _length(n: Expr, state: AxisState) -> Expr:
    """The exponent of the number of entries along an axis that are not zero."""
    return n if state.few is None else smaller(n, state.few)

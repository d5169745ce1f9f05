"""The numeric interpreter: a rule's tree, evaluated on the tensors of one layer.

Claim.  Every spectral function of A, B, L, R acts on the span of the data. In an orthonormal basis
of that span everything is an n x n problem, so an update of the K-FAC and Shampoo family costs
O(M n^2), and O(M^2 n) only to add it to the weights; O(M^3) never occurs. Entrywise functions and W
need the dense matrix and cost O(M^2 n).

This is the twin of scaling/calculus/read.py: the same tree read as numbers instead of exponents.
What a node is worth is in layer_values.py, what the operators do in operators.py and algebra.py;
here is only the reading.

>>> import torch
>>> from scaling.rules.parser import parse
>>> H, D = torch.tensor([[1.0], [0.0]]).double(), torch.tensor([[2.0]]).double()
>>> layer = LayerTensors(H, D, W=torch.zeros(1, 2).double())
>>> evaluate(parse("G @ (A + rho*I)**(-1)"), layer, {"rho": 1.0}).dense().tolist()
[[1.0, 0.0]]

Not covered: layers whose update is not fan_out x fan_in; the overflow of a power (a result that is
not finite comes out as such).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from empirical.numbers import algebra
from empirical.numbers.factored_update import FactoredUpdate
from empirical.numbers.layer_matrices import LayerTensors, LayerValues
from empirical.numbers.layer_values import Entries, LayerValue, Outer, Rectangular
from empirical.numbers.operators import MEANINGS, Advance
from empirical.numbers.state import State
from scaling.models.recipe import sums_over_everything
from scaling.rules.literal_dampings import LiteralDamping
from scaling.rules.operators import SecondOperand
from scaling.rules.rule import Rule, evaluate_power
from scaling.rules.shapes import Dim
from scaling.rules.tree import Call, Matrix, Node, Number, Symbol, row_of
from scaling.sizes.errors import InvalidInput

__all__ = [
    "FactoredUpdate",
    "LayerReader",
    "LayerTensors",
    "Maker",
    "Record",
    "State",
    "evaluate",
    "evaluate_network",
    "evaluate_sums",
    "in_layer",
]

SIGMA = Symbol("sigma")
"""A singular value, in functions of them."""
Record = Callable[[Node, LayerValue], None]
Maker = Callable[[Callable[[Node], LayerValue]], LayerValue]
"""Makes the value of a node in its own way, told how to read others."""


@torch.no_grad()
def evaluate(
    rule: Rule,
    layer: LayerTensors,
    values: Mapping[str, float],
    state: State | None = None,
    record: Record | None = None,
    dense: bool = False,
) -> FactoredUpdate:
    """The update of one layer, without learning rate and sign: dW = -eta * update.

    ``values`` gives every symbol of the rule a number; others are ignored. ``state`` is needed for
    moving averages to remember anything, and is advanced by one step. ``record`` is called once for
    every distinct node, operands first, with its value (values have ``spectral_norm``,
    ``frobenius_norm`` and ``rms``); within a curvature interval, for the node that is kept and not
    for those below it. ``dense`` evaluates the same tree with full float64 matrices: a reference.

    Raises `InvalidInput` for a symbol without a finite value, for tensors that are not finite, for
    a division by exact zero, and for powers that do not exist.
    """
    _check_values(rule, values)
    state = State() if state is None else state
    (result,) = LayerReader(layer, values, state, record).read([rule.expression], dense)
    assert isinstance(result, Rectangular), "Rule refuses an expression that is no update"
    return FactoredUpdate(result)


@torch.no_grad()
def evaluate_network(
    rule: Rule | Mapping[str, Rule],
    layers: Mapping[str, LayerTensors],
    values: Mapping[str, Mapping[str, float]],
    states: Mapping[str, State] | None = None,
    record: Callable[[str, Node, LayerValue], None] | None = None,
    dense: bool = False,
    ascended: Mapping[Call, Mapping[str, LayerTensors]] | None = None,
) -> dict[str, FactoredUpdate]:
    """The updates of all layers of a network, by name; sums over layers run over these.

    ``ascended``: by ascended(X), what the layers see at the weights W + X; see moved_gradient.py.

    What is summed is evaluated in every layer first, the innermost sum before those around it.
    ``values``, ``states`` and what ``record`` is told are by layer; see `evaluate`, of which
    this is the twin for several layers. No state moves before all layers are evaluated.

    ``rule`` is that of all layers, or by layer. A sum over layers of G alone runs over all of them
    then, any other over those of its rule, as in a recipe.

    Raises `InvalidInput` as `evaluate` does, naming the layer.
    """
    readings: dict[str, _Reading] = {}
    rules = dict.fromkeys(layers, rule) if isinstance(rule, Rule) else rule
    for name, layer in layers.items():
        with in_layer(name):
            _check_values(rules[name], values[name])
            told = None if record is None else partial(record, name)
            state = State() if states is None else states[name]
            made: dict[Node, Maker] = {
                node: partial(_elsewhere, node, LayerValues(seen[name], dense))
                for node, seen in (ascended or {}).items()
            }
            readings[name] = LayerReader(layer, values[name], state, told, made=made).reading(dense)
    for one in dict.fromkeys(rules[name] for name in readings):
        every = sums_over_everything(one)
        of = {name: x for name, x in readings.items() if every or rules[name] == one}
        _sum_over_layers(one.sums_over_layers, of)
    updates = {
        name: FactoredUpdate(_value(name, reading, rules[name].expression))
        for name, reading in readings.items()
    }
    for reading in readings.values():
        reading.advance()
    return updates


def _elsewhere(node: Call, seen: LayerValues, read: Callable[[Node], LayerValue]) -> LayerValue:
    """ascended(X), seen at W + X; X is read as well, so that its averages move."""
    read(node.argument)
    return seen.matrix("G")


def _sum_over_layers(sums: Sequence[Call], readings: Mapping[str, _Reading]) -> None:
    """Make sums, operands first, known to every layer."""
    for node in sums:
        terms = [_value(name, reading, node.argument).x for name, reading in readings.items()]
        total = torch.stack([term.to(terms[0].device) for term in terms]).sum() if terms else None
        for reading in readings.values():
            assert total is not None, "a reading has a term"
            reading.known[node] = Entries(total.to(reading.layer.h.device))
            if reading.record is not None:
                reading.record(node, reading.known[node])


@contextmanager
def in_layer(name: str) -> Iterator[None]:
    """Name the layer in a refusal."""
    try:
        yield
    except InvalidInput as error:
        found = f"in layer '{name}': {error.found}"
        raise InvalidInput(found, error.needed, error.do_this) from error


def _value(name: str, reading: _Reading, node: Node) -> Any:
    with in_layer(name):
        return reading.value(node)


def _check_values(rule: Rule, values: Mapping[str, float]) -> None:
    for name in (*rule.scaled, *rule.exponents, *rule.constants):
        if not math.isfinite(values.get(name, math.nan)):
            raise InvalidInput(
                f"{values.get(name, 'no value')} for '{name}' in {rule}",
                "a finite number for every symbol of the rule",
                f"pass values={{'{name}': ...}}",
            )


@dataclass(frozen=True, eq=False)
class LayerReader:
    """A layer as parts of a rule see it; see `evaluate`.

    ``known`` gives the values of some nodes, which are not read then; ``made`` says how to make
    those of others, if and when they are asked for.
    """

    layer: LayerTensors
    values: Mapping[str, float]
    state: State
    record: Record | None = None
    known: Mapping[Node, LayerValue] = field(default_factory=dict)
    made: Mapping[Node, Maker] = field(default_factory=dict)

    def reading(self, dense: bool = False) -> _Reading:
        """One evaluation: one step of the state."""
        layer = LayerValues(self.layer, dense)
        reading = _Reading(layer, self.values, self.state, self.record, self.made)
        reading.known.update(self.known)
        return reading

    @torch.no_grad()
    def read(self, nodes: Sequence[Node], dense: bool = False) -> list[LayerValue]:
        """The values of several parts of a rule, read together: one step of the state."""
        reading = self.reading(dense)
        found = [reading.value(node) for node in nodes]
        reading.advance()
        return found


@torch.no_grad()
def evaluate_sums(
    sums: Sequence[Call], layers: Mapping[str, LayerReader]
) -> dict[Node, LayerValue]:
    """The sums over layers in a rule, operands first, from what every layer sees.

    One step of each layer's state, which is to be one that nothing else moves: averages below a
    sum are not read again by who is told the sum.

    Raises:
        InvalidInput: as `evaluate` does, naming the layer.
    """
    readings = {name: reader.reading() for name, reader in layers.items()}
    _sum_over_layers(sums, readings)
    for reading in readings.values():
        reading.advance()
    return {node: reading.known[node] for reading in readings.values() for node in sums}


class _Reading:
    """One evaluation of a tree: equal subtrees are read once, so each average moves once a step."""

    def __init__(
        self,
        layer: LayerValues,
        values: Mapping[str, float],
        state: State,
        record: Record | None,
        made: Mapping[Node, Maker] | None = None,
    ) -> None:
        self.layer, self.values, self.state, self.record = layer, values, state, record
        self.made = made or {}
        self.known: dict[Node, LayerValue] = {}
        self.averages: dict[str, LayerValue] = {}
        self.counts: dict[str, int] = {}
        self.factors: dict[str, LayerValue] = {}

    def value(self, node: Node, within_factor: bool = False) -> LayerValue:
        """The value of a node; a factor that is kept from an earlier step is not read again."""
        keeps = self.state.curvature_interval > 1 and not within_factor and _is_curvature(node)
        if node not in self.known:
            kept = None if self.state.refreshes or not keeps else self.state.factors.get(str(node))
            value = self._read(node, within_factor or keeps) if kept is None else kept
            self.known[node] = value
            if self.record is not None:
                self.record(node, value)
        if keeps:
            self.factors[str(node)] = self.known[node]
        return self.known[node]

    def advance(self) -> None:
        """Remember this step. Last of all, so that a refusal leaves the state as it was."""
        for value in self.known.values():  # averages outlive a reading, and are to stay small
            if isinstance(value, Outer):
                value.forget()
        self.state.averages.update(self.averages)
        self.state.counts.update(self.counts)
        self.state.factors.update(self.factors)
        self.state.step += 1

    def _read(self, node: Node, within_factor: bool) -> LayerValue:
        if node in self.made:
            return self.made[node](partial(self.value, within_factor=within_factor))
        match node:
            case Matrix(name):
                return self.layer.matrix(name)
            case LiteralDamping(name, value) if name not in self.values:
                return self.layer.scalar(float(value))
            case Symbol(name):
                return self.layer.scalar(self.layer.fans.get(name) or self.values[name])
            case Number(number):
                return self.layer.scalar(float(number))
        row = row_of(node)
        assert row is not None, f"the language has no leaf {node!r}"
        of_sigma = row.second is SecondOperand.OF_SINGULAR_VALUE
        now = node.children[:1] if of_sigma else node.children
        operands = [self.value(child, within_factor) for child in now]
        return MEANINGS[row.name](_Evaluation(self, within_factor), node, operands)


@dataclass(frozen=True)
class _Evaluation:
    """The reading that meanings may ask; see operators.py."""

    reading: _Reading
    within_factor: bool

    @property
    def layer(self) -> LayerValues:
        """The matrices of the layer."""
        return self.reading.layer

    def number(self, power: Node) -> float:
        """The value of an exponent."""
        return evaluate_power(power, float, self.reading.values.__getitem__)

    def below(self, node: Node) -> LayerValue:
        """The value of another node."""
        return self.reading.value(node, self.within_factor)

    def at(self, node: Node, sigma: Tensor) -> Tensor:
        """A number of sigma, for each of several singular values, (k,).

        Recorded is what the number and its parts are at the largest.
        """
        reading = self.reading
        if len(sigma):
            self._of_sigma(node, Entries(sigma.max()))
        record, reading.record = reading.record, None
        try:
            found = self._of_sigma(node, Entries(sigma[:, None]))
        finally:
            reading.record = record
        assert isinstance(found, Entries), "the language refuses anything but numbers"
        return found.x.expand(len(sigma), 1)[:, 0] if found.is_scalar else found.x[:, 0]

    def _of_sigma(self, node: Node, sigma: Entries) -> LayerValue:
        known = self.reading.known
        known[SIGMA] = sigma
        try:
            return self.below(node)
        finally:
            for part in [*node.walk(), SIGMA]:
                if SIGMA in part.walk():
                    known.pop(part, None)

    def remembered(self, node: Node, x: LayerValue, beta: float, debias: bool) -> LayerValue:
        """The average, beta u + (1 - beta) x, or the same without bias.

        That is b_t u + (1 - b_t) x with b_t = beta (1 - beta^(t-1)) / (1 - beta^t), and b_1 = 0.
        """
        if not 0 <= beta < 1:
            raise InvalidInput(
                f"a decay of {beta:g} per step, in '{node}'",
                "a number from 0 to below 1: at 1 an average takes nothing in",
                "write for example 0.9",
            )
        key, reading = str(node), self.reading
        t, old = reading.state.counts.get(key, 0) + 1, reading.state.averages.get(key)
        if debias and (old is None or t == 1):
            average = x  # itself: what is taken from it then is exactly zero
        else:
            weight = beta * (1 - beta ** (t - 1)) / (1 - beta**t) if debias else beta
            average = algebra.moving_average(old, x, weight)
        reading.averages[key] = average
        if debias:
            reading.counts[key] = t
        return average

    def advanced(self, node: Node, first: LayerValue, next: Advance) -> LayerValue:
        """A recursion over the steps, advanced by one."""
        old = self.reading.state.averages.get(str(node))
        value = first if old is None else next(old)
        self.reading.averages[str(node)] = value
        return value

    def kept(self, node: Node, x: LayerValue) -> LayerValue:
        """The value at the step before, and at the first step x; x is kept for the next."""
        self.reading.averages[str(node)] = x
        return self.reading.state.averages.get(str(node), x)


def _is_curvature(node: Node) -> bool:
    if not node.shape.is_square or node.shape.rows is Dim.ANY:
        return False
    return any(isinstance(n, Matrix) and n.name in "ABLR" for n in node.walk())

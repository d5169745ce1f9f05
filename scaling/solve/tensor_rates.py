"""c and d of every tensor of a graph in one of its states: dampings, rates, decays.

    d   balanced damping: a rule is read in each tensor with the h, delta and G of its use
    c   maximal update: the largest rate at which no node above moves by more than it bears
    d   balanced decay: learning rate x decay = Theta(1)

The rule of each tensor is read by the calculus as in a chain; a node above bears what
states/graph_passes.py says. A rate is the tensor's *own* where its product with data is the first
to move by all that it bears; otherwise a node further up binds it.

A sum over layers of a function of G alone (a global norm) is a number of the network, and runs over
all trained tensors, whatever trains them; one of what a rule makes of them (K-FAC's norm
constraint) runs over the tensors of that rule.

Over a whole training a tensor has one damping and one rate. Dampings are those of the moved state,
in which all steps but the first are; the start is read again under them, since a gradient that is
smaller there is damped by more. The larger c of both keeps both stable, and decays follow it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import sympy
from sympy import Expr, S, Symbol

from scaling.calculus.context import Context
from scaling.calculus.output_change import OutputChange
from scaling.calculus.read import read_update
from scaling.models.chain import Activation, Layer
from scaling.models.layer_sizes import LayerSizes
from scaling.models.recipe import sums_over_everything
from scaling.rules.rule import Rule
from scaling.sizes.derivation import Step
from scaling.sizes.scale import HALF, Bounds, Scale, renamed
from scaling.solve.conditions import Condition
from scaling.solve.damping import in_layer, unsolved
from scaling.solve.decay import derived_decays, descent, following
from scaling.states.graph_lines import tolerance_line
from scaling.states.graph_passes import Passes
from scaling.states.problem import Problem
from scaling.states.tensor_uses import main_use, tensor_sizes


@dataclass(frozen=True)
class TensorRate:
    """A tensor in one state: its gradient, rate and dampings; c is None where it does not move.

    ``own``: the exponent of the rate at which its own product moves by all that it bears, M^borne;
    ``product``: that product; of several with data, the one that bears least of the tensor;
    ``binds``: the node that binds the rate; ``bound``: the line of what binds it beyond that.
    """

    layer: Layer
    gradient: Expr
    c: Expr | None
    own: Expr | None
    d: Mapping[str, Expr]
    binds: str
    update: OutputChange | None = None
    bound: Step | None = None
    followed: Expr | None = None
    """``moves`` at the start under dampings that follow the gradient there, not the later ones."""
    product: str = ""
    borne: Expr = S.Zero
    weaker: str = ""
    """The assumption on its dampings, where they cannot all be balanced."""
    reader: Callable[[], OutputChange] | None = field(default=None, compare=False, repr=False)
    """Reads the rule in this very tensor, where ``update`` was read in one of the same sizes."""

    @property
    def moves(self) -> Expr | None:
        """The exponent by which its own product moves at a rate of order one."""
        return None if self.own is None else self.borne + self.own

    @property
    def derived(self) -> OutputChange | None:
        """The update with the lines of this tensor, for a derivation that is shown."""
        return self.update if self.reader is None else self.reader()

    @property
    def assumed(self) -> tuple[str, ...]:
        """The assumptions of the reading of the rule in this tensor."""
        lines = () if self.update is None else self.update.step.assumptions()
        return (*lines, *([self.weaker] if self.weaker else []))


@dataclass(frozen=True)
class Readings:
    """Where a rule was read, by the sizes that it saw: the first such tensor, and what it has.

    Equal blocks are read once, and so is a tensor whose sizes are the same in several states.
    """

    updates: dict[Hashable, tuple[str, OutputChange]] = field(default_factory=dict)
    dampings: dict[Hashable, tuple[str, Mapping[str, Expr], str]] = field(default_factory=dict)


def in_both_states(
    problems: Mapping[str, Problem],
    conditions: tuple[Condition, ...],
    start: Passes,
    moved: Passes,
    bounds: Bounds,
    first: Mapping[str, TensorRate],
    readings: Readings | None = None,
) -> tuple[Mapping[str, TensorRate], Mapping[str, TensorRate]]:
    """Every trained tensor at the start and moved, under the dampings that it has for good.

    ``first``: all of them at the start, under dampings that are balanced there.
    """
    later = tensor_rates(problems, conditions, moved, bounds, readings=readings)
    fixed = {k: x.d for k, x in later.items() if x.update is not None}
    if any(first[k].d != d for k, d in fixed.items() if k in first):
        again = tensor_rates(problems, conditions, start, bounds, fixed, readings)
        first = {k: replace(x, followed=first[k].moves) for k, x in again.items()}
    return first, later


def never_moving(
    problems: Mapping[str, Problem], first: Mapping[str, TensorRate], start: Passes
) -> dict[str, str]:
    """Tensors that start at zero under a rule that multiplies by their size: that size, by name."""
    return {
        name: str(problems[name].rule.weight_sizes[0])
        for name, x in first.items()
        if x.update is not None
        and x.c is None
        and start.values[name].is_zero
        and problems[name].rule.weight_sizes
    }


def tensor_rates(
    problems: Mapping[str, Problem],
    conditions: tuple[Condition, ...],
    state: Passes,
    bounds: Bounds,
    fixed: Mapping[str, Mapping[str, Expr]] | None = None,
    readings: Readings | None = None,
) -> dict[str, TensorRate]:
    """Every trained tensor in a state; decays keep symbols of their own until c is known.

    Args:
        problems: by tensor its rule, what is given, and which Fisher matrix it means.
        conditions: what is asked of dampings and decays.
        state: the graph at the start, or moved.
        bounds: what is known of the rule's exponents.
        fixed: d of tensors that have it already.
        readings: what was read before, of the same problems and conditions in any state.
    """
    readings = readings or Readings()
    sizes = tensor_sizes(state)
    alive = {k: x for k, x in sizes.items() if not x.delta.is_zero and not x.h.is_zero}
    d, weaker = _dampings(problems, conditions, sizes, alive, bounds, readings)
    d |= fixed or {}
    contexts = _contexts(problems, alive, d, bounds)
    found = {}
    for name, one in sizes.items():
        if name not in alive:
            blank = "its gradient is zero"
            found[name] = TensorRate(one.layer, S.NegativeInfinity, None, None, d[name], blank)
            continue
        problem = problems[name]
        decays = derived_decays(problem, one.layer, conditions)
        key = _kind(problem, one, d[name])
        reader: Callable[[], OutputChange] | None
        reader = partial(read_update, contexts[name], problem.rule.expression)
        known = None if key is None else readings.updates.get(key)
        if known is None:
            update, reader = reader(), None
            if key is not None:
                readings.updates[key] = name, update
        else:
            update = _renamed(known[1], problem.rule, known[0], name)
        c, own, binds = _largest(state, one, descent(update) if decays else update, bounds)
        gradient = (one.h * one.delta).width
        bound = tolerance_line(state, name) if c != own else None
        product = state.tolerances[name].own_by or main_use(state, name)[0].name
        found[name] = TensorRate(
            one.layer, gradient, c, own, d[name], binds, update, bound, product=product,
            borne=state.natural(state.nodes[product], state.values[product]),
            weaker=weaker.get(name, ""), reader=reader,
        )  # fmt: skip
    return found


def with_decays_after(
    problem: Problem, conditions: tuple[Condition, ...], found: TensorRate, c: Expr
) -> TensorRate:
    """A tensor with the decays that follow the rate M^(-c)."""
    decays = derived_decays(problem, found.layer, conditions)
    if not decays or found.update is None or found.c is None:
        return found
    d = following(problem.rule, found.layer, found.update, c, found.d, decays)
    return replace(found, d=d)


def _dampings(
    problems: Mapping[str, Problem],
    conditions: tuple[Condition, ...],
    sizes: Mapping[str, LayerSizes],
    alive: Mapping[str, LayerSizes],
    bounds: Bounds,
    readings: Readings,
) -> tuple[dict[str, Mapping[str, Expr]], dict[str, str]]:
    """All of d, with dampings solved for where a tensor has a gradient; and what was assumed."""
    d: dict[str, Mapping[str, Expr]] = {k: unsolved(problems[k], x.layer) for k, x in sizes.items()}
    weaker: dict[str, str] = {}
    contexts = _contexts(problems, alive, d, bounds)
    for name, one in alive.items():
        key = _kind(problems[name], one, d[name])
        known = None if key is None else readings.dampings.get(key)
        if known is not None:
            names = _names(problems[name].rule, known[0], name)
            d[name] = {k: renamed(x, names) for k, x in known[1].items()}
            weaker[name] = known[2]
            continue

        def read(unknown: list[Symbol], d: Mapping[str, Expr], name: str = name) -> Context:
            context = _context(problems[name], alive[name], d, bounds, unknown)
            return replace(context, network=contexts[name].network)

        d[name], weaker[name] = in_layer(problems[name], one.layer, d[name], read, conditions)
        if key is not None:
            readings.dampings[key] = name, d[name], weaker[name]
    return d, weaker


def _kind(problem: Problem, sizes: LayerSizes, d: Mapping[str, Expr]) -> Hashable | None:
    """The same for tensors in which a rule reads alike, whatever their names: equal blocks.

    None where a rule sums over layers: it reads the others, too.
    """
    rule, layer, settings = problem.rule, sizes.layer, problem.settings
    if rule.sums_over_layers:
        return None
    names = {Symbol(f"d_{k}_{layer.name}"): Symbol(f"d_{k}_") for k in rule.scaled}
    scales = (sizes.h, sizes.delta, sizes.w, sizes.mean_h, sizes.mean_delta)
    return (
        rule, tuple(settings.exponents.items()), problem.sampled_fisher, scales,
        tuple(scale.gap for scale in scales), layer.fan_in, layer.fan_out, layer.is_bias,
        tuple((k, renamed(x, names)) for k, x in d.items()),
        tuple((k, x) for (k, name), x in settings.d.items() if name == layer.name),
    )  # fmt: skip


def _names(rule: Rule, one: str, other: str) -> dict[Expr, Expr]:
    """The unknowns of a tensor, by those of another one."""
    return {Symbol(f"d_{k}_{one}"): Symbol(f"d_{k}_{other}") for k in rule.scaled}


def _renamed(update: OutputChange, rule: Rule, one: str, other: str) -> OutputChange:
    """The sizes of an update, in the unknowns of another tensor."""
    names = _names(rule, one, other)

    def put(scale: Scale) -> Scale:
        if not any(x.free_symbols for _, x in scale.exponents):
            return scale
        return replace(scale, exponents=tuple((k, renamed(x, names)) for k, x in scale.exponents))

    return replace(
        update,
        coherent=put(update.coherent),
        random=put(update.random),
        entry=put(update.entry),
        multiple=put(update.multiple),
        common=None if update.common is None else put(update.common),
    )


def _contexts(
    problems: Mapping[str, Problem],
    sizes: Mapping[str, LayerSizes],
    d: Mapping[str, Mapping[str, Expr]],
    bounds: Bounds,
) -> dict[str, Context]:
    """The tensors as rules see them, each with the others beside it for sums over layers."""
    found: dict[str, Context] = {}
    networks: dict[Rule, dict[str, Context]] = {}
    for name, one in sizes.items():
        problem = problems[name]
        network = networks.setdefault(problem.rule, {})
        found[name] = replace(_context(problem, one, d[name], bounds), network=network)
    for rule, network in networks.items():
        every = sums_over_everything(rule)
        network.update({k: x for k, x in found.items() if every or problems[k].rule == rule})
    return found


def _context(
    problem: Problem,
    sizes: LayerSizes,
    d: Mapping[str, Expr],
    bounds: Bounds,
    unknown: Iterable[Symbol] = (),
) -> Context:
    activation = Activation.RELU if sizes.mean_h == sizes.h else Activation.TANH
    return Context(
        sizes, d, problem.settings.exponents, bounds, frozenset(unknown), problem.sampled_fisher,
        activation, averages=frozenset(problem.rule.averages),
    )  # fmt: skip


def _largest(
    state: Passes, sizes: LayerSizes, update: OutputChange, bounds: Bounds
) -> tuple[Expr | None, Expr | None, str]:
    """The exponent of the largest stable rate, that of the tensor alone, and the node that binds.

    Along the cotangents dW h adds up over fan_in; what is random adds up as a CLT.
    """
    layer, h = sizes.layer, sizes.h.width
    bears = state.tolerances[layer.name]
    if update.coherent.plus(update.random, bounds).is_zero:
        return None, None, "its update is zero"
    along = sympy.expand(update.coherent.width - h - layer.fan_in)
    across = sympy.expand(update.random.width - h - HALF * layer.fan_in)
    own = bounds.larger(along - bears.own, across - bears.own_random)
    c, binds = own, f"its own product in {main_use(state, layer.name)[0].name}"
    for x, by in ((along - bears.coherent, bears.by), (across - bears.random, bears.random_by)):
        if x is not S.NegativeInfinity and bounds.larger(c, x) != c:
            c, binds = bounds.larger(c, x), by
    return sympy.expand(c), sympy.expand(own), binds

"""`derive_graph` solves the conditions on a graph: b, c and d of every tensor, for any network.

    b   stable start and maximal readback, where a tensor meets data (states/graph_forward.py)
    d   balanced damping, and balanced decay      (tensor_rates.py)
    c   maximal update: the largest rate at which no node above moves by more than it bears

in two states: at the *start*, and *moved*, with every tensor at W + dW (states/moved_state.py). A
rate must keep both stable, so the smaller one is the answer; d is that of the moved state, in which
all further steps are, and the start is read under it.

Where another node binds than the tensor's own product, constants of the code keep it from a
maximal update; code_changes.py says what they would have to be, such as logits over head_size and
not its root, or a residual multiplier.

The rule of a tensor is that of its group in the recipe (models/recipe.py); a rule alone is a recipe
of one group.

Not covered, and refused: gradients at moved weights (ascended), sums over layers where the number
of layers grows, alignments that are given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

from sympy import Expr, S, Symbol

from scaling.calculus.context import Regime, regimes
from scaling.models.building import with_frozen, with_multipliers
from scaling.models.graph import Graph, Start
from scaling.models.recipe import Recipe, TensorGroup, TensorKind, as_recipe
from scaling.models.settings import Settings
from scaling.rules.language import Node
from scaling.rules.rule import Rule
from scaling.sizes.errors import InvalidInput, NotCovered
from scaling.sizes.in_notebook import InNotebook
from scaling.sizes.scale import Bounds
from scaling.solve.code_changes import CodeChange, code_changes
from scaling.solve.conditions import STANDARD, Condition
from scaling.solve.graph_assumptions import (
    assumptions,
    of_recipe,
    of_settings,
    refuse_fewer_conditions,
    refuse_growing_data,
    refuse_open_starts,
    refuse_what_chains_alone_have,
)
from scaling.solve.learning_rate import never_moves
from scaling.solve.tensor_rates import (
    Readings,
    TensorRate,
    in_both_states,
    never_moving,
    tensor_rates,
    with_decays_after,
)
from scaling.states.graph_passes import Passes
from scaling.states.moved_state import two_states
from scaling.states.problem import Problem
from scaling.states.tensor_kinds import tensor_kinds
from scaling.states.tensor_uses import tensor_sizes

WIDTH = "width"


@dataclass(frozen=True)
class TensorAnswer:
    """The answer for a tensor; exponents as everywhere, see CONVENTION."""

    name: str
    b: Expr
    c: Expr
    d: Mapping[str, Expr]
    binds: str
    fan_in: Expr
    fan_out: Expr
    start: TensorRate
    moved: TensorRate
    rule: Rule
    kind: TensorKind
    group: str
    largest: Expr | None
    """c of the largest stable rate, whatever is given; None where nothing moves the tensor."""
    values: Mapping[str, float] = field(default_factory=dict)
    """Numbers that are given for symbols of the rule."""


@dataclass(frozen=True)
class GraphDerived(InNotebook):
    """The answer for a graph."""

    recipe: Recipe
    graph: Graph
    tensors: Mapping[str, TensorAnswer]
    changes: tuple[CodeChange, ...]
    assumptions: tuple[str, ...]
    free: tuple[str, ...]

    @property
    def rule(self) -> Rule:
        """The rule of all tensors, of a recipe that has one."""
        (rule,) = self.recipe.rules
        return rule

    def assuming(self, texts: Sequence[str]) -> GraphDerived:
        """This derivation, resting on more."""
        return replace(self, assumptions=(*self.assumptions, *texts))

    @property
    def products(self) -> dict[str, str]:
        """By tensor, its own product: of several with data, the one that bears least of it."""
        return {name: x.start.product for name, x in self.tensors.items()}

    @property
    def missing_powers(self) -> dict[str, Expr]:
        """By node, the power that a factor of the code would be changed by, as `changes` say."""
        return {n: x.needed - x.found for x in self.changes for n in x.twins or (x.node,)}

    @property
    def regimes(self) -> dict[str, tuple[Regime, ...]]:
        """The decisions of the reading of the rule in each tensor, in the state that goes on."""
        states = {k: x.moved if x.moved.update else x.start for k, x in self.tensors.items()}
        return {k: regimes(x.update.step) for k, x in states.items() if x.update is not None}


def derive_graph(
    recipe: Recipe | Rule | Node | str,
    graph: Graph,
    settings: Settings | None = None,
    conditions: Iterable[Condition] = STANDARD,
    sampled_fisher: bool = False,
    kinds: Mapping[str, TensorKind] | None = None,
    factors: Mapping[str, Expr] | None = None,
) -> GraphDerived:
    """Solve the conditions for every trained tensor of a graph.

    Args:
        recipe: what trains what; or one update rule, as an object, a tree or text.
        graph: the network.
        settings: a, b, c, d by the name of a tensor, and symbols of the rule, held fixed.
        conditions: what is asked; see conditions.py.
        sampled_fisher: K-FAC's B from sampled instead of the loss's own cotangents.
        kinds: the kinds of tensors along the width, for a graph along another axis.
        factors: by node, exponents of factors of the code that are changed as `changes` say; what
            else would have to be changed is not asked then.

    Raises:
        InvalidInput: for a recipe that does not fit the tensors of the graph.
        NotCovered: if an operation has no row, the calculus does not cover a rule, a given start is
            a symbol, or a condition is left out that all nodes are solved for together.

    >>> from scaling.models.architectures import perceptron
    >>> answer = derive_graph("sign(G)", perceptron(3))
    >>> {name: (x.b, x.c) for name, x in answer.tensors.items()}
    {'input': (0, 0), 'hidden': (1/2, 1), 'output': (1, 1)}

    With a recipe the rate of each tensor is that of its own rule:

    >>> from scaling.models.recipe_text import parse_recipe
    >>> answer = derive_graph(parse_recipe("hidden: orth(G); rest: sign(G)"), perceptron(3))
    >>> {name: x.c for name, x in answer.tensors.items()}
    {'input': 0, 'hidden': 0, 'output': 1}
    """
    recipe, settings, imposed = as_recipe(recipe), settings or Settings(), tuple(conditions)
    refuse_fewer_conditions(imposed)
    for rule in recipe.rules:
        refuse_what_chains_alone_have(rule, graph)
    starts = _given_starts(graph, settings)
    graph = with_multipliers(graph, settings.a)
    start, moved = two_states(graph, settings.b, factors)
    groups, kinds = _groups(recipe, start, kinds)
    frozen = [name for name, group in groups.items() if group.rule is None]
    if frozen:
        graph = with_frozen(graph, frozen)
        start, moved = two_states(graph, settings.b, factors)
    sizes = tensor_sizes(start)
    problems = {k: _problem(groups[k], settings, sampled_fisher) for k in sizes}
    for rule in recipe.rules:
        refuse_growing_data(rule, start, [k for k in sizes if problems[k].rule == rule])
    bounds = Bounds({name: (S.Zero, S.Infinity) for name in recipe.exponents})
    readings = Readings()
    first: Mapping[str, TensorRate] = tensor_rates(
        problems, imposed, start, bounds, readings=readings
    )
    still = never_moving(problems, first, start)
    if still:
        start, moved = two_states(graph, settings.b, factors, still=still)
        first = tensor_rates(problems, imposed, start, bounds, readings=readings)
    first, second = in_both_states(problems, imposed, start, moved, bounds, first, readings)
    tensors = {
        name: _answer(problems[name], imposed, start, first[name], second[name], bounds,
                      kinds[name], groups[name])
        for name in sizes
    }  # fmt: skip
    assumed = [*assumptions(graph, start), *of_recipe(recipe, kinds, frozen)]
    assumed += [f"{name}: zero at the start, it {never_moves(x)}" for name, x in still.items()]
    assumed += [x for one in tensors.values() for x in (*one.start.assumed, *one.moved.assumed)]
    assumed += starts
    largest = {k: x.largest for k, x in tensors.items() if x.largest is not None}
    assumed += of_settings(settings.c, largest, "c", "the largest stable rate")
    free = [f"c_{k}" for k, x in tensors.items() if x.start.c is None and x.moved.c is None]
    return GraphDerived(
        recipe,
        graph,
        tensors,
        () if factors else code_changes(graph, start, moved, still),
        tuple(dict.fromkeys(assumed)),
        tuple(free),
    )


def _given_starts(graph: Graph, settings: Settings) -> list[str]:
    """Remarks on starts that are given: where a stable start has another b, or needs them.

    Raises:
        NotCovered: for a or b that name a symbol.
    """
    if not settings.a and not settings.b:
        return []
    zero = {name: b for name, b in settings.b.items() if b is S.Infinity}
    try:
        stable = Passes(graph, zero).b
    except NotCovered as error:  # given numbers may be what it takes: queries of T5
        if any(x.free_symbols for x in (*settings.a.values(), *settings.b.values())):
            raise
        given = [f"{name} = {b}" for name, b in settings.b.items() if name not in zero]
        return [f"given is b of {', '.join(given)}, without which there are {error.found}"]
    refuse_open_starts(settings, stable)
    stable = Passes(with_multipliers(graph, settings.a), zero).b
    return of_settings(settings.b, stable, "b", "a stable start")


def _groups(
    recipe: Recipe, state: Passes, kinds: Mapping[str, TensorKind] | None
) -> tuple[dict[str, TensorGroup], Mapping[str, TensorKind]]:
    """The group of every tensor, and the kinds that decide it."""
    own = tensor_kinds(state)
    axis = state.graph.axis
    if kinds is None and axis != WIDTH and recipe.asks_for_growth:
        raise InvalidInput(
            f"the recipe '{recipe}' along the {axis}, along which matrices may not grow",
            "kinds of tensors, which are told along the width",
            "pass kinds=tensor_kinds(...) of the graph along the width, or select by names",
        )
    found = {name: (kinds or {}).get(name, kind) for name, kind in own.items()}
    frozen = [p.name for p in state.parameters.values() if not p.trained]
    return recipe.assigned(found, frozen), found


def _problem(group: TensorGroup, settings: Settings, sampled_fisher: bool) -> Problem:
    """The rule of a group, with its own exponents where the settings have none."""
    assert group.rule is not None, "tensors that are trained have a rule"
    exponents = {**group.exponents, **settings.exponents}
    own = replace(settings, exponents=exponents).closed()
    return Problem(group.rule, settings=own, sampled_fisher=sampled_fisher)


def _answer(
    problem: Problem,
    conditions: tuple[Condition, ...],
    state: Passes,
    start: TensorRate,
    moved: TensorRate,
    bounds: Bounds,
    kind: TensorKind,
    group: TensorGroup,
) -> TensorAnswer:
    """The smaller of both rates, unless one is given."""
    layer = start.layer
    known = [x for x in (start, moved) if x.c is not None]
    largest = reduce(bounds.larger, [x.c for x in known if x.c is not None]) if known else None
    binds = next((x.binds for x in reversed(known) if x.c == largest), "")
    c = Symbol(f"c_{layer.name}") if largest is None else largest
    c = problem.settings.c.get(layer.name, c)
    start, moved = (with_decays_after(problem, conditions, x, c) for x in (start, moved))
    d = moved.d if moved.c is not None else start.d
    b = _start_exponent(state, layer.name)
    return TensorAnswer(
        layer.name, b, c, d, binds, layer.fan_in, layer.fan_out, start, moved, problem.rule, kind,
        group.label, largest, {**group.values, **problem.settings.values},
    )  # fmt: skip


def _start_exponent(state: Passes, name: str) -> Expr:
    p = state.parameters[name]
    if p.start is Start.ZERO:
        return S.Infinity
    return state.b.get(name, p.b if p.b is not None else S.Zero)

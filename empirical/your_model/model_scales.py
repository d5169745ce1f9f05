"""Numbers for every tensor of a user's model, from derived exponents and what was tuned at a base.

The model is read as `scaling derive RULE --model` reads it: traced at several sizes, and derived
operation by operation. So the exponents are those that the command prints.

>>> import torch
>>> from torch import nn
>>> def model(width):
...     return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2, bias=False))
>>> batch = torch.ones(8, 4), torch.ones(8, 2)
>>> scales = for_model("sign(G)", model, base=64, width=256, batch=batch)
>>> scales["0.weight"].lr, scales["2.weight"].lr
(1.0, 0.25)

The numbers rest on what the derivation assumes and on which terms it found to dominate. Both are
part of the result, and printed with it:

>>> print(scales)
sign(G) at width 256, tuned at 64
<BLANKLINE>
tensor    role    std   lr    binds
--------  ------  ----  ----  ---------------
0.weight  input   1     1     its own product
0.bias    input   1     1     its own product
2.weight  output  0.25  0.25  its own product
<BLANKLINE>
assumed: gradient independence: a weight passes cotangents back as if drawn anew (start)
assumed: a change follows the gradient: dW h adds up over fan_in, products of changes likewise
assumed: branches do not cancel in a sum
assumed: inputs and targets are of order one, and not fitted yet
assumed: the batch is fixed

A regime that decides an exponent also warns (`RegimeWarning`): at narrow widths the other term may
still be the larger one.
"""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from fractions import Fraction

import sympy
import torch
from sympy import Expr, S
from torch import nn

from empirical.black_box.handed_over import recipe_with_probes
from empirical.measure.parametrize import LayerScales, power_of_width
from empirical.trace.given_model import GivenBatch, model_of, two_models
from empirical.trace.lowering import Lowered
from empirical.trace.model_file import GrowingAxis, LossOf, ModelFile, read_model
from empirical.trace.trained import trained
from empirical.trace.uses import Use, uses
from scaling.models.chain import Role, role_of
from scaling.models.graph import Graph, Start
from scaling.models.recipe import Recipe, TensorKind
from scaling.models.settings import Settings
from scaling.report.graph_tables import binding_place, graph_notes, regimes_in_graph
from scaling.report.tables import Table
from scaling.rules.rule import Rule
from scaling.rules.tree import Matrix, Node
from scaling.sizes.errors import InvalidInput, is_finite, unknown
from scaling.sizes.scale import exponent
from scaling.solve.graph_regimes import decisive_in_graph
from scaling.solve.graph_solution import GraphDerived, derive_graph
from scaling.states.graph_passes import Passes

Model = nn.Module | Callable[..., nn.Module] | str
"""A function of the width, the place of a file for --model, or the narrower of two models."""


class RegimeWarning(UserWarning):
    """An exponent that holds because one term of the rule dominates another as the width grows."""


@dataclass(frozen=True)
class ReadModel:
    """A model as it was read: its graph, the answer for it, the use of every trained tensor."""

    lowered: Lowered
    answer: GraphDerived
    settings: Settings
    start: Passes
    uses: Mapping[str, Use | None]
    dimensions: Mapping[str, int]
    """Of all tensors, those that are not trained too."""
    zero_biases: tuple[str, ...] = ()
    probed: tuple[str, ...] = ()
    """Of optimizers in the place of rules, what the rules rest on."""

    @property
    def assumptions(self) -> tuple[str, ...]:
        """Assumptions of the exponents."""
        return (*self.probed, *self.answer.assumptions, *self.zero_biases)

    def role(self, name: str) -> Role:
        """The role of a tensor, by the axes of its use that grow; frozen ones have none."""
        x = self.answer.tensors.get(name)
        return Role.CONSTANT if x is None else role_of(x.fan_in != 0, x.fan_out != 0)

    def fan_in(self, name: str, tensor: torch.Tensor) -> int | None:
        """The number of terms that an entry of a product with a drawn tensor adds up.

        None for biases, and for tensors that a weight is only made of.
        """
        use = self.uses.get(name)
        if use is None or use.is_bias or not use.is_factor:
            return None
        return use.fan_in(tensor.shape)


@dataclass(frozen=True)
class ModelScales(Mapping[str, LayerScales]):
    """Numbers by the name of a tensor, with what they rest on."""

    recipe: Recipe
    base: float
    width: float
    tensors: Mapping[str, LayerScales]
    read: ReadModel = field(compare=False, repr=False)

    def __getitem__(self, name: str) -> LayerScales:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    @property
    def roles(self) -> Mapping[str, Role]:
        """The role of every tensor, by its use."""
        return {name: self.read.role(name) for name in self.tensors}

    @property
    def kinds(self) -> Mapping[str, TensorKind]:
        """The kind of every trained tensor, as the width grows."""
        return {name: x.kind for name, x in self.read.answer.tensors.items()}

    @property
    def assumptions(self) -> tuple[str, ...]:
        """Assumptions of the exponents."""
        return self.read.assumptions

    @property
    def regimes(self) -> tuple[str, ...]:
        """The terms that dominate."""
        return tuple(regimes_in_graph(self.read.answer))

    @property
    def table(self) -> Table:
        """One row a tensor; what the numbers rest on below."""
        answer, lowered = self.read.answer, self.read.lowered
        scaled = self.recipe.scaled
        columns = ("tensor", "role", "std", "lr", *scaled, "binds")
        rows = tuple(
            (name, str(self.roles[name]), *(f"{number:.6g}" for number in (x.std, x.lr)),
             *(f"{x.scaled[k]:.6g}" if k in x.scaled else "" for k in scaled), self._binds(name))
            for name, x in self.tensors.items()
        )  # fmt: skip
        notes = graph_notes(answer, lowered.notes)
        notes += [f"assumed: {text}" for text in (*self.read.zero_biases, *self.read.probed)]
        if self.recipe.is_plain:
            name = self.recipe.rules[0].name or str(self.recipe.rules[0])
        else:
            name = self.recipe.name or str(self.recipe)
        title = f"{name} at width {self.width}, tuned at {self.base}"
        return Table(title, columns, rows, tuple(notes))

    def _binds(self, name: str) -> str:
        answer = self.read.answer
        if name not in answer.tensors:
            return "not trained"
        return binding_place(answer, answer.tensors[name].binds)

    def __str__(self) -> str:
        return str(self.table)


def for_model(
    rule: Recipe | Rule | Node | str,
    narrow: Model,
    wide: nn.Module | None = None,
    base: float | None = None,
    width: float | None = None,
    lr: float = 1.0,
    dampings: Mapping[str, float] | None = None,
    exponents: Mapping[str, Fraction] | None = None,
    decays: Mapping[str, float] | None = None,
    batch: GivenBatch | None = None,
    loss: LossOf | None = None,
    draw: Sequence[str] = (),
) -> ModelScales:
    """Numbers for every tensor of a model of growing width, from what was tuned at ``base``.

    ``lr``, ``dampings`` and ``decays`` are the values that work at the width ``base``; at ``width``
    each tensor gets them times (width/base)^(-exponent). A damping that the rule writes as a number
    (1e-8) has that value at the base. ``std`` is the factor for a unit initialisation at the base.
    ``exponents`` gives values to the rule's exponent symbols. Tensors that are not trained have
    the learning rate 0.

    Args:
        rule: the update rule, a recipe of several such as "hidden: muon; rest: adamw", or an
            optimizer in its place, "probe:torch.optim:Adam", which is measured.
        narrow: a function of the width that builds the model (it is called with ``base``, 2 and 4
            times that); or a file, as --model takes it; or a model, with ``wide`` the same at
            another width.
        wide: the second model. Two models are read alike up to offsets, see given_model.py.
        base: the width at which the numbers were tuned, or anything proportional to it.
        width: the width that is asked for.
        lr: the learning rate at the base.
        dampings: by symbol.
        exponents: by symbol.
        decays: by symbol.
        batch: (inputs, targets), several inputs as a tuple or a mapping; it may be left out for an
            nn.Sequential, whose first layer says what it takes.
        loss: of outputs and targets; integer targets mean cross-entropy, others squared error.
        draw: patterns of tensors that the code sets to zero or to numbers of its own, and that
            `initialise_` is to draw.

    Raises:
        InvalidInput: for models that do not fit, no batch, widths below 1, unknown names, exponents
            without a value, and a rule with a damping that nothing fixes.
        NotCovered: for what cannot be traced, and where the theory has no answer.

    Warns:
        RegimeWarning: for a regime that decides an exponent of one of the tensors.

    >>> import torch
    >>> from torch import nn
    >>> def build(width=8):
    ...     return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2, bias=False))
    >>> batch = torch.eye(3), torch.ones(3, 2)
    >>> scales = for_model("sign(G)", build, base=8, width=32, lr=0.1, batch=batch)
    >>> {name: scale.lr for name, scale in scales.items()}
    {'0.weight': 0.1, '0.bias': 0.1, '2.weight': 0.025}
    """
    base, width = _a_width("base", base), _a_width("width", width)
    read = read_of(rule, narrow, wide, base, exponents, batch, loss, draw)
    scales = scales_at(read, base, width, lr, dampings, decays)
    warn_of_regimes(read, stacklevel=3)
    return scales


def read_of(
    rule: Recipe | Rule | Node | str,
    narrow: Model,
    wide: nn.Module | None = None,
    base: float | None = None,
    exponents: Mapping[str, Fraction] | None = None,
    batch: GivenBatch | None = None,
    loss: LossOf | None = None,
    draw: Sequence[str] = (),
) -> ReadModel:
    """The exponents of every tensor, from which `scales_at` has the numbers at any width.

    The arguments and errors are those of `for_model`.
    """
    recipe, probed = recipe_with_probes(rule)
    file, axis = _source(narrow, wide, _a_width("base", base), batch, loss)
    return replace(read_by(recipe, file, axis, exponents or {}, draw), probed=probed)


def _a_width(name: str, size: float | None) -> float:
    if size is None or not is_finite(size) or size < 1:
        raise InvalidInput(f"{name}={size}", "a width of at least 1", f"pass {name}=64")
    return size


def _source(
    narrow: Model, wide: nn.Module | None, base: float, batch: GivenBatch | None,
    loss: LossOf | None,
) -> tuple[ModelFile, GrowingAxis | None]:  # fmt: skip
    """The model, and the sizes at which it is read."""
    if isinstance(narrow, str):
        return read_model(narrow), None
    if wide is not None or isinstance(narrow, nn.Module) or not callable(narrow):
        return two_models(narrow, wide, batch, loss), None  # type: ignore[arg-type]
    file = model_of(narrow, batch, loss)
    return file, GrowingAxis(next(iter(file.axes)), tuple(round(k * base) for k in (1, 2, 4)))


def read_by(
    recipe: Recipe,
    file: ModelFile,
    axis: GrowingAxis | None,
    exponents: Mapping[str, Fraction],
    draw: Sequence[str] = (),
) -> ReadModel:
    """The exponents of every tensor of a model.

    Raises:
        InvalidInput: for exponents without a value, and a rule with a damping that nothing fixes.
    """
    settings = with_values(recipe, exponents)
    model = trained(recipe, file, axis)
    lowered = model.lowered
    if draw:
        names = matching(draw, [p.name for p in lowered.graph.parameters], "draw")
        lowered = replace(lowered, graph=_drawing(lowered.graph, names))
    answer = derive_graph(recipe, lowered.graph, settings, kinds=model.kinds)
    _refuse_unmoved(recipe, answer)
    for name, x in answer.tensors.items():
        for symbol, d in x.d.items():
            if d.free_symbols:
                raise InvalidInput(
                    f"a rule that leaves d_{symbol}_{name} open: {x.rule}",
                    "dampings that are added to something whose size they follow",
                    "write a number in its place, or scale it in the learning rate",
                )
    drawn = {name: x.b for name, x in answer.tensors.items() if x.b is not S.Infinity}
    start = Passes(lowered.graph, drawn)
    dimensions = {p.name: len(p.axes) for p in start.parameters.values()}
    where = uses(start, lowered, answer.tensors)
    found = ReadModel(lowered, answer, settings, start, where, dimensions)
    return replace(found, zero_biases=_of_zero_biases(found))


def _refuse_unmoved(recipe: Recipe, answer: GraphDerived) -> None:
    """Refuse tensors that a rule never moves, such as biases under a gradient without its mean."""
    still = {
        name: x
        for name, x in answer.tensors.items()
        if x.c.free_symbols and x.start.moves is None and x.moved.moves is None
    }
    if not still:
        return
    name, x = next(iter(still.items()))
    kinds = ", ".join(dict.fromkeys(str(one.kind) for one in still.values()))
    others = f" and {len(still) - 1} more" if len(still) > 1 else ""
    given = str(recipe) if ":" in str(recipe) else f"rest: {recipe}"
    raise InvalidInput(
        f"a rule that never moves '{name}'{others}: {x.rule} is exactly zero there",
        "a rule that moves every trained tensor",
        f"give them another one, in a recipe such as '{kinds}: sgd; {given}', or freeze them",
    )


def _drawing(graph: Graph, names: Collection[str]) -> Graph:
    """The graph with these tensors drawn at the start."""
    parameters = tuple(
        replace(p, start=Start.DRAWN, b=None) if p.name in names and p.trained else p
        for p in graph.parameters
    )
    return replace(graph, parameters=parameters)


def matching(patterns: Sequence[str], names: Sequence[str], what: str) -> frozenset[str]:
    """The names that patterns such as "*.bias" mean.

    Raises:
        InvalidInput: for a pattern that means none.
    """
    patterns = [patterns] if isinstance(patterns, str) else patterns
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InvalidInput(
                f"{what}='{pattern}', which names no tensor of the model",
                f"patterns of {', '.join(names)}",
                f"write for example {what}=['{names[0]}']",
            )
    return frozenset(name for name in names if any(fnmatchcase(name, p) for p in patterns))


def _of_zero_biases(read: ReadModel) -> tuple[str, ...]:
    """The rule's effect on biases that start at zero, where another one is derived."""
    answer = read.answer
    biases = [
        name for name, use in read.uses.items() if use is not None and use.is_bias
        and Matrix("W") in answer.tensors[name].rule.expression.walk()
    ]  # fmt: skip
    if not biases:
        return ()
    zero = replace(read.settings, b={**read.settings.b, **dict.fromkeys(biases, S.Infinity)})
    kinds = {name: x.kind for name, x in answer.tensors.items()}
    other = derive_graph(answer.recipe, answer.graph, zero, kinds=kinds).tensors
    found = {}
    for name in biases:
        state = other[name].start
        if state.c is None:
            found[name] = "one that is zero never moves, its update is zero"
        elif state.c != answer.tensors[name].c:
            found[name] = f"in its first step one that is zero has c = {state.c}"
    start = "rates of biases are those of biases that are not zero"
    return tuple(f"{start}: {text}" for text in dict.fromkeys(found.values()))


def scales_at(
    read: ReadModel,
    base: float,
    width: float,
    lr: float = 1.0,
    dampings: Mapping[str, float] | None = None,
    decays: Mapping[str, float] | None = None,
) -> ModelScales:
    """The numbers at a width; see `for_model`."""
    recipe = read.answer.recipe
    base, width = _a_width("base", base), _a_width("width", width)
    if not is_finite(lr) or lr < 0:
        raise InvalidInput(f"lr={lr}", "a finite number of at least 0", "pass for example lr=0.1")
    known = {kind: [k for rule in recipe.rules for k in getattr(rule, kind)]
             for kind in ("dampings", "decays")}  # fmt: skip
    asked = (("damping", dampings, known["dampings"]), ("decay", decays, known["decays"]))
    for kind, given, names in asked:
        for symbol in given or {}:
            if symbol not in names:
                raise unknown(kind, symbol, names)
    literals = {k: float(value) for rule in recipe.rules for k, value in rule.literals.items()}
    given = {k: value for group in recipe.groups for k, value in group.values.items()}
    tuned = {**dict.fromkeys(recipe.scaled, 1.0), **literals, **given}
    tuned |= {**(dampings or {}), **(decays or {})}
    ratio, result = width / base, {}
    for name in read.dimensions:
        x = read.answer.tensors.get(name)
        if x is None:
            result[name] = LayerScales(1.0, 0.0, {k: tuned[k] for k in recipe.scaled})
            continue
        drawn = S.Zero if x.b is S.Infinity else x.b
        result[name] = LayerScales(
            std=ratio ** -_number(drawn, "b"),
            lr=lr * ratio ** -_number(x.c, "c"),
            scaled={k: tuned[k] * ratio ** -_number(d, f"d_{k}") for k, d in x.d.items()},
        )
    return ModelScales(recipe, base, width, result, read)


def warn_of_regimes(read: ReadModel, stacklevel: int) -> None:
    """Warn of regimes that decide exponents of these tensors."""
    deciding = [str(regime) for regime in decisive_in_graph(read.answer, read.settings)]
    if deciding:
        warnings.warn(
            f"exponents of '{_written(read.answer.recipe)}' that depend on which term is larger: "
            + "; ".join(dict.fromkeys(deciding)),
            RegimeWarning,
            stacklevel=stacklevel,
        )


def with_values(recipe: Recipe, exponents: Mapping[str, Fraction]) -> Settings:
    """The exponent symbols of a rule at their values, all of them.

    Raises:
        InvalidInput: for symbols that the rule lacks or that have no value or no exact one.
    """
    for symbol, value in exponents.items():
        if symbol not in recipe.exponents:
            raise unknown("exponent", symbol, recipe.exponents)
        if not isinstance(value, numbers.Rational | sympy.Rational):
            raise InvalidInput(
                f"the exponent {symbol}={value!r}",
                "an exact number",
                f"pass exponents={{'{symbol}': Fraction(1, 2)}}",
            )
    for group in recipe.groups:
        for symbol in () if group.rule is None else group.rule.exponents:
            if symbol not in exponents and symbol not in group.exponents:
                raise InvalidInput(
                    f"no value for '{symbol}' of the rule {group.rule}",
                    "a number for every exponent",
                    f"pass exponents={{'{symbol}': Fraction(1, 2)}}",
                )
    return Settings(exponents={k: exponent(v) for k, v in exponents.items()})


def _written(recipe: Recipe) -> str:
    return str(recipe.rules[0]) if recipe.is_plain else str(recipe)


def _number(x: Expr, name: str) -> float:
    return -math.log2(power_of_width(2, x, name))

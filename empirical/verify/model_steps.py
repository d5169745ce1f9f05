"""Steps of a user's model by any rule, at one size and seed: what every node and tensor does.

    drawn        tensors as the code draws them, rescaled to the size M^-b that is derived
    dW           by the rule, from the G, H and D of each tensor's use, as one matrix per use
    init         RMS of every node at the start           cotangent   of d loss / d node
    excess       RMS over samples of a cross-entropy less that of logits that are all zero
    own          RMS of the change of a tensor's own product when that tensor alone is moved
    bound        the same at the node that binds the tensor's rate
    change       RMS of the change of every node when all tensors are moved

Several steps are on the same batch, with the averages of a rule kept from one to the next; a tensor
is moved by all of them together.

Constants that no exponent fixes are set once, at the smallest size: a damping is a tenth of what it
is added to, a learning rate moves its own product by a tenth of its size. Or all numbers are given,
as a plan has them.

H and D are those of every use of a tensor (trace/weight_columns.py), a gain and a bias included.
Not covered, and listed: rules with A, B or single samples in tensors that no call takes apart
(weight norm, recurrent layers that are one call): what was seen of them is not their gradient.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from empirical.measure.calibration import DAMPING_AT_BASE, OWN_AT_BASE
from empirical.measure.training import damped_sums, dampings_in, sizes_recorder
from empirical.numbers.factored_update import FactoredUpdate
from empirical.numbers.interpreter import LayerReader, Record, evaluate_sums
from empirical.numbers.layer_matrices import LayerTensors
from empirical.numbers.layer_values import LayerValue
from empirical.numbers.matrix_axes import MatrixAxes
from empirical.numbers.state import State
from empirical.trace.execute import Execution, Values, root_mean_square
from empirical.trace.lowering import Lowered
from empirical.trace.model_file import GrowingAxis, ModelFile
from empirical.trace.uses import Use, uses
from empirical.trace.weight_columns import explains, layers_of
from scaling.models.graph import Start
from scaling.models.recipe import sums_over_everything
from scaling.rules.dependence import sees_samples
from scaling.rules.rule import Rule
from scaling.rules.tree import Node
from scaling.sizes.errors import InvalidInput
from scaling.solve.graph_solution import GraphDerived
from scaling.states.graph_passes import Passes

CONSTANT = 0.9
"""Of averages and other numbers of order one in a rule."""
Passed: TypeAlias = tuple[Mapping[str, Tensor], Mapping[str, Tensor], Mapping[str, Tensor]]
"""Values, cotangents and gradients of one pass, by names of that size."""
Sums: TypeAlias = Mapping[str, Mapping[Node, LayerValue]]
"""By tensor, the sums over layers in its rule."""
Memory: TypeAlias = "defaultdict[tuple[str, int], State]"
"""The memory of a rule for each matrix of a tensor, by the tensor's name at this size."""


@dataclass(frozen=True)
class StepSizes:
    """Sizes found at one size and seed, by node or tensor."""

    init: Mapping[str, float]
    cotangent: Mapping[str, float]
    own: Mapping[str, float]
    bound: Mapping[str, float]
    change: Mapping[str, float]
    excess: Mapping[str, float]


@dataclass
class BaseConstants:
    """By tensor: RMS at the start, learning rate, dampings and decays at the smallest size."""

    rms: dict[str, float] = field(default_factory=dict)
    rate: dict[str, float] = field(default_factory=dict)
    scaled: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class GivenNumbers:
    """Numbers of a model at one size, by its own names of tensors.

    ``weights``: those that a seed draws; ``rates``; ``numbers``: of the symbols of rules.
    """

    weights: Callable[[int], Mapping[str, Tensor]]
    rates: Mapping[str, float]
    numbers: Mapping[str, Mapping[str, float]]


class ModelSteps:
    """Steps of one model by one rule, under the exponents of an answer.

    ``steps``: how many; ``given``: numbers at each size, in the place of those of exponents;
    ``factors``: of operations, by their names in the graph, at each size.
    """

    def __init__(
        self, file: ModelFile, axis: GrowingAxis, lowered: Lowered, answer: GraphDerived,
        start: Passes, values: Mapping[str, Mapping[str, float]], parts: Mapping[str, int],
        steps: int = 1, given: Sequence[GivenNumbers] | None = None,
        factors: Sequence[Mapping[str, float]] | None = None, device: str = "cpu",
    ) -> None:  # fmt: skip
        self.file, self.axis, self.lowered, self.answer = file, axis, lowered, answer
        self.values, self.parts = values, parts
        self.steps, self.given, self.factors, self.device = steps, given, factors, device
        self._first: dict[int, Execution] = {}
        self.uses = uses(start, lowered, answer.tensors, answer.products)
        self.starts = {p.name: p.start for p in start.parameters.values()}
        self.unseen = [name for name, use in self.uses.items() if use is None]
        self.base = self._calibrated() if given is None else self._uncalibrated()

    def _rule(self, name: str) -> Rule:
        return self.answer.tensors[name].rule

    def _data(self, name: str) -> bool:
        """Whether the rule of a tensor looks at H or D beyond their product G."""
        return name in self.uses and sees_samples(self._rule(name))

    def _passed(self, run: Execution) -> Passed:
        """One pass of a model, with inputs and cotangents watched where a rule asks for them."""
        return run.with_gradients([own for own in run.trained if self._data(run.name(own))])

    def sizes(self, k: int, seed: int) -> StepSizes:
        """Everything at the k-th size.

        Raises:
            InvalidInput: for a loss that is not finite.
        """
        run = self._drawn(k, seed)
        where = f"{self.axis.name}={self.axis.sizes[k]}, seed {seed}"
        passed = self._passed(run)
        excess = run.grouped(run.excess)
        moves = self._moves(run, k, passed, where)
        return step_sizes(run, passed, moves, self.answer, self.lowered, self.uses, excess)

    def _moves(self, run: Execution, k: int, passed: Passed, where: str) -> dict[str, Tensor]:
        """The sum of all steps, for every tensor that is looked at."""
        memory: Memory = defaultdict(State)
        of_sums: Memory = defaultdict(State)
        start = dict(run.parameters)
        seen = [n for n in passed[2] if run.name(n) in self.uses and run.name(n) not in self.unseen]
        for step in range(self.steps):
            passed = self._passed(run) if step else passed
            refuse_no_number(passed[0]["loss"], f"step {step + 1} of {where}")
            sums = self._sums(run, k, passed, of_sums)
            updates = {own: self._update(run, own, k, passed, sums, memory) for own in seen}
            for own, update in updates.items():
                run.parameters[own] = run.parameters[own] - self._rate(run, own, k) * update
        refuse_no_number(run.values()["loss"], f"the end of the steps of {where}")
        moves = {own: run.parameters[own] - start[own] for own in seen}
        run.parameters = start
        return moves

    # --- parts ------------------------------------------------------------------------------------

    def _drawn(self, k: int, seed: int, rescaled: bool = True) -> Execution:
        size = self.axis.sizes[k]
        if k not in self._first:
            factors = {} if self.factors is None else self.factors[k]
            standing = self.lowered.standing[k]
            sizes = {self.axis.name: size}
            self._first[k] = Execution(self.file, sizes, seed, standing, factors, self.device)
        run = self._first[k].redrawn(seed)
        if self.given is not None:
            run.parameters |= {n: x.clone() for n, x in self.given[k].weights(seed).items()}
            return run
        for own in run.parameters if rescaled else ():
            name = run.name(own)
            answer = self.answer.tensors.get(name)
            if answer is None or self.starts[name] is not Start.DRAWN:
                continue
            wanted = self.base.rms[name] * self._power(answer.b, k)
            found = root_mean_square([run.parameters[own]])
            if found > 0:
                run.parameters[own] = run.parameters[own] * (wanted / found)
        return run

    def _power(self, exponent: object, k: int) -> float:
        return float((self.axis.sizes[k] / self.axis.sizes[0]) ** -float(exponent))  # type: ignore[arg-type]

    def _rate(self, run: Execution, own: str, k: int) -> float:
        if self.given is not None:
            return self.given[k].rates[own]
        name = run.name(own)
        c = self.answer.tensors[name].c
        return self.base.rate.get(name, 1.0) * (self._power(c, k) if c.is_number else 1.0)

    def _numbers(self, run: Execution, own: str, k: int) -> dict[str, float]:
        name = run.name(own)
        constants = dict.fromkeys(self._rule(name).constants, CONSTANT)
        given = self.values[name]
        if self.given is not None:
            return {**constants, **given, **self.given[k].numbers[own]}
        scaled = {
            symbol: self.base.scaled.get(name, {}).get(symbol, 1.0)
            * (self._power(d, k) if d.is_number else 1.0)
            for symbol, d in self.answer.tensors[name].d.items()
        }
        return {**constants, **scaled, **{k: v for k, v in given.items() if k in constants}}

    def _update(
        self, run: Execution, own: str, k: int, passed: Passed, sums: Sums, memory: Memory
    ) -> Tensor:
        """The update of a tensor, by the rule of its group."""
        return self._by_matrix(run, own, passed, self._reader(run, own, k, sums, memory))

    def _reader(
        self, run: Execution, own: str, k: int, sums: Sums, memory: Memory,
        record: Record | None = None,
    ) -> Callable[[LayerTensors, int], Tensor]:  # fmt: skip
        name = run.name(own)
        rule, numbers = self._rule(name), {**self._numbers(run, own, k), **self._exponents(name)}

        def update(layer: LayerTensors, i: int) -> Tensor:
            reader = LayerReader(layer, numbers, memory[own, i], record, known=sums[name])
            (value,) = reader.read([rule.expression])
            return FactoredUpdate(value).dense()  # type: ignore[arg-type]

        return update

    def _sums(
        self, run: Execution, k: int, passed: Passed, memory: Memory
    ) -> dict[str, dict[Node, LayerValue]]:
        """The sums over layers in each tensor's rule: of all tensors, or of those of the rule."""
        found: dict[Rule, dict[Node, LayerValue]] = {}
        for rule in {x.rule for x in self.answer.tensors.values()}:
            every = sums_over_everything(rule)
            readers = {}
            for own in passed[2] if rule.sums_over_layers else ():
                name = run.name(own)
                if every or self._rule(name) == rule:
                    numbers = {**self._numbers(run, own, k), **self._exponents(name)}
                    for i, layer in enumerate(self._layers(run, own, passed, plain=every)):
                        state = memory[f"{rule}: {own}", i]
                        readers[f"{own}, matrix {i}"] = LayerReader(layer, numbers, state)
            found[rule] = evaluate_sums(rule.sums_over_layers, readers) if readers else {}
        return {name: found[x.rule] for name, x in self.answer.tensors.items()}

    def _exponents(self, name: str) -> dict[str, float]:
        exponents, given = self._rule(name).exponents, self.values[name]
        missing = [e for e in exponents if e not in given]
        if missing:
            raise InvalidInput(
                f"the exponent {missing[0]} without a value",
                "a number for each exponent of the rule",
                f"pass --set {missing[0]}=1",
            )
        return {e: given[e] for e in exponents}

    def _by_matrix(
        self, run: Execution, own: str, passed: Passed,
        function: Callable[[LayerTensors, int], Tensor],
    ) -> Tensor:  # fmt: skip
        """A function of every matrix of a tensor, put back in its place."""
        weight = run.parameters[own]
        layers = enumerate(self._layers(run, own, passed))
        result = torch.stack([function(layer, i) for i, layer in layers])
        return self._axes(run, own).unstacked(result, weight.shape)

    def _axes(self, run: Execution, own: str) -> MatrixAxes:
        """The axes of a tensor by what they are in its matrices; one column if nothing reads it."""
        name, rank = run.name(own), run.parameters[own].ndim
        use = self.uses.get(name)
        if use is None:
            return MatrixAxes((), tuple(range(rank)), ())
        axes = use.axes(rank, self.parts.get(name, 1))
        axes.check(name, run.parameters[own].shape)
        return axes

    def _layers(
        self, run: Execution, own: str, passed: Passed, plain: bool = False
    ) -> list[LayerTensors]:
        """The matrices of a tensor as a rule sees them; ``plain``: a rule that sees G alone."""
        weight, axes = run.parameters[own], self._axes(run, own)
        _, cotangents, gradients = passed
        if plain or not self._data(run.name(own)):
            pairs = zip(axes.stacked(gradients[own]), axes.stacked(weight), strict=True)
            return [LayerTensors.of_gradient(g, w) for g, w in pairs]
        several = run.columns(own, cotangents)
        return layers_of(own, axes, weight, gradients[own], several)

    def _unseen(self, run: Execution, passed: Passed) -> list[str]:
        """Tensors whose gradient is not what their uses saw."""
        _, cotangents, gradients = passed
        found = []
        for own in gradients:
            name = run.name(own)
            if not self._data(name):
                continue
            axes, several = self._axes(run, own), run.columns(own, cotangents)
            try:
                layers_of(own, axes, run.parameters[own], gradients[own], several)
                explained = explains(axes, gradients[own], several)
            except InvalidInput:
                explained = False
            if not explained and name not in found:
                found.append(name)
        return found

    def _uncalibrated(self) -> BaseConstants:
        """No constants, where numbers are given; sees which tensors are not looked at."""
        run = self._drawn(0, 0)
        self.unseen += [x for x in self._unseen(run, self._passed(run)) if x not in self.unseen]
        return BaseConstants()

    def _calibrated(self) -> BaseConstants:
        """Constants at the smallest size; see the module."""
        self.base = BaseConstants()
        run = self._drawn(0, 0, rescaled=False)
        for name, x in run.grouped(run.parameters).items():
            self.base.rms[name] = root_mean_square(x)
        passed = self._passed(run)
        values, _, gradients = passed
        self.unseen += [name for name in self._unseen(run, passed) if name not in self.unseen]
        for name in self.uses:
            rule, given = self._rule(name), self.values[name]
            self.base.scaled[name] = {s: given.get(s, 1.0) for s in rule.scaled}
        looked_at = {
            run.name(own): own
            for own in reversed(list(gradients))
            if run.name(own) in self.uses and run.name(own) not in self.unseen
        }
        sums = self._sums(run, 0, passed, defaultdict(State))
        for name, own in looked_at.items():
            given, damped = self.values[name], damped_sums(self._rule(name))
            watched = frozenset(node for terms in damped.values() for node in terms)
            found: dict[object, float] = {}
            record = sizes_recorder(found, watched)  # type: ignore[arg-type]
            reader = self._reader(run, own, 0, sums, defaultdict(State), record)
            self._by_matrix(run, own, passed, reader)
            for total, (other, damping) in damped.items():
                for symbol in dampings_in(total):
                    if symbol not in given and found.get(other) and found.get(damping):
                        self.base.scaled[name][symbol] = (
                            DAMPING_AT_BASE * found[other] / found[damping]
                        )
        sums = self._sums(run, 0, passed, defaultdict(State))
        for name, own in looked_at.items():
            update = self._update(run, own, 0, passed, sums, defaultdict(State))
            use = self.uses[name]
            assert use is not None, "tensors without a use are not looked at"
            moved = run.values({own: run.parameters[own] - 1e-3 * update})
            unit = _changes(run, values, moved).get(use.operation, 0.0) * 1e3
            size = root_mean_square([values[use.operation]]) or 1.0
            self.base.rate[name] = OWN_AT_BASE * size / unit if unit else 1.0
        return self.base


def step_sizes(
    run: Execution, passed: Passed, moves: Mapping[str, Tensor], answer: GraphDerived,
    lowered: Lowered, uses: Mapping[str, Use | None], excess: Values,
) -> StepSizes:  # fmt: skip
    """The sizes of a model at the start, and of what moving its tensors does.

    Args:
        run: the model, with its weights at the start.
        passed: what a pass found there.
        moves: what is added to each trained tensor, by its name at this size.
        answer: says which node binds a tensor.
        lowered: the operations behind the graph.
        uses: the product of each tensor.
        excess: of losses at the start, beyond that of vanishing logits.
    """
    values, cotangents, _ = passed
    own: dict[str, float] = {}
    bound: dict[str, float] = {}
    for name, use in uses.items():
        mine = {n: run.parameters[n] + d for n, d in moves.items() if run.name(n) == name}
        if not mine or use is None:
            continue
        changed = _changes(run, values, run.values(mine))
        own[name] = changed.get(use.operation, 0.0)
        binds = answer.tensors[name].binds
        at = next((o for o, n in lowered.made.items() if n == _source(binds)), None)
        if at in changed:
            bound[name] = changed[at]
    everything = run.values({n: run.parameters[n] + d for n, d in moves.items()})
    return StepSizes(
        {n: root_mean_square(x) for n, x in run.grouped(values).items()},
        {n: root_mean_square(x) for n, x in run.grouped(cotangents).items()},
        own,
        bound,
        _changes(run, values, everything),
        {n: root_mean_square(x) for n, x in excess.items()},
    )


def refuse_no_number(loss: Tensor, where: str) -> None:
    """Refuse a loss that is not finite.

    Raises:
        InvalidInput: with the step and the size.
    """
    if not bool(loss.isfinite().all()):
        raise InvalidInput(
            f"a loss of {float(loss.detach())} at {where}",
            "a loss that stays finite at every size of the axis",
            "look for what is not finite in batch(), build(..) or loss(..): nothing is trained yet"
            if where.startswith("step 1 of ")
            else "lower the learning rate, take fewer steps (--steps 1), or smaller sizes: "
            "--axis width=32:128",
        )


def _changes(
    run: Execution, before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> dict[str, float]:
    """RMS of the change of every node."""
    moved = {name: after[name].detach() - x for name, x in before.items()}
    return {name: root_mean_square(x) for name, x in run.grouped(moved).items()}


def _source(binds: str) -> str:
    return binds.split(" into ")[0].removeprefix("its own product in ")


__all__ = [
    "BaseConstants",
    "GivenNumbers",
    "ModelSteps",
    "StepSizes",
    "refuse_no_number",
    "step_sizes",
]

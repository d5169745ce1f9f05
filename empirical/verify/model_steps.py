"""One step of a user's model by any rule, at one size and seed: what every node and tensor does.

    drawn        tensors as the code draws them, rescaled to the size M^-b that is derived
    dW           by the rule, from the G, H and D of each tensor's use, as one matrix per use
    init         RMS of every node at the start           cotangent   of d loss / d node
    own          RMS of the change of a tensor's own product when that tensor alone is moved
    bound        the same at the node that binds the tensor's rate
    change       RMS of the change of every node when all tensors are moved

Constants that no exponent fixes are set once, at the smallest size: a damping is a tenth of what it
is added to, a learning rate moves its own product by a tenth of its size.

Not covered, and listed: rules with A, B or single samples in tensors whose use is no product with
data (they have no H and D of their own).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from empirical.measure.calibration import DAMPING_AT_BASE, OWN_AT_BASE
from empirical.measure.training import damped_sums, dampings_in, sizes_recorder
from empirical.numbers.interpreter import Record, evaluate
from empirical.numbers.layer_matrices import LayerTensors
from empirical.trace.execute import Execution, root_mean_square
from empirical.trace.lowering import Lowered
from empirical.trace.model_file import GrowingAxis, ModelFile
from scaling.models.graph import GraphNode, Start
from scaling.models.operations.products import equation_of, fans
from scaling.rules.rule import Rule
from scaling.rules.tree import Matrix
from scaling.sizes.errors import InvalidInput
from scaling.solve.graph_solution import GraphDerived
from scaling.states.graph_passes import Passes
from scaling.states.tensor_uses import main_use

CONSTANT = 0.9
"""Of averages and other numbers of order one in a rule."""


@dataclass(frozen=True)
class Use:
    """Where a tensor meets data: the operation of PyTorch, and the axes of its matrix."""

    node: GraphNode
    operation: str
    contracted: tuple[int, ...]
    left: tuple[int, ...]
    direct: bool

    def batched(self, rank: int) -> tuple[int, ...]:
        """Axes of which every index has a matrix of its own: experts, groups."""
        return tuple(k for k in range(rank) if k not in (*self.contracted, *self.left))


@dataclass(frozen=True)
class StepSizes:
    """Sizes found at one size and seed, by node or tensor."""

    init: Mapping[str, float]
    cotangent: Mapping[str, float]
    own: Mapping[str, float]
    bound: Mapping[str, float]
    change: Mapping[str, float]


@dataclass
class BaseConstants:
    """By tensor: RMS at the start, learning rate, dampings and decays at the smallest size."""

    rms: dict[str, float] = field(default_factory=dict)
    rate: dict[str, float] = field(default_factory=dict)
    scaled: dict[str, dict[str, float]] = field(default_factory=dict)


class ModelSteps:
    """Steps of one model by one rule, under the exponents of an answer."""

    def __init__(
        self, file: ModelFile, axis: GrowingAxis, lowered: Lowered, answer: GraphDerived,
        start: Passes, values: Mapping[str, float],
    ) -> None:  # fmt: skip
        self.file, self.axis, self.lowered, self.answer = file, axis, lowered, answer
        self.rule, self.values = answer.rule, dict(values)
        self.uses = {name: _use(start, lowered, name) for name in answer.tensors}
        self.starts = {p.name: p.start for p in start.parameters.values()}
        self.unseen = [
            name
            for name, use in self.uses.items()
            if use is None or (not use.direct and self._data)
        ]
        self.base = self._calibrated()

    @property
    def _data(self) -> bool:
        """Whether the rule looks at H or D beyond their product G."""
        names = {n.name for n in self.rule.expression.walk() if isinstance(n, Matrix)}
        return bool(names & {"A", "B"}) or "sample_square" in str(self.rule)

    def sizes(self, k: int, seed: int) -> StepSizes:
        """Everything at the k-th size."""
        run = self._drawn(k, seed)
        values, cotangents, gradients = run.with_gradients()
        moves = {
            own: -self._rate(run.name(own), k) * self._update(run, own, k, values, cotangents, g)
            for own, g in gradients.items()
            if run.name(own) in self.uses and run.name(own) not in self.unseen
        }
        own: dict[str, float] = {}
        bound: dict[str, float] = {}
        for name, use in self.uses.items():
            mine = {n: run.parameters[n] + d for n, d in moves.items() if run.name(n) == name}
            if not mine or use is None:
                continue
            changed = _changes(run, values, run.values(mine))
            own[name] = changed.get(use.operation, 0.0)
            binds = self.answer.tensors[name].binds
            at = next((o for o, n in self.lowered.made.items() if n == _source(binds)), None)
            if at in changed:
                bound[name] = changed[at]
        everything = run.values({n: run.parameters[n] + d for n, d in moves.items()})
        return StepSizes(
            {n: root_mean_square(x) for n, x in run.grouped(values).items()},
            {n: root_mean_square(x) for n, x in run.grouped(cotangents).items()},
            own,
            bound,
            _changes(run, values, everything),
        )

    # --- parts ------------------------------------------------------------------------------------

    def _drawn(self, k: int, seed: int, rescaled: bool = True) -> Execution:
        size = self.axis.sizes[k]
        run = Execution(self.file, {self.axis.name: size}, seed, self.lowered.standing[k])
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

    def _rate(self, name: str, k: int) -> float:
        c = self.answer.tensors[name].c
        return self.base.rate.get(name, 1.0) * (self._power(c, k) if c.is_number else 1.0)

    def _numbers(self, name: str, k: int) -> dict[str, float]:
        constants = dict.fromkeys(self.rule.constants, CONSTANT)
        scaled = {
            symbol: self.base.scaled.get(name, {}).get(symbol, 1.0)
            * (self._power(d, k) if d.is_number else 1.0)
            for symbol, d in self.answer.tensors[name].d.items()
        }
        return {**constants, **scaled, **{k: v for k, v in self.values.items() if k in constants}}

    def _update(
        self, run: Execution, own: str, k: int, values: Mapping[str, Tensor],
        cotangents: Mapping[str, Tensor], gradient: Tensor,
    ) -> Tensor:  # fmt: skip
        name = run.name(own)
        numbers = {**self._numbers(name, k), **self._exponents()}
        return self._by_matrix(
            run, own, gradient, values, cotangents,
            partial(_evaluated, self.rule, numbers, None),
        )  # fmt: skip

    def _exponents(self) -> dict[str, float]:
        missing = [e for e in self.rule.exponents if e not in self.values]
        if missing:
            raise InvalidInput(
                f"the exponent {missing[0]} without a value",
                "a number for each exponent of the rule",
                f"pass --set {missing[0]}=1",
            )
        return {e: self.values[e] for e in self.rule.exponents}

    def _by_matrix(
        self,
        run: Execution,
        own: str,
        gradient: Tensor,
        values: Mapping[str, Tensor],
        cotangents: Mapping[str, Tensor],
        function: Callable[[LayerTensors], Tensor],
    ) -> Tensor:
        """A function of every matrix of a tensor, put back in its place."""
        use, weight = self.uses[run.name(own)], run.parameters[own]
        assert use is not None, "a tensor without a use is not looked at"
        batched = use.batched(weight.ndim)
        order = (*batched, *use.left, *use.contracted)
        shape = [_length(weight, axes) for axes in (batched, use.left, use.contracted)]
        stack = weight.permute(order).reshape(shape)
        slopes = gradient.permute(order).reshape(shape)
        result = torch.empty_like(stack)
        data = self._matrices(run, own, use, values, cotangents) if self._data else None
        for i in range(shape[0]):
            if data is None:
                h = torch.eye(shape[2], dtype=weight.dtype)
                d = slopes[i] * shape[2]  # G = D H^T / n, exactly
            else:
                h, d = data[i]
            result[i] = function(LayerTensors(h, d, stack[i].contiguous()))
        lengths = [weight.shape[a] for a in order]
        back = sorted(range(weight.ndim), key=lambda i: order[i])
        return result.reshape(lengths).permute(back)

    def _matrices(
        self, run: Execution, own: str, use: Use, values: Mapping[str, Tensor],
        cotangents: Mapping[str, Tensor],
    ) -> list[tuple[Tensor, Tensor]]:  # fmt: skip
        """H and D of a product with data, one column a row of the batch or a position."""
        node = next(n for n in values if run.name(n) == use.operation)
        source = run.input_of(node, values, own)
        letters, out = use.node.get("equation").split("->")
        mine, other = letters.split(",")
        if use.node.inputs[0] != run.name(own):
            mine, other = other, mine
        x, dy = source, cotangents[node]
        both = [c for c in mine if c in other and c in out]
        summed = [c for c in mine if c in other and c not in out]
        kept = [c for c in mine if c not in other]
        rows = [c for c in other if c not in mine]
        sizes = dict(zip((*other, *out), (*x.shape, *dy.shape), strict=False))
        sizes.update(dict(zip(out, dy.shape, strict=True)))
        h = torch.einsum(f"{other}->{''.join((*both, *summed, *rows))}", x)
        d = torch.einsum(f"{out}->{''.join((*both, *kept, *rows))}", dy)
        count = _product(sizes[c] for c in rows)
        h = h.reshape(_product(sizes[c] for c in both), -1, count)
        d = d.reshape(_product(sizes[c] for c in both), -1, count) * count
        return list(zip(h, d, strict=True))

    def _calibrated(self) -> BaseConstants:
        """Constants at the smallest size; see the module."""
        self.base = BaseConstants()
        run = self._drawn(0, 0, rescaled=False)
        for name, x in run.grouped(run.parameters).items():
            self.base.rms[name] = root_mean_square(x)
        values, cotangents, gradients = run.with_gradients()
        damped = damped_sums(self.rule)
        watched = frozenset(node for terms in damped.values() for node in terms)
        for own, gradient in gradients.items():
            name = run.name(own)
            if name not in self.uses or name in self.unseen or name in self.base.rate:
                continue
            given = {s: self.values.get(s, 1.0) for s in self.rule.scaled}
            self.base.scaled[name] = dict(given)
            found: dict[object, float] = {}
            numbers = {**self._numbers(name, 0), **self._exponents()}
            record = sizes_recorder(found, watched)  # type: ignore[arg-type]
            self._by_matrix(
                run, own, gradient, values, cotangents,
                partial(_evaluated, self.rule, numbers, record),
            )  # fmt: skip
            for total, (other, damping) in damped.items():
                for symbol in dampings_in(total):
                    if symbol not in self.values and found.get(other) and found.get(damping):
                        self.base.scaled[name][symbol] = (
                            DAMPING_AT_BASE * found[other] / found[damping]
                        )
            update = self._update(run, own, 0, values, cotangents, gradient)
            use = self.uses[name]
            assert use is not None, "tensors without a use are not looked at"
            moved = run.values({own: run.parameters[own] - 1e-3 * update})
            unit = _changes(run, values, moved).get(use.operation, 0.0) * 1e3
            size = root_mean_square([values[use.operation]]) or 1.0
            self.base.rate[name] = OWN_AT_BASE * size / unit if unit else 1.0
        return self.base


def _evaluated(
    rule: Rule, numbers: Mapping[str, float], record: Record | None, layer: LayerTensors
) -> Tensor:
    return evaluate(rule, layer, numbers, record=record).dense()


def _changes(
    run: Execution, before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> dict[str, float]:
    """RMS of the change of every node."""
    moved = {name: after[name].detach() - x for name, x in before.items()}
    return {name: root_mean_square(x) for name, x in run.grouped(moved).items()}


def _use(start: Passes, lowered: Lowered, name: str) -> Use | None:
    """The product with data that gives a tensor its gradient."""
    node, i = main_use(start, name)
    operation = next(
        (o for o, n in lowered.made.items() if n == node.name or _is_part(n, node.name)), None
    )
    if operation is None:
        return None
    rank = len(start.parameters[name].axes)
    if node.inputs[i] != name:
        return Use(node, operation, tuple(range(1, rank)), (0,) if rank else (), False)
    at = start.operands(node)
    of = fans(at, i)
    own_input = node.op == "contract" and len(equation_of(at)[0]) == 2
    return Use(node, operation, tuple(sorted(of.contracted)), tuple(sorted(of.left)), own_input)


def _is_part(last: str, node: str) -> bool:
    """Whether a node is one of several that an operation of PyTorch became."""
    return last.rpartition(".")[0] == node or last.split(".")[0] == node.split(".")[0] != last


def _source(binds: str) -> str:
    return binds.split(" into ")[0].removeprefix("its own product in ")


def _length(x: Tensor, axes: tuple[int, ...]) -> int:
    return _product(x.shape[a] for a in axes)


def _product(numbers: Iterable[int]) -> int:
    total = 1
    for n in numbers:
        total *= int(n)
    return total


__all__ = ["BaseConstants", "ModelSteps", "Rule", "StepSizes", "Use"]

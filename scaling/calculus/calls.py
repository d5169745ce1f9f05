"""The rule of inference for each function of the language.

What the row of a function says of its size is enough for functions of single entries, for means,
norms, for the larger and the smaller of two, for the largest of many, and for what has the size of
an expression (scaling/rules/operators.py); and so are its traits for diagonal blocks, eigenvectors
and what is made of all steps. All others have an inference of their own, by name:

    orth, newton_schulz, polar_express  polar_factor.py
    spectral_map, project            singular_values.py
    inner, over_layers, trust        inner_product.py, layer_sums.py, scalars.py
    sample_square, ascended          per_sample_squares.py, moved_weights.py

A function that is neither is refused by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from scaling.calculus import (
    averages,
    entry_functions,
    extremes,
    instead,
    layer_sums,
    matrix_norms,
    means,
    moved_weights,
    per_sample_squares,
    pieces,
    polar_factor,
    rank,
    rotation,
    scalars,
    singular_values,
)
from scaling.calculus.context import Context
from scaling.calculus.entrywise import Reading
from scaling.calculus.inner_product import inner
from scaling.calculus.values import Rotated, Scalar, Spectral, Value
from scaling.rules.diagonal_blocks import inward
from scaling.rules.operators import (
    FUNCTIONS,
    Extreme,
    Formula,
    LargestEntry,
    OfEntries,
    SecondOperand,
    SpectralSum,
    SumOfEntries,
)
from scaling.rules.parser import parse_formula
from scaling.rules.rewrites import substitute
from scaling.rules.tree import Call, Node, Symbol
from scaling.sizes.derivation import NEWTON_SCHULZ, NORMS, POLAR_EXPRESS, Step
from scaling.sizes.errors import NotCovered

Read = Callable[[Context, Node], Reading]
Inference = Callable[[Context, Call, Sequence[Reading], Read], Reading]


def call(context: Context, node: Call, read: Read) -> Reading:
    """The reading of a function, from what ``read`` tells of its operands.

    Raises:
        NotCovered: for what no rule of inference covers, naming the function.
    """
    row = FUNCTIONS[node.function]
    if row.cuts and (moved := inward(node)) != node:
        return _as(context, node, moved, read)
    if isinstance(row.reading, Formula):
        return _as_formula(context, node, row.reading, read)
    of_sigma = row.second is SecondOperand.OF_SINGULAR_VALUE
    known = node.children[:1] if of_sigma else node.children
    operands = [read(context, operand) for operand in known]
    match row.reading:
        case OfEntries() as f:
            return entry_functions.function(context, node, f, operands)
        case SumOfEntries(power=1):
            return means.mean(context, node, *operands[0])
        case SumOfEntries() | SpectralSum():
            return _norm(context, node, *operands[0])
        case Extreme() as which if node.shape.is_scalar:
            return scalars.extreme(context, node, which, operands)
        case Extreme() as which:
            return extremes.of_entries(context, node, which, operands, read)
        case LargestEntry():
            return extremes.largest(context, node, *operands[0])
    if row.cuts:
        return pieces.blocks(context, node, *operands[0])
    if row.basis:
        return rotation.eigenbasis(context, node, *operands[0])
    if row.average:
        return _average(context, node, operands[0], read)
    if row.remembers:
        return averages.running(context, node, operands[0], read)
    inference = _INFERENCES.get(node.function)
    if inference is None:
        raise context.not_covered(
            node, f"the function {node.function}", "a rule of inference for it", instead.apart
        )
    return inference(context, node, operands, read)


def _as(context: Context, node: Call, other: Node, read: Read) -> Reading:
    """A node of the size of another."""
    value, step = read(context, other)
    return value, replace(step, subject=str(node), node=node)


def _as_formula(context: Context, node: Call, formula: Formula, read: Read) -> Reading:
    names: dict[Node, Node] = dict(zip((Symbol("x"), Symbol("y")), node.children, strict=False))
    try:
        return _as(context, node, substitute(parse_formula(formula.text), names), read)
    except NotCovered as error:
        found = f"{node.function}, which is read as {formula.text}: {error.found}"
        others = instead.candidates(node, instead.apart)
        raise NotCovered(found, error.needed, error.do_this, node, others) from error


def _alone(inference: Callable[[Context, Call, Value, Step], Reading]) -> Inference:
    """An inference that needs its operand alone."""
    return lambda context, node, operands, _: inference(context, node, *operands[0])


def _average(context: Context, node: Call, operand: Reading, read: Read) -> Reading:
    value, step = operand
    if context.before is not None:
        first = read(context.before.context, node.argument)
        return averages.average(context, node, first, (value, step))
    if isinstance(value, Rotated):
        rotation.average(context, node, value)
    return averages.first_average(node, (value, step))


def _norm(context: Context, node: Call, value: Value, step: Step) -> Reading:
    norm = rotation.norm if isinstance(value, Rotated) else matrix_norms.norm
    size = norm(context, node, value)  # type: ignore[arg-type]
    line = Step(NORMS, str(node), size, "", (step,), node=node)
    if matrix_norms.norm_power(node) is not None:
        line = rank.assumed(context, line, [value])
    elif isinstance(value, Spectral) and value.blocks:
        line = line.because(f"{node}, the largest of many numbers, up to logarithms of the width")
    return Scalar(size), line


def _inner(context: Context, node: Call, operands: Sequence[Reading], read: Read) -> Reading:
    first, second = operands

    def is_positive(part: Node) -> bool:
        value, _ = read(context, part)
        return isinstance(value, Scalar) and value.positive

    return inner(context, node, first, second, is_positive)


def _over_layers(context: Context, node: Call, operands: Sequence[Reading], read: Read) -> Reading:
    return layer_sums.over_layers(context, node, operands[0], read)


def _ascended(context: Context, node: Call, operands: Sequence[Reading], read: Read) -> Reading:
    return moved_weights.gradient(context, node, operands[0][1], read)


_INFERENCES: Mapping[str, Inference] = MappingProxyType(
    {
        "orth": _alone(polar_factor.orth),
        "newton_schulz": _alone(partial(polar_factor.polar_steps, NEWTON_SCHULZ)),
        "polar_express": _alone(partial(polar_factor.polar_steps, POLAR_EXPRESS)),
        "spectral_map": singular_values.spectral_map,
        "project": singular_values.project,
        "inner": _inner,
        "trust": scalars.trust,
        "over_layers": _over_layers,
        "sample_square": _alone(per_sample_squares.sample_square),
        "ascended": _ascended,
    }
)

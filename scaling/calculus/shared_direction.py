"""Updates with terms that move all outputs of a layer alike.

    dW = X + 1 v^T      X odd in delta, entry by entry; v a mean over the outputs, as col_mean(G)

A column mean of G changes sign with the gradient, as an update must, but it does not follow delta:
it is the same for every output. Through its layer it adds up over fan_in like any update that is
odd in h. Above it W is independent of the constant vector 1, so that what it does there is a CLT,
and it is counted among the changes in random directions.

Only terms of the update itself are told apart, not parts of its factors: those are refused, as
before, for being neither odd nor even in the gradient.
"""

from __future__ import annotations

from collections.abc import Callable

from scaling.calculus import averages, instead
from scaling.calculus.context import Context
from scaling.calculus.entrywise import Reading, spread_vector
from scaling.calculus.values import Aligned, Parity, Vector
from scaling.rules.like_terms import collect
from scaling.rules.shapes import Dim
from scaling.rules.tree import Add, Node
from scaling.sizes.derivation import Step
from scaling.sizes.scale import HALF, Order, Scale, Size

Read = Callable[[Context, Node], Reading]


def apart(
    context: Context, node: Node, whole: Aligned, read: Read
) -> tuple[Aligned, Scale | None, tuple[Step, ...]]:
    """An update's terms that follow the gradient, and the size of dW h of those that are common.

    With the step that gave the former. The update as it is, None and no step, where nothing can be
    told apart.
    """
    rows: list[Aligned] = []
    others: list[Node] = []
    for term in collect(node, averages.simplification(context)):
        value, _ = read(context, term)
        if isinstance(value, Vector) and _is_common(value):
            rows.append(spread_vector(context, value, False))
        elif not value.main.is_zero:
            others.append(term)
    if not rows or not others:
        return whole, None, ()
    rest = others[0]
    for term in others[1:]:
        rest = Add(rest, term)
    signal, step = read(context, rest)
    if isinstance(signal, Vector):
        signal = spread_vector(context, signal, False)
    if not isinstance(signal, Aligned):
        return whole, None, ()
    moved = Scale.zero(Size.ENTRY)
    for row in rows:
        moved = context.plus(moved, _own(context, row))
    layers_above = context.sizes.layer.fan_out != 0
    if context.step > 1 and layers_above and context.activation.zero_mean:
        order = context.bounds.order(moved.width, _own(context, signal).width)
        if order is not Order.LESS:
            raise context.not_covered(
                node,
                "an update that moves all outputs alike by as much as any other part does, under "
                "an activation of zero mean",
                "a smaller common part, or an activation whose mean does not vanish",
                instead.apart,
            )
    return signal, moved, (step,)


def _own(context: Context, value: Aligned) -> Scale:
    stretch = (context.fan(Dim.FAN_IN) / context.fan(Dim.FAN_OUT)) ** HALF
    own: Scale = value.gain.as_size_of(Size.SCALAR) * context.sizes.h * stretch
    return own


def _is_common(value: Vector) -> bool:
    return value.is_row and value.side is Dim.FAN_IN and value.averaged is Parity.ODD

"""The rank of the gradient: what depends on it, and what becomes of that where the batch grows.

    fixed batch     G = D H^T / n has O(1) directions, and so has whatever makes its singular values
                    alike: orth(G) has the norm 1, and entries 1/sqrt(fan_in fan_out)
    n alone         G of a hidden layer has n directions, and norm(orth(G)) = sqrt(n)
    n ~ M           G has min(fan_in, fan_out, n) of them. A few still set its own sizes: the
                    kernel of the layer's inputs has a trace, so its eigenvalues add up to the size
                    of the largest. But orth(G) raises all of them to 1:

                    norm(orth(G)) = sqrt(r)    rms(orth(G)) = sqrt(r/(fan_in fan_out))
                    with r = min(fan_in, fan_out)

                    while its action on the data, which lie along the first few, stays 1

So a rule depends on the rank where it takes the norm, the mean or another function of the entries
of a matrix whose singular values were made alike (`Aligned.levelled`), and where an entrywise
function acts in an eigenbasis. There the answer says that the batch is fixed; with
``Batch(growth=BatchGrowth.PROPORTIONAL)`` the sizes above are taken. Both sides have to grow: of an
input or an output layer the rank is O(1) either way.

Of a levelled matrix with r directions the sizes of entries are known, and not how a function of
them acts: norms, and positive functions such as X*X, their means, and products with positive rows,
columns and numbers are covered.

Refused by name where the batch grows: Newton-Schulz in a fixed number of steps (small singular
values do not reach 1), eigenbases, inverses whose damping is smaller than the eigenvalues, sampled
cotangents, the second step, gradients at moved weights.

Whatever the batch, a function with a jump, sign(D H^T), has full rank from two samples on: the
singular values of such a kernel fade as slowly as a power of their number. So orth(sign(G)) has the
norm sqrt(r) and rows of norm 1. Single entries do not follow: of two samples they are 1/cos of an
angle over M, so 1/M but for the few near a zero of G, which hold the norm. What a function of them
does depends on the number of samples up to widths of a power of it, and is refused.
"""

from __future__ import annotations

from collections.abc import Iterable

from scaling.calculus.context import Context
from scaling.calculus.values import Aligned, Known, Spectral, Value
from scaling.rules.shapes import Dim
from scaling.rules.tree import Node
from scaling.sizes.derivation import Step
from scaling.sizes.errors import NotCovered
from scaling.sizes.scale import Scale, Size

FIXED_BATCH = "the batch is fixed while the width grows: G has rank O(1)"
GROWING_BATCH = (
    "the batch grows in proportion to the width, and a few directions of G set its own sizes"
)


def is_open(context: Context) -> bool:
    """Whether the rank of the layer's gradient is that of the batch: both of its sides grow."""
    layer = context.sizes.layer
    return bool(layer.fan_in != 0 and layer.fan_out != 0)


def grows(context: Context) -> bool:
    """Whether the rank of the layer's gradient grows with the width."""
    return context.batch_grows and is_open(context)


def is_raised_by_jumps(context: Context, value: Aligned) -> bool:
    """Whether a function with jumps has singular values as many as the smaller side.

    That of one sample, sign(delta h^T), has one.
    """
    left, right = context.spans
    return value.jumps and is_open(context) and min(left.rank, right.rank) > 1


def levelled_entry(context: Context, full: bool, of_batch: bool = False) -> Scale:
    """An entry, in the mean square, of a matrix whose O(1) or ``full`` singular values are 1.

    ``of_batch``: they are as many as the samples, or fill a side of the matrix.
    """
    if not full:
        return (context.spread**-1).as_size_of(Size.ENTRY)
    if of_batch and context.samples_grow:
        return (context.samples.root() / context.spread).as_size_of(Size.ENTRY)
    fan_in, fan_out = context.fan(Dim.FAN_IN), context.fan(Dim.FAN_OUT)
    return (context.plus(fan_in, fan_out).root() ** -1).as_size_of(Size.ENTRY)


def is_full(value: Value) -> bool:
    """Whether the singular values are alike and as many as the smaller side."""
    return isinstance(value, Aligned) and value.levelled and not value.coherent


def assumed(context: Context, step: Step, values: Iterable[Value], side: Dim | None = None) -> Step:
    """The step, with the assumption that decides it where entries follow from the rank.

    ``side``: of a matrix of the data, whose rank is that of the batch where this side alone grows.
    """
    levelled = any(
        (isinstance(v, Spectral) and v.levelled)
        or (isinstance(v, Aligned) and v.levelled and v.known is Known.TYPICAL)
        for v in values
    )  # fmt: skip
    return assumed_of_corner(context, step, side) if levelled else step


def assumed_of_corner(context: Context, step: Step, side: Dim | None = None) -> Step:
    """The same of a function of entries in an eigenbasis, whose corner is as large as the rank."""
    is_of_batch = is_open(context) or (side is not None and context.fan(side).width != 0)
    if context.batch_grows or not is_of_batch or FIXED_BATCH in step.assumption:
        return step
    return step.because(FIXED_BATCH)


def refuse_where_it_grows(
    context: Context, node: Node, found: str, needed: str, side: Dim | None = None
) -> None:
    """Refuse what is not covered under a batch that grows.

    ``side``: of a matrix of the data, whose rank is that of the batch where this side alone grows.
    """
    of_data = side is not None and context.batch_grows and context.fan(side).width != 0
    if grows(context) or of_data:
        alone = context.samples_grow
        raise NotCovered(
            f"{found}, under a batch that grows{'' if alone else ' with the width'}, in '{node}' "
            f"of the {context.sizes.layer.name} layer",
            needed,
            "measure it at growing batches: scaling verify RULE --axis batch=4:64"
            if alone
            else "derive it for a fixed batch (--batch fixed), or measure it at growing batches",
        )

"""The rule of inference for centred gradients, X - row_mean(X) and X - col_mean(X).

    G - row_mean(G) = D (H - 1 mean(H))^T / n       and D - 1 mean(D) in the place of D for columns

So a matrix D C H^T stays one, of the same sizes: centred h are as large as h, and meet h by their
covariance, an LLN. It is odd in the centred h, and functions of it are what they are of G. By as
much as h has a mean it leads out of the span of the data, M^(-1/2) where the activation has none.

Refused: means over the same side of what is odd (zero for the matrix itself), and centred functions
of entries, which are neither odd nor even in h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from scaling.calculus import moved_weights
from scaling.calculus.context import Context
from scaling.calculus.directions import kinds
from scaling.calculus.entrywise import Reading
from scaling.calculus.values import Aligned, Value
from scaling.models.layer_sizes import mean_step
from scaling.rules.like_terms import totals
from scaling.rules.operators import FUNCTIONS
from scaling.rules.shapes import Dim
from scaling.rules.tree import Call, Node
from scaling.sizes.derivation import SUM, Step
from scaling.sizes.scale import Size


def whole(node: Node, terms: Sequence[Node]) -> tuple[Node, Call] | None:
    """X and its mean, if a sum is X - row_mean(X) or X - col_mean(X) times a number.

    >>> from scaling.rules.language import G, ema, row_mean
    >>> whole(2 * G - 2 * row_mean(G), [G, -row_mean(G)])
    (<rule G>, <rule row_mean(G)>)
    >>> whole(G - 2 * row_mean(G), [G, -row_mean(G)]) is None
    True
    """
    if len(terms) != 2:
        return None
    found = totals(node)
    for x in found:
        for other, factor in found.items():
            if isinstance(other, Call) and other.argument == x and factor == -found[x]:
                row = FUNCTIONS[other.function]
                if row.mean and row.linear and not other.shape.is_scalar and len(found) == 2:
                    return x, other
    return None


def centred(context: Context, node: Node, mean: Call, value: Value, step: Step) -> Reading | None:
    """X - row_mean(X) of a matrix D C H^T; None for any other."""
    linear = isinstance(value, Aligned) and value.low_rank and value.coherent and not value.levelled
    if not isinstance(value, Aligned) or not linear or value.entry.is_zero:
        return None
    moved_weights.refuse_mean(context, mean, value)
    if not value.is_linear:
        return None
    over_fan_in = (mean.shape.cols is Dim.ONE) is not value.transposed
    side, base = (1, context.sizes.h) if over_fan_in else (0, context.sizes.delta)
    span, fan = context.spans[side], context.fan(Dim.FAN_IN if over_fan_in else Dim.FAN_OUT)
    if fan.width == 0 and span.rank < 2 and not span.off:
        return None  # it may have one entry a row
    means = mean_step(context.sizes, over_fan_in, context.activation)
    share = (means.result / base).as_size_of(Size.SCALAR)
    portions = value.portions
    for kind in kinds(span):
        portions = portions.swapped(side, kind, share)
    behaviour = replace(value.right if over_fan_in else value.left, centred=True)
    sides = {"right": behaviour} if over_fan_in else {"left": behaviour}
    result = replace(
        value, portions=portions, monomial=False, mixes=True, crosses=True, positive=False,
        aligned_sums=over_fan_in and not value.fills_rows,
        **sides,  # type: ignore[arg-type]
    )  # fmt: skip
    numbers = f"with {'h' if over_fan_in else 'delta'} less its mean, as large"
    return result, Step(SUM, str(node), value.entry, numbers, (step, means), node=node)

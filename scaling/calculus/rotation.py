"""Rules of inference for eigenbases: rotate, act entry by entry, rotate back.

The claim.  A curvature matrix has n = Theta(1) eigenvalues above the rest, with eigenvectors in the
span of the data. A gradient-like matrix D C H^T with both sides in such eigenbases is a corner of
O(1) rows and columns, whose entries have the matrix's spectral size, and exactly zero elsewhere:

    eig(L).T @ X @ eig(R)  =  [C 0; 0 0],    entries of C ~ gain of X

So an entrywise function acts on the gain, whatever the width, and keeps the zeros if it is odd
(0/(0 + eps) = 0). Rotated back it is D C' H^T with gain f(gain). With one side rotated the corner
has O(1) rows of M entries, each gain/sqrt(M): it is a gradient-like matrix of a layer whose rotated
sides do not grow, and that is how it is read (`corner_context`), by the rules of entrywise.py.

Which basis holds what.  eig(A), eig(B) hold all of H, D. eig(L), eig(R) hold the directions of G,
which are fewer where classes are fewer than samples; so only functions of G that stay within them
may be rotated there. B of sampled cotangents need not hold the gradient.

Zeros inside the corner.  In the eigenbases of G the corner is diagonal. So a quotient is only
covered if the divisor vanishes nowhere but where the dividend does, or is damped.

Rounding.  Outside of the corner a library has rounding noise in the place of zeros. A function that
jumps at zero, as sign (SPlus), makes entries of order one of it, in the rows and columns of the
corner too, but for the corner itself: every sample of the batch meets fan_out such rows. Theory
reads the zeros and says so, or the noise if asked (rounding_noise.py); with an eps,
X / (abs(X) + eps), both are the same.

Signs of eigenvectors are arbitrary: an even function may divide but not be rotated back, and an odd
one may not be averaged over steps.

References: arXiv 2409.11321 (SOAP), arXiv 1806.03884 (EKFAC). Not covered: W, and means of rotated
matrices; entries off the corner rotated back; eigenvectors at the second step, where averages hold
the directions of both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sympy import Expr, S

from scaling.calculus import entrywise, instead, rank, rounding_noise, sums
from scaling.calculus.context import Context, Regime
from scaling.calculus.entrywise import Reading, check_tails
from scaling.calculus.values import (
    LINEAR,
    Aligned,
    Noisy,
    Parity,
    Rotated,
    Rotation,
    Rounding,
    Scalar,
    Spectral,
    Value,
    describe,
)
from scaling.models.batch import DataSpan
from scaling.rules.operators import FUNCTIONS
from scaling.rules.shapes import Dim
from scaling.rules.tree import (
    Add,
    Call,
    Divide,
    MatMul,
    Matrix,
    Multiply,
    Negate,
    Node,
    Power,
    Subtract,
    Transpose,
    is_average,
)
from scaling.sizes.derivation import ROTATION, Step
from scaling.sizes.scale import Order, Scale, Size

NOTHING = Scalar(Scale.zero(Size.SCALAR))


def corner_context(context: Context, sides: frozenset[Dim]) -> Context:
    """The layer as its rotated matrices see it: rotated sides do not grow and have no mean."""
    sizes = context.sizes
    fan_in, fan_out = Dim.FAN_IN in sides, Dim.FAN_OUT in sides
    layer = replace(
        sizes.layer,
        fan_in=S.Zero if fan_in else sizes.layer.fan_in,
        fan_out=S.Zero if fan_out else sizes.layer.fan_out,
    )
    mean_h = sizes.h if fan_in else sizes.mean_h
    mean_delta = sizes.delta if fan_out else sizes.mean_delta
    within = [
        DataSpan(span.rank, off=False) if turned else span
        for span, turned in zip(context.spans, (fan_out, fan_in), strict=True)
    ]
    corner = replace(sizes, layer=layer, mean_h=mean_h, mean_delta=mean_delta)
    return replace(context, sizes=corner, data=(within[0], within[1]))


# --- into an eigenbasis and back ----------------------------------------------------------------


def eigenbasis(context: Context, node: Call, value: Value, step: Step) -> Reading:
    """eig(X), at the first step: later a corner holds the directions of several steps."""
    if context.before is not None:
        raise context.not_covered(
            node,
            "eigenvectors at the second step, where averages hold directions of both and zeros of "
            "the first are no longer there",
            "the first step (--step 1), or a rule without eigenbases",
            instead.apart,
        )
    if not isinstance(value, Spectral) or value.blocks or not value.symmetric:
        raise context.not_covered(
            node,
            f"the eigenvectors of {describe(value)}",
            "A, B, L or R, their averages and sums",
            instead.apart,
        )
    if not value.contains_data:
        raise context.not_covered(
            node,
            "the eigenvectors of a curvature whose span need not hold the gradient, the rest of "
            "which would meet eigenvectors that nothing determines",
            "B of the loss's own cotangents",
            instead.apart,
        )
    rank.refuse_where_it_grows(
        context, node, "an eigenbasis, in which the gradient fills a corner as large as its rank",
        "a rule without eigenbases",
    )  # fmt: skip
    one = Scale.one(Size.SPECTRAL)
    rotation = Rotation(value.side, one, holds_data=holds_data(context, node, node.argument))
    return rotation, Step(ROTATION, str(node), one, "orthogonal", (step,), node=node)


def rotate(context: Context, node: MatMul, x: Value, y: Value, steps: tuple[Step, ...]) -> Reading:
    """eig(X) or its transpose beside a matrix: into the basis, or out of it."""
    rotation, other = (x, y) if isinstance(x, Rotation) else (y, x)
    assert isinstance(rotation, Rotation), "one of the two is a rotation"
    turned = node.right if isinstance(x, Rotation) else node.left
    if isinstance(other, Rotated) and rotation.side in other.sides:
        value = _back(context, node, rotation, other)
    else:
        value = _into(context, node, rotation, other, turned)
    size = _inner(value).gain if isinstance(value, Aligned | Noisy) else value.main
    numbers = f"spectral size {_inner(value).gain}"
    if isinstance(value, Noisy):
        numbers += f", beside it noise {value.noise}"
    line = Step(ROTATION, str(node), size, numbers, steps, node=node)
    acted = isinstance(other, Rotated) and not other.inner.low_rank
    return value, rank.assumed_of_corner(context, line) if acted else line


def _into(
    context: Context, node: MatMul, rotation: Rotation, other: Value, turned: Node
) -> Rotated:
    side = rotation.side
    inner = other.inner if isinstance(other, Rotated) else other
    if not isinstance(inner, Aligned):
        raise context.not_covered(
            node,
            f"{describe(other)} in an eigenbasis of the data",
            "a function of G",
            instead.apart,
        )
    exact = inner.left_exact if side is Dim.FAN_OUT else inner.right_exact
    spanned = rotation.holds_data or _keeps_directions(turned, side)
    if not (exact and inner.is_linear and inner.low_rank and spanned):
        raise context.not_covered(
            node,
            "a matrix in a basis that need not hold all of it: the rest would meet eigenvectors "
            "that nothing determines",
            "G, or products of it with L and R, in eig(L) and eig(R); D C H^T in eig(B) and eig(A)",
            instead.apart,
        )
    sides = {side} | (other.sides if isinstance(other, Rotated) else frozenset())
    gain = inner.gain * rotation.factor.as_size_of(Size.SCALAR)
    spread = corner_context(context, frozenset(sides)).spread
    name = frozenset({str(_bare(turned))})
    corner = replace(
        inner, gain=gain, entry=(gain.as_size_of(Size.SCALAR) / spread).as_size_of(Size.ENTRY),
        positive=False, monomial=True, mixes=False, aligned_sums=False, coherent=True,
    )  # fmt: skip
    zeros = (other.zeros, other.poles) if isinstance(other, Rotated) else (name, name)
    rounding = None if gain.is_zero else Rounding(
        S.One, gain.as_size_of(Size.SCALAR), name, frozenset(sides)
    )  # fmt: skip
    return Rotated(corner, NOTHING, frozenset(sides), *zeros, rounding)


def _back(
    context: Context, node: MatMul, rotation: Rotation, other: Rotated
) -> Aligned | Rotated | Noisy:
    inner, side = other.inner, rotation.side
    if not other.off.size.is_zero:
        raise context.not_covered(
            node,
            f"entries of size {other.off.size} outside the corner of the data, rotated back",
            "zeros there: add constants to divisors only, X / (sqrt(V) + eps)",
            instead.apart,
        )
    if Parity.ODD is not inner.left.parity or Parity.ODD is not inner.right.parity:
        raise context.not_covered(
            node,
            f"a matrix that is {inner.left.parity} in the rotated gradient, rotated back: it "
            "depends on the arbitrary signs of the eigenvectors",
            "an odd function: even ones may divide it",
            instead.odd,
        )
    check_tails(context, node, inner)
    sides = other.sides - {side}
    gain = inner.gain * rotation.factor.as_size_of(Size.SCALAR)
    spread = corner_context(context, sides).spread
    entry = (gain.as_size_of(Size.SCALAR) / spread).as_size_of(Size.ENTRY)
    left, right = (inner.left, LINEAR) if side is Dim.FAN_IN else (LINEAR, inner.right)
    value = replace(
        inner, gain=gain, entry=entry, positive=False, monomial=False, mixes=True, low_rank=True,
        aligned_sums=False, coherent=True, left=left, right=right,
    )  # fmt: skip
    rounding = other.rounding
    if rounding is not None:
        rounding = replace(rounding, size=rounding.size * rotation.factor.as_size_of(Size.SCALAR))
    if not sides:
        return rounding_noise.rotated_back(context, node, value, rounding)
    fresh = frozenset({str(node)})
    turned = replace(value, mixes=False, monomial=True)
    return Rotated(turned, NOTHING, sides, fresh, fresh, rounding)


def _inner(value: Aligned | Rotated | Noisy) -> Aligned:
    inner = value if isinstance(value, Aligned) else value.inner
    assert isinstance(inner, Aligned), "what is rotated follows the gradient"
    return inner


def _bare(node: Node) -> Node:
    """A matrix without what leaves its zeros where they are, at the first step."""
    match node:
        case Negate(x):
            return _bare(x)
        case Call(_, x) if is_average(node):
            return _bare(x)
        case Multiply(x, y) | Divide(x, y) if x.shape.is_scalar or y.shape.is_scalar:
            return _bare(y if x.shape.is_scalar else x)
    return node


def holds_data(context: Context, basis: Node, node: Node) -> bool:
    """Whether a sum of curvatures spans all of D or H, and not the gradient's directions alone."""
    match node:
        case Matrix(name):
            return name in ("A", "B")
        case Add(x, y):
            return holds_data(context, basis, x) or holds_data(context, basis, y)
        case Call(_, x) if is_average(node):
            return holds_data(context, basis, x)
        case Multiply(x, y) | Divide(x, y):
            return holds_data(context, basis, y if x.shape.is_scalar else x)
        case MatMul(x, y) if _keeps_directions(x, node.shape.dims[0]):
            return False
    raise context.not_covered(
        basis,
        f"eigenvectors of {node}, which need not hold the gradient",
        "of L or of R",
        instead.apart,
    )


def _keeps_directions(node: Node, side: Dim) -> bool:
    """Whether a matrix lies, on a side, within the directions of G."""
    match node:
        case Matrix("G"):
            return True
        case Call(function, x) if is_average(node) or FUNCTIONS[function].spectral:
            return _keeps_directions(x, side)
        case Negate(x) | Transpose(x):
            return _keeps_directions(x, side)
        case Add(x, y) | Subtract(x, y):
            return _keeps_directions(x, side) and _keeps_directions(y, side)
        case Multiply(x, y) | Divide(x, y) if x.shape.is_scalar or y.shape.is_scalar:
            return _keeps_directions(y if x.shape.is_scalar else x, side)
        case MatMul(x, y):
            acts = x.shape.is_square or x.shape.is_rotation
            factor, other = (x, y) if acts else (y, x)
            if factor.shape.is_rotation:
                return factor.shape.dims[0] is not side and _keeps_directions(other, side)
            if not factor.shape.is_square:
                return False
            stays = factor.shape.rows is not side or _maps_directions(factor, side)
            return stays and _keeps_directions(other, side)
    return False


def _maps_directions(node: Node, side: Dim) -> bool:
    """Whether a square matrix maps the directions of G into themselves."""
    match node:
        case Matrix(name):
            return name in ("L", "R", "I")
        case Call(_, x) if is_average(node):
            return _maps_directions(x, side)
        case Power(x) | Negate(x) | Transpose(x):
            return _maps_directions(x, side)
        case Multiply(x, y) | Divide(x, y):
            return _maps_directions(y if x.shape.is_scalar else x, side)
        case MatMul(x, y) if not x.shape.is_square:
            return _keeps_directions(x, side) and _keeps_directions(y, side)
        case Add(x, y) | Subtract(x, y) | MatMul(x, y):
            return _maps_directions(x, side) and _maps_directions(y, side)
    return False


# --- entry by entry -----------------------------------------------------------------------------


def product(context: Context, node: Multiply | Divide, x: Reading, y: Reading) -> Reading:
    """X * Y or X / Y, entry by entry; a number is spread over the matrix that it meets."""
    invert = isinstance(node, Divide)
    (one, step_x), (two, step_y) = x, y
    first, second = _spread(context, node, one, two)
    if invert and not second.poles <= first.zeros:
        raise context.not_covered(
            node,
            "a division by entries of a corner that may be exactly zero where the dividend is not: "
            "in the eigenbases of G the rotated gradient is diagonal",
            "a dividend and a divisor made of one rotated matrix, or a damping",
            instead.damped,
        )
    corner = corner_context(context, first.sides)
    steps = (step_x, step_y)
    inner, step = entrywise.product(corner, node, first.inner, second.inner, steps, invert)
    assert isinstance(inner, Aligned), "entries of matrices are those of a matrix"
    if invert:
        off = _quotient(context, node, first.off, second.off)
    else:
        positive = first.off.positive and second.off.positive
        off = Scalar(first.off.size * second.off.size, positive)
    if invert:
        rounding = rounding_noise.of_quotient(first.rounding, second.rounding, second.off)
    else:
        parts = (first.rounding, first.off), (second.rounding, second.off)
        rounding = rounding_noise.of_product(*parts, square=node.left == node.right)
    zeros = first.zeros | second.zeros
    value = Rotated(inner, off, first.sides, zeros, first.poles | second.poles, rounding)
    return value, rounding_noise.told(context, node, rounding, step)


def _quotient(context: Context, node: Node, x: Scalar, y: Scalar) -> Scalar:
    if x.size.is_zero:
        return x
    if y.size.is_zero or not y.positive:
        raise context.not_covered(
            node,
            "a division by zeros outside the corner of the data",
            "a damping or eps",
            instead.damped,
        )
    return Scalar(x.size / y.size, x.positive)


def add(context: Context, node: Node, left: Node, right: Node, x: Reading, y: Reading) -> Reading:
    """One sum of two terms, one of which may be a number."""
    (one, step_x), (two, step_y) = x, y
    first, second = _spread(context, node, one, two)
    corner = corner_context(context, first.sides)
    inner, step = sums.add(corner, node, left, right, (first.inner, step_x), (second.inner, step_y))
    assert isinstance(inner, Aligned), "a sum of matrices is a matrix"
    regime = step.decision  # none where one term is exactly zero
    order = (
        regime.order
        if isinstance(regime, Regime)
        else context.bounds.order(first.inner.main.width, second.inner.main.width)
    )
    off = Scalar(
        context.plus(first.off.size, second.off.size), first.off.positive and second.off.positive
    )
    zeros, poles = frozenset({str(node)}), frozenset({str(node)})  # a pattern of its own
    if first.zeros == second.zeros and first.poles == second.poles:
        zeros, poles = first.zeros, first.poles
    for constant, other, dominated in (
        (first, second, Order.GREATER),
        (second, first, Order.LESS),
    ):
        if not constant.zeros and not constant.poles:  # positive wherever the other one vanishes
            covers = constant.inner.positive and order in (Order.EQUAL, dominated)
            zeros, poles = frozenset(), frozenset() if covers else other.poles
    rounding = rounding_noise.of_sum(node, first, second)
    step = rounding_noise.told(context, node, rounding, step)
    if context.rounding_noise and rounding_noise.covers(first, second):
        step = step.because(rounding_noise.COVERED)
    return Rotated(inner, off, first.sides, zeros, poles, rounding), step


def _spread(context: Context, node: Node, x: Value, y: Value) -> tuple[Rotated, Rotated]:
    found = []
    for one, other in ((x, y), (y, x)):
        if isinstance(one, Scalar) and isinstance(other, Rotated):
            corner = corner_context(context, other.sides)
            inner = entrywise.constant(corner, one.size, other.inner.transposed, one.positive)
            one = Rotated(inner, one, other.sides, frozenset(), frozenset())
        if not isinstance(one, Rotated):
            raise context.not_covered(
                node,
                f"{describe(one)} beside {describe(other)}",
                "matrices in one basis",
                instead.apart,
            )
        found.append(one)
    return found[0], found[1]


def function(
    context: Context,
    node: Node,
    value: Rotated,
    act: Callable[[Context, Aligned], Reading],
    p: Expr,
) -> Reading:
    """A function of each entry, known by ``act`` on the corner, which behaves as x**p."""
    inner, step = act(corner_context(context, value.sides), value.inner)
    assert isinstance(inner, Aligned), "a function of entries is a matrix"
    off = value.off
    if off.size.is_zero and not (isinstance(node, Power) and p == 0):
        rounding = rounding_noise.of_power(value.rounding, p, inner.positive)
        step = rounding_noise.told(context, node, rounding, step)
        return replace(value, inner=inner, rounding=rounding), step
    if not off.positive:
        raise context.not_covered(
            node,
            "a function of entries outside the corner that may be negative",
            "positive ones",
            instead.positive,
        )
    zeros = value.zeros if p != 0 or isinstance(node, Call) else frozenset()
    return replace(value, inner=inner, off=Scalar(off.size**p), zeros=zeros, poles=zeros), step


def average(context: Context, node: Call, value: Rotated) -> None:
    """Refuse a moving average whose terms turn their signs from step to step."""
    sides = value.inner.left, value.inner.right
    if any(side.parity is not Parity.EVEN for side in sides):
        raise context.not_covered(
            node,
            "a moving average of a rotated matrix that is not even, while the signs of "
            "eigenvectors are arbitrary at every step",
            "the average before it is rotated: eig(L).T @ ema(G, beta) @ eig(R)",
            instead.apart,
        )


def need_nothing_outside(context: Context, node: Node, value: Rotated) -> None:
    """Refuse what would have to count the entries outside the corner, or to cut them off."""
    if not value.off.size.is_zero:
        raise context.not_covered(
            node,
            f"entries of size {value.off.size} outside the corner of the data",
            "zeros there: divide by them first",
            instead.apart,
        )
    rounding_noise.refuse_in(context, node, value.rounding, "counted or cut off")


def norm(context: Context, node: Call, value: Rotated) -> Scale:
    """The norm (Frobenius), specnorm or rms: that of the corner."""
    need_nothing_outside(context, node, value)
    corner = corner_context(context, value.sides)
    check_tails(corner, node, value.inner)
    total = value.inner.entry.as_size_of(Size.SCALAR) * corner.spread
    return total / context.spread if FUNCTIONS[node.function].mean else total

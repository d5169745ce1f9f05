"""The inner product of an update with the gradient, where it cannot cancel.

    <f(B) G g(A), G> = |f(B)^(1/2) G g(A)^(1/2)|^2        f, g positive

so its size is the product of both spectral sizes: n directions, no cancellation. The same holds of
<X, X>, and of <f(X), X> for functions that keep signs: <orth(X), X> is the sum of singular values,
<sign(X), X> that of |X|.

At the start W is independent of the weights above it, which give delta its sign: with each of them
reversed, <W, X> changes sign for X odd in delta, up to f. So it is a sum of random signs (CLT),

    <W, X> = |W| |X|        |X| the Frobenius norm, |W| an entry

and the same in the output layer, whose own W is independent of H. After a step it is not, for W
has moved along X, and that is refused.

A product of two functions on one side, such as A @ L on different matrices, is not
symmetric, and two arbitrary functions of G may be orthogonal: both are refused.
"""

from __future__ import annotations

from collections.abc import Callable

from scaling.calculus import instead, rank
from scaling.calculus.context import Context
from scaling.calculus.entrywise import SQUARES, Reading, check_tails, need_entries
from scaling.calculus.matrix_norms import norm
from scaling.calculus.values import Aligned, Parity, Scalar, Weights, describe
from scaling.rules.operators import FUNCTIONS
from scaling.rules.shapes import Side
from scaling.rules.symmetric import is_square_of_one
from scaling.rules.tree import (
    Add,
    Call,
    Divide,
    MatMul,
    Matrix,
    Multiply,
    Node,
    Power,
    Transpose,
    is_average,
)
from scaling.sizes.derivation import CLT, INNER, Step
from scaling.sizes.scale import Size

G = Matrix("G")
PositiveScalar = Callable[[Node], bool]


def inner(
    context: Context, node: Call, first: Reading, second: Reading, positive: PositiveScalar
) -> Reading:
    """The size of <X, Y> for X = Y, or Y = G and X = f(B) G g(A) or f(c G), which keeps signs."""
    (x, step_x), (y, step_y) = first, second
    if isinstance(x, Weights) and node.argument == node.option:
        size = norm(context, Call("norm", node.argument), x) ** 2
        return Scalar(size), Step(INNER, str(node), size, "norm^2", (step_x,), node=node)
    for weights, other in ((x, y), (y, x)):
        if isinstance(weights, Weights) and isinstance(other, Aligned):
            found = _with_weights(context, node, weights, other, (step_x, step_y))
            if found is not None:
                return found
    if context.step > 1 and any(isinstance(v, Weights) for v in (x, y)):
        raise context.not_covered(
            node,
            "the inner product of weights that have moved, along the last gradient and so perhaps "
            "along the next one",
            "the first step (--step 1), where weights and gradient are independent, or the rule "
            "without it",
            instead.positive,
        )
    if not isinstance(x, Aligned) or not isinstance(y, Aligned):
        raise context.not_covered(
            node,
            f"the inner product of {describe(x)} and {describe(y)}",
            "functions of G",
            instead.apart,
        )
    left, right = node.argument, node.option
    assert right is not None, "an inner product has two operands"
    need_entries(context, node, x, y, sizes=SQUARES if node.argument == node.option else ())
    for value in (x, y):
        check_tails(context, node, value)
    along = (left, right) if right == G else (right, left)
    own = any(_is_descent(x, y) for x, y in ((left, right), (right, left)))
    averaged = any(is_average(n) and n.shape.is_gradient_like for n in along[0].walk())
    # an average over steps may be orthogonal to the last of them
    late = averaged and context.step > 1
    sure = along[1] == G and not late and _leads_down(along[0], positive)
    if left != right and not sure and not own:
        raise context.not_covered(
            node,
            "the inner product of two matrices that may be orthogonal",
            "inner(X, X), inner(orth(X), X), or inner(X, G) with X = f(B) @ G @ g(A) for positive "
            "functions",
            instead.positive,
        )
    size = (x.entry * y.entry).as_size_of(Size.SCALAR) * context.spread**2
    numbers = f"{x.entry} x {y.entry} x fan_out fan_in"
    line = Step(INNER, str(node), size, numbers, (step_x, step_y), node=node)
    return Scalar(size), rank.assumed(context, line, [x, y])


def _is_descent(x: Node, y: Node) -> bool:
    """Whether X = f(Y) of a function whose <f(Y), Y> adds up numbers that are not negative."""
    return isinstance(x, Call) and FUNCTIONS[x.function].descends and x.argument == y


def _leads_down(node: Node, positive: PositiveScalar) -> bool:
    """Whether <X, G> does not cancel: X = f(B) G g(A), or f(c G) with c > 0 as of sign and orth."""
    if isinstance(node, Call) and FUNCTIONS[node.function].descends:
        return _sides(node.argument, positive) == frozenset()
    return _sides(node, positive) is not None


def _with_weights(
    context: Context, node: Call, weights: Weights, x: Aligned, steps: tuple[Step, Step]
) -> Reading | None:
    """The size of <W, X> at the start, for a multiple of W alone; None where W has moved."""
    moved = context.step > 1 or context.alignment is not None or context.ascended
    if moved or weights.aligned is not None or x.left.parity is not Parity.ODD:
        return None
    need_entries(context, node, x, sizes=SQUARES)
    check_tails(context, node, x)
    size = (weights.entry * x.entry).as_size_of(Size.SCALAR) * context.spread
    numbers = f"{weights.entry} x {x.entry} x sqrt(fan_out fan_in)"
    line = Step(CLT, str(node), size, numbers, steps, node=node)
    return Scalar(size, positive=False), rank.assumed(context, line, [x])


def _sides(node: Node, positive: PositiveScalar) -> frozenset[Side] | None:
    """The sides on which a positive function acts on G, each at most once; None if not so."""
    if node == Matrix("G"):
        return frozenset()
    if isinstance(node, Call) and is_average(node):
        return _sides(node.argument, positive)
    if not isinstance(node, Multiply | Divide | MatMul):
        return None
    x, y = node.left, node.right
    if isinstance(node, MatMul):
        f, inside = (x, y) if x.shape.is_square else (y, x)
        used = _sides(inside, positive) if _is_positive(f, positive) else None
        side = f.shape.rows
        return None if used is None or side in used else used | {side}
    swapped = isinstance(node, Multiply) and x.shape.is_scalar
    factor, inside = (x, y) if swapped else (y, x)
    return _sides(inside, positive) if factor.shape.is_scalar and positive(factor) else None


def _is_positive(node: Node, positive: PositiveScalar) -> bool:
    """Whether a square matrix is symmetric without negative eigenvalues, whatever the data."""
    match node:
        case Matrix(name):
            return name in "ABLRI"
        case Add(x, y):
            return _is_positive(x, positive) and _is_positive(y, positive)
        case Multiply(x, y) | Divide(x, y):
            factor, matrix = (x, y) if x.shape.is_scalar else (y, x)
            return positive(factor) and _is_positive(matrix, positive)
        case Call(function, x) if is_average(node) or FUNCTIONS[function].cuts:
            return _is_positive(x, positive)
        case Power(x) | Transpose(x):
            return _is_positive(x, positive)
        case MatMul():
            return is_square_of_one(node) and not node.left.shape.is_square
    return False

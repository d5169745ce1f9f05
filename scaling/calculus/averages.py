"""Moving averages at the first and at the second step.

    ema(X, beta)          (1 - beta) X_1          then (1 - beta) (beta X_1 + X_2)
    debiased(X, beta)     X_1                     then (beta X_1 + X_2) / (1 + beta)
    running_sum(X)        X_1                     then X_1 + X_2
    previous(X)           X_1                     then X_1
    running_max(X, beta)  X_1                     then max(beta X_1, X_2)            of X >= 0
    yogi(X, beta)         (1 - beta) X_1 =: v     then v + (1 - beta) sign(X_2 - v) X_2     likewise

The last two are as large as beta X_1 + X_2 up to a factor: v - (1 - beta) X_2 >= beta v where v >=
X_2. At the first step all are X up to a factor, and some *are* X: `at_first` writes a tree without
them, so that debiased(X, beta) - X is found to cancel. At the second step the weights are of order
one, so an average is as large as the larger of X_1 and X_2 (if they do not cancel), and what
cancelled before appears: debiased(X, beta) - X = beta (X_1 - X_2) / (1 + beta). That is as large as
X only if the first step changed X by its own size, which is what `Before.moved` says.

An average of sign-indefinite entries vanishes where none of its terms does, and its directions that
are new at the second step may be much shorter than those of both steps: quotients and inverses that
would notice are refused (entrywise.py, spectra.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from scaling.calculus import directions, instead
from scaling.calculus.context import Context
from scaling.calculus.directions import Portions
from scaling.calculus.entrywise import Reading
from scaling.calculus.sums import merged, size_of
from scaling.calculus.values import (
    Aligned,
    Rotated,
    Scalar,
    Spectral,
    Value,
    Vector,
    Weights,
    describe,
    parts,
)
from scaling.rules.like_terms import totals
from scaling.rules.operators import FUNCTIONS
from scaling.rules.rewrites import at_first, without_row_means
from scaling.rules.tree import Call, Divide, Matrix, Multiply, Node
from scaling.sizes.derivation import AVERAGE, GIVEN, PRODUCT, Step


def refuse_unless_moved(context: Context, node: Node) -> None:
    """Refuse a difference between two steps of what the first step may not have moved."""
    if context.before is None:
        return
    simplify = simplification(context)
    left: dict[Node, Fraction] = {}
    averaged: dict[Node, set[str]] = {}
    differing = {term: x for term, x in totals(node, simplify).items() if x}
    for term, factor in differing.items():
        for part, times in totals(term, lambda n: at_first(simplify(n))).items():
            left[part] = left.get(part, Fraction(0)) + factor * times
            averaged.setdefault(part, set()).update(_averaged(term))
    for part, factor in left.items():
        if factor == 0 and not averaged[part] & context.before.moved:
            raise context.not_covered(
                node,
                f"the difference of {part} between two steps, which the first step moves by less "
                "than its own size",
                "a first step that moves it by its own size",
                instead.positive,
            )


def _averaged(node: Node) -> set[str]:
    """The names of the matrices in debiased averages."""
    inside = [n for n in node.walk() if isinstance(n, Call) and FUNCTIONS[n.function].debiased]
    return {part.name for n in inside for part in n.walk() if isinstance(part, Matrix)}


def average(context: Context, node: Call, first: Reading, second: Reading) -> Reading:
    """An average of X at the first and at the second step."""
    (x, step_x), (y, step_y) = first, second
    steps = (step_x, step_y)
    weights = FUNCTIONS[node.function].weights
    if weights is not None and weights.now == "0":
        value = _of_before(context, x)
        return value, Step(AVERAGE, str(node), size_of(context, value), "of the first step",
                           (step_x,), node=node)  # fmt: skip
    numbers = f"the larger of {x.main} at the first and {y.main} at the second step"
    if _is_zero(x) or _is_zero(y):
        value = y if _is_zero(x) else x
        return value, Step(AVERAGE, str(node), size_of(context, value), numbers, steps, node=node)
    value = _both(context, node, x, y)
    assumption = f"what {node} averages does not cancel between the steps"
    if isinstance(value, Scalar | Vector | Aligned) and value.positive:
        assumption = ""
    if isinstance(value, Spectral):
        assumption = ""
    size = size_of(context, value)
    return value, Step(AVERAGE, str(node), size, numbers, steps, assumption, node)


def _of_before(context: Context, x: Value) -> Value:
    """A value of the first step as the second one sees it: it vanishes in places of its own."""
    if isinstance(x, Aligned | Vector) and not x.main.is_zero:
        x = replace(x, steps=2, monomial=False, mixes=True)
    if not isinstance(x, Aligned):
        return x
    return replace(x, portions=everywhere(context, x), aligned_sums=False)


def running(
    context: Context, node: Call, reading: Reading, read: Callable[[Context, Node], Reading]
) -> Reading:
    """A recursion as large as the larger of X_1 and X_2, entry by entry, neither negative.

    Raises:
        NotCovered: for X of both signs.
    """
    value, _ = reading
    known = isinstance(value, Scalar | Aligned | Vector) or (
        isinstance(value, Rotated) and value.inner.positive and value.off.positive
    )
    positive = not isinstance(value, Scalar | Aligned | Vector) or value.positive
    if not (known and positive):
        raise context.not_covered(
            node,
            f"{node.function} of values that may be negative, or of W",
            f"{node.function} of abs(X) or of X*X",
            instead.positive,
        )
    if context.before is None:
        return first_average(node, reading)
    return average(context, node, read(context.before.context, node.argument), reading)


def everywhere(context: Context, value: Aligned) -> Portions:
    """The portions of what has directions of other data, those of the step before."""
    return directions.bent(value.portions, (0, 1), context.spans, context.bounds)


def first_average(node: Call, reading: Reading) -> Reading:
    """An average at the first step."""
    value, step = reading
    note = "(1 - beta) times it at the first step"
    note = "the thing itself at the first step" if FUNCTIONS[node.function].debiased else note
    return value, Step(PRODUCT, str(node), step.result, note, (step,), node=node)


def simplification(context: Context) -> Callable[[Node], Node]:
    """How terms of a sum are written before they are compared, in this layer and at this step."""
    first, bias = context.step == 1, context.sizes.layer.is_bias

    def simplify(node: Node) -> Node:
        node = at_first(node) if first else node
        return without_row_means(node) if bias else node

    return simplify


def own_sign(
    context: Context, node: Multiply, read: Callable[[Context, Node], Reading]
) -> Node | None:
    """The Z of agree(X, Y)*Z where X, Y and Z have one sign, entry by entry: it is Z itself."""
    for mask, other in ((node.left, node.right), (node.right, node.left)):
        match mask:
            case Call("agree", x, Node() as y):
                if len({_signed_as(context, z, read) for z in (x, y, other)}) == 1:
                    return other
    return None


def _signed_as(context: Context, node: Node, read: Callable[[Context, Node], Reading]) -> Node:
    """A node without factors that leave its signs at this step: positive ones, and averages."""

    def is_positive(factor: Node) -> bool:
        value, _ = read(context, factor)
        return isinstance(value, Scalar | Aligned | Vector) and value.positive

    match node:
        case Call(name, x) if FUNCTIONS[name].weights is not None and context.step == 1:
            return _signed_as(context, x, read)
        case Multiply(x, y) if is_positive(x):
            return _signed_as(context, y, read)
        case Multiply(x, y) | Divide(x, y) if is_positive(y):
            return _signed_as(context, x, read)
    return node


def weights_now(context: Context, node: Node) -> Reading:
    """W, and what the first step added to it."""
    random = Weights(context.sizes.w, source=node)
    aligned, shrunk = parts(None if context.before is None else context.before.change)
    if shrunk is not None:
        random = replace(random, entry=context.plus(random.entry, shrunk.entry))
    numbers = f"std of an entry {random.entry}" if shrunk is None else "W + dW"
    if aligned is None:
        return random, Step(GIVEN, "W", random.entry, "std of an entry", node=node)
    numbers = numbers if shrunk is not None else f"{numbers} + dW {aligned.entry}"
    now = replace(random, aligned=aligned)
    return now, Step(GIVEN, "W", size_of(context, now), numbers, node=node)


def _is_zero(value: Value) -> bool:
    return value.main.is_zero


def _both(context: Context, node: Node, x: Value, y: Value) -> Value:
    if isinstance(x, Weights) and isinstance(y, Weights):
        return _weights(context, node, x, y)
    value = merged(context, node, x, y, context.bounds.order(x.main.width, y.main.width))
    if isinstance(value, Spectral):
        return replace(value, steps=2)
    if isinstance(value, Aligned | Vector):  # of one sign: zero where both are, and only there
        joint = value.positive and all(
            v.monomial for v in (x, y) if isinstance(v, Aligned | Vector)
        )
        value = replace(value, steps=2, monomial=joint)
    if isinstance(value, Aligned):
        return replace(value, portions=everywhere(context, value))
    return value


def _weights(context: Context, node: Node, x: Weights, y: Weights) -> Weights:
    """W_1 and W_2 = W_1 + dW_1, with weights of one sign."""
    random = replace(
        x.alone,
        entry=context.plus(x.entry, y.entry),
        multiple=context.plus(x.multiple, y.multiple),
    )
    if x.aligned is None or y.aligned is None:
        return replace(random, aligned=x.aligned or y.aligned)
    order = context.bounds.order(x.aligned.main.width, y.aligned.main.width)
    both = merged(context, node, x.aligned, y.aligned, order)
    if not isinstance(both, Aligned):
        raise context.not_covered(
            node, f"an average of {describe(both)}", "one kind of matrix", instead.apart
        )
    aligned = replace(both, portions=everywhere(context, both), steps=2)
    return replace(random, aligned=aligned)

"""Rows of algebra: products and sums, functions of entries, reductions, comparisons."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from sympy import Rational

from empirical.trace.aligned import Varying
from empirical.trace.gains_of_weights import with_gain, without_gain
from empirical.trace.lowering import Lowering, Traced, row

LETTERS = string.ascii_lowercase + string.ascii_uppercase


# --- products -----------------------------------------------------------------------------------


@row("aten.linear")
def linear(low: Lowering, x: Traced, w: Traced, bias: Traced | None = None) -> Traced:
    """X W^T + bias."""
    x = low.fed(x)
    lead = LETTERS[: x.rank - 1]
    shapes = x.replaced(x.rank - 1, w.length(0)) if w.rank == 2 else x.without(x.rank - 1)
    out = "Z" if w.rank == 2 else ""
    w, gain = without_gain(low, w, (w.rank - 1,))
    found = low.emit("contract", (x, w), shapes, equation=f"{lead}Y,{out}Y->{lead}{out}")
    found = with_gain(low, found, gain, found.rank - 1)
    return found if bias is None else low.pointwise("add", found, bias)


@row("aten.matmul", "aten.mm", "aten.bmm", "aten.mv", "aten.dot", "aten.vdot")
def matmul(low: Lowering, x: Traced, y: Traced) -> Traced:
    """Matrix product over the last two axes; leading axes broadcast."""
    lead = max(x.rank, y.rank) - 2
    x, left = _leading(low, x, lead)
    y, right = _leading(low, y, lead)
    rows = "Y" if x.rank - len(left) == 2 else ""
    cols = "Z" if y.rank - len(right) == 2 else ""
    both = "".join(sorted({*left, *right}))
    equation = f"{left}{rows}X,{right}X{cols}->{both}{rows}{cols}"
    gain = None
    if y.rank == 2 and cols and not right:
        y, gain = without_gain(low, y, (0,))
    found = contract(low, equation, (x, y))
    return with_gain(low, found, gain, found.rank - 1)


def _leading(low: Lowering, x: Traced, lead: int) -> tuple[Traced, str]:
    """The letters of the leading axes, counted from the right; those of length one are dropped."""
    count = max(x.rank - 2, 0)
    names = LETTERS[lead - count : lead] if lead > 0 else ""
    ones = tuple(i for i in range(count) if set(x.length(i)) == {1})
    if ones:
        x = low.reshape(x, x.without(*ones))
    return x, "".join(c for i, c in enumerate(names) if i not in ones)


def contract(low: Lowering, equation: str, factors: Sequence[Traced]) -> Traced:
    """A sum of products, with the shapes that the equation gives."""
    left, _, out = equation.partition("->")
    lengths: dict[str, tuple[int, ...]] = {}
    for letters, factor in zip(left.split(","), factors, strict=True):
        lengths.update({c: factor.length(i) for i, c in enumerate(letters)})
    shapes = tuple(tuple(lengths[c][k] for c in out) for k in range(len(low.sizes)))
    return low.emit("contract", factors, shapes, equation=equation)


@row("aten.einsum")
def einsum(low: Lowering, equation: str, factors: tuple[Traced, ...], path: Any = None) -> Traced:
    """torch.einsum, ellipses written out."""
    text = equation.replace(" ", "")
    left, arrow, out = text.partition("->")
    free = [c for c in reversed(LETTERS) if c not in text]
    parts = left.split(",")
    if "." in text:
        counts = [f.rank - len(p.replace("...", "")) for p, f in zip(parts, factors, strict=True)]
        dots = "".join(free[: max(counts)])
        parts = [
            p.replace("...", dots[len(dots) - n :] if n else "")
            for p, n in zip(parts, counts, strict=True)
        ]
        out = out.replace("...", dots)
    if not arrow:
        joined = "".join(parts)
        out = "".join(sorted(c for c in set(joined) if joined.count(c) == 1))
    return contract(low, f"{','.join(parts)}->{out}", factors)


@row("aten.outer", "aten.ger")
def outer(low: Lowering, x: Traced, y: Traced) -> Traced:
    """X Y^T of two vectors."""
    return contract(low, "a,b->ab", (x, y))


@row("aten.bilinear")
def bilinear(low: Lowering, x: Traced, y: Traced, w: Traced, bias: Traced | None = None) -> Traced:
    """X^T W y + bias, a matrix for each entry of the result."""
    lead = LETTERS[: x.rank - 1]
    equation = f"{lead}X,ZXY,{lead}Y->{lead}Z"
    found = contract(low, equation, (low.fed(x), w, low.fed(y)))
    return found if bias is None else low.pointwise("add", found, bias)


@row("aten.cdist")
def distances(low: Lowering, x: Traced, y: Traced, p: Any = 2, *_: Any) -> Traced:
    """Euclidean distances between rows."""
    rows, columns = (
        low.reshape(z, tuple((*s[: -2 + k], 1, *s[-2 + k :]) for s in z.shapes))
        for k, z in ((1, x), (0, y))
    )
    apart = low.pointwise("subtract", rows, columns)
    return _norm(low, apart, p, -1, False)


@row("aten.addmm", "aten.baddbmm", "aten.addbmm")
def addmm(
    low: Lowering, bias: Traced, x: Traced, y: Traced, beta: Any = 1, alpha: Any = 1
) -> Traced:
    """Beta bias + alpha x y."""
    product = scaled(low, matmul(low, x, y), alpha)
    return low.pointwise("add", product, scaled(low, bias, beta))


def scaled(low: Lowering, x: Traced, factor: Any) -> Traced:
    """X times a number, unless that is one."""
    is_one = not isinstance(factor, Varying | Traced) and factor == 1
    return x if is_one else low.pointwise("multiply", x, factor)


@row("aten.convolution", "aten.conv1d", "aten.conv2d", "aten.conv3d")
def convolution(
    low: Lowering, x: Traced, w: Traced, bias: Traced | None = None, *options: Any, **more: Any
) -> Traced:
    """A convolution, grouped or not."""
    assert low.current is not None, "an operation is being lowered"
    full = low.current.base == "aten.convolution"
    transposed = bool(options[3]) if full else False
    at = 5 if full else 3
    groups = options[at] if len(options) > at else more.get("groups", 1)
    return _convolved(low, x, w, bias, groups, transposed)


@row("aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d")
def transposed_convolution(
    low: Lowering,
    x: Traced,
    w: Traced,
    bias: Traced | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: Any = 1,
    dilation: Any = 1,
) -> Traced:
    """A transposed convolution."""
    return _convolved(low, x, w, bias, groups, transposed=True)


def _convolved(
    low: Lowering, x: Traced, w: Traced, bias: Traced | None, groups: Any, transposed: bool
) -> Traced:
    numbers = groups.values if isinstance(groups, Varying) else (groups,) * len(low.sizes)
    x, shapes = low.fed(x), low.result()
    gain = None
    if not transposed:
        w, gain = without_gain(low, w, tuple(range(1, w.rank)))
    found = low.emit(
        "convolve", (x, w), shapes, groups=low.exponent(numbers), transposed=transposed
    )
    channels = 1 if found.rank == w.rank else 0
    found = with_gain(low, found, gain, channels)
    if bias is None:
        return found
    return low.pointwise("add", found, low.along(bias, found, channels))


# --- entry by entry -----------------------------------------------------------------------------


@row("aten.mul")
def multiply(low: Lowering, x: Any, y: Any) -> Traced:
    """X * y."""
    return low.pointwise("multiply", x, y)


@row("aten.div", "aten.true_divide")
def divide(low: Lowering, x: Any, y: Any, rounding_mode: str | None = None) -> Traced:
    """X / y."""
    if rounding_mode is not None:
        return discrete(low, x, y)
    return low.pointwise("divide", x, y)


@row("aten.add")
def add(low: Lowering, x: Any, y: Any, alpha: Any = 1) -> Traced:
    """X + alpha y."""
    return low.pointwise("add", x, scaled(low, low.tensor(y), alpha))


@row("aten.sub")
def subtract(low: Lowering, x: Any, y: Any, alpha: Any = 1) -> Traced:
    """X - alpha y."""
    return low.pointwise("subtract", x, scaled(low, low.tensor(y), alpha))


@row("aten.rsub")
def reversed_subtract(low: Lowering, x: Any, y: Any, alpha: Any = 1) -> Traced:
    """Y - alpha x."""
    return low.pointwise("subtract", y, scaled(low, x, alpha))


@row("aten.lerp")
def lerp(low: Lowering, x: Traced, y: Traced, weight: Any) -> Traced:
    """X + weight (y - x)."""
    step = low.pointwise("multiply", low.pointwise("subtract", y, x), weight)
    return low.pointwise("add", x, step)


@row("aten.addcmul")
def addcmul(low: Lowering, x: Traced, y: Traced, z: Traced, value: Any = 1) -> Traced:
    """X + value y z."""
    return low.pointwise("add", x, scaled(low, low.pointwise("multiply", y, z), value))


@row("aten.neg")
def negative(low: Lowering, x: Traced) -> Traced:
    """-x."""
    return low.pointwise("multiply", x, -1)


FUNCTIONS = (
    "relu", "relu6", "gelu", "silu", "tanh", "sigmoid", "erf", "exp", "expm1", "log", "log1p",
    "abs", "sign", "sin", "cos", "softplus", "mish", "elu", "selu", "celu", "leaky_relu",
    "hardswish", "hardsigmoid", "softsign", "atan",
)  # fmt: skip


def _function(name: str) -> Any:
    def apply(low: Lowering, x: Traced, *options: Any, **more: Any) -> Traced:
        if x.whole:
            return low.emit("discrete", (x,), x.shapes, whole=True)
        return low.emit("apply", (x,), x.shapes, function=name)

    return apply


for _name in FUNCTIONS:
    row(f"aten.{_name}")(_function(_name))
row("aten.logsigmoid", "aten.log_sigmoid_forward")(_function("logsigmoid"))
row("aten.arctan")(_function("atan"))


@row("aten.prelu")
def prelu(low: Lowering, x: Traced, slope: Traced) -> Traced:
    """relu(x) - slope relu(-x); one slope, or one for each channel."""
    laid = (
        low.along(slope, x, 1) if x.rank > 1 and slope.length(0) != (1,) * len(low.sizes) else slope
    )
    up = low.emit("apply", (x,), x.shapes, function="relu")
    down = low.emit("apply", (negative(low, x),), x.shapes, function="relu")
    return low.pointwise("subtract", up, low.pointwise("multiply", down, laid))


@row("aten.sqrt")
def sqrt(low: Lowering, x: Traced) -> Traced:
    """x^(1/2)."""
    return raised(low, x, 0.5)


@row("aten.rsqrt")
def rsqrt(low: Lowering, x: Traced) -> Traced:
    """x^(-1/2)."""
    return raised(low, x, -0.5)


@row("aten.reciprocal")
def reciprocal(low: Lowering, x: Traced) -> Traced:
    """x^(-1)."""
    return raised(low, x, -1)


@row("aten.square")
def square(low: Lowering, x: Traced) -> Traced:
    """x^2."""
    return raised(low, x, 2)


@row("aten.pow")
def power(low: Lowering, x: Any, p: Any) -> Traced:
    """X to a fixed power, or a fixed number to the power of a tensor."""
    if isinstance(x, Traced) and isinstance(p, int | float):
        return raised(low, x, p)
    if isinstance(p, Traced) and not isinstance(x, Traced | Varying) and x > 0:
        scale = low.constant(math.log(x))  # x ** p = exp(p log x), as in rotary tables
        inner = low.pointwise("multiply", p, scale)
        return low.emit("apply", (inner,), inner.shapes, function="exp")
    raise low.refused(
        "a power that is a tensor or grows with the axis",
        "a fixed number as the power",
        "write it with exp and log",
    )


def raised(low: Lowering, x: Traced, p: float) -> Traced:
    """X to a fixed power."""
    if x.whole:
        return low.emit("discrete", (x,), x.shapes, whole=True)
    exact = Fraction(p).limit_denominator(1000)
    return low.emit("power", (x,), x.shapes, exponent=Rational(exact.numerator, exact.denominator))


@row("aten.clamp", "aten.clamp_min", "aten.clamp_max", "aten.clip")
def clamp(low: Lowering, x: Traced, least: Any = None, most: Any = None) -> Traced:
    """Bounds: relu at 0, a guard against 0 as it is, at one number what relu makes of it."""
    assert low.current is not None, "an operation is being lowered"
    if low.current.base == "aten.clamp_max":
        least, most = None, least
    if x.whole:
        return low.emit("discrete", (x,), x.shapes, whole=True)
    if isinstance(least, Traced) or isinstance(most, Traced):
        raise low.refused(
            "a clamp between bounds that are tensors",
            "numbers as bounds",
            "write it with relu: c - relu(c - x) is x where it is below c, and c elsewhere",
        )
    if least is not None and most is not None:
        return hardtanh(low, x, least, most)
    if isinstance(least, int | float) and 0 < least <= GUARD:
        low.notes.append(f"clamp at {least:g} ({low.current.name}) is a guard that does not act")
        return low.emit("identity", (x,), x.shapes)
    if most is None:
        above = x if least == 0 else low.pointwise("subtract", x, least)
        live = low.emit("apply", (above,), above.shapes, function="relu")
        return live if least == 0 else low.pointwise("add", least, live)
    below = low.pointwise("subtract", most, x)
    live = low.emit("apply", (below,), below.shapes, function="relu")
    return low.pointwise("subtract", most, live)


@row("aten.hardtanh")
def hardtanh(low: Lowering, x: Traced, least: Any = -1, most: Any = 1) -> Traced:
    """Between two numbers: odd where they are opposite, else with a mean."""
    if x.whole:
        return low.emit("discrete", (x,), x.shapes, whole=True)
    if not (isinstance(least, int | float) and isinstance(most, int | float)):
        raise low.refused(
            "a clamp between bounds that grow with the axis",
            "fixed numbers as bounds",
            "divide by the size of the bounds before, and multiply by it after",
        )
    opposite, away = least == -most, least > 0 or most < 0
    name = "hardtanh" if opposite else "clamp away from zero" if away else "clamp"
    return low.emit("apply", (x,), x.shapes, function=name)


GUARD = 1e-3
"""Bounds below it are guards against division by zero."""


@row("aten.where")
def where(low: Lowering, condition: Traced, x: Any, y: Any) -> Traced:
    """X where the condition holds, y elsewhere."""
    return low.pointwise("select", condition, x, y)


@row("aten.masked_fill")
def masked_fill(low: Lowering, x: Traced, mask: Traced, value: Any) -> Traced:
    """A number where the mask holds, x elsewhere."""
    blank = value if isinstance(value, Traced) else low.emit(
        "constant", (), ((),) * len(low.sizes), exponent=0, value=f"{value}"
    )  # fmt: skip
    return low.pointwise("select", mask, blank, x)


# --- reductions --------------------------------------------------------------------------------


def _over(x: Traced, axes: Any) -> tuple[int, ...]:
    if axes is None or axes == ():
        return tuple(range(x.rank))
    several = axes if isinstance(axes, tuple) else (axes,)
    return tuple(sorted(x.axis(i) for i in several))


def reduced(low: Lowering, kind: str, x: Traced, axes: Any = None, keep: bool = False) -> Traced:
    """A reduction over some axes, or all."""
    over = _over(x, axes)
    if x.whole:
        return low.emit("discrete", (x,), x.without(*over, keep=keep), whole=True)
    return low.emit("reduce", (x,), x.without(*over, keep=keep), kind=kind, over=over, keep=keep)


def _reduction(kind: str) -> Any:
    def reduce(low: Lowering, x: Traced, axes: Any = None, keep: Any = False, **_: Any) -> Traced:
        return reduced(low, kind, x, axes, keep is True)

    return reduce


for _kind, _names in {
    "sum": ("aten.sum", "aten.nansum"),
    "mean": ("aten.mean",),
    "max": ("aten.amax",),
    "min": ("aten.amin",),
    "logsumexp": ("aten.logsumexp",),
    "product": ("aten.prod",),
}.items():
    row(*_names)(_reduction(_kind))


@row("aten.var", "aten.std")
def spread(
    low: Lowering,
    x: Traced,
    axes: Any = None,
    unbiased: Any = True,
    keepdim: bool = False,
    **_: Any,
) -> Traced:
    """Variance or standard deviation."""
    assert low.current is not None, "an operation is being lowered"
    kind = "variance" if low.current.base == "aten.var" else "std"
    return reduced(low, kind, x, None if isinstance(axes, bool) else axes, keepdim)


@row("aten.linalg_vector_norm")
def vector_norm(
    low: Lowering, x: Traced, ord: Any = 2, axes: Any = None, keep: bool = False, **_: Any
) -> Traced:
    """The Euclidean norm."""
    return _norm(low, x, ord, axes, keep)


@row("aten.norm")
def norm(low: Lowering, x: Traced, p: Any = 2, axes: Any = None, keep: bool = False) -> Traced:
    """The Euclidean norm."""
    return _norm(low, x, p, axes, keep)


def _norm(low: Lowering, x: Traced, p: Any, axes: Any, keep: bool) -> Traced:
    if p != 2:
        raise low.refused(f"a norm of order {p}", "order 2", "write it with abs, ** and sum")
    return reduced(low, "norm", x, axes, keep)


@row("aten.max", "aten.min")
def extreme(low: Lowering, x: Traced, other: Any = None, keep: bool = False) -> Any:
    """The largest entry, overall or along an axis (with its index)."""
    assert low.current is not None, "an operation is being lowered"
    kind = low.current.base.removeprefix("aten.")
    if isinstance(other, Traced):
        if low.current.whole:
            return low.emit("discrete", (x, other), low.broadcast(x, other), whole=True)
        return low.emit(f"aten.{kind}imum", (x, other), low.broadcast(x, other))
    if other is None:
        return reduced(low, kind, x)
    over = x.axis(other)
    shapes = x.without(over, keep=keep)
    return reduced(low, kind, x, other, keep), low.emit("discrete", (x,), shapes, whole=True)


@row("aten.cumsum", "aten.cumprod")
def accumulate(low: Lowering, x: Traced, axis: int, **_: Any) -> Traced:
    """Running sums or products."""
    assert low.current is not None, "an operation is being lowered"
    if x.whole:
        return low.emit("discrete", (x,), x.shapes, whole=True)
    kind = low.current.base.removeprefix("aten.")
    return low.emit("accumulate", (x,), x.shapes, kind=kind, axis=x.axis(axis))


@row("aten.softmax", "aten._softmax", "aten.log_softmax", "aten._log_softmax", "aten._safe_softmax")
def softmax(low: Lowering, x: Traced, axis: int, *_: Any, **__: Any) -> Traced:
    """Softmax or its logarithm."""
    assert low.current is not None, "an operation is being lowered"
    return low.emit("softmax", (x,), x.shapes, axis=x.axis(axis), log="log" in low.current.base)


# --- whole numbers and fresh tensors --------------------------------------------------------------


def discrete(low: Lowering, *values: Any, **_: Any) -> Traced:
    """Whole numbers and truth values, which nothing is differentiated through."""
    tensors = [x for x in values if isinstance(x, Traced)]
    return low.emit("discrete", tensors, low.result(), whole=True)


row(
    "aten.eq", "aten.ne", "aten.lt", "aten.le", "aten.gt", "aten.ge", "aten.logical_and",
    "aten.logical_or", "aten.logical_not", "aten.logical_xor", "aten.bitwise_not",
    "aten.bitwise_and", "aten.bitwise_or", "aten.any", "aten.all", "aten.argmax", "aten.argmin",
    "aten.argsort", "aten.floor_divide", "aten.remainder", "aten.isnan",
    "aten.isinf", "aten.tril_indices", "aten.triu_indices", "aten.bucketize", "aten.floor",
    "aten.round", "aten.ceil", "aten.nonzero",
)(discrete)  # fmt: skip


@row("aten.arange")
def arange(low: Lowering, first: Any, last: Any = None, *_: Any, **__: Any) -> Traced:
    """Whole numbers in order, which are as large as the last of them."""
    end = first if last is None else last
    ends = end.values if isinstance(end, Varying) else (end,) * len(low.sizes)
    shapes = low.result()
    return low.emit("constant", (), shapes, whole=True, exponent=low.exponent(ends), value="arange")


@row("aten.linspace")
def linspace(low: Lowering, first: Any, last: Any, *_: Any, **__: Any) -> Traced:
    """Numbers evenly spaced, which are as large as the larger end."""
    ends = [x.values if isinstance(x, Varying) else (x,) * len(low.sizes) for x in (first, last)]
    sizes = tuple(max(abs(a), abs(b)) for a, b in zip(*ends, strict=True))
    return low.emit("constant", (), low.result(), exponent=low.exponent(sizes), value="linspace")


@row("aten.zeros", "aten.zeros_like", "aten.new_zeros", "aten.zero")
@row("aten.empty", "aten.empty_like", "aten.new_empty")
def zeros(low: Lowering, *_: Any, **__: Any) -> Traced:
    """Zeros; what is made empty is nothing until it is written to."""
    return _filled(low, "0")


@row("aten.ones", "aten.ones_like", "aten.new_ones")
def ones(low: Lowering, *_: Any, **__: Any) -> Traced:
    """Ones."""
    return _filled(low, "1")


def _filled(low: Lowering, value: str) -> Traced:
    assert low.current is not None, "an operation is being lowered"
    if low.current.whole:
        return discrete(low)
    return low.emit("constant", (), low.result(), exponent=0, value=value)


@row("aten.full", "aten.full_like", "aten.new_full")
def full(low: Lowering, _: Any, value: Any, **__: Any) -> Traced:
    """One number everywhere."""
    assert low.current is not None, "an operation is being lowered"
    if low.current.whole:
        return discrete(low)
    if value in (float("inf"), float("-inf")):
        return low.emit("constant", (), low.result(), exponent=0, value=f"{value}")
    return low.constant(value, low.result())


@row("aten.scalar_tensor", "aten.lift_fresh_copy", "aten.tensor")
def scalar(low: Lowering, value: Any, **_: Any) -> Traced:
    """A number as a tensor."""
    return low.tensor(value)


@row("aten.randn", "aten.randn_like", "aten.normal", "aten.normal_functional")
def noise(low: Lowering, *_: Any, **__: Any) -> Traced:
    """Noise that is drawn at every step."""
    return low.emit("noise", (), low.result())


@row("aten.rand", "aten.rand_like", "aten.uniform", "aten.bernoulli", "aten.exponential")
def positive_noise(low: Lowering, *_: Any, **__: Any) -> Traced:
    """Numbers with a mean that are drawn at every step, such as what stochastic depth keeps."""
    return low.emit("discrete", (), low.result())


def unchanged(low: Lowering, x: Traced, *_: Any, **__: Any) -> Traced:
    """The same tensor: copies, casts, dropout."""
    assert low.current is not None, "an operation is being lowered"
    if low.current.whole:
        return low.emit("discrete", (x,), x.shapes, whole=True)
    attributes = {"detached": True} if low.current.base == "aten.detach" else {}
    return low.emit("identity", (x,), x.shapes, low.current.whole, **attributes)


row(
    "aten.alias", "aten.detach", "aten.to", "aten._to_copy",
    "aten.type_as", "aten.dropout", "aten.feature_dropout", "aten.alpha_dropout",
    "aten.lift_fresh", "aten.float", "aten.native_dropout",
)(unchanged)  # fmt: skip


@row("aten._assert_tensor_metadata", "aten._assert_scalar", "aten.sym_constrain_range_for_size")
def nothing(low: Lowering, *_: Any, **__: Any) -> tuple[Traced, ...]:
    """Checks make no tensor."""
    return ()

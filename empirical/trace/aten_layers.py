"""Rows of whole layers: attention, norms, pooling, recurrence, losses."""

from __future__ import annotations

import math
from typing import Any

from sympy import Expr, S

from empirical.trace.aligned import Varying
from empirical.trace.aten_algebra import contract, linear, raised, reduced, scaled
from empirical.trace.aten_shapes import expanded
from empirical.trace.lowering import Lowering, Traced, row
from scaling.models.graph import Graph, Repeat

# --- attention ----------------------------------------------------------------------------------


@row("aten.scaled_dot_product_attention")
def attention(
    low: Lowering, q: Traced, k: Traced, v: Traced, mask: Traced | None = None, dropout: float =
    0.0, causal: bool = False, scale: Any = None, enable_gqa: bool = False,
) -> Traced:  # fmt: skip
    """Softmax(scale q k^T) v; the default scale is head_size^(-1/2), at the line of the call."""
    q, k, v = (low.fed(x) for x in (q, k, v))
    head = q.length(q.rank - 1)
    if scale is None:
        scale = Varying(tuple(1 / math.sqrt(d) for d in head))
    if enable_gqa:
        k, v = (_shared_heads(low, x, q) for x in (k, v))
    lead = "abcdefgh"[: q.rank - 2]
    logits = contract(low, f"{lead}YX,{lead}ZX->{lead}YZ", (q, k))
    logits = low.pointwise("multiply", logits, scale)
    if mask is not None:
        logits = (
            low.pointwise("select", mask, logits, low.emit(
                "constant", (), ((),) * len(low.sizes), exponent=S.Zero, value="-inf"))
            if mask.whole else low.pointwise("add", logits, mask)
        )  # fmt: skip
    weights = low.emit("softmax", (logits,), logits.shapes, axis=logits.rank - 1, log=False)
    return contract(low, f"{lead}YZ,{lead}ZX->{lead}YX", (weights, v))


def _shared_heads(low: Lowering, x: Traced, q: Traced) -> Traced:
    """Every head of keys or values, once for each head of queries that reads it."""
    at = x.rank - 3
    if x.length(at) == q.length(at):
        return x
    shapes = [
        ((*s[: at + 1], 1, *s[at + 1 :]), (*s[: at + 1], t[at] // s[at], *s[at + 1 :]),
         (*s[:at], t[at], *s[at + 1 :]))
        for s, t in zip(x.shapes, q.shapes, strict=True)
    ]  # fmt: skip
    single, copied, joined = (tuple(several) for several in zip(*shapes, strict=True))
    return low.reshape(expanded(low, low.reshape(x, single), copied), joined)


# --- norms --------------------------------------------------------------------------------------


def _affine(low: Lowering, x: Traced, axis: int, gain: Any, bias: Any) -> Traced:
    """Gain and bias along one axis (and those after it, as they are stored)."""
    for op, tensor in (("multiply", gain), ("add", bias)):
        if tensor is not None:
            laid = low.along(tensor, x, axis) if tensor.rank == 1 else tensor
            x = low.pointwise(op, x, laid)
    return x


def _normalised(low: Lowering, x: Traced, over: tuple[int, ...], centred: bool = True) -> Traced:
    return low.emit("normalise", (x,), x.shapes, over=over, centred=centred)


@row("aten.layer_norm", "aten.native_layer_norm")
def layer_norm(
    low: Lowering, x: Traced, shape: tuple[Any, ...], gain: Any = None, bias: Any = None, *_: Any
) -> Any:
    """Layer norm."""
    over = tuple(range(x.rank - len(shape), x.rank))
    found = _affine(low, _normalised(low, x, over), x.rank - 1, gain, bias)
    assert low.current is not None, "an operation is being lowered"
    return (found, None, None) if low.current.base == "aten.native_layer_norm" else found


@row("aten.rms_norm", "aten._fused_rms_norm")
def rms_norm(
    low: Lowering, x: Traced, shape: tuple[Any, ...], gain: Any = None, *_: Any, **__: Any
) -> Any:
    """RMS norm."""
    over = tuple(range(x.rank - len(shape), x.rank))
    found = _affine(low, _normalised(low, x, over, centred=False), x.rank - 1, gain, None)
    assert low.current is not None, "an operation is being lowered"
    return (found, None) if low.current.base == "aten._fused_rms_norm" else found


@row("aten.group_norm")
def group_norm(
    low: Lowering, x: Traced, count: Any, gain: Any = None, bias: Any = None, *_: Any
) -> Traced:
    """Group norm: over the channels of a group and space."""
    numbers = count.values if isinstance(count, Varying) else (count,) * len(low.sizes)
    split = tuple(
        (s[0], int(g), s[1] // int(g), *s[2:]) for s, g in zip(x.shapes, numbers, strict=True)
    )
    grouped = low.reshape(x, split)
    found = low.reshape(_normalised(low, grouped, tuple(range(2, grouped.rank))), x.shapes)
    return _affine(low, found, 1, gain, bias)


@row("aten.batch_norm", "aten._native_batch_norm_legit_functional", "aten._native_batch_norm_legit",
     "aten._batch_norm_with_update_functional", "aten.native_batch_norm")  # fmt: skip
def batch_norm(
    low: Lowering,
    x: Traced,
    gain: Any,
    bias: Any,
    mean: Any,
    variance: Any,
    training: Any = True,
    *_: Any,
) -> Any:
    """Batch norm: by the batch in training, by its buffers otherwise."""
    if training is False:
        found = low.pointwise("subtract", x, low.along(mean, x, 1))
        found = low.pointwise("divide", found, low.along(variance, x, 1))
    else:
        found = _normalised(low, x, tuple(i for i in range(x.rank) if i != 1))
    found = _affine(low, found, 1, gain, bias)
    assert low.current is not None, "an operation is being lowered"
    return found if low.current.base == "aten.batch_norm" else (found, None, None, None, None)


@row("aten.instance_norm")
def instance_norm(low: Lowering, x: Traced, gain: Any = None, bias: Any = None, *_: Any) -> Traced:
    """Instance norm: over space."""
    return _affine(low, _normalised(low, x, tuple(range(2, x.rank))), 1, gain, bias)


@row("aten._weight_norm", "aten._weight_norm_interface")
def weight_norm(low: Lowering, v: Traced, g: Traced, axis: int = 0) -> Any:
    """Direction v / |v| times gain g, the norm over all axes but one."""
    over = tuple(i for i in range(v.rank) if i != v.axis(axis))
    size = low.emit("reduce", (v,), v.without(*over, keep=True), kind="norm", over=over, keep=True)
    found = low.pointwise("multiply", low.pointwise("divide", v, size), g)
    assert low.current is not None, "an operation is being lowered"
    return found if low.current.base == "aten._weight_norm" else (found, None)


# --- pooling ------------------------------------------------------------------------------------


def _pool(kind: str, count: int) -> Any:
    def pool(low: Lowering, x: Traced, kernel: Any, *_: Any, **__: Any) -> Any:
        assert low.current is not None, "an operation is being lowered"
        over = tuple(range(x.rank - count, x.rank))
        shapes = low.result()
        if "adaptive" in low.current.base:
            window = tuple(
                low.exponent([a[i] / b[i] for a, b in zip(x.shapes, shapes, strict=True)])
                for i in over
            )
        else:
            several = kernel if isinstance(kernel, tuple) else (kernel,)
            sides = several * count if len(several) == 1 else several
            window = tuple(_grown(low, side) for side in sides)
        return low.emit("pool", (x,), shapes, kind=kind, over=over, window=window)

    return pool


def _grown(low: Lowering, side: Any) -> Expr:
    return low.exponent(side.values if isinstance(side, Varying) else (side,) * len(low.sizes))


for _count in (1, 2, 3):
    row(f"aten.avg_pool{_count}d", f"aten.adaptive_avg_pool{_count}d")(_pool("mean", _count))
    row(f"aten.max_pool{_count}d")(_pool("max", _count))


@row("aten.glu")
def gated(low: Lowering, x: Traced, axis: int = -1) -> Traced:
    """One half times the sigmoid of the other."""
    axis = x.axis(axis)
    half = x.replaced(axis, tuple(n // 2 for n in x.length(axis)))
    n = half[0][axis]
    one, other = (
        low.emit("slice", (x,), half, axis=axis, start=k * n, stop=k * n + n) for k in range(2)
    )
    return low.pointwise("multiply", one, low.emit("apply", (other,), half, function="sigmoid"))


# --- recurrence ---------------------------------------------------------------------------------


def _cell(
    kind: str, low: Lowering, given: Traced, state: list[Traced], w: Traced, b: Any
) -> list[Traced]:
    """One step: the gates of the input, the state, the matrix of the state and its bias."""
    back = linear(low, state[0], w, b)
    gates = {"gru": 3, "lstm": 4, "tanh": 1, "relu": 1}[kind]
    length = tuple(n // gates for n in back.length(back.rank - 1))

    def gate(x: Traced, k: int) -> Traced:
        shapes, n = x.replaced(x.rank - 1, length), length[0]
        if gates == 1:
            return x
        return low.emit("slice", (x,), shapes, axis=x.rank - 1, start=k * n, stop=k * n + n)

    def apply(name: str, x: Traced) -> Traced:
        return low.emit("apply", (x,), x.shapes, function=name)

    def both(k: int) -> Traced:
        return low.pointwise("add", gate(given, k), gate(back, k))

    if kind == "lstm":
        into, keep, out = (apply("sigmoid", both(k)) for k in (0, 1, 3))
        new = apply("tanh", both(2))
        memory = low.pointwise(
            "add", low.pointwise("multiply", keep, state[1]), low.pointwise("multiply", into, new)
        )
        return [low.pointwise("multiply", out, apply("tanh", memory)), memory]
    if kind == "gru":
        reset, update = (apply("sigmoid", both(k)) for k in range(2))
        inner = low.pointwise(
            "add", gate(given, 2), low.pointwise("multiply", reset, gate(back, 2))
        )
        new = apply("tanh", inner)
        change = low.pointwise("multiply", update, low.pointwise("subtract", state[0], new))
        return [low.pointwise("add", new, change)]
    return [apply(kind, both(0))]


@row("aten.gru_cell", "aten.lstm_cell", "aten.rnn_tanh_cell", "aten.rnn_relu_cell")
def cell(
    low: Lowering, x: Traced, state: Any, w: Traced, u: Traced, b: Any = None, c: Any = None
) -> Any:
    """One step of a recurrent cell."""
    assert low.current is not None, "an operation is being lowered"
    kind = low.current.base.removeprefix("aten.").removeprefix("rnn_").removesuffix("_cell")
    several = list(state) if isinstance(state, tuple) else [state]
    found = _cell(kind, low, linear(low, x, w, b), several, u, c)
    return tuple(found) if kind == "lstm" else found[0]


@row("aten.gru", "aten.lstm", "aten.rnn_tanh", "aten.rnn_relu")
def recurrent(
    low: Lowering, x: Traced, state: Any, weights: tuple[Traced, ...], has_bias: bool, layers: int,
    dropout: float, training: bool, bidirectional: bool, batch_first: bool,
) -> tuple[Any, ...]:  # fmt: skip
    """Layers of a recurrent network: one repeat over the sequence for each layer and direction."""
    assert low.current is not None, "an operation is being lowered"
    kind = low.current.base.removeprefix("aten.").removeprefix("rnn_")
    states = list(state) if isinstance(state, tuple) else [state]
    each = (4 if has_bias else 2) + (len(weights) % (4 if has_bias else 2) != 0)
    directions = 2 if bidirectional else 1
    time = 1 if batch_first and x.rank == 3 else 0
    last: list[Traced] = []
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            start = each * (layer * directions + direction)
            w, u, *biases = weights[start : start + each]
            b, c = (biases[0], biases[1]) if has_bias else (None, None)
            given = linear(low, x, w, b)
            one = low.emit("slice", (given,), given.without(time, keep=True), axis=time)
            one = low.reshape(one, given.without(time))
            begin = [_first_state(low, s, one, u) for s in states]
            carried = _scan(low, kind, one, begin, u, c, x.length(time))
            last = carried
            grid = tuple((*s[:time], 1, *s[time:]) for s in carried[0].shapes)
            whole = tuple(
                (*s[:time], n, *s[time:])
                for s, n in zip(carried[0].shapes, x.length(time), strict=True)
            )
            outputs.append(expanded(low, low.reshape(carried[0], grid), whole))
        if directions == 1:
            x = outputs[0]
        else:
            joined = tuple((*s[:-1], 2 * s[-1]) for s in outputs[0].shapes)
            x = low.emit("concatenate", outputs, joined, axis=outputs[0].rank - 1)
    return (x, *(_all_layers(low, h, layers * directions) for h in last))


def _all_layers(low: Lowering, h: Traced, count: int) -> Traced:
    """The last states of all layers: alike in size."""
    one = low.reshape(h, tuple((1, *s) for s in h.shapes))
    return expanded(low, one, tuple((count, *s) for s in h.shapes))


def _first_state(low: Lowering, state: Traced, given: Traced, u: Traced) -> Traced:
    """The state before the first step, of one layer."""
    shapes = tuple((*s[:-1], w[1]) for s, w in zip(given.shapes, u.shapes, strict=True))
    one = low.emit("slice", (state,), state.without(0, keep=True), axis=0)
    return low.reshape(one, shapes)


def _scan(
    low: Lowering, kind: str, given: Traced, states: list[Traced], u: Traced, bias: Any,
    length: tuple[int, ...],
) -> list[Traced]:  # fmt: skip
    """The state after all steps: a repeat whose weights are the same at every pass."""
    outer = [*states, given, u, *([] if bias is None else [bias])]
    nodes, low.nodes = low.nodes, []
    inner = [low.emit("argument", (), x.shapes, position=i) for i, x in enumerate(outer)]
    count = len(states)
    found = _cell(
        kind, low, inner[count], inner[:count], inner[count + 1],
        inner[count + 2] if bias is not None else None,
    )  # fmt: skip
    body = Graph(low.axis, tuple(low.nodes), (), tuple(x.name for x in found))
    low.nodes = nodes
    repeat = Repeat(body, low.exponent(length))
    first = low.emit("repeat", outer, states[0].shapes, repeat=repeat)
    rest = [low.emit("item", (first,), s.shapes, index=i) for i, s in enumerate(states[1:], 1)]
    return [first, *rest]


# --- losses -------------------------------------------------------------------------------------

NONE, MEAN, SUM = 0, 1, 2


@row("aten.cross_entropy_loss")
def cross_entropy(
    low: Lowering,
    logits: Traced,
    target: Traced,
    weight: Any = None,
    reduction: int = MEAN,
    *_: Any,
) -> Traced:
    """Cross-entropy, the mean or the sum over everything that is left, or neither."""
    axis = 1 if logits.rank > 1 else 0
    if reduction == NONE:
        logs = low.emit("softmax", (logits,), logits.shapes, axis=axis, log=True)
        return low.pointwise("multiply", _at_targets(low, logs, target, axis), -1)
    found = low.emit("cross_entropy", (logits, target), ((),) * len(low.sizes), axis=axis)
    return _reduced(low, found, target, reduction)


@row("aten.mse_loss", "aten.huber_loss", "aten.smooth_l1_loss")
def squared_error(
    low: Lowering, output: Traced, target: Traced, reduction: int = MEAN, *_: Any
) -> Traced:
    """Mean squared error, or the errors themselves; Huber's loss has its exponents."""
    if reduction == NONE:
        return raised(low, low.pointwise("subtract", output, target), 2)
    found = low.emit("mean_squared_error", (output, target), ((),) * len(low.sizes))
    return _reduced(low, found, output, reduction)


@row("aten.nll_loss", "aten.nll_loss_nd")
def negative_log_likelihood(
    low: Lowering, logs: Traced, target: Traced, weight: Any = None, reduction: int = MEAN, *_: Any
) -> Traced:
    """The mean of minus the logarithms at the targets."""
    picked = _at_targets(low, logs, target, 1)
    over = tuple(range(picked.rank))
    if reduction != NONE:
        kind = "mean" if reduction == MEAN else "sum"
        picked = low.emit(
            "reduce", (picked,), ((),) * len(low.sizes), kind=kind, over=over, keep=False
        )
    return low.pointwise("multiply", picked, -1)


def _at_targets(low: Lowering, logs: Traced, target: Traced, axis: int) -> Traced:
    """Logarithms at the targets, or weighted by their probabilities."""
    if not target.whole:
        weighted = low.pointwise("multiply", logs, target)
        return reduced(low, "sum", weighted, axis)
    at = low.reshape(target, tuple((*s[:axis], 1, *s[axis:]) for s in target.shapes))
    picked = low.emit("take_along", (logs, at), at.shapes, axis=axis)
    return low.reshape(picked, target.shapes)


def _reduced(low: Lowering, mean: Traced, like: Traced, reduction: int) -> Traced:
    if reduction == MEAN:
        return mean
    if reduction == SUM:
        return scaled(low, mean, Varying(tuple(math.prod(s) for s in like.shapes)))
    raise low.refused(
        f"a loss whose reduction is number {reduction}", "none, a mean or a sum", "take the mean"
    )
